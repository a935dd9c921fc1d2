"""Densities by finite volumes: against staged solutions, and what holds at any step: mass, sign, order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxsci.meanfield._boundary import Box, Grid
from jaxsci.meanfield._finite_volume import bernoulli, solve_fokker_planck, solve_m_matrix


def gauss(grid, mean, deviation):
    """Cell means of a normal density, cut at the walls."""
    edges = float(grid.box.lower[0]) + np.arange(grid.shape[0] + 1) * float(grid.step[0])
    mass = np.diff(norm.cdf(edges, mean, deviation))
    return jnp.asarray(mass / mass.sum() / float(grid.volume))


def one_cell(grid, index):
    return jnp.zeros(grid.shape).at[index].set(1 / grid.volume)


def double_well(a, b, s):
    return lambda t, x: b * x - a * x**3, s**2 / 2, Box(-3.0, 3.0)


def constant(walls):
    return lambda mu, s: (lambda t, x: jnp.full(1, mu), s**2 / 2, Box(0.0, 1.0, walls))


def heat(s):
    return lambda t, x: jnp.zeros(1), s**2 / 2, Box(0.0, 1.0)


def cir(k, th, s):
    return lambda t, x: k * (th - x), lambda t, x: s**2 * x / 2, Box(0.0, 4.0)


def washboard(amplitude, force, s):
    return lambda t, x: amplitude * jnp.sin(x) + force, s**2 / 2, Box(0.0, 2 * np.pi, "periodic")


STAGED = {  # the problem, and the L1 distance that the width of its cells allows
    "double_well": (double_well, 2e-3),
    "heat_reflecting": (heat, 6e-4),
    "const_drift_reflecting": (constant("reflecting"), 3e-4),
    "const_drift_absorbing": (constant("absorbing"), 2e-4),
    "const_drift_periodic": (constant("periodic"), 5e-4),
    "cir": (cir, 3e-3),
    "washboard_periodic": (washboard, 6e-4),
}


@pytest.mark.parametrize("name", STAGED)
def test_staged_solutions(name, shared_data):
    data = np.load(shared_data / "meanfield" / f"{name}.npz")
    problem, bound = STAGED[name]
    *numbers, mean, deviation, _ = map(float, data["params"])
    drift, diffusion, box = problem(*numbers)
    grid = Grid(box, len(data["x"]))
    ts = [0.0, *data["t"]]
    path = solve_fokker_planck(drift, diffusion, gauss(grid, mean, deviation), grid, ts, substeps=40)
    distance = np.abs(path.density[1:] - data["p"]).sum(axis=1) * float(grid.volume)
    assert distance.max() < bound
    np.testing.assert_allclose(path.mass + path.exits.sum((1, 2)), 1, rtol=0, atol=1e-13)
    assert path.density.min() >= 0
    if name == "const_drift_absorbing":
        np.testing.assert_allclose(path.mass[1:], data["mass"], atol=1e-4)
    else:
        assert not path.exits.any()
    if name == "double_well":
        # so long a step that only what stays is left
        still = solve_fokker_planck(
            drift, diffusion, path.density[0], grid, [0.0, 1e9, 2e9, 3e9], scheme="implicit_euler", substeps=40
        )
        assert np.abs(still.density[-1] - data["gibbs"]).sum() * float(grid.volume) < 3e-3


def test_first_exits(shared_data):
    """Survival, and what left by each wall."""
    data = np.load(shared_data / "meanfield/cases/two_exits.npz")
    grid = Grid(Box(0.0, float(data["L"]), "absorbing"), 55)  # a cell's centre is where all start
    mu, s = float(data["mu"]), float(data["s"])
    start = one_cell(grid, int(float(data["x0"]) * 55))
    ts = [0.0, *data["times"], 20.0]
    path = solve_fokker_planck(lambda t, x: jnp.full(1, mu), s**2 / 2, start, grid, ts, substeps=40)
    np.testing.assert_allclose(path.mass[1:4], data["survival"], rtol=2e-3)
    np.testing.assert_allclose(path.exits[1:4, 0, 0], data["exit_left_by"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(path.exits[1:4, 0, 1], data["exit_right_by"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(path.exits[4, 0, 1], data["p_exit_right"], rtol=1e-3)
    assert (jnp.diff(path.exits, axis=0) >= 0).all()


def test_high_peclet(shared_data):
    """Forty powers of ten between the cells, each with its digits; from one cell, and nothing negative on the way."""
    data = np.load(shared_data / "meanfield/cases/high_peclet.npz")
    grid = Grid(Box(0.0, 1.0), int(data["n"]))
    drift, diffusion, start = lambda t, x: jnp.full(1, float(data["b"])), float(data["D"]), one_cell(grid, 3)
    ts = [0.0, 1e-3, 1.0, 1e15, 2e15, 3e15, 4e15, 5e15, 6e15]
    path = solve_fokker_planck(drift, diffusion, start, grid, ts, scheme="implicit_euler")
    found = np.log(path.density[-1] * grid.volume)
    np.testing.assert_allclose(found, data["log_cell_mass"], rtol=0, atol=1e-10)
    second = solve_fokker_planck(drift, diffusion, start, grid, [0.0, 1e-3, 0.1, 1.0, 3.0, 100.0])
    for each in (path, second):
        assert each.density.min() >= 0
        np.testing.assert_allclose(each.mass, 1, rtol=0, atol=1e-13)


@pytest.mark.parametrize("walls", ["reflecting", ("absorbing", "reflecting"), "periodic"])
def test_never_negative(walls):
    """At any step and any drift, without diffusion too, from one cell."""
    grid = Grid(Box(0.0, 1.0, [walls]), 16)

    def least(strength, diffusion, dt):
        path = solve_fokker_planck(
            lambda t, x: strength * jnp.sin(6 * x), diffusion, one_cell(grid, 5), grid, dt * jnp.arange(6.0)
        )
        return jnp.min(path.density), jnp.max(jnp.abs(path.mass + jnp.sum(path.exits, (1, 2)) - 1)), path.exits

    many = jnp.meshgrid(jnp.array([0.0, 1.0, 1e3]), jnp.array([0.0, 1e-3, 1.0]), jnp.array([1e-4, 0.1, 1e3]))
    lowest, lost, exits = jax.jit(jax.vmap(least))(*(x.ravel() for x in many))
    assert (lowest >= 0).all()
    assert lost.max() < 1e-12
    assert (jnp.diff(exits, axis=1) >= 0).all()


def slope(sizes, errors):
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


@pytest.mark.parametrize(("scheme", "order"), [("implicit_euler", 1), ("extrapolated", 2)])
def test_order_in_time(scheme, order):
    drift, diffusion, _ = double_well(1.0, 1.0, 0.7)
    grid = Grid(Box(-2.0, 2.0), 20)

    def end(substeps, scheme):
        start = gauss(grid, -0.5, 0.5)
        path = solve_fokker_planck(
            lambda t, x: drift(t, x) * (1 + t), diffusion, start, grid, [0, 1.0], scheme=scheme, substeps=substeps
        )
        return path.density[-1]

    exact = end(960, "extrapolated")
    steps = np.array([30, 60, 120])
    errors = [float(jnp.sum(jnp.abs(end(int(n), scheme) - exact))) for n in steps]
    assert abs(slope(1 / steps, errors) - order) < 0.1


def test_order_in_space():
    drift, diffusion, box = double_well(1.0, 1.0, 0.7)

    def end(n):
        grid = Grid(box, n)
        return solve_fokker_planck(drift, diffusion, gauss(grid, -0.5, 0.5), grid, [0, 0.5], substeps=30).density[-1]

    cells = np.array([30, 60, 120])
    exact = end(960)
    errors = [float(jnp.mean(jnp.abs(end(int(n)) - exact.reshape(n, -1).mean(1)))) for n in cells]
    assert abs(slope(1 / cells, errors) - 2) < 0.1


def test_two_axes_are_a_product():
    """Drifts that do not mix the axes keep a product; walls of one axis take what they take in one dimension."""
    xs, ys = Grid(Box(0.0, 1.0), 12), Grid(Box(0.0, 2.0, "absorbing"), 15)
    both = Grid(Box(jnp.zeros(2), jnp.array([1.0, 2.0]), ["reflecting", "absorbing"]), (12, 15))
    px, py, ts = gauss(xs, 0.3, 0.2), gauss(ys, 1.2, 0.3), [0, 0.1, 0.3]
    along_x = solve_fokker_planck(lambda t, x: 1 - 2 * x, 0.1, px, xs, ts, substeps=16)
    along_y = solve_fokker_planck(lambda t, y: jnp.ones(1) * t, 0.2, py, ys, ts, substeps=16)
    path = solve_fokker_planck(
        lambda t, x: jnp.stack([1 - 2 * x[0], t]),
        jnp.array([0.1, 0.2]),
        px[:, None] * py[None],
        both,
        ts,
        substeps=16,
    )
    product = along_x.density[:, :, None] * along_y.density[:, None, :]
    np.testing.assert_allclose(path.density, product, rtol=0, atol=2e-4 * float(product.max()))
    np.testing.assert_allclose(path.exits[:, 1], along_y.exits[:, 0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(path.exits[:, 0], 0)
    np.testing.assert_allclose(path.mass + path.exits.sum((1, 2)), 1, rtol=0, atol=1e-13)
    np.testing.assert_allclose(path.moment(lambda x: x[0])[0], jnp.sum(px * xs.step * (jnp.arange(12.0) + 0.5)) / 12)


def test_vmap_jit_and_derivatives():
    """A sweep is the loop, and derivatives are those of finite differences."""
    grid = Grid(Box(-2.0, 2.0, [("absorbing", "reflecting")]), 24)
    start = gauss(grid, 0.5, 0.4)

    def spread(p):
        path = solve_fokker_planck(
            lambda t, x: -p[0] * x, lambda t, x: p[1] * (1 + x**2 / 8), start, grid, [0, 0.2, 0.6], substeps=3
        )
        return path.moment(lambda x: x[0] ** 2)[-1] + path.exits[-1, 0, 0]

    sweep = jnp.array([[1.0, 0.3], [2.0, 0.2], [0.0, 0.4]])
    value = jax.jit(spread)
    np.testing.assert_allclose(jax.vmap(spread)(sweep), [value(p) for p in sweep], rtol=1e-12)
    reverse = jax.jit(jax.vmap(jax.grad(spread)))(sweep)
    h = 1e-5 * jnp.eye(2)
    central = [[(value(p + e) - value(p - e)) / 2e-5 for e in h] for p in sweep]
    np.testing.assert_allclose(reverse, central, rtol=1e-6, atol=1e-9)


def test_drift_at_faces():
    """Arrays of face values, also with times, do what the function does."""
    grid = Grid(Box(0.0, 1.0), 10)
    start, edges = gauss(grid, 0.4, 0.2), jnp.linspace(0, 1, 11)
    ts = jnp.array([0.0, 0.1, 0.2])
    function = solve_fokker_planck(lambda t, x: (1 + t) * (0.5 - x), 0.1, start, grid, ts)
    faces = (1 + ts)[:, None] * (0.5 - edges)[None]
    np.testing.assert_allclose(solve_fokker_planck([faces], 0.1, start, grid, ts).density, function.density, rtol=1e-12)
    still = solve_fokker_planck([faces[0]], 0.1, start, grid, ts)
    each = solve_fokker_planck([jnp.stack([faces[0]] * 3)], 0.1, start, grid, ts)
    np.testing.assert_array_equal(still.density, each.density)


def test_single_precision():
    grid = Grid(Box(0.0, 1.0), 12)
    start = gauss(grid, 0.4, 0.2).astype(jnp.float32)
    path = solve_fokker_planck(lambda t, x: 1 - x, 0.1, start, grid, [0, 0.5], substeps=4)
    assert path.density.dtype == path.exits.dtype == jnp.float32
    np.testing.assert_allclose(path.mass, 1, rtol=1e-6)


GRID = Grid(Box(0.0, 1.0), 4)
FLAT = jnp.ones(4)
REFUSED = {
    "should have shape \\(4,\\)": {"initial": jnp.ones(5)},
    "least value is -1": {"initial": jnp.array([3.0, 2.0, -1.0, 0.0])},
    "is 1.5: divide it by that": {"initial": 1.5 * FLAT},
    "it is -0.1": {"diffusion": -0.1},
    "not finite at 5 faces": {"drift": lambda t, x: x * jnp.nan},
    "shape \\(5,\\) \\(faces\\) or \\(2, 5\\)": {"drift": [jnp.ones(4)]},
    "one array for each of 1 axes": {"drift": [jnp.ones(5)] * 2},
    "increase": {"ts": [0.0, 0.0]},
    "two times or more": {"ts": [0.0]},
    "substeps should be 1": {"substeps": 0},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_by_name(message):
    given = {"drift": lambda t, x: 0 * x, "diffusion": 0.1, "initial": FLAT, "grid": GRID, "ts": [0.0, 1.0]}
    with pytest.raises(ValueError, match=message):
        solve_fokker_planck(**{**given, **REFUSED[message]})


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize(("m", "periodic"), [(2, False), (7, False), (6, True)])
def test_m_matrix_is_the_dense_one(m, periodic, columns):
    rng = np.random.default_rng(m)
    lower, upper, excess, rhs = (jnp.asarray(rng.uniform(0.1, 2, (m, 2))) for _ in range(4))
    if not periodic:
        lower, upper = lower.at[0].set(0), upper.at[-1].set(0)
    dense = np.zeros((2, m, m))
    i = np.arange(m)
    for k in range(2):
        np.add.at(dense[k], (i, (i - 1) % m), -lower[:, k])
        np.add.at(dense[k], (i, (i + 1) % m), -upper[:, k])
        dense[k] += np.diag(excess[:, k] - dense[k].sum(axis=0 if columns else 1))
    x, back = jax.vjp(lambda r: solve_m_matrix(lower, upper, excess, r, columns=columns, periodic=periodic), rhs)
    np.testing.assert_allclose(x, np.linalg.solve(dense, rhs.T[..., None])[..., 0].T, rtol=1e-12)
    transposed = np.linalg.solve(dense.transpose(0, 2, 1), rhs.T[..., None])[..., 0].T
    np.testing.assert_allclose(back(rhs)[0], transposed, rtol=1e-12)


def test_bernoulli_near_nought_and_far():
    z = jnp.array([-1e4, -30.0, -0.11, -0.09, -1e-9, 0.0, 1e-9, 0.09, 0.11, 30.0, 1e4])
    safe = np.where(z == 0, 1, z)
    exact = np.where(z == 0, 1, np.where(np.abs(z) > 700, np.maximum(-z, 0), safe / np.expm1(np.clip(safe, -700, 700))))
    np.testing.assert_allclose(bernoulli(z), exact, rtol=1e-14)
    slopes = jax.vmap(jax.grad(bernoulli))(z)
    np.testing.assert_allclose(slopes[4:7], -0.5, atol=1e-9)
    assert jnp.isfinite(slopes).all()
    # B(-z) - B(z) = z holds for derivatives too
    np.testing.assert_allclose(slopes + slopes[::-1], -1, rtol=1e-13)
