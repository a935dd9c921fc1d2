"""Mean field games: a crowd of agents, each of which moves at least cost given where all the others will be.

An equilibrium is a density path m that is its own answer: the value of the costs that m makes (Hamilton-Jacobi, back in
time) gives the best drift, and the density under that drift (Fokker-Planck, forward) is m again. Lasry and Lions 2007;
Huang, Malhame and Caines 2006. `solve_game` looks for that fixed point with Anderson's acceleration, because answering
again and again swings ever wider where agents avoid a crowd. Users call it, and `LinearQuadraticGame` for the game on
the line whose answer is known in closed form.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ..core import Module, Scalar, Tree, as_count, as_float, as_real, require_kind, require_positive, traced
from ..fitting import compiled
from ._boundary import Grid
from ._finite_volume import (
    Diffusion,
    Faces,
    Scheme,
    Times,
    at_points,
    cell_points,
    check_density,
    check_fields,
    check_room,
    checked_times,
    density_path,
)
from ._hamilton_jacobi import (
    AbstractHamiltonian,
    Cost,
    Method,
    Quadratic,
    best_drift,
    cost_at_centres,
    make_problem,
    value_path,
)

# --- fixed points ------------------------------------------------------------------------------------------------


class AndersonState(Module):
    """What Anderson's acceleration remembers.

    - `place`, `answer`: the last iterate x, and f = T(x) - x there, (n,). `moves`, `changes`: differences of iterates
      and of f, newest first, (k, n).
    - `count`: maps so far. `residual`: the norm of f. `history`: all of these, NaN where there is none yet.
    """

    place: Float[Array, " n"]
    answer: Float[Array, " n"]
    moves: Float[Array, "k n"]
    changes: Float[Array, "k n"]
    count: Int[Array, ""]
    residual: Float[Array, ""]
    history: Float[Array, " maps"]


class Anderson(optx.AbstractFixedPointSolver):
    """A solver of fixed points x = T(x) for `optimistix.fixed_point`, which mixes the last few answers.

    The next iterate is x + b f - sum_j g_j (dx_j + b df_j), where f = T(x) - x, and g makes |f - sum_j g_j df_j| least
    (Anderson 1965; type II of Fang and Saad 2009; Walker and Ni 2011). The small least squares problem is solved by
    Gram-Schmidt, newest first; differences that say nothing new are left out. It ends where the undamped residual
    |T(x) - x| is small, whatever the damping, and returns an iterate of which that is known.

    **Arguments:**

    - `rtol`, `atol`: it ends once |T(x) - x| <= atol + rtol |x|, in `norm`, the largest element by default.
    - `depth`: how many differences are kept; 0 is Picard's iteration x + b (T(x) - x).
    - `mixing`: b, from 0 to 1; at 1 nothing is damped.
    - `record`: how many residuals the state keeps in its `history`.
    """

    rtol: float | Array = 0.0  # type: ignore[assignment]
    atol: float | Array = 1e-8  # type: ignore[assignment]
    norm: Callable[[Tree], Array] = optx.max_norm
    depth: int = eqx.field(static=True, default=5)
    mixing: float | Array = 0.5
    record: int = eqx.field(static=True, default=0)

    def init(
        self,
        fn: Callable,
        y: Tree,
        args: Tree,
        options: dict[str, object],
        f_struct: Tree,
        aux_struct: Tree,
        tags: frozenset[object],
    ) -> AndersonState:
        """Start without any memory."""
        x = ravel_pytree(y)[0]
        past = jnp.zeros((self.depth, x.size), x.dtype)
        history = jnp.full(self.record, jnp.nan, x.dtype)
        return AndersonState(x, x, past, past, jnp.array(0), jnp.array(jnp.inf, x.dtype), history)

    def step(
        self,
        fn: Callable,
        y: Tree,
        args: Tree,
        options: dict[str, object],
        state: AndersonState,
        tags: frozenset[object],
    ) -> tuple[Tree, AndersonState, Tree]:
        """Ask for one answer, and mix it with those before; an iterate that is good enough stays where it is."""
        mapped, aux = fn(y, args)
        x, back = ravel_pytree(y)
        f = ravel_pytree(mapped)[0] - x
        residual = self.norm(f)
        moves, changes = state.moves, state.changes
        if self.depth:
            known = state.count > 0  # the first iterate has none before it
            moves = jnp.where(known, _pushed(moves, x - state.place), moves)
            changes = jnp.where(known, _pushed(changes, f - state.answer), changes)
        b = jnp.asarray(self.mixing, x.dtype)
        weights = _least_squares(changes, f)
        moved = x + b * f - jnp.tensordot(weights, moves + b * changes, axes=1)
        history = state.history
        if self.record:
            history = history.at[state.count].set(residual, mode="drop")
        new = AndersonState(x, f, moves, changes, state.count + 1, residual, history)
        return back(jnp.where(self._close(residual, y), x, moved)), new, aux

    def _close(self, residual: Array, y: Tree) -> Array:
        return residual <= self.atol + self.rtol * self.norm(y)

    def terminate(
        self,
        fn: Callable,
        y: Tree,
        args: Tree,
        options: dict[str, object],
        state: AndersonState,
        tags: frozenset[object],
    ) -> tuple[Bool[Array, ""], optx.RESULTS]:
        """End where the undamped residual of the last iterate is small."""
        return self._close(state.residual, y), optx.RESULTS.successful  # type: ignore[return-value]

    def postprocess(
        self,
        fn: Callable,
        y: Tree,
        aux: Tree,
        args: Tree,
        options: dict[str, object],
        state: AndersonState,
        tags: frozenset[object],
        result: optx.RESULTS,
    ) -> tuple[Tree, Tree, dict[str, object]]:
        """Tell how many maps there were, and their residuals."""
        return y, aux, {}


def picard(weight: float = 1.0) -> Anderson:
    """Make the solver that answers again and again, x + weight * (T(x) - x): Anderson's without memory."""
    require_positive(as_real(weight, "weight"), "weight")
    return Anderson(depth=0, mixing=weight)


def _pushed(past: Array, newest: Array) -> Array:
    return jnp.concatenate([newest[None], past[:-1]])


def _least_squares(columns: Array, f: Array) -> Array:
    """Weights g (k,) that make |f - g @ columns| least; 0 for what depends on newer columns."""
    k = columns.shape[0]
    tiny = jnp.finfo(f.dtype).eps ** 0.5
    basis: list[Array] = []
    triangle: list[list[Array]] = []  # of each column, its shares in the basis
    pivots: list[Array] = []
    for j in range(k):
        v = columns[j]
        size = jnp.sqrt(jnp.sum(v * v))
        shares = []
        for q in basis:
            shares.append(jnp.sum(q * v))
            v = v - shares[-1] * q
        left = jnp.sqrt(jnp.sum(v * v))
        new = left > tiny * size
        pivots.append(jnp.where(new, left, 1))
        basis.append(jnp.where(new, v / pivots[-1], 0))
        triangle.append(shares)
    weights = [jnp.sum(q * f) for q in basis]
    for j in reversed(range(k)):
        weights[j] = weights[j] / pivots[j]
        for i in range(j):
            weights[i] = weights[i] - triangle[j][i] * weights[j]
    return jnp.stack(weights) if k else jnp.zeros(0, f.dtype)


# --- the game ----------------------------------------------------------------------------------------------------


class MeanField(Module):
    """What a coupling may know about the crowd at one time: its density, and any moment of it.

    - `density`: means over cells, (*shape). `grid`: the cells.
    """

    density: Float[Array, "*shape"]
    grid: Grid

    def moment(self, function: Callable[[Array], Array]) -> Array:
        """Integrate a function of place (d,) over the density."""
        values = at_points(function, cell_points(self.grid, self.density.dtype))
        volume = self.grid.volume.astype(self.density.dtype)
        return jnp.tensordot(self.density, values, axes=self.grid.box.d) * volume

    @property
    def mean(self) -> Float[Array, " d"]:
        """The mean place."""
        return self.moment(lambda x: x)


Coupling = Callable[[Array, Array, MeanField], Array] | ArrayLike
"""A cost from the others: c for the cost c m(x), or a function of a place (d,), m there () and the `MeanField`."""


class MeanFieldGame(Module):
    """A game of very many equal agents on a grid, each with dX = a dt + S dW (Ito) and D = S^2 / 2.

    Each pays the expectation of the integral of L(a) + V(X) + F(X, m) and, at the end, of g(X) + G(X, m).

    **Arguments:**

    - `grid`: cells; walls reflect or are periodic. `ts`: times (t,) at which density and value are kept; the drift is
      linear in time between them.
    - `initial`: m at the first time, means over cells (*shape), of mass 1.
    - `diffusion`: D: a number, one for each axis (d,), or a function (t, x).
    - `running`, `terminal`: V and g: functions of place (d,), values at the centres (*shape), or numbers.
    - `coupling`, `terminal_coupling`: F and G: a number c for c m(x), or a function (x, m(x), field), where `field` is
      the `MeanField` at that time. While the equilibrium is sought, m may be slightly negative.
    - `hamiltonian`: `Quadratic()` by default, L = |a|^2 / 2.

    **Raises:** `ValueError` for wrong shapes, an initial density that is negative or not of mass 1, a negative
    diffusion, costs that are not finite and times that do not increase.
    """

    grid: Grid
    ts: Float[Array, " t"]
    initial: Float[Array, "*shape"]
    diffusion: Diffusion
    running: Float[Array, "*shape"]
    coupling: Coupling
    terminal: Float[Array, "*shape"]
    terminal_coupling: Coupling
    hamiltonian: AbstractHamiltonian

    def __init__(
        self,
        grid: Grid,
        ts: Times,
        initial: Float[ArrayLike, "*shape"],
        *,
        diffusion: Diffusion,
        running: Cost = 0.0,
        coupling: Coupling = 0.0,
        terminal: Cost = 0.0,
        terminal_coupling: Coupling = 0.0,
        hamiltonian: AbstractHamiltonian | None = None,
    ) -> None:
        self.grid = grid
        m = jnp.asarray(initial)
        self.initial = m if jnp.issubdtype(m.dtype, jnp.floating) else m.astype(float)
        dtype = self.initial.dtype
        check_density(self.initial, grid)
        self.ts = checked_times(ts, dtype)
        self.diffusion = diffusion if callable(diffusion) else jnp.asarray(diffusion, dtype)
        check_fields((), diffusion, grid, self.ts)  # of the diffusion alone: the drift is the answer
        self.running = cost_at_centres(running, grid, dtype, "the running cost")
        self.terminal = cost_at_centres(terminal, grid, dtype, "the terminal cost")
        self.coupling = coupling if callable(coupling) else jnp.asarray(coupling, dtype)
        self.terminal_coupling = (
            terminal_coupling if callable(terminal_coupling) else jnp.asarray(terminal_coupling, dtype)
        )
        self.hamiltonian = Quadratic() if hamiltonian is None else hamiltonian


def coupled(coupling: Coupling, density: Float[Array, "*shape"], grid: Grid) -> Float[Array, "*shape"]:
    """Evaluate what the crowd costs at the centre of each cell."""
    if not callable(coupling):
        return jnp.asarray(coupling, density.dtype) * density
    field = MeanField(density, grid)
    points = cell_points(grid, density.dtype)

    def one(x: Array, m: Array) -> Array:
        return jnp.asarray(coupling(x, m, field), density.dtype).reshape(())

    out = jax.vmap(one)(points.reshape(-1, grid.box.d), density.reshape(-1))
    return out.reshape(grid.shape)


class Numerics(Module):
    """How one answer to a density path is computed: see `solve_hamilton_jacobi` and `solve_fokker_planck`."""

    method: Method = eqx.field(static=True, default="finite_difference")
    scheme: Scheme = eqx.field(static=True, default="extrapolated")
    substeps: int = eqx.field(static=True, default=1)
    policies: int = eqx.field(static=True, default=1)


class Response(Module):
    """The best answer of agents to a density path of the others: their value, drift, and own density path."""

    density: Float[Array, "t *shape"]
    value: Float[Array, "t *shape"]
    drift: Faces


def respond(game: MeanFieldGame, density: Float[Array, "t *shape"], numerics: Numerics | None = None) -> Response:
    """Find the best answer to a density path: the map whose fixed point is an equilibrium.

    **Arguments:** `density`: of the others at `game.ts`. `numerics`: how.

    **Returns:** a `Response`, whose density starts from `game.initial`.
    """
    how = Numerics() if numerics is None else numerics
    problem = make_problem(game.hamiltonian, game.diffusion, game.grid, how.method, how.scheme, how.policies)
    running = game.running[None] + jax.vmap(lambda m: coupled(game.coupling, m, game.grid))(density)
    last = game.terminal + coupled(game.terminal_coupling, density[-1], game.grid)
    value = value_path(problem, last, running, game.ts, how.substeps)
    drift = jax.vmap(lambda u: best_drift(u, game.hamiltonian, game.grid))(value)
    path = density_path(drift, game.diffusion, game.initial, game.grid, game.ts, how.scheme, how.substeps)
    return Response(path.density, value, drift)


class Equilibrium(Module):
    """An equilibrium of a game, or where the search for it ended.

    - `ts`, `density` (t, *shape), `value` (t, *shape), `drift` (for each axis (t, ...), at faces): of all agents, as
      the answer to the last density path.
    - `residuals`: the largest |T(m) - m| over times and cells of each map, undamped, NaN where there was none;
      `residual`: the last. `maps`: how many answers were computed. `tol`: what was asked for.
    - `success`: whether `residual` is at most `tol`.
    """

    ts: Float[Array, " t"]
    density: Float[Array, "t *shape"]
    value: Float[Array, "t *shape"]
    drift: Faces
    residuals: Float[Array, " maps"]
    residual: Float[Array, ""]
    maps: Int[Array, ""]
    tol: Float[Array, ""]
    success: Bool[Array, ""]
    grid: Grid

    @property
    def message(self) -> str:
        """What came out, and what to do if it is no equilibrium; of one game, outside of jit and vmap."""
        if traced(self) or self.success.ndim:
            return "the game is one of many, or being compiled: read `success`"
        found = f"the residual |T(m) - m| is {float(self.residual):.2g} after {int(self.maps)} maps"
        if bool(self.success):
            return f"{found}: an equilibrium to {float(self.tol):.2g}"
        return (
            f"{found}, above {float(self.tol):.2g}: no equilibrium yet. Raise max_maps, try Anderson(depth=10) or a "
            "smaller mixing, or start from the equilibrium of a weaker coupling (start=)"
        )


def solve_game(
    game: MeanFieldGame,
    *,
    solver: optx.AbstractFixedPointSolver | None = None,
    tol: float | None = None,
    max_maps: int = 30,
    start: Float[ArrayLike, "t *shape"] | None = None,
    method: Method = "finite_difference",
    scheme: Scheme = "extrapolated",
    substeps: int = 1,
    policies: int = 1,
) -> Equilibrium:
    """Find an equilibrium of a mean field game: a density path that is the best answer to itself.

    Forward and reverse derivatives are those of the equilibrium, from its equation m = T(m) (implicit differentiation):
    the linearised equation is solved by the same acceleration, so nothing of the search is stored; a derivative whose
    solve does not converge is NaN. Where `success` is false there is no equilibrium to differentiate.

    **Arguments:**

    - `game`: a `MeanFieldGame`.
    - `solver`: `Anderson(depth=5)` by default; `picard(.25)` is the damped iteration. Its tolerance and length
      of record are set from here. Any fixed-point solver of optimistix will do, with its own tolerance and no record.
    - `tol`: of the largest undamped |T(m) - m| over times and cells; 1e-8 in double precision, 1e-4 in single.
    - `max_maps`: how many answers may be computed, the last one, which is returned, included.
    - `start`: a density path (t, *shape) to start from; by default the initial density stays.
    - `method`, `scheme`, `substeps`, `policies`: of an answer, see `solve_hamilton_jacobi`.

    **Returns:** an `Equilibrium`; `success`, `residuals` and `message` tell whether it is one.

    **Raises:** `ValueError` for a start of wrong shape, less than 2 maps, unknown words, and walls that absorb.
    """
    require_kind(game, MeanFieldGame, "game", "a MeanFieldGame(grid, ts, initial, diffusion=...)")
    if solver is not None:
        require_kind(solver, optx.AbstractFixedPointSolver, "solver", "Anderson(), picard(), or None")
    if tol is not None and not as_real(tol, "tol") > 0:
        raise ValueError(f"tol should be a distance above 0, but it is {tol}")
    numerics = Numerics(method, scheme, substeps, policies)
    make_problem(game.hamiltonian, game.diffusion, game.grid, method, scheme, policies)
    checked_times(game.ts, game.ts.dtype, substeps)
    check_room(game.grid, 2 * game.ts.shape[0], game.initial.dtype)
    full, dtype = (game.ts.shape[0], *game.grid.shape), game.initial.dtype
    path = jnp.broadcast_to(game.initial[None], full) if start is None else jnp.asarray(start, dtype)
    if path.shape != full:
        raise ValueError(f"a density path to start from should have shape {full}, but it has {path.shape}")
    as_count(max_maps, "max_maps", 2)
    if tol is None:
        tol = 1e-8 if jnp.finfo(dtype).eps < 1e-10 else 1e-4
    chosen = Anderson() if solver is None else solver
    if isinstance(chosen, Anderson):
        # as arrays, so that another tolerance or mixing is no other program
        nought, b = jnp.zeros((), dtype), jnp.asarray(chosen.mixing, dtype)
        chosen = dataclasses.replace(chosen, rtol=nought, atol=jnp.asarray(tol, dtype), mixing=b, record=max_maps)
    return compiled(_solve, (game, path, chosen, jnp.asarray(tol, dtype), numerics), (max_maps,))


def _solve(
    game: MeanFieldGame,
    start: Array,
    solver: optx.AbstractFixedPointSolver,
    tol: Array,
    numerics: Numerics,
    max_maps: int,
) -> Equilibrium:
    # whatever a user's functions have closed over becomes an argument: derivatives by it must not be lost
    answer = eqx.filter_closure_convert(lambda path: respond(game, path, numerics).density, start)
    path, steps, history = _fixed_point(answer, start, solver=solver, max_steps=max_maps - 1)
    last = respond(game, path, numerics)
    residual = jax.lax.stop_gradient(jnp.max(jnp.abs(last.density - path)))
    # an optimistix solver of another kind may return more steps than are recorded
    history = history if history.shape[0] == max_maps else jnp.full(max_maps, jnp.nan, path.dtype)
    history = history.at[steps].set(residual, mode="drop")
    return Equilibrium(
        game.ts,
        last.density,
        last.value,
        last.drift,
        history,
        residual,
        steps + 1,
        tol,
        residual <= tol,
        game.grid,
    )


@eqx.filter_custom_jvp
def _fixed_point(
    answer: Callable[[Array], Array], start: Array, *, solver: optx.AbstractFixedPointSolver, max_steps: int
) -> tuple[Array, Array, Array]:
    """(where the search ended, how many steps, the residuals of each)."""
    found: optx.Solution = optx.fixed_point(
        lambda path, _: answer(path), solver, start, max_steps=max_steps, throw=False
    )
    history = found.state.history if isinstance(solver, Anderson) else jnp.zeros(0, start.dtype)
    return found.value, found.stats["num_steps"], history


@_fixed_point.def_jvp
def _fixed_point_jvp(
    primals: tuple, tangents: tuple, *, solver: optx.AbstractFixedPointSolver, max_steps: int
) -> tuple:
    """Differentiate m = T(m): (1 - dT/dm) dm = dT."""
    answer, start = primals
    out = _fixed_point(answer, start, solver=solver, max_steps=max_steps)
    leaves, structure = jax.tree_util.tree_flatten(answer)
    moves = structure.flatten_up_to(tangents[0])  # type: ignore[attr-defined]  # None for what is not differentiated
    moving = [leaf for leaf, move in zip(leaves, moves) if move is not None]
    directions = [move for move in moves if move is not None]

    def map_of(moved: list[Array], path: Array) -> Array:
        rest = iter(moved)
        filled = [leaf if move is None else next(rest) for leaf, move in zip(leaves, moves)]
        return jax.tree_util.tree_unflatten(structure, filled)(path)

    # linearised once for both: by the path within the solve, and by all else
    linear = jax.linearize(map_of, moving, out[0])[1]
    direct = linear(directions, jnp.zeros_like(out[0]))
    still = [jnp.zeros_like(direction) for direction in directions]
    return out, (solve_around(lambda v: linear(still, v), direct), None, None)


def solve_around(linear: Callable[[Array], Array], rhs: Float[Array, "..."]) -> Float[Array, "..."]:
    """Solve (1 - A) v = rhs for a linear function A, and transposed for its derivative, by Anderson's acceleration.

    Products with A are all that it takes; with memory enough that is GMRES (Walker and Ni 2011), in plain XLA.

    **Returns:** v; NaN where it was not found to about the square of the root of the precision in 100 products.
    """
    tol = float(jnp.finfo(rhs.dtype).eps) ** 0.7
    solver = Anderson(rtol=tol, atol=0.0, depth=10)

    def solve(product: Callable[[Array], Array], b: Array) -> Array:
        found: optx.Solution = optx.fixed_point(lambda v, _: v - product(v) + b, solver, b, max_steps=100, throw=False)
        return jnp.where(found.result == optx.RESULTS.successful, found.value, jnp.nan)

    return jax.lax.custom_linear_solve(lambda v: v - linear(v), rhs, solve, solve)


# --- the game on the line that is solved in closed form ----------------------------------------------------------


class LinearQuadraticEquilibrium(Module):
    """The equilibrium of a linear-quadratic game at times (t,): the crowd is normal, and the value is a parabola.

    - `mean`, `var`: of the crowd. `curvature`, `slope`, `level`: P, R, S of the value u = P x^2 / 2 + R x + S; the best
      drift is -(P x + R). `cost`: what an agent of the crowd expects to pay from the first time on.
    - `success`: false where there is no equilibrium on this interval, and then all numbers are NaN.
    """

    ts: Float[Array, " t"]
    mean: Float[Array, " t"]
    var: Float[Array, " t"]
    curvature: Float[Array, " t"]
    slope: Float[Array, " t"]
    level: Float[Array, " t"]
    cost: Float[Array, ""]
    success: Bool[Array, ""]


class LinearQuadraticGame(Module):
    """Agents on the line who like to be near s times the mean of all: dX = a dt + sig dW, X_0 ~ N(m0, v0).

    Each pays the expectation of the integral of a^2/2 + q/2 (X - s m)^2 over [0, T], and qT/2 (X_T - sT m_T)^2. The
    Riccati equations P' = P^2 - q and Q' = Q^2 - q (1 - s), Q(T) = qT (1 - sT), are solved in closed form: u is a
    parabola, m' = -Q m (Bensoussan, Sung, Yam and Yung 2016).

    **Arguments:** `q`, `s`, `qT`, `sT`: strengths of the costs, and shares of the mean; `sig`: S, so D = sig^2 / 2;
    `m0`, `v0`: mean and variance at the start; `T`: the end.
    """

    q: Scalar = eqx.field(converter=as_float)
    s: Scalar = eqx.field(converter=as_float)
    qT: Scalar = eqx.field(converter=as_float)
    sT: Scalar = eqx.field(converter=as_float)
    sig: Scalar = eqx.field(converter=as_float)
    m0: Scalar = eqx.field(converter=as_float)
    v0: Scalar = eqx.field(converter=as_float)
    T: Scalar = eqx.field(converter=as_float)

    def equilibrium(self, ts: Times) -> LinearQuadraticEquilibrium:
        """Evaluate the equilibrium at times from 0 to T.

        **Arguments:** `ts`: (t,).

        **Returns:** a `LinearQuadraticEquilibrium`.
        """
        return compiled(LinearQuadraticGame._equilibrium, (self, jnp.asarray(ts, self.T.dtype)))

    def _equilibrium(self, times: Array) -> LinearQuadraticEquilibrium:
        exists = _lasts(self.q, self.qT, self.T) & _lasts(*self._of_mean, self.T)
        mean, var, curvature, slope, level = (jnp.where(exists, x, jnp.nan) for x in jax.vmap(self._at)(self.T - times))
        _, _, p, r, s = self._at(self.T)
        cost = jnp.where(exists, p * (self.v0 + self.m0**2) / 2 + r * self.m0 + s, jnp.nan)
        return LinearQuadraticEquilibrium(times, mean, var, curvature, slope, level, cost, exists)

    @property
    def _of_mean(self) -> tuple[Array, Array]:
        """Curvature and end of the Riccati equation of Q."""
        return self.q * (1 - self.s), self.qT * (1 - self.sT)

    def _mean(self, left: Array) -> tuple[Array, Array]:
        """The mean, and R: so long before the end."""
        phi, rate, _ = _riccati(*self._of_mean, left)
        depth, slope, _ = _riccati(self.q, self.qT, left)
        mean = self.m0 * phi / _riccati(*self._of_mean, self.T)[0]
        return mean, (rate / phi - slope / depth) * mean

    def _at(self, left: Array) -> list[Array]:
        """Mean, variance, P, R, S so long before the end."""
        depth, slope, wave = _riccati(self.q, self.qT, left)
        first, _, first_wave = _riccati(self.q, self.qT, self.T)
        mean, r = self._mean(left)
        # the integral of 1/depth^2 over time is a difference of wave/depth
        noise = self.sig**2 * (first_wave / first - wave / depth)
        var = depth**2 * (self.v0 / first**2 + noise)
        nodes, weights = (jnp.asarray(x, left.dtype) for x in np.polynomial.legendre.leggauss(32))
        means, slopes = jax.vmap(self._mean)((nodes + 1) / 2 * left)
        paid = jnp.sum(weights * (self.q * self.s**2 * means**2 - slopes**2)) * left / 4
        last = self.qT * (self.sT * self.m0 / _riccati(*self._of_mean, self.T)[0]) ** 2 / 2
        return [mean, var, slope / depth, r, self.sig**2 / 2 * jnp.log(depth) + paid + last]


def _riccati(curvature: Array, end: Array, left: Array) -> tuple[Array, Array, Array]:
    """(D, its rate, G) with P = rate / D the solution of P' = P^2 - curvature, P = end with no time left.

    D = cosh(w left) + end sinh(w left) / w and G = sinh(w left) / w, w^2 = curvature, cosines where that is negative.
    """
    cosine, sine = _waves(curvature * left**2)
    g = left * sine
    return cosine + end * g, curvature * g + end * cosine, g


def _waves(z: Array) -> tuple[Array, Array]:
    """cosh and sinh(y) / y of y = sqrt(z): entire functions of z, with derivatives at 0."""
    near = jnp.abs(z) < 1
    small = jnp.where(near, z, 0)
    both = jnp.ones((2, *z.shape), z.dtype)
    for n in range(9, 0, -1):
        both = 1 + both * (small * jnp.asarray([1 / (2 * n * (2 * n - 1)), 1 / (2 * n * (2 * n + 1))], z.dtype))
    y = jnp.sqrt(jnp.where(near, 1, jnp.abs(z)))
    rising = jnp.minimum(y, jnp.log(jnp.finfo(z.dtype).max) / 2)  # only for z > 0: cosines have no limit
    far = jnp.where(z > 0, jnp.cosh(rising), jnp.cos(y)), jnp.where(z > 0, jnp.sinh(rising), jnp.sin(y)) / y
    return jnp.where(near, both[0], far[0]), jnp.where(near, both[1], far[1])


def _lasts(curvature: Array, end: Array, left: Array) -> Array:
    """Whether the solution of a Riccati equation reaches back so far before the end: D has no zero there."""
    wave = jnp.sqrt(jnp.maximum(-curvature, jnp.finfo(left.dtype).tiny ** 0.5))
    oscillating = wave * left < jnp.pi / 2 + jnp.arctan2(end, wave)
    return jnp.where(curvature < 0, oscillating, _riccati(curvature, end, left)[0] > 0)
