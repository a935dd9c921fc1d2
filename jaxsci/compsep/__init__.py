"""Parametric separation of the CMB from its foregrounds: spectra, mixing matrices, fits over the sky.

A user puts spectra into a `MixingMatrix` and calls `separate` with maps of several frequencies, or one of the recipes
that users of fgbuster know, `ilc`, `harmonic_comp_sep`, `xForecast`; `separate_blocks` takes skies larger than memory.
`Sky.of` is the checked door for maps, and `SkyDataset` their likelihood for `jaxsci.fit`. `compsep.io` reads and writes
FITS maps, `compsep.plot` draws, `compsep.algebra` has the formulae of one pixel.
"""

import lazy_loader

# The names are those of __init__.pyi, each imported at its first use: finding the task of a config must not import all.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
