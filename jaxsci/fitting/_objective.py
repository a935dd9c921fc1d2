"""The one thing that solvers, adjoints and covariances see: free parameters -> cost, gradient, curvature.

An `Objective` is a Module, because its arrays are what an answer can be differentiated by. It knows the three ways to
the same sums: all rows at once, chunk after chunk, and block after block of a stream; a data set that has a shorter way
than its Jacobian is asked for that. Free noise parameters add their own information, by the expected curvature.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..core import (
    AbstractLikelihood,
    AbstractNoise,
    AbstractPrepared,
    Flag,
    Linearisation,
    Module,
    Robust,
    Scalar,
    Tree,
    opened,
    split_rows,
)
from ..core.linalg import cholesky, dot, gram, qr_r, svd_square
from ..datasets import AbstractDataset, Stream
from ._terms import ShapedPrior

_CHUNK = 2048  # rows of a stream's block computed at a time, so that their Jacobian stays in the cache


class Inspected(NamedTuple):
    """How many rows count, whether all of them are finite, whether the noise makes sense, its log-determinant or 0."""

    num_data: Int[Array, ""]
    fine: Flag
    valid: Flag
    log_norm: Scalar


class Objective(Module):
    """A model, its free part and a data set, as a function of the flat vector y of free parameters.

    - `rest`: the `Fitted` model and noise without their free leaves.
    - `likelihood`: what turns residuals into numbers; made ready for the data unless noise is free.
    - `prior_mean`, `prior_weight`: Gaussian priors as extra rows; weight 1/sigma^2, 0 for none. `shaped`: the others.
    - `unravel`: y -> the free leaves. `chunk`: rows taken at a time, `None` for all at once (or a block of a stream).
    - `accuracy`: what the solver is asked for, relative; the covariance need be no better.
    - `axis`: of the devices that share the rows, of which `data` has this one's; `None` where it has all of them.
    """

    rest: PyTree
    data: AbstractDataset
    likelihood: AbstractLikelihood
    prior_mean: Float[Array, " p"]
    prior_weight: Float[Array, " p"]
    unravel: Callable[..., Any] = eqx.field(static=True)
    chunk: int | None = eqx.field(static=True)
    free_noise: bool = eqx.field(static=True)
    accuracy: float = eqx.field(static=True)
    shaped: tuple[ShapedPrior, ...] = ()
    axis: str | None = eqx.field(static=True, default=None)

    def parts(self, y: Float[Array, " p"]) -> tuple[Any, Any]:
        """(model, noise) at y."""
        fitted = opened(self.fitted(y))
        return fitted.model, fitted.noise

    def fitted(self, y: Float[Array, " p"]) -> Any:
        """The `Fitted` at y, closed: all of its leaves are arrays."""
        return eqx.combine(self.unravel(y), self.rest)

    def model(self, y: Float[Array, " p"]) -> Any:
        """The model at y."""
        return self.parts(y)[0]

    @property
    def places(self) -> Any:
        """The model with places in y for its free leaves, and None for all others."""
        return self.unravel(jnp.arange(self.prior_mean.size, dtype=self.prior_mean.dtype)).model

    def residual(self, y: Float[Array, " p"]) -> Float[Array, " n"]:
        """model - observed at y."""
        return opened(self.data).residual(self.model(y))

    def __call__(self, y: Float[Array, " p"], args: None = None) -> Linearisation:
        """The Linearisation at y."""
        if self.free_noise:
            return self._joint(y)
        return self._add_prior(y, self.likelihood.finish(self._total(y, True)))

    def cost(self, y: Float[Array, " p"]) -> Scalar:
        """The cost alone."""
        if self.free_noise:
            return self._noise_cost(y) + self.prior_cost(y)
        return self.likelihood.finish(self._total(y, False)).cost + self.prior_cost(y)

    def hessian(self, y: Float[Array, " p"]) -> Float[Array, "p p"]:
        """The exact second derivative of the cost."""
        if self.axis is not None:
            # backwards through sums that all devices have, each of them would count the others' derivatives as its own
            return jax.jacfwd(lambda y: self(y).grad)(y)
        if not self.free_noise and type(self.data).sums is not AbstractDataset.sums:
            # data that know their gradient: one derivative of it is a third less to compile than two of the cost
            return jax.jacfwd(lambda y: self(y).grad)(y)
        try:
            return jax.hessian(self.cost)(y)
        except ValueError as error:
            if "Reverse-mode differentiation does not work" not in str(error):
                raise
        # loops of unknown length, such as an ODE solver's, have forward derivatives alone
        return jax.jacfwd(jax.jacfwd(self.cost))(y)

    def root(self, y: Float[Array, " p"]) -> Float[Array, " n"]:
        """Rows, those of the priors last, whose squares sum to twice the cost."""
        rows = self.likelihood.root(self.residual(y), self.data.mask)
        gaussian = _root(self.prior_weight) * (y - self.prior_mean)
        return jnp.concatenate([rows, gaussian, *(s.row(y) for s in self.shaped)])

    def prior_rows(self, y: Float[Array, " p"]) -> Float[Array, "p p"]:
        """The derivatives of the priors' rows at y: the root of their curvature on the diagonal."""
        return jnp.diag(_root(self.prior_curvature(y)))

    def prior_curvature(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """The second derivative of the priors' cost, none below 0."""
        return sum((s.curvature(y) for s in self.shaped), self.prior_weight)

    def prior_slope(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """The derivative of the priors' cost."""
        return sum((s.slope(y) for s in self.shaped), self.prior_weight * (y - self.prior_mean))

    @property
    def has_prior(self) -> Bool[Array, " p"]:
        """True where a prior says something of a parameter; limits alone do not count."""
        some = self.prior_weight > 0
        for shaped in self.shaped:
            some |= shaped.present(self.prior_weight)
        return some

    def inspect(self, noise: AbstractLikelihood) -> Inspected:
        """What a fit wants to know of the data and their noise, whatever the model.

        In chunks where asked, without an array as long as the data; but noise that couples all rows is asked at once.
        """
        apart = noise.coupled and not self.whole

        def of_noise(data: AbstractDataset, noise: AbstractLikelihood) -> tuple[Array, Array]:
            known = self.likelihood if isinstance(self.likelihood, AbstractPrepared) else noise
            log = known.logdet(data.mask) if isinstance(known, AbstractNoise) else jnp.zeros(())
            return noise.valid(data.mask), log

        def look(data: AbstractDataset, noise: AbstractLikelihood | None) -> tuple[Array, ...]:
            seen = () if noise is None else of_noise(data, noise)
            return jnp.sum(data.mask), opened(data).finite(), *seen

        def add(a: Tree, b: Tree) -> Any:
            return jtu.tree_map(lambda x, y: x & y if x.dtype == bool else x + y, a, b)

        seen = self._fold(None if apart else noise, look, add)
        return Inspected(*seen, *(of_noise(self.data, noise) if apart else ()))

    def weighed(self, y: Float[Array, " p"]) -> tuple[Scalar, Float[Array, "m p"]]:
        """(cost, rows whose products J^T J are the curvature at y); those of chunks reduced by TSQR to R."""
        if self.free_noise:
            return self.cost(y), self._joint_rows(y)
        total = self.prior_cost(y), self.prior_rows(y)
        if self.likelihood.coupled and not self.whole:
            lin = self(y)  # chunks of coupled rows cannot be weighed one by one
            return lin.cost, cholesky(lin.gram)[0].T

        def weigh(data: AbstractDataset, likelihood: AbstractLikelihood) -> tuple[Array, Array]:
            residual, jac_t = self.linearised(data, y)
            cost, jac_t, _ = likelihood.weigh(jac_t, residual, data.mask)
            return cost, jac_t.T if self.whole else qr_r(jac_t.T)

        def add(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
            rows = jnp.concatenate([a[1], b[1]])
            return a[0] + b[0], rows if self.whole else qr_r(rows)

        return add(self._fold(self.likelihood, weigh, add), total)

    def chi2(self, y: Float[Array, " p"], cost: Scalar) -> Scalar:
        """Sum of squared standardised residuals, prior rows included; `cost` is the cost at y."""
        if self.free_noise:
            model, noise = self.parts(y)
            return 2 * (noise.cost(opened(self.data).residual(model), self.data.mask) + self.prior_cost(y))
        if isinstance(self.likelihood, Robust):
            return 2 * eqx.tree_at(lambda o: o.likelihood, self, self.likelihood.noise).cost(y)
        return 2 * cost

    def prior_cost(self, y: Float[Array, " p"]) -> Scalar:
        """The cost of the priors alone."""
        gaussian = jnp.sum(self.prior_weight * (y - self.prior_mean) ** 2) / 2
        return sum((s.cost(y) for s in self.shaped), gaussian)

    def _add_prior(self, y: Array, lin: Linearisation) -> Linearisation:
        gram = lin.gram + jnp.diag(self.prior_curvature(y))
        return Linearisation(lin.cost + self.prior_cost(y), lin.grad + self.prior_slope(y), gram)

    @property
    def whole(self) -> bool:
        """True where all rows are taken at once."""
        if isinstance(self.data, Stream) or self.axis is not None:
            return False
        return self.chunk is None or self.data.mask.shape[0] <= self.chunk

    def linearised(self, data: AbstractDataset, y: Array) -> tuple[Array, Array]:
        """(residuals, their derivatives with y, shape (p, n))."""
        data = opened(data)
        short = data.jacobian(self, y)
        return jacobian_t(lambda y: data.residual(self.model(y)), y) if short is None else short

    def _total(self, y: Array, derivatives: bool) -> PyTree:
        """The likelihood's sums over all rows."""

        def sums(data: AbstractDataset, likelihood: AbstractLikelihood) -> PyTree:
            data = opened(data)
            short = data.sums(self, y, likelihood, derivatives)
            if short is not None:
                return short
            if derivatives:
                residual, jac_t = self.linearised(data, y)
                return likelihood.sums(jac_t, residual, data.mask)
            residual = data.residual(self.model(y))
            return likelihood.sums(jnp.zeros((0, residual.shape[0]), residual.dtype), residual, data.mask)

        return self._fold(self.likelihood, sums, lambda a, b: jtu.tree_map(jnp.add, a, b))

    def _fold(self, likelihood: AbstractLikelihood | None, part: Callable[..., Any], add: Callable[..., Any]) -> PyTree:
        """part(data, likelihood) of all rows, or those of their pieces added up: chunks, blocks, devices."""
        total = self._fold_here(likelihood, part, add)
        if self.axis is None:
            return total
        return _sum_over(lambda x: x, lax.all_gather(total, self.axis), add)

    def _fold_here(
        self, likelihood: AbstractLikelihood | None, part: Callable[..., Any], add: Callable[..., Any]
    ) -> PyTree:
        """The same of the rows that are here."""
        if self.whole:
            return part(self.data, likelihood)
        if not isinstance(self.data, Stream):
            return _fold_chunks((self.data, likelihood), self.chunk, part, add)
        stream = self.data

        @jax.checkpoint
        def block(i: Array) -> PyTree:
            return _fold_chunks(stream.read(i, likelihood), self.chunk or _CHUNK, part, add)

        return _sum_over(block, stream.index, add)

    def _noise_cost(self, y: Array) -> Array:
        """Minus the log-likelihood with its log-determinant, for noise parameters that are free."""
        model, noise = self.parts(y)
        residual = opened(self.data).residual(model)
        assert isinstance(noise, AbstractNoise)
        return minus_log_likelihood(noise, residual, self.data.mask)

    def _joint(self, y: Array) -> Linearisation:
        """Model parameters by Gauss-Newton, noise parameters by the expected information.

        With w(y) the whitened residuals at fixed model residual and C = L L^T, the Fisher matrix of
        the noise block is tr(C^-1 C_a C^-1 C_b) / 2; for independent rows that is
        sum (log v)_a (log v)_b / 2, for any other noise the exact Hessian stands in for it.
        """
        mask = self.data.mask
        model, noise = self.parts(y)
        residual = opened(self.data).residual(model)

        _, jac_t = self.linearised(self.data, y)
        ready = noise.prepare(mask)
        gauss_newton = ready.finish(ready.sums(jac_t, residual, mask)).gram

        cost, grad = jax.value_and_grad(self._noise_cost)(y)
        return self._add_prior(y, Linearisation(cost, grad, gauss_newton + _noise_information(self, y, residual)))

    def _joint_rows(self, y: Array) -> Array:
        """Rows of the model, of the noise's own information, and of the priors."""
        residual, jac_t = self.linearised(self.data, y)
        _, jac_t, _ = self.parts(y)[1].prepare(self.data.mask).weigh(jac_t, residual, self.data.mask)
        return jnp.concatenate([jac_t.T, noise_rows(self, y), self.prior_rows(y)])


def _root(curvature: Float[Array, " p"]) -> Float[Array, " p"]:
    """The square root; 0 at 0, with a derivative of 0 there."""
    some = curvature > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, curvature, 1)), 0)


def noise_rows(objective: Objective, y: Float[Array, " p"]) -> Float[Array, "m p"]:
    """Rows whose products are the information on the noise parameters."""
    if objective.parts(y)[1].log_variance(objective.data.mask) is not None:
        _, log_t = jacobian_t(lambda y: objective.parts(y)[1].log_variance(objective.data.mask), y)
        return log_t.T / math.sqrt(2)
    values, vectors = svd_square(_noise_hessian(objective, y, objective.residual(y)))
    return jnp.sqrt(values)[:, None] * vectors.T


def _noise_hessian(objective: Objective, y: Float[Array, " p"], residual: Float[Array, " n"]) -> Float[Array, "p p"]:
    """The exact second derivative with the noise's parameters, which are the last of y; 0 for those of the model."""
    model = sum(leaf.size for leaf in jtu.tree_leaves(jax.eval_shape(objective.unravel, y).model))

    def noise_only(last: Array) -> Array:
        noise = objective.parts(jnp.concatenate([y[:model], last]))[1]
        return minus_log_likelihood(noise, residual, objective.data.mask)

    return jnp.pad(jax.hessian(noise_only)(y[model:]), ((model, 0), (model, 0)))


def _noise_information(objective: Objective, y: Float[Array, " p"], residual: Float[Array, " n"]) -> Array:
    if objective.parts(y)[1].log_variance(objective.data.mask) is None:
        return _noise_hessian(objective, y, residual)
    _, log_t = jacobian_t(lambda y: objective.parts(y)[1].log_variance(objective.data.mask), y)
    return gram(log_t, log_t) / 2


def minus_log_likelihood(noise: AbstractNoise, residual: Float[Array, " n"], mask: Bool[Array, " n"]) -> Scalar:
    """r^T C^-1 r / 2 + log |C| / 2."""
    ready: Any = noise.prepare(mask)
    return ready.cost(residual, mask) + ready.logdet(mask) / 2


def jacobian_t(fn: Callable[..., Any], y: Float[Array, " p"]) -> tuple[Float[Array, " n"], Float[Array, "p n"]]:
    """fn(y) and its transposed Jacobian: one linearisation, rows in memory order."""
    value, tangent = jax.linearize(fn, y)
    return value, jax.vmap(tangent)(jnp.eye(y.size, dtype=y.dtype))


def _fold_chunks(
    tree: tuple[AbstractDataset, Tree], chunk: int | None, part: Callable[..., Any], add: Callable[..., Any]
) -> PyTree:
    """part(*tree) of `chunk` rows at a time, added up."""
    n = tree[0].mask.shape[0]
    if chunk is None or n <= chunk:
        return part(*tree)
    rows, other = split_rows(tree)

    @jax.checkpoint
    def piece(rows: Tree) -> PyTree:
        return part(*eqx.combine(rows, other))

    body = n // chunk * chunk
    total = _sum_over(piece, jtu.tree_map(lambda x: x[:body].reshape(-1, chunk, *x.shape[1:]), rows), add)
    return add(total, piece(jtu.tree_map(lambda x: x[body:], rows))) if body < n else total


def _sum_over(fn: Callable[..., Any], xs: Tree, add: Callable[..., Any]) -> PyTree:
    """fn of each element along the leading axis of xs, added up, from 0 and True."""
    shapes = jax.eval_shape(fn, jtu.tree_map(lambda x: x[0], xs))
    start = jtu.tree_map(lambda s: jnp.full(s.shape, s.dtype == bool, s.dtype), shapes)
    return lax.scan(lambda total, x: (add(total, fn(x)), None), start, xs)[0]


def least_squares_linearise(residual: Callable[..., Any], y: Float[Array, " p"]) -> Linearisation:
    """The Linearisation of half the sum of squares of any residual function."""
    value, jac_t = jacobian_t(residual, y)
    return Linearisation(dot(value, value) / 2, dot(jac_t, value[None, :]), jac_t @ jac_t.T)
