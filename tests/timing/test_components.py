"""Every binary and component against PINT on invented pulsars (made by make_pint_components.py)."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_residuals import columns, moved

import jaxsci as js
from jaxsci import timing
from jaxsci.timing._array import _member, buckets
from jaxsci.timing._model import elements

FILE = np.load(Path(__file__).with_name("pint_components.npz"))
NAMES = sorted({key.split("/")[0] for key in FILE.files} - {"toas"})
QUICK = ("DDK_ECL", "DDGR", "WAVEX", "WIDEBAND")
COLUMNS = sorted({key.split("/")[0] for key in FILE.files if key.endswith("/columns")})
LEFT_OUT = {  # what PINT's columns lack
    "DD_FB": ("T0", "PX", "RAJ", "DECJ", "PMRA", "PMDEC", "DM", "DM1"),  # that the orbital phase depends on T0
    "ELL1": ("PB", "PBDOT", "TASC"),  # cos(phi) in the slope of the Shapiro delay
    "WAVEX": ("WXSIN_0001", "WXCOS_0001", "WXSIN_0002", "WXCOS_0002"),  # the delay in the argument of the waves
    "WIND": ("RAJ", "DECJ", "PMRA", "PMDEC"),  # that the wind depends on the direction
}


def invented(name):
    model = timing.TimingModel.parse(str(FILE[f"{name}/par"]))
    arrays = {key[5:]: jnp.asarray(FILE[key]) for key in FILE.files if key.startswith("toas/")}
    first = arrays.pop("receiver_a")
    n = len(first)
    toas = timing.TOAs(
        **arrays,
        troposphere=jnp.zeros(n),
        turn=jnp.full(n, jnp.nan),
        selected=jnp.stack([first, ~first], axis=1),
        flags=("-fe A", "-fe B"),
    )
    return model, toas if name == "WIDEBAND" else dataclasses.replace(toas, dm=None, dm_error=None)


def difference(model, toas, theirs):
    """Largest difference from PINT's residuals in ns, whole turns and the mean aside."""
    period = 1 / float(model.spin.F_ref[0])
    off = np.asarray(timing.residuals(model, toas)) - theirs
    off -= np.round((off - off[0]) / period) * period
    return 1e9 * np.abs(off - np.mean(off)).max()


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_residuals_are_those_of_pint(name):
    model, toas = invented(name)
    assert difference(model, toas, FILE[f"{name}/res"]) < 0.1
    steps = json.loads(str(FILE[f"{name}/steps"]))
    assert set(steps) <= {pint for _, pint in elements(model)}
    assert difference(moved(model, steps), toas, FILE[f"{name}/moved"]) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BT", "DD", "ELL1"])
def test_xpbdot_is_a_part_of_pbdot(name):
    """PINT has it in DDGR alone: the orbits that are counted are those of PBDOT + XPBDOT, the period is not."""
    text = "".join(f"{line}\n" for line in str(FILE[f"{name}/par"]).splitlines() if not line.startswith("PBDOT"))
    (_, toas), values = invented(name), ("PBDOT -2.1e-12\n", "PBDOT -2.4e-12\nXPBDOT 3e-13\n", "PBDOT -2.4e-12\n")
    one, both, less = (timing.residuals(timing.TimingModel.parse(text + lines), toas) for lines in values)
    assert float(jnp.abs(one - both).max()) < 1e-9
    assert float(jnp.abs(one - less).max()) > 1e-6


def test_which_share_a_program():
    names = ("ELL1", "ELL1_ECC", "ELL1_FB", "ELL1H", "DD", "DDS", "WIND", "PLANETS", "WIDEBAND", "RANGES")
    members = [_member(k, *invented(name), None) for k, name in enumerate(names)]
    shared = [sorted(names[m.place] for m in bucket) for bucket in buckets(members)]
    assert ["ELL1", "ELL1_ECC"] in shared
    assert len(shared) == len(names) - 1


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "at_bound"), [(1, False), (3, True)])
def test_sini_stays_below_1(seed, at_bound):
    text = str(FILE["ELL1/par"])
    truth = timing.TimingModel.parse(text.replace("SINI 0.998", "SINI 0.9999").replace("M2 0.21", "M2 0.4"))
    start = timing.TimingModel.parse(text.replace("SINI 0.998", "SINI 0.95").replace("M2 0.21", "M2 0.5"))
    _, toas = invented("ELL1")
    seen = timing.simulate(truth, dataclasses.replace(toas, error=0.3 * toas.error), key=jax.random.key(seed))
    free = ("F0", "F1", "PB", "A1", "TASC", "EPS1", "EPS2", "M2", "SINI")
    solution = timing.fit(start, seen, free)
    assert solution.success
    assert (abs(solution.values["SINI"] - 1) < 1e-12) == at_bound
    assert solution.values["SINI"] <= 1
    assert abs(solution.values["M2"] - 0.4) < 3 * solution.std["M2"]


@pytest.mark.parametrize("name", [n if n == "GLITCH" else pytest.param(n, marks=pytest.mark.slow) for n in COLUMNS])
def test_columns_are_those_of_pint(name):
    model, toas = invented(name)
    data, order = timing.anchor(model, toas)
    names, rows = columns(model, data)
    place = {pint: names.index(element) for element, pint in elements(model)}
    for pint, theirs in zip(FILE[f"{name}/names"], FILE[f"{name}/columns"].T, strict=True):
        mine, scale = np.empty(len(order)), np.linalg.norm(theirs)
        mine[order] = -rows[place[str(pint)]]
        if str(pint) in LEFT_OUT.get(name, ()):
            continue
        assert np.linalg.norm(mine - theirs) < 1e-6 * scale, pint


def dense(noise):
    """The covariance from its definition, for epochs in rising order."""
    epoch = np.asarray(noise.epoch)
    ecorr = np.concatenate([[0], 1e-6 * np.asarray(noise.ECORR)])[np.asarray(noise.jitter)][epoch]
    several = np.bincount(epoch)[epoch] > 1
    same = (epoch[:, None] == epoch) * np.where(several, ecorr**2, 0)
    modes = np.asarray(noise.modes())
    return np.diag(np.asarray(noise.variance())) + same + modes * np.asarray(noise.power()) @ modes.T


@pytest.mark.parametrize("name", ["NOISE", "WIDEBAND"])
def test_the_noise_is_that_of_pint(name):
    model, toas = invented(name)
    data, order = timing.anchor(model, toas)
    ours, theirs = dense(data.noise), FILE[f"{name}/covariance"]
    n = len(toas)
    theirs = theirs[np.ix_(order, order)]
    size = np.sqrt(np.diag(theirs))
    assert np.abs((ours[:n, :n] - theirs) / size / size[:, None]).max() < 1e-12


@pytest.mark.parametrize("name", [pytest.param("NOISE", marks=pytest.mark.slow), "WIDEBAND"])
def test_noise_of_all_kinds_fast_and_dense(name):
    """The likelihood against its definition, and its derivatives with every parameter of the noise."""
    data, _ = timing.anchor(*invented(name))
    noise, mask = data.noise, data.mask
    rng = np.random.default_rng(2)
    residual = jnp.sqrt(noise.variance()) * jnp.asarray(rng.normal(size=len(mask)))
    covariance = dense(noise)
    size = np.sqrt(np.diag(covariance))
    scaled = np.asarray(residual) / size
    expected = scaled @ np.linalg.solve(covariance / size / size[:, None], scaled)
    assert 2 * float(noise.cost(residual, mask)) == pytest.approx(expected, rel=1e-8)
    log = np.linalg.slogdet(covariance / size / size[:, None])[1] + 2 * np.log(size).sum()
    assert float(noise.logdet(mask)) == pytest.approx(log, rel=1e-10)

    def minus_log(values):
        new = js.put(noise, values)
        return 2 * new.cost(residual, mask) + new.logdet(mask)

    values = {key: js.get(noise, key) for key in js.parameters(noise) if js.get(noise, key).size}
    assert {"TNREDAMP", "TNDMGAM", "EFAC", "TNSWAMP" if name == "WIDEBAND" else "TNCHROMAMP"} <= set(values)
    slopes, at = jax.jit(jax.grad(minus_log))(values), jax.jit(minus_log)
    for key, slope in slopes.items():
        step = 1e-4 * np.maximum(np.abs(values[key]), 1e-4)
        up, down = (at({**values, key: values[key] + s * step}) for s in (1, -1))
        assert float(jnp.sum(slope * step)) == pytest.approx(float(up - down) / 2, rel=1e-4, abs=1e-9), key


def test_measured_dispersion_is_that_of_pint():
    model, toas = invented("WIDEBAND")
    data, order = timing.anchor(model, toas)
    n = len(toas)
    assert data.mask.shape == (2 * n,)
    assert (np.asarray(data.measures) == (np.arange(2 * n) >= n)).all()
    theirs = FILE["toas/dm"] - FILE["WIDEBAND/dm"]
    ours = np.asarray(dataclasses.replace(model, par=None).residual(data))[n:]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    sigma = np.sqrt(np.asarray(data.noise.variance())[n:])
    np.testing.assert_allclose(sigma, FILE["WIDEBAND/dm_sigma"], rtol=1e-12)
    modes = np.asarray(data.noise.modes())
    rows = np.concatenate([order, n + np.arange(n)])
    theirs = FILE["WIDEBAND/modes"][np.ix_(rows, rows)]
    ours = modes * np.asarray(data.noise.power()) @ modes.T
    size = np.sqrt(np.diag(theirs))
    off = np.abs((ours - theirs) / size / size[:, None])
    far = np.isinf(np.asarray(toas.frequency))
    assert np.isfinite(ours).all()
    assert np.nanmax(off) < 1e-12
    assert np.isnan(size[n:]).sum() == far.sum()  # PINT has NaN at infinite frequency
