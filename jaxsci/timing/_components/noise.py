"""Noise of pulsar timing: scaled errors, epoch-correlated jitter, red noise of all kinds.

The covariance of some 10^4 TOAs is never built: jitter is a rank-one update for each epoch, and red noise has a basis
of a hundred modes, so that whitening costs as much as reading the data a few times. `TimingNoise` is a noise like any
other of the core, which a fit prepares once and then applies to residuals and derivatives. Its parameters are those of
the par file, and can be fitted.
"""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...core import (
    AbstractNoise,
    AbstractPrepared,
    Flag,
    Linearisation,
    Module,
    Scalar,
    as_array,
    numbers,
    param,
    rows,
    transparent,
)
from ...core.linalg import cholesky, qr_r, solve_lower, solve_upper
from .._constants import YEAR


def _index(pad: int | str, *, optional: bool = False) -> Any:
    """Declare a field of integers of which each row has one; `pad` is what rows that do not count have there."""
    default = None if optional else dataclasses.MISSING
    return eqx.field(converter=lambda x: x if x is None else as_array(x), metadata={"rows": pad}, default=default)


class DMNoise(Module):
    """Power-law noise of dispersion: TNDMAMP = log10 A at 1400 MHz, TNDMGAM = gamma.

    `basis`: shape (n, k), the delay at each TOA of a unit amplitude; `frequency` (k,) Hz; `span` in s.
    """

    basis: Float[Array, "n k"] = rows(0.0)
    frequency: Float[Array, " k"] = numbers()
    span: Scalar = numbers()
    TNDMAMP: Scalar = param()
    TNDMGAM: Scalar = param()

    def power(self) -> Float[Array, " k"]:
        """Compute the variance that each mode has, s^2, shape (k,)."""
        return power_law(self.TNDMAMP, self.TNDMGAM, self.frequency, self.span)


class ChromaticNoise(Module):
    """Power-law noise that grows as the wavelength to the TNCHROMIDX; fields as in `DMNoise`."""

    basis: Float[Array, "n k"] = rows(0.0)
    frequency: Float[Array, " k"] = numbers()
    span: Scalar = numbers()
    TNCHROMAMP: Scalar = param()
    TNCHROMGAM: Scalar = param()

    def power(self) -> Float[Array, " k"]:
        """Compute the variance that each mode has, s^2, shape (k,)."""
        return power_law(self.TNCHROMAMP, self.TNCHROMGAM, self.frequency, self.span)


class SolarWindNoise(Module):
    """Power-law noise of the solar wind's density at 1 au; fields as in `DMNoise`."""

    basis: Float[Array, "n k"] = rows(0.0)
    frequency: Float[Array, " k"] = numbers()
    span: Scalar = numbers()
    TNSWAMP: Scalar = param()
    TNSWGAM: Scalar = param()

    def power(self) -> Float[Array, " k"]:
        """Compute the variance that each mode has, cm^-6, shape (k,)."""
        return power_law(self.TNSWAMP, self.TNSWGAM, self.frequency, self.span)


def power_law(amplitude: Array, slope: Array, frequency: Float[Array, " k"], span: Array) -> Float[Array, " k"]:
    """Compute A^2 / (12 pi^2) f_yr^(gamma - 3) f^-gamma / span, s^2; log10 A = `amplitude`, gamma = `slope`.

    `frequency` in Hz, shape (k,); `span` in s. van Haasteren and Vallisneri 2014, Phys. Rev. D 90.
    """
    shape = (frequency * YEAR) ** -slope * YEAR**3
    return (10**amplitude) ** 2 / (12 * math.pi**2) * shape / span


class TimingNoise(AbstractNoise):
    """C = N + U J U^T + F phi F^T: white errors, jitter common to an epoch (ECORR), red noise on a Fourier basis.

    - `error`: s. Variance of a TOA: (EFAC error)^2 + (EFAC EQUAD)^2 (tempo2's form), EQUAD in microseconds.
    - `efac`, `equad`: which EFAC and EQUAD each TOA has, counted from 1; 0 for none.
    - `epoch`: the epoch of each TOA, in rising order. `jitter`: which ECORR (microseconds) each of the s epochs
      has, counted from 1; 0 for none.
    - `basis`: sines and cosines, shape (n, k), of `frequency` (k,) Hz; `span` of the data in s.
      phi = A^2 / (12 pi^2) f_yr^(gamma - 3) f^-gamma / span, log10 A = TNREDAMP, gamma = TNREDGAM.

    - `dmefac`, `dmequad`: as `efac`, for the rows of wideband data that measure dispersion (their `error` is in
      pc cm^-3); DMEQUAD in pc cm^-3. `dm`, `chromatic`, `wind`: more noise with bases of its own. `None` without.

    U is never built: each epoch is a rank-one update (Sherman and Morrison 1950), the basis a small one (Woodbury).
    van Haasteren and Vallisneri 2014, Phys. Rev. D 90; NANOGrav 9-year data set, ApJ 813, 65 (2015).
    """

    error: Float[Array, " n"] = rows(1.0)
    efac: Int[Array, " n"] = _index(0)
    equad: Int[Array, " n"] = _index(0)
    epoch: Int[Array, " n"] = _index("edge")
    basis: Float[Array, "n k"] = rows(0.0)
    jitter: Int[Array, " s"] = eqx.field(converter=as_array)  # type: ignore[misc]
    frequency: Float[Array, " k"] = numbers()
    span: Scalar = numbers()
    EFAC: Float[Array, " e"] = param(bounds=(0, None))
    EQUAD: Float[Array, " q"] = param(unit="us", bounds=(0, None))
    ECORR: Float[Array, " c"] = param(unit="us", bounds=(0, None))
    TNREDAMP: Scalar = param()
    TNREDGAM: Scalar = param()
    dmefac: Int[Array, " n"] | None = _index(0, optional=True)
    dmequad: Int[Array, " n"] | None = _index(0, optional=True)
    DMEFAC: Float[Array, " de"] | None = param(bounds=(0, None), default=None)
    DMEQUAD: Float[Array, " dq"] | None = param(unit="pc cm^-3", bounds=(0, None), default=None)
    dm: DMNoise | None = transparent(default=None)
    chromatic: ChromaticNoise | None = transparent(default=None)
    wind: SolarWindNoise | None = transparent(default=None)

    @property
    def coupled(self) -> bool:
        return True

    def variance(self) -> Float[Array, " n"]:
        """Compute the white variance of each row, s^2; of measured dispersion (pc cm^-3)^2."""
        efac, equad = _picked(self.EFAC, self.efac, 1.0), 1e-6 * _picked(self.EQUAD, self.equad, 0.0)
        variance = efac**2 * (self.error**2 + equad**2)
        if self.DMEFAC is None:
            return variance
        more = _picked(self.DMEQUAD, self.dmequad, 0.0)
        return _picked(self.DMEFAC, self.dmefac, 1.0) ** 2 * (variance + more**2)

    def power(self) -> Float[Array, " m"]:
        """Variance of each mode, that of a delay in s^2, in the order of `modes`."""
        red = power_law(self.TNREDAMP, self.TNREDGAM, self.frequency, self.span)
        others = [process.power() for process in (self.dm, self.chromatic, self.wind) if process is not None]
        return jnp.concatenate([red, *others]) if others else red

    def modes(self) -> Float[Array, "n m"]:
        """The bases of all processes side by side."""
        others = [process.basis for process in (self.dm, self.chromatic, self.wind) if process is not None]
        return jnp.concatenate([self.basis, *others], axis=1) if others else self.basis

    def prepare(self, mask: Bool[Array, " n"]) -> "PreparedNoise":
        root = jnp.where(mask, 1 / jnp.sqrt(self.variance()), 0)
        weight = _by_epoch(root[None, :], root, self.epoch, self.jitter.shape[0])[0]
        ones = mask.astype(root.dtype)
        # as in PINT, a TOA alone in its epoch has no jitter in common with any
        several = _by_epoch(ones[None, :], ones, self.epoch, self.jitter.shape[0])[0] > 1
        jitter = (1e-6 * jnp.concatenate([jnp.zeros(1), self.ECORR])[self.jitter]) ** 2
        excess = jnp.where(several, jitter, 0) * weight
        # (1 + e u u^T)^(-1/2) = 1 - s u u^T: a rank-one matrix has a root in closed form
        shrink = (1 - 1 / jnp.sqrt(1 + excess)) / jnp.where(weight > 0, weight, 1)
        # scaled by the prior, so that the small matrix is 1 + something and well conditioned whatever the amplitude
        modes = (self.modes() * jnp.sqrt(self.power())[None, :]).T * root[None, :]
        gain = excess / (1 + excess) / jnp.where(weight > 0, weight, 1)
        logdet = jnp.sum(jnp.where(mask, jnp.log(self.variance()), 0)) + jnp.sum(jnp.log1p(excess))
        if not modes.shape[0]:
            return PreparedNoise(logdet, root, self.epoch, shrink, gain, modes, modes, jnp.zeros((0, 0)))
        half = _shrunk(modes, root, shrink, self.epoch)
        factor, ok = cholesky(jnp.eye(modes.shape[0]) + half @ half.T)
        full = _shrunk(half, root, shrink, self.epoch)
        # so that the cost is NaN where the noise makes no sense, and a solver turns back
        factor = jnp.where(ok, factor, jnp.nan)
        logdet = logdet + 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
        return PreparedNoise(logdet, root, self.epoch, shrink, gain, half, full, factor)

    def valid(self, mask: Bool[Array, " n"]) -> Flag:
        variance = self.variance()
        fine = jnp.where(mask, (self.error > 0) & (variance > 0) & jnp.isfinite(variance), True)
        return jnp.all(fine) & jnp.all(jnp.isfinite(self.ECORR)) & jnp.all(jnp.isfinite(self.power()))

    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return self.prepare(mask).whiten(residual, mask)

    def logdet(self, mask: Bool[Array, " n"]) -> Scalar:
        return self.prepare(mask).log_determinant


class PreparedNoise(AbstractPrepared):
    """A `TimingNoise` with all that does not depend on the residuals.

    - `inverse`: 1/sigma, 0 where masked; u below.
    - `shrink`, `gain`: an epoch's z becomes z - shrink u (u . z), and once more z - gain u (u . z).
    - `half`, `full`: the scaled modes after that whitening once and twice, (k, n). `factor`: L of 1 + half half^T.
    """

    log_determinant: Scalar
    inverse: Float[Array, " n"]
    epoch: Int[Array, " n"]
    shrink: Float[Array, " s"]
    gain: Float[Array, " s"]
    half: Float[Array, "k n"]
    full: Float[Array, "k n"]
    factor: Float[Array, "k k"]

    @property
    def coupled(self) -> bool:
        return True

    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return self._whiten(jnp.where(mask, residual, 0)[None, :])[0]

    def _whiten(self, rows: Float[Array, "q n"]) -> Float[Array, "q n"]:
        rows = _shrunk(rows * self.inverse[None, :], self.inverse, self.shrink, self.epoch)
        if not self.factor.shape[0]:
            return rows
        inner = solve_lower(self.factor, self.half @ rows.T)
        # 1 - H^T (L L^T)^-1 H, which is C^-1, has the root 1 - H^T (1 + L^T)^-1 L^-1 H
        upper = jnp.eye(self.factor.shape[0]) + self.factor.T
        return rows - solve_upper(upper, inner).T @ self.half

    def weigh(
        self, jac_t: Float[Array, "p n"], residual: Float[Array, " n"], mask: Bool[Array, " n"]
    ) -> tuple[Scalar, Float[Array, "p m"], Float[Array, " m"]]:
        """As any noise, but with the rows reduced by QR: m = p + 1 of them say all that n do."""
        rows = jnp.where(mask[None, :], jnp.concatenate([jac_t, residual[None, :]]), 0)
        # derivatives with F1 and with a JUMP differ by 1e14, and QR compares them
        size = jnp.sqrt(jnp.sum(rows * rows, axis=1))
        size = jnp.where(size > 0, size, 1)
        upper = qr_r(self._whiten(rows / size[:, None]).T).T * size[:, None]
        return jnp.sum(upper[-1] ** 2) / 2, upper[:-1], upper[-1]

    def sums(
        self, jac_t: Float[Array, "p n"], residual: Float[Array, " n"], mask: Bool[Array, " n"]
    ) -> tuple[Float[Array, "q q"], Float[Array, "q k"]]:
        rows = jnp.where(mask[None, :], jnp.concatenate([jac_t, residual[None, :]]), 0) * self.inverse[None, :]
        epochs = _by_epoch(rows, self.inverse, self.epoch, self.shrink.shape[0])
        within = rows @ rows.T - (epochs * self.gain[None, :]) @ epochs.T
        return within, rows @ self.full.T

    def finish(self, sums: tuple[Float[Array, "q q"], Float[Array, "q k"]]) -> Linearisation:
        within, modes = sums
        half = solve_lower(self.factor, modes.T) if self.factor.shape[0] else modes.T
        total = within - half.T @ half
        return Linearisation(total[-1, -1] / 2, total[:-1, -1], total[:-1, :-1])


def _picked(values: Array | None, index: Array | None, default: float) -> Array:
    """The value of each TOA, counted from 1; `default` for 0."""
    assert values is not None
    assert index is not None
    return jnp.concatenate([jnp.full(1, default), values])[index]


def _by_epoch(rows: Float[Array, "q n"], root: Float[Array, " n"], epoch: Array, count: int) -> Float[Array, "q s"]:
    if not count:
        return jnp.zeros((rows.shape[0], 0), rows.dtype)
    # with the TOAs first XLA adds up a vector for each of them, not a number for each row
    return jax.ops.segment_sum((rows * root[None, :]).T, epoch, count, indices_are_sorted=True).T


def _shrunk(
    rows: Float[Array, "q n"], root: Float[Array, " n"], shrink: Float[Array, " s"], epoch: Array
) -> Float[Array, "q n"]:
    """Rows of unit white noise with the jitter of each epoch whitened too."""
    if not shrink.shape[0]:
        return rows
    epochs = _by_epoch(rows, root, epoch, shrink.shape[0]) * shrink[None, :]
    return rows - epochs[:, epoch] * root[None, :]
