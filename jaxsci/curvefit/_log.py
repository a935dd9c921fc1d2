"""A log of the steps of a fit, for those who watch; nothing of it is compiled in when it is off.

scipy prints its steps with `verbose=2`, and a fit that goes astray is understood by looking at them. A solver that is
`Logged` calls back to the host at each step. `curve_fit` and `least_squares` wrap their solver by `logged`; users of
`jaxsci.fit` may give a `Logged` solver themselves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..core import AnyArray
from ..fitting import AbstractTrustSolver


class Step(NamedTuple):
    """One pass of a solver's loop: the best point so far, and the step tried next.

    - `iteration`: from 0; counted on the host, so it means nothing for fits that run side by side.
    - `cost`, `reduction`: of the best point, and what the last step took off.
    - `step_norm`: length of the next step, in the units of the parameters.
    - `optimality`: largest gradient of a parameter that may move, in units of its standard deviation.
    """

    iteration: int
    cost: float
    reduction: float
    step_norm: float
    optimality: float


class Logged(AbstractTrustSolver):
    """A solver that tells `report` of each of its steps.

    **Arguments:**

    - `solver`: `jaxsci.TRF()` or `jaxsci.GaussNewton()`.
    - `report`: called on the host with a `Step`; `print_step` prints a table. It is part of what a
        compiled fit depends on: pass the same object again to avoid compiling again.
    """

    solver: AbstractTrustSolver
    report: Callable[[Step], Any] = eqx.field(static=True, metadata={"host": True})
    rtol: float
    atol: float
    fine: float
    norm: Callable

    def __init__(self, solver: object, report: Callable[[Step], Any]):
        if not isinstance(solver, AbstractTrustSolver):
            raise ValueError(f"steps can be logged of jaxsci.TRF() and GaussNewton(), not of {solver!r:.60}")
        self.solver, self.report = solver, report
        self.rtol, self.atol, self.fine, self.norm = solver.rtol, solver.atol, solver.fine, solver.norm

    def start(self, y, bounds):  # type: ignore[no-untyped-def]
        return self.solver.start(y, bounds)

    def update_radius(self, state, ratio, finite):  # type: ignore[no-untyped-def]
        return self.solver.update_radius(state, ratio, finite)

    def propose(self, local, state, radius):  # type: ignore[no-untyped-def]
        proposal = self.solver.propose(local, state, radius)
        step = jnp.sqrt(jnp.sum((proposal.trial - local.y) ** 2))
        slope = jnp.max(jnp.where(local.held, 0, jnp.abs(local.grad * local.inverse_scale)), initial=0)
        jax.debug.callback(_Counter(self.report), state.first, local.cost, state.lin.cost - local.cost, step, slope)
        return proposal


class _Counter:
    """Counts the steps of one fit on the host."""

    def __init__(self, report: Callable[[Step], Any]):
        self.report, self.count = report, 0

    def __call__(
        self, first: AnyArray, cost: AnyArray, reduction: AnyArray, step_norm: AnyArray, optimality: AnyArray
    ) -> None:
        self.count = 0 if first else self.count + 1
        self.report(Step(self.count, float(cost), float(reduction), float(step_norm), float(optimality)))


def print_step(step: Step) -> None:
    """Print one step of a fit as a row of a table, its head before the first."""
    if step.iteration == 0:
        print(f"{'iteration':>9}  {'cost':>14}  {'reduction':>10}  {'step norm':>10}  {'optimality':>10}")
    reduction = "" if step.iteration == 0 else f"{step.reduction:.3e}"
    print(
        f"{step.iteration:>9}  {step.cost:>14.8e}  {reduction:>10}  {step.step_norm:>10.3e}  {step.optimality:>10.3e}"
    )


def logged(solver: object, verbose: int, callback: Callable[[Step], Any] | None) -> Any:
    """Give back the solver, with the log that scipy's `verbose=2` or a callback asks for."""
    if callback is not None:
        return Logged(solver, callback)
    return Logged(solver, print_step) if verbose >= 2 else solver
