"""Pulsars side by side: fits, chi2, likelihoods and their gradients under jit(vmap(grad))."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, quick_jit, same_bits

import jaxsci as js
from jaxsci import timing

NAMES = ("J0931-1902", "J1832-0836")  # 11 and 10 windows of DMX
KNOBS = {"efac": 1.1, "equad": 60.0, "late": 2e-6, "PMELONG": 0.3, "DM": 1e-4}  # noise, data, fixed parameters
STEPS = {"efac": 1e-2, "equad": 3.0, "late": 1e-6, "PMELONG": 1.0, "DM": 1e-5}
SIGMA = {"F0": 1e-10, "ELAT": 1e-6, "DMX_0003": 1e-4}  # about their errors


def thinned(name, every):
    """A bundled pulsar with few of its TOAs."""
    model, toas = timing.bundled(name)
    return model, jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[::every]), toas)


@pytest.fixture(scope="module")
def pairs():
    return [thinned(name, 4) for name in NAMES]


@pytest.fixture(scope="module")
def stacked(pairs):
    return timing.stack(*zip(*pairs, strict=True))


def turned(knobs, model, toas):
    """A pulsar with other noise, later TOAs and other fixed parameters."""
    noise = {"noise.EFAC": toas.noise.EFAC * knobs["efac"], "noise.EQUAD": toas.noise.EQUAD * knobs["equad"]}
    ramp = jnp.sin(1e-7 * toas.elapsed)
    toas = eqx.tree_at(lambda t: t.phase, js.put(toas, noise), toas.phase + 300.0 * knobs["late"] * ramp)
    return model.with_offsets({name: knobs[name] for name in ("PMELONG", "DM")}), toas


def number(knobs, model, toas):
    """One number of a fit, by values and by errors, in units of their errors; and the solution."""
    solution = timing.fit(*turned(knobs, model, toas), throw=False)
    total = sum((solution.offsets[name] + 3 * solution.std[name]) / sigma for name, sigma in SIGMA.items())
    return total, solution


@pytest.fixture(scope="module")
def slopes():
    """The mission's sentence: compiled once for all tests of this file that fit."""
    return quick_jit(jax.vmap(jax.value_and_grad(number, has_aux=True), in_axes=(None, 0, 0)))


NEUTRAL = {"efac": 1.0, "equad": 1.0, "late": 0.0, "PMELONG": 0.0, "DM": 0.0}


def test_a_stack_gives_what_an_array_gives(pairs, stacked, slopes):
    (_, solution), _ = slopes(NEUTRAL, *stacked)
    for k, one in enumerate(timing.fit_array(*zip(*pairs, strict=True))):
        assert one.success
        assert bool(solution.success[k])
        assert int(solution.dof[k]) == one.dof
        assert float(solution.chi2[k]) == pytest.approx(float(one.chi2), abs=1e-5)
        for name, std in one.std.items():
            assert abs(one.offsets[name] - float(solution.offsets[name][k])) < 1e-5 * std, name
            assert float(solution.values[name][k]) == pytest.approx(one.values[name], rel=1e-15, abs=1e-5 * std)
            assert float(solution.std[name][k]) == pytest.approx(std, rel=1e-6), name
    assert one.names == tuple(name for name in solution.names if name != "DMX_0011")
    assert np.isnan(solution.values["DMX_0011"][1])
    assert np.isnan(solution.std["DMX_0011"][1])
    assert solution.units["F1"] == "Hz/s"
    with pytest.raises(ValueError, match="one pulsar outside of"):
        _ = solution.exact
    assert solution.model.dmx.DMX.shape == (2, 11)
    same_bits(solution.model.offsets["DMX_0004"], solution.offsets["DMX_0004"])


@pytest.mark.parametrize("knob", KNOBS)
def test_gradients_of_fits_are_those_of_finite_differences(knob, stacked, slopes):
    _, slope = slopes(KNOBS, *stacked)
    step = STEPS[knob]
    low, high, lower, higher = (
        np.asarray(slopes(KNOBS | {knob: KNOBS[knob] + by * step}, *stacked)[0][0]) for by in (-1, 1, -2, 2)
    )
    expected = (8 * (high - low) - (higher - lower)) / (12 * step)
    close(slope[knob], expected, 1e-5)
    assert np.all(np.asarray(slope[knob]) != 0)


def test_neighbours_change_no_bit(stacked, slopes):
    models, toas = stacked
    spoilt = eqx.tree_at(lambda t: t.noise.error, toas, toas.noise.error.at[1].set(jnp.nan))
    good, bad = slopes(KNOBS, models, toas), slopes(KNOBS, models, spoilt)
    first = [jax.tree.map(lambda x: x[0], found) for found in (good, bad)]
    same_bits(*first)
    assert list(np.asarray(bad[0][1].success)) == [True, False]


LINES = """PSR {name}
PEPOCH 55000
POSEPOCH 55000
DMEPOCH 55000
ELONG 10.0
ELAT 5.0
F0 300.0 1
F1 -1e-15 1
DM 10.0
"""
MANY = """F2 1e-26
DM1 1e-4
DMX_0002 1e-4 1
DMXR1_0002 54000
DMXR2_0002 56500
DMX_0005 -2e-4 1
DMXR1_0005 56500.1
DMXR2_0005 57000
FD1 1e-5 1
FD2 -2e-6 1
JUMP -f A 1e-6 1
JUMP -f B 2e-6 1
EFAC -f A 1.2
EFAC -f B 0.9
EQUAD -f A 0.5
ECORR -f B 0.7
TNREDAMP -13.0
TNREDGAM 3.0
TNREDC 3
"""
FEW = """DMX_0004 3e-4 1
DMXR1_0004 54000
DMXR2_0004 57000
EFAC -f C 1.5
"""


@pytest.fixture(scope="module")
def unlike():
    """Two pulsars that share next to nothing but their kind: windows, JUMPs, FD, groups and red noise, lengths."""
    pairs = []
    for name, lines, every, flags in (("MANY", MANY, 9, ("-f A", "-f B")), ("FEW", FEW, 15, ("-f C",))):
        _, toas = thinned("J1832-0836", every)
        where = np.arange(len(toas)) % (len(flags) + 1)  # some TOAs have no flag
        selected = where[:, None] == np.arange(len(flags))
        toas = dataclasses.replace(toas, selected=jnp.asarray(selected), flags=flags)
        model = timing.TimingModel.parse(LINES.format(name=name) + lines)
        pairs.append((model, timing.simulate(model, toas, key=jax.random.key(len(flags)))))
    return pairs


MOVED = {"F0": 1e-10, "DMX_0005": 2e-4, "JUMP2": 1e-6, "FD1": 1e-6}


def test_padding_changes_neither_likelihoods_nor_their_gradients(unlike):
    models, toas = timing.stack(*zip(*unlike, strict=True))
    assert [name for name in models.offsets if name.startswith(("DMX", "JUMP"))] == [
        *("DMX_0002", "DMX_0004", "DMX_0005", "JUMP1", "JUMP2")
    ]
    together = jax.jit(jax.vmap(eqx.filter_value_and_grad(timing.log_likelihood)))
    values, slopes = together(models.with_offsets(MOVED), toas)
    for k, (model, data) in enumerate(unlike):
        moved = model.with_offsets({name: by for name, by in MOVED.items() if name in model.offsets})
        value, slope = jax.value_and_grad(timing.log_likelihood)(moved, timing.anchor(model, data)[0])
        close(values[k], value, 1e-12)
        for name, one in slope.offsets.items():
            if name != "PHOFF":  # on which nothing depends
                close(slopes.offsets[name][k], one, 1e-8, 1e-8 * abs(float(one)))
        lacks = set(models.offsets) - set(model.offsets)
        assert all(float(slopes.offsets[name][k]) == 0 for name in lacks if name.startswith(("DMX", "JUMP")))
        assert all(np.isnan(models.origin.values[k][models.origin.at([name])[0]]) for name in lacks)


def test_a_likelihood_is_that_of_the_whole_covariance(unlike):
    """The Gaussian with C written out, the phase marginalised to its best value; chi2 is part of it."""
    model, toas = unlike[0]
    model = model.with_offsets({"F0": 1e-10, "JUMP1": 1e-6})
    data, _ = timing.anchor(model, toas)
    noise, residual = data.noise, np.asarray(data.residual(model))
    ecorr = np.concatenate([[0], 1e-6 * np.asarray(noise.ECORR)])[np.asarray(noise.jitter)][np.asarray(noise.epoch)]
    several = np.bincount(np.asarray(noise.epoch))[np.asarray(noise.epoch)] > 1
    same = np.asarray(noise.epoch)[:, None] == np.asarray(noise.epoch)
    basis = np.asarray(noise.basis)
    matrix = np.diag(np.asarray(noise.variance())) + same * np.where(several, ecorr**2, 0)
    matrix = matrix + basis * np.asarray(noise.power()) @ basis.T
    ones = np.ones_like(residual)
    solved = np.linalg.solve(matrix, np.stack([residual, ones], axis=1))
    chi2 = residual @ solved[:, 0] - (ones @ solved[:, 0]) ** 2 / (ones @ solved[:, 1])
    assert float(timing.chi2(model, toas)) == pytest.approx(chi2, rel=1e-9)
    determinant = np.linalg.slogdet(matrix)[1]
    expected = -(chi2 + determinant + len(residual) * np.log(2 * np.pi)) / 2
    assert float(timing.log_likelihood(model, toas)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_padding_changes_no_fit(unlike):
    models, toas = timing.stack(*zip(*unlike, strict=True))
    free = ("F0", "F1", "DMX_0002", "DMX_0004", "FD1", "JUMP2", "noise.EFAC")
    together = jax.jit(jax.vmap(lambda model, toas: timing.fit(model, toas, free, throw=False)))(models, toas)
    for k, (model, data) in enumerate(unlike):
        alone = timing.fit(model, data, [name for name in free if name in model.offsets or name == "noise.EFAC"])
        assert bool(together.success[k])
        assert int(together.dof[k]) == alone.dof
        for name, std in alone.std.items():
            assert abs(alone.offsets[name] - float(together.offsets[name][k])) < 1e-4 * std, name
            assert float(together.std[name][k]) == pytest.approx(std, rel=1e-5), name
        groups = alone.noise.EFAC.size
        close(together.noise.EFAC[k][:groups], alone.noise.EFAC, 1e-6)
        close(together.fit.std["noise.EFAC"][k][:groups], alone.fit.std["noise.EFAC"], 1e-5)
        same_bits(together.noise.EFAC[k][groups:], jnp.zeros(2 - groups))


def test_at_a_solution_chi2_is_that_of_the_solution(pairs):
    """And TOAs that are anchored already give the same fit."""
    model, toas = pairs[0]
    data, _ = timing.anchor(model, toas)
    solution = timing.fit(model, toas)
    same_bits(timing.fit(model, data).fit.y, solution.fit.y)
    assert float(timing.chi2(solution.model, data)) == pytest.approx(float(solution.chi2), rel=1e-9)
    whole = 2 * float(solution.fit.cost) + float(solution.fit.log_norm) + len(toas) * np.log(2 * np.pi)
    assert float(timing.log_likelihood(solution.model, toas)) == pytest.approx(-whole / 2, rel=1e-9)


def test_what_does_not_stack(pairs, stacked):
    other = timing.bundled("J1741+1351")
    with pytest.raises(ValueError, match=r"J1741\+1351 cannot be stacked with J0931-1902.*binary \(none, ELL1\)"):
        timing.stack(*zip(pairs[0], other, strict=True))
    with pytest.raises(ValueError, match="1 timing models but 2 sets"):
        timing.stack([other[0]], [other[1]] * 2)
    with pytest.raises(ValueError, match="the list of timing models is empty"):
        timing.stack([], [])
    with pytest.raises(ValueError, match=r"use jax\.vmap"):
        timing.fit(*stacked)
    with pytest.raises(ValueError, match="another par file"):
        timing.fit(pairs[0][0], timing.anchor(*pairs[1])[0])


def test_names_that_a_stack_does_not_have(stacked):
    with pytest.raises(ValueError, match="no parameter DMX_0012"):
        jax.vmap(lambda model, toas: timing.fit(model, toas, ("F0", "DMX_0012"), throw=False).chi2)(*stacked)
    with pytest.raises(ValueError, match="no parameter FO"):
        stacked.models.with_offsets({"FO": 1.0})
