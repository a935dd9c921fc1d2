"""What `jaxsci check` finds in a job that could be built: fits that would end before their first step, and why.

A fit that cannot be traced, or whose data, noise or start a solver would refuse, is found without fitting anything, and
ends with the same words as the run would end it. The task calls `refusals`.
"""

from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ...datasets import StreamedDataset
from ...fitting import AbstractTrustSolver, fit, foresee, foresee_one
from ...runs import CLASS_ERRORS, SUCCESSFUL, ConfigError, Refusal, first_line
from ...runs.fits import result_of
from .build import Member
from .run import explained, group


def refusals(members: Sequence[Member]) -> dict[int, Refusal]:
    """Find the members, by their places, whose fits would end before their first step.

    **Raises:** `ConfigError` where a fit cannot be traced, as the run would.
    """
    found: dict[int, Refusal] = {}
    traced: set[Hashable] = set()
    for places in group(members):
        same = [members[place] for place in places]
        try:
            if (whole := _steps(same[0])) not in traced:
                _trace(same[0])
                traced.add(whole)
            values = _foreseen(same)
        except CLASS_ERRORS as error:
            raise ConfigError(same[0].name, first_line(error)) from error
        for place, member, value in zip(places, same, values.tolist(), strict=True):
            code = result_of(value)
            if code != SUCCESSFUL:
                found[place] = Refusal(code, explained(value, member))
    return dict(sorted(found.items()))


def _steps(member: Member) -> Hashable:
    """Equal for members whose fits differ in nothing but their models, as far as the solver's steps go.

    Tracing the steps takes a second and more. Our solvers see of a model no more than its linearisation, which
    `foresee` traces anyway: one fit stands for all with the same settings and the same kind of data. What a solver from
    elsewhere asks of a model, as its gradient or its Hessian, is not known: each model is traced.
    """
    if not isinstance(member.settings.solver, AbstractTrustSolver):
        return member.kind
    leaves, structure = jtu.tree_flatten(member.data)
    return member.settings.key, structure, tuple(jnp.result_type(leaf) for leaf in leaves)


def _trace(member: Member) -> None:
    """All that a fit does, but for the numbers."""
    data = member.data if member.sample is None else member.sample
    jax.eval_shape(lambda m, d: fit(m, d, throw=False, **member.settings.arguments()), member.model, data)


def _foreseen(same: Sequence[Member]) -> np.ndarray:
    chosen = same[0].settings
    how = {key: value for key, value in chosen.arguments().items() if key not in ("max_steps", "scale_covariance")}
    if isinstance(same[0].data, StreamedDataset):
        return np.array([foresee_one(member.model, member.data, **how) for member in same])
    return foresee([member.model for member in same], [member.data for member in same], **how)
