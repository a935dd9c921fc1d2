"""Parameters in common to a batch: the joint dense fit, what is left out, what is not determined."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from jaxtyping import Array, Float
from problems import Decay

import jaxsci as js
from jaxsci.fitting import _shared

N = 12
T = np.linspace(0.0, 4.0, N)


class Decays(js.AbstractModel):
    """All decays of a batch as one model, with one life time; rows are (t, place of the member)."""

    amp: Float[Array, " b"] = js.param()
    base: Float[Array, " b"] = js.param()
    tau: js.Scalar = js.param()

    def __call__(self, rows: Float[Array, "n 2"]) -> Float[Array, " n"]:
        member = rows[:, 1].astype(int)
        return self.amp[member] * jnp.exp(-rows[:, 0] / self.tau) + self.base[member]


@functools.cache
def curves(count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    amp, base = rng.uniform(1, 2, count), rng.normal(0, 0.3, count)
    return amp[:, None] * np.exp(-T / 1.3) + base[:, None] + 0.05 * rng.normal(size=(count, N))


def datasets(count: int, noise: object = js.White(0.05)) -> list:
    return [js.Dataset(jnp.asarray(T), jnp.asarray(y), noise) for y in curves(count)]


def dense(count: int, noise: object = js.White(0.05), **options: object) -> js.Solution:
    y = curves(count)
    rows = np.stack([np.tile(T, count), np.repeat(np.arange(count), N)], 1)
    model = Decays(jnp.ones(count), jnp.zeros(count), 1.0)
    return js.fit(model, js.Dataset(jnp.asarray(rows), jnp.asarray(y.ravel()), noise), **options)


@pytest.mark.parametrize("solver", [js.TRF(), js.GaussNewton()], ids=["trf", "gauss-newton"])
@pytest.mark.parametrize("noise", [js.White(0.05), None], ids=["known", "unknown"])
def test_equal_to_the_joint_dense_fit(noise, solver):
    count = 200
    batch = js.fit_batch(Decay(1.0, 1.0, 0.0), datasets(count, noise), shared="tau", solver=solver)
    joint = dense(count, noise, solver=js.GaussNewton())
    assert batch.shared.success
    assert not batch.failed
    np.testing.assert_allclose(batch.shared.y[0], joint.model.tau, rtol=1e-10)
    np.testing.assert_allclose(batch.shared.standard_errors[0], joint.std["tau"], rtol=1e-9)
    np.testing.assert_allclose(batch.shared.chi2, joint.chi2, rtol=1e-12)
    assert batch.shared.dof == joint.dof == count * (N - 2) - 1
    table = batch.table()
    for name in ("amp", "base"):
        np.testing.assert_allclose(table[name], joint.values[name], rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(table[f"{name}_std"], joint.std[name], rtol=1e-9)
    np.testing.assert_array_equal(table["tau"], float(batch.shared.y[0]))
    np.testing.assert_allclose(table["tau_std"], joint.std["tau"], rtol=1e-9)
    member, at = batch[7].covariance, [7, 400, count + 7]  # amp, tau, base of member 7
    np.testing.assert_allclose(member, joint.covariance[np.ix_(at, at)], rtol=1e-8)


def test_joint_errors_are_scaled_on_demand():
    batch = js.fit_batch(Decay(1.0, 1.0, 0.0), datasets(9), shared="tau", scale_covariance=True)
    joint = dense(9, solver=js.GaussNewton(), scale_covariance=True)
    np.testing.assert_allclose(batch.shared.standard_errors[0], joint.std["tau"], rtol=1e-9)
    np.testing.assert_allclose(batch.table()["amp_std"], joint.std["amp"], rtol=1e-9)


def test_bad_members_are_left_out_and_listed():
    good = datasets(9)
    nan = js.Dataset(jnp.asarray(T), jnp.full(N, jnp.nan), js.White(0.05))
    empty = js.Dataset(jnp.asarray(T), jnp.zeros(N), js.White(0.05), jnp.zeros(N, bool))
    silent = js.Dataset(jnp.asarray(T), jnp.zeros(N), js.White(0.0))
    mixed = [*good[:4], nan, *good[4:], empty, silent]
    clean = js.fit_batch(Decay(1.0, 1.0, 0.0), good, shared="tau", batch_size=4)
    spoilt = js.fit_batch(Decay(1.0, 1.0, 0.0), mixed, shared="tau", batch_size=4)
    assert list(spoilt.failed) == [4, 10, 11]
    np.testing.assert_allclose(spoilt.shared.y, clean.shared.y, rtol=1e-13)
    np.testing.assert_allclose(spoilt.shared.covariance, clean.shared.covariance, rtol=1e-12)
    assert np.isnan(spoilt[4].covariance).all()
    place = [0, 1, 2, 3, 5, 6, 7, 8, 9]
    np.testing.assert_allclose(spoilt.table()["amp"][place], clean.table()["amp"], rtol=1e-13)


def test_lengths_and_structures_share_too():
    """Members of two lengths and two kinds of noise, one of them with a bound that holds its base."""
    whole = datasets(9)
    short = [js.Dataset(d.inputs[:9], d.observed[:9], js.Diagonal(jnp.full(9, 0.05))) for d in whole[:3]]
    batch = js.fit_batch(Decay(1.0, 1.0, 0.0), [*short, *whole[3:]], shared=("tau",), bounds={"base": (0.0, None)})
    assert not batch.failed
    assert (batch.table()["base"] >= 0).all()
    assert batch.shared.num_data == 3 * 9 + 6 * N

    def cost(tau):  # each member by itself at this life time
        at = js.fit_batch(
            Decay(1.0, tau, 0.0), [*short, *whole[3:]], free=("amp", "base"), bounds={"base": (0.0, None)}
        )
        return at.table()["chi2"].sum()

    best = float(batch.shared.y[0])
    np.testing.assert_allclose(cost(best), float(batch.shared.chi2), rtol=1e-12)
    assert cost(best) < min(cost(best * 1.01), cost(best * 0.99))


def test_a_shared_parameter_that_no_member_determines():
    """amp is local and zero: tau has no effect; base is still right."""
    data = [js.Dataset(jnp.asarray(T), jnp.full(N, 0.5 + k) + 0.01 * jnp.asarray(T), js.White(0.05)) for k in range(3)]
    batch = js.fit_batch(Decay(0.0, 1.0, 0.0), data, free=("tau", "base"), shared="tau")
    assert not batch.shared.determined[0]
    assert np.isinf(batch.shared.standard_errors[0])
    np.testing.assert_allclose(batch.table()["base_std"], 0.05 / np.sqrt(N), rtol=1e-9)


def test_a_prior_counts_once():
    """With a prior much narrower than the data's information the shared value is the weighted mean of both."""
    data = datasets(9)
    free = js.fit_batch(Decay(1.0, 1.0, 0.0), data, shared="tau")
    sigma = float(free.shared.standard_errors[0])
    held = js.fit_batch(Decay(1.0, 1.0, 0.0), data, shared="tau", priors={"tau": js.Normal(free.shared.y[0], sigma)})
    np.testing.assert_allclose(held.shared.standard_errors[0], sigma / np.sqrt(2), rtol=1e-6)
    assert held.shared.dof == free.shared.dof + 1


def test_complaints():
    data = datasets(9)
    with pytest.raises(ValueError, match=r"shared: no free parameter 'tua'; did you mean 'tau'"):
        js.fit_batch(Decay(1.0, 1.0, 0.0), data, shared="tua")
    with pytest.raises(ValueError, match="one pair of bounds"):
        js.fit_batch(Decay(1.0, 1.0, 0.0), data, shared="tau", bounds={"tau": (np.arange(1, 10) / 20, None)})
    with pytest.raises(ValueError, match="takes TRF"):
        js.fit_batch(Decay(1.0, 1.0, 0.0), data, shared="tau", solver=js.Adam())
    with pytest.raises(ValueError, match="noise=None beside"):
        js.fit_batch(Decay(1.0, 1.0, 0.0), [*data[:3], *datasets(9, None)[3:]], shared="tau")


def test_the_cost_is_linear_in_the_number_of_members(monkeypatch):
    """Numbers in all intermediate arrays of one pass over the joint problem: eight times the members, eight times."""

    def size(jaxpr) -> int:
        own = sum(v.aval.size for e in jaxpr.eqns for v in e.outvars)
        inner = jax.tree.leaves([e.params for e in jaxpr.eqns], is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr))
        return own + sum(size(getattr(x, "jaxpr", x)) for x in inner if isinstance(x, ClosedJaxpr | Jaxpr))

    def numbers(count: int) -> int:
        seen = []
        monkeypatch.setattr(_shared, "compiled", lambda program, args, choices: seen.append((args, choices)))
        with pytest.raises(TypeError):  # the stand-in answers nothing
            js.fit_batch(Decay(1.0, 1.0, 0.0), datasets(count), shared="tau", batch_size=4)
        (args, choices) = seen[0]
        arrays, rest = eqx.partition(args, eqx.is_array)
        return size(jax.make_jaxpr(lambda a: _shared._run(*eqx.combine(a, rest), *choices))(arrays).jaxpr)

    few, many, most = numbers(16), numbers(128), numbers(1024)
    assert (most - many) / (many - few) < 8.5
