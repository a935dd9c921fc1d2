"""What a posterior tells: by name, in tables, in files, and whether it can be believed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import same_bits
from posteriors import Line, drawn, line_data

import jaxsci as js
from jaxsci.sampling import Criteria, Posterior


@pytest.fixture(scope="module")
def data():
    return line_data(noise=js.White(0.3))


@pytest.fixture(scope="module")
def posterior(data):
    return drawn(js.fit(Line(1.0, 0.0), data), data)


def test_draws_by_name(posterior):
    assert posterior.samples("slope").shape == (4, 500)
    assert jnp.array_equal(posterior.samples("offset"), posterior.draws[..., 1])
    with pytest.raises(ValueError, match="no free parameter 'slop'; did you mean 'slope'"):
        posterior.samples("slop")


def test_energies_are_densities_and_momenta(posterior):
    """The Hamiltonian is minus the log-density plus half a chi2 of as many momenta as parameters."""
    kinetic = np.asarray(posterior.energy + posterior.log_density)
    assert np.all(kinetic >= 0)
    assert kinetic.mean() == pytest.approx(1.0, abs=0.15)
    assert not jnp.array_equal(posterior.energy, posterior.accept_prob)


def test_summary_is_a_dictionary_of_columns(posterior):
    columns = posterior.summary()
    assert all(len(column) == 2 for column in columns.values())
    assert list(columns["name"]) == ["slope", "offset"]
    host = np.asarray(posterior.samples("slope"))
    assert columns["mean"][0] == host.mean()
    assert columns["sd"][0] == pytest.approx(host.std(ddof=1), rel=1e-14)
    assert columns["hdi_low"][0] < columns["mean"][0] < columns["hdi_high"][0]
    assert columns["least_squares"][0] == posterior.start.values["slope"]
    text = repr(posterior)
    assert "slope" in text
    assert "R-hat" in text
    assert "least squares" in text


def test_a_file_gives_back_every_bit(posterior, data, tmp_path):
    path = tmp_path / "posterior"
    posterior.save(path)
    same_bits(Posterior.load(path, posterior.start, data), posterior)
    other = js.fit(Line(1.0, 0.0), line_data(seed=1, noise=js.White(0.3)))
    with pytest.raises(ValueError, match="posterior of another fit"):
        Posterior.load(path, other, data)
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    with pytest.raises(ValueError, match="damaged"):
        Posterior.load(path, posterior.start, data)
    posterior.start.save(path)
    with pytest.raises(ValueError, match="holds a Solution, not a Posterior"):
        Posterior.load(path, posterior.start, data)


def test_chains_of_several_runs_are_merged(posterior, data):
    more = drawn(posterior.start, data, seed=5)
    both = posterior.merge(more)
    assert both.draws.shape == (8, 500, 2)
    assert both.summary()["ess_bulk"][0] > posterior.summary()["ess_bulk"][0]
    assert both.check()
    with pytest.raises(ValueError, match="the same chains twice"):
        posterior.merge(posterior)
    with pytest.raises(ValueError, match="50 draws cannot be merged with chains of 500"):
        posterior.merge(drawn(posterior.start, data, num_samples=50))
    elsewhere = line_data(seed=1, noise=js.White(0.3))
    with pytest.raises(ValueError, match="one and the same fit"):
        posterior.merge(drawn(js.fit(Line(1.0, 0.0), elsewhere), elsewhere))


def with_draws(posterior, draws, **fields):
    """The same posterior with other draws."""
    names = ("draws", *fields)
    values = (jnp.asarray(draws), *fields.values())
    import equinox as eqx

    return eqx.tree_at(lambda p: tuple(getattr(p, name) for name in names), posterior, values)


def test_each_criterion_can_fail_and_names_the_remedy(posterior):
    assert posterior.check()
    host = np.asarray(posterior.draws)
    failures = {
        "r_hat": with_draws(posterior, host + np.array([0, 0, 0, 0.2])[:, None, None]),
        "ess_bulk": with_draws(posterior, np.repeat(host[:, :50], 10, axis=1)),
        "distance": with_draws(posterior, host + 3 * host.std((0, 1))),
        "divergences": with_draws(posterior, host, diverging=jnp.ones((4, 500), bool)),
        "coverage": with_draws(posterior, host + np.array([0.0, 5.0])),
    }
    for name, other in failures.items():
        checked = other.check()
        assert not checked
        found = [failure for failure in checked.failed if failure.criterion == name]
        assert found, (name, checked)
        assert found[0].remedy
        assert name in str(checked)
    assert posterior.check(Criteria(ess=1e6)).failed
    assert not posterior.check(Criteria(r_hat=2.0, ess=1.0)).failed


def test_data_fall_where_they_are_expected(posterior):
    values = posterior.check().values
    assert 0.6 < values["coverage"] <= 1


def test_predictions_and_replicas(posterior, data):
    curves = posterior.predict()
    assert curves.shape == (2000, 12)
    expected = posterior.samples("offset").ravel()[7] + posterior.samples("slope").ravel()[7] * data.inputs
    assert jnp.allclose(curves[7], expected, rtol=1e-13)
    assert posterior.predict(lambda model: model.slope, most=100).shape == (100,)
    again = posterior.replicate(jax.random.key(0))
    spread = np.asarray(again - curves).std(axis=0)
    assert np.allclose(spread, 0.3, rtol=0.1)


def test_correlated_noise_is_replicated_with_its_covariance():
    from jaxsci.sampling._predict import scattered

    noise = js.LowRank(js.White(0.3), np.linspace(0, 1, 6)[:, None], np.array([0.5]))
    mask = jnp.arange(6) != 2
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: scattered(noise, mask, key)))(keys))
    basis = np.asarray(noise.basis)[:, 0] * np.asarray(mask)
    covariance = np.diag(0.09 * np.asarray(mask)) + 0.5 * np.outer(basis, basis)
    assert np.allclose(np.cov(drawn.T), covariance, atol=0.02)


def test_arviz_gets_draws_and_statistics(posterior):
    data = posterior.to_arviz()
    draws = data["posterior"]["slope"]
    assert draws.dims[:2] == ("chain", "draw")
    assert np.array_equal(np.asarray(draws), np.asarray(posterior.samples("slope")))
    stats = data["sample_stats"]
    assert int(np.asarray(stats["diverging"]).sum()) == posterior.divergences
    assert np.asarray(stats["tree_depth"]).max() <= posterior.max_tree_depth
    assert np.array_equal(np.asarray(stats["n_steps"]), np.asarray(posterior.num_steps))


def test_numpyro_is_asked_for_by_name(posterior, data, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "numpyro.infer.hmc", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxsci\[sampling\]'"):
        drawn(posterior.start, data)
