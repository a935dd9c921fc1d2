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

from ...core import Flag, Linearisation, Module, Scalar, Tree, is_real_number
from ...core.linalg import diagonal, dot, matvec
from .._objective import least_squares_linearise

_POLISH = 20  # undamped steps at the end, at most; each must flatten the gradient
_RISE = 1e-9  # of the cost, by rounding; more where ten steps that count as small are worth more
_SNAP_RISE = 1e-6  # onto a bound it is nothing to go: what the cost changes by is rounding in the model
_HELD = 1e-6  # a parameter this near to a bound, in units of the noise, is as good as on it
_FAR = 1e-3  # a search that ends with a step so long, in units of the residual, has not found an optimum
_NEAR = 0.1  # cosine between the residual and the tangent plane of the model
_POOR = 2.6  # of 1 + .8 + .64 + ...: four poor steps in a row, or a dozen every other step


class Bounds(Module):
    """Lower and upper bounds; equal ones fix the parameter. `exist` is False when none was given at all."""

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]
    exist: bool = eqx.field(static=True)

    @property
    def fixed(self) -> Bool[Array, " p"]:
        return self.lower >= self.upper

    def held(self, y: Float[Array, " p"], grad: Float[Array, " p"], gap: Array | float = 0.0) -> Bool[Array, " p"]:
        """Parameters that are fixed, or within `gap` of a bound with the gradient pushing against it."""
        if not self.exist:
            return jnp.zeros(y.shape, bool)
        low = (y - self.lower <= gap) & (grad > 0)
        return self.fixed | low | ((self.upper - y <= gap) & (grad < 0))

    def reached(self, y: Float[Array, " p"]) -> Bool[Array, " p"]:
        """Parameters that are on a bound."""
        return (y <= self.lower) | (y >= self.upper) if self.exist else jnp.zeros(y.shape, bool)

    def clip(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        return jnp.clip(y, self.lower, self.upper) if self.exist else y

    def nearest(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """The bound next to each parameter, or the parameter itself where it is fixed."""
        return jnp.where(self.fixed, y, jnp.where(y - self.lower < self.upper - y, self.lower, self.upper))


def gap(size: Scalar, inverse_scale: Float[Array, " p"]) -> Float[Array, " p"]:
    """How near to a bound a parameter is as good as on it, for residuals of norm `size`."""
    eps = float(jnp.finfo(inverse_scale.dtype).eps)
    return max(_HELD, eps**0.5) * size * inverse_scale


class Evaluate(Module):
    """fn, args and options of an optimistix solve as functions of a flat y.

    `options["linearise"]` (a Module y -> Linearisation, with a `hessian` method) takes the place of
    fn where given. It must be a Module: a closure over arrays would silently lose its gradients.
    Where its curvature is not a dense matrix, `options["gram"]` is one of the same structure to start from.
    With `options["exact"]` False, a search that wants the exact Hessian ends as stalled: a program to run first.
    """

    fn: Any
    args: PyTree
    lineariser: Any
    unravel: Callable[..., Any] = eqx.field(static=True)
    exact: bool = eqx.field(static=True)

    def linearise(self, y: Float[Array, " p"]) -> Linearisation:
        if self.lineariser is not None:
            return self.lineariser(y, self.args)
        return least_squares_linearise(self._residual, y)

    def hessian(self, y: Float[Array, " p"]) -> Any:
        if self.lineariser is not None:
            return self.lineariser.hessian(y)
        return jax.hessian(lambda y: jnp.sum(self._residual(y) ** 2) / 2)(y)

    def _residual(self, y: Array) -> Array:
        return jfu.ravel_pytree(self.fn(self.unravel(y), self.args)[0])[0]


def read_options(
    fn: Callable[..., Any], y: Tree, args: Tree, options: dict[str, Any]
) -> tuple[Array, Evaluate, Bounds]:
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
        one = jtu.treedef_is_leaf(jtu.tree_structure(tree)) and jnp.ndim(tree) == 0
        spread = jtu.tree_map(lambda _: tree, y) if one else tree
        return jfu.ravel_pytree(
            jtu.tree_map(lambda b, v: jnp.broadcast_to(b, jnp.shape(v)).astype(v.dtype), spread, y)
        )[0]

    exist = options.get("lower") is not None or options.get("upper") is not None
    bounds = Bounds(flat_bound("lower", -jnp.inf), flat_bound("upper", jnp.inf), exist)
    return flat, Evaluate(fn, args, lineariser, unravel, options.get("exact", True)), bounds


class TrustState(Module):
    """The carry of the loop: the accepted point's linearisation and the trial point."""

    trial: Float[Array, " p"]
    lin: Linearisation
    scale: Float[Array, " p"]  # largest column norms so far (More 1978)
    radius: Scalar  # damping, or trust radius
    multiplier: Scalar  # of the last subproblem
    predicted: Scalar  # decrease of cost that the trial promises
    length: Scalar  # scaled length of the trial step
    slope: Scalar  # largest scaled gradient at the accepted point
    near: Flag  # the residual is nearly orthogonal to the tangent plane
    poor: Scalar  # recent steps that the quadratic model mispredicted, decaying
    decrement: Scalar  # step left at the accepted point, in standard errors, by the curvature in use; inf if unknown
    exact: Flag  # True: use the exact Hessian instead of the Gauss-Newton matrix
    first: Flag
    polish: Int[Array, ""]  # 0 while searching, then counts undamped steps
    snaps: Flag  # the trial of a polishing step puts a parameter onto a bound
    done: Flag
    failed: Flag  # not finite at the start
    stalled: Flag  # no step decreases the cost although the gradient says so


class Local(Module):
    """The quadratic model about the accepted point. `held` parameters do not move."""

    y: Float[Array, " p"]
    cost: Scalar
    grad: Float[Array, " p"]
    gram: Any
    inverse_scale: Float[Array, " p"]
    held: Bool[Array, " p"]
    bounds: Bounds


def unit_scale(matrix: Tree, scale: Float[Array, " p"]) -> Float[Array, " p"]:
    """1/sqrt of the diagonal: what makes it 1; `scale` where it is not positive.

    Steps are bounded in the scale of the largest columns so far, but a curvature is eliminated in the scale of those
    here: after a start a million times too large the first would lose it in the rounding of the others.
    """
    own = diagonal(matrix)
    return jnp.where(own > 0, 1 / jnp.sqrt(jnp.where(own > 0, own, 1)), scale)


class Proposal(Module):
    """Where to try next, and the undamped step from here: what a search hands to the shared loop.

    - `newton`: the undamped step of the parameters that are not held; `decrement` its length in
      standard errors for unit noise, sqrt(g^T F^-1 g).
    - `solved`: False when it could not be computed. `determined`: False when some direction is
      without information to working precision, so that polishing would wander along it.
    """

    trial: Float[Array, " p"]
    radius: Scalar
    multiplier: Scalar
    predicted: Scalar
    length: Scalar
    newton: Float[Array, " p"]
    decrement: Scalar
    solved: Flag
    determined: Flag


def check_tolerance(solver: optx.AbstractLeastSquaresSolver | optx.AbstractMinimiser, name: str) -> None:
    """Raise `ValueError` where a solver's tolerance is no number of 0 or more; arrays are taken on trust."""
    value = getattr(solver, name)
    if isinstance(value, jax.Array):
        return
    if not is_real_number(value) or not value >= 0:
        raise ValueError(f"{type(solver).__name__}.{name} should be a number of 0 or more, but it is {value!r:.60}")


class AbstractTrustSolver(optx.AbstractLeastSquaresSolver):
    """A bounded least-squares solver in one loop; subclasses say how far to trust which step."""

    rtol: eqx.AbstractVar[float]
    atol: eqx.AbstractVar[float]
    fine: eqx.AbstractVar[float]

    def __check_init__(self) -> None:
        for name in ("rtol", "atol", "fine"):
            check_tolerance(self, name)

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
        gram = jnp.eye(y.size, dtype=y.dtype) if options.get("gram") is None else options["gram"]
        lin = Linearisation(zero + jnp.inf, jnp.zeros_like(y), gram)
        yes, none = jnp.array(True), jnp.zeros_like(y)
        return TrustState(
            y,
            lin,
            none,
            zero + radius,
            zero,
            zero,
            zero,
            zero + jnp.inf,
            no,
            zero,
            zero + jnp.inf,
            no,
            yes,
            jnp.array(0),
            no,
            no,
            no,
            no,
        )

    def step(self, fn, y, args, options, state, tags):  # type: ignore[no-untyped-def]
        y_tree = y
        y, evaluate, bounds = read_options(fn, y, args, options)
        eps = jnp.finfo(y.dtype).eps
        new = evaluate.linearise(state.trial)
        finite = _finite(new)
        accept, ratio, slope = _judge(state, new, finite, bounds, max(_RISE, (10 * self.rtol) ** 2))
        y = jnp.where(accept, state.trial, y)
        lin = jtu.tree_map(lambda a, b: jnp.where(accept, a, b), new, state.lin)
        norms = jnp.sqrt(jnp.maximum(diagonal(lin.gram), 0))
        scale = jnp.maximum(state.scale, norms)
        size = jnp.sqrt(2 * jnp.abs(lin.cost))

        poor, exact = _mistrust(state, ratio, finite)
        gram = _exact_hessian(evaluate, y, lin.gram, exact) if evaluate.exact else lin.gram
        inverse = 1 / jnp.where(scale > 0, scale, 1)
        held = bounds.held(y, lin.grad, gap(size, inverse))
        local = Local(y, lin.cost, lin.grad, gram, inverse, held, bounds)
        radius = jnp.where(state.first, state.radius, self.update_radius(state, ratio, finite))
        proposal = self.propose(local, state, radius)

        step = jnp.abs(proposal.newton)
        still = jnp.all((step <= self.atol * jnp.abs(y)) | held)
        # what one unit of rounding in a parameter does to the residuals here; not where the search came from
        rounding = 8 * eps * jnp.max(jnp.abs(y) * norms, initial=0)
        enough = jnp.maximum(self.rtol * size, rounding)
        flat = (slope <= 1e3 * eps * size) | (size <= rounding)
        far = proposal.decrement > jnp.maximum(_FAR, 32 * jnp.sqrt(eps)) * size + rounding
        # data without noise: a step of the twelfth digit may still be most of what is left of the residuals, and is
        # worth taking for as long as such steps do away with them
        worth = far & accept & ~state.first & (new.cost < 0.5 * state.lin.cost)
        converged = proposal.solved & ((proposal.decrement <= enough) | (still & ~worth) | flat)
        dead = ~jnp.all(jnp.isfinite(proposal.trial)) | jnp.all(proposal.trial == y)
        hopeless = jnp.abs(proposal.predicted) <= 16 * eps * jnp.abs(lin.cost)
        searching = state.polish == 0
        settled = converged | (~accept & ~state.first & hopeless) | dead
        # where the Jacobian is singular at the optimum, only the second derivatives of the model can settle it
        cornered = searching & settled & ~converged & far & ~exact
        lost = jnp.array(False) if evaluate.exact else exact | cornered
        polish = jnp.where(searching, jnp.where(settled & ~cornered, 1, 0), state.polish + 1)
        tiny = jnp.all((step <= eps * jnp.abs(y)) | held) | (proposal.decrement <= self.fine * size)
        target, snaps, lands = _polished(y, proposal, held, bounds)
        usable = (proposal.solved & proposal.determined & ~tiny & (polish <= _POLISH)) | snaps
        state = TrustState(
            trial=jnp.where(cornered, y, jnp.where(polish > 0, target, proposal.trial)),
            lin=lin,
            scale=scale,
            radius=jnp.where(cornered, self.start(y, bounds)[1], proposal.radius),
            multiplier=proposal.multiplier,
            predicted=proposal.predicted,
            length=proposal.length,
            slope=slope,
            near=proposal.decrement <= _NEAR * size,
            poor=poor,
            decrement=jnp.where(proposal.solved, proposal.decrement, jnp.inf),
            exact=exact | cornered,
            first=cornered,
            polish=polish,
            snaps=(snaps | lands) & (polish > 0),
            done=((polish > 0) & (~usable | (~searching & ~accept))) | lost,
            failed=state.first & ~finite,
            stalled=jnp.where(searching, settled & ~converged & far & ~cornered, state.stalled) | lost,
        )
        y_tree = _like(y, y_tree)
        return y_tree, state, fn(y_tree, args)[1]  # without aux, nothing of this call is left in the program

    def terminate(self, fn, y, args, options, state, tags):  # type: ignore[no-untyped-def]
        result = optx.RESULTS.where(state.failed, optx.RESULTS.nonfinite, optx.RESULTS.successful)
        return state.done | state.failed, result

    def postprocess(self, fn, y, aux, args, options, state, tags, result):  # type: ignore[no-untyped-def]
        return y, aux, {}


def _polished(y: Array, proposal: Proposal, held: Array, bounds: Bounds) -> tuple[Array, Array, Array]:
    """(where an undamped step leads, whether it puts a held parameter onto its bound, or any parameter onto one)."""
    target = bounds.clip(y + jnp.where(proposal.solved & proposal.determined, proposal.newton, 0))
    target = jnp.where(held, bounds.nearest(y), target) if bounds.exist else target
    moved = target != y
    return target, jnp.any(held & moved), jnp.any(moved & bounds.reached(target))


def _judge(
    state: TrustState, new: Linearisation, finite: Array, bounds: Bounds, rise: float
) -> tuple[Array, Array, Array]:
    """(take the trial point?, actual over promised decrease, scaled gradient at the point kept).

    While polishing the gradient judges: the cost is flat to rounding there, and may rise by so much of itself.
    """
    actual = jnp.where(finite, state.lin.cost - new.cost, -jnp.inf)
    ratio = jnp.where(state.predicted > 0, actual / jnp.where(state.predicted > 0, state.predicted, 1), -1)
    norms = jnp.sqrt(jnp.maximum(diagonal(new.gram), 0))
    # by the columns as they are here: by those of a start far away, any gradient would look flat
    scaled = jnp.abs(new.grad) / jnp.maximum(norms, jnp.finfo(norms.dtype).tiny)
    slope = jnp.max(jnp.where(bounds.held(state.trial, new.grad), 0, scaled), initial=0)
    allowed = jnp.where(state.snaps, max(_SNAP_RISE, rise), rise).astype(new.cost.dtype)
    no_worse = new.cost <= state.lin.cost + allowed * jnp.abs(state.lin.cost)
    flatter = (slope < 0.9 * state.slope) | state.snaps
    better = jnp.where(state.polish > 0, flatter & no_worse, actual > 0)
    accept = finite & (better | state.first)
    return accept, ratio, jnp.where(accept, slope, state.slope)


def _mistrust(state: TrustState, ratio: Array, finite: Array) -> tuple[Array, Array]:
    """Count steps near the optimum whose gain the quadratic model got wrong; too many: change the model.

    Far from it the trust radius is to blame, and the exact Hessian is no better a guide.
    """
    judged = finite & ~state.first & (state.polish == 0) & state.near
    poor = jnp.where(judged, 0.8 * state.poor + jnp.where(ratio < 0.25, 1, 0), state.poor)
    change = poor > _POOR
    return jnp.where(change, 0, poor).astype(state.poor.dtype), state.exact ^ change


def _exact_hessian(evaluate: Evaluate, y: Array, gram: Tree, exact: Array) -> Any:
    """The exact Hessian where it is wanted; computed at all only when some lane of a batch wants it."""
    hessian = lax.cond(eqxi.unvmap_any(exact), lambda: evaluate.hessian(y), lambda: gram)
    use = exact & _finite(hessian)
    return jtu.tree_map(lambda a, b: jnp.where(use, a, b), hessian, gram)


def _finite(tree: Tree) -> Array:
    """True when a sum over all numbers is finite; one NaN or infinity spoils it."""
    return jnp.isfinite(sum(jnp.sum(leaf) for leaf in jtu.tree_leaves(tree)))


def quadratic(grad: Array, matrix: Tree, step: Array) -> Array:
    """grad . step + step . matrix . step / 2."""
    return dot(grad, step) + dot(step, matvec(matrix, step)) / 2


def _like(flat: Array, tree: Tree) -> PyTree:
    return jfu.ravel_pytree(tree)[1](flat)
