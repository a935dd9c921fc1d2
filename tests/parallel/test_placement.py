"""Work shared by devices: every item once, the results one at a time, whatever the number of devices."""

import threading
import time

import jax
import numpy as np
import pytest

from jaxsci.parallel import Placement

SEVERAL = Placement((jax.devices()[0],) * 3)


def test_a_mesh_of_any_shape_is_its_devices():
    device = jax.devices()[0]
    mesh = jax.sharding.Mesh(np.array([[device]]), ("a", "b"))
    assert Placement.of(mesh).devices == (device,)
    assert Placement.of(None).devices == ()


@pytest.mark.parametrize("placement", [Placement(), SEVERAL], ids=["alone", "three"])
def test_every_item_is_done_once_and_results_come_one_at_a_time(placement):
    lock, found = threading.Lock(), {}

    def done(item, result):
        assert lock.acquire(blocking=False)
        assert item not in found
        found[item] = result
        lock.release()

    placement.spread(range(50), lambda k: k * k, done)
    assert found == {k: k * k for k in range(50)}


@pytest.mark.parametrize("placement", [Placement(), SEVERAL], ids=["alone", "three"])
@pytest.mark.parametrize("where", ["work", "done"])
def test_an_error_ends_the_work(placement, where):
    begun = []

    def fail(item, *_):
        if item == 3:
            raise OSError("disk full")

    def work(item):
        begun.append(item)
        time.sleep(1e-3)  # as work does that lets other threads run; without it one may be done before another begins
        if where == "work":
            fail(item)

    with pytest.raises(OSError, match="disk full"):
        placement.spread(range(1000), work, fail if where == "done" else lambda *_: None)
    assert len(begun) < 100


def test_chunks_go_to_the_devices_in_turn():
    tree = {"a": np.arange(3)}
    assert Placement().put(5, tree) is tree
    assert SEVERAL.put(5, tree)["a"].devices() == {jax.devices()[0]}
