"""What `jaxsci check` finds in a job that could be built: fits that would end before their first step, and why."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from ..datasets import StreamedDataset
from ..fitting import fit, foresee, foresee_one
from ._build import Member
from ._errors import CLASS_ERRORS, ConfigError
from ._run import SUCCESSFUL, explained, group, result_of


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a fit would end before its first step. `result`: its name in `jaxsci.RESULTS`, or `refused`."""

    result: str
    message: str


def refusals(members: Sequence[Member]) -> dict[int, Refusal]:
    """The members, by their places, whose fits would end before their first step.

    **Raises:** `ConfigError` where a fit cannot be traced, as the run would.
    """
    found: dict[int, Refusal] = {}
    for places in group(members):
        same = [members[place] for place in places]
        try:
            _trace(same[0])
            values = _foreseen(same)
        except CLASS_ERRORS as error:
            raise ConfigError(same[0].name, str(error).strip().split("\n")[0]) from error
        for place, member, value in zip(places, same, values.tolist(), strict=True):
            code = result_of(value)
            if code != SUCCESSFUL:
                found[place] = Refusal(code, explained(value, member))
    return dict(sorted(found.items()))


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
