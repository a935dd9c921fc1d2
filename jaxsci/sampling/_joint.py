"""The posterior of a batch whose members share parameters: one density over shared and local ones together.

It is whitened by the arrow that the joint fit eliminates by: with corner A, edges E_m and blocks B_m of the curvature,
shared parameters move by the half of (A - sum E_m^T B_m^-1 E_m)^-1, and the local ones of a member by the half of
B_m^-1 and by -B_m^-1 E_m times the shared ones. So a leapfrog step costs the members' costs, and no more than a small
product for each. `sample` poses a `BatchSolution` with shared parameters so.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..core import AnyArray, Linearisation, Module, Scalar
from ..core.arrow import join, split
from ..core.linalg import matvec, solve_general
from ..fitting import BatchSolution, Choices, Objective, Problem, make_ready
from ._bounded import Bounded
from ._pose import AbstractPose, Kind, pose
from ._target import AbstractTarget, Box, Start, errors, half_of_curvature


class Part(NamedTuple):
    """Members of one structure in a joint posterior; arrays lead with them.

    - `problem`, `start`: as of a single fit.
    """

    problem: Problem
    start: Start


class Layout(NamedTuple):
    """Where the parameters of a member lie in its y. Static.

    - `choices`: what is free. `shared`, `local`: the places of the shared and local elements that move.
    """

    choices: Choices
    shared: tuple[int, ...]
    local: tuple[int, ...]


class ArrowFrame(Module):
    """The coordinates of a joint posterior: z -> u -> values, shared ones first.

    - `top`: (q, q) half of the covariance of shared elements over u. `own`: of each group (b, l, l), with those held.
    - `gains`: of each group (b, l, q), by how much local elements follow shared ones, with a minus.
    """

    bounded: Bounded
    centre: Float[Array, " m"]
    top: Float[Array, "q q"]
    own: tuple[Float[Array, "_ _ _"], ...]
    gains: tuple[Float[Array, "_ _ q"], ...]
    origin: Float[Array, " m"]

    def place(self, z: Float[Array, " m"]) -> tuple[Float[Array, " m"], Scalar]:
        """(values within the bounds, log-determinant of the bijection) at z."""
        shared, local = split(z, self.top.shape[0], tuple(own.shape[:2] for own in self.own))
        shared = matvec(self.top, shared)
        parts = [
            jax.vmap(matvec)(own, part) + jax.vmap(matvec, (0, None))(gain, shared)
            for own, gain, part in zip(self.own, self.gains, local, strict=True)
        ]
        u = self.centre + join(shared, tuple(parts))
        return self.bounded.constrain(u), self.bounded.log_det(u)


class _Seen(NamedTuple):
    """What a frame is made of: values, bounds and errors of all that moves, and the members' Linearisations."""

    values: Float[Array, " m"]
    box: Box
    error: Float[Array, " m"]
    lins: list[Linearisation]


class Joint(AbstractPose):
    """A batch with parameters in common. `parts`: its groups of members, which have one structure each."""

    parts: tuple[Part, ...]
    layouts: tuple[Layout, ...] = eqx.field(static=True)
    free_scale: bool = eqx.field(static=True)

    def target(self, frame: PyTree) -> AbstractTarget:
        starts = tuple(part.start for part in self.parts)
        return JointTarget(self.objectives(), starts, frame, self.layouts, self.free_scale)

    def objectives(self) -> tuple[Objective, ...]:
        """The objectives of each group; arrays lead with the members."""
        return tuple(
            jax.vmap(lambda problem, c=layout.choices: make_ready(problem, c).objective)(part.problem)
            for part, layout in zip(self.parts, self.layouts, strict=True)
        )

    def cost(self) -> Scalar:
        pairs = zip(self.objectives(), self.parts, strict=True)
        each = [jax.vmap(lambda o, y: o.cost(y))(o, part.start.y) for o, part in pairs]
        return jnp.sum(jnp.concatenate(each))

    def frame(self) -> PyTree:
        values, box, error, lins = self._seen()
        inside = error / 100
        bounded = Bounded(box.lower, box.upper, error)
        centre = jnp.clip(values, box.lower + error, box.upper - error)
        u = bounded.unconstrain(centre)
        bends = bounded.bends(u)
        push = self._join([lin.grad for lin in lins], add=True)
        stiff = jnp.maximum(jnp.where(jnp.isfinite(push), push, 0) * bends.curve + bends.own, 0)
        top, own, gains = self._whiten(lins, bends.slope, stiff)
        begin = bounded.unconstrain(jnp.clip(values, box.lower + inside, box.upper - inside)) - u
        shared, local = split(begin, top.shape[0], tuple(each.shape[:2] for each in own))
        parts = [
            jax.vmap(solve_general)(half, part - jax.vmap(matvec, (0, None))(gain, shared))
            for half, gain, part in zip(own, gains, local, strict=True)
        ]
        return ArrowFrame(bounded, u, top, own, gains, join(solve_general(top, shared), tuple(parts)))

    def _seen(self) -> "_Seen":
        """Values, bounds and errors of all that moves, and the members' Linearisations in units of the noise."""
        readies = [
            jax.vmap(lambda problem, c=layout.choices: make_ready(problem, c))(part.problem)
            for part, layout in zip(self.parts, self.layouts, strict=True)
        ]
        lins = [
            jax.vmap(lambda o, y: o(y))(ready.objective, part.start.y)
            for ready, part in zip(readies, self.parts, strict=True)
        ]
        if self.free_scale:
            cost = jnp.sum(jnp.concatenate([lin.cost for lin in lins]))
            count = jnp.sum(jnp.concatenate([part.start.num_data for part in self.parts])).astype(cost.dtype)
            lins = jtu.tree_map(lambda x: x * (count / (2 * cost)), lins)
        values = self._join([part.start.y for part in self.parts])
        lower, upper = (self._join([getattr(ready, side) for ready in readies]) for side in ("lower", "upper"))
        variance = self._join([jax.vmap(jnp.diagonal)(part.start.covariance) for part in self.parts])
        known = self._join([part.start.determined.astype(values.dtype) for part in self.parts]) > 0
        slope = self._join([lin.grad for lin in lins], add=True)
        return _Seen(values, Box(lower, upper), errors(variance, known, slope, values, lower, upper), lins)

    def _join(self, each: list[Array], add: bool = False) -> Array:
        """Vectors of members, (b, p) of each group, as one of what moves; shared elements added, or the first's."""
        tops = [x[:, np.array(at.shared, int)] for x, at in zip(each, self.layouts, strict=True)]
        top = jnp.sum(jnp.concatenate(tops), axis=0) if add else tops[0][0]
        return join(top, tuple(x[:, np.array(at.local, int)] for x, at in zip(each, self.layouts, strict=True)))

    def _whiten(
        self, lins: list[Linearisation], slope: Array, stiff: Array
    ) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
        """(top, own, gains) of the frame, from the arrow of the members' curvatures over u."""
        q = len(self.layouts[0].shared)
        shapes = tuple((lin.grad.shape[0], len(at.local)) for lin, at in zip(lins, self.layouts, strict=True))
        (slope_s, slopes), (stiff_s, stiffs) = split(slope, q, shapes), split(stiff, q, shapes)
        corner, own, gains = jnp.diag(stiff_s), [], []
        for lin, at, by, more in zip(lins, self.layouts, slopes, stiffs, strict=True):
            shared, local = np.array(at.shared, int), np.array(at.local, int)
            gram: Array = lin.gram  # type: ignore[assignment]
            edge = gram[:, local][:, :, shared] * by[:, :, None] * slope_s[None, None, :]
            half = jax.vmap(half_of_curvature)(gram[:, local][:, :, local], by, more)
            gain = -jax.vmap(lambda half, edge: half @ (half.T @ edge))(half, edge)
            corner = corner + jnp.sum(gram[:, shared][:, :, shared], axis=0) * slope_s[:, None] * slope_s[None, :]
            corner = corner + jnp.sum(jax.vmap(lambda edge, gain: edge.T @ gain)(edge, gain), axis=0)
            own.append(half)
            gains.append(gain)
        top = half_of_curvature((corner + corner.T) / 2, jnp.ones_like(slope_s), jnp.zeros_like(slope_s))
        return top, tuple(own), tuple(gains)


class JointTarget(AbstractTarget):
    """The density of all members together. Priors of shared parameters count once."""

    objectives: tuple[Objective, ...]
    starts: tuple[Start, ...]
    frame: ArrowFrame
    layouts: tuple[Layout, ...] = eqx.field(static=True)
    free_scale: bool = eqx.field(static=True)

    @property
    def origin(self) -> Float[Array, " m"]:
        return self.frame.origin

    def constrain(self, z: Float[Array, " m"]) -> Float[Array, " p"]:
        return jnp.concatenate([jnp.ravel(y) for y in self._members(self.frame.place(z)[0])])

    def potential(self, z: Float[Array, " m"]) -> Scalar:
        values, log_det = self.frame.place(z)
        every = self._members(values)
        pairs = list(zip(self.objectives, every, strict=True))
        cost = sum(jnp.sum(jax.vmap(lambda o, y: o.cost(y))(o, y)) for o, y in pairs)
        prior = sum(jnp.sum(jax.vmap(lambda o, y: o.prior_cost(y))(o, y)) for o, y in pairs)
        # what one member's priors say of shared elements alone is said again by all others
        count = sum(y.shape[0] for y in every) - 1
        again = count * self._shared_prior(pairs[0][0], every[0][0])
        if not self.free_scale:
            return cost - again - log_det
        rows = jnp.sum(jnp.concatenate([start.num_data for start in self.starts])).astype(values.dtype)
        return rows / 2 * jnp.log(cost - prior) + prior - again - log_det

    def _shared_prior(self, objectives: Objective, y: Float[Array, " p"]) -> Scalar:
        """The cost of the priors of shared elements, less a constant: local ones stay where the fit found them."""
        first = jtu.tree_map(lambda x: x[0], objectives)
        at = jnp.array(self.layouts[0].shared)
        return first.prior_cost(self.starts[0].y[0].at[at].set(y[at]))

    def _members(self, values: Float[Array, " m"]) -> list[Float[Array, "b p"]]:
        """The y of the members of each group."""
        shapes = tuple((start.y.shape[0], len(at.local)) for start, at in zip(self.starts, self.layouts, strict=True))
        shared, local = split(values, len(self.layouts[0].shared), shapes)
        return [
            start.y.at[:, np.array(at.shared, int)].set(shared[None, :]).at[:, np.array(at.local, int)].set(part)
            for start, at, part in zip(self.starts, self.layouts, local, strict=True)
        ]


class Fits(NamedTuple):
    """Fits of one structure and their data, whose arrays lead with the members."""

    start: Any
    data: Any


def pose_jointly(solution: BatchSolution, groups: list[Fits], kinds: list[Kind]) -> Joint:
    """Members that share parameters as one posterior."""
    assert solution.shared is not None
    parts, layouts = [], []
    for group, kind in zip(groups, kinds, strict=True):
        single = pose(group.start, group.data, kind)
        shared = [group.start.names.index(name) for name in solution.shared.names]
        layouts.append(
            Layout(
                single.choices,
                tuple(k for k in shared if k in kind.moving),
                tuple(k for k in kind.moving if k not in shared),
            )
        )
        parts.append(Part(single.problem, single.start))
    return Joint(tuple(parts), tuple(layouts), kinds[0].free_scale)


def of_members(groups: list[Fits], drawn: AnyArray) -> list[np.ndarray]:
    """Draws (chains, ..., all members' parameters) as those of each group, (members, chains, ..., p)."""
    out, at = [], 0
    for group in groups:
        b, p = np.shape(group.start.y)
        part = np.asarray(drawn)[..., at : at + b * p].reshape(*drawn.shape[:-1], b, p)
        out.append(np.moveaxis(part, -2, 0))
        at += b * p
    return out
