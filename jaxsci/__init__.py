"""Fit, sample and evolve models over thousands of data sets, in JAX."""

import lazy_loader

# The names are those of __init__.pyi, each imported at its first use: `jaxsci --help` must not wait for jax.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
