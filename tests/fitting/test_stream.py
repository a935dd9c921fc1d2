"""Data larger than memory: the answer of the same rows at hand, in little memory, and what goes wrong on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import close, quick_jit
from problems import Decay

import jaxsci as js

N, BLOCK = 101, 30
RNG = np.random.default_rng(5)
T = np.linspace(0.0, 5.0, N)
Y = np.asarray(Decay(2.0, 1.3, 3.0)(jnp.asarray(T))) + 0.1 * RNG.normal(size=N)
SIGMA = RNG.uniform(0.05, 0.2, N)
MASK = np.arange(N) % 7 != 3
START = Decay(2.5, 1.6, 2.0)
GN = js.GaussNewton()


def same(streamed, dense):
    """The same Solution, field by field."""
    std = np.asarray(dense.standard_errors)
    close(streamed.y, dense.y, 1e-12, 1e-12 * std.min())
    close((streamed.cost, streamed.chi2, streamed.bic), (dense.cost, dense.chi2, dense.bic), 1e-12)
    close(streamed.covariance, dense.covariance, 1e-12, 1e-13 * std.min() ** 2)
    for field in ("dof", "rank", "num_data", "at_bound", "determined", "fixed", "names"):
        assert np.all(np.asarray(getattr(streamed, field)) == np.asarray(getattr(dense, field))), field


def stream(sigma=None, mask=None, **arrays):
    given = {"inputs": T, "observed": Y} | arrays
    return js.StreamedDataset(given["inputs"], given["observed"], sigma, mask, chunk=BLOCK)


def run(data, **choices):
    """A fit in a program that compiles fast."""
    return quick_jit(lambda data: js.fit(START, data, solver=GN, throw=False, **choices))(data)


CASES = {  # sigma, its noise, mask, loss
    "unit": (None, None, None, js.Linear()),
    "white, masked": (0.1, js.White(0.1), MASK, js.Linear()),
    "diagonal, masked": (SIGMA, js.Diagonal(SIGMA), MASK, js.Linear()),
    "robust": (SIGMA, js.Diagonal(SIGMA), MASK, js.Cauchy(1.0)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_answer_as_dense_rows(case):
    """30 rows at a time and 11 in the last block."""
    sigma, noise, mask, loss = CASES[case]
    same(run(stream(sigma, mask), loss=loss), run(js.Dataset(T, Y, noise, mask), loss=loss))


def test_any_compute_chunk_and_priors_and_bounds():
    choices = {"bounds": {"tau": (1.5, 5.0)}, "priors": {"amp": js.Normal(2.0, 0.5)}}
    dense = run(js.Dataset(T, Y, js.Diagonal(SIGMA), MASK), **choices)
    assert int(dense.at_bound[1]) == -1
    same(run(stream(SIGMA, MASK), chunk=7, **choices), dense)


class Redundant(js.AbstractModel):
    """A sum of two constants, which no data tell apart, and a slope."""

    a: js.Scalar = js.param()
    b: js.Scalar = js.param()
    slope: js.Scalar = js.param()

    def __call__(self, x):
        return self.a + self.b + self.slope * x


def test_undetermined_directions_are_found_without_collecting_rows():
    with pytest.warns(UserWarning, match="do not determine a, b"):
        dense = js.fit(Redundant(0.0, 0.0, 0.0), js.Dataset(T, Y), solver=GN)
    with pytest.warns(UserWarning, match="do not determine a, b"):
        streamed = js.fit(Redundant(0.0, 0.0, 0.0), stream(), solver=GN)
    assert int(streamed.rank) == int(dense.rank) == 2
    assert list(streamed.determined) == [False, False, True]
    close(streamed.covariance[2, 2], dense.covariance[2, 2], 1e-12)
    close(streamed.chi2, dense.chi2, 1e-12)


def pieces(*lengths, kind="tuple"):
    """A `make` whose pieces have these lengths in turn."""

    def make():
        at, k = 0, 0
        while at < N:
            here = slice(at, at + lengths[k % len(lengths)])
            at, k = here.stop, k + 1
            yield (
                js.Dataset(T[here], Y[here], js.White(0.1), MASK[here])
                if kind != "tuple"
                else (
                    T[here],
                    Y[here],
                    0.1,
                    MASK[here],
                )
            )

    return make


def test_pieces_of_any_length_and_kind_give_the_same_bits():
    """Packed anew into blocks, they are the same blocks; the program is the one of the arrays."""
    expected = js.fit(START, stream(0.1, MASK), solver=GN)
    for make in (pieces(101), pieces(1, 40, 0, 13), pieces(17, kind="Dataset")):
        streamed = js.StreamedDataset.from_iterator(make, chunk=BLOCK)
        assert len(streamed) == N
        assert np.array_equal(js.fit(START, streamed, solver=GN).y, expected.y)


def test_files(tmp_path):
    """Memory maps, views of them, and datasets of HDF5; single precision and integers become what a Dataset makes."""
    h5py = pytest.importorskip("h5py")
    table = np.lib.format.open_memmap(tmp_path / "table.npy", "w+", np.float64, (N, 2))
    table[:] = np.stack([T, Y], 1)
    table.flush()
    expected = js.fit(START, stream(0.1), solver=GN).y
    columns = np.load(tmp_path / "table.npy", mmap_mode="r")
    assert np.array_equal(
        js.fit(START, stream(0.1, inputs=columns[:, 0], observed=columns[:, 1]), solver=GN).y, expected
    )
    with h5py.File(tmp_path / "data.h5", "w") as file:
        t, y = file.create_dataset("t", data=T), file.create_dataset("y", data=Y)
        assert np.array_equal(js.fit(START, stream(0.1, inputs=t, observed=y), solver=GN).y, expected)
    whole = np.arange(N)
    assert stream(inputs=whole.astype(np.int16)).stream.like.inputs.dtype == js.Dataset(whole, Y).inputs.dtype
    single = T.astype(np.float32)
    assert stream(inputs=single).stream.like.inputs.dtype == js.Dataset(single, Y).inputs.dtype == jnp.float32


def test_a_copy_on_write_map_keeps_what_was_written(tmp_path):
    np.save(tmp_path / "t.npy", np.zeros(N))
    t = np.load(tmp_path / "t.npy", mmap_mode="c")
    t[:] = T
    js.fit(START, stream(0.1, inputs=t), solver=GN)
    assert np.array_equal(t, T)


def bad(array, *at, value=np.nan):
    array = array.copy()
    array[list(at)] = value
    return array


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: stream(observed=bad(Y, 70, 95)), r"observed\[70\] is nan: 2 of 101 rows are not finite"),
        (lambda: stream(inputs=bad(T, 64, value=np.inf)), r"inputs\[64\] is inf: 1 of 101"),
        (lambda: stream(SIGMA * (T[77] != T)), r"noise.sigma\[77\] is 0.0: 1 of 101 rows are not positive"),
        (lambda: stream(inputs=bad(T, 99, value=-1e6)), r"Decay is inf at row 99 for the starting values \(1 of 101"),
        (lambda: stream(mask=np.zeros(N, bool)), "Every row is masked"),
    ],
)
def test_a_bad_row_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        js.fit(START, data(), solver=GN)


def test_what_is_masked_may_be_anything():
    inputs, observed = bad(T, *np.flatnonzero(~MASK)), bad(Y, *np.flatnonzero(~MASK))
    expected = js.fit(START, stream(mask=MASK), solver=GN)
    assert np.array_equal(js.fit(START, stream(mask=MASK, inputs=inputs, observed=observed), solver=GN).y, expected.y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stream(inputs=T[:-1]), r"inputs has shape \(100,\), observed has shape \(101,\)"),
        (lambda: stream(SIGMA[:50]), r"noise.sigma has shape \(50,\), observed has shape \(101,\)"),
        (lambda: stream(mask=MASK[:50]), r"mask has shape \(50,\), observed has shape \(101,\)"),
        (lambda: stream(mask=MASK.astype(float)), "mask should be bool"),
        (lambda: stream(observed=Y[:, None]), r"observed has shape \(101, 1\)"),
        (lambda: stream(inputs=T[:0], observed=Y[:0]), "no rows"),
        (lambda: js.StreamedDataset(T, Y, chunk=0), "chunk should be"),
        (lambda: js.StreamedDataset.from_iterator(lambda: iter(())), "no piece"),
        (lambda: js.StreamedDataset.from_iterator(lambda: [(T, Y), (T, Y, SIGMA)]), "one form"),
        (lambda: js.StreamedDataset.from_iterator(lambda: [(T, Y, 0.1), (T, Y, 0.2)]), "0.2 comes after 0.1"),
        (lambda: js.StreamedDataset.from_iterator(lambda: [(T, Y[1:])]), r"inputs has shape \(101,\), .*\(100,\)"),
        (lambda: js.fit(START, stream(), likelihood=js.Diagonal(SIGMA)), "rows of its own"),
        (lambda: js.fit(START, stream(SIGMA), free=("noise.efac",)), "cannot be fitted in chunks"),
        (lambda: js.fit(START, stream(), solver=optx.LevenbergMarquardt(1e-8, 1e-8)), "never whole in memory"),
        (lambda: js.fit_batch(START, [stream(), stream()]), "never whole in memory"),
        (lambda: js.fit_batch(START, stream()), "never whole in memory"),
        (lambda: js.stack([stream(), stream()]), "another structure"),
        (lambda: jax.vmap(lambda d: js.fit(START, d, throw=False).y)(stream()), "vmap was requested to map"),
    ],
)
def test_wrong_structure_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("break", OSError, "the tape broke"),
        ("shorter", ValueError, "gave 60 rows in this pass but 101 in the first"),
        ("longer", ValueError, "gave 131 rows in this pass but 101 in the first"),
        ("other", ValueError, "one form"),
    ],
)
def test_an_iterator_that_changes_is_reported_in_its_own_words(change, error, message):
    passes = []

    def make():
        passes.append(1)
        yield T[:60], Y[:60], 0.1, MASK[:60]
        later = len(passes) > 2
        if later and change == "break":
            raise OSError("the tape broke")
        if not (later and change == "shorter"):
            yield (T[60:], Y[60:], 0.1, MASK[60:]) if not (later and change == "other") else (T[60:], Y[60:])
        if later and change == "longer":
            yield T[:30], Y[:30], 0.1, MASK[:30]

    data = js.StreamedDataset.from_iterator(make, chunk=BLOCK)
    with pytest.raises(error, match=message) as caught:
        js.fit(START, data, solver=GN)
    assert "XLA" not in str(caught.value)
    passes.clear()
    assert bool(js.fit(START, stream(0.1, MASK), solver=GN).success)  # and the next fit runs


def from_disk(folder, rows):
    """What a fresh process measured of a fit from files: peak memory above a small fit, distance from the truth."""
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._cold", "stream_from_disk", str(folder), str(rows)],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc")
def test_twenty_million_rows_from_disk_in_little_memory(tmp_path):
    seen = from_disk(tmp_path, 20_000_000)
    assert seen["mebibytes"] < 500
    assert seen["sigma"] < 5
    assert not list(tmp_path.iterdir())


def test_derivatives_and_maps_over_models():
    """By what the rows share and by a bound; several starts of one stream in one program."""

    def amp(data, sigma, upper):
        data = eqx.tree_at(
            lambda d: d.noise.sigma if isinstance(d, js.Dataset) else d.stream.like.noise.sigma, data, sigma
        )
        priors = {"base": js.Normal(2.9, 0.05)}  # or sigma would change nothing
        return js.fit(START, data, bounds={"tau": (0.1, upper)}, priors=priors, solver=GN, throw=False).y[0]

    at = jnp.array(0.1), jnp.array(1.2)
    dense, streamed = (
        quick_jit(jax.grad(amp, (1, 2)))(data, *at) for data in (js.Dataset(T, Y, js.White(0.1)), stream(0.1))
    )
    assert all(g != 0 for g in dense)
    close(streamed, dense, 1e-9)
    starts = js.stack([START, Decay(1.5, 1.0, 2.5)])
    data = stream(0.1)
    many = quick_jit(jax.vmap(lambda model: js.fit(model, data, solver=GN, throw=False).y))(starts)
    one = js.fit(START, js.Dataset(T, Y, js.White(0.1)), solver=GN).y
    close(many, np.stack([one, one]), 1e-9)
