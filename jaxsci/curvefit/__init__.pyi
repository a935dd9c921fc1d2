"""Curve fitting through the doors that users of scipy know, and a library of models.

`curve_fit` and `least_squares` take scipy's arguments and fit by `jaxsci.fit`; the models, `estimate`, `multi_start`
and `confidence_interval` serve any fit. Users call all of them from `jaxsci.curvefit`; `jaxsci run` finds this science
by its `task`.
"""

from ._curve_fit import curve_fit as curve_fit
from ._functions import (
    BiExponential as BiExponential,
    Constant as Constant,
    Exponential as Exponential,
    Gaussian as Gaussian,
    Gaussian2D as Gaussian2D,
    Gompertz as Gompertz,
    Hill as Hill,
    Line as Line,
    Logistic as Logistic,
    Lognormal as Lognormal,
    Lorentzian as Lorentzian,
    MichaelisMenten as MichaelisMenten,
    Moffat as Moffat,
    Polynomial as Polynomial,
    PowerLaw as PowerLaw,
    Sinusoid as Sinusoid,
    StretchedExponential as StretchedExponential,
    Voigt as Voigt,
)
from ._interval import Interval as Interval, confidence_interval as confidence_interval, r_squared as r_squared
from ._least_squares import LeastSquares as LeastSquares, least_squares as least_squares
from ._log import Logged as Logged, Step as Step, print_step as print_step
from ._multi_start import MultiStart as MultiStart, multi_start as multi_start, sobol as sobol
from ._region import Region as Region, confidence_region as confidence_region
from ._starts import estimate as estimate
