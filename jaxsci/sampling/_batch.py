"""The posteriors of a batch: many members' draws in few arrays, each of which is a `Posterior` when it is asked for.

Members that no posterior could be drawn of are there as well, with the reason: their draws are NaN. `sample` makes one
of what `fit_batch` answered.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from ..core import Module, as_array
from ..fitting import DataFrame, Solution, frame
from ._check import Checked, Criteria
from ._evidence import JOINT, Drawn, Evidence, evidence_of, nothing_known
from ._kernel import Trace
from ._pose import members_of
from ._posterior import Posterior


class Group(NamedTuple):
    """Members of one structure, whose arrays lead with them.

    - `members`: their places in the batch. `start`, `data`: what was sampled. `first`, `trace`: their chains.
    - `max_tree_depth`, `free_scale`, `joint`: as in a `Posterior`.
    """

    members: np.ndarray
    start: Solution
    data: PyTree
    first: np.ndarray
    trace: Trace
    max_tree_depth: int
    free_scale: bool
    joint: bool = False


class BatchPosterior(Module):
    """The posteriors of the members of a batch, in input order: index it, or iterate over it.

    - `groups`: members of one structure each. `size`: of the batch.
    - `refused`: {member: why} of those that have no posterior; their draws are NaN.
    - `errors`: {member: why} of those that could not be fitted at all, and have none.
    """

    groups: tuple[Group, ...]
    size: int
    refused: dict[int, str]
    errors: dict[int, str]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> Posterior:
        i = range(self.size)[i]
        if i in self.errors:
            raise ValueError(f"member {i} has no posterior: {self.errors[i]}")
        for group in self.groups:
            at = np.flatnonzero(group.members == i)
            if len(at):
                return _posterior(group, int(at[0]), self.refused.get(i, ""))
        raise IndexError(i)

    def __iter__(self) -> Iterator[Posterior]:
        return (self[i] for i in range(self.size))

    def table(self) -> dict[str, np.ndarray]:
        """Columns over all members, which `pandas.DataFrame` takes as they are: `name` and `name_sd`, and the chains'.

        `refused` in words, `divergences`, the largest `r_hat`, the least `ess_bulk` and `ess_tail`; NaN where a member
        has no such parameter, or no posterior.
        """
        columns = {"refused": np.array([self.refused.get(i, self.errors.get(i, "")) for i in range(self.size)], object)}
        for i in range(self.size):
            if i in self.refused or i in self.errors:
                continue
            one = self[i]
            found = one.summary()
            new = {"divergences": float(one.divergences), "r_hat": float(np.max(found["r_hat"]))}
            new |= {name: float(np.min(found[name])) for name in ("ess_bulk", "ess_tail")}
            for k, name in enumerate(found["name"]):
                new |= {name: float(found["mean"][k]), f"{name}_sd": float(found["sd"][k])}
            for name, value in new.items():
                columns.setdefault(name, np.full(self.size, np.nan))[i] = value
        return columns

    def to_pandas(self) -> DataFrame:
        """The `table` as a DataFrame, a row for each member.

        **Raises:** `ImportError` without pandas.
        """
        return frame(self.table(), "member")

    def check(self, criteria: Criteria = Criteria()) -> dict[int, Checked]:
        """{member: what `Posterior.check` found} of all members that could be fitted, the refused among them."""
        return {i: self[i].check(criteria) for i in range(self.size) if i not in self.errors}

    def log_evidence(self, key: Array) -> Evidence:
        """ln Z of all members, as `Posterior.log_evidence` has it of one; NaN for those that have no posterior.

        **Arguments:** `key`: of JAX's random numbers.

        **Raises:** `ValueError` as there, and for members that share parameters, whose posterior is one.
        """
        found = nothing_known(self.size)
        gone = self.refused | self.errors
        for group in self.groups:
            if group.joint:
                raise ValueError(JOINT)
            here = np.flatnonzero([int(m) not in gone for m in group.members])
            if len(here):
                start, data, trace, places = members_of((group.start, group.data, group.trace, group.members), here)
                new = evidence_of(Drawn(start, data, trace, places, group.free_scale), key)
                found = jtu.tree_map(lambda x, y, at=places: x.at[at].set(y), found, new)
        return found

    def __repr__(self) -> str:
        drawn = self.size - len(self.refused) - len(self.errors)
        chains = self.groups[0].first.shape[1] if self.groups else 0
        lines = [f"Posteriors of {drawn} of {self.size} members, {chains} chains each"]
        lines += [f"member {i} was refused: {why}" for i, why in sorted((self.refused | self.errors).items())]
        return "\n".join(lines)


def _posterior(group: Group, at: int, refused: str) -> Posterior:
    start, data, first, trace = jtu.tree_map(
        lambda x: as_array(np.asarray(x)[at]), (group.start, group.data, group.first, group.trace)
    )
    return Posterior(
        start=start, data=data, draws=trace.y, first=first, **{k: v for k, v in trace._asdict().items() if k != "y"},
        max_tree_depth=group.max_tree_depth, free_scale=group.free_scale, refused=refused, joint=group.joint,
    )  # fmt: skip


def nothing_drawn(count: int, chains: int, draws: int, like: Any) -> tuple[np.ndarray, Trace]:
    """(first, trace) of members that were refused: NaN, no divergence, no step."""
    real = np.dtype(jnp.result_type(float))
    p = like.shape[-1]
    # an array of its own for each: the draws are written into them
    density, energy, accepted = (np.full((count, chains, draws), np.nan, real) for _ in range(3))
    steps = np.zeros((count, chains, draws), np.int32)
    y = np.full((count, chains, draws, p), np.nan, like.dtype)
    trace = Trace(y, density, energy, steps.astype(bool), steps, accepted)
    return np.full((count, chains, p), np.nan, like.dtype), trace
