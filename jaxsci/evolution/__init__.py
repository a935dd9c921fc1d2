"""Evolution of ensembles in time: stochastic differential equations, steppers, one loop, and what is kept of it.

`evolve` carries an ensemble of particles through given times within one compiled program; a science says by `SDE`,
`AbstractDomain` and `AbstractSummary` what moves them, where they live and what is wanted of them. Randomness is a
function of (key, particle, step), so that no result depends on how the work was cut. `meanfield` is built on it.
"""

from ._diffrax import Diffrax as Diffrax
from ._domain import AbstractDomain as AbstractDomain, Free as Free, Settled as Settled
from ._ensemble import AbstractStart as AbstractStart, Draw as Draw, Ensemble as Ensemble
from ._evolve import Evolution as Evolution, evolve as evolve
from ._randomness import Words as Words, normals as normals, threefry as threefry, uniforms as uniforms
from ._scan import checkpointed_scan as checkpointed_scan
from ._sde import (
    SDE as SDE,
    AbstractDiffusion as AbstractDiffusion,
    AbstractDrift as AbstractDrift,
    AbstractInteraction as AbstractInteraction,
    Additive as Additive,
    Field as Field,
    Interaction as Interaction,
    Multiplicative as Multiplicative,
    SquareRoot as SquareRoot,
)
from ._steppers import (
    AbstractStepper as AbstractStepper,
    EulerMaruyama as EulerMaruyama,
    Heun as Heun,
    Milstein as Milstein,
    Platen as Platen,
    Step as Step,
)
from ._summary import (
    AbstractSummary as AbstractSummary,
    Moments as Moments,
    MomentSums as MomentSums,
    Snapshot as Snapshot,
    Snapshots as Snapshots,
    Statistics as Statistics,
    sum_of as sum_of,
)
