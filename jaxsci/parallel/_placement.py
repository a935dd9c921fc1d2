"""Which devices take what: the one meaning of `mesh=` for members, chains, pixels, blocks and rows.

Work comes in chunks whose size depends on nothing but the work itself, and the devices of the mesh take the chunks in
turn, also those of other processes. So the bits of an answer do not depend on how many devices there are, and no device
waits for another within a chunk, as it would if one program were spread over all of them and looped until its slowest
part is done. Processes tell each other what they have found when all is done, so that each of them has the whole.
"""

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import jax.tree_util as jtu
import numpy as np

from ..core import Tree, require_kind
from ._hosts import Hosts, together

Item = TypeVar("Item")
Result = TypeVar("Result")


class Placement(NamedTuple):
    """The devices that take chunks of work in turn; none for the default device."""

    devices: tuple[jax.Device, ...] = ()

    @staticmethod
    def of(mesh: jax.sharding.Mesh | None) -> "Placement":
        """All devices of a mesh, whatever its shape; `None` for the default device.

        **Raises:** `ValueError` for a mesh of some of the processes only, in which the others would wait for ever.
        """
        if mesh is not None:
            require_kind(mesh, jax.sharding.Mesh, "mesh", "devices, as jaxsci.mesh() gives them, or None")
        devices = () if mesh is None else tuple(mesh.devices.flat)
        hosts = Hosts.here()
        there = {device.process_index for device in devices}
        if there and there != {hosts.rank} and there != set(range(hosts.count)):
            raise ValueError(
                f"the mesh has devices of the processes {sorted(there)}, but {hosts.count} were started: give "
                "mesh=jaxsci.mesh() in all of them"
            )
        return Placement(tuple(sorted(devices, key=lambda device: device.process_index)))

    @property
    def own(self) -> tuple[jax.Device, ...]:
        """The devices of this process."""
        return tuple(device for device in self.devices if device.process_index == jax.process_index())

    @property
    def local(self) -> "Placement":
        """The same of this process alone."""
        return Placement(self.own)

    @property
    def dealing(self) -> tuple[int, ...]:
        """The process of each device, where there are several processes: what a checkpoint belongs to, beside the work.

        Empty for one process, whose devices change nothing.
        """
        each = tuple(device.process_index for device in self.devices)
        return each if len(set(each)) > 1 else ()

    def put(self, k: int, tree: Tree) -> Tree:
        """The arrays of chunk k of this process, on the device whose turn it is; as they are without devices."""
        own = self.own
        return jax.device_put(tree, own[k % len(own)]) if own else tree

    def file(self, path: str | os.PathLike[str]) -> Path:
        """The file in which this process keeps its part of the work: with its number where there are several."""
        path, hosts = Path(path), Hosts.here()
        return path.with_name(f"{path.name}.{hosts.rank}-of-{hosts.count}") if self.dealing else path

    def by_first(self, work: Callable[[], np.ndarray]) -> np.ndarray:
        """An array that the first process alone finds, in all of them: what is on disk is its affair."""
        if not self.dealing:
            return work()
        return _unpacked(together(lambda: b"" if jax.process_index() else _packed([work()]))[0])[0]

    def share(self, count: int, size: int) -> np.ndarray:
        """Which of so many members this process works on, dealt out in chunks of `size`: all for one process.

        Who has nothing to do works on the first chunk too: it then knows the form of an answer.
        """
        mine = np.flatnonzero(self._owners(count, size) == jax.process_index()) if self.dealing else np.arange(count)
        return mine if len(mine) else np.arange(min(count, size))

    def in_shares(self, count: int, size: int, work: Callable[[np.ndarray], Result], axis: int = 0) -> Result:
        """work(members) of all `count` members, of which each process works on its `share`.

        **Arguments:** `work`: gives a tree of arrays, which have the members it was given along `axis`. What it raises
        in one process is an error in all of them.

        **Returns:** what it would give for all members, in every process.
        """
        mine = self.share(count, size)
        if not self.dealing:
            return work(mine)
        found: list[Result] = []

        def part() -> bytes:
            found.append(work(mine))
            return _packed([np.moveaxis(np.asarray(leaf), axis, 0) for leaf in jtu.tree_leaves(found[0])])

        told = [_unpacked(each) for each in together(part)]
        structure, owners = jtu.tree_structure(found[0]), self._owners(count, size)
        out = [np.empty((count, *one.shape[1:]), one.dtype) for one in told[jax.process_index()]]
        for rank, leaves in enumerate(told):
            at = np.flatnonzero(owners == rank)
            for whole, values in zip(out, leaves, strict=True):
                whole[at] = values[: len(at)]  # none of a first chunk that was done for its form
        return jtu.tree_unflatten(structure, [np.moveaxis(whole, 0, axis) for whole in out])

    def _owners(self, count: int, size: int) -> np.ndarray:
        """The process of each member."""
        return np.array(self.dealing)[np.arange(count) // size % len(self.devices)]

    def spread(
        self, items: Iterable[Item], work: Callable[[Item], Result], done: Callable[[Item, Result], None]
    ) -> None:
        """work(item) of all items, each device with a thread that takes the next one as soon as it is free.

        `done(item, result)` is called for one item at a time, in whatever order they come. What either of them raises
        is raised here, after the items under way have come to their end.

        Several processes take an item for each of their devices, tell each other the results, trees of arrays, and
        call `done` for all of them in every process before they take the next: memory holds what is in one such round.
        """
        if not self.dealing:
            self._spread(items, work, done)
            return
        queue, size, form = list(items), len(self.devices), list[jtu.PyTreeDef]()
        waiting: list[tuple[Item, Result]] = []  # what all processes were told, and `done` was not
        for at in range(0, len(queue) + size, size):  # after the last round comes one without work
            each = list(zip(queue[at : at + size], self.dealing, strict=False))
            mine = [k for k, (_, rank) in enumerate(each) if rank == jax.process_index()]

            def part(
                each: list[tuple[Item, int]] = each,
                mine: list[int] = mine,
                waiting: list[tuple[Item, Result]] = waiting,
            ) -> bytes:
                for item, result in waiting:
                    done(item, result)
                found: dict[int, Result] = {}
                some = mine if mine or form else range(min(len(each), 1))  # who has none learns the form of a result
                self._spread(some, lambda k: work(each[k][0]), found.__setitem__)
                form.extend(jtu.tree_structure(result) for result in found.values())
                return _packed([leaf for k in mine for leaf in jtu.tree_leaves(found[k])])

            told = [iter(_unpacked(one)) for one in together(part)]
            waiting = []
            for item, rank in each:
                leaves = [next(told[rank]) for _ in range(form[0].num_leaves)]
                waiting.append((item, jtu.tree_unflatten(form[0], leaves)))

    def _spread(
        self, items: Iterable[Item], work: Callable[[Item], Result], done: Callable[[Item, Result], None]
    ) -> None:
        """The same within this process."""
        rest, lock, stop = iter(items), threading.Lock(), threading.Event()

        def take(device: jax.Device | None) -> None:
            while not stop.is_set():
                with lock:
                    item = next(rest, stop)
                if isinstance(item, threading.Event):
                    return
                with contextlib.nullcontext() if device is None else jax.default_device(device):
                    result = work(item)
                with lock:
                    done(item, result)

        own = self.own
        if len(own) < 2:
            take(own[0] if own else None)
            return
        with ThreadPoolExecutor(len(own)) as pool:
            try:
                futures = [pool.submit(take, device) for device in own]
                wait(futures, return_when=FIRST_EXCEPTION)  # whichever fails, the others take no more
            finally:
                stop.set()
            for future in futures:
                future.result()


def _packed(arrays: Sequence[Tree]) -> bytes:
    """Arrays as bytes, with their shapes and types."""
    buffer = io.BytesIO()
    for array in arrays:
        np.save(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def _unpacked(content: bytes) -> list[np.ndarray]:
    """The arrays that `_packed` made bytes of."""
    buffer, out = io.BytesIO(content), []
    while buffer.tell() < len(content):
        out.append(np.load(buffer, allow_pickle=False))
    return out
