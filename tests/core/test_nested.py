"""Matrices of nested levels against the dense ones that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.core.linalg import diagonal, factorise, largest_row, matvec, scaled, shifted
from jaxsci.core.nested import Nested, eliminate, tree_shapes

SHAPES = tree_shapes((2, 3, 4))
SIZES = [int(np.prod(shape)) for shape in SHAPES]
SIZE = sum(SIZES)


def places():
    """For each level (p - i, *shape): where each element and those in which it lies are in a vector."""
    starts = np.cumsum([0, *SIZES])
    own = [np.arange(n).reshape(shape) + at for n, shape, at in zip(SIZES, SHAPES, starts, strict=False)]
    above = [[x.reshape(*x.shape, *(1,) * (len(shape) - x.ndim)) for x in own[i:]] for i, shape in enumerate(SHAPES)]
    return [np.stack([np.broadcast_to(x, shape) for x in xs]) for xs, shape in zip(above, SHAPES, strict=True)]


def dense(matrix):
    out = np.zeros((SIZE, SIZE))
    for row, at in zip(matrix.rows, places(), strict=True):
        for values, column in zip(np.asarray(row), at, strict=True):
            out[at[0], column] = out[column, at[0]] = values
    return out


@pytest.fixture(scope="module")
def matrix():
    """Sums of outer products of what each finest element sees."""
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(SIZE, SIZES[0], 5))
    total = np.zeros((SIZE, SIZE))
    lies = places()[0].reshape(3, -1)
    for k in range(SIZES[0]):
        at = lies[:, k]
        total[np.ix_(at, at)] += seen[at, k] @ seen[at, k].T
    rows = [np.stack([total[at[0], column] for column in at]) for at in places()]
    nested = Nested(tuple(map(jnp.asarray, rows)))
    np.testing.assert_array_equal(dense(nested), total)
    return nested


def test_operations_are_those_of_the_dense_matrix(matrix):
    whole, x = dense(matrix), jnp.linspace(-1, 2, SIZE)
    np.testing.assert_allclose(matvec(matrix, x), whole @ x, rtol=1e-13, atol=1e-12)
    np.testing.assert_array_equal(diagonal(matrix), np.diag(whole))
    np.testing.assert_allclose(dense(scaled(matrix, x)), whole * np.outer(x, x), rtol=1e-14)
    np.testing.assert_allclose(dense(shifted(matrix, x)), whole + np.diag(np.asarray(x)), rtol=1e-14)
    np.testing.assert_allclose(dense(shifted(matrix, 0.5)), whole + np.diag(np.full(SIZE, 0.5)), rtol=1e-14)
    np.testing.assert_allclose(largest_row(matrix), np.abs(whole).sum(axis=1).max(), rtol=1e-14)


def test_solves_and_inverts_on_its_pattern(matrix):
    factor, inverse = factorise(matrix), np.linalg.inv(dense(matrix))
    x = jnp.linspace(-1, 2, SIZE)
    assert bool(factor.ok)
    np.testing.assert_allclose(factor.solve(x), inverse @ x, rtol=1e-10)
    for block, at in zip(factor.inverse(), places(), strict=True):
        np.testing.assert_allclose(block, inverse[at[:, None], at[None]], rtol=1e-10, atol=1e-14)


def test_lanes_of_a_batch_are_the_same(matrix):
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), matrix)
    x = jnp.linspace(-1, 2, SIZE)
    solved = jax.vmap(lambda m: factorise(m).solve(x))(many)
    np.testing.assert_allclose(solved[1], factorise(matrix).solve(x) / 2, rtol=1e-12)


def test_an_indefinite_matrix_is_told(matrix):
    top = Nested((*matrix.rows[:2], matrix.rows[2].at[0, 1].set(-1)))
    factor = factorise(top)
    assert not bool(factor.ok)
    assert np.all(np.isfinite(factor.solve(jnp.ones(SIZE))))


def test_what_is_not_determined_spoils_only_what_leans_on_it(matrix):
    """The second coarsest element is told by nothing but a sum with all that lies within it."""
    rows = [np.array(row) for row in matrix.rows]
    rows[0][1:, 1], rows[1][1, 1] = 0, 0
    rows[0][2, 1] = rows[0][0, 1]  # what lies within knows itself but for a shift by the coarsest
    rows[2][0, 1] = rows[0][0, 1].sum()
    singular = Nested(tuple(map(jnp.asarray, rows)))
    scale = 1 / jnp.sqrt(diagonal(singular))
    factor = eliminate(scaled(singular, scale), 1e-10)
    lost = [pivot <= 1e-10 for pivot in factor.pivots]
    assert [int(x.sum()) for x in lost] == [0, 0, 1]
    spoilt = factor.null(lost)
    expected = [np.zeros(shape, bool) for shape in SHAPES]
    expected[0][1], expected[2][1] = True, True
    for found, truth in zip(spoilt, expected, strict=True):
        np.testing.assert_array_equal(found, truth)
    whole = dense(scaled(singular, scale))
    known = ~np.concatenate([x.ravel() for x in expected])
    variance = np.concatenate([np.asarray(block[0, 0]).ravel() for block in factor.inverse()])
    np.testing.assert_allclose(variance[known], np.diag(np.linalg.pinv(whole))[known], rtol=1e-9)
