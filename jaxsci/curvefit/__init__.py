"""Curve fitting through the doors that users of scipy know, and a library of models.

`curve_fit` and `least_squares` take scipy's arguments and fit by `jaxsci.fit`; the models, `estimate`, `multi_start`
and `confidence_interval` serve any fit. Users call all of them from `jaxsci.curvefit`; `jaxsci run` finds this science
by its `task`.
"""

import lazy_loader

# The names are those of __init__.pyi, each imported at its first use: finding the task of a config must not import all.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
