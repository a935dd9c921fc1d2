from ._bandwidth import (
    ISJ as ISJ,
    AbstractBandwidth as AbstractBandwidth,
    Fixed as Fixed,
    Scott as Scott,
    Silverman as Silverman,
    Spread as Spread,
)
from ._boundary import Box as Box, Grid as Grid
from ._calibrate import (
    DensitySnapshots as DensitySnapshots,
    maximum_mean_discrepancy as maximum_mean_discrepancy,
    wasserstein as wasserstein,
)
from ._capabilities import Capabilities as Capabilities, capabilities as capabilities
from ._costs import Estimate as Estimate, Problem as Problem, estimate as estimate
from ._density import (
    AbstractDensity as AbstractDensity,
    BinnedKDE as BinnedKDE,
    DenseKDE as DenseKDE,
    Density as Density,
    Histogram as Histogram,
    SpectralKDE as SpectralKDE,
)
from ._drift import (
    Attraction as Attraction,
    Constant as Constant,
    DoubleWell as DoubleWell,
    Geometric as Geometric,
    Gradient as Gradient,
    OnGrid as OnGrid,
    OrnsteinUhlenbeck as OrnsteinUhlenbeck,
    Washboard as Washboard,
    from_value as from_value,
)
from ._exits import ExitTimes as ExitTimes, exit_times as exit_times
from ._finite_volume import DensityPath as DensityPath, solve_fokker_planck as solve_fokker_planck
from ._game import (
    Anderson as Anderson,
    Equilibrium as Equilibrium,
    LinearQuadraticEquilibrium as LinearQuadraticEquilibrium,
    LinearQuadraticGame as LinearQuadraticGame,
    MeanField as MeanField,
    MeanFieldGame as MeanFieldGame,
    Response as Response,
    picard as picard,
    respond as respond,
    solve_game as solve_game,
)
from ._hamilton_jacobi import (
    AbstractHamiltonian as AbstractHamiltonian,
    Quadratic as Quadratic,
    ValuePath as ValuePath,
    solve_hamilton_jacobi as solve_hamilton_jacobi,
)
from ._initial import (
    FromDensity as FromDensity,
    Gaussian as Gaussian,
    Rejection as Rejection,
    Uniform as Uniform,
    density_on as density_on,
)
from ._interpolation import interpolate as interpolate
from ._select import (
    Choice as Choice,
    EvolvedDensity as EvolvedDensity,
    choose as choose,
    evolve_density as evolve_density,
)
