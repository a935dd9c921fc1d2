"""The one thing that solvers, adjoints and covariances see: free parameters -> cost, gradient, curvature."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, Int, PyTree

from ..core._dataset import AbstractDataset
from ..core._likelihood import AbstractLikelihood, Linearisation, Robust
from ..core._linalg import dot, gram, svd_square
from ..core._module import Module
from ..core._noise import AbstractNoise
from ..core._rows import split_rows
from ..core._typing import Flag, Scalar


class Objective(Module):
    """A model, its free part and a data set, as a function of the flat vector y of free parameters.

    - `rest`: the `Fitted` model and noise without their free leaves.
    - `likelihood`: what turns residuals into numbers; made ready for the data unless noise is free.
    - `prior_mean`, `prior_weight`: Gaussian priors as extra rows; weight 1/sigma^2, 0 for none.
    - `unravel`: y -> the free leaves. `chunk`: rows taken at a time, `None` for all at once.
    """

    rest: PyTree
    data: AbstractDataset
    likelihood: AbstractLikelihood
    prior_mean: Float[Array, " p"]
    prior_weight: Float[Array, " p"]
    unravel: Callable[..., Any] = eqx.field(static=True)
    chunk: int | None = eqx.field(static=True)
    free_noise: bool = eqx.field(static=True)

    def parts(self, y: Float[Array, " p"]) -> tuple[Any, Any]:
        """(model, noise) at y."""
        fitted = eqx.combine(self.unravel(y), self.rest)
        return fitted.model, fitted.noise

    def model(self, y: Float[Array, " p"]) -> Any:
        """The model at y."""
        return self.parts(y)[0]

    def residual(self, y: Float[Array, " p"]) -> Float[Array, " n"]:
        """model - observed at y."""
        return self.data.residual(self.model(y))

    def __call__(self, y: Float[Array, " p"], args: Any = None) -> Linearisation:
        """The Linearisation at y."""
        if self.free_noise:
            return self._joint(y)
        return self._add_prior(y, self.likelihood.finish(self._total(y, jacobian_t)))

    def cost(self, y: Float[Array, " p"]) -> Scalar:
        """The cost alone."""
        if self.free_noise:
            return self._noise_cost(y) + self.prior_cost(y)
        return self.likelihood.finish(self._total(y, _no_jacobian)).cost + self.prior_cost(y)

    def hessian(self, y: Float[Array, " p"]) -> Float[Array, "p p"]:
        """The exact second derivative of the cost."""
        return jax.hessian(self.cost)(y)

    def root(self, y: Float[Array, " p"]) -> Float[Array, " n"]:
        """Rows, those of the priors last, whose squares sum to twice the cost."""
        rows = self.likelihood.root(self.residual(y), self.data.mask)
        return jnp.concatenate([rows, self.prior_root() * (y - self.prior_mean)])

    def prior_root(self) -> Float[Array, " p"]:
        """1/sigma of each prior; 0 without one, with a derivative of 0 there."""
        some = self.prior_weight > 0
        return jnp.where(some, jnp.sqrt(jnp.where(some, self.prior_weight, 1)), 0)

    def survey(self) -> tuple[Int[Array, ""], Flag]:
        """(rows that count, whether all of them are finite), in chunks where asked: no array as long as the data."""

        def look(data: AbstractDataset) -> tuple[Array, Array]:
            return jnp.sum(data.mask), data.finite()

        n = self.data.mask.shape[0]
        if self.chunk is None or n <= self.chunk:
            return look(self.data)
        rows, other = split_rows(self.data)
        body = n // self.chunk * self.chunk
        count, fine = look(eqx.combine(jtu.tree_map(lambda x: x[body:], rows), other))
        pieces = jtu.tree_map(lambda x: x[:body].reshape(-1, self.chunk, *x.shape[1:]), rows)

        def add(total: tuple[Array, Array], piece: PyTree) -> tuple[tuple[Array, Array], None]:
            count, fine = look(eqx.combine(piece, other))
            return (total[0] + count, total[1] & fine), None

        return jax.lax.scan(add, (count, fine), pieces)[0]

    def chi2(self, y: Float[Array, " p"], cost: Scalar) -> Scalar:
        """Sum of squared standardised residuals, prior rows included; `cost` is the cost at y."""
        if self.free_noise:
            model, noise = self.parts(y)
            return 2 * (noise.cost(self.data.residual(model), self.data.mask) + self.prior_cost(y))
        if isinstance(self.likelihood, Robust):
            return 2 * eqx.tree_at(lambda o: o.likelihood, self, self.likelihood.noise).cost(y)
        return 2 * cost

    def prior_cost(self, y: Float[Array, " p"]) -> Scalar:
        """The cost of the priors alone."""
        return jnp.sum(self.prior_weight * (y - self.prior_mean) ** 2) / 2

    def _add_prior(self, y: Array, lin: Linearisation) -> Linearisation:
        grad = lin.grad + self.prior_weight * (y - self.prior_mean)
        return Linearisation(lin.cost + self.prior_cost(y), grad, lin.gram + jnp.diag(self.prior_weight))

    def _total(self, y: Array, jacobian: Callable[..., Any]) -> PyTree:
        """The likelihood's sums over all rows, in chunks where asked."""

        def sums(data: AbstractDataset, likelihood: AbstractLikelihood) -> PyTree:
            residual, jac_t = jacobian(lambda y: data.residual(self.model(y)), y)
            return likelihood.sums(jac_t, residual, data.mask)

        n = self.data.mask.shape[0]
        if self.chunk is None or n <= self.chunk:
            return sums(self.data, self.likelihood)
        rows, other = split_rows((self.data, self.likelihood))

        @jax.checkpoint
        def part(piece: PyTree) -> PyTree:
            return sums(*eqx.combine(piece, other))

        body = n // self.chunk * self.chunk
        pieces = jtu.tree_map(lambda x: x[:body].reshape(-1, self.chunk, *x.shape[1:]), rows)
        first = part(jtu.tree_map(lambda x: x[body:], rows)) if body < n else None
        zero = jtu.tree_map(
            lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(part, jtu.tree_map(lambda x: x[0], pieces))
        )
        start = zero if first is None else first
        return jax.lax.scan(lambda total, piece: (jtu.tree_map(jnp.add, total, part(piece)), None), start, pieces)[0]

    def _noise_cost(self, y: Array) -> Array:
        """Minus the log-likelihood with its log-determinant, for noise parameters that are free."""
        model, noise = self.parts(y)
        residual = self.data.residual(model)
        assert isinstance(noise, AbstractNoise)
        return noise.cost(residual, self.data.mask) + noise.logdet(self.data.mask) / 2

    def _joint(self, y: Array) -> Linearisation:
        """Model parameters by Gauss-Newton, noise parameters by the expected information.

        With w(y) the whitened residuals at fixed model residual and C = L L^T, the Fisher matrix of
        the noise block is tr(C^-1 C_a C^-1 C_b) / 2; for independent rows that is
        sum (log v)_a (log v)_b / 2, for any other noise the exact Hessian stands in for it.
        """
        mask = self.data.mask
        model, noise = self.parts(y)
        residual = self.data.residual(model)

        def of_model(y: Array) -> Array:
            return self.data.residual(self.model(y))

        _, jac_t = jacobian_t(of_model, y)
        ready = noise.prepare(mask)
        gauss_newton = ready.finish(ready.sums(jac_t, residual, mask)).gram

        def noise_only(y: Array) -> Array:
            noise = self.parts(y)[1]
            return noise.cost(residual, mask) + noise.logdet(mask) / 2

        cost, grad = jax.value_and_grad(self._noise_cost)(y)
        return self._add_prior(y, Linearisation(cost, grad, gauss_newton + _noise_information(self, y, noise_only)))


def noise_rows(objective: Objective, y: Float[Array, " p"]) -> Float[Array, "m p"]:
    """Rows whose products are the information on the noise parameters."""
    if objective.parts(y)[1].log_variance(objective.data.mask) is not None:
        _, log_t = jacobian_t(lambda y: objective.parts(y)[1].log_variance(objective.data.mask), y)
        return log_t.T / math.sqrt(2)
    residual, mask = objective.residual(y), objective.data.mask

    def noise_only(y: Array) -> Array:
        noise = objective.parts(y)[1]
        return noise.cost(residual, mask) + noise.logdet(mask) / 2

    values, vectors = svd_square(jax.hessian(noise_only)(y))
    return jnp.sqrt(values)[:, None] * vectors.T


def _noise_information(objective: Objective, y: Array, noise_only: Callable[..., Any]) -> Array:
    if objective.parts(y)[1].log_variance(objective.data.mask) is None:
        return jax.hessian(noise_only)(y)
    _, log_t = jacobian_t(lambda y: objective.parts(y)[1].log_variance(objective.data.mask), y)
    return gram(log_t, log_t) / 2


def jacobian_t(fn: Callable[..., Any], y: Float[Array, " p"]) -> tuple[Float[Array, " n"], Float[Array, "p n"]]:
    """fn(y) and its transposed Jacobian: one linearisation, rows in memory order."""
    value, tangent = jax.linearize(fn, y)
    return value, jax.vmap(tangent)(jnp.eye(y.size, dtype=y.dtype))


def _no_jacobian(fn: Callable[..., Any], y: Array) -> tuple[Array, Array]:
    value = fn(y)
    return value, jnp.zeros((0, value.shape[0]), value.dtype)


def least_squares_linearise(residual: Callable[..., Any], y: Float[Array, " p"]) -> Linearisation:
    """The Linearisation of half the sum of squares of any residual function."""
    value, jac_t = jacobian_t(residual, y)
    return Linearisation(dot(value, value) / 2, dot(jac_t, value[None, :]), jac_t @ jac_t.T)
