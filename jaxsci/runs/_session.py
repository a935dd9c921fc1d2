"""The process of a run: double precision, the device, the compile cache.

Commands call `prepare` before anything else; importing jaxsci sets none of this, because a program of the user's own
may have chosen otherwise.
"""

import platform
import warnings
from typing import Any

import equinox
import jax
import jaxlib
import numpy
import optimistix

from ..core import enable_x64
from ..parallel import use_compile_cache
from ._errors import ConfigError

DEVICES = ("auto", "cpu", "gpu")


def prepare(device: str) -> dict[str, Any]:
    """Switch on double precision and the compile cache, and choose the device.

    **Arguments:** `device`: `"auto"` (what is there), `"cpu"`, or `"gpu"`, which is an error where there is none.

    **Returns:** what was asked and what is used, for the results.
    """
    enable_x64()
    _use_compile_cache()
    if device not in DEVICES:
        raise ConfigError("--device", f"should be one of {', '.join(DEVICES)}, but it is {device!r}")
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    chosen = _gpu() if device == "gpu" else jax.devices()[0]
    return {
        "asked": device,
        "platform": chosen.platform,
        "kind": chosen.device_kind,
        "count": len(jax.devices(chosen.platform)),
        "x64": True,
    }


def versions() -> dict[str, str]:
    """List the versions of what the numbers depend on."""
    from .. import __version__

    packages = {p.__name__: p.__version__ for p in (jax, jaxlib, equinox, optimistix, numpy)}
    return {"jaxsci": __version__, "python": platform.python_version(), "platform": platform.platform(), **packages}


def _gpu() -> Any:
    try:
        return jax.devices("gpu")[0]
    except RuntimeError as error:
        raise ConfigError(
            "--device gpu",
            "JAX finds no GPU here. Install the CUDA build (pip install 'jaxsci[cuda]') on a machine with an NVIDIA "
            "driver, unset JAX_PLATFORMS if it names another platform, or use --device auto",
        ) from error


def _use_compile_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless a folder is set already (JAX_COMPILATION_CACHE_DIR)."""
    try:
        use_compile_cache()
    except OSError as error:  # a home that is read-only costs time, not the run
        warnings.warn(f"compiled programs are not kept for the next run: {error}", stacklevel=2)
