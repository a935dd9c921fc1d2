"""Solvers of diffrax as steppers: one call for the whole ensemble, with this house's random numbers.

A `diffeqsolve` for each particle, vmapped, is tens of times slower. Here a solver's `step` sees the ensemble as one
state, and a Brownian path whose increment over the step is that of the particles' own streams, so that chunks, devices
and resumption work as with any stepper. Solvers that need more of a path than its increment are refused.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ..core import Model
from ._sde import SDE, Field
from ._steppers import AbstractStepper, Step


class Diffrax(AbstractStepper):
    """A solver of diffrax as a stepper.

    **Arguments:** `solver`: such as `diffrax.Euler()`, `diffrax.ItoMilstein()`; with additive noise also
    `diffrax.Heun()`, `diffrax.Midpoint()` and other Runge-Kutta solvers.
    """

    solver: Model = eqx.field(static=True)
    order: ClassVar[int] = 1

    def step(
        self, field: Field, step: Step, x: Float[Array, "n d"], normals: Float[Array, "n m"]
    ) -> Float[Array, "n d"]:
        """One step of the solver."""
        import diffrax

        t0, t1 = step.t, step.t + step.dt
        dw = normals * jnp.sqrt(step.dt)
        additive = field.sde.diffusion.additive
        # a matrix that is the same everywhere goes into the path, because a solver multiplies number by number here
        path = field.noise(t0, x, dw) if additive else dw

        def scale(t: Any, y: Any, args: Any) -> lx.AbstractLinearOperator:
            one = jnp.ones_like(y)
            return lx.DiagonalLinearOperator(one if additive else field.noise(t, y, one))

        def drift(t: Any, y: Any, args: Any) -> Array:
            return field.drift(t, y)

        terms: Any = diffrax.MultiTerm(
            diffrax.ODETerm(drift),
            diffrax.ControlTerm(scale, lambda a, b: path * ((b - a) / step.dt)),
        )
        state = self.solver.init(terms, t0, t1, x, None)
        return self.solver.step(terms, t0, t1, x, None, state, False)[0]

    def check(self, sde: SDE, x: Float[Array, " d"]) -> None:
        """The solver should be right for the noise, and ask for no more than increments."""
        import diffrax

        name = type(self.solver).__name__
        if isinstance(self.solver, diffrax.AbstractSRK):
            raise ValueError(
                f"diffrax.{name} needs integrals of the Brownian path beside its increments, which are not drawn here: "
                "use evolution.Heun() or evolution.Platen(), which have weak order 2"
            )
        if sde.diffusion.additive:
            return
        if not isinstance(self.solver, diffrax.AbstractItoSolver):
            raise ValueError(
                f"diffrax.{name} solves the Stratonovich equation where the noise depends on x, and equations here are "
                "Ito's: use diffrax.Euler(), diffrax.ItoMilstein(), evolution.Milstein() or evolution.Platen()"
            )
        if sde.form(x.shape[0], x.dtype) == "matrix":
            raise ValueError(f"diffrax.{name} has no matrices as noise that depends on x here: use EulerMaruyama()")
