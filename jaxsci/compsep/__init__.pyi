"""Parametric separation of the CMB from its foregrounds: spectra, mixing matrices, fits over the sky.

A user puts spectra into a `MixingMatrix` and calls `separate` with maps of several frequencies, or one of the recipes
that users of fgbuster know, `ilc`, `harmonic_comp_sep`, `xForecast`; `separate_blocks` takes skies larger than memory.
`Sky.of` is the checked door for maps, and `SkyDataset` their likelihood for `jaxsci.fit`. `compsep.io` reads and writes
FITS maps, `compsep.plot` draws, `compsep.algebra` has the formulae of one pixel.
"""

from . import algebra as algebra, io as io, plot as plot
from ._disk.results import StoredSeparation as StoredSeparation
from ._disk.separate_blocks import separate_blocks as separate_blocks
from ._fit.dataset import SkyDataset as SkyDataset
from ._forecast import (
    Forecast as Forecast,
    Spectra as Spectra,
    harmonic_xForecast as harmonic_xForecast,
    xForecast as xForecast,
)
from ._instrument import Bands as Bands, Instrument as Instrument, instruments as instruments
from ._kmeans import kmeans as kmeans, soft_kmeans as soft_kmeans
from ._linear.harmonic import (
    Harmonics as Harmonics,
    HarmonicSeparation as HarmonicSeparation,
    harmonic_comp_sep as harmonic_comp_sep,
    harmonic_ilc as harmonic_ilc,
    harmonics as harmonics,
    synthesise as synthesise,
)
from ._linear.ilc import Combination as Combination, ilc as ilc
from ._linear.needlets import (
    NeedletCombination as NeedletCombination,
    needlet_bands as needlet_bands,
    nilc as nilc,
)
from ._linear.resolution import Smoothed as Smoothed, common_resolution as common_resolution
from ._mixing import Calibration as Calibration, Channel as Channel, MixingMatrix as MixingMatrix
from ._noise import UNSEEN as UNSEEN
from ._patches import SoftPatches as SoftPatches
from ._separate import (
    adaptive_comp_sep as adaptive_comp_sep,
    basic_comp_sep as basic_comp_sep,
    multi_res_comp_sep as multi_res_comp_sep,
    separate as separate,
    weighted_comp_sep as weighted_comp_sep,
)
from ._separation import Separation as Separation
from ._sky import Sky as Sky
from ._spectra import (
    AME as AME,
    CMB as CMB,
    AbstractSED as AbstractSED,
    AnalyticSED as AnalyticSED,
    FreeFree as FreeFree,
    ModifiedBlackBody as ModifiedBlackBody,
    MomentExpansion as MomentExpansion,
    PowerLaw as PowerLaw,
    TabulatedSED as TabulatedSED,
    ThermalSZ as ThermalSZ,
)
from ._units import conversion as conversion
