"""From residuals to numbers: what a solver sees of the data.

A likelihood turns residuals and their derivatives into sums that are additive over rows, and the total of those into a
`Linearisation`: cost, gradient, curvature. So the same code serves all rows at once, chunks of them, and blocks of a
file. Gaussian noise stands in `_noise`; here are the interface, robust losses, and counts.
"""

import abc
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ._loss import AbstractLoss
from ._module import Module
from ._rows import rows
from ._typing import Flag, Scalar
from .arrow import Arrow
from .linalg import products
from .nested import Nested

# checked where it is a field; a type checker need not tell them apart, since every operation takes all
Curvature = Any if TYPE_CHECKING else Float[Array, "p p"] | Arrow | Nested


class Linearisation(Module):
    """All that a solver knows of the data at one point.

    - `cost`: minus the log-likelihood, less its constant; half of chi2 for Gaussian noise.
    - `grad`: its gradient with respect to the free parameters.
    - `gram`: the Gauss-Newton (Fisher) matrix, positive semidefinite: dense, an `Arrow`, or `Nested`.
    """

    cost: Scalar
    grad: Float[Array, " p"]
    gram: Curvature


class AbstractLikelihood(Module):
    """Turns residuals into a `Linearisation` by sums that are additive over rows."""

    @property
    def absolute(self) -> bool:
        """True when the scale of the residuals is known, so that a covariance needs no rescaling."""
        return True

    @property
    def coupled(self) -> bool:
        """True when a row's weight depends on other rows, so that only `sums` are additive over them."""
        return False

    def prepare(self, mask: Bool[Array, " n"]) -> "AbstractLikelihood":
        """The same likelihood with everything computed that does not depend on the residuals."""
        del mask
        return self

    @abc.abstractmethod
    def valid(self, mask: Bool[Array, " n"]) -> Flag:
        """False when a number in here makes no sense where the mask is True (sigma <= 0, NaN)."""

    @abc.abstractmethod
    def weigh(
        self, jac_t: Float[Array, "p n"], residual: Float[Array, " n"], mask: Bool[Array, " n"]
    ) -> tuple[Scalar, Float[Array, "p n"], Float[Array, " n"]]:
        """(cost, J, r): rows weighed so that J r is the gradient and J J^T the curvature of the cost."""

    @abc.abstractmethod
    def standardise(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        """Residuals in units of their expected scatter, 0 where masked."""

    def root(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        """Rows whose squares sum to twice the cost: what a general least-squares solver takes."""
        return self.standardise(residual, mask)

    def sums(self, jac_t: Float[Array, "p n"], residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> PyTree:
        """What `finish` needs, additive over rows: whole, in chunks or summed over devices alike."""
        cost, jac_t, residual = self.weigh(jac_t, residual, mask)
        rows = jnp.concatenate([jac_t, residual[None, :]])  # one product reads the rows once
        return cost, products(rows)

    def finish(self, sums: PyTree[Array]) -> Linearisation:
        """The Linearisation that belongs to the total of the sums."""
        cost, products = sums
        return Linearisation(cost, products[:-1, -1], products[:-1, :-1])

    def cost(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Scalar:
        """The cost alone."""
        return self.finish(self.sums(jnp.zeros((0, residual.shape[0]), residual.dtype), residual, mask)).cost


class AbstractRowLikelihood(AbstractLikelihood):
    """A likelihood that treats rows as independent."""

    @abc.abstractmethod
    def rows(self, residual: Float[Array, " n"]) -> tuple[Array, Array, Array]:
        """(value, score, weight) of each row: minus its log-likelihood and the two derivatives of
        that with respect to the residual, the second one positive."""

    def weigh(
        self, jac_t: Float[Array, "p n"], residual: Float[Array, " n"], mask: Bool[Array, " n"]
    ) -> tuple[Scalar, Float[Array, "p n"], Float[Array, " n"]]:
        return weigh_rows(self.rows(residual), jac_t, mask)


def weigh_rows(rows: tuple[Array, Array, Array], jac_t: Array, mask: Array) -> tuple[Array, Array, Array]:
    """Rows of (value, score, weight) as `AbstractLikelihood.weigh` wants them."""
    value, score, weight = rows
    root = jnp.sqrt(jnp.where(mask, weight, 1))
    value, score = jnp.where(mask, value, 0), jnp.where(mask, score, 0)
    return jnp.sum(value), jnp.where(mask[None, :], jac_t, 0) * root[None, :], score / root


class Robust(AbstractLikelihood):
    """A robust loss of the whitened residuals of a Gaussian noise (Holland and Welsch 1977).

    cost = sum rho(z), z = whitened residual. The score is exact; the curvature is the second
    derivative of rho, kept above 1e-3 of the reweighting value rho'(z)/z, because the pure
    reweighting iteration stalls long before the gradient vanishes.
    """

    noise: AbstractLikelihood
    loss: AbstractLoss

    @property
    def absolute(self) -> bool:
        return self.noise.absolute

    @property
    def coupled(self) -> bool:
        return self.noise.coupled

    def prepare(self, mask: Bool[Array, " n"]) -> "AbstractLikelihood":
        return Robust(self.noise.prepare(mask), self.loss)

    def valid(self, mask: Bool[Array, " n"]) -> Flag:
        return self.noise.valid(mask)

    def weigh(
        self, jac_t: Float[Array, "p n"], residual: Float[Array, " n"], mask: Bool[Array, " n"]
    ) -> tuple[Scalar, Float[Array, "p n"], Float[Array, " n"]]:
        z = self.noise.standardise(residual, mask)
        white = jax.vmap(lambda row: self.noise.standardise(row, mask))(jac_t)
        rho, d1, d2 = self.loss(z)
        reweight = jnp.where(z != 0, d1 / jnp.where(z != 0, z, 1), d2)
        return weigh_rows((rho, d1, jnp.maximum(d2, 1e-3 * reweight)), white, mask)

    def standardise(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        return self.noise.standardise(residual, mask)

    def root(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        z = self.noise.standardise(residual, mask)
        safe = jnp.where(z != 0, z, 1)
        return jnp.where(z != 0, jnp.sign(safe) * jnp.sqrt(2 * self.loss(safe)[0]), z)


class Poisson(AbstractRowLikelihood):
    """Counts k with Poisson scatter about the model mu: half the deviance (Cash 1979, eq. 6).

    cost = sum mu - k + k log(k / mu). The residual is mu - k, so mu = residual + k; a model that
    predicts mu <= 0 makes the cost infinite, and the step is shortened. The curvature is the
    expected information 1/mu.

    **Arguments:** `counts`: shape (n,), 0 or more.
    """

    counts: Float[Array, " n"] = rows(1.0)

    def rows(self, residual: Float[Array, " n"]) -> tuple[Array, Array, Array]:
        k = self.counts
        good = residual + k > 0
        mu = jnp.where(good, residual + k, 1)
        some = jnp.where(k > 0, k, 1)
        log = jnp.where(k > 0, k * jnp.log(some / mu), 0)
        value = jnp.where(good, mu - k + log, jnp.inf)
        return value, 1 - k / mu, 1 / mu

    def valid(self, mask: Bool[Array, " n"]) -> Flag:
        return jnp.all(jnp.where(mask, (self.counts >= 0) & jnp.isfinite(self.counts), True))

    def standardise(self, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " n"]:
        """Signed deviance residuals, whose squares sum to the deviance."""
        value = self.rows(residual)[0]
        safe = jnp.where(mask & (residual != 0), value, 1)
        return jnp.where(mask & (residual != 0), jnp.sign(residual) * jnp.sqrt(2 * jnp.maximum(safe, 0)), 0)
