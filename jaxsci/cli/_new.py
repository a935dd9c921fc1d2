"""`jaxsci new`: a folder to start from, which runs as it is.

Each science may bring one (`AbstractTask.starter`): a config `fit.toml` and, beside it, data and a module with classes
of the researcher's own.
"""

from pathlib import Path

from ..core import suggest
from ..runs import ConfigError, sciences, task_named, write_whole


def new(kind: str, folder: Path | None) -> str:
    """Copy the starter of a science into a folder.

    **Returns:** the command that runs it.

    **Raises:** `ConfigError` for an unknown science, or where a file of that name exists: nothing is written then.
    """
    starter = task_named(kind).starter() if kind in sciences() else None
    if starter is None:
        kinds = [name for name in sciences() if task_named(name).starter() is not None]
        raise ConfigError("new", f"there is no starter {kind!r}{suggest(kind, kinds)} ({', '.join(kinds)})")
    target = Path(kind) if folder is None else folder
    files = [item for item in sorted(starter.iterdir()) if item.is_file()]
    for item in files:
        if (target / item.name).exists():
            raise ConfigError("new", f"{target / item.name} exists already and is left as it is: choose another folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "there is a file of that name" if target.is_file() else error.strerror
        raise ConfigError("new", f"the folder {target} cannot be made: {why}; name another one") from error
    for item in files:
        write_whole(target / item.name, item.read_text(encoding="utf-8"))
    imports = [f" --import {_quoted(target / item.name)}" for item in files if item.suffix == ".py"]
    return f"jaxsci run {_quoted(target / 'fit.toml')}{''.join(imports)}"


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)
