"""Members that share parameters: one posterior, against the covariance of the joint fit."""

import jax.numpy as jnp
import numpy as np
import pytest
from posteriors import WARMUP, Line, drawn, line_data, off

import jaxsci as js

PRIOR = {"slope": js.Normal(1.5, 0.2)}


@pytest.fixture(scope="module")
def data():
    return [line_data(rows, seed, js.White(0.3), offset=float(seed)) for seed, rows in enumerate((8, 8, 8, 8))]


@pytest.fixture(scope="module")
def fits(data):
    return js.fit_batch(Line(1.0, 0.0), data, shared="slope", priors=PRIOR)


SEEN = []  # what the progress of the run below said


@pytest.fixture(scope="module")
def posteriors(fits, data):
    return drawn(fits, data, num_samples=1500, progress=lambda done, total: SEEN.append((done, total)))


def test_progress_counts_the_chains_of_all_members_once(posteriors):
    assert SEEN[-1] == (4 * (WARMUP + 1500),) * 2


def test_a_shared_value_is_the_same_to_the_last_bit(posteriors):
    for k in (1, 2, 3):
        assert jnp.array_equal(posteriors[k].samples("slope"), posteriors[0].samples("slope"))


def test_it_has_the_covariance_of_the_joint_fit(posteriors, fits):
    """A prior of a shared parameter counts once: a linear model's posterior is normal."""
    for k, posterior in enumerate(posteriors):
        covariance = np.asarray(fits[k].covariance)
        for j, name in enumerate(("slope", "offset")):
            value = float(fits[k].values[name])
            assert off(posterior.samples(name), value) < 4
            assert off(posterior.samples(name), covariance[j, j], lambda x, value=value: (x - value) ** 2) < 4
        assert posterior.check()


def test_trees_are_as_short_as_those_of_a_normal(posteriors):
    assert float(np.mean(np.asarray(posteriors[0].num_steps))) < 10


def test_other_data_are_refused(data):
    fits = js.fit_batch(Line(1.0, 0.0), data, shared="slope")
    with pytest.raises(ValueError, match="not the data of these fits"):
        drawn(fits, data[::-1])
