"""A hundredth of the members broken: the others keep every bit, and each broken one is listed with its reason."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js


class Decay(js.AbstractModel):
    amp: js.Scalar = js.param(bounds=(0, 100))
    tau: js.Scalar = js.param(bounds=(1e-3, 100))

    def __call__(self, t):
        return self.amp * jnp.exp(-t / self.tau)


START = Decay(1.0, 1.0)


class Rows(NamedTuple):
    """The rows of one member, which a poison changes in place."""

    t: np.ndarray
    y: np.ndarray
    sigma: np.ndarray
    mask: np.ndarray


def nan_observed(rows):
    rows.y[5] = np.nan


def infinite_input(rows):
    rows.t[-1] = np.inf


def nan_everywhere(rows):
    rows.t[:], rows.y[:], rows.sigma[:] = np.nan, np.nan, np.nan


def all_masked(rows):
    rows.mask[:] = False


def zero_sigma(rows):
    rows.sigma[2] = 0.0


def nan_sigma(rows):
    rows.sigma[:] = np.nan


def infinite_model(rows):
    rows.t[3] = -1e4  # exp overflows


def singular(rows):
    rows.t[:] = 0.7  # one time says nothing of the life time


POISONS: dict[Callable[[Rows], None], str] = {
    nan_observed: "NaN or an infinity",
    infinite_input: "NaN or an infinity",
    nan_everywhere: "NaN or an infinity",
    all_masked: "Every row is masked",
    zero_sigma: "sigma that is zero",
    nan_sigma: "sigma that is zero, negative or not finite",
    infinite_model: "not finite at the starting values",
    singular: "",
}


def rows_of(rng: np.random.Generator, length: int) -> Rows:
    t = np.linspace(0.0, 4.0, length)
    y = rng.uniform(1, 5) * np.exp(-t / rng.uniform(0.7, 2.0)) + 0.05 * rng.normal(size=length)
    return Rows(t, y, np.full(length, 0.05), np.ones(length, bool))


def batch_of(count: int, lengths: tuple[int, int], poisons: dict[int, Callable[[Rows], None]]) -> js.RaggedDataset:
    """`count` curves of random lengths in that range, those numbered in `poisons` spoiled."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(*lengths, endpoint=True, size=count)
    members = [rows_of(rng, size) for size in sizes]
    for place, poison in poisons.items():
        poison(members[place])
    t, y, sigma, mask = (np.concatenate(column) for column in zip(*members, strict=True))
    return js.RaggedDataset(js.Dataset(t, y, js.Diagonal(sigma), mask), np.concatenate([[0], np.cumsum(sizes)]))


def check_isolation(count: int, lengths: tuple[int, int], how_many: int) -> None:
    places = np.random.default_rng(1).choice(count, how_many, replace=False).tolist()
    kinds = list(POISONS)
    poisons = {place: kinds[k % len(kinds)] for k, place in enumerate(sorted(places))}
    fit = functools.partial(js.fit_batch, START)
    clean, spoiled = fit(batch_of(count, lengths, {})), fit(batch_of(count, lengths, poisons))
    assert clean.failed == {}

    (group,), (before,) = spoiled.groups, clean.groups
    good = np.array([i not in poisons for i in range(count)])
    for name in ("y", "covariance", "cost", "chi2", "dof", "rank", "num_steps", "determined", "at_bound"):
        a, b = np.asarray(getattr(group, name)), np.asarray(getattr(before, name))
        np.testing.assert_array_equal(a[good], b[good], err_msg=name)
    assert good.sum() == count - how_many

    assert list(spoiled.failed) == [i for i, poison in sorted(poisons.items()) if POISONS[poison]]
    for place, poison in poisons.items():
        assert POISONS[poison] in spoiled.failed.get(place, ""), f"{poison.__name__}: {spoiled.failed.get(place)}"
    lost = [i for i, poison in sorted(poisons.items()) if poison is singular]
    assert np.flatnonzero(spoiled.success & (np.asarray(group.rank) < 2)).tolist() == lost
    assert np.flatnonzero(spoiled.success & ~np.asarray(group.determined).all(axis=1)).tolist() == lost
    assert list(spoiled.warnings) == lost
    assert all("do not determine" in text for text in spoiled.warnings.values())
    table = spoiled.table()
    for column in ("amp_std", "tau_std"):
        assert np.isinf(table[column][lost]).all()
        assert np.isnan(table[column][~spoiled.success]).all()


def test_a_small_batch():
    check_isolation(300, (9, 30), 16)


@pytest.mark.slow
def test_ten_thousand_curves_of_which_a_hundred_are_poisoned():
    check_isolation(10_000, (9, 120), 100)
