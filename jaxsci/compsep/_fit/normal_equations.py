"""Sums over channels and the small systems of every pixel: the algebra under the likelihood.

For given spectra the amplitudes of a pixel solve normal equations as small as the number of components. Arrays have
pixels last, so that the algebra of a pixel is a vector operation over all of them, and products of several columns are
one array, so that each is one loop. The likelihood and the component maps are built of these pieces.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from ...core.linalg import factorise

_UNROLL = 32  # channels
_MANY = 64  # cells from which it pays to compile longer
_NOTHING = 256  # roundings below which a difference is 0


Out = TypeVar("Out")


class Moments(NamedTuple):
    """Sums over channels of products of whitened columns a, their derivatives b and data d.

    `normal`: a a (c, c, k). `data`: a d (c, m, k). `side`: a b (c, b, k). k is 1 where neither varies.
    """

    normal: Array
    data: Array
    side: Array

    @staticmethod
    def of(columns: Float[Array, "f c _"], moved: Float[Array, "f b _"], data: Float[Array, "f m k"]) -> "Moments":
        """The sums of these columns, derivatives and data."""
        return Moments(products(columns, columns), products(columns, data), products(columns, moved))


class Solved(NamedTuple):
    """Amplitudes (c, m, k), M^-1 of each `side` (c, b, k), and log |M| (k,), M = A^T N^-1 A."""

    amplitude: Array
    parts: Array
    logdet: Array

    @staticmethod
    def of(moments: Moments) -> "Solved":
        """The small systems of every pixel."""
        factor = factorise(moments.normal[:, :, None])
        # the factor keeps 1/pivot, so that the solves of many columns multiply and do not divide
        logdet = -functools.reduce(jnp.add, map(jnp.log, factor.inverse_pivots))
        return Solved(factor.solve(moments.data), factor.solve(moments.side), logdet[0])


class Projected(NamedTuple):
    """What the columns leave of their derivatives, q = (1 - P) b: `rest` q d (b, m, k), `left` q q (b, b, k).

    With the residual r = d - A s, q d is b r. The derivatives are projected before products are made of them: where two
    columns are nearly alike, what is left of a derivative is so small that a difference of products is all rounding.
    """

    rest: Array
    left: Array

    @staticmethod
    def of(
        columns: Float[Array, "f c _"],
        moved: Float[Array, "f b _"],
        data: Float[Array, "f m k"],
        side: Float[Array, "c b _"],
        parts: Float[Array, "c b _"],
    ) -> "Projected":
        """From columns, derivatives and data, all whitened, with their `Moments.side` and `Solved.parts`."""
        rest = moved - explained(columns, parts)
        left = products(rest, rest)
        taken = functools.reduce(jnp.add, side * parts)  # of the square of each derivative
        least = (_NOTHING * jnp.finfo(left.dtype).eps) ** 2 * taken
        none = jnp.eye(left.shape[0], dtype=bool)[:, :, None] & (left <= least[:, None])
        return Projected(products(rest, data), jnp.where(none, 0, left))


class CellSums(NamedTuple):
    """What the data of each cell say by themselves: cost (k,), gradient (p, k) and information (p, p, k)."""

    cost: Array
    grad: Array
    gram: Array


Derivatives: TypeAlias = list[tuple[int, int]]
"""(parameter, column of the mixing matrix) of each derivative that is not zero by construction."""


def sums_of_cells(places: Derivatives, p: int, projected: Projected, solved: Solved, count: Array | None) -> CellSums:
    """What one set of maps adds, but for the residual; `count` of columns where amplitudes are integrated out."""
    s = solved.amplitude
    k = s.shape[2]
    if not places:
        zero = jnp.zeros((p, k), s.dtype)
        return CellSums(_integrated(solved, count, k), zero, jnp.zeros((p, p, k), s.dtype))
    lit = jnp.stack([s[j] for _, j in places])
    grad = -_added(lit * projected.rest)
    gram = projected.left * _added(lit[:, None] * lit[None])
    if count is not None:
        grad = grad + count[None] * jnp.stack([solved.parts[j, a] for a, (_, j) in enumerate(places)])
    if [i for i, _ in places] != list(range(p)):  # a parameter that moves several columns, or none
        owner = jnp.array([[float(i == parameter) for i, _ in places] for parameter in range(p)], s.dtype)
        grad = jnp.tensordot(owner, grad, 1)
        gram = jnp.moveaxis(jnp.tensordot(owner, jnp.tensordot(owner, gram, 1), ((1,), (1,))), 0, 1)
    return CellSums(_integrated(solved, count, k), grad, gram)


def _integrated(solved: Solved, count: Array | None, k: int) -> Array:
    return jnp.zeros(k, solved.logdet.dtype) if count is None else count * solved.logdet / 2


def explained(columns: Float[Array, "f c _"], amplitude: Float[Array, "c m k"]) -> Float[Array, "f m k"]:
    """A s."""
    parts = (columns[:, j, None] * s[None] for j, s in enumerate(amplitude))
    return functools.reduce(jnp.add, parts)


def square(columns: Float[Array, "f c _"], amplitude: Float[Array, "c m k"], data: Float[Array, "f m k"]) -> Array:
    """|r|^2 / 2 of each cell, from the residual itself: a difference of moments would lose its digits."""
    residual = data - explained(columns, amplitude)
    return squares(residual) / 2


def squares(x: Float[Array, "f m k"]) -> Float[Array, " k"]:
    """The sum of squares of each cell."""
    if x.shape[0] > _UNROLL or x.shape[-1] < _MANY:
        return jnp.sum(x * x, axis=(0, 1))
    return _added(functools.reduce(jnp.add, (x[f] * x[f] for f in range(x.shape[0]))))


def products(x: Float[Array, "f p _"], y: Float[Array, "f q _"]) -> Float[Array, "p q k"]:
    """Sums over the leading axis of all products; over many cells written out, several times as fast as a reduction."""
    if x.shape[0] > _UNROLL or max(x.shape[-1], y.shape[-1]) < _MANY:
        return jnp.sum(x[:, :, None] * y[:, None], axis=0)
    return functools.reduce(jnp.add, (x[f][:, None] * y[f][None] for f in range(x.shape[0])))


def _added(x: Float[Array, "*n m k"]) -> Float[Array, "*n k"]:
    """The sum over the last axis but one."""
    if x.shape[-2] > _UNROLL or x.shape[-1] < _MANY:
        return jnp.sum(x, axis=-2)
    return functools.reduce(jnp.add, (x[..., i, :] for i in range(x.shape[-2])))


def apart(fn: Callable[..., Out], *args: PyTree[Array | str | None]) -> Out:
    """fn(*args), which a branch keeps from being fused with what makes its arguments or takes its results.

    Left alone, XLA recomputes small pieces of algebra in each of their many users, five times the work in all. Of few
    cells that is no matter.
    """
    if max((x.shape[-1] for x in jtu.tree_leaves(args) if eqx.is_inexact_array(x) and x.ndim), default=0) < _MANY:
        return fn(*args)
    first = next(x for x in jtu.tree_leaves(args) if eqx.is_inexact_array(x) and x.size)
    arrays, rest = eqx.partition(args, eqx.is_array)

    @jax.jit  # traced once, though both branches ask
    def run(arrays: tuple[PyTree[Array], ...]) -> Out:
        return fn(*eqx.combine(arrays, rest))

    def spoilt(arrays: tuple[PyTree[Array], ...]) -> Out:
        return jtu.tree_map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(run, arrays))

    # always true, also of a NaN: a lane that is not finite must not spoil the others
    fine = eqxi.unvmap_any(jnp.ravel(first)[0] != jnp.finfo(first.dtype).min)
    return jax.lax.cond(fine, run, spoilt, arrays)
