"""Masks, units and complex numbers at the doors: kept, converted, or refused by name, and never dropped."""

import re

import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.table import Column, MaskedColumn
from astropy.utils.masked import Masked

from jaxsci.core import plain, rows_hidden, unmasked

SECONDS = np.array([1.0, 2.0]) * u.s
NUMBERS = {
    "list": ([1.0, 2.0], "", [1.0, 2.0]),
    "number": (3, "", 3),
    "numpy": (np.array([1.0, 2.0]), "s", [1.0, 2.0]),
    "jax": (jnp.array([1.0, 2.0]), "", [1.0, 2.0]),
    "quantity": (SECONDS, "ms", [1000.0, 2000.0]),
    "quantity in its unit": (SECONDS, "s", [1.0, 2.0]),
    "one quantity": (3 * u.min, "s", 180.0),
    "pure number": (SECONDS / SECONDS, "", [1.0, 1.0]),
    "column": (Column([1.0, 2.0], unit="s"), "ms", [1000.0, 2000.0]),
    "column without a unit": (Column([1.0, 2.0]), "", [1.0, 2.0]),
    "masked array, nothing hidden": (np.ma.array([1.0, 2.0]), "", [1.0, 2.0]),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_come_in_the_declared_unit(case):
    value, unit, expected = NUMBERS[case]
    values, hidden = plain(value, "x", unit)
    np.testing.assert_array_equal(np.asarray(values), expected)
    assert type(values) in (np.ndarray, np.float64, int, list) or isinstance(values, jax.Array)
    assert hidden is None
    np.testing.assert_array_equal(np.asarray(unmasked(value, "x", unit)), expected)


HIDING = {
    "numpy.ma": np.ma.array([1.0, 2.0], mask=[False, True]),
    "astropy Masked": Masked(np.array([1.0, 2.0]), mask=[False, True]),
    "masked quantity": Masked(np.array([1.0, 2.0]) * u.s, mask=[False, True]),
    "masked column": MaskedColumn([1.0, 2.0], mask=[False, True]),
    "masked column with a unit": MaskedColumn([1000.0, 2000.0], mask=[False, True], unit="ms"),
}


@pytest.mark.parametrize("case", HIDING)
def test_masks_are_kept_or_refused(case):
    values, hidden = plain(HIDING[case], "x", "s")
    assert type(values) is np.ndarray
    assert values[0] == 1.0
    np.testing.assert_array_equal(hidden, [False, True])
    with pytest.raises(ValueError, match=re.escape("x is a masked array with 1 hidden of 2 elements")):
        unmasked(HIDING[case], "x", "s")


def test_a_row_is_hidden_where_any_of_its_elements_is():
    hidden = plain(np.ma.array(np.ones((3, 2)), mask=[[0, 0], [0, 1], [1, 1]]), "x").hidden
    np.testing.assert_array_equal(rows_hidden(hidden, 3), [False, True, True])
    np.testing.assert_array_equal(rows_hidden(None, 2), [False, False])


REFUSED = {
    "no unit declared": (SECONDS, "", "x is a Quantity in s, but no unit is declared for it"),
    "percent is no pure number": (5 * u.percent, "", "x is a Quantity in %, but no unit is declared for it"),
    "other dimension": (SECONDS, "m", "x is a Quantity in s, which cannot be converted to the declared unit 'm'"),
    "no unit of astropy": (SECONDS, "furlongs!", "cannot be converted to the declared unit 'furlongs!'"),
    "list of quantities": ([1 * u.s, 2 * u.s], "s", "x is a list of Quantities, the first in s"),
    "list of arrays": ([SECONDS, SECONDS], "s", "x is a list of Quantities, the first in s"),
    "nested list": ([[1.0, 1 * u.s]], "s", "x is a list of Quantities, the first in s"),
    "list of masked": ([1.0, np.ma.masked], "", "x is a list of masked arrays"),
    "complex number": (1j, "", "x is complex"),
    "complex array": (np.array([1j, 1.0]), "", "x is complex"),
    "complex on the device": (jnp.array([1j, 1.0]), "", "x is complex"),
    "complex list": ([1.0, 1j], "", "x is complex"),
    "complex quantity": (np.array([1j]) * u.s, "s", "x is complex"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_lost_is_refused_by_name(case):
    value, unit, message = REFUSED[case]
    for door in (plain, unmasked):
        with pytest.raises(ValueError, match=re.escape(message)):
            door(value, "x", unit)


def test_units_of_other_packages_are_not_stripped():
    class Length:  # as pint's and unyt's are
        units = "metre"

        def to(self, unit):
            raise TypeError(f"cannot convert to {unit}")

        def __array__(self, *args, **kwargs):
            return np.ones(3)

    with pytest.raises(ValueError, match="x is a Length in metre, but no unit is declared"):
        plain(Length(), "x")
    with pytest.raises(ValueError, match="x is a Length in metre, which cannot be converted"):
        plain(Length(), "x", "s")


def test_complex_numbers_pass_where_they_are_meant():
    assert plain(1j, "x", real=False).values == 1j
    assert unmasked(1j, "x", real=False) == 1j


def test_traced_numbers_pass():
    assert jax.jit(lambda x: unmasked(x, "x", "s") + 1.0)(2.0) == 3.0
