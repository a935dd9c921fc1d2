"""Delays that grow with another power of the wavelength than a plasma's.

Scattering by a turbulent medium delays a pulse by about the fourth power of the wavelength. Par files describe it as
dispersion is described, by a polynomial in time, by steps for windows of time (CMX) and by waves (CMWaveX), all with
the one exponent TNCHROMIDX. `TimingModel` adds the three measures and asks `Chromatic` for the delay.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ...core import Module, Scalar, numbers, param
from .._constants import K_DM, YEAR
from ._line import KEYED, READ, SERIES, Component, Entry, Par, says_zero
from ._read import since, values_of
from .dispersion import steps


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

    @staticmethod
    def from_par(par: Par) -> "Chromatic | None":
        """The chromatic delay of a par file; `None` where CM is 0, not fitted, and nothing is added to it."""
        line = par.find("CM")
        unused = line is None or (says_zero(line.text) and not line.fit)
        if unused and not (par.prefixed("CMX_") or par.prefixed("CMWXFREQ_") or par.numbered("CM")):
            return None
        index = jnp.asarray(float(par.value("TNCHROMIDX", "4")))
        offsets, values = values_of(par, _CM.elements(par))
        return Chromatic(offsets, jnp.zeros(()), values, index, since(par, "CMEPOCH"))

    def delay(self, time: Float[Array, " n"], more: Float[Array, " n"], log_frequency: Float[Array, " n"]) -> Array:
        """Compute the delay at ln(nu / 1 GHz), s.

        `time` in s from PEPOCH; `more`: the chromatic measure of steps and waves.
        """
        terms, years = self.CM + self.CM_ref, (time - self.epoch) / YEAR
        total = jnp.zeros_like(years)
        # Horner's scheme, with the factorials on the way: no power of a large time is formed
        for k in range(terms.shape[0] - 1, -1, -1):
            total = total * years / (k + 1) + terms[k]
        index = self.TNCHROMIDX + self.TNCHROMIDX_ref
        # by the logarithm, so that the exponent has a derivative
        return K_DM * (total + more) * jnp.exp(-index * (log_frequency + jnp.log(1e3)))


class ChromaticCMX(Module):
    """Steps of the chromatic measure, one for each window of time.

    `CMX`: offsets from `CMX_ref`, shape (w,).
    """

    CMX: Float[Array, " w"] = param(unit="pc cm^-3")
    CMX_ref: Float[Array, " w"] = numbers()

    @staticmethod
    def from_par(par: Par) -> "ChromaticCMX | None":
        """The windows of CMX of a par file; `None` without any."""
        names = cm_windows(par)
        return ChromaticCMX(*values_of(par, names)) if names else None

    def measure(self, index: Int[Array, "n k"]) -> Float[Array, " n"]:
        """Add up the steps of each TOA's windows: `index`, shape (n, k), counts windows from 1, 0 for none."""
        return steps(self.CMX + self.CMX_ref, index)


def cm_windows(par: Par) -> tuple[str, ...]:
    """Names of a par file's CMX windows in rising order, such as `CMX_0001`."""
    return _CMX.elements(par)


_CM = Entry("CM", SERIES, silent=True)
_CMX = Entry("CMX_", KEYED)
CHROMATIC = Component(
    "chromatic", (_CM, Entry("TNCHROMIDX", role=READ), Entry("CMEPOCH", role=READ)), Chromatic.from_par
)
CMX = Component(
    "cmx",
    (_CMX, Entry("CMXR1_", KEYED, READ, by="CMX_"), Entry("CMXR2_", KEYED, READ, by="CMX_")),
    ChromaticCMX.from_par,
)
