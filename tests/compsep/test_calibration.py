"""Gains and angles of channels: what is recovered, what cannot be, and every derivative against autodiff."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci import compsep
from jaxsci.compsep._fit.dataset import derivatives_of

NU = np.array([40.0, 100.0, 195.0, 402.0])
NPIX = 48
SIGMA = np.array([0.2, 0.03, 0.03, 0.25])
GAIN, ANGLE = np.array([1.0, 1.013, 0.991, 1.004]), np.array([0.0, 0.7, -0.4, 0.2])


def mixing(**calibration):
    cal = compsep.Calibration(4, **calibration) if calibration else None
    return compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.6), calibration=cal)


def made(truth, s=2, seed=0):
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=(2, s, NPIX)) * np.array([3.0, 20.0])[:, None, None] + 10
    whole = np.asarray(truth.response(jnp.asarray(NU), "QU"[:s])) @ amplitudes.swapaxes(0, 1).reshape(2 * s, NPIX)
    clean = whole.reshape(s, 4, NPIX).swapaxes(0, 1)
    return clean + rng.normal(size=clean.shape) * SIGMA[:, None, None], amplitudes


@pytest.fixture(scope="module")
def fits():
    """The same sky fitted with the first channel known, and with nothing known."""
    maps, amplitudes = made(mixing(gain=GAIN, angle=ANGLE))
    start = mixing(gain=1.0, angle=0.0)
    known = {"calibration.ch0.gain": js.Normal(1.0, 1e-7), "calibration.ch0.angle": js.Normal(0.0, 1e-5)}
    options = {"inv_n": 1 / SIGMA**2, "free": ("dust.beta", "*.gain", "*.angle")}
    return [compsep.separate(start, NU, maps, priors=priors, **options) for priors in (known, None)], amplitudes


def test_gains_and_angles_come_back(fits):
    (found, _), amplitudes = fits
    assert found.verdict == "converged", found.summary()
    names = [f"calibration.ch{k}.{what}" for k in (1, 2, 3) for what in ("gain", "angle")]
    truth = np.stack([GAIN[1:], ANGLE[1:]], axis=1).ravel()
    at = [found.free.index(name) for name in names]
    off = np.array([float(found.values[name][0]) for name in names]) - truth
    std = np.array([float(found.std[name][0]) for name in names])
    assert np.all(np.abs(off) < 4 * std)
    assert np.all(std < [0.005, 0.2, 0.005, 0.2, 0.1, 0.2])  # the index of dust hides what 402 GHz reads
    assert np.abs(truth - np.tile([1.0, 0.0], 3)).max() > 3 * std.max()
    C = np.asarray(found.covariance)[np.ix_(at, at, [0])][..., 0]
    assert off @ np.linalg.solve(C, off) < 6 + 4 * np.sqrt(12)
    assert abs(float(found.dof) - (4 * 2 * NPIX - 2 * 2 * NPIX - 9)) < 1e-9
    assert abs(float(jnp.sum(found.chi2)) / float(found.dof) - 1) < 4 * np.sqrt(2 / float(found.dof))
    # the components' errors know of the calibration: all pixels of dust are off together, within them
    pull = (np.asarray(found.component("cmb")) - amplitudes[0]) / np.asarray(found.errors[0])
    assert 0.7 < pull.std() < 1.3


def test_what_all_channels_share_is_told_as_lost(fits):
    (known, found), _ = fits
    assert bool(found.success[0])
    for name in found.free:
        if name != "dust.beta":
            assert np.isinf(found.std[name]).all(), name
    np.testing.assert_allclose(found.std["dust.beta"], known.std["dust.beta"], rtol=0.05)
    assert np.isinf(found.errors).all()
    assert found.verdict == "converged, look"
    assert any("8 of 8 gains and angles" in remark for remark in found.remarks)
    # gains over each other are determined, and the same
    over = [
        float(each.values["calibration.ch2.gain"][0] / each.values["calibration.ch1.gain"][0])
        for each in (known, found)
    ]
    assert abs(over[0] / over[1] - 1) < 1e-4


@pytest.mark.parametrize("stokes", ["I", "QU", "IQU"])
def test_derivatives_are_those_of_the_response(stokes):
    s = len(stokes)
    model = mixing(gain=GAIN, angle=ANGLE)
    free = ("dust.beta", "calibration.ch1.gain", "calibration.ch1.angle", "calibration.ch3.angle")
    seen = compsep.SkyDataset(jnp.asarray(NU), jnp.ones((1, s * 4, 1, 1)), jnp.ones((1, s * 4, 1)))
    columns, moved = seen.spectra(model, free)
    np.testing.assert_allclose(columns[:, :, 0], model.response(jnp.asarray(NU), stokes), rtol=1e-13, atol=1e-13)
    slopes = np.zeros((len(free), s * 4, s * 2))
    for (i, j), column in zip(
        derivatives_of(model, free, s), np.moveaxis(np.asarray(moved[:, :, 0]), 1, 0), strict=True
    ):
        slopes[i, :, j] += column
    for i, name in enumerate(free):
        at = js.get(model, name)
        exact = jax.jacfwd(lambda x, name=name: js.put(model, {name: x}).response(jnp.asarray(NU), stokes))(at)
        np.testing.assert_allclose(slopes[i], exact, rtol=1e-10, atol=1e-12)


def test_one_program_and_its_derivatives():
    """Within jit, vmap and grad gains are what they are outside."""
    start = mixing(gain=1.0)
    free = ("calibration.ch2.gain", "calibration.ch3.gain")
    maps = np.stack([made(mixing(gain=GAIN), 1, seed)[0] for seed in range(2)])
    options = {"inv_n": 1 / SIGMA**2, "free": free}

    def gains(data):
        found = compsep.separate(start, NU, data, **options)
        return jnp.concatenate([found.values[name] for name in free])

    alone = np.stack([gains(one) for one in maps])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(lambda data: gains(data)[0])))(maps)
    np.testing.assert_allclose(values, alone[:, 0], rtol=1e-8)
    step = np.zeros_like(maps[0])
    step[2] = 1e-3
    middle = (gains(maps[0] + step) - gains(maps[0] - step)) / 2
    np.testing.assert_allclose(np.sum(slopes[0] * step), middle[0], rtol=1e-4)


def test_what_is_wrong_is_named():
    maps, _ = made(mixing(gain=GAIN), 2)
    with pytest.raises(ValueError, match=r"gain should be one number, or 4"):
        compsep.Calibration(4, gain=[1.0, 2.0])
    with pytest.raises(ValueError, match="calibration should be a Calibration"):
        compsep.MixingMatrix(cmb=compsep.CMB(), calibration=1.0)
    three = eqx.tree_at(lambda m: m.calibration, mixing(gain=1.0), compsep.Calibration(3))
    with pytest.raises(ValueError, match="is of 3 channels, but there are 4"):
        compsep.separate(three, NU, maps, inv_n=1 / SIGMA**2, free=())
    with pytest.raises(ValueError, match="take channels without angles"):
        compsep.ilc(mixing(angle=0.0), NU, maps)
    # known gains are no doubt: a combination takes them as they are
    assert np.isfinite(compsep.ilc(mixing(gain=GAIN), NU, maps).amplitudes).all()
