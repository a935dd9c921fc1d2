"""fit_batch: ragged, poisoned, mixed batches equal single fits, to the bit whoever the neighbours are."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiles

import jaxsci as js


class Decay(js.AbstractModel):
    amp: js.Scalar = js.param(unit="mV", bounds=(0, 100))
    tau: js.Scalar = js.param(unit="s", bounds=(1e-3, 100))

    def __call__(self, t):
        return self.amp * jnp.exp(-t / self.tau)


START = Decay(1.0, 1.0)


def member(k: int, n: int, **changes) -> js.Dataset:
    rng = np.random.default_rng(k)
    t = np.linspace(0.0, 4.0, n)
    y = 3.0 * np.exp(-t / rng.uniform(0.7, 2.0)) + 0.05 * rng.normal(size=n)
    sigma = np.full(n, 0.05)
    for name, (row, value) in changes.items():
        {"t": t, "y": y, "sigma": sigma}[name][row] = value
    return js.Dataset(t, y, js.Diagonal(sigma))


LENGTHS = [9, 30, 12, 31, 16, 20, 10]


@pytest.fixture(scope="module")
def ragged():
    return [member(k, n) for k, n in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def batch(ragged):
    return js.fit_batch(START, ragged, batch_size=4)


def test_ragged_batch_equals_single_fits(ragged, batch):
    assert len(batch) == len(ragged)
    assert batch.success.all()
    assert batch.failed == {}
    for k in (0, 1, 6):
        alone = js.fit(START, ragged[k])
        np.testing.assert_allclose(batch[k].y, alone.y, rtol=1e-9)
        np.testing.assert_allclose(batch[k].covariance, alone.covariance, rtol=1e-6)
        assert int(batch[k].dof) == LENGTHS[k] - 2
        np.testing.assert_allclose(batch[k].chi2, alone.chi2, rtol=1e-10)


def test_flat_rows_with_offsets_are_the_same_batch(ragged, batch):
    rows = js.Dataset(
        np.concatenate([d.inputs for d in ragged]),
        np.concatenate([d.observed for d in ragged]),
        js.Diagonal(np.concatenate([d.noise.sigma for d in ragged])),
    )
    flat = js.RaggedDataset(rows, np.concatenate([[0], np.cumsum(LENGTHS)]))
    again = js.fit_batch(START, flat, batch_size=4)
    np.testing.assert_array_equal(again.table()["tau"], batch.table()["tau"])
    with pytest.raises(ValueError, match="offsets should rise from 0"):
        js.RaggedDataset(rows, np.array([0, 5]))


def test_poisoned_members_are_listed_and_spoil_only_themselves(ragged, batch):
    poisoned = list(ragged)
    poisoned[1] = member(1, 30, y=(3, np.nan))
    poisoned[4] = member(4, 16, sigma=(2, 0.0))
    poisoned[5] = js.Dataset(ragged[5].inputs, ragged[5].observed, ragged[5].noise, jnp.zeros(20, bool))
    result = js.fit_batch(START, poisoned, batch_size=4)
    assert list(result.failed) == [1, 4, 5]
    assert "NaN" in result.failed[1]
    assert "sigma" in result.failed[4]
    assert "masked" in result.failed[5]
    good = [0, 2, 3, 6]
    for column in ("amp", "tau", "amp_std", "chi2"):
        np.testing.assert_array_equal(result.table()[column][good], batch.table()[column][good])


def test_bits_do_not_depend_on_order_or_batch(ragged, batch):
    backwards = js.fit_batch(START, ragged[::-1], batch_size=4)
    few = js.fit_batch(START, ragged[:3], batch_size=4)
    np.testing.assert_array_equal(backwards.table()["tau"][::-1], batch.table()["tau"])
    np.testing.assert_array_equal(few.table()["tau"], batch.table()["tau"][:3])


def test_covariances_are_scaled_on_demand(ragged, batch):
    scaled = js.fit_batch(START, ragged, batch_size=4, scale_covariance=True)
    for k in (0, 4):
        expected = batch[k].covariance * batch[k].reduced_chi2
        np.testing.assert_allclose(scaled[k].covariance, expected, rtol=1e-12)
    np.testing.assert_array_equal(scaled.table()["tau"], batch.table()["tau"])


def test_models_as_sequence_and_as_stack(ragged):
    starts = [Decay(1.0 + 0.1 * k, 1.0) for k in range(len(ragged))]
    listed = js.fit_batch(starts, ragged, batch_size=4)
    stacked = js.fit_batch(js.stack(starts), ragged, batch_size=4)
    np.testing.assert_array_equal(listed.table()["amp"], stacked.table()["amp"])
    with pytest.raises(ValueError, match="7 data sets"):
        js.fit_batch(starts[:2], ragged)


def test_bounds_of_each_member(ragged):
    upper = np.array([0.5, 5, 5, 5, 5, 5, 0.6])
    result = js.fit_batch(START, ragged, bounds={"tau": (np.full(7, 0.1), upper)}, batch_size=4)
    tau = result.table()["tau"]
    assert tau[0] == 0.5
    assert tau[6] == 0.6
    assert (tau[1:6] < 5).all()


def test_members_of_two_structures(ragged):
    class Line(js.AbstractModel):
        slope: js.Scalar = js.param()
        base: js.Scalar = js.param()

        def __call__(self, t):
            return self.slope * t + self.base

    result = js.fit_batch([START, Line(0.0, 0.0), START], ragged[:3], batch_size=4)
    table = result.table()
    assert np.isnan(table["slope"][[0, 2]]).all()
    assert np.isnan(table["tau"][1])
    assert len(result.groups) == 2
    slope, base = np.polyfit(np.asarray(ragged[1].inputs), np.asarray(ragged[1].observed), 1)
    np.testing.assert_allclose([result[1].values["slope"], result[1].values["base"]], [slope, base], rtol=1e-9)


def test_progress_and_step_limit(ragged):
    seen: list[tuple[int, int]] = []
    result = js.fit_batch(
        START, ragged, max_steps=2, batch_size=4, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (7, 7)
    assert len(result.failed) == 7
    assert "max_steps" in result.failed[0]


def test_few_programs_and_none_on_the_second_call(ragged, batch):
    assert compiles(lambda: js.fit_batch(START, ragged, batch_size=4)) == 0
