"""TOAs that are tied to a timing model, as a data set that the core can fit.

The data carry what float64 cannot compute, phases and delays at the par file's values, so that a model needs to give
only what changes them. The model is known here by what the fit asks of it, `AbstractTimed`, which `TimingModel` is.
`timing.anchor` and `timing.stack` make these, and every fit, chi2 and likelihood takes them.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..core import AbstractLikelihood, Flag, as_array, rows
from ..datasets import AbstractDataset, FreeModel
from ._components import Par
from ._jacobian import AbstractTimed, linearised


class AnchoredTOAs(AbstractDataset):
    """What a fit needs of n TOAs: phases and delays at the reference parameters, and what changes them.

    - `elapsed`: seconds from PEPOCH, at the pulsar, at the reference. `delay`: the delay there, s. `phase`: turns
      from the pulse each TOA is taken for.
    - `since_position`, `since_dispersion`, `since_orbit`: seconds from POSEPOCH, DMEPOCH, and T0 or TASC.
    - `window`, `cm_window`: the windows of DMX and of CMX that each is in, counted from 1; 0 for none. Shape (n, k),
      k the most that any is in.
    - `jumps`, `dm_jumps`, `fd_jumps`: 1 where a JUMP, DMJUMP or FDJUMP applies, shape (n, j).
    - `measures`: True for the rows of wideband data that measure dispersion, `dm`; `None` without.
    - the others as in `TOAs`; `planets` `None` where they do not count.
    - `par`: the par file that has the reference, `None` in a stack.
    """

    elapsed: Float[Array, " n"] = rows("edge")
    delay: Float[Array, " n"] = rows("edge")
    phase: Float[Array, " n"] = rows(0.0)
    since_position: Float[Array, " n"] = rows("edge")
    since_dispersion: Float[Array, " n"] = rows("edge")
    since_orbit: Float[Array, " n"] = rows("edge")
    frequency: Float[Array, " n"] = rows("edge")
    position: Float[Array, "n 3"] = rows("edge")
    velocity: Float[Array, "n 3"] = rows("edge")
    sun: Float[Array, "n 3"] = rows("edge")
    troposphere: Float[Array, " n"] = rows("edge")
    window: Int[Array, "n w"] = eqx.field(converter=as_array, metadata={"rows": 0})  # type: ignore[misc]
    jumps: Float[Array, "n j"] = rows(0.0)
    noise: AbstractLikelihood
    mask: Bool[Array, " n"] = rows(False)
    planets: Float[Array, "n p 3"] | None = rows("edge", default=None)
    cm_window: Int[Array, "n c"] | None = eqx.field(default=None, metadata={"rows": 0})  # type: ignore[misc]
    measures: Bool[Array, " n"] | None = rows(False, default=None)
    dm: Float[Array, " n"] | None = rows(0.0, default=None)
    dm_jumps: Float[Array, "n d"] | None = rows(0.0, default=None)
    fd_jumps: Float[Array, "n k"] | None = rows(0.0, default=None)
    par: Par | None = eqx.field(static=True, default=None)  # type: ignore[misc]

    @property
    def wideband(self) -> bool:
        """True where some rows measure dispersion."""
        return self.measures is not None

    def residual(self, model: "AbstractTimed[AnchoredTOAs]") -> Float[Array, " n"]:
        return model.residual(self)

    def jacobian(self, at: FreeModel, y: Float[Array, " p"]) -> tuple[Float[Array, " n"], Float[Array, "p n"]]:
        value, rows = linearised(at.model(y), at.places, self)
        return value, jnp.pad(rows, ((0, y.size - rows.shape[0]), (0, 0)))  # free parameters of the noise come last

    def finite(self) -> Flag:
        # an infinite frequency is legal: such TOAs have no dispersion
        numbers = (self.elapsed, self.delay, self.phase, self.since_orbit, self.troposphere)
        return jnp.all(jnp.where(self.mask, jnp.isfinite(sum(numbers)) & ~jnp.isnan(self.frequency), True))
