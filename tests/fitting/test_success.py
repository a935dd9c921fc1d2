"""Success is true: what a fit calls itself is held against where its answer stands, over random problems.

One program for all members of a property, so that hundreds of problems cost one compilation.
"""

import functools
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import close, quick_jit
from problems import SIGMA, START, TIMES, TRUTH, Decay, Gaussian, N, decay_data, decay_set

import jaxsci as js
from jaxsci.fitting._verdict import facts_of, remarks, to_look_at

SOLVERS = {"trf": js.TRF(), "gn": js.GaussNewton()}
GRID = jnp.linspace(0.0, 10.0, 80)
SCATTER = np.random.default_rng(3).normal(size=(3, 80))


class Peak(js.AbstractModel):
    """A Gaussian peak, or an exponential decay, whose height has the unit `unit`."""

    height: js.Scalar = js.param()
    center: js.Scalar = js.param()
    width: js.Scalar = js.param()
    decays: bool = eqx.field(static=True, default=False)

    def __call__(self, x):
        if self.decays:
            return self.height * jnp.exp(-x / self.center) + self.width * self.height
        return self.height * jnp.exp(-(((x - self.center) / self.width) ** 2) / 2)


@functools.cache
def peaks(solver: str, decays: bool, known: bool):
    """Fits of many peaks: starts (k, 3), data (k, 80), sigma (k,) -> Solution, as one program."""

    def one(start, y, sigma):
        noise = js.White(sigma) if known else None
        data = js.Dataset(GRID, y, noise)
        return js.fit(Peak(*start, decays), data, solver=SOLVERS[solver], throw=False)

    return quick_jit(jax.vmap(one))


def model_of(truth, decays):
    return jax.vmap(lambda t: Peak(*t, decays)(GRID))(jnp.asarray(truth))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("decays", [False, True], ids=["peak", "decay"])
def test_the_unit_of_the_height_is_nothing_to_a_fit(solver, decays):
    units = 10.0 ** np.arange(-15, 16)[:, None]
    truth, start = np.array([1.0, 2.3, 0.9]), np.array([0.7, 1.9, 0.7])
    scale = np.concatenate([units, np.ones_like(units), np.ones_like(units)], axis=1)
    y = model_of(truth * scale, decays) + units * 0.02 * SCATTER[0]
    found = peaks(solver, decays, True)(start * scale, y, 0.02 * units[:, 0])
    assert found.success.all()
    steps = np.asarray(found.num_steps)
    assert np.ptp(steps) <= 4, steps
    close(found.y / scale, np.broadcast_to(np.asarray(found.y[15]), (31, 3)), 1e-9)
    close(found.chi2, np.full(31, float(found.chi2[15])), 1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("decays", [False, True], ids=["peak", "decay"])
def test_a_start_that_is_far_too_large_is_left_behind(solver, decays):
    """Heights of 1e-15 ... 1 from a start of 1: what a user has who writes ones and measures in amperes."""
    heights = 10.0 ** -np.arange(0.0, 16.0, 3)[:, None]
    truth, start = np.array([1.0, 5.3, 1.2]), np.array([1.0, 4.6, 1.0])
    scale = np.concatenate([heights, np.ones_like(heights), np.ones_like(heights)], axis=1)
    y = model_of(truth * scale, decays) + heights * 0.02 * SCATTER[1]
    found = peaks(solver, decays, True)(np.broadcast_to(start, (*y.shape[:1], 3)), y, 0.02 * heights[:, 0])
    assert found.success.all(), found.num_steps
    close(found.chi2, np.full(len(y), float(found.chi2[0])), 1e-7)
    close(found.y / scale, np.broadcast_to(np.asarray(found.y[0]), (len(y), 3)), 1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("known", [True, False], ids=["noise known", "noise unknown"])
def test_data_without_noise_give_the_truth_and_success(solver, known):
    r, count = np.random.default_rng(5), 200
    truth = np.stack([10 ** r.uniform(-12, 12, count), r.uniform(3, 7, count), r.uniform(0.6, 2, count)], axis=1)
    start = truth * r.uniform(0.9, 1.1, truth.shape)
    start[::4] = truth[::4]  # at the optimum from the beginning
    sigma = truth[:, 0] * 10 ** r.uniform(-4, 0, count)
    found = peaks(solver, False, known)(start, model_of(truth, False), sigma)
    assert found.success.all(), np.unique(np.asarray(found.result._value))
    close(found.y, truth, 1e-7)


class Twice(js.AbstractModel):
    """A slope that is told by the sum of two parameters only, one of them squared."""

    a: js.Scalar = js.param()
    b: js.Scalar = js.param()

    def __call__(self, x):
        return (self.a**2 + self.b) * x


def test_data_without_noise_that_leave_a_direction_open_are_fitted_to_the_last_digit():
    rng = np.random.default_rng(0)
    starts, slopes = rng.normal(size=(300, 2)), 3 * rng.normal(size=300)

    def one(start, slope):
        return js.fit(Twice(*start), js.Dataset(GRID, slope * GRID), solver=js.GaussNewton(), throw=False)

    found = quick_jit(jax.vmap(one))(starts, slopes)
    close(found.y[:, 0] ** 2 + found.y[:, 1], slopes, 1e-11, 1e-11)
    assert bool(jnp.all(found.success))
    assert found.rank.tolist() == [1] * 300


@pytest.mark.parametrize("noise", [js.White(0.1), None], ids=["noise known", "noise unknown"])
def test_as_many_data_as_parameters_are_gone_through_exactly(noise):
    x = jnp.array([3.0, 5.0, 6.0])
    data = js.Dataset(x, Gaussian(1.2, 5.0, 1.3)(x), noise)
    found = js.fit(Gaussian(1.0, 4.6, 1.0), data, throw=False)
    assert bool(found.success), found.message
    close(found.y, np.array([1.2, 5.0, 1.3]), 1e-9)
    assert int(found.dof) == 0


def test_no_success_lies_above_another_optimum_in_its_valley():
    """From where a fit says that it succeeded, a fit from there does not go down by more than it promised."""
    r, count = np.random.default_rng(8), 200
    truth = np.stack([np.ones(count), r.uniform(2, 8, count), r.uniform(0.3, 3, count)], axis=1)
    start = truth * r.uniform(0.3, 3.0, truth.shape)
    y = model_of(truth, False) + 0.05 * r.normal(size=(count, 80))
    sigma = np.full(count, 0.05)
    found = peaks("trf", False, True)(start, y, sigma)
    ok = np.asarray(found.success)
    assert ok.mean() > 0.5
    again = peaks("gn", False, True)(np.asarray(found.y), y, sigma)
    fell = np.asarray(found.chi2 - again.chi2)[ok]
    assert fell.max() < 1e-5, fell.max()
    errors = np.asarray(found.standard_errors)[ok]
    moved = np.abs(np.asarray(again.y - found.y))[ok] / np.where(np.isfinite(errors), errors, np.inf)
    assert moved.max() < 1e-3


@pytest.mark.parametrize(
    "solver",
    [optx.NelderMead(1e-3, 1e-3), optx.NelderMead(1e-9, 1e-9), optx.BFGS(1e-9, 1e-9), optx.BFGS(0.3, 0.3)],
    ids=["loose simplex", "tight simplex", "BFGS", "loose BFGS"],
)
def test_a_foreign_solver_is_held_to_the_gradient_where_it_ended(solver):
    """Its own word counts for nothing: within a thousandth of a standard error is success, beyond it is not."""
    best = js.fit(START, decay_set())
    foreign = js.fit(START, decay_set(), solver=solver, max_steps=4000, throw=False)
    off = np.max(np.abs(foreign.y - best.y) / best.standard_errors)
    assert bool(foreign.success) == (float(foreign.decrement) <= 1e-3)
    assert bool(foreign.success) == (off < 3e-3)
    if not bool(foreign.success):
        assert "optimum" in foreign.message
        with pytest.raises(RuntimeError, match="no optimum"):
            js.fit(START, decay_set(), solver=solver, max_steps=4000)


class Hole(js.AbstractModel):
    """sqrt(a) x with a derivative that is infinite at 0, and NaN below."""

    a: js.Scalar = js.param()

    def __call__(self, x):
        return jnp.sqrt(self.a) * x


def test_a_model_that_is_not_finite_where_it_ends_is_no_success():
    data = js.Dataset(jnp.arange(1.0, 6.0), -jnp.arange(1.0, 6.0), js.White(1.0))
    for solver in (js.TRF(), js.GaussNewton(), optx.NelderMead(1e-6, 1e-6), optx.BFGS(1e-6, 1e-6)):
        assert not bool(js.fit(Hole(1.0), data, solver=solver, throw=False).success)


# what is said of a fit that converged


def verdict(data, start=START, **choices):
    solution = js.fit(start, data, **choices)
    return solution.verdict, " ".join(solution.remarks), solution


def test_a_fit_that_is_well_says_nothing_more():
    assert verdict(decay_set())[:2] == ("converged", "")


@pytest.mark.filterwarnings("ignore:the data do not determine", "ignore:the start of")
@pytest.mark.parametrize(
    ("data", "start", "choices", "says"),
    [
        (js.Dataset(TIMES, decay_data(), js.White(SIGMA / 5)), START, {}, "chi2/dof is 17.29"),
        (js.Dataset(TIMES, decay_data(), js.White(1e3)), START, {}, "in one unit"),
        (decay_set(), START, {"bounds": {"tau": (0.1, 0.9)}}, "tau ended at its upper bound"),
        (decay_set(), START, {"bounds": {"tau": (1.1, 2.0)}}, "the start of tau lay outside"),
        (js.Dataset(TIMES[:1] + jnp.zeros(N), decay_data(), js.White(SIGMA * 30)), START, {}, "rank 1 of 3"),
    ],
    ids=["chi2 too large", "chi2 too small", "bound", "moved start", "rank"],
)
def test_what_should_be_looked_at_is_said(data, start, choices, says):
    how, words, solution = verdict(data, start, **choices)
    assert how == "converged, look"
    assert says in words
    assert bool(solution.success)
    assert how in solution.summary()
    assert says in solution.summary()
    assert says in solution._repr_html_().replace("&gt;", ">")


def test_chi2_is_judged_only_where_the_noise_says_how_large_it_should_be():
    small = js.White(SIGMA / 5)
    data = js.Dataset(TIMES, decay_data(), small)
    assert verdict(js.Dataset(TIMES, 5 * decay_data(), None))[0] == "converged"
    assert verdict(data, scale_covariance=True)[0] == "converged"
    assert verdict(data, loss=js.Huber(1.0))[0] == "converged"
    assert verdict(data)[0] == "converged, look"


def test_failures_are_failures():
    short = js.fit(START, decay_set(), max_steps=2, throw=False)
    assert short.verdict == "failed"
    assert "failed" in short.summary()


def test_how_improbable_a_chi2_may_be():
    """Just above and below a probability of 1e-6, by the distribution's own quantile."""
    from scipy.stats import chi2

    for dof in (1, 27, 1000):
        edge = chi2.isf(1e-6, dof)
        for factor, looks in ((0.999, False), (1.001, True)):
            flags = np.zeros(0, bool)
            facts = facts_of(
                types.SimpleNamespace(
                    names=(), determined=~flags, fixed=flags, projected=flags, at_bound=np.zeros(0, int), rank=0,
                    chi2=np.array(edge * factor), dof=np.array(dof), testable=True,
                )
            )  # fmt: skip
            assert bool(to_look_at(facts)) == looks
            assert bool(remarks(facts)) == looks


def test_a_batch_says_of_each_member_what_its_own_fit_would():
    sets = [decay_set(), js.Dataset(TIMES, decay_data(1), js.White(SIGMA / 9)), decay_set(2)]
    sets.append(js.Dataset(TIMES, jnp.full(N, jnp.nan), js.White(SIGMA)))
    batch = js.fit_batch(START, sets)
    assert batch.verdicts.tolist() == ["converged", "converged, look", "converged", "failed"]
    assert batch.table()["verdict"].tolist() == batch.verdicts.tolist()
    assert list(batch.warnings) == [1]
    assert batch.warnings[1] == "; ".join(batch[1].remarks)


# what a fit was told stays with it


def test_a_solution_keeps_the_terms_of_its_fit(tmp_path):
    priors = {"amp": js.Normal(2.0, 0.5)}
    active = jnp.array([True, True, False])
    told = {"bounds": {"tau": (0.2, 9.0)}, "priors": priors, "loss": js.Huber(1.5), "active": active}
    solution = js.fit(START, decay_set(), **told)
    terms = solution.terms
    assert np.asarray(terms.lower).tolist() == [-np.inf, 0.2, -np.inf]
    assert np.asarray(terms.upper).tolist() == [np.inf, 9.0, np.inf]
    assert np.asarray(terms.prior_mean).tolist() == [2.0, 0.0, 0.0]
    assert np.asarray(terms.prior_weight).tolist() == [4.0, 0.0, 0.0]
    assert np.asarray(terms.active).tolist() == [True, True, False]
    assert float(terms.loss.scale) == 1.5
    solution.save(tmp_path / "fit.jaxsci")
    again = js.Solution.load(tmp_path / "fit.jaxsci", START)
    assert jax.tree.structure(again) == jax.tree.structure(solution)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(solution), strict=True):
        np.testing.assert_array_equal(a, b)


def test_members_of_a_batch_keep_theirs():
    upper = np.array([5.0, 0.9, 7.0])
    batch = js.fit_batch(START, [decay_set(k) for k in range(3)], bounds={"tau": (np.full(3, 0.1), upper)})
    assert [float(one.terms.upper[1]) for one in batch] == upper.tolist()


def test_a_loss_of_ones_own_is_named_when_it_is_missing(tmp_path):
    class Mine(js.AbstractLoss):
        def __call__(self, z):
            return z * z / 2, z, jnp.ones_like(z)

    solution = js.fit(START, decay_set(), loss=Mine())
    solution.save(tmp_path / "fit.jaxsci")
    with pytest.raises(ValueError, match="the loss Mine: give loss=Mine"):
        js.Solution.load(tmp_path / "fit.jaxsci", START)
    close(js.Solution.load(tmp_path / "fit.jaxsci", START, loss=Mine()).y, solution.y)


def test_the_truth_is_an_optimum_of_its_own_data():
    data = js.Dataset(TIMES, TRUTH(TIMES), js.White(SIGMA))
    found = js.fit(Decay(1.0, 1.0, 0.0), data)
    close(found.y, np.array([2.0, 1.3, 0.4]), 1e-8)
    assert "in one unit" in " ".join(found.remarks)
