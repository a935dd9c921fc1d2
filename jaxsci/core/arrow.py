"""Curvature of shared and local parameters: a dense corner, one small block a member, and what couples them.

Eliminating each member's block first makes a solve linear in the number of members.
Golub and Van Loan (4th ed.), section 4.3; Triggs et al. 1999, "Bundle Adjustment", section 6.1.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from ._module import Module
from .linalg import Factor, diagonal, factorise, largest_row, matvec, scaled, shifted


class Arrow(Module):
    """A symmetric matrix of shared parameters first, then the local ones of each member in turn.

    Members come in groups of equal shape: q shared parameters, and groups of b members with l local ones each.

    - `corner`: (q, q). `edges`: a (b, l, q) for each group. `blocks`: a (b, l, l) for each group.
    """

    corner: Float[Array, "q q"]
    edges: tuple[Float[Array, "_ _ q"], ...]
    blocks: tuple[Float[Array, "_ _ _"], ...]

    def split(self, vector: Shaped[Array, " p"]) -> tuple[Array, tuple[Array, ...]]:
        """(shared part, (b, l) of each group) of a vector over all parameters."""
        return split(vector, self.corner.shape[0], tuple(block.shape[:2] for block in self.blocks))


def split(vector: Shaped[Array, " p"], q: int, shapes: tuple[tuple[int, ...], ...]) -> tuple[Array, tuple[Array, ...]]:
    """(the first q elements, the rest as arrays of these shapes)."""
    parts, at = [], q
    for shape in shapes:
        parts.append(vector[at : at + math.prod(shape)].reshape(shape))
        at += math.prod(shape)
    return vector[:q], tuple(parts)


def join(shared: Float[Array, " q"], local: tuple[Array, ...]) -> Float[Array, " p"]:
    """The inverse of `split`."""
    return jnp.concatenate([shared, *(part.ravel() for part in local)])


@matvec.register
def _(matrix: Arrow, vector):  # type: ignore[no-untyped-def]
    shared, local = matrix.split(vector)
    top = matvec(matrix.corner, shared)
    parts = []
    for edge, block, part in zip(matrix.edges, matrix.blocks, local, strict=True):
        top = top + jnp.sum(edge * part[:, :, None], axis=(0, 1))
        parts.append(jax.vmap(matvec)(block, part) + jax.vmap(matvec, (0, None))(edge, shared))
    return join(top, tuple(parts))


@diagonal.register
def _(matrix: Arrow):  # type: ignore[no-untyped-def]
    return join(jnp.diagonal(matrix.corner), tuple(jax.vmap(jnp.diagonal)(block) for block in matrix.blocks))


@scaled.register
def _(matrix: Arrow, d):  # type: ignore[no-untyped-def]
    shared, local = matrix.split(d)
    edges = (part[:, :, None] * edge * shared[None, None, :] for part, edge in zip(local, matrix.edges, strict=True))
    blocks = (jax.vmap(scaled)(block, part) for part, block in zip(local, matrix.blocks, strict=True))
    return Arrow(scaled(matrix.corner, shared), tuple(edges), tuple(blocks))


@shifted.register
def _(matrix: Arrow, d):  # type: ignore[no-untyped-def]
    q, size = matrix.corner.shape[0], sum(b.shape[0] * b.shape[1] for b in matrix.blocks)
    shared, local = matrix.split(jnp.broadcast_to(d, (q + size,)))
    blocks = (jax.vmap(shifted)(block, part) for part, block in zip(local, matrix.blocks, strict=True))
    return Arrow(shifted(matrix.corner, shared), matrix.edges, tuple(blocks))


@largest_row.register
def _(matrix: Arrow):  # type: ignore[no-untyped-def]
    top = jnp.sum(jnp.abs(matrix.corner), axis=1)
    most = jnp.zeros((), top.dtype)
    for edge, block in zip(matrix.edges, matrix.blocks, strict=True):
        top = top + jnp.sum(jnp.abs(edge), axis=(0, 1))
        rows = jnp.sum(jnp.abs(block), axis=2) + jnp.sum(jnp.abs(edge), axis=2)
        most = jnp.maximum(most, jnp.max(rows, initial=0))
    return jnp.maximum(most, jnp.max(top, initial=0))


class ArrowFactor(Module):
    """An Arrow made ready to solve with.

    - `inner`: a Factor of each member's block. `gains`: block^-1 edge, (b, l, q).
    - `schur`: (q, q), what the members together know of the shared parameters. `outer`: its Factor.
    - `ok`, `least`: as in `Factor`, over all of them.
    """

    inner: tuple[Factor, ...]
    gains: tuple[Float[Array, "_ _ q"], ...]
    schur: Float[Array, "q q"]
    outer: Factor
    ok: Bool[Array, ""]
    least: Float[Array, ""]

    def solve(self, rhs: Float[Array, " p"]) -> Float[Array, " p"]:
        """x with matrix @ x = rhs."""
        shared, local = split(rhs, self.gains[0].shape[2], tuple(gain.shape[:2] for gain in self.gains))
        for gain, part in zip(self.gains, local, strict=True):
            shared = shared - jnp.sum(gain * part[:, :, None], axis=(0, 1))
        shared = self.outer.solve(shared)
        parts = (
            jax.vmap(lambda f, r: f.solve(r))(factor, part) - jax.vmap(matvec, (0, None))(gain, shared)
            for factor, gain, part in zip(self.inner, self.gains, local, strict=True)
        )
        return join(shared, tuple(parts))


@factorise.register
def _(matrix: Arrow):  # type: ignore[no-untyped-def]
    inner = tuple(jax.vmap(factorise)(block) for block in matrix.blocks)
    gains = tuple(jax.vmap(_gain)(factor, edge) for factor, edge in zip(inner, matrix.edges, strict=True))
    corner = matrix.corner
    for gain, edge in zip(gains, matrix.edges, strict=True):
        corner = corner - jnp.sum(gain[:, :, :, None] * edge[:, :, None, :], axis=(0, 1))
    schur = (corner + corner.T) / 2
    outer = factorise(schur)
    ok, least = outer.ok, outer.least
    for factor in inner:
        ok, least = ok & jnp.all(factor.ok), jnp.minimum(least, jnp.min(factor.least))
    return ArrowFactor(inner, gains, schur, outer, ok, least)


def _gain(factor: Factor, edge: Array) -> Array:
    return jax.vmap(factor.solve, 1, 1)(edge)
