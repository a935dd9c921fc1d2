"""A `lax.scan` whose gradient remembers only the root of its steps, and computes the others again.

A reverse-mode gradient of a plain scan keeps what each step did: for a million particles and a thousand steps that is
more than a machine has. Here the steps are cut into blocks; only their beginnings are kept, and a block is run again
when its turn comes (Griewank 1992, with one level). Forward mode and plain runs cost what a scan costs.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.tree_util as jtu
from jax import lax

from ..core import Tree

Carry = TypeVar("Carry")
_FEW = 8  # steps that are not worth a second scan


def checkpointed_scan(
    step: Callable[[Carry, Tree], tuple[Carry, Tree]], carry: Carry, xs: Tree, length: int
) -> tuple[Carry, Tree]:
    """`lax.scan(step, carry, xs, length)`, whose gradient needs memory for about sqrt(length) carries.

    **Arguments:** as of `lax.scan`; `length` is that of `xs`.
    """
    size = _block(length)
    if size >= length:
        return lax.scan(step, carry, xs, length)
    blocks = length // size

    def block(carry: Carry, xs: Tree) -> tuple[Carry, Tree]:
        return lax.scan(step, carry, xs, size)

    cut = jtu.tree_map(lambda x: x[: blocks * size].reshape(blocks, size, *x.shape[1:]), xs)
    carry, ys = lax.scan(jax.checkpoint(block, prevent_cse=False), carry, cut, blocks)
    ys = jtu.tree_map(lambda y: y.reshape(blocks * size, *y.shape[2:]), ys)
    if blocks * size == length:
        return carry, ys
    carry, rest = lax.scan(step, carry, jtu.tree_map(lambda x: x[blocks * size :], xs), length - blocks * size)
    return carry, jtu.tree_map(lambda a, b: lax.concatenate([a, b], 0), ys, rest)


def _block(length: int) -> int:
    """The steps of a block: the divisor next to the root, if one is near, so that the step is compiled once."""
    if length <= _FEW:
        return length
    root = math.sqrt(length)
    near = [b for b in range(2, length) if length % b == 0 and root / 2.5 <= b <= 2.5 * root]
    return min(near, key=lambda b: abs(math.log(b / root))) if near else round(root)
