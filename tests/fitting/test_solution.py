"""What a fit answers, in numbers, in words and in files."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import close, quick_jit, same_bits
from problems import SIGMA, START, TIMES, Decay, Gaussian, Line, N, Polynomial, decay_data, decay_set

import jaxsci as js

GN = js.GaussNewton()


@pytest.fixture(scope="module")
def solution():
    return js.fit(START, decay_set(), solver=GN)


@pytest.fixture(scope="module")
def batch():
    fit = quick_jit(jax.vmap(lambda d: js.fit(START, d, solver=GN, throw=False)))
    return fit(js.stack([decay_set(k) for k in range(3)]))


def test_names_values_and_errors_belong_together(solution):
    assert solution.names == ("amp", "tau", "base")
    assert solution.units == ("mV", "s", "")
    assert list(solution.values) == list(solution.std) == ["amp", "tau", "base"]
    close(jnp.stack(list(solution.values.values())), solution.y)
    close(jnp.stack(list(solution.std.values())), solution.standard_errors)
    close(solution.standard_errors**2, jnp.diagonal(solution.covariance), 1e-14)
    assert float(solution.model.tau) == float(solution.y[1])
    assert solution.noise is None


def test_correlation(solution):
    std = np.asarray(solution.standard_errors)
    close(solution.correlation, np.asarray(solution.covariance) / std / std[:, None], 1e-14)
    close(jnp.diagonal(solution.correlation), np.ones(3), 1e-14)


def test_chi2_dof_and_information_criteria(solution):
    r = (np.asarray(solution.model(TIMES)) - decay_data()) / SIGMA
    close(solution.chi2, r @ r, 1e-12)
    close(solution.cost, r @ r / 2, 1e-12)
    assert (int(solution.num_data), int(solution.dof), int(solution.rank)) == (N, N - 3, 3)
    close(solution.reduced_chi2, r @ r / (N - 3), 1e-12)
    log_likelihood = scipy.stats.norm.logpdf(r * SIGMA, scale=SIGMA).sum()
    close(solution.aic, 2 * 3 - 2 * log_likelihood, 1e-12)
    close(solution.bic, 3 * np.log(N) - 2 * log_likelihood, 1e-12)


def test_information_criteria_with_an_unknown_scale_profile_it_out():
    solution = js.fit(START, js.Dataset(TIMES, decay_data()), solver=GN)
    r = np.asarray(solution.model(TIMES)) - decay_data()
    log_likelihood = scipy.stats.norm.logpdf(r, scale=np.sqrt((r**2).mean())).sum()
    close(solution.aic, 2 * 4 - 2 * log_likelihood, 1e-12)
    close(solution.bic, 4 * np.log(N) - 2 * log_likelihood, 1e-12)


def test_information_criteria_prefer_the_true_model(solution):
    line = js.fit(Line(0.0, 1.0), decay_set(), solver=GN)
    assert float(solution.aic) < float(line.aic)
    assert float(solution.bic) < float(line.bic)


def test_propagate_against_differences_and_dict_free(solution):
    value, variance = solution.propagate(lambda m: m.amp * m.tau)
    amp, tau, _ = np.asarray(solution.y)
    g = np.array([tau, amp, 0.0])
    close(value, amp * tau, 1e-14)
    close(variance, g @ np.asarray(solution.covariance) @ g, 1e-12)
    values, matrix = solution.propagate(lambda m: m(TIMES[:2]))
    assert (values.shape, matrix.shape) == ((2,), (2, 2))
    assert bool(jnp.all(jnp.diagonal(matrix) > 0))


def test_summary_says_what_it_must(solution):
    text = solution.summary()
    lines = text.splitlines()
    assert lines[0] == "Decay: converged"
    assert re.search(r"^  amp +2\.013 \+- 0\.0\d\d +mV$", text, re.M)
    assert re.search(r"^  tau +1\.2\d\d \+- 0\.0\d\d +s$", text, re.M)
    for word in (
        "chi2: ",
        "degrees of freedom: 27",
        "reduced chi2: ",
        "rank: 3 of 3",
        f"steps: {int(solution.num_steps)}",
    ):
        assert word in text
    assert re.search(r"correlation base, tau: -0\.\d{3}", text)


@pytest.mark.filterwarnings("ignore:the data do not determine")
def test_summary_names_bounds_fixed_and_undetermined_parameters():
    x = jnp.linspace(0.0, 1.0, 5)
    poly = Polynomial([0.0, 0.0, 0.0, 0.0], x)
    data = js.Dataset(x, 1 + 2 * x, js.White(0.1))
    inf = jnp.inf
    lower, upper = jnp.array([-inf, -inf, 0.5, 0.0]), jnp.array([1.0 - 0.5, inf, inf, 0.0])
    text = js.fit(
        js.put(poly, {"c": jnp.array([0.0, 0.0, 1.0, 0.0])}), data, bounds={"c": (lower, upper)}, solver=GN
    ).summary()
    assert "c[0]" in text
    assert "(at its upper bound)" in text
    assert "(at its lower bound)" in text
    assert "(fixed)" in text
    one = js.fit(Line(1.0, 1.0), js.Dataset([0.0], [2.0], js.White(1.0)), solver=GN)
    assert "inf" in one.summary()
    assert "(not determined by the data)" in one.summary()
    assert "not determined by the data" in one._repr_html_()


def test_summary_says_how_a_fit_failed():
    failed = js.fit(START, decay_set(), max_steps=4, throw=False)
    assert "had not converged" in failed.summary().splitlines()[0]


def test_html_escapes_and_tabulates(solution):
    page = solution._repr_html_()
    assert page.count("<tr>") == 4
    assert ">tau</td>" in page

    class Odd(js.AbstractModel):
        a: js.Scalar = js.param(unit="<b>&")

        def __call__(self, x):
            return self.a * x

    page = js.fit(Odd(1.0), js.Dataset([1.0, 2.0], [1.0, 3.0]), solver=GN)._repr_html_()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page


def test_a_batch_has_its_axes(batch):
    assert batch.y.shape == (3, 3)
    assert batch.standard_errors.shape == (3, 3)
    assert batch.correlation.shape == (3, 3, 3)
    assert batch.values["tau"].shape == batch.std["tau"].shape == batch.reduced_chi2.shape == batch.aic.shape == (3,)
    assert batch.success.tolist() == [True] * 3
    with pytest.raises(
        ValueError, match=re.escape("this Solution holds a batch of shape (3,): take one member of it first")
    ):
        batch.summary()
    assert "batch (3,)" in batch._repr_html_()
    one = jax.tree.map(lambda leaf: leaf[1], batch)
    alone = js.fit(START, decay_set(1), solver=GN)
    close(one.y, alone.y, 1e-12)
    assert one.summary().splitlines()[0] == "Decay: converged"


def test_array_parameters_keep_their_shape():
    x = jnp.linspace(-1.0, 1.0, 9)
    solution = js.fit(Polynomial([0.0, 0.0, 0.0], x), js.Dataset(x, 1 + 2 * x - x**2, js.White(0.1)), solver=GN)
    assert solution.names == ("c[0]", "c[1]", "c[2]")
    assert solution.values["c"].shape == solution.std["c"].shape == (3,)
    close(solution.values["c"], np.array([1.0, 2.0, -1.0]), 1e-12)


def test_save_and_load(solution, batch, tmp_path):
    for k, one in enumerate((solution, batch)):
        path = tmp_path / f"{k}.eqx"
        one.save(path)
        back = js.Solution.load(path, Decay(0.0, 0.0, 0.0) if k == 0 else js.stack([START] * 3))
        assert jax.tree.structure(back) == jax.tree.structure(one)
        same_bits(back, one)
        assert back.names == one.names
        assert back.success.tolist() == one.success.tolist()
    assert js.Solution.load(tmp_path / "0.eqx", START).summary() == solution.summary()


def test_a_damaged_file_never_loads(solution, tmp_path):
    path = tmp_path / "one.eqx"
    solution.save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    assert b"pickle" not in whole
    for _ in range(300):
        k = int(rng.integers(8 * len(whole)))
        damaged = bytearray(whole)
        damaged[k // 8] ^= 1 << k % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|not a jaxsci file"):
            js.Solution.load(path, START)
    for length in rng.integers(0, len(whole), 50):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"damaged|not a jaxsci file"):
            js.Solution.load(path, START)


OTHERS = {
    "another class": Line(0.0, 0.0),
    "fewer leaves": Gaussian(1.0, 1.0, 1.0),
    "another shape": js.stack([START] * 2),
    "another dtype": jax.tree.map(lambda x: x.astype(jnp.float32), START),
    "more leaves": START + START,
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_model_is_refused(solution, tmp_path, case):
    solution.save(tmp_path / "one.eqx")
    with pytest.raises(ValueError, match="was saved from another model than"):
        js.Solution.load(tmp_path / "one.eqx", OTHERS[case])


def test_another_kind_of_file_is_refused(tmp_path):
    from jaxsci.parallel import write_framed

    write_framed(tmp_path / "x", b"", {"kind": "Posterior"})
    with pytest.raises(ValueError, match="holds a Posterior, not a Solution"):
        js.Solution.load(tmp_path / "x", START)


def test_solution_with_noise_parameters_round_trips(tmp_path):
    data = decay_set()
    solution = js.fit(START, data, free=("*", "noise.sigma"), solver=GN)
    solution.save(tmp_path / "n.eqx")
    back = js.Solution.load(tmp_path / "n.eqx", START, data.noise)
    same_bits(back, solution)
    assert float(back.noise.sigma) == float(solution.noise.sigma)


def test_every_result_has_advice():
    for name in (
        "max_steps_reached",
        "nonfinite_data",
        "bad_noise",
        "nonfinite_start",
        "stalled",
        "empty",
        "solver_failed",
    ):
        assert len(js.RESULTS[getattr(js.RESULTS, name)]) > 20
    assert js.RESULTS[js.RESULTS.successful] == ""
