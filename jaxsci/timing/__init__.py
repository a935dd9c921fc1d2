"""Pulsar timing: par files and times of arrival in, fitted models out."""

import lazy_loader

# The names are those of __init__.pyi, each imported at its first use: `jaxsci --help` shows the commands of `commands.py`
# and must not wait for jax.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
