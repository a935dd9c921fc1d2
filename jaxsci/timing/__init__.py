"""Pulsar timing: par files and times of arrival in, fitted models out.

A model and TOAs come from `load` (par and tim files) or `bundled`; `fit` and `fit_array` fit them by generalised least
squares with all the noise of the par file, and `write_par` writes what was found. `stack`, `chi2` and `log_likelihood`
are for programs of one's own under `jax.jit`, `jax.vmap` and `jax.grad`. Numbers are those of PINT.
"""

import lazy_loader

# The names are those of __init__.pyi, each imported at its first use: `jaxsci --help` shows the commands of `commands.py`
# and must not wait for jax.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
