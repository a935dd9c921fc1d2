"""What is sampled: the log-density of a fit, in coordinates in which it is nearly a standard normal.

A `Target` is made of the fit's own `Objective`, so that its bounds, priors, loss and likelihood are those of the fit.
Its coordinate z is whitened by the covariance of the least squares: u = centre + L z with u = `Bounded` of the
parameter and L L^T the covariance over u. `_lanes` moves chains over z; nothing there knows what a fit is.

A noise of unknown scale is integrated over its scale, flat in log sigma: with n rows and the cost c of the data for
sigma = 1, the integral of sigma^-n exp(-c / sigma^2) d sigma / sigma is proportional to c^(-n/2), Student's t for a
linear model (Gelman et al., Bayesian Data Analysis, 3rd ed., section 14.2).
"""

import abc
import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..core import Linearisation, Module, Scalar
from ..core.linalg import cholesky, matvec, solve_general, solve_lower
from ..fitting import Objective
from ._bounded import Bounded

_INSIDE = 1e-2  # of its error, by which a start on a bound is moved inside
_SAFE = 16  # units of rounding: the least ridge of a curvature that the data alone do not make definite


class Start(NamedTuple):
    """Where a posterior begins: what the fit found, for the p elements of its y.

    - `y`, `covariance`, `determined`: of the Solution.
    - `num_data`, `dof`: rows used, and how many of them are beyond the parameters.
    """

    y: Float[Array, " p"]
    covariance: Float[Array, "p p"]
    determined: Bool[Array, " p"]
    num_data: Int[Array, ""]
    dof: Int[Array, ""]


class Box(NamedTuple):
    """Bounds of the p elements of y; infinite where there is none."""

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]


class Frame(Module):
    """The coordinates of the m elements that move: z -> u = centre + factor z -> y within its bounds.

    - `origin`: z of the fit's own answer: 0, but for a start near a bound.
    """

    bounded: Bounded
    centre: Float[Array, " m"]
    factor: Float[Array, "m m"]
    origin: Float[Array, " m"]

    def place(self, z: Float[Array, " m"]) -> tuple[Float[Array, " m"], Scalar]:
        """(values within the bounds, log |du/dz| dy/du less its constant) at z."""
        u = self.centre + matvec(self.factor, z)
        return self.bounded.constrain(u), self.bounded.log_det(u)

    def locate(self, values: Float[Array, " m"]) -> Float[Array, " m"]:
        """z of values within the bounds; those that rounding put on a bound are taken a rounding inside."""
        lower, upper = self.bounded.lower, self.bounded.upper
        ends = (jnp.where(jnp.isfinite(end), jnp.abs(end), 0) for end in (lower, upper))
        least = jnp.finfo(values.dtype).eps * jnp.maximum(sum(ends), self.bounded.scale)
        inside = jnp.clip(values, lower + least, upper - least)
        return solve_general(self.factor, self.bounded.unconstrain(inside) - self.centre)


class AbstractTarget(Module):
    """A posterior over z, whitened and without bounds: what a sampler moves in."""

    @property
    @abc.abstractmethod
    def origin(self) -> Float[Array, " m"]:
        """z of the fit's own answer."""

    @abc.abstractmethod
    def potential(self, z: Float[Array, " m"]) -> Scalar:
        """Minus the log-density over z, less a constant."""

    @abc.abstractmethod
    def constrain(self, z: Float[Array, " m"]) -> Float[Array, " p"]:
        """The parameters that belong to z, within their bounds."""


class Target(AbstractTarget):
    """The posterior of one fit over z.

    - `moving`: the places in y of what moves; the others keep the value that they have in `y`.
    - `free_scale`: the noise's scale is unknown and integrated.
    """

    objective: Objective
    y: Float[Array, " p"]
    num_data: Int[Array, ""]
    frame: Frame
    moving: tuple[int, ...] = eqx.field(static=True)
    free_scale: bool = eqx.field(static=True)

    @property
    def origin(self) -> Float[Array, " m"]:
        return self.frame.origin

    def constrain(self, z: Float[Array, " m"]) -> Float[Array, " p"]:
        return self._whole(self.frame.place(z)[0])

    def potential(self, z: Float[Array, " m"]) -> Scalar:
        # no linearisation: only the cost is computed, and its gradient
        values, log_det = self.frame.place(z)
        return misfit(self.objective, self._whole(values), self.num_data, self.free_scale) - log_det

    def _whole(self, values: Float[Array, " m"]) -> Float[Array, " p"]:
        return self.y.at[jnp.array(self.moving)].set(values)


def misfit(objective: Objective, y: Float[Array, " p"], num_data: Int[Array, ""], free_scale: bool) -> Scalar:
    """Minus the log-density over y, less a constant; with `free_scale` integrated over the scale of the noise.

    Priors know nothing of that scale: they are taken out of the cost before, and added again.
    """
    cost = objective.cost(y)
    if not free_scale:
        return cost
    prior = objective.prior_cost(y)
    return num_data.astype(y.dtype) / 2 * jnp.log(cost - prior) + prior


def make_frame(objective: Objective, start: Start, box: Box, moving: tuple[int, ...], free_scale: bool) -> Frame:
    """The coordinates in which the posterior is nearly a standard normal.

    By the covariance of the Solution, which is that of a QR where the curvature is ill conditioned; and by what the
    bounds add to the curvature over u. Where the data do not determine all that moves, by the curvature itself, which
    the bounds then make definite.
    """
    at = jnp.array(moving)
    y, lower, upper = start.y[at], box.lower[at], box.upper[at]
    covariance = start.covariance[at][:, at]
    known = jnp.all(start.determined[at])
    first = _weighed(objective, start.y, start, free_scale)
    error = errors(jnp.diagonal(covariance), start.determined[at], first.grad[at], y, lower, upper)
    inside = _INSIDE * error
    bounded = Bounded(lower, upper, error)
    centre = jnp.clip(y, lower + error, upper - error)
    begin = jnp.clip(y, lower + inside, upper - inside)
    u = bounded.unconstrain(centre)
    bends = bounded.bends(u)
    there = _weighed(objective, start.y.at[at].set(centre), start, free_scale)
    push = jnp.where(jnp.isfinite(there.grad[at]), there.grad[at], 0)
    stiff = jnp.maximum(push * bends.curve + bends.own, 0)
    stiff = jnp.where(jnp.isfinite(stiff), stiff, 0)
    by_covariance = _half_of_covariance(covariance, bends.slope, stiff)
    curvature: Array = there.gram  # type: ignore[assignment]
    by_curvature = half_of_curvature(curvature[at][:, at], bends.slope, stiff)
    factor = jnp.where(known, by_covariance, by_curvature)
    return Frame(bounded, u, factor, solve_general(factor, bounded.unconstrain(begin) - u))


def _weighed(objective: Objective, y: Float[Array, " p"], start: Start, free_scale: bool) -> Linearisation:
    """The Linearisation in units of the noise: where its scale is unknown, of the scatter that the fit left."""
    lin = objective(y)
    if not free_scale:
        return lin
    scatter = 2 * lin.cost / jnp.maximum(start.dof, 1).astype(y.dtype)
    return Linearisation(lin.cost / scatter, lin.grad / scatter, lin.gram / scatter)


def errors(
    variance: Float[Array, " m"],
    determined: Bool[Array, " m"],
    grad: Float[Array, " m"],
    y: Float[Array, " m"],
    lower: Float[Array, " m"],
    upper: Float[Array, " m"],
) -> Float[Array, " m"]:
    """How far each element is from being known, as its bounds see it.

    Its standard error; against a bound that holds it, no more than the depth 1 / |slope| of the exponential that is
    left of the posterior there; of one that the data do not determine, the standard deviation between its bounds.
    """
    width = upper - lower
    both = jnp.isfinite(width)
    flat = jnp.where(both, width, 1) / math.sqrt(12)
    sane = determined & jnp.isfinite(variance) & (variance > 0)
    error = jnp.where(sane, jnp.sqrt(jnp.where(sane, variance, 1)), flat)
    pushed = ((y <= lower) & (grad > 0)) | ((y >= upper) & (grad < 0))
    error = jnp.where(pushed, jnp.minimum(error, 1 / jnp.where(pushed, jnp.abs(grad), 1)), error)
    return jnp.where(both, jnp.minimum(error, jnp.where(both, width, 1) / 4), error)


def _half_of_covariance(
    covariance: Float[Array, "m m"], slope: Float[Array, " m"], stiff: Float[Array, " m"]
) -> Float[Array, "m m"]:
    """L with L L^T = (C^-1 + diag(stiff))^-1 and C the covariance over u.

    Of the half K of C: L = K M^-T with M M^T = 1 + K^T diag(stiff) K, which is never ill conditioned.
    """
    variance = jnp.diagonal(covariance)
    sane = jnp.isfinite(variance) & (variance > 0)
    error = jnp.where(sane, jnp.sqrt(jnp.where(sane, variance, 1)), 1)
    correlation = covariance / error[:, None] / error[None, :]
    eye = jnp.eye(error.size, dtype=error.dtype)
    half = _safe_half(jnp.where(jnp.isfinite(correlation), correlation, eye)) * (error / slope)[:, None]
    inner = _safe_half(eye + half.T @ (stiff[:, None] * half))
    return solve_lower(inner, half.T).T


def half_of_curvature(
    curvature: Float[Array, "m m"], slope: Float[Array, " m"], stiff: Float[Array, " m"]
) -> Float[Array, "m m"]:
    """L with L L^T = (slope F slope + diag(stiff))^-1."""
    over_u = slope[:, None] * curvature * slope[None, :]
    over_u = jnp.where(jnp.isfinite(over_u), over_u, 0) + jnp.diag(stiff)
    norm = jnp.sqrt(jnp.diagonal(over_u))
    unit = jnp.where(norm > 0, norm, 1)
    half = _safe_half(over_u / unit[:, None] / unit[None, :])
    eye = jnp.eye(norm.size, dtype=norm.dtype)
    return solve_lower(half, eye).T / unit[:, None]


def _safe_half(unit: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """The Cholesky factor of a matrix of unit diagonal, or larger; what rounding made indefinite gets a ridge."""
    eps = _SAFE * unit.shape[0] * float(jnp.finfo(unit.dtype).eps)
    eye = jnp.eye(unit.shape[0], dtype=unit.dtype)
    half, ok = cholesky(unit + eps * eye)
    rough, fine = cholesky(unit + math.sqrt(eps) * eye)
    return jnp.where(ok, half, jnp.where(fine, rough, eye))
