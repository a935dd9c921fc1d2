"""Gaussian noise: how residuals become whitened, and what their log-determinant is.

A fit needs the whitened residuals alone; noise parameters that are fitted, and model comparison, need the determinant
too. `prepare` computes once what does not depend on the residuals, such as a Cholesky factor. Rows that the mask hides
are whitened to 0 and count in no determinant.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ._given import require_symmetric
from ._likelihood import AbstractLikelihood, Linearisation
from ._module import describe
from ._parameter import numbers, param
from ._rows import rows
from ._typing import Flag, Scalar
from .linalg import cholesky, dot, gram, solve_lower, solve_upper, triangular_inverse


class AbstractNoise(AbstractLikelihood):
    """Gaussian noise with covariance C: cost = r^T C^-1 r / 2.

    `whiten` is linear, with |whiten(r)|^2 = r^T C^-1 r over the rows that the mask keeps.
    """

    @abc.abstractmethod
    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        """Residuals turned into independent ones of unit variance; 0 where masked."""

    @abc.abstractmethod
    def logdet(self, mask: Bool[Array, " n"]) -> Scalar:
        """log |C| over the rows that the mask keeps."""

    def log_variance(self, mask: Bool[Array, " n"]) -> Float[Array, " n"] | None:
        """log variance of each row, 0 where masked; `None` when the rows are correlated."""
        del mask
        return None

    def weigh(
        self, jac_t: Float[Array, "p n"], residual: Float[Array, " n"], mask: Bool[Array, " n"]
    ) -> tuple[Scalar, Float[Array, "p n"], Float[Array, " n"]]:
        z = self.whiten(residual, mask)
        return dot(z, z) / 2, jax.vmap(lambda row: self.whiten(row, mask))(jac_t), z

    def standardise(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return self.whiten(residual, mask)


class Unit(AbstractNoise):
    """Equal weights of unknown scale: what a data set without noise has.

    Standard errors are then scaled by sqrt(chi2 / dof).
    """

    @property
    def absolute(self) -> bool:
        return False

    def valid(self, mask: Bool[Array, " n"]) -> Flag:
        return jnp.array(True)

    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return jnp.where(mask, residual, 0)

    def logdet(self, mask: Bool[Array, " n"]) -> Scalar:
        return jnp.zeros(())

    def log_variance(self, mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return jnp.zeros(mask.shape)


class White(AbstractNoise):
    """The same standard deviation for every row.

    **Arguments:** `sigma`: standard deviation, in the data's unit.
    """

    sigma: Scalar = param(bounds=(0, None), doc="standard deviation, in the data's unit")

    def __check_init__(self) -> None:
        if isinstance(self.sigma, jax.Array) and self.sigma.ndim:
            raise ValueError(
                f"White.sigma should be one standard deviation for all rows, but it is {describe(self.sigma)}: "
                "jaxsci.Diagonal takes one a row"
            )

    def prepare(self, mask: Bool[Array, " n"]) -> AbstractLikelihood:
        return _Weighted(self.logdet(mask), jnp.where(mask, 1 / self.sigma, 0))

    def valid(self, mask: Bool[Array, " n"]) -> Flag:
        return (self.sigma > 0) & jnp.isfinite(self.sigma)

    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return jnp.where(mask, residual / self.sigma, 0)

    def logdet(self, mask: Bool[Array, " n"]) -> Scalar:
        return jnp.sum(self.log_variance(mask))

    def log_variance(self, mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return jnp.where(mask, 2 * jnp.log(self.sigma), 0)


class Diagonal(AbstractNoise):
    """One standard deviation a row: variance = (efac sigma)^2 + equad^2.

    `efac` scales the given errors, `equad` adds scatter in quadrature (in the data's unit); both may
    be freed in a fit (`free=(..., "noise.efac")`), which then maximises the likelihood with its
    log-determinant.
    """

    sigma: Float[Array, " n"] = rows(1.0)
    efac: Scalar = param(default=1.0, bounds=(0, None), doc="factor on the given errors")
    equad: Scalar = param(default=0.0, bounds=(0, None), doc="scatter added in quadrature")

    def variance(self) -> Float[Array, " n"]:
        """The variance of each row."""
        dtype = self.sigma.dtype
        return (self.efac.astype(dtype) * self.sigma) ** 2 + self.equad.astype(dtype) ** 2

    def prepare(self, mask: Bool[Array, " n"]) -> AbstractLikelihood:
        return _Weighted(self.logdet(mask), jnp.where(mask, 1 / jnp.sqrt(self.variance()), 0))

    def valid(self, mask: Bool[Array, " n"]) -> Flag:
        variance = self.variance()
        fine = (self.sigma > 0) & jnp.isfinite(self.sigma) & (variance > 0) & jnp.isfinite(variance)
        return jnp.all(jnp.where(mask, fine, True))

    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return jnp.where(mask, residual / jnp.sqrt(self.variance()), 0)

    def logdet(self, mask: Bool[Array, " n"]) -> Scalar:
        return jnp.sum(self.log_variance(mask))

    def log_variance(self, mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return jnp.where(mask, jnp.log(self.variance()), 0)


class Dense(AbstractNoise):
    """A full covariance matrix. The masked rows and columns of it are ignored.

    **Arguments:** `covariance`: shape (n, n), in the data's unit squared.
    """

    covariance: Float[Array, "n n"] = rows("identity")

    def __check_init__(self) -> None:
        if isinstance(self.covariance, jax.Array) and self.covariance.ndim == 2:
            require_symmetric(self.covariance, f"{type(self).__name__}.covariance")

    @property
    def coupled(self) -> bool:
        return True

    def _factor(self, mask: Bool[Array, " n"]) -> Float[Array, "n n"]:
        both = mask[:, None] & mask[None, :]
        factor, ok = cholesky(jnp.where(both, self.covariance, jnp.eye(mask.shape[0], dtype=self.covariance.dtype)))
        return jnp.where(ok, factor, jnp.nan)

    def prepare(self, mask: Bool[Array, " n"]) -> AbstractLikelihood:
        factor = self._factor(mask)
        return _Whitener(_log_squares(factor), triangular_inverse(factor))

    def valid(self, mask: Bool[Array, " n"]) -> Flag:
        return jnp.all(jnp.isfinite(self._factor(mask)))

    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return solve_lower(self._factor(mask), jnp.where(mask, residual, 0))

    def logdet(self, mask: Bool[Array, " n"]) -> Scalar:
        return _log_squares(self._factor(mask))


class LowRank(AbstractNoise):
    """Diagonal noise plus k correlated modes: C = D + U diag(variance) U^T, without ever forming C.

    **Arguments:**

    - `diagonal`: the noise D, a `White` or `Diagonal`.
    - `basis`: U, shape (n, k).
    - `variance`: the prior variance of each mode, shape (k,), positive.

    Its sums are additive over rows (Woodbury), for chunks; on whole data it whitens instead, with
    V = D^-1/2 U variance^1/2, L L^T = 1 + V^T V, W = 1 - V (1 + L^T)^-1 L^-1 V^T, which keeps the
    digits that the sums lose when a mode's variance is much larger than the noise.
    """

    diagonal: AbstractNoise
    basis: Float[Array, "n k"] = rows(0.0)
    variance: Float[Array, " k"] = numbers()

    def valid(self, mask: Bool[Array, " n"]) -> Flag:
        finite = jnp.all(jnp.where(mask[:, None], jnp.isfinite(self.basis), True))
        return self.diagonal.valid(mask) & finite & jnp.all((self.variance > 0) & jnp.isfinite(self.variance))

    @property
    def coupled(self) -> bool:
        return True

    def _modes(self, mask: Bool[Array, " n"]) -> tuple[Array, Array]:
        scaled = jax.vmap(lambda column: self.diagonal.whiten(column, mask), 1, 1)(self.basis)
        modes = scaled * jnp.sqrt(self.variance)[None, :]
        factor, ok = cholesky(jnp.eye(modes.shape[1], dtype=modes.dtype) + gram(modes.T, modes.T))
        return modes, jnp.where(ok, factor, jnp.nan)

    def prepare(self, mask: Bool[Array, " n"]) -> AbstractLikelihood:
        modes, factor = self._modes(mask)
        correct = solve_upper(jnp.eye(factor.shape[0], dtype=factor.dtype) + factor.T, triangular_inverse(factor))
        logdet = self.diagonal.logdet(mask) + _log_squares(factor)
        return _LowRankWhitener(logdet, self.diagonal.prepare(mask), modes, modes @ correct)

    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        modes, factor = self._modes(mask)
        z = self.diagonal.whiten(residual, mask)
        inner = solve_lower(factor, modes.T @ z)
        return z - modes @ solve_upper(jnp.eye(factor.shape[0], dtype=factor.dtype) + factor.T, inner)

    def logdet(self, mask: Bool[Array, " n"]) -> Scalar:
        return self.diagonal.logdet(mask) + _log_squares(self._modes(mask)[1])

    def sums(self, jac_t: Float[Array, "p n"], residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> PyTree:
        stack = jnp.concatenate([jac_t, residual[None, :], self.basis.T])
        white = jax.vmap(lambda row: self.diagonal.whiten(row, mask))(stack)
        return gram(white, white)

    def finish(self, sums: Array) -> Linearisation:
        q = sums.shape[0] - self.variance.shape[0]
        factor, ok = cholesky(sums[q:, q:] + jnp.diag(1 / self.variance))
        half = solve_lower(jnp.where(ok, factor, jnp.nan), sums[q:, :q])
        total = sums[:q, :q] - gram(half.T, half.T)
        return Linearisation(total[-1, -1] / 2, total[:-1, -1], total[:-1, :-1])


def _log_squares(factor: Float[Array, "n n"]) -> Scalar:
    """log-determinant of L L^T."""
    return 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))


class AbstractPrepared(AbstractNoise):
    """A noise that has been made ready for one data set, with the log-determinant that came along."""

    log_determinant: eqx.AbstractVar[Scalar]

    def logdet(self, mask: Bool[Array, " n"]) -> Scalar:
        return self.log_determinant

    def valid(self, mask: Bool[Array, " n"]) -> Flag:
        raise NotImplementedError("ask the noise itself whether it is valid")


class _Weighted(AbstractPrepared):
    log_determinant: Scalar
    weight: Float[Array, " n"]

    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return jnp.where(mask, residual, 0) * self.weight


class _Whitener(AbstractPrepared):
    log_determinant: Scalar
    inverse_factor: Float[Array, "n n"]

    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return self.inverse_factor @ jnp.where(mask, residual, 0)


class _LowRankWhitener(AbstractPrepared):
    log_determinant: Scalar
    diagonal: AbstractLikelihood
    modes: Float[Array, "n k"]
    correction: Float[Array, "n k"]

    def whiten(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        z = self.diagonal.standardise(residual, mask)
        return z - self.correction @ (self.modes.T @ z)
