"""What a component separation answers: maps of components and spectra, their errors, and how the fits ended.

`separate` and the recipes return a `Separation`. Its words (converged, look, failed) are those of every fit of the
package, by the same rule; plots, files and reports read its fields.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..core import Module, Scalar, notebook_text, place_of, readable, value_text
from ..fitting import RESULTS, Facts, remarks, verdict_of
from ._mixing import MixingMatrix, spectral
from ._patches import mean


def goodness(chi2: float, dof: int) -> tuple[str, ...]:
    """What there is to say of a chi2 that the noise does not allow, as of maps in K given as uK."""
    none = np.zeros(0, bool)
    return remarks(Facts((), none, none, none, none, np.array(0), np.array(chi2), np.array(dof), True))


def verdict_lines(verdict: str, said: tuple[str, ...]) -> list[str]:
    """The last lines of a summary."""
    return [verdict + (":" if said else ""), *(f"- {each}" for each in said)]


class Separation(Module):
    """Hold fitted spectra and component maps, as `separate` returns them.

    - `model`: the mixing matrix, whose fitted parameters are maps (n,). `values`, `std`, `at_bound` by name: each
      fitted element, its standard error (inf where the data say nothing), and the bound it lies on (-1, 0, 1).
    - `alternatives` by name, of a fit from several `starts`: each element where another start ended, more than a
      standard error away, with chi2 less than 9 above the best, or below it without having converged; NaN where none.
    - `index` by name: the element of each pixel, -1 where it was not used; `used` says which were. In soft patches they
      are several (q, pixel), of whose values the pixel has the mean with `weights` (q, pixel).
    - `amplitudes`: (c, s, pixel) component maps in `amplitude_units`, which are the unit of the data but for
      components with a unit of their own, as `ThermalSZ`; `errors` their standard errors, those of the spectra
      included; inf where components cannot be told apart, or hang on a spectrum that the data do not determine.
      `chi2`: (pixel,) of each pixel. NaN where a pixel was not used, or its spectra are not finite; amplitudes also
      where a Stokes parameter has too few channels.
    - `covariance`: (p, p, k) of the parameters of each cell of pixels; `cell`: the cell of each pixel, or -1.
    - `result`: how each independent fit ended (a code of `RESULTS`); `steps`: its evaluations; `group`: (pixel,) which
      of them is that of each pixel, or -1. Without fitted parameters there are no fits but those that cannot be, of
      cells whose spectra are not finite (of all cells, where it is not known yet, under `jax.jit`).
    - `minus_log_like`: the sum of -d^T N^-1 A s / 2, fgbuster's `fun`. `cost`: what was minimised.
    """

    model: MixingMatrix
    values: dict[str, Float[Array, " _"]]
    std: dict[str, Float[Array, " _"]]
    at_bound: dict[str, Int[Array, " _"]]
    alternatives: dict[str, Float[Array, " _"]]
    index: dict[str, Int[Array, " pix"] | Int[Array, "_ pix"]]
    weights: dict[str, Float[Array, "_ pix"]]
    amplitudes: Float[Array, "c s pix"]
    errors: Float[Array, "c s pix"]
    chi2: Float[Array, " pix"]
    covariance: Float[Array, "p p k"]
    cell: Int[Array, " pix"]
    group: Int[Array, " pix"]
    result: Int[Array, " g"]
    steps: Int[Array, " g"]
    cost: Scalar
    minus_log_like: Scalar
    num_data: Int[Array, ""]
    free: tuple[str, ...] = eqx.field(static=True)
    components: tuple[str, ...] = eqx.field(static=True)
    stokes: str = eqx.field(static=True)
    units: str = eqx.field(static=True)
    amplitude_units: tuple[str, ...] = eqx.field(static=True)

    @property
    def used(self) -> Bool[Array, "*batch pix"]:
        """Pixels that the fit used."""
        return self.cell >= 0

    @property
    def success(self) -> Bool[Array, "*batch g"]:
        """True for each independent fit that converged."""
        code: Any = RESULTS
        return self.result == code.successful._value

    @property
    def dof(self) -> Int[Array, "*batch"]:
        """Data in use, less amplitudes and spectral parameters."""
        amplitudes = jnp.sum(~jnp.isnan(self.amplitudes), (-3, -2, -1))
        # a fit that never began, whose errors are NaN, has no data either
        return self.num_data - amplitudes - sum(jnp.sum(~jnp.isnan(std), -1) for std in self.std.values())

    def parameter_map(self, name: str) -> Float[Array, " pix"]:
        """Give a fitted parameter at each pixel (pixel,); NaN where none was used.

        **Raises:** `ValueError` for a name that was not fitted.
        """
        self._place(name)
        here = mean(self.values[name], jnp.maximum(self.index[name], 0), self.weights.get(name))
        return jnp.where(self.used, here, jnp.nan)

    def error_map(self, name: str) -> Float[Array, " pix"]:
        """Give the standard error of a parameter at each pixel (pixel,); NaN where none was used.

        **Raises:** `ValueError` for a name that was not fitted.
        """
        i = self._place(name)
        return jnp.where(self.used, jnp.sqrt(self.covariance[i, i])[jnp.maximum(self.cell, 0)], jnp.nan)

    def component(self, name: str) -> Float[Array, "s pix"]:
        """Give the amplitudes of a component (s, pixel), in its unit among `amplitude_units`.

        **Raises:** `ValueError` for a name that no column has.
        """
        return self.amplitudes[place_of(name, self.components, "component")]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a researcher should look at in fits that converged, in words; empty if there is nothing."""
        return self.to_look_at()

    def to_look_at(self, testable: bool = True) -> tuple[str, ...]:
        """The `remarks`. `testable`: False for maps that chi2 says nothing about, as those simulated without noise."""
        found = [*goodness(float(jnp.nansum(self.chi2)), int(self.dof))] if testable else []
        found += [*self._lost_calibration(), *self._two_minima()]
        for name in spectral(self.free):
            lost, bound = int(jnp.sum(jnp.isinf(self.std[name]))), int(jnp.sum(self.at_bound[name] != 0))
            size = self.values[name].size
            of = "" if size == 1 else f" in {{}} of {size} elements"
            if lost:
                found.append(
                    f"the data do not determine {name}{of.format(lost)}: errors are infinite there. Fix it, or give it "
                    "larger patches."
                )
            if bound:
                found.append(
                    f"{name} ended at a bound{of.format(bound)}: errors there are not symmetric. Widen it, or fix the "
                    "parameter there."
                )
        known = jnp.isfinite(self.amplitudes) & jnp.isfinite(self.errors)
        unknown = int(jnp.sum(jnp.any(~known, (0, 1)) & self.used))
        if unknown:
            total = int(jnp.sum(self.used))
            found.append(f"{unknown} of {total} pixels in use have components without finite values and errors")
        return tuple(found)

    def _lost_calibration(self) -> list[str]:
        """What to say of gains and angles that the data do not determine: all of them hang together."""
        of_channels = [name for name in self.free if name not in spectral(self.free)]
        lost = [name for name in of_channels if bool(jnp.any(jnp.isinf(self.std[name])))]
        if not lost:
            return []
        return [
            f"the data do not determine {len(lost)} of {len(of_channels)} gains and angles (the first is {lost[0]}): "
            "errors are infinite there. Give them priors, or fix those of a channel that is known."
        ]

    def _two_minima(self) -> list[str]:
        """What to say where starts ended in different minima that the data hardly tell apart."""
        found = []
        for name, other in self.alternatives.items():
            count = int(jnp.sum(jnp.abs(other - self.values[name]) > self.std[name]))
            of = "" if other.size == 1 else f" in {count} of {other.size} elements"
            if count:
                found.append(
                    f"{name} has another minimum{of}, whose chi2 is less than 9 above the best, or below it though the "
                    "search did not converge there (see alternatives): the data allow either. Give it a prior, "
                    "or fix it."
                )
        return found

    @property
    def verdict(self) -> str:
        """How it went: "converged", "converged, look" (see `remarks`), or "failed" where any fit did."""
        return verdict_of(bool(jnp.all(self.success)), self.remarks)

    def summary(self) -> str:
        """Tell the fitted parameters in a table, how the fits ended, and what to look at."""
        good = int(jnp.sum(self.success))
        wide = max([16, *map(len, self.free)])
        lines = [
            f"{int(jnp.sum(self.used))} of {self.cell.shape[0]} pixels, Stokes {self.stokes}, unit {self.units}",
            f"chi2 {float(jnp.nansum(self.chi2)):.6g} for {int(self.dof)} degrees of freedom",
            f"{good} of {self.result.shape[0]} independent fits converged, {int(jnp.max(self.steps, initial=0))} "
            "evaluations at most",
            f"{'parameter':<{wide}} {'values':>8} {'median':>12} {'median error':>13} {'on a bound':>11}",
        ]
        for name in self.free:
            value, error = np.asarray(self.values[name]), np.asarray(self.std[name])
            bound = int(np.sum(np.asarray(self.at_bound[name]) != 0))
            lines.append(
                f"{name:<{wide}} {value.size:>8} {np.median(value):>12.6g} {np.median(error):>13.3g} {bound:>11}"
            )
        return "\n".join([*lines, *verdict_lines(self.verdict, self.remarks)])

    def __repr__(self) -> str:
        return self.summary() if self._told else value_text(self)

    @property
    def _told(self) -> bool:
        """True for one separation whose numbers can be read: outside of a transformation, and all there."""
        return readable(self) and self.result is not None and self.result.ndim == 1

    def _repr_html_(self) -> str:
        """The `summary` for a notebook."""
        return notebook_text(repr(self))

    def _place(self, name: str) -> int:
        return place_of(name, self.free, "fitted parameter")
