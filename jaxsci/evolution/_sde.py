"""Stochastic differential equations: what moves a particle, what shakes it, and where it may be.

dX = b(t, X) dt + S(t, X) dW in the sense of Ito, so that the density obeys d_t p = -div(b p) + sum_ij d_i d_j (D_ij p)
with D = S S^T / 2. Drift and diffusion are written for one particle; a `Field` is what a stepper sees of them, for a
whole ensemble at once. Drifts that depend on the ensemble (McKean and Vlasov) say what they read of it.
"""

import abc
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import Model, Module, Scalar, Tree, describe, is_traced, param, unmasked, untraceable
from ._domain import AbstractDomain, Free
from ._summary import AbstractSummary

Form = Literal["scalar", "diagonal", "matrix"]


class AbstractDiffusion(Module):
    """S(t, x) of one particle: a number, one number for each axis (d,), or a matrix (d, m).

    - `additive`: True where it does not depend on x.
    """

    additive: ClassVar[bool]

    @abc.abstractmethod
    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, "..."]:
        """S at a time and a place."""


class Additive(AbstractDiffusion):
    """The same noise everywhere.

    **Arguments:** `scale`: S, a number, shape (d,), or a matrix of shape (d, m) with D = S S^T / 2.
    """

    scale: Float[Array, "..."] = param()
    additive: ClassVar[bool] = True

    def __init__(self, scale: object) -> None:
        self.scale = scale if isinstance(scale, jax.Array) else jnp.asarray(unmasked(scale, "the diffusion S"), float)
        if self.scale.ndim > 2:
            raise ValueError(f"a diffusion is a number, one for each axis, or a matrix, but it is {describe(scale)}")
        _check_sign(self.scale)

    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, "..."]:
        """S, which is the same everywhere."""
        del t
        return self.scale.astype(x.dtype)


def _check_sign(scale: Float[Array, "..."]) -> None:
    """S of one number an axis is a standard deviation; the entries of a matrix may have any sign."""
    if scale.ndim < 2 and not is_traced(scale) and not bool(np.all(np.asarray(scale) >= 0)):
        raise ValueError(
            f"the diffusion S is {np.asarray(scale)}, but it should not be negative (D = S^2 / 2; a D is given as "
            "sqrt(2 D))"
        )


class Multiplicative(AbstractDiffusion):
    """Noise that depends on where a particle is.

    **Arguments:** `function`: (t, x of shape (d,)) -> S, a number, shape (d,), or a matrix (d, m).
    """

    function: Model
    additive: ClassVar[bool] = False

    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, "..."]:
        """S at a time and a place."""
        return self.function(t, x)


class SquareRoot(AbstractDiffusion):
    """S = scale sqrt(max(x, 0)) for each axis: Feller's diffusion, as of Cox, Ingersoll and Ross.

    A step may end below zero, where a square root is no number. There is no noise there, and the particle is left where
    it is, because to lift it to zero would be a bias that grows with the number of steps (Lord, Koekkoek and van Dijk
    2010, "full truncation").
    """

    scale: Float[Array, "..."] = param()
    additive: ClassVar[bool] = False

    def __init__(self, scale: object) -> None:
        self.scale = scale if isinstance(scale, jax.Array) else jnp.asarray(unmasked(scale, "the diffusion S"), float)
        _check_sign(self.scale)

    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """S at a place."""
        del t
        some = x > 0  # the derivative of the root at zero is infinite
        return jnp.where(some, self.scale.astype(x.dtype) * jnp.sqrt(jnp.where(some, x, 1)), 0)


class AbstractDrift(Module):
    """A drift as a class: fields that are parameters by `param()`, and what moves a particle.

    Any function of (t, x) is a drift as well. A class of this base is known as one by its name in a config.
    """

    @abc.abstractmethod
    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The drift b(t, x) of one particle."""


class AbstractInteraction(Module):
    """A drift that depends on the ensemble that it moves.

    - `reads`: the summary of the ensemble that it is given.
    """

    reads: eqx.AbstractVar[AbstractSummary]

    @abc.abstractmethod
    def __call__(self, t: Scalar, x: Float[Array, " d"], crowd: Tree) -> Float[Array, " d"]:
        """The drift of one particle, `crowd` being what the summary says of the ensemble now."""


class Interaction(AbstractInteraction):
    """A drift given by a function of (t, x, crowd).

    **Arguments:** `function`: returns shape (d,); `reads`: a summary such as `Moments()` or a density.
    """

    function: Model
    reads: AbstractSummary

    def __call__(self, t: Scalar, x: Float[Array, " d"], crowd: Tree) -> Float[Array, " d"]:
        """The drift of one particle."""
        return self.function(t, x, crowd)


class SDE(Module):
    """dX = drift(t, X) dt + S(t, X) dW (Ito) on a domain.

    **Arguments:**

    - `drift`: a function or an `AbstractDrift`, (t, x of shape (d,)) -> shape (d,); an `AbstractInteraction` also reads
      the ensemble.
    - `diffusion`: S, where D = S S^T / 2: a number, one for each axis, a matrix (d, m), or an `AbstractDiffusion` for
      noise that depends on t or x, such as `Multiplicative(function)`.
    - `domain`: where particles may be; all of space without one.

    **Raises:** `ValueError` for a negative number as diffusion, or a function that is not wrapped.
    """

    drift: Model
    diffusion: AbstractDiffusion
    domain: AbstractDomain

    def __init__(self, drift: object, diffusion: object, domain: AbstractDomain | None = None) -> None:
        if not callable(drift):
            raise ValueError(f"the drift should be a function of (t, x), but it is {describe(drift)}")
        if callable(diffusion) and not isinstance(diffusion, AbstractDiffusion):
            raise ValueError(
                "the diffusion is a function: give jaxsci.evolution.Multiplicative(function), because noise that "
                "depends on x allows fewer steppers"
            )
        self.drift = drift
        self.diffusion = diffusion if isinstance(diffusion, AbstractDiffusion) else Additive(diffusion)
        self.domain = Free() if domain is None else domain

    def _shape(self, d: int, dtype: jnp.dtype) -> tuple[int, ...]:
        x, t = jax.ShapeDtypeStruct((d,), dtype), jax.ShapeDtypeStruct((), dtype)
        if isinstance(self.diffusion, Additive):
            return self.diffusion.scale.shape
        return eqx.filter_eval_shape(self.diffusion, t, x).shape

    def form(self, d: int, dtype: jnp.dtype) -> Form:
        """Whether S is a number, one for each axis, or a matrix.

        **Raises:** `ValueError` for any other shape, and for a drift of another shape than (d,).
        """
        shape = self._shape(d, dtype)
        if shape not in ((), (d,)) and not (len(shape) == 2 and shape[0] == d):
            raise ValueError(f"in {d} dimensions a diffusion has shape (), ({d},) or ({d}, m), but it has {shape}")
        forms: dict[int, Form] = {0: "scalar", 1: "diagonal", 2: "matrix"}
        return forms[len(shape)]

    def channels(self, d: int, dtype: jnp.dtype) -> int:
        """The number of independent noises that move a particle."""
        shape = self._shape(d, dtype)
        return shape[1] if len(shape) == 2 else d


class Field(NamedTuple):
    """What a stepper sees of an equation: drift and noise of a whole ensemble, positions (n, d).

    - `sde`. `weights`: (n,), of the particles. `total`: adds up a deposit over all devices.
    """

    sde: SDE
    weights: Float[Array, " n"]
    total: Callable[[Tree], Tree]

    def drift(self, t: Scalar, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The drift of each particle."""
        drift = self.sde.drift
        reads = (
            (drift.reads.evaluate(self.total(drift.reads.deposit(x, self.weights))),)
            if isinstance(drift, AbstractInteraction)
            else ()
        )
        try:
            # particles on the last axis: on the way back XLA adds up products over a first axis five times as slowly
            found = jax.vmap(lambda one: drift(t, one, *reads), in_axes=1)(x.T)
        except TypeError as error:
            raise untraceable(error, "the drift") from error
        if found is None:
            raise ValueError("the drift returned None: is a return statement missing?")
        if found.shape != x.shape:
            raise ValueError(
                f"the drift of one particle should have the shape of its position, {x.shape[1:]}, but it has "
                f"{found.shape[1:]}"
            )
        return found

    def scale(self, t: Scalar, x: Float[Array, "n d"]) -> Float[Array, "..."]:
        """S of each particle, or of all where it is additive."""
        if self.sde.diffusion.additive:
            return self.sde.diffusion(t, x[0])
        return jax.vmap(lambda one: self.sde.diffusion(t, one), in_axes=1)(x.T)

    def noise(self, t: Scalar, x: Float[Array, "n d"], dw: Float[Array, "n m"]) -> Float[Array, "n d"]:
        """S dW of each particle."""
        return self.shaken(self.scale(t, x), dw)

    def shaken(self, scale: Float[Array, "..."], dw: Float[Array, "n m"]) -> Float[Array, "n d"]:
        """S dW for an S that is known."""
        own = scale if self.sde.diffusion.additive else scale[..., :]
        rank = own.ndim - (0 if self.sde.diffusion.additive else 1)
        if rank == 2:
            spec = "ij,nj->ni" if self.sde.diffusion.additive else "nij,nj->ni"
            return jnp.einsum(spec, own, dw)
        if not self.sde.diffusion.additive and rank == 0:
            own = own[:, None]
        return (jnp.broadcast_to(own, dw.shape).T * dw.T).T  # as in `drift`

    def variance(self, t: Scalar, x: Float[Array, "n d"], dt: Scalar) -> Float[Array, "n d"]:
        """The variance of a step along each axis: the diagonal of S S^T dt."""
        scale = self.scale(t, x)
        rank = scale.ndim - (0 if self.sde.diffusion.additive else 1)
        square = jnp.sum(scale * scale, axis=-1) if rank == 2 else scale * scale
        if not self.sde.diffusion.additive and rank == 0:
            square = square[:, None]
        if self.sde.diffusion.additive and rank > 0:
            square = square[None, :]
        return jnp.broadcast_to(square * dt, x.shape)
