"""Models of g2: their formulae, conventions of exponents, derivatives at the edges, and starts read off curves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, jacobian, quick_jit

import jaxsci as js
from jaxsci import xpcs
from jaxsci.xpcs._models import outline, power, start

T = jnp.logspace(-5, 1, 41)
STARTS = quick_jit(lambda g2, sigma, mask: start(xpcs.StretchedExponential, T, g2, sigma, mask))
MODELS = {
    "single": (xpcs.SingleExponential(2e-2, 0.3, 1.01), lambda t: 1.01 + 0.3 * np.exp(-2 * t / 2e-2)),
    "stretched": (
        xpcs.StretchedExponential(2e-2, 1.6, 0.3, 0.99),
        lambda t: 0.99 + 0.3 * np.exp(-2 * (t / 2e-2) ** 1.6),
    ),
    "double": (
        xpcs.DoubleExponential(1e-3, 0.5, 0.3, 0.8, 1.2, 0.25, 1.0),
        lambda t: 1 + 0.25 * (0.3 * np.exp(-2 * (t / 1e-3) ** 0.8) + 0.7 * np.exp(-2 * (t / 0.5) ** 1.2)),
    ),
    "field": (
        xpcs.DoubleField(1e-3, 0.5, 0.3, 0.6, 0.4, 0.135, 1.0),
        lambda t: 1 + 0.135 * (0.3 * np.exp(-((t / 1e-3) ** 0.6)) + 0.7 * np.exp(-((t / 0.5) ** 0.4))) ** 2,
    ),
    "dispersed": (
        xpcs.DispersedExponential(4e3, 1.8, 0.2, 1.0, 0.01),
        lambda t: 1 + 0.2 * np.exp(-2 * 4e3 * 0.01**1.8 * t),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_formula(name):
    model, formula = MODELS[name]
    close(model(T), formula(np.asarray(T)), rtol=1e-13)
    close(quick_jit(jax.vmap(model))(T[None])[0], formula(np.asarray(T)), rtol=1e-13)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_finite_differences(name):
    model, _ = MODELS[name]
    flat, structure = jax.tree.flatten(model)
    at = np.log(np.asarray(flat))

    def of(logs):
        return jax.tree.unflatten(structure, list(jnp.exp(jnp.asarray(logs))))(T[::8])

    mine = quick_jit(jax.vmap(jax.jacfwd(of)))(jnp.asarray(at)[None])[0]
    close(mine, jacobian(of, at, 1e-3), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_are_finite_where_delays_and_times_are_extreme(dtype):
    """Delays of 0 and relaxations from 1 ns to 1000 s, exponents from 0 to 2: values and derivatives are numbers."""
    t = jnp.asarray([0, 1e-7, 1.0, 1e3], dtype)
    for tau in (1e-9, 1e-7, 1e3):
        for exponent in (0, 1, 2):
            at = (jnp.asarray(tau, dtype), jnp.asarray(exponent, dtype))
            fading = lambda tau, c: jnp.exp(-2 * power(t, tau, c))  # noqa: E731
            value, slopes = fading(*at), jax.jacfwd(fading, (0, 1))(*at)
            assert all(np.isfinite(x).all() and x.dtype == dtype for x in (value, *slopes)), (tau, exponent)
            assert value[0] == 1


def test_a_field_of_ones_own_is_squared():
    class Field(js.AbstractModel):
        rate: js.Scalar = js.param()

        def __call__(self, t):
            return jnp.exp(-self.rate * t)

    model = xpcs.Siegert(Field(50.0), 0.3, 1.01)
    close(model(T), xpcs.SingleExponential(0.02, 0.3, 1.01)(T), rtol=1e-13)
    assert list(js.parameters(model)) == ["field.rate", "contrast", "baseline"]


def test_stretched_is_the_siegert_relation_of_a_stretched_field():
    """Both conventions name one tau: with one population, the square of exp(-(t/tau)^c) is exp(-2 (t/tau)^c)."""
    one = xpcs.DoubleField(0.02, 1.0, 1.0, 0.7, 1.0, 0.2, 1.0)
    close(one(T), xpcs.StretchedExponential(0.02, 0.7, 0.2, 1.0)(T), rtol=1e-13)


def test_conventions_of_exponents(shared_data):
    """[tau, c, tau', tau'']: exp(-2 (t/tau)^c) = exp(-(2 t/tau')^c) = exp(-(t/tau'')^c)."""
    with np.load(shared_data / "xpcs" / "cases" / "global_fit.npz") as file:
        tau, c, inside, without = jnp.asarray(file["convert"])
    close(xpcs.tau_two_inside(tau, c), inside, rtol=1e-14)
    close(xpcs.tau_without_two(tau, c), without, rtol=1e-14)
    close(xpcs.tau_two_outside(inside, c), tau, rtol=1e-14)
    close(xpcs.tau_with_two(without, c), tau, rtol=1e-14)
    close(jnp.exp(-power(T, without, c)), jnp.exp(-2 * power(T, tau, c)), rtol=1e-12)
    close(jnp.exp(-power(2 * T, inside, c)), jnp.exp(-2 * power(T, tau, c)), rtol=1e-12)


@pytest.mark.parametrize("tau", [3e-4, 2e-2, 0.5])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.6])
def test_starts_lie_near_the_curve(tau, exponent):
    rng = np.random.default_rng(3)
    truth = xpcs.StretchedExponential(tau, exponent, 0.15, 1.02)
    g2 = truth(T) + 0.003 * rng.normal(size=T.size)
    found = STARTS(jnp.asarray(g2), jnp.full(T.size, 0.003), jnp.ones(T.size, bool))
    assert abs(np.log(found.tau / tau)) < np.log(3)
    assert abs(found.exponent - exponent) < 0.45
    assert abs(found.contrast - 0.15) < 0.06
    assert abs(found.baseline - 1.02) < 0.02


def test_starts_do_not_see_what_is_masked_nor_the_order():
    g2 = xpcs.StretchedExponential(0.02, 1.0, 0.2, 1.0)(T)
    sigma, mask = jnp.full(T.size, 0.01), jnp.ones(T.size, bool).at[5].set(False)
    plain = outline(T, g2, jnp.where(mask, 1e4, 0.0))
    spoiled = start(xpcs.StretchedExponential, T, g2.at[5].set(jnp.nan), sigma.at[5].set(jnp.nan), mask)
    turned = start(xpcs.StretchedExponential, T[::-1], g2[::-1], sigma, mask[::-1])
    close([spoiled.tau, spoiled.contrast], [plain.tau, plain.contrast], rtol=1e-12)
    close([turned.tau, turned.contrast], [plain.tau, plain.contrast], rtol=1e-12)


@pytest.mark.parametrize("g2", [np.ones(41), np.linspace(1, 1.2, 41), np.full(41, np.nan)], ids=["flat", "up", "nan"])
def test_a_curve_without_a_decay_gives_numbers(g2):
    mask = jnp.asarray(np.isfinite(g2))
    found = STARTS(jnp.asarray(g2), jnp.full(41, 0.01), mask)
    for name, about in js.parameters(found).items():
        low, high = about.bounds
        assert np.isfinite(js.get(found, name))
        assert (low if low is not None else -np.inf) <= js.get(found, name) <= (high if high is not None else np.inf)


def test_power_law():
    law = xpcs.PowerLaw(2.0, -2.0, 0.01)
    close(law(jnp.array([0.01, 0.02])), jnp.array([2.0, 0.5]), rtol=1e-14)
    assert list(js.parameters(law)) == ["value_at", "slope"]
