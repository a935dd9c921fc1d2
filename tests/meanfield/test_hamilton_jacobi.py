"""Values of control problems on grids: against closed forms, staged values, and what a value must obey."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.meanfield._boundary import Box, Grid
from jaxsci.meanfield._game import LinearQuadraticGame
from jaxsci.meanfield._hamilton_jacobi import AbstractHamiltonian, Quadratic, solve_hamilton_jacobi

D = 0.2


def periodic(n):
    return Grid(Box(0.0, 2 * np.pi, "periodic"), n)


def centres(grid):
    return float(grid.box.lower[0]) + (np.arange(grid.shape[0]) + 0.5) * float(grid.step[0])


def cole_hopf(x, T):
    """u = -2D ln phi, where phi diffuses back from exp(-g / 2D), g = cos x."""
    y = np.arange(256) * 2 * np.pi / 256
    series = np.fft.rfft(np.exp(-np.cos(y) / (2 * D))) / 256
    k = np.arange(len(series))
    weights = np.where(k == 0, 1, 2) * series.real * np.exp(-D * k**2 * T)
    return -2 * D * np.log(np.cos(np.outer(x, k)) @ weights)


def slope(sizes, errors):
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


def first(n, substeps, scheme="extrapolated", method="finite_difference"):
    path = solve_hamilton_jacobi(
        lambda x: jnp.cos(x[0]), periodic(n), [0, 1.0], diffusion=D, substeps=substeps, scheme=scheme, method=method
    )
    return path.value[0]


@pytest.mark.parametrize(("scheme", "order"), [("implicit_euler", 1), ("extrapolated", 2)])
def test_order_in_time(scheme, order):
    steps, exact = np.array([8, 16, 32]), first(50, 512)
    errors = [float(jnp.mean(jnp.abs(first(50, int(k), scheme) - exact))) for k in steps]
    assert abs(slope(1 / steps, errors) - order) < 0.15


def test_semi_lagrangian_converges():
    """Steps and cells get smaller together: of first order."""
    sizes = np.array([4, 8, 16])
    errors = [
        float(np.abs(first(25 * k, int(k), "implicit_euler", "semi_lagrangian") - exact(25 * k)).mean())
        for k in map(int, sizes)
    ]
    assert 0.8 < slope(1 / sizes, errors) < 1.3


def exact(n):
    return cole_hopf(centres(periodic(n)), 1.0)


def test_order_in_space():
    cells = np.array([16, 32, 64])
    errors = [float(np.abs(first(int(n), 80) - exact(int(n))).mean()) for n in cells]
    assert abs(slope(1 / cells, errors) - 2) < 0.2


@pytest.mark.parametrize("method", ["finite_difference", "semi_lagrangian"])
@pytest.mark.parametrize("name", ["crowd1d", "towel1d"])
def test_staged_values(name, method, shared_data):
    """The value in a given crowd."""
    data = np.load(shared_data / "meanfield" / f"mfg_{name}.npz")
    x, t, c, sigma = data["x"], data["t"], float(data["c"]), float(data["sigma"])
    cost, end = (np.cos(2 * np.pi * x), 4 * (x - 0.7) ** 2) if name == "crowd1d" else (3 * (x - 0.8) ** 2, 0 * x)
    path = solve_hamilton_jacobi(
        jnp.asarray(end),
        Grid(Box(0.0, 1.0), len(x)),
        t,
        diffusion=sigma**2 / 2,
        running=cost[None] + c * data["m"],
        method=method,
        substeps=2,
    )
    distance = np.abs(path.value - data["u"]).mean(axis=1).max()
    assert distance < (1e-3 if method == "finite_difference" else 1e-2)
    assert path.drift_at_centres().shape == (*data["u"].shape, 1)


@pytest.mark.parametrize("method", ["finite_difference", "semi_lagrangian"])
def test_parabola_of_the_riccati_equation(method):
    game = LinearQuadraticGame(q=1.0, s=0.0, qT=0.5, sT=0.0, sig=0.6, m0=0.0, v0=1.0, T=1.0)
    grid = Grid(Box(-5.0, 5.0), 200)
    path = solve_hamilton_jacobi(
        lambda x: 0.25 * x[0] ** 2,
        grid,
        jnp.linspace(0, 1, 21),
        diffusion=0.18,
        running=lambda t, x: 0.5 * x[0] ** 2,
        method=method,
        substeps=2,
    )
    x, exact = centres(grid), game.equilibrium([0.0, 1.0])
    inner = np.abs(x) < 1.5
    value = exact.curvature[0] * x**2 / 2 + exact.level[0]
    np.testing.assert_allclose(path.value[0][inner], value[inner], atol=3e-3 if method == "finite_difference" else 3e-2)
    drift = path.drift_at_centres()[0, :, 0]
    np.testing.assert_allclose(drift[inner], -exact.curvature[0] * x[inner], atol=2e-2)


@pytest.mark.parametrize("method", ["finite_difference", "semi_lagrangian"])
def test_two_axes_are_a_sum(method):
    line = Grid(Box(0.0, 1.0), 14)
    plane = Grid(Box(jnp.zeros(2), jnp.ones(2)), (14, 14))
    how = {"diffusion": 0.1, "method": method, "substeps": 8}
    one = solve_hamilton_jacobi(lambda x: jnp.cos(3 * x[0]), line, [0, 0.3], **how).value[0]
    two = solve_hamilton_jacobi(lambda x: jnp.cos(3 * x[0]) + jnp.cos(3 * x[1]), plane, [0, 0.3], **how).value[0]
    np.testing.assert_allclose(two, one[:, None] + one[None], atol=1e-12 if method == "finite_difference" else 4e-3)


@pytest.mark.parametrize("method", ["finite_difference", "semi_lagrangian"])
def test_monotone_and_between_its_bounds(method):
    """Without diffusion, and with steps far beyond a cell: no value below the least, and costlier is not cheaper."""
    grid, x = periodic(40), centres(periodic(40))

    def value(amount, extra, diffusion, dt):
        path = solve_hamilton_jacobi(
            amount * jnp.sign(jnp.sin(jnp.asarray(x))) + extra * jnp.exp(-8 * (jnp.asarray(x) - 2) ** 2),
            grid,
            dt * jnp.arange(5.0),
            diffusion=diffusion,
            scheme="implicit_euler",
            method=method,
            policies=6,
        )
        return path.value

    amount, diffusion, dt = (
        jnp.ravel(v) for v in jnp.meshgrid(jnp.array([0.1, 1.0]), jnp.array([0.0, 1e-3, 0.1]), jnp.array([1e-3, 0.1]))
    )
    sweep = jax.jit(jax.vmap(value, (0, None, 0, 0)))
    low, high = sweep(amount, 0.0, diffusion, dt), sweep(amount, 0.05, diffusion, dt)
    assert jnp.isfinite(low).all()
    assert (low >= -amount[:, None, None] - 1e-9).all()
    if method == "finite_difference":
        assert (high - low >= -1e-9).all()


class Quartic(AbstractHamiltonian):
    """|p|^4 / 4."""

    def __call__(self, x, p):
        return jnp.sum(p**2) ** 2 / 4


def test_hamiltonians():
    x, p = jnp.zeros(2), jnp.array([1.0, -2.0])
    np.testing.assert_allclose(Quadratic(2.0).drift(x, p), -p / 2)
    np.testing.assert_allclose(Quadratic(2.0).cost(x, p), 2.0 * jnp.sum((p / 2) ** 2) / 2)
    np.testing.assert_allclose(Quartic().drift(x, p), -5 * p)
    # Legendre: the best drift's cost, plus what it gains, is -H
    np.testing.assert_allclose(Quartic().cost(x, p) + Quartic().drift(x, p) @ p, -Quartic()(x, p))
    grid = periodic(60)
    path = solve_hamilton_jacobi(
        lambda x: 3.0 + 0 * x[0],
        grid,
        [0, 0.5],
        diffusion=0.1,
        running=lambda t, x: t,
        hamiltonian=Quartic(),
        substeps=4,
    )
    np.testing.assert_allclose(path.value[0], 3.0 + 0.125, rtol=1e-12)


def test_vmap_and_derivatives():
    grid = periodic(16)

    def value(p):
        path = solve_hamilton_jacobi(
            lambda x: p[0] * jnp.cos(x[0]),
            grid,
            [0, 0.3, 0.5],
            diffusion=lambda t, x: p[1] * (2 + jnp.sin(x)),
            substeps=2,
        )
        return path.value[0, 3] + path.drift[0][0, 5]

    sweep = jnp.array([[1.0, 0.1], [0.3, 0.4]])
    one = jax.jit(value)
    np.testing.assert_allclose(jax.vmap(value)(sweep), [one(p) for p in sweep], rtol=1e-11)
    gradient = jax.jit(jax.vmap(jax.grad(value)))(sweep)
    h = 1e-5 * jnp.eye(2)
    central = [[(one(p + e) - one(p - e)) / 2e-5 for e in h] for p in sweep]
    np.testing.assert_allclose(gradient, central, rtol=1e-6)


REFUSED = {
    "absorbing wall is not known": {"grid": Grid(Box(0.0, 1.0, "absorbing"), 4)},
    "terminal cost should have shape \\(4,\\)": {"terminal": jnp.ones(5)},
    "terminal cost is not finite in 4": {"terminal": lambda x: jnp.log(-x[0])},
    "running cost should have shape \\(4,\\) \\(cells\\) or \\(2, 4\\)": {"running": jnp.ones(3)},
    "running cost is not finite": {"running": jnp.nan},
    "it is -1": {"diffusion": -1.0},
    "policies should be 1": {"policies": 0},
    "increase": {"ts": [1.0, 0.0]},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_by_name(message):
    given = {"terminal": 0.0, "grid": Grid(Box(0.0, 1.0), 4), "ts": [0.0, 1.0], "diffusion": 0.1}
    with pytest.raises(ValueError, match=message):
        solve_hamilton_jacobi(**{**given, **REFUSED[message]})
