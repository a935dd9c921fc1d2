"""Batches of g2 fits: the optimum of another program, bad bins beside good ones, both precisions, tau(q)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, same_bits
from scipy.optimize import least_squares

from jaxsci import xpcs

NAMES = ("contrast", "tau", "exponent", "baseline")
DELAYS = np.logspace(-5, 1, 61)  # as many as the stored curves have, so that one program fits all of these


@pytest.fixture(scope="module")
def fitset(shared_data):
    with np.load(shared_data / "xpcs" / "g2_fitset.npz") as file:
        return dict(file)


def curves_of(t, g2, sigma, q=None, mask=None):
    """From rows of curves."""
    g2, sigma = np.asarray(g2).T, np.asarray(sigma).T
    mask = np.ones(g2.shape, bool) if mask is None else mask
    q = np.ones(g2.shape[1]) if q is None else q
    return xpcs.Curves(*(jnp.asarray(x) for x in (t, g2, sigma, mask, q)))


def simulated(taus, exponent=1.0, sigma=0.002, seed=0, t=None):
    """Curves of known relaxation times with Gaussian errors."""
    rng = np.random.default_rng(seed)
    t = DELAYS if t is None else t
    truth = [np.asarray(xpcs.StretchedExponential(tau, exponent, 0.2, 1.0)(jnp.asarray(t))) for tau in taus]
    g2 = np.array(truth) + sigma * rng.normal(size=(len(taus), t.size))
    return curves_of(t, g2, np.full(g2.shape, sigma), 0.01 * (np.asarray(taus) / taus[0]) ** -0.5)


def test_all_of_200_reach_the_optimum_of_scipy(fitset):
    """SciPy goes on from its own stored answer to the rounding; costs and parameters agree to 1e-6 of an error."""
    lower, upper = fitset["bounds"]
    bounds = {name: (lower[k], upper[k]) for k, name in enumerate(NAMES)}
    found = xpcs.fit_g2(curves_of(fitset["t"], fitset["g2"], fitset["g2_err"]), bounds=bounds)
    assert found.success.all()
    table, t = found.table(), fitset["t"]
    mine = np.stack([table[name] for name in NAMES], 1)

    def residual(p, g2, sigma):
        return (p[0] * np.exp(-2 * (t / p[1]) ** p[2]) + p[3] - g2) / sigma

    for k in range(200):
        args = (fitset["g2"][k], fitset["g2_err"][k])
        cost = 0.5 * np.sum(residual(mine[k], *args) ** 2)
        other = 0.5 * np.sum(residual(fitset["scipy_trf"][k, 0], *args) ** 2)
        assert cost <= other * (1 + 1e-12), k
    for k in range(0, 200, 8):
        args = (fitset["g2"][k], fitset["g2_err"][k])
        best = least_squares(
            residual, fitset["scipy_trf"][k, 0], args=args, bounds=(lower, upper), x_scale=mine[k],
            xtol=1e-15, ftol=1e-15, gtol=1e-13, jac="3-point",
        )  # fmt: skip
        errors = fitset["scipy_trf"][k, 1]
        assert np.all(abs(best.x - mine[k]) < 1e-5 * errors + 1e-6 * abs(mine[k])), k
        close(0.5 * table["chi2"][k], best.cost, rtol=1e-9)


def test_a_bad_bin_spoils_only_itself(fitset):
    """All masked, a NaN where the mask is True, and a sigma of zero: the others keep their bits."""
    t, g2, sigma = fitset["t"], fitset["g2"].copy(), fitset["g2_err"].copy()
    clean = xpcs.fit_g2(curves_of(t, g2, sigma))
    mask = np.ones((t.size, 200), bool)
    g2[1], sigma[1], mask[:, 1] = np.nan, np.nan, False
    g2[3, 10] = np.nan
    sigma[4, 7] = 0
    found = xpcs.fit_g2(curves_of(t, g2, sigma, mask=mask))
    assert list(found.failed) == [1, 3, 4]
    assert "masked" in found.failed[1]
    assert "NaN" in found.failed[3]
    assert "sigma" in found.failed[4]
    others = np.setdiff1d(np.arange(200), [1, 3, 4])
    same_bits(found.groups[0].y[others], clean.groups[0].y[others])


@pytest.mark.slow
def test_single_precision(fitset):
    curves = curves_of(fitset["t"].astype(np.float32), fitset["g2"][:20].astype(np.float32),
                       fitset["g2_err"][:20].astype(np.float32), np.ones(20, np.float32))  # fmt: skip
    found = xpcs.fit_g2(curves)
    assert found.groups[0].y.dtype == np.float32
    wide = xpcs.fit_g2(curves_of(fitset["t"], fitset["g2"][:20], fitset["g2_err"][:20]))
    good = found.success
    assert good.sum() >= 18
    a, b = found.table(), wide.table()
    for name in NAMES:
        assert np.all(abs(a[name] - b[name])[good] < 0.02 * b[f"{name}_std"][good])


@pytest.mark.parametrize("scale", [1e-7 / 0.02, 1e3 / 0.02], ids=["100 ns", "1000 s"])
def test_a_unit_of_time_changes_nothing_but_tau(scale):
    """The same measurement at 1e-7 s and at 1e3 s."""
    here = simulated(np.geomspace(1e-3, 0.1, 200))
    there = xpcs.Curves(here.t * scale, here.g2, here.sigma, here.mask, here.q)
    a, b = xpcs.fit_g2(here).table(), xpcs.fit_g2(there).table()
    close(b["tau"] / scale, a["tau"], rtol=1e-7)
    close(b["tau_std"] / scale, a["tau_std"], rtol=1e-4)
    close(b["exponent"], a["exponent"], rtol=1e-7)


def test_errors_are_the_scatter_of_repeated_measurements():
    found = xpcs.fit_g2(simulated([0.03] * 200, seed=5))
    table = found.table()
    pulls = (table["tau"] - 0.03) / table["tau_std"]
    assert abs(pulls.mean()) < 4 / np.sqrt(200)
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * 200)
    assert abs(table["chi2"].mean() - (61 - 4)) < 4 * np.sqrt(2 * 57 / 200)


@pytest.mark.slow
def test_what_is_not_free_is_taken_from_the_instance():
    model = xpcs.StretchedExponential(1.0, 1.0, 0.2, 1.0)
    found = xpcs.fit_g2(simulated([0.02, 0.1]), model, free=("tau", "exponent"))
    assert found[0].names == ("tau", "exponent")
    close(np.asarray(found[1].model.contrast), 0.2)


def test_a_wrong_name_has_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'contrast'"):
        xpcs.fit_g2(simulated([0.02]), xpcs.StretchedExponential(1.0), free=("contrst",))


def test_delays_can_be_cut_and_columns_taken():
    curves = simulated(np.geomspace(1e-3, 0.1, 200))
    cut = curves.between(1e-4, 1.0)
    assert int(cut.mask.sum()) == 200 * int(((curves.t >= 1e-4) & (curves.t <= 1)).sum())
    turned = curves.take(range(199, -1, -1))
    close(turned.g2, curves.g2[:, ::-1])
    same_bits(xpcs.fit_g2(turned).groups[0].y[::-1], xpcs.fit_g2(curves).groups[0].y)


@pytest.mark.slow
def test_curves_without_errors_are_scaled_by_their_scatter():
    curves = simulated([0.02] * 3)
    bare = xpcs.Curves(curves.t, curves.g2, None, curves.mask, curves.q)
    known, found = xpcs.fit_g2(curves), xpcs.fit_g2(bare)
    close(found.table()["tau"], known.table()["tau"], rtol=1e-6)
    scatter = np.sqrt(known.table()["chi2"] / known.table()["dof"])
    close(found.table()["tau_std"], known.table()["tau_std"] * scatter, rtol=1e-5)


def test_diffusion_has_its_power_law():
    q = np.geomspace(2e-3, 2e-2, 200)
    taus = 1 / (2e4 * q**2)
    t = np.logspace(-4, 3, 61)
    rng = np.random.default_rng(1)
    g2 = 1 + 0.2 * np.exp(-2 * t / taus[:, None]) + 0.002 * rng.normal(size=(200, 61))
    g2[4] = 1 + 0.002 * rng.normal(size=61)  # no contrast: its tau is not determined
    curves = curves_of(t, g2, np.full(g2.shape, 0.002), q)
    law = xpcs.fit_power_law(xpcs.fit_g2(curves), curves.q)
    assert 4 not in law.columns
    slope, error = law.solution.values["slope"], law.solution.std["slope"]
    assert abs(slope + 2) < 4 * error
    assert error < 0.02
    middle = float(law.solution.model.model.pivot)
    close(middle, np.exp(np.mean(np.log(q[law.columns]))), rtol=1e-12)
    pull = (law.solution.values["value_at"] - 1 / (2e4 * middle**2)) / law.solution.std["value_at"]
    assert abs(pull) < 4


def test_a_power_law_says_what_it_lacks():
    found = xpcs.fit_g2(simulated([0.02] * 200))
    with pytest.raises(ValueError, match="1 of 200 q-bins"):
        xpcs.fit_power_law(found, jnp.zeros(200).at[3].set(0.01))
    with pytest.raises(ValueError, match="no parameter 'tua'"):
        xpcs.fit_power_law(found, jnp.ones(200), "tua")


def test_a_model_that_cannot_guess_is_sent_to_fit_batch():
    with pytest.raises(ValueError, match="fit_batch with starts of your own"):
        xpcs.fit_g2(simulated([0.02]), xpcs.PowerLaw)  # type: ignore[arg-type]


def test_one_program_for_all_batches_of_one_shape(fitset):
    first = xpcs.fit_g2(simulated([0.02] * 200, seed=1))
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr("jax._src.interpreters.pxla.logger.log", lambda level, text, *a: seen.append(text % a))
        xpcs.fit_g2(simulated([0.03] * 200, seed=2))
    assert first.success.all()
    assert not [line for line in seen if "Compiling" in line]
