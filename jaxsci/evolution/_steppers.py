"""Steppers: how an ensemble is carried through one step of an Ito equation, given standard normal numbers.

A step is a pure function of (equation, time, positions, normals), so that a scheme can be tested by quadrature instead
of by drawing. Each stepper says which noise it is right for; another is refused, because a scheme that is not made for
it converges to another equation, or slowly, and says nothing. Orders are weak ones: those of expectations.

Kloeden and Platen 1992, "Numerical Solution of Stochastic Differential Equations", chapters 10, 14 and 15.
"""

import abc
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import Module, Scalar, is_traced
from ._sde import SDE, Field


class Step(NamedTuple):
    """From t to t + dt."""

    t: Scalar
    dt: Scalar


class AbstractStepper(Module):
    """A scheme.

    - `order`: its weak order of convergence.
    """

    order: ClassVar[int]

    @abc.abstractmethod
    def step(
        self, field: Field, step: Step, x: Float[Array, "n d"], normals: Float[Array, "n m"]
    ) -> Float[Array, "n d"]:
        """Positions at the end of a step; walls are not its affair."""

    def check(self, sde: SDE, x: Float[Array, " d"]) -> None:
        """See whether this scheme is right for an equation.

        **Raises:** `ValueError` with the remedy where it is not.
        """


class EulerMaruyama(AbstractStepper):
    """X + b dt + S dW: right for any noise, of weak order 1 (Kloeden and Platen, eq. 10.2.4)."""

    order: ClassVar[int] = 1

    def step(
        self, field: Field, step: Step, x: Float[Array, "n d"], normals: Float[Array, "n m"]
    ) -> Float[Array, "n d"]:
        """One drift and one diffusion."""
        return x + field.drift(step.t, x) * step.dt + field.noise(step.t, x, normals * jnp.sqrt(step.dt))


class Milstein(AbstractStepper):
    """Euler and Maruyama's step with S S' (dW^2 - dt) / 2, of strong order 1 (eq. 10.3.1).

    For noise in one dimension, or one number S_i(x_i) for each axis that depends on that axis alone.
    """

    order: ClassVar[int] = 1

    def step(
        self, field: Field, step: Step, x: Float[Array, "n d"], normals: Float[Array, "n m"]
    ) -> Float[Array, "n d"]:
        """One drift, one diffusion and its derivative along itself."""
        dw = normals * jnp.sqrt(step.dt)
        if field.sde.diffusion.additive:
            return x + field.drift(step.t, x) * step.dt + field.noise(step.t, x, dw)
        one = jnp.ones_like(x)
        along = field.noise(step.t, x, one)
        scale, bent = jax.jvp(lambda x: field.noise(step.t, x, one), (x,), (along,))
        return x + field.drift(step.t, x) * step.dt + scale * dw + bent * (dw * dw - step.dt) / 2

    def check(self, sde: SDE, x: Float[Array, " d"]) -> None:
        """Each axis should have a noise of its own."""
        _own_noise(self, sde, x)


class Heun(AbstractStepper):
    """X + (b(X) + b(X + b dt + S dW)) dt / 2 + S dW, of weak order 2 for additive noise.

    For noise that depends on x Heun's scheme solves the Stratonovich equation, so it is refused there.
    """

    order: ClassVar[int] = 2

    def step(
        self, field: Field, step: Step, x: Float[Array, "n d"], normals: Float[Array, "n m"]
    ) -> Float[Array, "n d"]:
        """Two drifts."""
        noise = field.noise(step.t, x, normals * jnp.sqrt(step.dt))
        here = field.drift(step.t, x)
        there = field.drift(step.t + step.dt, x + here * step.dt + noise)
        return x + (here + there) * step.dt / 2 + noise

    def check(self, sde: SDE, x: Float[Array, " d"]) -> None:
        """The noise should be additive."""
        if not sde.diffusion.additive:
            raise ValueError(
                "Heun's scheme solves the Stratonovich equation where the noise depends on x, and equations here are "
                "Ito's: use EulerMaruyama(), Milstein() or Platen()"
            )


class Platen(AbstractStepper):
    """Platen's explicit scheme of weak order 2 (Kloeden and Platen, eq. 15.1.1).

    For additive noise, noise in one dimension, or one number S_i(x_i) for each axis that depends on that axis alone.
    """

    order: ClassVar[int] = 2

    def step(
        self, field: Field, step: Step, x: Float[Array, "n d"], normals: Float[Array, "n m"]
    ) -> Float[Array, "n d"]:
        """Two drifts and three diffusions."""
        t, dt = step
        root = jnp.sqrt(dt)
        dw, after = normals * root, t + dt
        here, one = field.drift(t, x), jnp.ones_like(x)
        noise = field.noise(t, x, dw)
        there = field.drift(after, x + here * dt + noise)
        mean = x + (here + there) * dt / 2
        if field.sde.diffusion.additive:
            return mean + noise
        scale = field.noise(t, x, one)
        up, down = (field.noise(after, x + here * dt + sign * scale * root, one) for sign in (1, -1))
        return mean + (up + down + 2 * scale) * dw / 4 + (up - down) * (dw * dw - dt) / (4 * root)

    def check(self, sde: SDE, x: Float[Array, " d"]) -> None:
        """Noise that depends on x should be each axis's own."""
        _own_noise(self, sde, x)


def _own_noise(stepper: AbstractStepper, sde: SDE, x: Float[Array, " d"]) -> None:
    if sde.diffusion.additive:
        return
    d, name = x.shape[0], type(stepper).__name__
    form = sde.form(d, x.dtype)
    coupled = form == "matrix" or (form == "scalar" and d > 1)
    if form == "diagonal" and d > 1 and not is_traced(x):
        zero = jnp.zeros((), x.dtype)
        slope = np.array(jax.jacfwd(lambda x: sde.diffusion(zero, x))(x))
        coupled = bool(np.any(slope - np.diag(np.diag(slope))))
    if coupled:
        raise ValueError(
            f"{name} needs noise of which each axis has its own, S_i(x_i): the noise here is shared by axes or depends "
            "on others, and its scheme would need Levy areas. Use EulerMaruyama()"
        )
