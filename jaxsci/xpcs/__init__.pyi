from . import io as io, plot as plot
from ._calibrate import (
    Calibration as Calibration,
    Rings as Rings,
    calibrate as calibrate,
    find_centre as find_centre,
)
from ._correlators.correlate import Correlated as Correlated, correlate as correlate
from ._correlators.covariance import (
    G2Covariance as G2Covariance,
    combined as combined,
    jackknife_blocks as jackknife_blocks,
    jackknife_static as jackknife_static,
    stacked as stacked,
)
from ._correlators.events import EventMultiTau as EventMultiTau, Events as Events, EventState as EventState
from ._correlators.multitau import MultiTau as MultiTau, MultiTauState as MultiTauState
from ._correlators.sums import BinSums as BinSums, Counts as Counts, PixelSums as PixelSums, schedule as schedule
from ._correlators.twotime import (
    DiagonalG2 as DiagonalG2,
    TwoTime as TwoTime,
    TwoTimeMap as TwoTimeMap,
    TwoTimeState as TwoTimeState,
)
from ._filters import (
    gaussian_filter as gaussian_filter,
    interp1d as interp1d,
)
from ._geometry import (
    AbstractGeometry as AbstractGeometry,
    ReflectionGeometry as ReflectionGeometry,
    TransmissionGeometry as TransmissionGeometry,
    cached_map as cached_map,
    detector_axes as detector_axes,
    q_at as q_at,
    q_by_sine as q_by_sine,
)
from ._global import (
    Curves as Curves,
    Dispersion as Dispersion,
    fit_g2 as fit_g2,
    fit_power_law as fit_power_law,
    starts_of as starts_of,
)
from ._mask import (
    AbstractMask as AbstractMask,
    And as And,
    BadPixels as BadPixels,
    Blemish as Blemish,
    Circle as Circle,
    Ellipse as Ellipse,
    Line as Line,
    MapRange as MapRange,
    MaskHistory as MaskHistory,
    Not as Not,
    Or as Or,
    Outliers as Outliers,
    PixelMask as PixelMask,
    Polygon as Polygon,
    Rectangle as Rectangle,
    Threshold as Threshold,
    View as View,
)
from ._mask_file import (
    MASKS as MASKS,
    masks_from_tables as masks_from_tables,
    read_masks as read_masks,
    tables_of_masks as tables_of_masks,
    write_masks as write_masks,
)
from ._master import (
    MasterCurve as MasterCurve,
    master_curve as master_curve,
)
from ._models import (
    AbstractG2 as AbstractG2,
    DispersedExponential as DispersedExponential,
    DoubleExponential as DoubleExponential,
    DoubleField as DoubleField,
    Logarithm as Logarithm,
    Outline as Outline,
    PowerLaw as PowerLaw,
    Siegert as Siegert,
    SingleExponential as SingleExponential,
    StretchedExponential as StretchedExponential,
    tau_two_inside as tau_two_inside,
    tau_two_outside as tau_two_outside,
    tau_with_two as tau_with_two,
    tau_without_two as tau_without_two,
)
from ._partition import (
    Axis as Axis,
    Cut as Cut,
    Labels as Labels,
    Partition as Partition,
    cut_map as cut_map,
    label_pixels as label_pixels,
    labels_of as labels_of,
    partition as partition,
)
from ._photon_counts import (
    NegativeBinomial as NegativeBinomial,
    PhotonCounts as PhotonCounts,
    Speckle as Speckle,
)
from ._poni import (
    read_poni as read_poni,
    write_poni as write_poni,
)
from ._qmap_file import (
    QMap as QMap,
    fill_qmap as fill_qmap,
    qmap_of as qmap_of,
    read_qmap as read_qmap,
    write_qmap as write_qmap,
)
from ._result import (
    Pixels as Pixels,
    Scattering as Scattering,
    TwoTimeMaps as TwoTimeMaps,
    XPCSResult as XPCSResult,
    result_of as result_of,
)
from ._saxs import (
    Curve as Curve,
    Exposure as Exposure,
    Region as Region,
    mean_by_bin as mean_by_bin,
    normalise as normalise,
    normalised as normalised,
    region_mean as region_mean,
    ring as ring,
    saxs as saxs,
    saxs_over_time as saxs_over_time,
    subtract_background as subtract_background,
    wedge as wedge,
    write_columns as write_columns,
)
from ._series import (
    Averaged as Averaged,
    Spectrum as Spectrum,
    Stability as Stability,
    average_runs as average_runs,
    correlation as correlation,
    intensity_spectrum as intensity_spectrum,
    normalise_g2 as normalise_g2,
    stability as stability,
    steady as steady,
    typical as typical,
)
from ._simulate import SimulatedFrames as SimulatedFrames, write_frames as write_frames
from .io import (
    read_layout as read_layout,
    read_result as read_result,
    write_result as write_result,
)
