"""Chains of many members: their bits are their own, whatever runs beside them, before or after."""

import itertools
import os

import jax
import numpy as np
import pytest
from helpers import compiles, same_bits
from posteriors import WARMUP, Line, drawn, line_data

import jaxsci as js

COUNT = 6


@pytest.fixture(scope="module")
def data():
    return [line_data(12, seed, js.White(0.3), slope=seed - 2.0) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def fits(data):
    return js.fit_batch(Line(1.0, 0.0), data)


@pytest.fixture(scope="module")
def batch(fits, data):
    return drawn(fits, data)


def bits(posterior):
    return posterior.draws, posterior.energy, posterior.num_steps, posterior.diverging, posterior.first


def test_every_member_finds_its_own_posterior(batch, fits):
    for k, posterior in enumerate(batch):
        assert posterior.check(), posterior.check()
        assert np.allclose(posterior.samples("slope").mean(), fits[k].values["slope"], atol=0.1)
        assert posterior.draws.shape == (4, 500, 2)


@pytest.mark.parametrize("fewer", [1, 3])
def test_neighbours_change_no_bit(batch, data, fewer):
    part = drawn(js.fit_batch(Line(1.0, 0.0), data[:fewer]), data[:fewer])
    for one, other in zip(part, batch, strict=False):
        same_bits(bits(one), bits(other))


def test_more_draws_begin_with_the_same(batch, fits, data):
    longer = drawn(js.fit_batch(Line(1.0, 0.0), data[:1]), data[:1], num_samples=730)[0]
    same_bits(longer.draws[:, :500], batch[0].draws)


def test_chains_and_members_differ(batch):
    first = [np.asarray(batch[k].draws)[c, 0] - np.asarray(batch[k].start.y) for k in range(3) for c in range(4)]
    assert len(np.unique(np.round(first, 12), axis=0)) == 12


def test_bad_members_are_refused_by_name_and_spoil_nobody(batch, data):
    """All rows masked, NaN, one row for two parameters: the others keep every bit."""
    hidden = js.Dataset(data[1].inputs, data[1].observed, data[1].noise, mask=np.zeros(12, bool))
    spoilt = js.Dataset(data[2].inputs, np.full(12, np.nan), data[2].noise)
    single = js.Dataset(data[3].inputs, data[3].observed, data[3].noise, mask=np.arange(12) == 4)
    given = [data[0], hidden, spoilt, single, data[4], data[5]]
    posteriors = drawn(js.fit_batch(Line(1.0, 0.0), given), given)
    assert sorted(posteriors.refused) == [1, 2, 3]
    assert "masked" in posteriors.refused[1]
    assert "NaN" in posteriors.refused[2]
    assert "slope, offset" in posteriors.refused[3]
    assert "improper" in posteriors.refused[3]
    for k in (0, 4, 5):
        same_bits(bits(posteriors[k]), bits(batch[k]))
    for k in (1, 2, 3):
        assert np.isnan(posteriors[k].draws).all()
        checked = posteriors[k].check()
        assert not checked
        assert posteriors.refused[k] in str(checked)
        assert posteriors.refused[k] in repr(posteriors[k])
        assert posteriors.refused[k] in repr(posteriors)
    table = posteriors.table()
    assert np.isnan(table["slope"][1:4]).all()
    assert np.isfinite(table["slope"][[0, 4, 5]]).all()


def test_members_with_other_data_are_refused(batch, fits, data):
    swapped = [data[0], data[2], data[1], *data[3:]]
    posteriors = drawn(fits, swapped)
    assert sorted(posteriors.refused) == [1, 2]
    assert "not the data of its fit" in posteriors.refused[1]
    same_bits(bits(posteriors[0]), bits(batch[0]))


class Stop(Exception):
    """Stands for Ctrl-C."""


def stop_at(share):
    def progress(done, total):
        if done >= share * total:
            raise Stop

    return progress


@pytest.mark.parametrize("share", [0.2, 0.7])  # in the warm-up, and after it
def test_a_run_that_was_stopped_goes_on_with_the_same_bits(batch, fits, data, tmp_path, share):
    path = tmp_path / "chains"
    with pytest.raises(Stop):
        drawn(fits, data, checkpoint=path, progress=stop_at(share))
    seen = []
    resumed = drawn(fits, data, checkpoint=path, progress=lambda done, total: seen.append((done, total)))
    for one, other in zip(resumed, batch, strict=True):
        same_bits(bits(one), bits(other))
    total = COUNT * 4 * (WARMUP + 500)
    assert seen[0][0] > 0.1 * total  # what was done before counts
    assert seen[-1] == (total, total)
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(seen))


def test_a_checkpoint_of_another_run_is_refused(fits, data, tmp_path):
    path = tmp_path / "chains"
    with pytest.raises(Stop):
        drawn(fits, data, checkpoint=path, progress=stop_at(0.2))
    with pytest.raises(ValueError, match="for other settings:"):
        drawn(fits, data, seed=1, checkpoint=path)
    content = path.read_bytes()
    path.with_name("chains.previous").unlink(missing_ok=True)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="damaged"):
        drawn(fits, data, checkpoint=path)
    drawn(js.fit_batch(Line(1.0, 0.0), data[:1]), data[:1], num_samples=50, checkpoint=path, resume=False)
    assert os.path.getsize(path) > 0


def test_data_sets_in_any_form(batch, data):
    stacked = js.stack(data)
    fits = js.fit_batch(Line(1.0, 0.0), stacked)
    posteriors = drawn(fits, stacked, num_samples=50)
    assert len(posteriors) == COUNT
    rows = js.Dataset(
        np.concatenate([d.inputs for d in data]), np.concatenate([d.observed for d in data]), js.White(0.3)
    )
    ragged = js.RaggedDataset(rows, np.arange(COUNT + 1) * 12)
    again = drawn(js.fit_batch(Line(1.0, 0.0), ragged), ragged, num_samples=500)
    same_bits(again[2].draws, batch[2].draws)


def test_one_program_whatever_the_batch(fits, data):
    """Another batch of the same shape compiles nothing."""
    drawn(fits, data, num_samples=50)
    few = js.fit_batch(Line(1.0, 0.0), data[:2])
    assert compiles(lambda: drawn(few, data[:2], num_samples=50, seed=3)) == 0


def test_wrong_arguments_are_named(fits, data):
    one = js.fit(Line(1.0, 0.0), data[0])
    for choices, words in (
        ({"num_chains": 0}, "num_chains should be a whole number"),
        ({"num_samples": 0}, "num_samples should be a whole number"),
        ({"target_accept": 1.0}, "target_accept should lie between 0 and 1"),
        ({"jitter": -1.0}, "jitter should be 0 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            js.sampling.sample(one, data[0], key=jax.random.key(0), **choices)
    with pytest.raises(ValueError, match="key should be a key of JAX"):
        js.sampling.sample(one, data[0], key=0)
    with pytest.raises(ValueError, match=r"what jaxsci\.fit or jaxsci\.fit_batch answered"):
        drawn(Line(1.0, 0.0), data[0])
    with pytest.raises(ValueError, match="not the data of its fit"):
        drawn(one, data[1])
    with pytest.raises(ValueError, match="6 fits but 2 data sets"):
        drawn(fits, data[:2])
    with pytest.raises(ValueError, match="data should be the Dataset that was fitted"):
        drawn(one, (1, 2))


def test_a_posterior_that_is_none_raises_by_name():
    hidden = js.Dataset(np.linspace(0, 1, 12), np.zeros(12), js.White(0.3), mask=np.arange(12) == 4)
    solution = js.fit(Line(1.0, 0.0), hidden, throw=False)
    with pytest.raises(ValueError, match=r"do not determine slope, offset, so that the posterior is improper: give a"):
        drawn(solution, hidden)
    exact = js.Dataset(np.linspace(0, 1, 12), 1 + np.linspace(0, 1, 12))
    with pytest.raises(ValueError, match="scale of its noise is unknown, and its residuals are no more than rounding"):
        drawn(js.fit(Line(1.0, 0.0), exact, throw=False), exact)
    both = js.Dataset(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="scale of its noise is unknown"):
        drawn(js.fit(Line(1.0, 0.0), both, throw=False), both)
    data = line_data(noise=js.White(0.3))
    with pytest.raises(ValueError, match="Arctan is bounded"):
        drawn(js.fit(Line(1.0, 0.0), data, loss=js.Arctan(1.0)), data)
    with pytest.raises(ValueError, match="nothing moves"):
        drawn(js.fit(Line(1.0, 0.0), data, active=[False, False]), data)
