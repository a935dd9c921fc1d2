"""Small dense linear algebra in plain XLA: no LAPACK call, so it vectorises over a batch and cannot hang.

Up to `_UNROLL` rows the loops are unrolled at trace time, which XLA fuses; beyond that they are
`lax.fori_loop`s over columns, blocked for large matrices. Real symmetric positive definite unless said.
Golub and Van Loan, Matrix Computations (4th ed.), algorithms 4.2.2, 5.1.1, 8.6.2 (one-sided Jacobi).

What a solver does with a curvature matrix (`matvec`, `diagonal`, `scaled`, `shifted`, `largest_row`, `factorise`) is
open to matrices of other structure: here is what a dense one does, in `arrow.py` and `nested.py` what those do.
"""

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ._module import Module

# the functions that dispatch on it stand here for a dense matrix; a type checker cannot follow a registration
if TYPE_CHECKING:
    Matrix: TypeAlias = Any
else:
    Matrix = Float[Array, "..."]

_UNROLL = 8
_BLOCK = 32
_SHORT = 1 << 15


def dot(a: Array, b: Array) -> Array:
    """Sum of products along the last axis, as a fusible reduction rather than a library call."""
    return jnp.sum(a * b, axis=-1)


def length(x: Array, axis: int | None = None) -> Array:
    """Euclidean length, whose derivative is 0 where x is."""
    square = jnp.sum(x * x, axis=axis)
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)


@functools.singledispatch
def matvec(matrix: Matrix, vector: Float[Array, " n"]) -> Float[Array, " m"]:
    """Matrix times vector; small ones as a fused reduction."""
    if max(matrix.shape) <= 4 * _UNROLL:
        return dot(matrix, vector[None, :])
    return matrix @ vector


def gram(jac_t: Float[Array, "p n"], other: Float[Array, "q n"]) -> Float[Array, "p q"]:
    """`jac_t @ other.T`."""
    return jac_t @ other.T


@jax.custom_jvp
def products(rows: Float[Array, "q n"]) -> Float[Array, "q q"]:
    """`rows @ rows.T`; of few short rows all sums run side by side in one loop, which a batched product never does."""
    q, n = rows.shape
    if q > _UNROLL + 1 or n > _SHORT:
        return rows @ rows.T
    pairs = [(i, j) for i in range(q) for j in range(i, q)]
    zero = jnp.zeros((), rows.dtype)

    def sums(rows: Array) -> tuple[Array, ...]:
        terms = tuple(rows[i] * rows[j] for i, j in pairs)
        return lax.reduce(terms, (zero,) * len(pairs), _add_each, (0,))

    huge = jnp.array(jnp.finfo(rows.dtype).max / 3, rows.dtype)

    def never(rows: Array) -> tuple[Array, ...]:
        return (zero + jnp.inf,) * len(pairs)  # which is what the square of `huge` is

    # the branch keeps XLA from fusing whatever made the rows into the loop of the sums, where nothing is vectorised; a
    # NaN has to take it too, or it would be lost
    some = eqxi.unvmap_any(~(rows[-1, 0] == huge)) if n else False
    found = jnp.stack(lax.cond(some, sums, never, rows))
    at = {pair: k for k, pair in enumerate(pairs)}
    return found[jnp.array([[at[min(i, j), max(i, j)] for j in range(q)] for i in range(q)])]


def _add_each(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


@products.defjvp
def _products_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (rows,), (moved,) = primals, tangents
    half = rows @ moved.T
    return products(rows), half + half.T


class Factor(Module):
    """A symmetric positive definite matrix made ready to solve with.

    Small ones hold L D L^T element by element: as separate numbers the whole elimination fuses into one
    loop over the lanes of a batch. Larger ones hold Cholesky's L.

    - `ok`: False when a pivot was not positive; the solutions are finite rubbish then.
    - `least`: the smallest pivot.

    Of matrices (n, n, lanes) each number is an array of lanes: what `jax.vmap` makes, in the other memory order.
    """

    below: tuple[tuple[Float[Array, "*lanes"], ...], ...] | None
    inverse_pivots: tuple[Float[Array, "*lanes"], ...] | None
    lower: Float[Array, "n n"] | None
    ok: Bool[Array, "*lanes"]
    least: Float[Array, "*lanes"]

    def solve(self, rhs: Float[Array, "n *more"]) -> Float[Array, "n *more"]:
        """x with matrix @ x = rhs."""
        if self.below is None:
            return solve_factored(self.lower, rhs)  # type: ignore[arg-type]
        below, pivots = self.below, self.inverse_pivots or ()
        z: list[Array] = []
        for i, row in enumerate(below):
            z.append(_minus(rhs[i], zip(row, z, strict=True)))
        x: dict[int, Array] = {}
        for i in reversed(range(len(below))):
            x[i] = _minus(z[i] * pivots[i], ((below[k][i], x[k]) for k in range(i + 1, len(below))))
        return jnp.stack([x[i] for i in range(len(below))]) if x else rhs

    def invert(self) -> Float[Array, "n n"]:
        """The inverse of the matrix."""
        if self.below is None:
            half = triangular_inverse(self.lower)  # type: ignore[arg-type]
            return half.T @ half
        inverse = jax.vmap(self.solve)(jnp.eye(len(self.below), dtype=self.least.dtype))
        return (inverse + inverse.T) / 2


def _minus(start: Array, products: Iterable[tuple[Array, Array]]) -> Array:
    return functools.reduce(lambda total, pair: total - pair[0] * pair[1], products, start)


@functools.singledispatch
def diagonal(matrix: Matrix) -> Float[Array, " n"]:
    """The diagonal of a matrix."""
    return jnp.diagonal(matrix)


@functools.singledispatch
def scaled(matrix: Matrix, d: Float[Array, " n"]) -> Any:
    """D matrix D with D = diag(d)."""
    return d[:, None] * matrix * d[None, :]


@functools.singledispatch
def shifted(matrix: Matrix, d: Float[Array, " n"] | Float[Array, ""]) -> Any:
    """matrix + diag(d); a number adds a multiple of the identity."""
    return matrix + jnp.where(jnp.eye(matrix.shape[0], dtype=bool), d, 0)


@functools.singledispatch
def largest_row(matrix: Matrix) -> Float[Array, ""]:
    """The largest sum of absolute values along a row: a bound of the eigenvalues."""
    return jnp.max(jnp.sum(jnp.abs(matrix), axis=1), initial=0)


@functools.singledispatch
def factorise(matrix: Matrix) -> Any:
    """A Factor of a symmetric positive definite matrix (n, n), or of one a lane (n, n, lanes)."""
    n = matrix.shape[0]
    if n > _UNROLL and matrix.ndim == 2:
        lower, ok = cholesky(matrix)
        return Factor(None, None, lower, ok, jnp.min(jnp.diagonal(lower)) ** 2)
    below: list[list[Array]] = []
    pivots: list[Array] = []
    inverses: list[Array] = []
    for i in range(n):
        row: list[Array] = []
        scaled_row: list[Array] = []
        for j in range(i):
            scaled_row.append(_minus(matrix[i, j], zip(below[j], scaled_row, strict=True)))
            row.append(scaled_row[j] * inverses[j])
        pivot = _minus(matrix[i, i], zip(row, scaled_row, strict=True))
        pivots.append(pivot)
        inverses.append(1 / jnp.where(pivot > 0, pivot, 1))
        below.append(row)
    least = functools.reduce(jnp.minimum, pivots, jnp.array(jnp.inf if n else 1, matrix.dtype))
    return Factor(tuple(map(tuple, below)), tuple(inverses), None, least > 0, least)


def cholesky(matrix: Float[Array, "n n"]) -> tuple[Float[Array, "n n"], Bool[Array, ""]]:
    """Lower triangular L with L L^T = matrix.

    **Returns:** L and whether every pivot was positive; where one was not, L holds finite rubbish.
    """
    n = matrix.shape[0]
    if n <= _UNROLL:
        return _cholesky_unrolled(matrix)
    if n <= _BLOCK:
        return _cholesky_columns(matrix)
    return _cholesky_blocked(matrix)


def _cholesky_unrolled(matrix: Array) -> tuple[Array, Array]:
    n = matrix.shape[0]
    rows: list[list[Array]] = [[] for _ in range(n)]
    ok = jnp.array(True)
    zero = jnp.zeros((), matrix.dtype)
    for j in range(n):
        pivot = matrix[j, j] - sum((x * x for x in rows[j]), zero)
        ok &= pivot > 0
        root = jnp.sqrt(jnp.where(pivot > 0, pivot, 1))
        inverse = 1 / root
        for i in range(j + 1, n):
            rows[i].append(
                (matrix[i, j] - sum((a * b for a, b in zip(rows[i], rows[j], strict=False)), zero)) * inverse
            )
        rows[j].append(root)
    return jnp.stack([jnp.stack(r + [zero] * (n - len(r))) for r in rows]), ok


def _cholesky_columns(matrix: Array) -> tuple[Array, Array]:
    index = jnp.arange(matrix.shape[0])

    def column(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rest, ok = carry  # columns < j hold L, the others the Schur complement
        pivot = rest[j, j]
        ok &= pivot > 0
        root = jnp.sqrt(jnp.where(pivot > 0, pivot, 1))
        col = jnp.where(index > j, rest[:, j] / root, jnp.where(index == j, root, 0))
        below = jnp.where(index > j, col, 0)
        rest = rest - below[:, None] * below[None, :]
        return rest.at[:, j].set(col), ok

    factor, ok = lax.fori_loop(0, matrix.shape[0], column, (matrix, jnp.array(True)))
    return jnp.tril(factor), ok


def _cholesky_blocked(matrix: Array) -> tuple[Array, Array]:
    n = matrix.shape[0]
    size = -(-n // _BLOCK) * _BLOCK
    padded = jnp.eye(size, dtype=matrix.dtype).at[:n, :n].set(matrix)
    index = jnp.arange(size)

    def block(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rest, ok = carry
        at = k * _BLOCK
        corner, good = _cholesky_columns(lax.dynamic_slice(rest, (at, at), (_BLOCK, _BLOCK)))
        inverse = triangular_inverse(corner)
        panel = lax.dynamic_slice(rest, (0, at), (size, _BLOCK)) @ inverse.T
        panel = jnp.where((index >= at + _BLOCK)[:, None], panel, 0)
        rest = rest - panel @ panel.T
        panel = lax.dynamic_update_slice(panel, corner, (at, 0))
        return lax.dynamic_update_slice(rest, panel, (0, at)), ok & good

    factor, ok = lax.fori_loop(0, size // _BLOCK, block, (padded, jnp.array(True)))
    return jnp.tril(factor)[:n, :n], ok


def solve_lower(factor: Float[Array, "n n"], rhs: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
    """x with L x = rhs, L lower triangular."""
    n = factor.shape[0]
    if n <= _UNROLL:
        x: list[Array] = []
        for i in range(n):
            x.append((rhs[i] - sum((factor[i, j] * x[j] for j in range(i)), jnp.zeros((), rhs.dtype))) / factor[i, i])
        return jnp.stack(x) if x else rhs

    def row(i: Array, x: Array) -> Array:
        return x.at[i].set((rhs[i] - jnp.tensordot(factor[i], x, 1)) / factor[i, i])

    return lax.fori_loop(0, n, row, jnp.zeros_like(rhs))


def solve_upper(factor: Float[Array, "n n"], rhs: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
    """x with U x = rhs, U upper triangular."""
    return solve_lower(factor[::-1, ::-1], rhs[::-1])[::-1]


def solve_factored(factor: Float[Array, "n n"], rhs: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
    """x with L L^T x = rhs."""
    return solve_upper(factor.T, solve_lower(factor, rhs))


def triangular_inverse(factor: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of a lower triangular matrix."""
    return solve_lower(factor, jnp.eye(factor.shape[0], dtype=factor.dtype))


def qr_r(matrix: Float[Array, "m n"]) -> Float[Array, "n n"]:
    """The triangular factor R of a Householder QR decomposition (m < n is padded with zero rows)."""
    m, n = matrix.shape
    if m < n:
        matrix = jnp.concatenate([matrix, jnp.zeros((n - m, n), matrix.dtype)])
    index = jnp.arange(matrix.shape[0])

    def column(k: Array, a: Array) -> Array:
        x = jnp.where(index >= k, a[:, k], 0)
        norm = length(x)
        v = x + jnp.where(index == k, jnp.where(x[k] >= 0, norm, -norm), 0)
        square = jnp.sum(v * v)
        return a - jnp.where(square > 0, 2 / jnp.where(square > 0, square, 1), 0) * v[:, None] * (v @ a)[None, :]

    return jnp.triu(lax.fori_loop(0, n, column, matrix)[:n])


def svd_square(matrix: Float[Array, "n n"], sweeps: int = 12) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Singular values (not sorted) and right singular vectors by one-sided Jacobi rotations.

    Relatively accurate even for tiny singular values of a column-scaled matrix (Demmel and Veselic
    1992), which is what tells a direction without information from a weak one.

    **Returns:** `s` and `V` with `matrix @ V` of orthogonal columns of norm `s`.
    """
    n = matrix.shape[0]
    if n == 1:
        return jnp.abs(matrix[0]), jnp.ones_like(matrix)
    pairs = jnp.array([(i, j) for i in range(n) for j in range(i + 1, n)])

    def rotate(k: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a, v = carry
        i, j = pairs[k % len(pairs)]
        x, y = a[:, i], a[:, j]
        alpha, beta, gamma = jnp.sum(x * x), jnp.sum(y * y), jnp.sum(x * y)
        skip = jnp.abs(gamma) <= jnp.finfo(a.dtype).eps * jnp.sqrt(alpha * beta)
        zeta = (beta - alpha) / (2 * jnp.where(skip, 1, gamma))
        t = jnp.where(zeta >= 0, 1.0, -1.0).astype(a.dtype) / (jnp.abs(zeta) + jnp.sqrt(1 + zeta * zeta))
        t = jnp.where(skip, 0, t)
        c = 1 / jnp.sqrt(1 + t * t)
        s = c * t
        a = a.at[:, i].set(c * x - s * y).at[:, j].set(s * x + c * y)
        x, y = v[:, i], v[:, j]
        return a, v.at[:, i].set(c * x - s * y).at[:, j].set(s * x + c * y)

    a, v = lax.fori_loop(0, sweeps * len(pairs), rotate, (matrix, jnp.eye(n, dtype=matrix.dtype)))
    return jnp.sqrt(jnp.sum(a * a, axis=0)), v


def solve_general(matrix: Float[Array, "n n"], rhs: Float[Array, " n"]) -> Float[Array, " n"]:
    """x with matrix x = rhs by Gauss-Jordan elimination with scaling and partial pivoting.

    A column without any pivot (a direction on which the equations say nothing) gets x = 0. Rows are scaled, then
    columns: a parallax and a spin-down are 1e18 apart, and without its own scale a column passes for empty.
    """
    n = matrix.shape[0]
    scale = jnp.max(jnp.abs(matrix), axis=1)
    scale = 1 / jnp.where(scale > 0, scale, 1)
    across = jnp.max(jnp.abs(matrix * scale[:, None]), axis=0)
    across = 1 / jnp.where(across > 0, across, 1)
    work = jnp.concatenate([matrix * scale[:, None] * across[None, :], (rhs * scale)[:, None]], axis=1)
    index = jnp.arange(n)
    tiny = n * jnp.finfo(matrix.dtype).eps

    def eliminate(k: Array, work: Array) -> Array:
        p = jnp.argmax(jnp.where(index >= k, jnp.abs(work[:, k]), -1))
        order = jnp.where(index == k, p, jnp.where(index == p, k, index))
        work = work[order]
        pivot = work[k, k]
        none = jnp.abs(pivot) <= tiny * 1e-3
        row = jnp.where(
            none, jnp.where(jnp.arange(n + 1) == k, 1, 0).astype(work.dtype), work[k] / jnp.where(none, 1, pivot)
        )
        work = work - jnp.where(index == k, 0, work[:, k])[:, None] * row[None, :]
        return work.at[k].set(row)

    return lax.fori_loop(0, n, eliminate, work)[:, n] * across
