"""The derivatives of all residuals with all free parameters, a row for each parameter.

A pulsar has a hundred free parameters, but most of them are steps: a DMX or a JUMP applies to some TOAs and not to
others, and all of its kind act on the residual in the same way. One derivative serves all of them. `AbstractTimed` is
what this needs of a model; anchored TOAs call `linearised` whenever a fit asks for derivatives.
"""

import abc
from typing import Any, Generic, TypeVar

import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.tree_util as jtu
from jax import lax
from jaxtyping import Array, Float, PyTree

from ..core import Module
from ..datasets import AbstractDataset

Data = TypeVar("Data", bound=AbstractDataset)


class AbstractTimed(Module, Generic[Data]):
    """A model of residuals, some of whose parameters step between rows."""

    @abc.abstractmethod
    def residual(self, toas: Data) -> Float[Array, " n"]:
        """Timing residuals, s; of rows that measure dispersion pc cm^-3."""

    @abc.abstractmethod
    def steps(self, toas: Data) -> dict[str, Float[Array, " n"]]:
        """What each TOA gets from parameters that step between rows, by the name of their leaf; see `tables`."""

    @abc.abstractmethod
    def tables(self, toas: Data) -> dict[str, Float[Array, "w n"]]:
        """The derivatives of `steps` with the elements of those leaves."""

    @abc.abstractmethod
    def residual_of(self, steps: dict[str, Float[Array, " n"]], toas: Data) -> Float[Array, " n"]:
        """`residual`, with what `steps` gave."""


def linearised(model: AbstractTimed[Data], free: PyTree, toas: Data) -> tuple[Float[Array, " n"], Float[Array, "q n"]]:
    """(residuals, their derivatives with each element of the free leaves) at anchored TOAs.

    Windows of DMX and JUMPs, most of what a fit frees, share a column: the derivative with what all of them add to a
    TOA. Each has it in the rows where it applies. A tangent for each would read and write all numbers between the
    parameters and the residuals a hundred times.

    **Arguments:**

    - `model`: a `TimingModel`.
    - `free`: a tree of the same structure, `None` where a leaf is not free.
    """
    steps, tables = model.steps(toas), model.tables(toas)
    leaves = jtu.tree_leaves(model)
    structure: Any = jtu.tree_structure(model)
    names = [jtu.keystr(path, simple=True, separator=".") for path, _ in jtu.tree_leaves_with_path(model)]
    spots = dict(zip(names, structure.flatten_up_to(free), strict=True))
    start = {name: leaf for name, leaf in zip(names, leaves, strict=True) if spots[name] is not None and leaf.size}
    shared = [name for name in start if name in steps]
    own = [name for name in start if name not in steps]
    theta, unravel = jfu.ravel_pytree([start[name] for name in own])

    def residual(theta: Array, moving: list[Array]) -> Array:
        fresh = dict(zip(own, unravel(theta), strict=True))
        there = structure.unflatten([fresh.get(name, leaf) for name, leaf in zip(names, leaves, strict=True)])
        return there.residual_of(steps | dict(zip(shared, moving, strict=True)), toas)

    # linearised once: what does not depend on the tangents is computed once for all of them
    value, push = jax.linearize(residual, theta, [steps[name] for name in shared])

    def column(unit: Array) -> Array:
        return push(unit[: theta.size], [jnp.full_like(value, unit[theta.size + k]) for k in range(len(shared))])

    # a loop, whose results XLA must write down: it would compute every sine anew for each tangent that uses them
    columns = lax.map(column, jnp.eye(theta.size + len(shared), dtype=value.dtype))
    rows, at = [], 0
    for name, leaf in start.items():
        if name in steps:
            rows.append(tables[name] * columns[theta.size + shared.index(name)][None, :])
        else:
            rows.append(columns[at : at + leaf.size])
            at += leaf.size
    return value, jnp.concatenate(rows)
