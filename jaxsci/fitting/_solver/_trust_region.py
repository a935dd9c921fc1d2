"""What the damped and the trust-region solver share: when to accept, when to stop, how to polish.

One pass of the loop linearises at one trial point, and the carry holds only n-sized and n x n
arrays. The state starts independent of the data ("first" flag, trial = y0), so that the same
program starts and resumes. All tests are free of the scale of data and parameters.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ...core._likelihood import Linearisation
from ...core._linalg import cholesky, dot, matvec, solve_factored
from ...core._module import Module
from ...core._typing import Flag, Scalar
from .._objective import least_squares_linearise

_POLISH = 20  # undamped steps at the end, at most; each must flatten the gradient by a third
_NEAR = 0.1  # cosine between the residual and the tangent plane of the model
_POOR = 2.6  # of 1 + .8 + .64 + ...: four poor steps in a row, or a dozen every other step


class Bounds(Module):
    """Lower and upper bounds; equal ones fix the parameter."""

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]

    @property
    def fixed(self) -> Bool[Array, " p"]:
        return self.lower >= self.upper

    def held(self, y: Float[Array, " p"], grad: Float[Array, " p"]) -> Bool[Array, " p"]:
        """Parameters that are fixed, or on a bound with the gradient pushing against it."""
        return self.fixed | ((y <= self.lower) & (grad > 0)) | ((y >= self.upper) & (grad < 0))


class Evaluate(Module):
    """fn, args and options of an optimistix solve as functions of a flat y.

    `options["linearise"]` (a Module y -> Linearisation, with a `hessian` method) takes the place of
    fn where given. It must be a Module: a closure over arrays would silently lose its gradients.
    """

    fn: Any
    args: PyTree
    lineariser: Any
    unravel: Callable[..., Any] = eqx.field(static=True)

    def linearise(self, y: Float[Array, " p"]) -> Linearisation:
        if self.lineariser is not None:
            return self.lineariser(y, self.args)
        return least_squares_linearise(self._residual, y)

    def hessian(self, y: Float[Array, " p"]) -> Float[Array, "p p"]:
        if self.lineariser is not None:
            return self.lineariser.hessian(y)
        return jax.hessian(lambda y: jnp.sum(self._residual(y) ** 2) / 2)(y)

    def _residual(self, y: Array) -> Array:
        return jfu.ravel_pytree(self.fn(self.unravel(y), self.args)[0])[0]


def read_options(fn: Any, y: PyTree, args: PyTree, options: dict[str, Any]) -> tuple[Array, Evaluate, Bounds]:
    """Flat y, how to evaluate, and flat bounds, from what optimistix hands to a solver."""
    flat, unravel = jfu.ravel_pytree(y)
    lineariser = options.get("linearise")
    if lineariser is not None and not isinstance(lineariser, eqx.Module | jtu.Partial):
        raise TypeError(
            "options['linearise'] must be a Module (or jax.tree_util.Partial), not "
            f"{type(lineariser).__name__}: a closure over arrays gives silently wrong gradients"
        )

    def flat_bound(name: str, default: float) -> Array:
        tree = options.get(name)
        tree = default if tree is None else tree
        spread = jtu.tree_map(lambda _: tree, y) if jnp.ndim(tree) == 0 and not isinstance(tree, dict) else tree
        return jfu.ravel_pytree(jtu.tree_map(lambda b, v: jnp.broadcast_to(b, jnp.shape(v)).astype(v.dtype), spread, y))[0]

    bounds = Bounds(flat_bound("lower", -jnp.inf), flat_bound("upper", jnp.inf))
    return flat, Evaluate(fn, args, lineariser, unravel), bounds


class TrustState(Module):
    """The carry of the loop: the accepted point's linearisation and the trial point."""

    trial: Float[Array, " p"]
    lin: Linearisation
    scale: Float[Array, " p"]  # largest column norms so far (More 1978)
    radius: Scalar  # damping, or trust radius
    multiplier: Scalar  # of the last subproblem
    predicted: Scalar  # decrease of cost that the trial promises
    length: Scalar  # scaled length of the trial step
    cosine: Scalar  # between the residual and the tangent plane at the accepted point
    poor: Scalar  # recent steps that the quadratic model mispredicted, decaying
    exact: Flag  # True: use the exact Hessian instead of the Gauss-Newton matrix
    first: Flag
    polish: Int[Array, ""]  # 0 while searching, then counts undamped steps
    done: Flag
    failed: Flag  # not finite at the start
    stalled: Flag  # no step decreases the cost although the gradient says so


class Proposal(Module):
    """Where to try next: what a search hands back to the shared loop."""

    trial: Float[Array, " p"]
    radius: Scalar
    multiplier: Scalar
    predicted: Scalar
    length: Scalar


class Local(Module):
    """The quadratic model about the accepted point, in scaled variables (unit diagonal)."""

    y: Float[Array, " p"]
    grad: Float[Array, " p"]
    gram: Float[Array, "p p"]
    inverse_scale: Float[Array, " p"]
    held: Bool[Array, " p"]
    bounds: Bounds
    cost: Scalar


class AbstractTrustSolver(optx.AbstractLeastSquaresSolver):
    """A bounded least-squares solver in one loop; subclasses say how far to trust which step."""

    rtol: eqx.AbstractVar[float]
    atol: eqx.AbstractVar[float]

    @abc.abstractmethod
    def start(self, y: Float[Array, " p"], bounds: Bounds) -> tuple[Array, float]:
        """(the first trial point, the first radius)."""

    @abc.abstractmethod
    def update_radius(self, state: TrustState, ratio: Scalar, finite: Flag) -> Scalar:
        """The radius after a step whose actual decrease was `ratio` times the promised one."""

    @abc.abstractmethod
    def propose(self, local: Local, state: TrustState, radius: Scalar) -> Proposal:
        """The next trial point."""

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):  # type: ignore[no-untyped-def]
        if options.get("state") is not None:
            return options["state"]
        y, _, bounds = read_options(fn, y, args, options)
        y, radius = self.start(y, bounds)
        zero, no = jnp.zeros((), y.dtype), jnp.array(False)
        lin = Linearisation(zero + jnp.inf, jnp.zeros_like(y), jnp.eye(y.size, dtype=y.dtype))
        return TrustState(
            y, lin, jnp.zeros_like(y), zero + radius, zero, zero, zero, zero + 1, zero, no, jnp.array(True), jnp.array(0), no, no, no
        )

    def step(self, fn, y, args, options, state, tags):  # type: ignore[no-untyped-def]
        y_tree = y
        y, evaluate, bounds = read_options(fn, y, args, options)
        new = evaluate.linearise(state.trial)
        finite = jnp.isfinite(new.cost) & jnp.all(jnp.isfinite(new.grad)) & jnp.all(jnp.isfinite(new.gram))
        accept, ratio = _judge(state, new, finite, y, bounds)
        y = jnp.where(accept, state.trial, y)
        lin = jtu.tree_map(lambda a, b: jnp.where(accept, a, b), new, state.lin)
        norms = jnp.sqrt(jnp.maximum(jnp.diagonal(lin.gram), 0))
        scale = jnp.maximum(state.scale, norms)

        poor, exact = _mistrust(state, ratio, finite)
        hessian = _exact_hessian(evaluate, y, lin.gram, exact)
        inverse = 1 / jnp.where(scale > 0, scale, 1)
        local = Local(y, lin.grad, hessian, inverse, bounds.held(y, lin.grad), bounds, lin.cost)

        eps = jnp.finfo(y.dtype).eps
        newton = _newton(Local(y, lin.grad, lin.gram, inverse, _near(local), bounds, lin.cost))
        converged = newton.solved & (
            (newton.decrement <= self.rtol * jnp.sqrt(2 * jnp.abs(lin.cost)))
            | jnp.all(jnp.abs(newton.step) <= self.atol * jnp.abs(y))
            | (newton.decrement <= newton.noise)
            | (newton.slope <= 1e3 * eps * jnp.sqrt(2 * jnp.abs(lin.cost)))
        )
        searching = state.polish == 0
        radius = jnp.where(state.first, state.radius, self.update_radius(state, ratio, finite))
        proposal = self.propose(local, state, radius)
        dead = ~jnp.all(jnp.isfinite(proposal.trial)) | jnp.all(proposal.trial == y)
        hopeless = jnp.abs(proposal.predicted) <= 16 * eps * jnp.abs(lin.cost)
        settled = converged | (~accept & ~state.first & hopeless) | dead
        polish = jnp.where(searching, jnp.where(settled, 1, 0), state.polish + 1)
        tiny = jnp.all(jnp.abs(newton.step) <= eps * jnp.abs(y)) | (newton.decrement == 0)
        over = (polish > 0) & (tiny | ~newton.solved | ~newton.determined | (polish > _POLISH) | (~searching & ~accept))
        failed = state.first & ~finite
        state = TrustState(
            trial=jnp.where(polish > 0, newton.target, proposal.trial),
            lin=lin,
            scale=scale,
            radius=proposal.radius,
            multiplier=proposal.multiplier,
            predicted=proposal.predicted,
            length=proposal.length,
            cosine=newton.decrement / jnp.sqrt(2 * jnp.abs(lin.cost) + jnp.finfo(y.dtype).tiny),
            poor=poor,
            exact=exact,
            first=jnp.array(False),
            polish=polish,
            done=over,
            failed=failed,
            stalled=jnp.where(searching & (polish > 0), dead & ~converged & ~hopeless, state.stalled),
        )
        return _like(y, y_tree), state, None

    def terminate(self, fn, y, args, options, state, tags):  # type: ignore[no-untyped-def]
        result = optx.RESULTS.where(state.failed, optx.RESULTS.nonfinite, optx.RESULTS.successful)
        return state.done | state.failed, result

    def postprocess(self, fn, y, aux, args, options, state, tags, result):  # type: ignore[no-untyped-def]
        if aux is not None:
            aux = fn(y, args)[1]
        return y, aux, {}


class Newton(Module):
    """The undamped step on the free parameters, and how much it matters.

    - `decrement`: sqrt(g^T F^-1 g), the length of the step in standard errors for unit noise.
    - `noise`: the same for rounding errors of the model alone.
    - `slope`: the largest scaled gradient, |J_i . r| / |J_i|.
    - `determined`: False when some direction is without information to working precision.
    """

    step: Float[Array, " p"]
    target: Float[Array, " p"]
    decrement: Scalar
    noise: Scalar
    slope: Scalar
    solved: Flag
    determined: Flag


def _newton(local: Local) -> Newton:
    y, bounds, free = local.y, local.bounds, ~local.held
    scaled = local.gram * local.inverse_scale[:, None] * local.inverse_scale
    eye = jnp.eye(y.size, dtype=y.dtype)
    eps = jnp.finfo(y.dtype).eps
    empty = jnp.diagonal(scaled) == 0  # a parameter without effect stays where it is
    keep = free & ~empty
    scaled = jnp.where(keep[:, None] & keep, scaled, 0) + jnp.where(keep, y.size * eps, 1) * eye
    grad = jnp.where(keep, local.grad * local.inverse_scale, 0)
    factor, ok = cholesky(scaled)
    step = -solve_factored(factor, grad)
    decrement = jnp.sqrt(jnp.maximum(-dot(step, grad), 0))
    step = step * local.inverse_scale
    onto = jnp.where(y - bounds.lower < bounds.upper - y, bounds.lower, bounds.upper)
    target = jnp.where(local.held, jnp.where(bounds.fixed, y, onto), y + step)
    target = jnp.clip(target, bounds.lower, bounds.upper)
    noise = 8 * eps * jnp.max(jnp.where(keep, jnp.abs(y) / local.inverse_scale, 0), initial=0)
    determined = jnp.min(jnp.diagonal(factor)) ** 2 > 64 * y.size * eps
    solved = ok & jnp.all(jnp.isfinite(target))
    slope = jnp.max(jnp.abs(grad), initial=0)
    return Newton(jnp.where(free, step, target - y), target, decrement, noise, slope, solved, determined)


def _near(local: Local) -> Array:
    """Held, or so near to a bound that the way there is far below the noise, and pushed towards it."""
    gap = 1e-6 * jnp.sqrt(2 * jnp.abs(local.cost)) * local.inverse_scale
    low = (local.y - local.bounds.lower <= gap) & (local.grad > 0)
    high = (local.bounds.upper - local.y <= gap) & (local.grad < 0)
    return local.held | low | high


def _judge(state: TrustState, new: Linearisation, finite: Array, y: Array, bounds: Bounds) -> tuple[Array, Array]:
    """(take the trial point?, actual decrease over promised decrease)."""
    actual = jnp.where(finite, state.lin.cost - new.cost, -jnp.inf)
    ratio = jnp.where(state.predicted > 0, actual / jnp.where(state.predicted > 0, state.predicted, 1), -1)
    inverse = 1 / jnp.where(state.scale > 0, state.scale, 1)

    def slope(at: Array, grad: Array) -> Array:
        return jnp.max(jnp.where(bounds.held(at, grad), 0, jnp.abs(grad) * inverse), initial=0)

    flatter = slope(state.trial, new.grad) < 0.67 * slope(y, state.lin.grad)
    no_worse = new.cost <= state.lin.cost + 1e-9 * jnp.abs(state.lin.cost)
    better = jnp.where(state.polish > 0, flatter & no_worse, actual > 0)
    return finite & (better | state.first), ratio


def _mistrust(state: TrustState, ratio: Array, finite: Array) -> tuple[Array, Array]:
    """Count steps near the optimum whose gain the quadratic model got wrong; too many: change the model.

    Far from it the trust radius is to blame, and the exact Hessian is no better a guide.
    """
    near = state.cosine <= _NEAR
    judged = finite & ~state.first & (state.polish == 0) & near
    poor = jnp.where(judged, 0.8 * state.poor + jnp.where(ratio < 0.25, 1, 0), state.poor)
    change = poor > _POOR
    return jnp.where(change, 0, poor).astype(state.poor.dtype), state.exact ^ change


def _exact_hessian(evaluate: Evaluate, y: Array, gram: Array, exact: Array) -> Array:
    """The exact Hessian where it is wanted; computed at all only when some lane of a batch wants it."""
    hessian = lax.cond(eqxi.unvmap_any(exact), lambda: evaluate.hessian(y), lambda: gram)
    return jnp.where(exact & jnp.all(jnp.isfinite(hessian)), hessian, gram)


def quadratic(grad: Array, matrix: Array, step: Array) -> Array:
    """grad . step + step . matrix . step / 2."""
    return dot(grad, step) + dot(step, matvec(matrix, step)) / 2


def _like(flat: Array, tree: PyTree) -> PyTree:
    return jfu.ravel_pytree(tree)[1](flat)
