"""What a config of `task = "meanfield"` may name: drifts, noises, starts, steppers, densities, and the parts of a game.

Beside the classes of the library there are a few that only a config needs, because in Python one writes a function:
`Waves` and `Bowl` as costs of a place. A class of one's own enters by `--import`: a drift as a subclass of
`jaxsci.evolution.AbstractDrift`, a cost or a potential as one of `jaxsci.AbstractModel`, all else as a subclass of the
class that its kind names.
"""

import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from ...core import AbstractModel, Scalar, param
from ...evolution import (
    AbstractDiffusion,
    AbstractDrift,
    AbstractInteraction,
    AbstractStart,
    AbstractStepper,
    Additive,
    EulerMaruyama,
    Heun,
    Milstein,
    Multiplicative,
    Platen,
    SquareRoot,
)
from ...runs import Kind, Registry
from .. import _drift
from .._bandwidth import ISJ, AbstractBandwidth, Fixed, Scott, Silverman
from .._density import AbstractDensity, BinnedKDE, DenseKDE, Histogram, SpectralKDE
from .._game import Anderson
from .._hamilton_jacobi import AbstractHamiltonian, Quadratic
from .._initial import FromDensity, Gaussian, Rejection, Uniform


class Waves(AbstractModel):
    """A cost of a place: amplitude * cos(pi k_1 x_1) * cos(pi k_2 x_2) ..., with `waves` the k of each axis."""

    amplitude: Scalar = param()
    waves: Float[Array, " d"] = param()

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The cost at a place."""
        return self.amplitude.astype(x.dtype) * jnp.prod(jnp.cos(jnp.pi * self.waves.astype(x.dtype) * x))


class Bowl(AbstractModel):
    """A cost of a place: strength * |x - centre|^2."""

    strength: Scalar = param()
    centre: Float[Array, " d"] = param()

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The cost at a place."""
        away = x - self.centre.astype(x.dtype)
        return self.strength.astype(x.dtype) * jnp.sum(away * away)


def _named(*classes: type) -> dict[str, type]:
    return {cls.__name__: cls for cls in classes}


DRIFTS = _named(
    _drift.OrnsteinUhlenbeck,
    _drift.DoubleWell,
    _drift.Constant,
    _drift.Washboard,
    _drift.Geometric,
    _drift.Gradient,
    _drift.Attraction,
)

KINDS: Registry = {
    "drifts": Kind("drift", (AbstractDrift, AbstractInteraction), DRIFTS),
    "diffusions": Kind("diffusion", (AbstractDiffusion,), _named(Additive, Multiplicative, SquareRoot)),
    "starts": Kind("start", (AbstractStart,), _named(Gaussian, Uniform, FromDensity, Rejection)),
    "steppers": Kind("stepper", (AbstractStepper,), _named(EulerMaruyama, Heun, Milstein, Platen)),
    "densities": Kind("density", (AbstractDensity,), _named(SpectralKDE, BinnedKDE, DenseKDE, Histogram)),
    "bandwidths": Kind("bandwidth", (AbstractBandwidth,), _named(Silverman, Scott, ISJ, Fixed)),
    "costs": Kind("cost", (AbstractModel,), _named(Waves, Bowl)),
    "hamiltonians": Kind("Hamiltonian", (AbstractHamiltonian,), _named(Quadratic)),
    "solvers": Kind("solver of games", (optx.AbstractFixedPointSolver,), _named(Anderson)),
}
"""By kind, the classes that a config may name."""
