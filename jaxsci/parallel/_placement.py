"""Which devices take what: the one meaning of `mesh=` for lanes, pixels and rows, and later particles and chains.

Work comes in chunks whose size depends on nothing but the work itself, and the devices of the mesh take the chunks in
turn. So the bits of an answer do not depend on how many devices there are, and no device waits for another within a
chunk, as it would if one program were spread over all of them and looped until its slowest part is done.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar

import jax

from ..core import Tree

Item = TypeVar("Item")
Result = TypeVar("Result")


class Placement(NamedTuple):
    """The devices that take chunks of work in turn; none for the default device."""

    devices: tuple[jax.Device, ...] = ()

    @staticmethod
    def of(mesh: jax.sharding.Mesh | None) -> "Placement":
        """All devices of a mesh, whatever its shape; `None` for the default device."""
        return Placement(() if mesh is None else tuple(mesh.devices.flat))

    def put(self, k: int, tree: Tree) -> Tree:
        """The arrays of chunk k, on the device whose turn it is; as they are without devices."""
        return jax.device_put(tree, self.devices[k % len(self.devices)]) if self.devices else tree

    def spread(
        self, items: Iterable[Item], work: Callable[[Item], Result], done: Callable[[Item, Result], None]
    ) -> None:
        """work(item) of all items, each device with a thread that takes the next one as soon as it is free.

        `done(item, result)` is called for one item at a time, in whatever order they come. What either of them raises
        is raised here, after the items under way have come to their end.
        """
        rest, lock, stop = iter(items), threading.Lock(), threading.Event()

        def take(device: jax.Device | None) -> None:
            while not stop.is_set():
                with lock:
                    item = next(rest, stop)
                if isinstance(item, threading.Event):
                    return
                with jax.default_device(device):
                    result = work(item)
                with lock:
                    done(item, result)

        if len(self.devices) < 2:
            take(self.devices[0] if self.devices else None)
            return
        with ThreadPoolExecutor(len(self.devices)) as pool:
            try:
                futures = [pool.submit(take, device) for device in self.devices]
                wait(futures, return_when=FIRST_EXCEPTION)  # whichever fails, the others take no more
            finally:
                stop.set()
            for future in futures:
                future.result()
