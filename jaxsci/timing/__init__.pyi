"""Pulsar timing: par files and times of arrival in, fitted models out."""

from . import plot as plot
from ._anchor import AnchoredTOAs as AnchoredTOAs, anchor as anchor
from ._array import fit_array as fit_array
from ._fit import TimingSolution as TimingSolution, fit as fit, residuals as residuals
from ._grid import chi2_grid as chi2_grid
from ._likelihood import chi2 as chi2, log_likelihood as log_likelihood
from ._model import TimingModel as TimingModel
from ._noise import TimingNoise as TimingNoise
from ._par_out import par_text as par_text, write_par as write_par
from ._simulate import simulate as simulate
from ._stack import Stack as Stack, stack as stack
from ._toas import TOAs as TOAs
from ._whitened import whitened as whitened
from .io import bundled as bundled, load as load
