"""Parametric separation of the CMB from its foregrounds: spectra, mixing matrices, fits over the sky."""

from . import algebra as algebra, io as io, plot as plot
from ._analytic import AnalyticSED as AnalyticSED
from ._bandpass import Bands as Bands
from ._blocks import separate_blocks as separate_blocks
from ._forecast import (
    Forecast as Forecast,
    Spectra as Spectra,
    harmonic_xForecast as harmonic_xForecast,
    xForecast as xForecast,
)
from ._harmonic import (
    Harmonics as Harmonics,
    harmonic_ilc as harmonic_ilc,
    harmonics as harmonics,
    synthesise as synthesise,
)
from ._harmonic_fit import HarmonicSeparation as HarmonicSeparation, harmonic_comp_sep as harmonic_comp_sep
from ._ilc import Combination as Combination, ilc as ilc
from ._instrument import Instrument as Instrument, instruments as instruments
from ._kmeans import kmeans as kmeans, soft_kmeans as soft_kmeans
from ._likelihood import Maps as Maps, Sky as Sky
from ._mixing import MixingMatrix as MixingMatrix
from ._noise import UNSEEN as UNSEEN
from ._recipes import (
    adaptive_comp_sep as adaptive_comp_sep,
    basic_comp_sep as basic_comp_sep,
    multi_res_comp_sep as multi_res_comp_sep,
    weighted_comp_sep as weighted_comp_sep,
)
from ._sed import (
    AME as AME,
    CMB as CMB,
    AbstractSED as AbstractSED,
    FreeFree as FreeFree,
    ModifiedBlackBody as ModifiedBlackBody,
    MomentExpansion as MomentExpansion,
    PowerLaw as PowerLaw,
    TabulatedSED as TabulatedSED,
    ThermalSZ as ThermalSZ,
)
from ._separate import separate as separate
from ._separation import Separation as Separation
from ._soft import SoftPatches as SoftPatches
from ._stored import StoredSeparation as StoredSeparation
from ._units import conversion as conversion
