"""Simulated TOAs, and residuals without their correlated noise."""

import dataclasses
import re
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_components import invented

from jaxsci import timing

FREE = ("F0", "F1", "DM")


def test_simulated_toas_have_no_residuals():
    model, toas = timing.bundled("NGC6440E")
    moved = dataclasses.replace(toas, second=toas.second + 1e-3 * jnp.cos(jnp.arange(float(len(toas)))))
    perfect = timing.simulate(model, moved)
    assert np.abs(np.asarray(timing.residuals(model, perfect))).max() < 1e-11
    shift = (perfect.day - moved.day) * 86400 + (perfect.second - moved.second)
    np.testing.assert_allclose(perfect.position - moved.position, moved.velocity * shift[:, None], atol=1e-12)
    assert 0 < float(jnp.abs(shift).max()) < 0.6 / 61.485


def test_simulated_toas_of_a_fit_have_no_residuals():
    model, toas = timing.bundled("NGC6440E")
    fitted = timing.fit(model, toas, FREE).model
    assert np.abs(np.asarray(timing.residuals(fitted, timing.simulate(fitted, toas)))).max() < 1e-11


def test_fits_of_toas_without_noise_find_the_truth():
    """The start is the optimum, or two standard errors off it: both end there, and well."""
    model, toas = timing.bundled("NGC6440E")
    perfect = timing.simulate(model, toas)
    there = timing.fit(model, perfect)
    assert there.success
    assert float(there.chi2) < 1e-9
    assert max(abs(there.offsets[name] / there.std[name]) for name in there.names) < 1e-6
    text = timing.par_text(model)
    for name in FREE:
        off = model.par.value(name) + Decimal(2 * there.std[name])
        text = re.sub(rf"^{name} +\S+", f"{name} {off}", text, flags=re.M)
    found = timing.fit(timing.TimingModel.parse(text), perfect)
    assert found.success
    assert float(found.chi2) < 1e-9
    for name in found.names:
        assert abs(float(found.exact[name] - model.par.value(name))) < 1e-4 * found.std[name], name


def test_a_fit_of_as_many_toas_as_parameters():
    model, toas = timing.bundled("NGC6440E")
    few = jax.tree.map(lambda x: x[::11], toas)
    solution = timing.fit(model, few, ("RAJ", "DECJ", "F0", "F1", "DM"))
    assert len(few) == 6
    assert solution.success
    assert (solution.dof, float(solution.chi2) < 1e-9) == (0, True)


def test_fits_of_simulated_toas_recover_the_truth():
    model, toas = timing.bundled("NGC6440E")
    pulls, seen = [], []
    for seed in range(8):
        noisy = timing.simulate(model, toas, key=jax.random.key(seed))
        solution = timing.fit(model, noisy, FREE)
        pulls += [solution.offsets[name] / solution.std[name] for name in FREE]
        seen.append(float(solution.reduced_chi2))
    assert abs(np.mean(pulls)) < 3 / np.sqrt(len(pulls))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.3)
    assert np.mean(seen) == pytest.approx(1.0, abs=3 * np.sqrt(2 / (8 * 58)))


def test_simulated_dispersions_are_those_of_the_model():
    model, toas = invented("WIDEBAND")
    n = len(toas)
    perfect = timing.simulate(model, toas)
    residual = np.asarray(_residual(model, perfect))
    assert np.abs(residual[n:]).max() < 1e-12
    assert np.abs(residual[:n] - residual[:n].mean()).max() < 1e-11
    assert np.abs(np.asarray(perfect.dm - toas.dm)).max() > 1e-3


@pytest.mark.slow
def test_fits_of_simulated_dispersions_recover_the_truth():
    model, toas = invented("WIDEBAND")
    free, pulls, squares, apart = ("F0", "F1", "DM", "DMJUMP1", "DMWXSIN_0001"), [], [], []
    for seed in range(8):
        noisy = timing.simulate(model, toas, key=jax.random.key(seed))
        data, _ = timing.anchor(model, noisy)
        apart.append(np.asarray(_residual(model, noisy) / jnp.sqrt(data.noise.variance()))[len(toas) :])
        solution = timing.fit(model, noisy, free)
        squares.append(float(solution.chi2))
        pulls += [solution.offsets[name] / solution.std[name] for name in free]
    assert np.mean(squares) == pytest.approx(solution.dof, abs=3 * np.sqrt(2 * solution.dof / 8))
    assert np.std(apart) > 0.9
    assert abs(np.mean(pulls)) < 3 / np.sqrt(len(pulls))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.3)


def _residual(model, toas):
    """Of times and dispersions, at the model's values."""
    data, _ = timing.anchor(model, toas)
    return jax.jit(lambda m, d: m.residual(d))(dataclasses.replace(model, par=None), data)


def test_of_white_noise_whitened_residuals_are_residuals_over_errors():
    model, toas = timing.bundled("NGC6440E")
    data, order = timing.anchor(model, toas)
    sigma = np.empty(len(toas))
    sigma[order] = np.sqrt(np.asarray(data.noise.variance()))
    expected = np.asarray(timing.residuals(model, toas)) / sigma
    np.testing.assert_allclose(timing.whitened(model, toas), expected, rtol=1e-9, atol=1e-9)


def test_whitened_residuals_have_lost_what_epochs_share():
    model, toas = timing.bundled("J0931-1902")
    text = re.sub(r"^(ECORR +-f \S+ +)\S+", r"\g<1>8.0", timing.par_text(model), flags=re.M)
    model = timing.TimingModel.parse(text + "TNREDAMP -10.8\nTNREDGAM 4\nTNREDC 10\n")
    noisy = timing.simulate(model, toas, key=jax.random.key(3))
    data, order = timing.anchor(model, noisy)
    sigma = np.sqrt(np.asarray(data.noise.variance()))
    white = np.asarray(timing.whitened(model, noisy))[order]
    raw = np.asarray(timing.residuals(model, noisy))[order] / sigma

    def shared(values):
        """Mean product of two TOAs of one epoch, and of neighbouring epochs."""
        epoch = np.asarray(data.noise.epoch)
        total, count = np.bincount(epoch, values), np.bincount(epoch)
        pairs = count * (count - 1)
        within = np.sum(total**2 - np.bincount(epoch, values**2)) / pairs.sum()
        time = np.asarray(data.elapsed)[np.unique(epoch, return_index=True)[1]]
        mean = (total / count)[np.argsort(time)]
        return within, np.mean(mean[1:] * mean[:-1])

    assert np.std(white) == pytest.approx(1.0, abs=0.08)
    assert min(shared(raw)) > 0.5
    assert np.abs(shared(white)).max() < 0.05
