"""What a shell offers when a name is half typed: `jaxsci --install-completion` sets it up.

A shell calls these each time that a key is pressed, so nothing here may import jax.
"""

import contextlib
from pathlib import Path

from ..runs import bundled_configs, sciences


def configs(incomplete: str) -> list[str]:
    """The bundled configs and the TOML files below the folder that is being typed."""
    bundled = [f"bundled:{name}" for name in bundled_configs()]
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    shown: list[str] = []
    with contextlib.suppress(OSError):  # there is no such folder, or it is not ours to read
        files = sorted(item for item in folder.iterdir() if item.is_dir() or item.suffix == ".toml")
        shown = [f"{item}/" if item.is_dir() else str(item) for item in files]
    return [name for name in (*shown, *bundled) if name.startswith(incomplete)]


def starters(incomplete: str) -> list[str]:
    """The sciences that `jaxsci new` starts with."""
    return [name for name in sciences() if name.startswith(incomplete)]
