"""Averages within epochs and realisations of noise, fast against dense, and against PINT."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import timing
from jaxsci.timing._anchor import tied
from jaxsci.timing._fit import bare
from jaxsci.timing._residuals.realisation import realised

NOISE = "TNREDAMP -11.5\nTNREDGAM 3\nTNREDC 1\nTNDMAMP -11.8\nTNDMGAM 2\nTNDMC 1\n"
COUNT = 90


@pytest.fixture(scope="module")
def noisy():
    """(solution, TOAs) of a pulsar with ECORR, red noise and noise of dispersion; few TOAs, of five epochs."""
    model, toas = timing.bundled("J0931-1902")
    toas = toas.without(np.arange(COUNT, len(toas)))
    text = re.sub(r"^(ECORR +-f \S+ +)\S+", r"\g<1>0.8", timing.par_text(model), flags=re.M)
    model = timing.TimingModel.parse(text + NOISE)
    toas = timing.simulate(model, toas, key=jax.random.key(1))
    return timing.fit(model, toas, ("F0", "DM")), toas


class Dense:
    """Everything from its definition: covariances of all processes, derivatives by finite differences."""

    def __init__(self, solution, toas):
        data, self.order = tied(solution.model, toas)
        noise, n = data.noise, len(toas)
        self.residual = np.asarray(bare(solution.model).residual(data))
        self.white = np.diag(np.asarray(noise.variance()))
        epoch = np.asarray(noise.epoch)
        ecorr = np.concatenate([[0], 1e-6 * np.asarray(noise.ECORR)])[np.asarray(noise.jitter)] ** 2
        jitter = (epoch[:, None] == epoch) * np.where(np.bincount(epoch) > 1, ecorr, 0.0)[epoch]
        bases = {"red": noise, "dm": noise.dm}
        power = {"red": np.asarray(noise.power())[: noise.frequency.size], "dm": np.asarray(noise.dm.power())}
        self.parts = {k: np.asarray(b.basis) * power[k] @ np.asarray(b.basis).T for k, b in bases.items()}
        self.parts["ecorr"] = jitter
        self.parts["total"] = sum(self.parts.values())
        self.inverse = np.linalg.inv(self.white + self.parts["total"])
        days = (np.asarray(toas.day) + np.asarray(toas.second) / 86400)[self.order]
        frequency = np.asarray(toas.frequency)[self.order]
        # F0, DM and the phase, but for scales and what the Doppler shift does
        self.linear = np.stack([np.ones(n), (days - days.mean()) / np.ptp(days), (1e3 / frequency) ** 2], axis=1)


def test_realisations_are_those_of_the_definition(noisy):
    solution, toas = noisy
    dense, found = Dense(solution, toas), timing.noise_realisation(solution, toas)
    inverse, columns = dense.inverse, dense.linear
    covariance = np.linalg.inv(columns.T @ inverse @ columns)
    level = inverse.sum(axis=0) @ dense.residual / inverse.sum()
    assert list(found.parts) == ["red", "dm", "ecorr"]
    for name, part in {**found.parts, "total": found.total}.items():
        gain = dense.parts[name] @ inverse
        np.testing.assert_allclose(np.asarray(part.value)[dense.order], gain @ (dense.residual - level), atol=1e-13)
        extra = gain @ columns
        variance = np.diag(dense.parts[name] - gain @ dense.parts[name] + extra @ covariance @ extra.T)
        # the Doppler shift changes the derivative with DM by 1e-4
        np.testing.assert_allclose(np.asarray(part.std)[dense.order], np.sqrt(variance), rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_errors_do_not_depend_on_parameters_that_say_the_same(noisy, seed):
    """Five random mixtures of three derivatives leave two directions without information, and change nothing else."""
    solution, toas = noisy
    data, _ = tied(solution.model, toas)
    n, columns = data.mask.shape[0], Dense(solution, toas).linear
    rows = jnp.zeros((3, n)).at[:, : len(columns)].set(columns.T)
    mixed = jnp.asarray(np.random.default_rng(seed).normal(size=(5, 3))) @ rows
    residual = bare(solution.model).residual(data)
    given = [realised(data.noise, data.mask, data.mask, residual, each) for each in (rows, mixed)]
    for plain, redundant in zip(*given, strict=True):
        np.testing.assert_allclose(redundant, plain, rtol=1e-6, atol=1e-20)


def test_of_a_model_the_phase_alone_is_uncertain(noisy):
    solution, toas = noisy
    dense, found = Dense(solution, toas), timing.noise_realisation(solution.model, toas)
    for name, part in {**found.parts, "total": found.total}.items():
        gain = dense.parts[name] @ dense.inverse
        shift = gain.sum(axis=1)
        variance = np.diag(dense.parts[name] - gain @ dense.parts[name]) + shift**2 / dense.inverse.sum()
        np.testing.assert_allclose(np.asarray(part.std)[dense.order], np.sqrt(variance), rtol=1e-6, err_msg=name)


def test_residuals_less_the_realisation_are_the_whitened_ones(noisy):
    solution, toas = noisy
    data, order = tied(solution.model, toas)
    sigma = np.sqrt(np.asarray(data.noise.variance()))
    rest = np.asarray(timing.residuals(solution.model, toas) - timing.noise_realisation(solution, toas).total.value)
    white = np.asarray(timing.whitened(solution, toas))[order] * sigma
    apart = rest[order] - white
    np.testing.assert_allclose(apart, apart.mean(), atol=1e-12)  # but for what is taken for the mean


def test_realisations_work_inside_of_jax(noisy):
    solution, toas = noisy
    data, _ = tied(solution.model, toas)
    residual = bare(solution.model).residual(data)

    def size(scale):
        return jnp.sum(realised(data.noise, data.mask, data.mask, residual * scale)[0] ** 2)

    value, slope = jax.jit(jax.vmap(jax.value_and_grad(size)))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(value[1], 4 * value[0], rtol=1e-9)
    np.testing.assert_allclose(slope, 2 * value / jnp.array([1.0, 2.0]), rtol=1e-9)


@pytest.mark.parametrize("seconds", [1.0, 86400.0 * 40])
def test_averages_are_generalised_means_within_epochs(noisy, seconds):
    """Of one epoch of ECORR, and of several together, receivers apart."""
    solution, toas = noisy
    dense, found = Dense(solution, toas), timing.averages(solution, toas, seconds=seconds)
    covariance = dense.white + dense.parts["ecorr"]
    label = np.asarray(found.epoch)[dense.order]
    values = np.asarray(timing.residuals(solution.model, toas))[dense.order]
    assert len(found.mjd) == label.max() + 1 < (30 if seconds == 1 else 6)
    for epoch in range(label.max() + 1):
        here = np.flatnonzero(label == epoch)
        weight = np.linalg.inv(covariance[np.ix_(here, here)]).sum(axis=0)
        assert float(found.residual[epoch]) == pytest.approx(weight @ values[here] / weight.sum(), abs=1e-15)
        assert float(found.sigma[epoch]) == pytest.approx(weight.sum() ** -0.5, rel=1e-12)
        assert int(found.count[epoch]) == len(here)
        times = np.asarray(toas.utc)[dense.order][here]
        assert np.ptp(times) * 86400 < seconds
        assert times.min() <= float(found.mjd[epoch]) <= times.max()
    assert (np.diff(np.asarray(found.mjd)) > -seconds / 86400).all()


def test_averages_of_white_noise():
    model, toas = timing.bundled("NGC6440E")
    values = np.arange(float(len(toas)))
    each = timing.averages(model, toas, residual=values, seconds=1e-3)
    assert len(each.mjd) == len(toas)
    np.testing.assert_allclose(np.asarray(each.residual)[np.asarray(each.epoch)], values, rtol=1e-14)
    np.testing.assert_allclose(np.asarray(each.sigma)[np.asarray(each.epoch)], 1e-6 * np.asarray(toas.error))
    white = timing.noise_realisation(model, toas)
    assert (white.parts, float(jnp.abs(white.total.value).max())) == ({}, 0.0)
    with pytest.raises(ValueError, match="longer than 0 s"):
        timing.averages(model, toas, seconds=0)
    with pytest.raises(ValueError, match="62 TOAs, but residuals of shape"):
        timing.averages(model, toas, residual=values[1:])


def test_figures_show_averages_and_noise(noisy):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    solution, toas = noisy
    left, right = Figure().subplots(1, 2)
    means, noise = timing.averages(solution, toas), timing.noise_realisation(solution, toas)
    assert timing.plot.plot_averages(solution, toas, left, values=means) is left
    drawn = np.concatenate([box.lines[0].get_ydata() for box in left.containers])
    np.testing.assert_allclose(np.sort(drawn), np.sort(1e6 * np.asarray(means.residual)))
    timing.plot.plot_noise(solution, toas, right, values=noise)
    assert right.get_legend_handles_labels()[1] == ["red", "dispersion", "jitter"]
    model, plain = timing.bundled("NGC6440E")
    with pytest.raises(ValueError, match="all noise of this pulsar is white"):
        timing.plot.plot_noise(model, plain, right)


@pytest.mark.slow
def test_a_run_shows_the_noise_that_is_asked_for(command, tmp_path):
    text = "task = 'timing'\n[[data]]\npulsar = 'bundled:J0931-1902'\nshow_noise = true\nepoch_seconds = 86400\n"
    (tmp_path / "x.toml").write_text(text)
    done = command("run", tmp_path / "x.toml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    head = (tmp_path / "out" / "residuals" / "J0931-1902.csv").read_text().splitlines()[0]
    assert head.endswith("whitened,epoch,ecorr_s,ecorr_std_s")
    svg = (tmp_path / "out" / "figures" / "J0931-1902.svg").read_text()
    assert "most probable noise" in svg
    assert "averaged over epochs" in svg


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_noise_averages_and_criteria_are_those_of_pint(shared_data, tmp_path):
    pytest.importorskip("pint", reason="pip install 'jaxsci[timing]'")
    import astropy.units as u
    import pint.models
    import pint.toa
    from pint.fitter import GLSFitter
    from pint.utils import akaike_information_criterion, bayesian_information_criterion

    from jaxsci.runs import bundled_files
    from jaxsci.timing import io
    from jaxsci.timing._clocks import reading_clocks

    text = bundled_files()["timing/J0931-1902.par"].read_text() + NOISE.replace("-11", "-12")
    (tmp_path / "x.par").write_text(text)
    (tmp_path / "x.tim").write_text(io.tim_text("J0931-1902"))
    clocks = shared_data / "timing" / "clock"
    model, toas = timing.load(tmp_path / "x.par", tmp_path / "x.tim", clock_dir=clocks)
    solution = timing.fit(model, toas, [name for name in model.par.free if not name.startswith("DMX_")])
    timing.write_par(solution, tmp_path / "new.par")
    with reading_clocks(clocks), io._quiet():
        io._use_kernel(model.par.word("EPHEM").lower())
        theirs = pint.models.get_model(str(tmp_path / "new.par"))
        read = pint.toa.get_TOAs(str(tmp_path / "x.tim"), model=theirs)
        criteria = akaike_information_criterion(theirs, read), bayesian_information_criterion(theirs, read)
        fitter = GLSFitter(read, theirs)
        fitter.fit_toas(maxiter=1)
        parts, average = fitter.resids.noise_resids, fitter.resids.ecorr_average()
    found = timing.noise_realisation(solution, toas)
    for name, ours in (("pl_red_noise", found.red), ("pl_DM_noise", found.dm), ("ecorr_noise", found.ecorr)):
        apart = np.abs(np.asarray(ours.value) - parts[name].to_value(u.s))
        assert apart.max() < 1e-5 * np.asarray(ours.std).min(), name
    means = timing.averages(solution, toas)
    several = np.asarray(means.count) > 1  # PINT leaves out those that are alone
    order, back = np.argsort(average["mjds"].value), np.argsort(np.asarray(means.mjd)[several])
    rest = average["time_resids"].to_value(u.s)[order] - np.asarray(means.residual)[several][back]
    assert np.ptp(rest) < 1e-11
    errors = average["errors"].to_value(u.s)[order]
    np.testing.assert_allclose(errors, np.asarray(means.sigma)[several][back], rtol=1e-12)
    # PINT leaves 2 pi out, and gives the phase offset a prior of variance 1e40
    data, _ = tied(solution.model, toas)
    ones = data.noise.whiten(jnp.ones(len(toas)), data.mask)
    other = len(toas) * np.log(2 * np.pi) - np.log(1e40) - np.log(float(ones @ ones))
    assert (solution.aic - other, solution.bic - other) == pytest.approx(criteria, abs=1e-3)
