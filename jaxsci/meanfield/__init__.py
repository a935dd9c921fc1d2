"""Particle Fokker-Planck equations and mean field games: ensembles, their densities, and control problems coupled to them.

A user evolves an ensemble by `jaxsci.evolution.evolve` on a `Box`, estimates its density by `SpectralKDE`, solves the
same problem on a `Grid`, couples it to a control problem in a `MeanFieldGame`, and fits drift and diffusion to observed
densities by `DensitySnapshots`.
"""

import lazy_loader

# The names are those of __init__.pyi, each imported at its first use: finding the task of a config must not import all.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
