"""What a separation was told beside its data, checked once and carried by name.

A sky may be fitted as a whole, in harmonic space, or in blocks from disk; the model, which of its parameters are free,
their bounds and priors, and the solver are the same for every part of it. The doors make one `Settings`, and all that
is below them reads what it needs from there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypedDict

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from ..core import AbstractPrior, Unit, as_real, leaf_names, match, require_kind
from ..fitting import GaussNewton, Solver, as_names, check_search, flat_bounds, flat_priors, make_plan
from ..parallel import Placement
from ._fixed import FixedMaps
from ._given import ArrayModule, Given
from ._instrument import Channels, Frequencies, frequencies_of
from ._mixing import MixingMatrix, check_units

Bounds: TypeAlias = Mapping[str, Sequence[ArrayLike | None]]
"""(lower, upper) by name; `None` for no bound on that side."""

Priors: TypeAlias = Mapping[str, AbstractPrior]
"""Gaussian priors by name."""

Starts: TypeAlias = int | Mapping[str, Given]
"""How many points to start from beside the model's own, or by name the values of each of them."""

SOLVER = GaussNewton(fine=1e-10)
"""For parameters that are coupled: some 1e-9 of a standard error is near enough."""


class SearchOptions(TypedDict, total=False):
    """Keyword arguments of `separate` that say how the spectra are fitted."""

    marginal: bool
    bounds: Bounds | None
    priors: Priors | None
    solver: Solver
    tolerance: float
    max_steps: int


class FitOptions(SearchOptions, total=False):
    """Keyword arguments of `separate` that say which spectra are fitted to what, and how."""

    free: Sequence[str] | None
    units: str


class BlockOptions(FitOptions, total=False):
    """Keyword arguments of `separate` that `separate_blocks` hands on."""

    nest: bool


class MaskOptions(BlockOptions, total=False):
    """Keyword arguments of `separate` but for patches and noise."""

    fixed: FixedMaps | None
    mask: Given | None
    starts: Starts | None


class SkyOptions(MaskOptions, total=False):
    """Keyword arguments of `separate` but for patches."""

    inv_n: Given | None


class Limits(NamedTuple):
    """Bounds and Gaussian priors of each free parameter: infinite for no bound, weight 1/sigma^2, 0 for no prior."""

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]
    prior_mean: Float[Array, " p"]
    prior_weight: Float[Array, " p"]

    def at_places(self, start: Float[Array, " p"], real: Sequence[Bool[Array, " _"]]) -> "Placed":
        """The same for every place of a group, where each parameter has several.

        **Arguments:** `start`: the value at which each parameter starts. `real`: for each parameter, which of its
        places in this group have an element; the others keep their start, and no prior is held against them.
        """

        def spread(each: Array) -> Array:
            return jnp.concatenate([jnp.broadcast_to(x, here.shape) for x, here in zip(each, real, strict=True)])

        here, y = jnp.concatenate(real), spread(start)
        lower, upper = jnp.where(here, spread(self.lower), y), jnp.where(here, spread(self.upper), y)
        weight = jnp.where(here, spread(self.prior_weight), 0)
        return Placed(y, Limits(lower, upper, spread(self.prior_mean), weight))


class Placed(NamedTuple):
    """Where a group starts, and the `Limits` of it, for all places of its parameters one after the other."""

    start: Float[Array, " n"]
    limits: Limits


class Settings(NamedTuple):
    """What is the same for every part of a sky: a model, which of its parameters are fitted, and how.

    - `mixing`: components at the values where the fit starts. `nu`: frequencies in GHz, or `Bands`.
    - `free`: names of the fitted parameters, in the order of the model. `units`: of the maps. `nest`: their pixel
      order. `marginal`: amplitudes are integrated out.
    - `bounds`, `priors`, `solver`, `tolerance`, `max_steps`: as `separate` was given them.
    - `traced`: True within a JAX transformation. Then all is one program; else the host drives programs of fixed sizes.
    - `placement`: the devices that take those programs in turn.
    """

    mixing: MixingMatrix
    nu: Frequencies
    free: tuple[str, ...]
    units: str = "uK_CMB"
    nest: bool = False
    marginal: bool = False
    bounds: Bounds | None = None
    priors: Priors | None = None
    solver: Solver = SOLVER
    tolerance: float = 1e-6
    max_steps: int = 100
    traced: bool = False
    placement: Placement = Placement()

    @staticmethod
    def of(
        mixing: MixingMatrix,
        instrument: Channels,
        free: Sequence[str] | None = None,
        units: str = "uK_CMB",
        nest: bool = False,
        marginal: bool = False,
        bounds: Bounds | None = None,
        priors: Priors | None = None,
        solver: Solver = SOLVER,
        tolerance: float = 1e-6,
        max_steps: int = 100,
    ) -> "Settings":
        """Check the choices of `separate`.

        **Raises:** `ValueError` for names that no parameter has, and for components in another unit than the maps.
        """
        require_kind(mixing, MixingMatrix, "mixing", "a MixingMatrix, before the instrument")
        check_search(solver, max_steps)
        if not as_real(tolerance, "tolerance") > 0:
            raise ValueError(f"tolerance should be a part of a standard error, above 0, but it is {tolerance}")
        nu = frequencies_of(instrument)
        check_units(mixing, units)
        names = list(mixing.parameters) if free is None else match(mixing, as_names(free), "the mixing matrix")
        chosen = tuple(name for name, _ in leaf_names(mixing, names))
        return Settings(mixing, nu, chosen, units, nest, marginal, bounds, priors, solver, tolerance, max_steps)

    @property
    def xp(self) -> ArrayModule:
        """What computes with arrays of the length of a sky between two programs: NumPy, or JAX within one program."""
        return jnp if self.traced else np

    def limits(self) -> Limits:
        """Bounds and Gaussian priors of the free parameters, those that their classes declare included.

        **Raises:** `ValueError` for names that are not free, and bounds that cross.
        """
        plan = make_plan(self.mixing, Unit(), self.free)
        lower, upper = flat_bounds(plan, self.bounds, self.priors)
        if lower is None or upper is None:
            lower, upper = jnp.full(len(self.free), -jnp.inf), jnp.full(len(self.free), jnp.inf)
        priors = flat_priors(plan, self.priors)
        for shaped in priors.shaped:
            raise ValueError(
                f"the prior of {plan.names[shaped.at[0]]} is a {type(shaped.prior).__name__}, but sky fits take "
                "Normal, HalfNormal, TruncatedNormal and Uniform"
            )
        return Limits(lower, upper, priors.mean, priors.weight)
