"""Delays that grow with another power of the wavelength than a plasma's."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..core import Module, Scalar, numbers, param
from ._constants import K_DM, YEAR
from ._dispersion import steps


class Chromatic(Module):
    """K CM(t) / nu^TNCHROMIDX, CM(t) = sum_k CM_k t^k / k!, t in years from CMEPOCH.

    Parameters are offsets from the reference values (`*_ref`): CM, shape (k,), pc cm^-3 MHz^(index - 2) / yr^k.
    `epoch`: CMEPOCH, s from PEPOCH.
    """

    CM: Float[Array, " k"] = param(unit="pc cm^-3")
    TNCHROMIDX: Scalar = param()
    CM_ref: Float[Array, " k"] = numbers()
    TNCHROMIDX_ref: Scalar = numbers()
    epoch: Scalar = numbers()

    def delay(self, time: Float[Array, " n"], more: Float[Array, " n"], log_frequency: Float[Array, " n"]) -> Array:
        """The delay at ln(nu / 1 GHz), s; `time` in s from PEPOCH, `more` chromatic measure from steps and waves."""
        terms, years = self.CM + self.CM_ref, (time - self.epoch) / YEAR
        total = jnp.zeros_like(years)
        for k in range(terms.shape[0] - 1, -1, -1):
            total = total * years / (k + 1) + terms[k]
        index = self.TNCHROMIDX + self.TNCHROMIDX_ref
        return K_DM * (total + more) * jnp.exp(-index * (log_frequency + jnp.log(1e3)))


class ChromaticCMX(Module):
    """Steps of the chromatic measure, one for each window of time.

    `CMX`: offsets from `CMX_ref`, shape (w,).
    """

    CMX: Float[Array, " w"] = param(unit="pc cm^-3")
    CMX_ref: Float[Array, " w"] = numbers()

    def measure(self, index: Int[Array, "n k"]) -> Float[Array, " n"]:
        """The steps of each TOA's windows, added up: `index`, shape (n, k), counts windows from 1, 0 for none."""
        return steps(self.CMX + self.CMX_ref, index)
