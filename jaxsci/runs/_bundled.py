"""Which data files and configs ship with the package.

In its own module because the completion of a shell asks for their names and must not wait for jax: nothing here imports
more than the standard library. Configs and `jaxsci list configs` ask as well.
"""

import importlib.resources
from pathlib import Path

_KINDS = (".dat", ".csv", ".parquet", ".npy", ".npz", ".h5", ".toml", ".par", ".xz", ".fits")


def bundled_files() -> dict[str, Path]:
    """List every bundled data file and config by its name, such as `nist/Hahn1.dat` or `curvefit/own-data.toml`."""
    return _below(_package() / "data") | bundled_configs()


def bundled_configs() -> dict[str, Path]:
    """List every bundled config by its name, such as `curvefit/own-data.toml`."""
    package = _package()
    # A wheel carries the configs inside the package; a checkout has them beside it.
    return _below(package / "configs" if (package / "configs").is_dir() else package.parent / "configs")


def _package() -> Path:
    return Path(str(importlib.resources.files("jaxsci")))


def _below(root: Path) -> dict[str, Path]:
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.suffix in _KINDS}
