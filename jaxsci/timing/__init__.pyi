"""Pulsar timing: par files and times of arrival in, fitted models out.

A model and TOAs come from `load` (par and tim files) or `bundled`; `fit` and `fit_array` fit them by generalised least
squares with all the noise of the par file, and `write_par` writes what was found. `stack`, `chi2` and `log_likelihood`
are for programs of one's own under `jax.jit`, `jax.vmap` and `jax.grad`. Numbers are those of PINT.
"""

from . import plot as plot
from ._anchor import AnchoredTOAs as AnchoredTOAs, anchor as anchor
from ._array import fit_array as fit_array
from ._components import TimingNoise as TimingNoise
from ._derived import (
    FORMULAS as FORMULAS,
    Derived as Derived,
    companion_mass as companion_mass,
    derived as derived,
    quantities as quantities,
)
from ._fit import Correlation as Correlation, TimingSolution as TimingSolution, fit as fit, residuals as residuals
from ._grid import chi2_grid as chi2_grid
from ._likelihood import chi2 as chi2, log_likelihood as log_likelihood
from ._model import TimingModel as TimingModel
from ._par_out import par_text as par_text, write_par as write_par
from ._residuals.averages import EpochAverages as EpochAverages, averages as averages
from ._residuals.realisation import (
    NoiseRealisation as NoiseRealisation,
    Realised as Realised,
    noise_realisation as noise_realisation,
)
from ._residuals.whitened import whitened as whitened
from ._simulate import simulate as simulate
from ._stack import Stack as Stack, stack as stack
from ._toas import TOAs as TOAs
from .io import bundled as bundled, load as load, schedule as schedule
