"""States of a job in progress: kept, found again in their form, and never taken for those of another job."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.parallel import Checkpoint, Kept

STATE = {"at": np.arange(6.0).reshape(2, 3), "key": jax.random.key(3), "done": np.array([True, False])}
BLANK = {"at": np.zeros((2, 3)), "key": jax.random.key(0), "done": np.zeros(2, bool)}


def same(a, b) -> None:
    np.testing.assert_array_equal(a["at"], b["at"])
    np.testing.assert_array_equal(a["done"], b["done"])
    np.testing.assert_array_equal(jax.random.key_data(a["key"]), jax.random.key_data(b["key"]))


def test_a_state_comes_back_in_its_form(tmp_path):
    with Checkpoint(tmp_path / "x", ("job", 1)) as kept:
        assert kept.state("a/b", BLANK) is BLANK
        kept.keep("a/b", STATE)
        kept.keep("other", [jnp.ones(2)])
    again = Checkpoint(tmp_path / "x", ("job", 1))
    found = again.state("a/b", BLANK)
    same(found, STATE)
    assert jax.random.uniform(found["key"]) == jax.random.uniform(STATE["key"])
    np.testing.assert_array_equal(again.state("other", [0])[0], [1, 1])
    assert again.state("third", 7) == 7


def test_what_was_kept_last_is_written_when_the_block_is_left_by_an_error(tmp_path):
    def stopped():
        with Checkpoint(tmp_path / "x", 1) as kept:
            kept.keep("a", [np.array(1)])
            assert not (tmp_path / "x").exists()  # written every so often only
            kept.keep("a", [np.array(2)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert Kept.read(tmp_path / "x").states["a"][0] == 2


def test_each_time_on_demand_with_what_a_reader_should_know(tmp_path):
    kept = Checkpoint(tmp_path / "x", 1, every=0, about={"unit": "uK"})
    kept.keep("a", [np.array(1)])
    assert Kept.read(tmp_path / "x").about == {"unit": "uK"}


def test_the_progress_of_another_job_is_refused(tmp_path):
    with Checkpoint(tmp_path / "x", {"data": np.arange(3.0)}) as kept:
        kept.keep("a", [np.array(1)])
    other = {"data": np.arange(3.0) + 1e-15}
    with pytest.raises(ValueError, match="was written for other maps"):
        Checkpoint(tmp_path / "x", other, of="maps")
    assert Checkpoint(tmp_path / "x", other, resume=False).state("a", None) is None
    with pytest.raises(ValueError, match="there is no folder"):
        Checkpoint(tmp_path / "nowhere" / "x", other)
