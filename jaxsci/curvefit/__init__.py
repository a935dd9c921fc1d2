"""Curve fitting through the doors that users of scipy know, and a library of models."""

import lazy_loader

# The names are those of __init__.pyi, each imported at its first use: finding the task of a config must not import all.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
