"""Mean field games: staged equilibria, the search for them, and derivatives of what was found."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from scipy.stats import norm

from jaxsci.core import Module, Scalar
from jaxsci.meanfield._boundary import Box, Grid
from jaxsci.meanfield._game import Anderson, LinearQuadraticGame, MeanFieldGame, picard, solve_game

NAMES = ("crowd1d", "towel1d")


def line(name, shared_data):
    data = np.load(shared_data / "meanfield" / f"mfg_{name}.npz")
    x = data["x"]
    cost, end = (np.cos(2 * np.pi * x), 4 * (x - 0.7) ** 2) if name == "crowd1d" else (3 * (x - 0.8) ** 2, 0 * x)
    game = MeanFieldGame(
        Grid(Box(0.0, 1.0), len(x)),
        data["t"],
        data["m"][0],
        diffusion=float(data["sigma"]) ** 2 / 2,
        running=cost,
        coupling=float(data["c"]),
        terminal=end,
    )
    return game, data


def l1(path, reference, grid):
    distance = np.abs(np.asarray(path) - reference).reshape(len(reference), -1).sum(axis=1)
    return float(distance.max() * grid.volume)


@pytest.mark.parametrize("name", NAMES)
def test_games_on_a_line(name, shared_data):
    game, data = line(name, shared_data)
    found = solve_game(game)
    assert bool(found.success)
    assert int(found.maps) <= 30
    assert found.residual <= 1e-8
    assert l1(found.density, data["m"], game.grid) < 0.015
    assert np.abs(found.value - data["u"]).mean(axis=1).max() < 2e-3
    maps = int(found.maps)
    assert jnp.isfinite(found.residuals[:maps]).all()
    assert jnp.isnan(found.residuals[maps:]).all()
    assert found.residuals[maps - 1] == found.residual
    assert found.message.endswith("an equilibrium to 1e-08")
    assert found.density.min() >= 0
    # from where it ended, the first answer is good enough; in single precision, to what that holds
    again = solve_game(game, start=found.density)
    assert int(again.maps) <= 3


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_answering_again_and_again_fails_and_says_so(weight, shared_data):
    game, _ = line("towel1d", shared_data)
    found = solve_game(game, solver=picard(weight))
    assert not bool(found.success)
    assert int(found.maps) == 30
    assert found.residual > 0.1
    assert "no equilibrium yet" in found.message


def test_optimistix_solvers_of_other_kinds(shared_data):
    game, data = line("towel1d", shared_data)
    solver = optx.FixedPointIteration(rtol=0.0, atol=1e-9, damp=0.75)
    found = solve_game(game, solver=solver, max_maps=100)
    assert bool(found.success)
    assert l1(found.density, data["m"], game.grid) < 0.015


def test_game_on_a_plane(shared_data):
    data = np.load(shared_data / "meanfield/mfg_crowd2d.npz")
    x = data["x"]
    grid = Grid(Box(jnp.zeros(2), jnp.ones(2)), (len(x), len(x)))
    game = MeanFieldGame(
        grid,
        np.linspace(0, float(data["T"]), 17),
        data["m"][0],
        diffusion=float(data["sigma"]) ** 2 / 2,
        running=np.cos(2 * np.pi * x)[:, None] * np.cos(np.pi * x)[None],
        coupling=float(data["c"]),
        terminal=2 * ((x - 0.8)[:, None] ** 2 + (x - 0.7)[None] ** 2),
    )
    found = solve_game(game)
    assert bool(found.success)
    assert l1(found.density[::4], data["m"], grid) < 0.015


class Near(Module):
    """The cost of being away from a share of the mean."""

    weight: Scalar
    share: Scalar

    def __call__(self, x, m, field):
        return self.weight / 2 * jnp.sum((x - self.share * field.mean) ** 2)


def quadratic_game(p, cells, steps, lower, upper):
    """A linear-quadratic game on a box so wide that its walls are not met."""
    q, s, end, end_share, sig, mean, var, T = p
    grid = Grid(Box(lower, upper), cells)
    edges = jnp.linspace(lower, upper, cells + 1)
    mass = jnp.diff(jax.scipy.stats.norm.cdf(edges, mean, jnp.sqrt(var)))
    return MeanFieldGame(
        grid,
        T * jnp.linspace(0, 1, steps + 1),
        mass / jnp.sum(mass) / grid.volume,
        diffusion=sig**2 / 2,
        coupling=Near(q, s),
        terminal_coupling=Near(end, end_share),
    )


def normal_path(grid, means, variances):
    edges = float(grid.box.lower[0]) + np.arange(grid.shape[0] + 1) * float(grid.step[0])
    mass = np.diff(norm.cdf(edges[None], np.asarray(means)[:, None], np.sqrt(variances)[:, None]), axis=1)
    return mass / float(grid.step[0])


@pytest.mark.parametrize(("case", "lower", "upper"), [(0, -2.5, 4.0), (1, -2.5, 1.5)])
def test_linear_quadratic_games(case, lower, upper, shared_data):
    """The grid, and the closed form, against the staged Riccati solution."""
    data = np.load(shared_data / "meanfield" / f"lq_mfg_{case}.npz")
    exact = LinearQuadraticGame(*jnp.asarray(data["params"])).equilibrium(data["t"])
    assert bool(exact.success)
    staged = {"mean": "mean", "var": "var", "curvature": "P", "slope": "R", "level": "S", "cost": "cost"}
    for name, key in staged.items():
        np.testing.assert_allclose(getattr(exact, name), data[key], rtol=1e-9, atol=1e-9)
    game = quadratic_game(jnp.asarray(data["params"]), 130, 50, lower, upper)
    found = solve_game(game)
    assert bool(found.success)
    assert l1(found.density, normal_path(game.grid, data["mean"][::2], data["var"][::2]), game.grid) < 0.015


def test_sensitivities_of_the_closed_form(shared_data):
    data = np.load(shared_data / "meanfield/cases/lq_sensitivity.npz")

    def end(p):
        found = LinearQuadraticGame(*p).equilibrium(p[-1:])
        return jnp.stack([found.mean[0], found.var[0]])

    params = jnp.asarray(data["params"])
    found = jax.jit(jax.vmap(end))(params)
    np.testing.assert_allclose(found.T, [data["mean_T"], data["var_T"]], rtol=1e-10)
    slopes = jax.jit(jax.vmap(jax.jacrev(end)))(params)
    np.testing.assert_allclose(slopes[:, 0], data["d_mean_T"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(slopes[:, 1], data["d_var_T"], rtol=0, atol=1e-8)


def test_no_equilibrium_beyond_the_focus():
    """A mean that is pushed outwards gets infinitely far before the end."""
    game = LinearQuadraticGame(q=1.0, s=5.0, qT=0.0, sT=0.0, sig=0.3, m0=1.0, v0=0.1, T=1.0)
    found = game.equilibrium([0.0, 0.5])
    assert not bool(found.success)
    assert jnp.isnan(found.mean).all()


def small(p):
    """A game that depends on its parameters by every way: numbers, closures, and the density at the start."""
    grid = Grid(Box(0.0, 1.0), 16)
    mass = 1 + p[3] * jnp.cos(jnp.pi * (jnp.arange(16.0) + 0.5) / 16)
    return MeanFieldGame(
        grid,
        jnp.linspace(0, 1, 9),
        mass,
        diffusion=0.08 * p[1],
        running=lambda x: 3 * p[2] * jnp.sum((x - 0.8) ** 2),
        coupling=lambda x, m, field: 2 * p[0] * m,
    )


def outcome(p, scheme="implicit_euler"):  # a third of the program
    found = solve_game(small(p), tol=1e-12, max_maps=60, scheme=scheme)
    return jnp.sum(found.density[4] * jnp.linspace(0, 1, 16) ** 2) / 16 + found.value[0, 3] / 10


P = jnp.array([[1.0, 1.0, 1.0, 0.3], [0.7, 1.3, 0.8, -0.2]])


def test_sensitivities_of_equilibria():
    """Reverse and forward derivatives, compiled and in a batch, against central differences of whole searches."""
    h, direction = 1e-5, jnp.array([1.0, -0.5, 2.0, 0.3])
    moves = h * jnp.concatenate([jnp.eye(4), direction[None]])
    moved = jnp.stack([P[:, None] + moves[None], P[:, None] - moves[None]])
    program = jax.jit(jax.vmap(outcome)).lower(moved.reshape(-1, 4)).compile()
    high, low = program(moved.reshape(-1, 4)).reshape(2, 2, 5)
    central = (high - low) / (2 * h)
    reverse = jax.jit(jax.vmap(jax.grad(outcome)))(P)
    np.testing.assert_allclose(reverse, central[:, :4], rtol=1e-6, atol=1e-8)
    forward = jax.jit(jax.vmap(lambda p: jax.jvp(outcome, (p,), (direction,))[1]))(P)
    np.testing.assert_allclose(forward, central[:, 4], rtol=1e-6, atol=1e-8)
    # no kernels of a linear algebra library, which cannot be batched or moved to every device
    assert "custom-call" not in program.as_text()


@pytest.mark.slow
def test_second_derivatives_of_equilibria():
    def function(p):
        return outcome(p, "extrapolated")

    hessian = jax.jit(jax.hessian(function))(P[0])
    gradient = jax.jit(jax.grad(function))
    central = jnp.stack([(gradient(P[0] + e) - gradient(P[0] - e)) / 2e-4 for e in 1e-4 * jnp.eye(4)])
    np.testing.assert_allclose(hessian, central, atol=1e-6)


@pytest.mark.slow
def test_sensitivities_of_a_grid_are_those_of_the_closed_form(shared_data):
    data = np.load(shared_data / "meanfield/cases/lq_sensitivity.npz")
    params = jnp.asarray(data["params"][0])

    def mean(p):
        game = quadratic_game(p, 120, 40, -2.5, 4.0)
        found = solve_game(game, tol=1e-10)
        x = jnp.linspace(-2.5, 4.0, 241)[1::2]
        return jnp.sum(found.density[-1] * x) * game.grid.volume

    np.testing.assert_allclose(jax.grad(mean)(params), data["d_mean_T"][0], rtol=0, atol=2e-3)


def test_single_precision():
    ts, mass = jnp.linspace(0, 1, 9, dtype=jnp.float32), jnp.ones(16, jnp.float32)
    game = MeanFieldGame(Grid(Box(0.0, 1.0), 16), ts, mass, diffusion=0.08, running=lambda x: jnp.sum(x), coupling=1.0)
    found = solve_game(game)
    assert bool(found.success)
    assert found.density.dtype == found.value.dtype == jnp.float32


def test_anderson_solves_linear_equations_in_a_few_maps():
    """With memory of all directions it is GMRES; it works on trees, and Picard's iteration without memory."""
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.normal(size=(4, 4))), jnp.asarray(rng.normal(size=4))

    def answer(y, args):
        x = a @ jnp.concatenate([y["one"], y["rest"]]) + b
        return {"one": x[:1], "rest": x[1:]}

    start = {"one": jnp.zeros(1), "rest": jnp.zeros(3)}
    found = optx.fixed_point(answer, Anderson(atol=1e-10, depth=4, record=20), start)
    exact = np.linalg.solve(np.eye(4) - a, b)
    np.testing.assert_allclose(np.concatenate([found.value["one"], found.value["rest"]]), exact, rtol=1e-8)
    assert int(found.stats["num_steps"]) <= 8
    assert (found.state.history[: int(found.stats["num_steps"]) - 1] > 1e-10).all()
    cosine = optx.fixed_point(lambda x, _: jnp.cos(x), picard(1.0), jnp.array(1.0))
    np.testing.assert_allclose(jnp.cos(cosine.value), cosine.value, atol=1e-8)
    failed = optx.fixed_point(answer, picard(1.0), start, throw=False, max_steps=30)
    assert failed.result != optx.RESULTS.successful


REFUSED = {
    "density should have mass 1": {"initial": 2 * jnp.ones(4)},
    "one mean a cell": {"initial": jnp.ones(3)},
    "it is -1": {"diffusion": -1.0},
    "running cost is not finite": {"running": lambda x: jnp.log(-x[0])},
    "terminal cost should have shape": {"terminal": jnp.ones(3)},
    "should increase": {"ts": [0.0, 0.0]},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_by_name(message):
    given = {"grid": Grid(Box(0.0, 1.0), 4), "ts": [0.0, 1.0], "initial": jnp.ones(4), "diffusion": 0.1}
    with pytest.raises(ValueError, match=message):
        MeanFieldGame(**{**given, **REFUSED[message]})


@pytest.mark.parametrize(
    ("message", "how"),
    [
        ("should have shape \\(9, 16\\)", {"start": jnp.ones((3, 16))}),
        ("max_maps should be a whole number of at least 2", {"max_maps": 1}),
        ("substeps should be 1", {"substeps": 0}),
    ],
)
def test_search_refuses_by_name(message, how):
    with pytest.raises(ValueError, match=message):
        solve_game(small(P[0]), **how)
