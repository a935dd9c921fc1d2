"""What solvers see of the data: dense and in chunks, and what chunks cost in memory."""

import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, quick_jit
from problems import Decay

import jaxsci as js

N = 101
RNG = np.random.default_rng(5)
T = jnp.linspace(0.0, 5.0, N)
Y = np.asarray(Decay(2.0, 1.3, 3.0)(T)) + 0.1 * RNG.normal(size=N)
SIGMA = RNG.uniform(0.05, 0.2, N)
BASIS = np.stack([np.cos(np.asarray(T)), np.sin(np.asarray(T))], axis=1)
MASK = np.arange(N) % 7 != 3
GN = js.GaussNewton()
NOISES = {
    "unit": None,
    "white": js.White(0.1),
    "diagonal": js.Diagonal(SIGMA, 1.1, 0.02),
    "low rank": js.LowRank(js.Diagonal(SIGMA), BASIS, jnp.array([0.3, 0.1])),
    "poisson": js.Poisson(jnp.asarray(RNG.poisson(np.asarray(Decay(20.0, 1.3, 3.0)(T))), float)),
}
CASES = {  # noise, loss, bounds
    "unit": ("unit", js.Linear(), None),
    "white": ("white", js.Linear(), None),
    "diagonal": ("diagonal", js.Linear(), None),
    "low rank": ("low rank", js.Linear(), None),
    "poisson": ("poisson", js.Linear(), {"base": (0.1, None), "amp": (0.0, None)}),
    "robust": ("diagonal", js.Cauchy(1.0), None),
    "bounded": ("diagonal", js.Linear(), {"tau": (1.5, 5.0), "amp": (0.0, 10.0)}),
}


def dataset(noise):
    return js.Dataset(T, NOISES[noise].counts if noise == "poisson" else Y, NOISES[noise], MASK)


def run(case, chunk, priors=None):
    noise, loss, bounds = CASES[case]
    fit = quick_jit(
        lambda d: js.fit(
            Decay(2.5, 1.6, 2.0), d, loss=loss, bounds=bounds, priors=priors, chunk=chunk, solver=GN, throw=False
        )
    )
    return fit(dataset(noise))


@pytest.mark.parametrize("case", CASES)
def test_chunks_change_nothing(case):
    """30 rows at a time and 11 left over, against all at once."""
    priors = {"amp": js.Normal(2.0, 0.5)} if case == "diagonal" else None
    dense, chunked = run(case, None, priors), run(case, 30, priors)
    assert bool(dense.success)
    assert bool(chunked.success)
    std = np.asarray(dense.standard_errors)
    close(chunked.y, dense.y, 1e-12, 1e-11 * std.min())
    close((chunked.cost, chunked.chi2), (dense.cost, dense.chi2), 1e-12)
    close(chunked.covariance, dense.covariance, 1e-11, 1e-13 * std.max() ** 2)
    for field in ("dof", "rank", "num_data", "at_bound", "determined"):
        assert np.all(np.asarray(getattr(chunked, field)) == np.asarray(getattr(dense, field))), field


@pytest.mark.parametrize("chunk", [1, 7, 100, 101, 102, 10_000])
def test_any_chunk_gives_the_same_sums(chunk):
    dense, other = (objective("diagonal", c) for c in (None, chunk))
    y = jnp.array([1.7, 1.1, 2.5])
    a, b = (quick_jit(lambda o: (o(y), o.cost(y)))(o) for o in (dense, other))
    close(jax.tree.leaves(b), jax.tree.leaves(a), 1e-12, 1e-11)


def objective(noise, chunk, data=None):
    """The Objective that a fit would make."""
    from jaxsci.fitting import Choices, Problem
    from jaxsci.fitting._fit import make_ready
    from jaxsci.fitting._plan import make_plan, terms_of

    data = dataset(noise) if data is None else data
    model = Decay(2.5, 1.6, 2.0)
    plan = make_plan(model, data.noise, None)
    problem = Problem(model, data, terms_of(plan, None, None, None, js.Linear()))
    return make_ready(problem, Choices(plan, GN, chunk)).objective


@pytest.mark.parametrize("noise", ["white", "diagonal", "low rank"])
@pytest.mark.parametrize("chunk", [None, 30])
def test_linearisation_against_dense_algebra(noise, chunk):
    y = jnp.array([1.7, 1.1, 2.5])
    lin, hessian, exact = quick_jit(lambda o: (o(y), o.hessian(y), jax.grad(o.cost)(y)))(objective(noise, chunk))
    t, used = np.asarray(T)[MASK], MASK
    e = np.exp(-t / 1.1)
    jac = np.stack([e, 1.7 * e * t / 1.1**2, np.ones_like(t)], axis=1)
    r = 1.7 * e + 2.5 - Y[used]
    c = {
        "white": 0.01 * np.eye(N),
        "diagonal": np.diag((1.1 * SIGMA) ** 2 + 0.02**2),
        "low rank": np.diag(SIGMA**2) + BASIS @ np.diag([0.3, 0.1]) @ BASIS.T,
    }[noise][np.ix_(used, used)]
    weighted = np.linalg.solve(c, np.column_stack([jac, r]))
    close(lin.cost, r @ weighted[:, -1] / 2, 1e-10)
    close(lin.grad, jac.T @ weighted[:, -1], 1e-9, 1e-9)
    close(lin.gram, jac.T @ weighted[:, :3], 1e-9, 1e-9)
    close(exact, lin.grad, 1e-9, 1e-9)
    second = np.zeros((3, 3))
    score = weighted[:, -1]
    second[0, 1] = second[1, 0] = score @ (e * t / 1.1**2)
    second[1, 1] = score @ (1.7 * e * (t**2 / 1.1**4 - 2 * t / 1.1**3))
    close(hessian, np.asarray(lin.gram) + second, 1e-9, 1e-8)


@pytest.mark.parametrize("case", ["diagonal", "robust", "low rank"])
def test_gradients_through_chunks(case):
    noise, loss, _ = CASES[case]

    def amp(observed, chunk):
        data = js.Dataset(T, observed, NOISES[noise], MASK)
        return js.fit(Decay(2.5, 1.6, 2.0), data, loss=loss, chunk=chunk, solver=GN, throw=False).y[0]

    dense, chunked = (quick_jit(jax.grad(lambda y, c=c: amp(y, c)))(jnp.asarray(Y)) for c in (None, 30))
    assert bool(jnp.any(dense != 0))
    close(chunked, dense, 1e-9, 1e-12)


def test_a_dense_covariance_cannot_be_chunked():
    data = js.Dataset(T, Y, js.Dense(np.eye(N)))
    with pytest.raises(ValueError, match="a dense covariance couples all rows: it cannot be taken in chunks"):
        js.fit(Decay(2.5, 1.6, 2.0), data, chunk=30, solver=GN)


@pytest.mark.parametrize("loss", [js.Huber()])
def test_a_robust_loss_of_correlated_rows_cannot_be_chunked(loss):
    with pytest.raises(ValueError, match="chunk"):
        js.fit(Decay(2.5, 1.6, 2.0), dataset("low rank"), loss=loss, chunk=30, solver=GN)


def test_memory_of_chunks_does_not_grow_with_the_data():
    def temporaries(n, chunk):
        t = jnp.linspace(0.0, 5.0, n)
        data = js.Dataset(t, t, js.White(0.1))
        flat, build = jax.tree.flatten(data)

        def cost_and_gradient(flat):
            d = jax.tree.unflatten(build, flat)
            return objective("white", chunk, d)(jnp.array([1.7, 1.1, 2.5]))

        return quick_jit(cost_and_gradient).lower(flat).compile().memory_analysis().temp_size_in_bytes

    small, large = temporaries(20_000, 1000), temporaries(200_000, 1000)
    assert large < 2**20
    assert large < 2 * small
    assert temporaries(200_000, None) > 8 * 200_000


def test_priors_are_rows():
    """A Gaussian prior is one more datum: against the same datum given as one."""
    x = np.array([0.0, 1.0, 2.0])

    class Constant(js.AbstractModel):
        c: js.Scalar = js.param(prior=js.Normal(4.0, 0.5))

        def __call__(self, x):
            return self.c + 0 * x

    prior = js.fit(Constant(0.0), js.Dataset(x, [1.0, 2.0, 3.0], js.White(1.0)), solver=GN)
    datum = js.fit(
        Constant(0.0),
        js.Dataset(np.append(x, 3.0), [1.0, 2.0, 3.0, 4.0], js.Diagonal([1.0, 1.0, 1.0, 0.5])),
        priors={"c": js.Normal(0.0, jnp.inf)},
        solver=GN,
    )
    expected = (6.0 + 4.0 * 4) / (3 + 4)
    for solution in (prior, datum):
        close(solution.y, np.array([expected]), 1e-13)
        close(solution.covariance, np.array([[1 / 7]]), 1e-13)
    close(prior.chi2, datum.chi2, 1e-13)
    assert int(prior.dof) == int(datum.dof) == 3


def test_a_prior_alone_determines():
    """A parameter without effect on the data has the prior's value and width."""
    solution = js.fit(
        Decay(2.0, 1.3, 3.0),
        js.Dataset(T, jnp.zeros(N), js.White(1.0)),
        free=("tau",),
        priors={"tau": js.Normal(0.7, 0.2)},
        bounds={"tau": (0.1, None)},
        solver=GN,
    )
    assert int(solution.rank) == 1
    flat, _ = jfu.ravel_pytree(solution.covariance)
    assert 0 < float(flat[0]) < 0.04 * 1.0001
