"""Batches on the engine of small fits: each member as `fit` would have it, and honest where the engine is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci.fitting import _batch, _rounds, _small_batch


class Peak(js.AbstractModel):
    height: js.Scalar = js.param(bounds=(0, 1e3))
    centre: js.Scalar = js.param(bounds=(0, 50))
    width: js.Scalar = js.param(bounds=(0.5, 20))
    level: js.Scalar = js.param(bounds=(0, 100))

    def __call__(self, x):
        return self.level + self.height * jnp.exp(-0.5 * ((x - self.centre) / self.width) ** 2)


class Power(js.AbstractModel):
    """Not a number where x lies below `edge`."""

    scale: js.Scalar = js.param(bounds=(0, None))
    edge: js.Scalar = js.param()
    index: js.Scalar = js.param()

    def __call__(self, x):
        return self.scale * (x - self.edge) ** self.index


class Twice(js.AbstractModel):
    """Knows the sum of two of its parameters alone."""

    first: js.Scalar = js.param()
    second: js.Scalar = js.param()
    slope: js.Scalar = js.param()

    def __call__(self, x):
        return self.first + self.second + self.slope * x


MEMBERS = 30
ROWS = np.linspace(1.0, 49.0, 40)


def peaks(seed, sigma=1.0):
    """(truth, start, observed)."""
    rng = np.random.default_rng(seed)
    truth = np.stack([rng.uniform(*limits, MEMBERS) for limits in ((50, 150), (18, 32), (2, 6), (5, 15))], 1)
    observed = np.stack([np.asarray(Peak(*t)(ROWS)) for t in truth]) + sigma * rng.normal(size=(MEMBERS, len(ROWS)))
    return truth, truth * rng.uniform(0.7, 1.3, truth.shape), observed


def powers(seed):
    rng = np.random.default_rng(seed)
    truth = np.stack([rng.uniform(*limits, MEMBERS) for limits in ((1, 3), (-1, 0.9), (0.3, 1.5))], 1)
    observed = np.stack([t[0] * (ROWS - t[1]) ** t[2] for t in truth]) + 0.2 * rng.normal(size=(MEMBERS, len(ROWS)))
    return truth, truth * rng.uniform(0.7, 1.3, truth.shape), observed


def stacked(cls, starts):
    return js.stack([cls(*start) for start in starts])


def data(observed, noise=lambda y: js.White(1.0)):
    return [js.Dataset(ROWS, y, noise(y)) for y in observed]


KINDS = {
    "white noise": (Peak, peaks, {}, lambda y: js.White(1.0)),
    "noise of unknown scale": (Peak, peaks, {}, lambda y: None),
    "an active bound": (Peak, peaks, {"bounds": {"width": (0.5, 3.5)}}, lambda y: js.White(1.0)),
    "a fixed parameter": (Peak, peaks, {"bounds": {"level": (10.0, 10.0)}}, lambda y: js.White(1.0)),
    "a prior": (Peak, peaks, {"priors": {"width": js.Normal(4.0, 0.1)}}, lambda y: js.White(1.0)),
    "a robust loss": (Peak, peaks, {"loss": js.Huber()}, lambda y: js.White(1.0)),
    "counts": (Peak, peaks, {}, lambda y: js.Poisson(np.maximum(np.round(y), 0))),
    "GaussNewton": (Peak, peaks, {"solver": js.GaussNewton()}, lambda y: js.White(1.0)),
    "a model that is no number beyond an edge": (Power, powers, {}, lambda y: js.White(0.2)),
}


@pytest.fixture
def handed_over(monkeypatch):
    """How many members each batch handed over to its solver."""
    counts, run = [], _rounds.Job.run
    monkeypatch.setattr(_rounds.Job, "run", lambda job, *args: (counts.append(job.size), run(job, *args))[1])
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_each_member_is_as_its_own_fit(kind, handed_over):
    cls, make, options, noise = KINDS[kind]
    _, starts, observed = make(3)
    if kind == "counts":
        observed = np.maximum(np.round(observed), 0)
    batch = js.fit_batch(stacked(cls, starts), data(observed, noise), **options)
    assert sum(handed_over) < MEMBERS / (2 if cls is Power else 6)  # few, or this would not test the engine
    lower = 0
    for k in range(0, MEMBERS, 3):
        alone = js.fit(cls(*starts[k]), data(observed[k : k + 1], noise)[0], throw=False, **options)
        mine = batch[k]
        assert bool(mine.success) == bool(alone.success)
        if not bool(alone.success):
            continue
        errors = np.where(alone.standard_errors > 0, alone.standard_errors, 1)
        assert float(mine.cost) <= float(alone.cost) * (1 + 1e-10)
        if float(mine.cost) < float(alone.cost) * (1 - 1e-6):
            lower += 1  # another minimum than that of the solver, and a better one
            continue
        np.testing.assert_allclose((mine.y - alone.y) / errors, 0, atol=2e-6)
        np.testing.assert_allclose(mine.covariance, alone.covariance, rtol=1e-5, atol=1e-5 * float(errors.min() ** 2))
        for name in ("rank", "dof", "at_bound", "fixed", "determined", "num_data", "projected"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(alone, name))
        assert mine.verdict == alone.verdict
        np.testing.assert_allclose(mine.chi2, alone.chi2, rtol=1e-9)
        np.testing.assert_allclose(mine.log_norm, alone.log_norm, rtol=1e-12)
    assert lower <= 1


@pytest.mark.parametrize("seed", range(3))
def test_success_is_a_gradient_that_vanishes_at_the_answer(seed):
    """By the rows themselves, of what is free to move."""
    _, starts, observed = peaks(seed)
    upper = 3.5
    batch = js.fit_batch(stacked(Peak, starts), data(observed), bounds={"width": (0.5, upper)})
    rows = jax.jit(lambda y, observed: Peak(*y)(ROWS) - observed)
    jacobian = jax.jit(jax.jacfwd(rows))
    assert batch.success.all()
    bound = 0
    for solution, y in zip(batch, observed, strict=True):
        z, columns = np.asarray(rows(solution.y, y)), np.asarray(jacobian(solution.y, y))
        slope = columns.T @ z / np.linalg.norm(columns, axis=0)
        held = np.asarray(solution.at_bound) != 0
        bound += held[2]
        assert np.all(np.abs(slope[~held]) <= 1e-6)
        assert slope[2] <= 1e-6 if held[2] else solution.y[2] < upper
        np.testing.assert_allclose(solution.cost, z @ z / 2, rtol=1e-12)
    assert 0 < bound < MEMBERS


def test_what_the_data_do_not_determine_is_handed_over_and_said(handed_over):
    rng = np.random.default_rng(0)
    observed = 3.0 + 0.5 * ROWS + rng.normal(size=(4, len(ROWS)))
    batch = js.fit_batch(Twice(1.0, 1.0, 0.0), data(observed))
    assert handed_over == [4]
    for k in range(4):
        alone = js.fit(Twice(1.0, 1.0, 0.0), data(observed[k : k + 1])[0], throw=False)
        assert int(batch[k].rank) == 2
        # how the sum is shared is not determined: rounding may move it along that direction
        both = [np.array([y[0] + y[1], y[2]]) for y in (np.asarray(batch[k].y), np.asarray(alone.y))]
        np.testing.assert_allclose(*both, rtol=1e-9)
        np.testing.assert_allclose(batch[k].cost, alone.cost, rtol=1e-12)
        assert np.isinf(np.asarray(batch[k].standard_errors)[:2]).all()
    assert set(batch.warnings) == set(range(4))


def test_bad_members_spoil_only_themselves(handed_over):
    _, starts, observed = peaks(5)
    members = data(observed)
    clean = js.fit_batch(stacked(Peak, starts), members)
    bad = list(members)
    bad[2] = js.Dataset(ROWS, np.where(np.arange(len(ROWS)) == 4, np.nan, observed[2]), js.White(1.0))
    bad[7] = js.Dataset(ROWS, observed[7], js.White(0.0))
    bad[11] = js.Dataset(ROWS, observed[11], js.White(1.0), np.zeros(len(ROWS), bool))
    handed_over.clear()
    batch = js.fit_batch(stacked(Peak, starts), bad)
    assert handed_over == [3]
    assert list(batch.failed) == [2, 7, 11]
    good = np.setdiff1d(np.arange(MEMBERS), [2, 7, 11])
    for a, b in zip(jax.tree.leaves(clean.groups), jax.tree.leaves(batch.groups), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[good], np.asarray(b)[good])


def test_bits_depend_on_nobody_else():
    _, starts, observed = peaks(6)
    whole = js.fit_batch(stacked(Peak, starts), data(observed)).groups[0]
    some = np.array([17, 3, 4, 29])
    part = js.fit_batch(stacked(Peak, starts[some]), data(observed[some])).groups[0]
    for name in ("y", "covariance", "cost", "num_steps", "decrement"):
        np.testing.assert_array_equal(np.asarray(getattr(whole, name))[some], getattr(part, name))


def test_what_the_engine_takes(monkeypatch):
    """Few parameters, rows that are independent, a solver of ours."""
    _, starts, observed = peaks(1)
    asked, takes = [], _small_batch.takes
    monkeypatch.setattr(_batch, "takes", lambda job: asked.append(takes(job)) or asked[-1])

    def taken(**options):
        js.fit_batch(stacked(Peak, starts[:2]), data(observed[:2], options.pop("noise", lambda y: None)), **options)
        return asked[-1]

    assert taken()
    assert taken(solver=js.GaussNewton())
    assert not taken(batch_size=1)
    assert not taken(noise=lambda y: js.Dense(np.eye(len(y))))
    assert not taken(noise=lambda y: js.Diagonal(np.ones(len(y))), free=("*", "noise.efac"))
