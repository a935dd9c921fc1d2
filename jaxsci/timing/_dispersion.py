"""Cold plasma on the way: the dispersion measure, its polynomial and its steps."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..core import Module, numbers, param
from ._constants import K_DM, YEAR


class DispersionDM(Module):
    """DM(t) = sum_k DM_k t^k / k!, t in years from DMEPOCH.

    `DM`: offsets from `DM_ref`, shape (d,), pc cm^-3 / yr^k.
    """

    DM: Float[Array, " d"] = param(unit="pc cm^-3")
    DM_ref: Float[Array, " d"] = numbers()

    def measure(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Dispersion measure at `time`, seconds after DMEPOCH."""
        terms = self.DM + self.DM_ref
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

    def measure(self, index: Int[Array, "n k"]) -> Float[Array, " n"]:
        """The steps of each TOA's windows, added up: `index`, shape (n, k), counts windows from 1, 0 for none."""
        return steps(self.DMX + self.DMX_ref, index)


class DispersionJump(Module):
    """Offsets of measured dispersion between receivers, for wideband data; they cause no delay.

    `DMJUMP`: offsets from `DMJUMP_ref`, shape (j,), pc cm^-3.
    """

    DMJUMP: Float[Array, " j"] = param(unit="pc cm^-3")
    DMJUMP_ref: Float[Array, " j"] = numbers()

    def measure(self, masks: Float[Array, "n j"]) -> Float[Array, " n"]:
        """What they add to the model's dispersion measure: minus DMJUMP, as PINT has it."""
        return -(masks @ (self.DMJUMP + self.DMJUMP_ref))


def steps(values: Float[Array, " w"], index: Int[Array, "n k"]) -> Float[Array, " n"]:
    """The values of each TOA's windows, added up; `index` counts them from 1, 0 for none."""
    return jnp.sum(jnp.concatenate([jnp.zeros(1, values.dtype), values])[index], axis=1)


def inside(values: Float[Array, " w"], index: Int[Array, "n k"]) -> Float[Array, "w n"]:
    """The derivatives of `steps`: 1 where a TOA is in the window."""
    each = index[None, :, :] == jnp.arange(1, values.shape[0] + 1)[:, None, None]
    return jnp.any(each, axis=2).astype(values.dtype)


def dispersion_delay(measure: Float[Array, " n"], frequency: Float[Array, " n"]) -> Float[Array, " n"]:
    """K DM / nu^2, s; DM in pc cm^-3, nu the barycentric frequency in MHz (0 delay at infinite frequency)."""
    return K_DM * measure / (frequency * frequency)
