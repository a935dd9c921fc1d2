"""The NIST StRD problems of nonlinear regression: files with certified answers, a reader of them, and their models."""

import lazy_loader

# whether a data file is one of NIST's is asked of each, and needs none of the models
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
