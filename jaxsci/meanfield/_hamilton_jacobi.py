"""Values of control problems on a grid: the Hamilton-Jacobi-Bellman equation, backward in time from a terminal cost.

An agent moves by dX = a dt + S dW (Ito), pays the cost of its drift a and a running cost f, and in the end g. With
D = S^2 / 2 its least expected cost u obeys -du/dt = D lap u - H(x, grad u) + f, u(T) = g, and its best drift is
-dH/dp at p = grad u. Two solvers are here: monotone finite differences, whose matrix for a given drift is the transpose
of that of `_finite_volume`, and a semi-Lagrangian one. Games call `step_back`; users call `solve_hamilton_jacobi`.
"""

import abc
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..core import Module, Scalar, as_float, suggest
from ..fitting import compiled
from ._boundary import Grid
from ._finite_volume import (
    SCHEMES,
    Diffusion,
    Faces,
    Field,
    Rates,
    Scheme,
    Times,
    at_points,
    axis_rates,
    cell_points,
    check_fields,
    check_room,
    checked_times,
    diffusion_at_faces,
    face_points,
    face_shapes,
    known,
    solve_m_matrix,
    three_steps,
    upwind_share,
)
from ._interpolation import interpolate

Method = Literal["finite_difference", "semi_lagrangian"]
"""How a value is carried back: by exchange between neighbouring cells, or from where the best drift leads."""
METHODS = ("finite_difference", "semi_lagrangian")


# --- Hamiltonians ------------------------------------------------------------------------------------------------


class AbstractHamiltonian(Module):
    """What a drift costs, as its convex conjugate: H(x, p) = max over a of -a p - cost(x, a)."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, " d"], p: Float[Array, " d"]) -> Float[Array, ""]:
        """Evaluate H at a place and a slope of the value."""

    def drift(self, x: Float[Array, " d"], p: Float[Array, " d"]) -> Float[Array, " d"]:
        """Find the best drift, -dH/dp."""
        return -jax.grad(self.__call__, 1)(x, p)

    def cost(self, x: Float[Array, " d"], p: Float[Array, " d"]) -> Float[Array, ""]:
        """Evaluate what the best drift costs per time, p dH/dp - H."""
        value, slope = jax.value_and_grad(self.__call__, 1)(x, p)
        return jnp.sum(p * slope) - value


class Quadratic(AbstractHamiltonian):
    """The Hamiltonian of the cost weight * |a|^2 / 2: H = |p|^2 / (2 weight), and the best drift is -p / weight.

    **Arguments:** `weight`: a positive number, 1 by default.
    """

    weight: Scalar = eqx.field(converter=as_float, default=1.0)

    def __call__(self, x: Float[Array, " d"], p: Float[Array, " d"]) -> Float[Array, ""]:
        """Evaluate |p|^2 / (2 weight)."""
        return jnp.sum(p * p) / (2 * self.weight.astype(p.dtype))


# --- slopes ------------------------------------------------------------------------------------------------------


def _differences(value: Array, grid: Grid, axis: int) -> Array:
    """Slopes of the value through the faces across an axis: none at a reflecting wall."""
    u = jnp.moveaxis(value, axis, 0)
    inner = (u[1:] - u[:-1]) / grid.step[axis].astype(u.dtype)
    if grid.box.walls_of_axes[axis][0] == "periodic":
        ends = ((u[:1] - u[-1:]) / grid.step[axis].astype(u.dtype),) * 2
    else:
        ends = (jnp.zeros_like(u[:1]),) * 2
    return jnp.moveaxis(jnp.concatenate([ends[0], inner, ends[1]]), 0, axis)


def _ends(faces: Array, axis: int) -> tuple[Array, Array]:
    """Of values at the faces across an axis those below and above each cell."""
    return jax.lax.slice_in_dim(faces, 0, -1, axis=axis), jax.lax.slice_in_dim(faces, 1, None, axis=axis)


def _averaged(faces: Array, axis: int) -> Array:
    """From faces across an axis to cells."""
    low, high = _ends(faces, axis)
    return (low + high) / 2


def _spread(cells: Array, grid: Grid, axis: int) -> Array:
    """From cells to the faces across an axis."""
    u = jnp.moveaxis(cells, axis, 0)
    low, high = (u[-1:], u[:1]) if grid.box.walls_of_axes[axis][0] == "periodic" else (u[:1], u[-1:])
    padded = jnp.concatenate([low, u, high])
    return jnp.moveaxis((padded[1:] + padded[:-1]) / 2, 0, axis)


def slopes_at_centres(value: Float[Array, "*shape"], grid: Grid) -> Float[Array, "*shape d"]:
    """Find the gradient of a value at the centres of cells, by central differences."""
    return jnp.stack([_averaged(_differences(value, grid, k), k) for k in range(grid.box.d)], axis=-1)


def _slopes_at_faces(value: Array, grid: Grid, axis: int) -> Array:
    """The whole gradient at the faces across an axis, (..., d)."""
    centres = slopes_at_centres(value, grid)
    across = _differences(value, grid, axis)
    each = [across if k == axis else _spread(centres[..., k], grid, axis) for k in range(grid.box.d)]
    return jnp.stack(each, axis=-1)


def _pairs(function: Callable[[Array, Array], Array], points: Array, slopes: Array) -> Array:
    """A function of a place and a slope, at many."""
    d = points.shape[-1]
    out = jax.vmap(function)(points.reshape(-1, d), slopes.reshape(-1, d))
    return out.reshape(*points.shape[:-1], *out.shape[1:])


def best_drift(value: Float[Array, "*shape"], hamiltonian: AbstractHamiltonian, grid: Grid) -> Faces:
    """Find the best drift across the faces of each axis, -dH/dp at the slopes of a value.

    **Arguments:** `value`: at the centres, of the grid's shape.

    **Returns:** for each axis the values at the faces across it, 0 at reflecting walls for a symmetric H.
    """
    return tuple(
        _pairs(hamiltonian.drift, face_points(grid, k, value.dtype), _slopes_at_faces(value, grid, k))[..., k]
        for k in range(grid.box.d)
    )


# --- a step ------------------------------------------------------------------------------------------------------


def _exchange(value: Array, each: list[Rates], dt: Array, grid: Grid) -> Array:
    """u - dt * (generator u) = value, one axis after the other: the transpose of the step of a density."""
    for axis, rate in enumerate(each):
        old = jnp.moveaxis(value, axis, 0)
        periodic = grid.box.walls_of_axes[axis][0] == "periodic"
        new = solve_m_matrix(dt * rate.down, dt * rate.up, jnp.ones_like(old), old, columns=False, periodic=periodic)
        value = jnp.moveaxis(new, 0, axis)
    return value


class _Problem(Module):
    """What stays the same from step to step."""

    hamiltonian: AbstractHamiltonian
    diffusion: Diffusion
    grid: Grid
    method: Method = eqx.field(static=True)
    scheme: Scheme = eqx.field(static=True)
    policies: int = eqx.field(static=True)

    def euler(self, value: Array, source: Array, t: Array, dt: Array) -> Array:
        """One implicit step back."""
        if self.method == "semi_lagrangian":
            return self._carried(value, source, t, dt)
        new = value
        for _ in range(self.policies):
            new = self._howard(new, value, source, t, dt)
        return new

    def _howard(self, guess: Array, value: Array, source: Array, t: Array, dt: Array) -> Array:
        """The value of keeping the drift that is best for a guess: Howard's policy iteration."""
        grid = self.grid
        drift = best_drift(guess, self.hamiltonian, grid)
        cost = self._cost(guess, drift, t)
        return _exchange(value + dt * (cost + source), axis_rates(drift, self.diffusion, grid, t), dt, grid)

    def _cost(self, guess: Array, drift: Faces, t: Array) -> Array:
        """What the best drifts at the faces of a cell cost it, by how much of each acts there.

        So at any Peclet number the sum over faces is D lap u less shares of H, which add up to one: Godunov's without
        diffusion (Achdou and Capuzzo-Dolcetta 2010). Axes add up as they do where H is a sum over axes.
        """
        grid, points = self.grid, cell_points(self.grid, guess.dtype)
        centres = slopes_at_centres(guess, grid)
        values, slopes = diffusion_at_faces(self.diffusion, grid, t)

        def at(k: int, slope: Array) -> Array:
            return _pairs(self.hamiltonian.cost, points, centres.at[..., k].set(slope))

        cost = middle = _pairs(self.hamiltonian.cost, points, centres)
        for k in range(grid.box.d):
            above = upwind_share(drift[k] - slopes[k], values[k], grid.step[k].astype(guess.dtype))
            low, high = _ends(_differences(guess, grid, k), k)
            none = at(k, jnp.zeros_like(low))  # what there is to pay without a slope along this axis has no faces
            below, beyond = 1 - _ends(above, k)[0], _ends(above, k)[1]
            cost = cost - (middle - none) + below * (at(k, low) - none) + beyond * (at(k, high) - none)
        return cost

    def _carried(self, value: Array, source: Array, t: Array, dt: Array) -> Array:
        """The value where the best drift leads, then diffusion."""
        grid, points = self.grid, cell_points(self.grid, value.dtype)
        slopes = slopes_at_centres(value, grid)
        guess = _pairs(self.hamiltonian.drift, points, slopes)
        # the slope at the foot, not here, is constant along a characteristic
        foot = points + dt * guess
        slopes = _there(slopes, foot, grid)
        drift = _pairs(self.hamiltonian.drift, points, slopes)
        cost = _pairs(self.hamiltonian.cost, points, slopes)
        there = _there(value[..., None], points + dt * drift, grid)[..., 0]
        still = tuple(jnp.zeros(shape, value.dtype) for shape in face_shapes(grid))
        return _exchange(there + dt * (cost + source), axis_rates(still, self.diffusion, grid, t), dt, grid)


def step_back(
    problem: _Problem, value: Float[Array, "*shape"], source: Float[Array, "*shape"], t: Array, dt: Array
) -> Array:
    """Take a value through one step, from t + dt/2 to t - dt/2, with the running cost of the middle.

    As in the step of a density, "extrapolated" is twice two half steps less one whole step, of second order in dt.
    """
    if problem.scheme == "implicit_euler":
        return problem.euler(value, source, t, dt)
    whole, _, twice = three_steps(lambda u, h: problem.euler(u, source, t, h), lambda u: u, value, dt)
    return 2 * twice - whole


def _there(values: Array, points: Array, grid: Grid) -> Array:
    """Values at the centres, (*shape, k), at places, linear between; beyond walls they are mirrored or go round."""
    lower, width = grid.box.lower.astype(points.dtype), grid.box.width.astype(points.dtype)
    folded = []
    for axis, (low, _) in enumerate(grid.box.walls_of_axes):
        at = points[..., axis] - lower[axis]
        if low != "periodic":
            at = jnp.mod(at, 2 * width[axis])
            at = jnp.minimum(at, 2 * width[axis] - at)
        folded.append(at + lower[axis])
    return at_points(lambda x: interpolate(values, grid, x), jnp.stack(folded, axis=-1))


# --- the door ----------------------------------------------------------------------------------------------------


class ValuePath(Module):
    """Least expected costs on a grid at several times, and the drift that attains them.

    - `ts`: the times (t,). `value`: at the centres, (t, *shape).
    - `drift`: for each axis (t, ...) at the faces across it: what `solve_fokker_planck` takes.
    - `grid`: the cells.
    """

    ts: Float[Array, " t"]
    value: Float[Array, "t *shape"]
    drift: Faces
    grid: Grid

    def drift_at_centres(self) -> Float[Array, "t *shape d"]:
        """Average the drift of the faces of each cell."""
        return jnp.stack([_averaged(faces, axis + 1) for axis, faces in enumerate(self.drift)], axis=-1)


Cost = Callable[[Array], Array] | ArrayLike
"""A cost at a place: a function x (d,) -> (), or its values at the centres (*shape), or a number."""


def solve_hamilton_jacobi(
    terminal: Cost,
    grid: Grid,
    ts: Times,
    *,
    diffusion: Diffusion,
    running: Field | ArrayLike = 0.0,
    hamiltonian: AbstractHamiltonian | None = None,
    method: Method = "finite_difference",
    scheme: Scheme = "extrapolated",
    substeps: int = 1,
    policies: int = 1,
) -> ValuePath:
    """Find the least expected cost, and the drift that attains it: -du/dt = D lap u - H(x, grad u) + f, u(T) = g.

    "finite_difference" gives each cell the exponentially fitted rates of its neighbours for the drift that is best
    (Scharfetter and Gummel 1969): monotone at any Peclet number for a quadratic H, of second order in the width of
    cells where diffusion resolves it. The drift is that of the value at the end of a step, improved `policies` - 1
    times (Howard 1960). "semi_lagrangian" takes the value from where the drift leads, linear between cells
    (Falcone and Ferretti 2014), then diffuses implicitly; steps may be long, but each blurs by up to h^2 / 8 times
    d2u/dx2.

    **Arguments:**

    - `terminal`: g, a function of place (d,), values at the centres (*shape), or a number.
    - `grid`: cells; the walls reflect or are periodic. `ts`: times (t,), increasing; g is at the last.
    - `diffusion`: D = S^2 / 2: a number, one for each axis (d,), or a function (t, x).
    - `running`: f, a function (t, x), values (*shape), or values at each time (t, *shape), linear between.
    - `hamiltonian`: `Quadratic()` by default, the cost a^2 / 2.
    - `scheme`: "extrapolated", of second order in the step, or "implicit_euler", which is monotone.
    - `substeps`: steps from each time to the next. `policies`: 1 or more.

    **Returns:** a `ValuePath`.

    **Raises:** `ValueError` for wrong shapes, a wall that absorbs, a negative diffusion, costs that are not finite,
    times that do not increase, and unknown words.
    """
    problem = make_problem(hamiltonian, diffusion, grid, method, scheme, policies)
    dtype = jnp.result_type(float)
    times = checked_times(ts, dtype, substeps)
    check_room(grid, times.shape[0], dtype)
    last = cost_at_centres(terminal, grid, dtype, "the terminal cost")
    f = running if callable(running) else running_values(running, grid, times)
    check_fields((), diffusion, grid, times)
    return compiled(_solve, (problem, last, f, times), (substeps,))


def make_problem(
    hamiltonian: AbstractHamiltonian | None,
    diffusion: Diffusion,
    grid: Grid,
    method: Method,
    scheme: Scheme,
    policies: int,
) -> _Problem:
    """Put together what steps need.

    **Raises:** `ValueError` for unknown words, walls that absorb and less than one policy.
    """
    for word, words, what in ((method, METHODS, "method"), (scheme, SCHEMES, "scheme")):
        if word not in words:
            raise ValueError(f"no {what} {word!r}{suggest(word, words)}: {', '.join(words)}")
    if grid.box.absorbs:
        raise ValueError("the value at an absorbing wall is not known: use reflecting or periodic walls")
    if policies < 1:
        raise ValueError(f"policies should be 1 or more, but it is {policies}")
    return _Problem(Quadratic() if hamiltonian is None else hamiltonian, diffusion, grid, method, scheme, policies)


def cost_at_centres(cost: Cost, grid: Grid, dtype: jnp.dtype, what: str) -> Float[Array, "*shape"]:
    """Evaluate a cost of place at the centres of cells.

    **Raises:** `ValueError` for a wrong shape and for values that are not finite, saying `what` it is.
    """
    if callable(cost):
        values = compiled(_at_centres, (cost, grid), (jnp.dtype(dtype),))
    else:
        values = jnp.asarray(cost, dtype)
        if values.shape not in ((), grid.shape):
            raise ValueError(f"{what} should have shape {grid.shape}, one value a cell, but it has {values.shape}")
        values = jnp.broadcast_to(values, grid.shape)
    seen = known(values)
    if seen is not None and not np.all(np.isfinite(seen)):
        raise ValueError(f"{what} is not finite in {np.sum(~np.isfinite(seen))} cells: give a number for each")
    return values


def _at_centres(cost: Callable[[Array], Array], grid: Grid, dtype: jnp.dtype) -> Array:
    return at_points(lambda x: jnp.asarray(cost(x), dtype).reshape(()), cell_points(grid, dtype))


def running_values(running: ArrayLike, grid: Grid, ts: Float[Array, " t"]) -> Float[Array, "t *shape"]:
    """Take a running cost at each time and cell.

    **Raises:** `ValueError` for a wrong shape and for values that are not finite.
    """
    values = jnp.asarray(running, ts.dtype)
    full = (ts.shape[0], *grid.shape)
    if values.shape not in ((), grid.shape, full):
        raise ValueError(
            f"the running cost should have shape {grid.shape} (cells) or {full} (times, cells), but it has "
            f"{values.shape}"
        )
    seen = known(values)
    if seen is not None and not np.all(np.isfinite(seen)):
        raise ValueError(f"the running cost is not finite at {np.sum(~np.isfinite(seen))} places")
    return jnp.broadcast_to(values.reshape((1,) * (len(full) - values.ndim) + values.shape), full)


def _solve(problem: _Problem, last: Array, running: Field | Array, ts: Array, substeps: int) -> ValuePath:
    value = value_path(problem, last, running, ts, substeps)
    drift = jax.vmap(lambda u: best_drift(u, problem.hamiltonian, problem.grid))(value)
    return ValuePath(ts, value, drift, problem.grid)


def value_path(
    problem: _Problem, last: Float[Array, "*shape"], running: Field | Float[Array, "t *shape"], ts: Array, substeps: int
) -> Float[Array, "t *shape"]:
    """Carry a value back from the last time to the first.

    **Returns:** the value at each time, (t, *shape).
    """
    grid = problem.grid
    points = cell_points(grid, last.dtype)
    frames = () if callable(running) else (running[:-1], running[1:])

    def interval(value: Array, given: tuple) -> tuple[Array, Array]:
        start, end, around = given
        dt = (end - start) / substeps

        def step(value: Array, k: Array) -> tuple[Array, None]:
            share = (k + 0.5) / substeps
            t = start + share * (end - start)
            if callable(running):
                source = at_points(lambda x: jnp.asarray(running(t, x), last.dtype).reshape(()), points)
            else:
                source = around[0] + share * (around[1] - around[0])
            return step_back(problem, value, source, t, dt), None

        value = jax.lax.scan(step, value, jnp.arange(substeps, dtype=ts.dtype), reverse=True)[0]
        return value, value

    earlier = jax.lax.scan(interval, last, (ts[:-1], ts[1:], frames), reverse=True)[1]
    return jnp.concatenate([earlier, last[None]])
