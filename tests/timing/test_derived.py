"""What the parameters of a pulsar imply, against PINT and in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import timing
from jaxsci.timing import quantities

VALUES = {"F0": 339.3156872, "F1": -1.6148e-15, "PB": 1.533449474, "A1": 1.897991, "PMRA": -9.5, "PMDEC": -35.8}


def test_quantities_are_those_of_pint():
    derived = pytest.importorskip("pint.derived_quantities", reason="pip install 'jaxsci[timing]'")
    from astropy import constants, units

    f0, f1 = VALUES["F0"] * units.Hz, VALUES["F1"] * units.Hz / units.s
    period, axis = VALUES["PB"] * units.d, VALUES["A1"] * constants.c * units.s
    theirs = {
        "P": derived.p_to_f(f0, f1)[0],
        "Pdot": derived.p_to_f(f0, f1)[1],
        "age": derived.pulsar_age(f0, f1),
        "B": derived.pulsar_B(f0, f1),
        "Edot": derived.pulsar_edot(f0, f1),
        "mass function": derived.mass_funct(period, axis),
        "M2 minimum": derived.companion_mass(period, axis, i=90 * units.deg),
        "M2 median": derived.companion_mass(period, axis, i=60 * units.deg),
    }
    ours = quantities(VALUES)
    for name, value in theirs.items():
        assert float(ours[name]) == pytest.approx(value.value, rel=1e-12), name
    assert float(ours["PMTOT"]) == pytest.approx(np.hypot(9.5, 35.8), rel=1e-15)


def test_orbits_by_their_frequency_and_other_axes():
    frequency = {key: value for key, value in VALUES.items() if key != "PB"} | {"FB0": 1 / (VALUES["PB"] * 86400)}
    assert float(quantities(frequency)["M2 median"]) == pytest.approx(float(quantities(VALUES)["M2 median"]), rel=1e-12)
    ecliptic = quantities({"PMELONG": 3.0, "PMELAT": -4.0, "EPS1": 6e-6, "EPS2": 8e-6})
    assert {name: float(value) for name, value in ecliptic.items()} == pytest.approx({"PMTOT": 5.0, "ECC": 1e-5})


@pytest.mark.parametrize("function", [1e-9, 1e-3, 1.0, 1e3])
def test_the_mass_of_a_companion_solves_its_equation(function):
    mass = float(timing.companion_mass(function, 0.8, 1.6))
    assert (mass * 0.8) ** 3 / (mass + 1.6) ** 2 == pytest.approx(function, rel=1e-12)
    slope = float(jax.grad(timing.companion_mass)(function, 0.8, 1.6))
    # of the equation itself: df/dm = f (3 / m - 2 / (m + M))
    assert slope == pytest.approx(1 / (function * (3 / mass - 2 / (mass + 1.6))), rel=1e-9)


def test_quantities_work_inside_of_jax():
    masses = jnp.linspace(1.2, 2.0, 3)
    many = jax.jit(jax.vmap(lambda mass: quantities(VALUES, mass)["M2 minimum"]))(masses)
    np.testing.assert_allclose(many, [float(quantities(VALUES, m)["M2 minimum"]) for m in masses], rtol=1e-12)
    # a pulsar that speeds up has no age, and no derivative of it that spoils the others
    slope = jax.jacfwd(lambda f1: quantities(VALUES | {"F1": f1})["Pdot"])(1e-15)
    assert float(slope) == pytest.approx(-1 / VALUES["F0"] ** 2)
    assert np.isnan(float(quantities(VALUES | {"F1": 1e-15})["age"]))


def test_errors_are_those_of_the_covariance():
    solution = timing.fit(*timing.bundled("NGC6440E"), ("F0", "F1"))
    found = {each.name: each for each in timing.derived(solution)}
    f0, f1 = solution.values["F0"], solution.values["F1"]
    at = list(solution.places)
    matrix = np.asarray(solution.fit.covariance)[np.ix_(at, at)]
    slopes = {"P": [-1 / f0**2, 0.0], "Pdot": [2 * f1 / f0**3, -1 / f0**2]}
    slopes["age"] = [-1 / (2 * f1) / (365.25 * 86400), f0 / (2 * f1**2) / (365.25 * 86400)]
    for name, slope in slopes.items():
        assert found[name].std == pytest.approx(np.sqrt(slope @ matrix @ slope), rel=1e-9), name
    held = {each.name: each.std for each in timing.derived(timing.fit(*timing.bundled("NGC6440E"), ("DM",)))}
    assert set(held.values()) == {0.0}
