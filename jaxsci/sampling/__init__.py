"""From fits to posteriors: the No-U-Turn sampler, started and whitened by the least squares, for one fit or thousands.

A user calls `sample` with what `fit` or `fit_batch` answered, and reads the `Posterior`. Bounds, priors, loss and
likelihood are those of the fit. numpyro and ArviZ are an extra, `pip install 'jaxsci[sampling]'`, and load inside.
"""

import lazy_loader

# The names are those of __init__.pyi, each imported at its first use: nothing of a sampler is needed to fit.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
