"""Fits the members of a job: like ones as one batch, with the compilations side by side."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu

from ..core import stack
from ..fitting import RESULTS, Solution, fit
from ..fitting._diagnose import explain
from ._build import Member
from ._errors import CLASS_ERRORS, ConfigError

_RESULTS = (
    "successful",
    "max_steps_reached",
    "nonfinite_data",
    "bad_noise",
    "nonfinite_start",
    "stalled",
    "empty",
    "solver_failed",
)

# Compiling takes a fourth of the time so, and a run over few rows takes milliseconds either way.
_QUICK: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": "0"}
_FEW_ROWS = 20_000


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the fit of one member ended; without a solution where the run was stopped before it."""

    member: Member
    solution: Solution | None

    @property
    def success(self) -> bool:
        """True where the fit converged."""
        return self.solution is not None and bool(self.solution.success)

    @property
    def message(self) -> str:
        """Why the fit failed, naming array and row where that is known; empty after success."""
        if self.solution is None:
            return "The run was stopped before this fit."
        if self.success:
            return ""
        try:
            explain(self.solution, self.member.model, self.member.data, None)
        except (RuntimeError, ValueError) as error:
            hint = " In a config, omit_nonfinite = true masks them." if self.code == "nonfinite_data" else ""
            return f"{error}{hint}"

    @property
    def code(self) -> str:
        """The name of the result in `jaxsci.RESULTS`, or `not_run`."""
        if self.solution is None:
            return "not_run"
        return next(name for name in _RESULTS if self.solution.result == getattr(RESULTS, name))


def group(members: Sequence[Member]) -> list[list[int]]:
    """Places of the members that can be fitted as one batch: equal settings, structure, shapes and dtypes."""
    groups: dict[Any, list[int]] = {}
    for place, member in enumerate(members):
        leaves, structure = jtu.tree_flatten((member.model, member.data))
        kinds = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        groups.setdefault((member.settings.key, structure, kinds), []).append(place)
    return list(groups.values())


def fit_members(members: Sequence[Member]) -> Iterator[tuple[list[int], list[Solution]]]:
    """Fit all members; yields (places, solutions) of each group as it is done.

    Programs are compiled in threads, beside each other and beside the fits: XLA lets go of the interpreter.

    **Raises:** `ConfigError` where a model cannot be traced.
    """
    groups = group(members)
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        waiting = [(places, pool.submit(_compile, [members[place] for place in places])) for places in groups]
        for places, program in waiting:
            yield places, _run_batch([members[place] for place in places], program)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _batch(members: Sequence[Member]) -> tuple[Any, Any]:
    return stack([member.model for member in members]), stack([member.data for member in members])


def _compile(members: Sequence[Member]) -> Any:
    arguments = members[0].settings.arguments()

    def fit_one(model: Any, data: Any) -> Solution:
        return fit(model, data, throw=False, **arguments)

    lowered = jax.jit(jax.vmap(fit_one)).lower(*_batch(members))
    if not quick(members):
        return lowered.compile()
    try:
        return lowered.compile(compiler_options=_QUICK)
    except RuntimeError:  # an XLA that knows no such option
        return lowered.compile()


def quick(members: Sequence[Member]) -> bool:
    """True where optimising the program would take longer than it could save: few rows in all, on a CPU."""
    rows = sum(member.data.mask.shape[0] for member in members)
    return rows <= _FEW_ROWS and jax.default_backend() == "cpu"


def _run_batch(members: Sequence[Member], program: Future[Any]) -> list[Solution]:
    try:
        solutions = jax.device_get(program.result()(*_batch(members)))
    except CLASS_ERRORS as error:
        raise ConfigError(members[0].name, str(error).strip().split("\n")[0]) from error
    return jax.device_put([jtu.tree_map(lambda leaf, i=i: leaf[i], solutions) for i in range(len(members))])
