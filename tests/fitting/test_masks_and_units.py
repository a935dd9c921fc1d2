"""Masked arrays and Quantities at the doors of a fit: masks count, units are converted or refused by name."""

import re

import astropy.units as u
import equinox as eqx
import numpy as np
import pytest
from astropy.utils.masked import Masked
from helpers import same_bits
from hypothesis import given, settings, strategies as st
from problems import SIGMA, START, TIMES, Decay, decay_data

import jaxsci as js

N = len(TIMES)
T, Y = np.asarray(TIMES), decay_data()
SIGMAS = np.full(N, SIGMA)
GARBAGE = np.array([np.nan, np.inf, -1e300, 0.0])
hidden_rows = st.lists(st.booleans(), min_size=N, max_size=N).map(np.array)
cheap = settings(max_examples=15, deadline=None, derandomize=True)


def spoilt(values, hidden):
    """The values with something senseless below the mask."""
    return np.where(hidden, GARBAGE[np.arange(N) % len(GARBAGE)], values)


@cheap
@given(hidden_rows, hidden_rows, hidden_rows)
def test_a_masked_array_is_a_data_set_with_that_mask(of_x, of_y, mask):
    expected = js.Dataset(T, Y, js.Diagonal(SIGMAS), mask=~(of_x | of_y | mask))
    for kind in (np.ma.array, Masked):
        data = js.Dataset(
            kind(spoilt(T, of_x), mask=of_x), kind(spoilt(Y, of_y), mask=of_y), js.Diagonal(SIGMAS), ~mask
        )
        same_bits(data, expected)


@cheap
@given(hidden_rows, hidden_rows, hidden_rows, st.booleans())
def test_a_stream_of_masked_arrays_gives_the_rows_of_that_data_set(of_x, of_y, of_sigma, pieces):
    hidden = of_x | of_y | of_sigma
    x, y, sigma = (np.ma.array(spoilt(v, h), mask=h) for v, h in ((T, of_x), (Y, of_y), (SIGMAS, of_sigma)))
    if pieces:
        cuts = [slice(0, 7), slice(7, 7), slice(7, N)]
        stream = js.StreamedDataset.from_iterator(lambda: ((x[c], y[c], sigma[c]) for c in cuts), chunk=8)
    else:
        stream = js.StreamedDataset(x, y, sigma, chunk=8)
    read = [stream.source.read(i) for i in range(stream.source.count)]
    columns = dict(
        zip([c.name for c in stream.source.columns], map(np.concatenate, zip(*read, strict=True)), strict=True)
    )
    np.testing.assert_array_equal(columns["mask"][:N], ~hidden)
    for name, clean in (("inputs", T), ("observed", Y), ("noise.sigma", SIGMAS)):
        np.testing.assert_array_equal(columns[name][:N][~hidden], clean[~hidden])
        assert np.isfinite(columns[name]).all()


def test_every_door_finds_the_same_fit_of_masked_observations():
    hidden = np.arange(N) % 4 == 1
    y = np.ma.array(spoilt(Y, hidden), mask=hidden)
    noise = js.Diagonal(SIGMAS)
    data = js.Dataset(T, y, noise)
    expected = js.fit(START, js.Dataset(T, Y, noise, mask=~hidden))
    assert int(expected.num_data) == N - hidden.sum()
    same_bits(js.fit(START, data), expected)
    rows = js.Dataset(np.tile(T, 2), np.ma.concatenate([y, y]), js.Diagonal(np.tile(SIGMAS, 2)))
    for batch in ([data, data], js.RaggedDataset(rows, [0, N, 2 * N])):
        for solution in js.fit_batch(START, batch):
            np.testing.assert_allclose(solution.y, expected.y, rtol=1e-7)
            assert int(solution.num_data) == N - hidden.sum()


def test_a_hidden_sigma_is_never_a_number():
    hidden = np.arange(N) % 4 == 1
    noise = js.Diagonal(np.ma.array(SIGMAS, mask=hidden))
    assert js.fit(START, js.Dataset(T, Y, noise), throw=False).result == js.RESULTS.bad_noise
    masked = js.fit(START, js.Dataset(T, np.ma.array(Y, mask=hidden), noise))
    same_bits(masked, js.fit(START, js.Dataset(T, Y, js.Diagonal(SIGMAS), mask=~hidden)))


VOLTS = {"amp": 2e-3 * u.V, "tau": 1300 * u.ms}


def test_quantities_are_converted_to_the_declared_units():
    model = Decay(base=0.0, **VOLTS)
    close_to = {"amp": 2.0, "tau": 1.3}
    for name, value in close_to.items():
        np.testing.assert_allclose(js.get(model, name), value, rtol=1e-15)
        np.testing.assert_allclose(js.get(js.put(START, {name: VOLTS[name]}), name), value, rtol=1e-15)

    class Bounded(eqx.Module):
        tau: js.Scalar = js.param(unit="s", bounds=(500 * u.ms, 1 * u.min))

    assert js.parameters(Bounded(1.0))["tau"].bounds == (0.5, 60.0)


def test_bounds_in_other_units_hold_the_fit_where_plain_ones_do():
    data = js.Dataset(T, Y, js.White(SIGMA))
    plain = js.fit(START, data, bounds={"tau": (0.9, 1.1)})
    same_bits(js.fit(START, data, bounds={"tau": (900 * u.ms, 1.1 * u.s)}), plain)
    assert plain.values["tau"] == 1.1


class NoUnit(eqx.Module):
    """No jaxsci.Module: nothing but the converter looks at its fields."""

    a: js.Scalar = js.param()
    b: js.Scalar = js.param(unit="no such unit", default=0.0)


DATA = js.Dataset(T, Y, js.White(SIGMA))
REFUSED = {
    "observed": (lambda: js.Dataset(T, Y * u.mV), "observed is a Quantity in mV, but no unit is declared"),
    "inputs": (lambda: js.Dataset({"t": T * u.s}, Y), "inputs['t'] is a Quantity in s, but no unit is declared"),
    "list": (lambda: js.Dataset(T, [1 * u.mV] * N), "observed is a list of Quantities"),
    "list of masked": (lambda: js.Dataset(T, [np.ma.masked] * N), "observed is a list of masked arrays"),
    "sigma": (lambda: js.Diagonal(SIGMAS * u.mV), "sigma is a Quantity in mV, but no unit is declared"),
    "white": (lambda: js.White(0.1 * u.mV), "sigma is a Quantity in mV, but no unit is declared"),
    "prior": (lambda: js.Normal(1 * u.s, 2.0), "mean is a Quantity in s, but no unit is declared"),
    "stream": (lambda: js.StreamedDataset(T, Y * u.mV), "observed is a Quantity in mV, but no unit is declared"),
    "stream's inputs": (lambda: js.StreamedDataset({"t": T * u.s}, Y), "inputs['t'] is a Quantity in s"),
    "stream's sigma": (lambda: js.StreamedDataset(T, Y, SIGMAS * u.mV), "sigma is a Quantity in mV"),
    "stream's number": (lambda: js.StreamedDataset(T, Y, 0.1 * u.mV), "sigma is a Quantity in mV"),
    "pieces": (
        lambda: js.StreamedDataset.from_iterator(lambda: [(T, Y * u.mV)]),
        "observed is a Quantity in mV, but no unit is declared",
    ),
    "parameter": (lambda: Decay(1.0, 2 * u.m, 0.0), "tau is a Quantity in m, which cannot be converted to"),
    "parameter without a unit": (
        lambda: Decay(1.0, 2.0, 1 * u.mV),
        "base is a Quantity in mV, but no unit is declared",
    ),
    "unit of nobody": (lambda: NoUnit(1.0, 2 * u.m), "b is a Quantity in m, which cannot be converted to"),
    "no jaxsci Module": (lambda: NoUnit(1.0 * u.m), "a is a Quantity in m, but no unit is declared"),
    "masked parameter": (lambda: NoUnit(np.ma.masked), "a is a masked array with 1 hidden of 1 elements"),
    "put": (lambda: js.put(START, {"tau": 2 * u.m}), "tau is a Quantity in m, which cannot be converted to"),
    "put masked": (lambda: js.put(START, {"tau": np.ma.masked}), "tau is a masked array"),
    "put complex": (lambda: js.put(START, {"tau": 1j}), "tau is complex"),
    "bounds": (lambda: js.fit(START, DATA, bounds={"tau": (0, 2 * u.m)}), "bounds of tau is a Quantity in m"),
    "declared bounds": (lambda: js.param(unit="s", bounds=(0, 2 * u.m)), "bounds is a Quantity in m"),
    "complex observed": (lambda: js.Dataset(T, Y * 1j), "observed is complex"),
    "complex list": (lambda: js.Dataset(T, [1j] * N), "observed is complex"),
    "complex stream": (lambda: js.StreamedDataset(T, Y * 1j), "observed is complex"),
    "complex sigma": (
        lambda: js.Diagonal(SIGMAS * 1j),
        "Diagonal.sigma should be an array of real numbers of shape (n,), but it is complex",
    ),
    "complex parameter": (lambda: Decay(1j, 1.0, 0.0), "Decay.amp should be one real number, but it is complex"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_lost_is_refused_by_name(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_arrays_that_change_later_do_not_change_the_data():
    for n in range(100_000, 100_010):  # whether JAX shares the memory depends on where it lies
        x, y, sigma, mask = np.zeros(n), np.zeros(n), np.ones(n), np.ones(n, bool)
        data = js.Dataset(x, y, js.Diagonal(sigma), mask)
        for array, value in ((x, 7.0), (y, 7.0), (sigma, 7.0), (mask, False)):
            array[0] = value
        first = [float(v[0]) for v in (data.inputs, data.observed, data.noise.sigma, data.mask)]
        assert first == [0.0, 0.0, 1.0, 1.0]
