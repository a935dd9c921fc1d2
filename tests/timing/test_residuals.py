"""Residuals against PINT's, and what carries their digits."""

import dataclasses
import math
from decimal import Decimal

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci import timing
from jaxsci.core._parameter import free_spec
from jaxsci.fitting._plan import make_plan
from jaxsci.timing._binary import eccentric_anomaly
from jaxsci.timing._jacobian import linearised
from jaxsci.timing._model import elements
from jaxsci.timing._precision import TwoDouble, phase, seconds_between

NAMES = timing.bundled()
QUICK = ("NGC6440E", "J1909-3744", "B1855+09", "J0931-1902")


def moved(model, offsets):
    """The model with these offsets, given by PINT's names."""
    values = {name: np.array(js.get(model, name)) for name in js.parameters(model)}
    for element, pint in elements(model):
        if pint in offsets:
            name, _, index = element.partition("[")
            values[name][int(index[:-1]) if index else ...] = offsets[pint]
    return js.put(model, values)


def columns(model, data):
    """(names, derivatives of the residuals) of all parameters of a model, as a fit has them."""
    bare = dataclasses.replace(model, par=None)
    free = eqx.filter(bare, free_spec(bare, js.parameters(bare)))
    return make_plan(bare, data.noise, None).names, jax.jit(linearised)(bare, free, data)[1]


def difference(model, toas, theirs):
    """Largest difference from PINT's residuals in ns, whole turns and the mean aside."""
    period = 1 / float(model.spin.F_ref[0])
    off = np.asarray(timing.residuals(model, toas)) - theirs
    off -= np.round((off - off[0]) / period) * period
    return 1e9 * np.abs(off - np.mean(off)).max()


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_residuals_are_those_of_pint(name, golden):
    model, toas = timing.bundled(name)
    theirs, theirs_moved, offsets = golden[name]
    assert difference(model, toas, theirs) < 0.1
    # the reference stays that of the par file, so this is what a fit sees after steps of five sigma
    assert difference(moved(model, offsets), toas, theirs_moved) < 0.1


def test_a_move_and_back_changes_nothing():
    model, toas = timing.bundled("NGC6440E")
    far = moved(model, {"F0": 1e-9, "RAJ": 1e-6})
    assert np.abs(np.asarray(timing.residuals(far, toas)) - np.asarray(timing.residuals(model, toas))).max() > 1e-6
    again = moved(far, {"F0": 0.0, "RAJ": 0.0})
    assert jnp.array_equal(timing.residuals(again, toas), timing.residuals(model, toas))


@pytest.mark.parametrize("name", ["NGC6440E", pytest.param("B1855+09", marks=pytest.mark.slow)])
def test_columns_are_the_derivative(name):
    """A column at a time, by one tangent through everything, and by finite differences."""
    model, toas = timing.bundled(name)
    data, _ = timing.anchor(model, toas)
    names, rows = columns(model, data)
    start = js.put(dataclasses.replace(model, par=None), {"*": 0.0})
    free, rest = eqx.partition(start, free_spec(start, js.parameters(start)))
    theta, unravel = jax.flatten_util.ravel_pytree(free)
    norms = jnp.linalg.norm(rows, axis=1)
    way = jnp.sin(1.0 + jnp.arange(theta.size, dtype=float)) / jnp.where(norms > 0, norms, jnp.inf)
    along = jax.jit(lambda x: eqx.combine(unravel(theta + x * way), rest).residual(data))
    slope = jax.jit(lambda x: jax.jvp(along, (x,), (jnp.ones(()),))[1])(0.0)
    size = float(jnp.abs(slope).max())
    assert len(names) == theta.size
    np.testing.assert_allclose(way @ rows, slope, rtol=0, atol=1e-11 * size)
    step = 1e-6  # s of residual
    np.testing.assert_allclose((along(step) - along(-step)) / (2 * step), slope, rtol=0, atol=1e-5 * size)


def test_two_double_is_exact_enough():
    rng = np.random.default_rng(0)
    days, seconds = rng.integers(50000, 60000, 50), rng.uniform(0, 86400, 50)
    epoch, frequency = Decimal("55001.1234567890123456789"), Decimal("641.928222127829183249")
    ours = phase(seconds_between(days, TwoDouble.of(seconds), epoch), [TwoDouble.of(frequency)])
    for day, second, hi, lo in zip(days, seconds, ours.hi, ours.lo, strict=True):
        exact = ((int(day) - epoch) * 86400 + Decimal(float(second))) * frequency
        assert abs(Decimal(float(hi)) + Decimal(float(lo)) - exact) < Decimal("1e-15")


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="this host has no long double")
def test_two_double_and_long_double_agree():
    time = np.linspace(-2e8, 2e8, 100)
    low = 1e-9 * np.cos(time)
    ours = phase(TwoDouble(time, low), [TwoDouble.of(Decimal("186.4940812707752116")), TwoDouble.of(-6.2e-16)])
    ld = np.longdouble
    long = ld(time) + ld(low)
    theirs = ld("186.4940812707752116") * long + ld(-6.2e-16) * long**2 / 2
    assert np.abs((ld(ours.hi) - theirs) + ld(ours.lo)).max() < 1e-8


def test_round_and_divide():
    number = TwoDouble.of(Decimal("12345678901234567.5")) / TwoDouble.of(3.0)
    assert float(number.round()) == pytest.approx(4115226300411522.0, abs=1)
    assert math.isclose(number.float(), 12345678901234567.5 / 3)


@pytest.mark.parametrize("eccentricity", [0.0, 1e-8, 0.1, 0.6, 0.9, 0.99])
def test_keplers_equation_holds_to_rounding(eccentricity):
    near = 10.0 ** np.arange(-12, 0)
    mean = jnp.asarray(np.concatenate([np.linspace(0, 2 * np.pi, 1001), near, 2 * np.pi - near]))
    e = jnp.full(mean.shape, eccentricity)
    anomaly = jax.jit(eccentric_anomaly)(mean, e)
    assert jnp.abs(anomaly - eccentricity * jnp.sin(anomaly) - mean).max() < 3e-15
    slope = jax.jit(lambda m: jax.jvp(lambda m: eccentric_anomaly(m, e), (m,), (jnp.ones_like(m),))[1])(mean)
    np.testing.assert_allclose(slope * (1 - eccentricity * jnp.cos(anomaly)), 1, rtol=1e-14)
