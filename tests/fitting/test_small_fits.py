"""The search of small fits, on random problems: some cannot tell two parameters apart, some not see one at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.fitting import small_fits, uncertainty

LANES, ROWS, P = 96, 7, 3
KINDS = np.arange(LANES) % 4  # plain, two parameters in one combination, one without effect, not finite
TOLERANCE = 1e-6


def residual(y, data):
    """Rows that are curved in their parameters."""
    linear = data["a"] @ y
    return linear + data["bend"] * linear**2 - data["observed"]


def terms(y, data):
    rows, jacobian = residual(y, data), jax.jacfwd(residual)(y, data)
    return rows @ rows / 2, jacobian.T @ rows, jacobian.T @ jacobian


def evaluate(data):
    def at(point):
        cost, grad, gram = jax.vmap(terms)(jnp.stack(point, axis=1), data)
        entries = tuple(gram[:, i, j] for i, j in small_fits.pairs(P))
        return small_fits.Sums(cost, tuple(grad.T), entries)

    return at


def box(half):
    lanes = jnp.full(LANES, half)
    return small_fits.Box((-lanes,) * P, (lanes,) * P, jnp.inf)


@jax.jit
def advance(search, data, half):
    return small_fits.advance(search, evaluate(data), box(half), small_fits.Rule(TOLERANCE))


@jax.jit
def known(search, half):
    return uncertainty(search.terms.gram, box(half).fixed())


def problem(seed):
    """(data of all lanes, a start)."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(LANES, ROWS, P))
    a[KINDS == 1, :, 1] = 2 * a[KINDS == 1, :, 0]
    a[KINDS == 2, :, 1] = 0
    bend = rng.normal(size=(LANES, 1)) * 0.05
    y = rng.normal(size=(LANES, P))
    linear = np.einsum("lnp,lp->ln", a, y)
    observed = linear + bend * linear**2 + rng.normal(size=linear.shape)
    observed[KINDS == 3] = np.nan
    data = {"a": a, "bend": bend, "observed": observed}
    return jax.tree.map(jnp.asarray, data), jnp.asarray(rng.normal(size=(P, LANES)))


@pytest.fixture(scope="module", params=[(0, np.inf), (1, np.inf), (2, 1.0), (3, 0.5)], ids=str)
def searched(request):
    """(data, start, half the width of the box, the search at its end, the lowest cost that it saw)."""
    seed, half = request.param
    data, start = problem(seed)
    start = jnp.clip(start, -half, half)
    search, lowest = small_fits.begin(tuple(start)), np.full(LANES, np.inf)
    for _ in range(60):
        tried = np.asarray(jax.vmap(terms)(jnp.stack(search.trial, axis=1), data)[0])
        under_way = np.asarray(search.status) == small_fits.SEARCHING
        lowest = np.where(under_way, np.fmin(lowest, tried), lowest)
        search = advance(search, data, half)
    return data, np.asarray(start), half, search, lowest


def test_the_answer_is_never_above_the_lowest_cost_that_was_seen(searched):
    *_, search, lowest = searched
    good = KINDS != 3
    assert np.all(np.asarray(search.terms.cost)[good] <= lowest[good] * (1 + 1e-10))


def test_success_is_a_gradient_that_vanishes_at_the_answer(searched):
    """By the rows themselves, of what is free to move; a search that ended otherwise does not say so."""
    data, _, half, search, _ = searched
    status, at = np.asarray(search.status), np.stack(search.at, axis=1)
    cost, grad, gram = map(np.asarray, jax.vmap(terms)(jnp.asarray(at), data))
    size = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    held = (np.abs(at) >= half) & (grad * at < 0)
    steep = np.max(np.where(held | (size == 0), 0, np.abs(grad) / np.where(size > 0, size, 1)), axis=1)
    done = status == small_fits.CONVERGED
    assert np.all(steep[done] <= TOLERANCE)
    assert done[KINDS != 3].mean() > 0.95
    np.testing.assert_allclose(np.asarray(search.terms.cost)[done], cost[done], rtol=1e-12)


def test_a_start_that_is_not_finite_is_named(searched):
    status = np.asarray(searched[3].status)
    np.testing.assert_array_equal(status[KINDS == 3], small_fits.NONFINITE)


def test_what_is_lost_keeps_its_start(searched):
    """Where a bound holds one of two that are alike, the other is known."""
    _, start, half, search, _ = searched
    for kind in (1, 2) if np.isinf(half) else (2,):
        np.testing.assert_array_equal(np.asarray(search.at[1])[kind == KINDS], start[1, kind == KINDS])


def test_errors_are_infinite_where_a_direction_is_lost_and_right_elsewhere(searched):
    _, _, half, search, _ = searched
    found = known(search, half)
    covariance, determined = np.asarray(found.covariance), np.asarray(found.determined)
    done = np.asarray(search.status) == small_fits.CONVERGED
    gram = np.zeros((LANES, P, P))
    for (i, j), value in zip(small_fits.pairs(P), search.terms.gram, strict=True):
        gram[:, i, j] = gram[:, j, i] = value
    expected = {0: (True, True, True), 1: (False, False, True), 2: (True, False, True)}
    for kind, which in expected.items():
        lanes = np.flatnonzero(done & (kind == KINDS))
        assert np.all(determined[:, lanes] == np.array(which)[:, None])
        for lane in lanes:
            inverse = np.linalg.pinv(gram[lane], rcond=1e-10)
            for i in range(P):
                value = covariance[i, i, lane]
                assert value == pytest.approx(inverse[i, i], rel=1e-7) if which[i] else np.isposinf(value)


def test_a_blank_search_on_the_host_is_one_that_begins():
    start = np.array([[1.0, 2.0], [3.0, 4.0]])
    begun = small_fits.pack(small_fits.begin(tuple(jnp.asarray(start)), 0.3))
    np.testing.assert_array_equal(small_fits.Progress.blank(start, 0.3).rows, begun)
