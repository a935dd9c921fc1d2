"""Processes that work together, on one machine or many: how they find each other, and how they tell each other things.

JAX's own distributed runtime is the engine: SLURM, Kubernetes or three environment variables say who belongs together.
A script calls `start_hosts` before anything else and gives `mesh()` to what it runs; `Placement` and the command line
use `exchange`, by which all processes get what each of them has found.
"""

import dataclasses
import math
import os
import struct
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..core import AnyArray, Tree

_LENGTH = struct.Struct("<Q")
_FINE, _LOST = b"+", b"-"
_PIECE = 1 << 24  # bytes told at a time: each process holds one of all others
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes that work together. `rank`: this one's number, from 0 on. `count`: how many there are."""

    rank: int
    count: int

    @staticmethod
    def here() -> "Hosts":
        """As they are now: one alone unless `start_hosts` was called."""
        return Hosts(jax.process_index(), jax.process_count())


def start_hosts() -> Hosts:
    """Start this process as one of several, before anything is computed; called again it changes nothing.

    Who belongs together is said by SLURM (`srun -n 2 python fit.py`), by an indexed job of Kubernetes (with the package
    `kubernetes`), by Open MPI, or by the environment variables `JAX_COORDINATOR_ADDRESS` (a host and a free port of
    process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` of each process. It waits until all of them are there.

    **Raises:** `RuntimeError` where nothing says so, where JAX has computed before, and where others do not come.
    """
    if not jax.distributed.is_initialized():
        address, count, number = map(os.environ.get, _VARIABLES)
        if address is not None and (count is None or number is None):
            missing = _VARIABLES[1] if count is None else _VARIABLES[2]
            raise RuntimeError(f"{_VARIABLES[0]} is set, but {missing} is not: set all of {', '.join(_VARIABLES)}")
        try:
            jax.distributed.initialize(address, _whole(count), _whole(number))
        except ValueError as error:  # JAX found none of the environments that it knows, or wrong numbers
            raise RuntimeError(
                f"these processes do not know of each other ({error}): start them by `srun -n N`, as an indexed job of "
                f"Kubernetes, by `mpirun`, or with {', '.join(_VARIABLES)} set for each"
            ) from error
    return Hosts.here()


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)


def mesh() -> jax.sharding.Mesh:
    """All devices of all processes, as `mesh=` takes them everywhere.

    **Returns:** a Mesh of one axis, `devices`.
    """
    auto = (jax.sharding.AxisType.Auto,)  # the default would have every array say where it lies
    return jax.make_mesh((jax.device_count(),), ("devices",), axis_types=auto, devices=jax.devices())


def exchange(payload: bytes) -> list[bytes]:
    """Tell all processes something: what each of them has told, in the order of their numbers.

    All processes have to call this equally often, and wait in it for the last of them.

    **Raises:** `RuntimeError` where one of them has ended.
    """
    if jax.process_count() == 1:
        return [payload]
    sizes = [_LENGTH.unpack(told)[0] for told in _gathered(_LENGTH.pack(len(payload)))]
    parts: list[list[bytes]] = [[] for _ in sizes]
    for at in range(0, max(sizes), _PIECE):
        # one of few lengths, so that few programs are compiled
        room = min(_PIECE, 1 << max(math.ceil(math.log2(max(sizes) - at)), 10))
        for part, told in zip(parts, _gathered(payload[at : at + room].ljust(room, b"\0")), strict=True):
            part.append(told)
    return [b"".join(part)[:size] for part, size in zip(parts, sizes, strict=True)]


def together(work: Callable[[], bytes]) -> list[bytes]:
    """What `work()` gives in each of the processes, told to all of them in the order of their numbers.

    **Raises:** what `work` raises; `RuntimeError` in those processes that were fine where another one was not, because
    they would wait for it for ever.
    """
    said: bytes | None = None
    try:
        said = _FINE + work()
    finally:
        told = exchange(said or _LOST)
    for rank, each in enumerate(told):
        if each[:1] == _LOST:
            raise RuntimeError(f"process {rank} of {len(told)} failed, and without its part this one cannot go on")
    return [each[1:] for each in told]


def laid_out(tree: Tree, mesh: jax.sharding.Mesh, spec: jax.sharding.PartitionSpec) -> Any:
    """The arrays of a tree, which all processes have alike, on the devices of a mesh that are in any of them."""
    sharding = jax.sharding.NamedSharding(mesh, spec)

    def lay(x: AnyArray) -> jax.Array:
        values = np.asarray(x)
        return jax.make_array_from_callback(values.shape, sharding, lambda at: values[at])

    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jtu.tree_map(lay, arrays), rest)


def brought_home(tree: Tree) -> Any:
    """The arrays of a tree, which devices of all processes have parts of, whole on this process's default device."""
    from jax.experimental import multihost_utils

    def bring(x: Any) -> Any:
        if not isinstance(x, jax.Array) or (x.is_fully_addressable and len(x.devices()) == 1):
            return x
        if x.is_fully_replicated:
            return jnp.asarray(np.asarray(x.addressable_data(0)))
        whole = np.asarray(x) if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True)
        return jnp.asarray(whole)

    return jtu.tree_map(bring, tree)


def _gathered(payload: bytes) -> list[bytes]:
    """The same for payloads of one length.

    **Raises:** `RuntimeError` where another process has ended; what JAX makes of that may look like a wrong argument.
    """
    from jax.experimental import multihost_utils

    try:
        each = multihost_utils.process_allgather(np.frombuffer(payload, np.uint8))
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        raise RuntimeError(
            f"another process does not answer any more ({error}): see what it said, and start all of them again; they "
            "go on from their checkpoints"
        ) from error
    return [np.asarray(told).tobytes() for told in each]
