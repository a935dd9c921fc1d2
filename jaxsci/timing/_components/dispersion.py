"""Cold plasma on the way: the dispersion measure, its polynomial in time and its steps.

Free electrons delay radio waves by K DM / nu^2, DM being their column density. It changes as the line of sight moves
through the interstellar medium; par files describe that by a polynomial (DM, DM1, ...), by a step for each window of
time (DMX), or both, which then add up. Wideband data measure DM with each TOA, and receivers may be off by a DMJUMP.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...core import Module, numbers, param
from .._constants import K_DM, YEAR
from ._line import FROM_ONE, KEYED, MASKED, READ, RECORD, SERIES, Component, Entry, Par
from ._read import values_of


class DispersionDM(Module):
    """DM(t) = sum_k DM_k t^k / k!, t in years from DMEPOCH.

    `DM`: offsets from `DM_ref`, shape (d,), pc cm^-3 / yr^k.
    """

    DM: Float[Array, " d"] = param(unit="pc cm^-3")
    DM_ref: Float[Array, " d"] = numbers()

    @staticmethod
    def from_par(par: Par) -> "DispersionDM":
        """DM, DM1, ... of a par file."""
        return DispersionDM(*values_of(par, _DM.elements(par)))

    def measure(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Compute the dispersion measure, pc cm^-3, at `time`, seconds after DMEPOCH, shape (n,)."""
        terms = self.DM + self.DM_ref
        # Horner's scheme, with the factorials on the way
        years, total = time / YEAR, jnp.zeros_like(time)
        for k in range(terms.shape[0] - 1, -1, -1):
            total = total * years / (k + 1) + terms[k]
        return total


class DispersionDMX(Module):
    """Steps of the dispersion measure, one for each window of time.

    `DMX`: offsets from `DMX_ref`, shape (w,), pc cm^-3.
    """

    DMX: Float[Array, " w"] = param(unit="pc cm^-3")
    DMX_ref: Float[Array, " w"] = numbers()

    @staticmethod
    def from_par(par: Par) -> "DispersionDMX":
        """The windows of a par file, in rising order of their numbers; of length 0 without any."""
        return DispersionDMX(*values_of(par, windows(par)))

    def measure(self, index: Int[Array, "n k"]) -> Float[Array, " n"]:
        """Add up the steps of each TOA's windows, pc cm^-3; `index`, shape (n, k), counts them from 1, 0 for none."""
        return steps(self.DMX + self.DMX_ref, index)


class DispersionJump(Module):
    """Offsets of measured dispersion between receivers, for wideband data; they cause no delay.

    `DMJUMP`: offsets from `DMJUMP_ref`, shape (j,), pc cm^-3.
    """

    DMJUMP: Float[Array, " j"] = param(unit="pc cm^-3")
    DMJUMP_ref: Float[Array, " j"] = numbers()

    @staticmethod
    def from_par(par: Par) -> "DispersionJump | None":
        """The DMJUMPs of a par file; `None` without any."""
        names = _DMJUMP.elements(par)
        return DispersionJump(*values_of(par, names)) if names else None

    def measure(self, masks: Float[Array, "n j"]) -> Float[Array, " n"]:
        """What they add to the model's dispersion measure: minus DMJUMP, as PINT has it."""
        return -(masks @ (self.DMJUMP + self.DMJUMP_ref))


def steps(values: Float[Array, " w"], index: Int[Array, "n k"]) -> Float[Array, " n"]:
    """The values of each TOA's windows, added up; `index` counts them from 1, 0 for none."""
    # a 0 in front for TOAs in no window: an index costs less than a branch
    return jnp.sum(jnp.concatenate([jnp.zeros(1, values.dtype), values])[index], axis=1)


def inside(values: Float[Array, " w"], index: Int[Array, "n k"]) -> Float[Array, "w n"]:
    """The derivatives of `steps`: 1 where a TOA is in the window."""
    each = index[None, :, :] == jnp.arange(1, values.shape[0] + 1)[:, None, None]
    return jnp.any(each, axis=2).astype(values.dtype)


def dispersion_delay(measure: Float[Array, " n"], frequency: Float[Array, " n"]) -> Float[Array, " n"]:
    """Compute K DM / nu^2, s; DM in pc cm^-3, nu the barycentric frequency in MHz, both of shape (n,).

    K is 1 / 2.41e-4 by convention: Taylor, Manchester and Lyne 1993, ApJS 88.
    """
    return K_DM * measure / (frequency * frequency)


def windows(par: Par) -> tuple[str, ...]:
    """Names of a par file's DMX windows in rising order, such as `DMX_0001`."""
    return _DMX.elements(par)


def in_windows(par: Par, names: tuple[str, ...], utc: np.ndarray) -> np.ndarray:
    """The windows that each TOA is in, counted from 1; 0 for none.

    **Arguments:** `names`: of windows of DMX or of CMX, whose ends are DMXR1 and DMXR2 of the same number; `utc`: MJD
    (UTC) of the TOAs, shape (n,).

    **Returns:** shape (n, k), k the most windows that any TOA is in, at least 1: those that overlap add up, as in PINT.

    **Raises:** `ValueError` for a window without ends.
    """
    inside = np.zeros((len(utc), 0), bool)
    if names:
        ends = [[float(par.value(name.replace("_", f"R{k}_"), None)) for k in (1, 2)] for name in names]
        low, high = np.array(ends).T
        inside = (utc[:, None] >= low) & (utc[:, None] <= high)
    count = int(inside.sum(axis=1).max(initial=1))
    index = np.zeros((len(utc), count), np.int64)
    rows, found = np.nonzero(inside)
    first = np.searchsorted(rows, rows)  # rows rise: where each one starts
    index[rows, np.arange(len(rows)) - first] = found + 1
    return index


_DM = Entry("DM", SERIES, power=-1)
_DMX = Entry("DMX_", KEYED, power=-1)
_DMJUMP = Entry("DMJUMP", FROM_ONE, READ, MASKED)
DISPERSION = Component("dispersion", (_DM, Entry("DMEPOCH", role=READ, epoch=True)), DispersionDM.from_par)
DMX = Component(
    "dmx",
    (
        _DMX,
        Entry("DMXR1_", KEYED, READ, by="DMX_", epoch=True),
        Entry("DMXR2_", KEYED, READ, by="DMX_", epoch=True),
        Entry("DMX", role=RECORD),
        *(Entry(name, KEYED, RECORD) for name in ("DMXEP_", "DMXF1_", "DMXF2_")),
    ),
    DispersionDMX.from_par,
)
DM_JUMP = Component("dm_jump", (_DMJUMP,), DispersionJump.from_par)
