"""`jaxsci new`: a folder to start from, which runs as it is."""

import importlib.resources
from pathlib import Path

from ..core import suggest
from ._errors import ConfigError
from ._files import write_whole


def new(kind: str, folder: Path | None) -> str:
    """Copy the starter of a kind into a folder.

    **Returns:** the command that runs it.

    **Raises:** `ConfigError` for an unknown kind, or where a file of that name exists: nothing is written then.
    """
    templates = importlib.resources.files("jaxsci.cli").joinpath("templates")
    kinds = sorted(item.name for item in templates.iterdir() if item.is_dir() and not item.name.startswith("_"))
    if kind not in kinds:
        raise ConfigError("new", f"there is no starter {kind!r}{suggest(kind, kinds)} ({', '.join(kinds)})")
    target = Path(kind) if folder is None else folder
    files = [item for item in templates.joinpath(kind).iterdir() if item.is_file()]
    for item in files:
        if (target / item.name).exists():
            raise ConfigError("new", f"{target / item.name} exists already and is left as it is: choose another folder")
    for item in files:
        write_whole(target / item.name, item.read_text(encoding="utf-8"))
    return f"jaxsci run {_quoted(target / 'fit.toml')} --import {_quoted(target / 'my_models.py')}"


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)
