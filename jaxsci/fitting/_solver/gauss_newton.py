"""Damped Gauss-Newton (Levenberg-Marquardt), projected onto bounds.

A factorisation a step and no search for a multiplier make it the cheapest solver to compile, and the choice inside
larger programs. When to accept, to stop and to polish is what it shares with `TRF`, in `_trust_region`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array

from ...core.linalg import diagonal, dot, factorise, largest_row, scaled, shifted
from ._trust_region import AbstractTrustSolver, Local, Proposal, TrustState, quadratic, unit_scale

_MEMORY = 1e10  # by how much the damping may exceed that in the scale of the columns as they are


class GaussNewton(AbstractTrustSolver):
    """Levenberg-Marquardt with More's scaling; bounds by an active set and projection.

    The cheapest solver to compile; in a batch it runs about as fast as TRF. A parameter on a bound that the gradient
    pushes against is held; the step of the others is clipped.

    **Arguments:**

    - `rtol`: stop when the step expected from here is this small in units of the noise
      (sqrt(g^T F^-1 g) <= rtol sqrt(2 cost)); undamped polishing steps follow.
    - `atol`: or when each parameter would change by no more than this fraction of itself.
    - `damping`: the first damping, relative to the scaled curvature.
    - `fine`: a polishing step this small, in the units of `rtol`, is not worth an evaluation.

    Levenberg 1944; Marquardt 1963; More 1978 (scaling); Bertsekas 1982 (projection).
    """

    rtol: float = 1e-8
    atol: float = 1e-12
    damping: float = 1e-3
    fine: float = 1e-13
    norm: Callable = optx.max_norm

    def start(self, y, bounds):  # type: ignore[no-untyped-def]
        return bounds.clip(y), self.damping

    def update_radius(self, state: TrustState, ratio, finite):  # type: ignore[no-untyped-def]
        factor = jnp.where(ratio > 0.75, 0.2, jnp.where(ratio > 0.25, 1.0, 4.0))
        damping = state.radius * jnp.where(finite, factor, 10.0).astype(state.radius.dtype)
        # far below rounding, because it counts in the scale of columns that may have been a million times longer
        return jnp.maximum(damping, float(jnp.finfo(damping.dtype).eps) ** 3)

    def propose(self, local: Local, state: TrustState, radius):  # type: ignore[no-untyped-def]
        inverse = jnp.where(local.held, 0, unit_scale(local.gram, local.inverse_scale))
        # damping counts in the scale of the largest columns so far; with more memory than this it would leave of a step
        # nothing that rounding can see
        weight = jnp.minimum((inverse / local.inverse_scale) ** 2, _MEMORY)
        matrix = scaled(local.gram, inverse)
        grad = local.grad * inverse
        eps = jnp.finfo(grad.dtype).eps
        # a parameter without effect, and a held one, gets a unit pivot and so no step
        idle = (diagonal(matrix) == 0).astype(grad.dtype)

        def solved(extra: Array) -> tuple[Array, Array, Array]:
            factor = factorise(shifted(matrix, extra))
            return factor.solve(grad), factor.ok, factor.least

        # undamped and damped side by side: what is compiled once
        both = jax.vmap(solved)(jnp.stack([idle + grad.size * eps, idle + grad.size * eps + radius * weight]))
        (newton, damped), (sound, ok), (least, _) = both
        # an indefinite matrix (exact Hessian far from the optimum): a short step downhill, then more damping
        downhill = grad / (radius * weight + largest_row(matrix))
        step = -jnp.where(ok, damped, downhill) * inverse
        decrement = jnp.sqrt(jnp.maximum(dot(newton, grad), 0))
        trial = local.y + step
        if local.bounds.exist:
            # stop short of a bound, the shorter the farther from the optimum: on it a parameter may lose its effect
            inner = local.bounds.clip(trial)
            size = jnp.sqrt(2 * jnp.abs(local.cost)) + jnp.finfo(grad.dtype).tiny
            share = jnp.maximum(0.995, 1 - decrement / size)
            trial = jnp.where(inner == trial, trial, local.y + share * (inner - local.y))
        step = trial - local.y
        radius = jnp.where(ok, radius, 10 * radius)
        return Proposal(
            trial=trial,
            radius=radius,
            multiplier=radius,
            predicted=-quadratic(local.grad, local.gram, step),
            length=radius,
            newton=-newton * inverse,
            decrement=decrement,
            solved=sound,
            determined=least > 64 * grad.size * eps,
        )
