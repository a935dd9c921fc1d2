"""Our solvers through optimistix's own front door, on problems of More, Garbow and Hillstrom (TOMS 7, 1981)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import close, quick_jit
from jax import lax

import jaxsci as js
from jaxsci.fitting._objective import least_squares_linearise
from jaxsci.fitting._solver._trust_region import AbstractTrustSolver

INF, M = np.inf, 20
SOLVERS = {"trf": js.TRF(), "gauss-newton": js.GaussNewton()}


def rosenbrock(x):
    return [10 * (x[1] - x[0] ** 2), 1 - x[0]]


def freudenstein_roth(x):
    return [-13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1], -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]]


def powell_badly_scaled(x):
    return [1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001]


def brown_badly_scaled(x):
    return [x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2]


def beale(x):
    return [y - x[0] * (1 - x[1] ** (k + 1)) for k, y in enumerate((1.5, 2.25, 2.625))]


def jennrich_sampson(x):
    return [2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1])) for i in range(1, 11)]


def helical_valley(x):
    theta = jnp.arctan(x[1] / x[0]) / (2 * jnp.pi) + jnp.where(x[0] > 0, 0.0, 0.5)
    return [10 * (x[2] - 10 * theta), 10 * (jnp.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]]


BARD = (0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39)


def bard(x):
    return [y - (x[0] + u / ((16 - u) * x[1] + min(u, 16 - u) * x[2])) for u, y in enumerate(BARD, 1)]


NORMAL = (0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989)


def gaussian(x):
    y = NORMAL + NORMAL[-2::-1]
    return [x[0] * jnp.exp(-x[1] * ((8 - i) / 2 - x[2]) ** 2 / 2) - y[i - 1] for i in range(1, 16)]


MEYER = (34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872)


def meyer(x):
    return [x[0] * jnp.exp(x[1] / (45 + 5 * i + x[2])) - y for i, y in enumerate(MEYER, 1)]


def box(x):
    return [jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t)) for t in (0.1, 0.2, 0.3)]


def powell_singular(x):
    return [x[0] + 10 * x[1], 5**0.5 * (x[2] - x[3]), (x[1] - 2 * x[2]) ** 2, 10**0.5 * (x[0] - x[3]) ** 2]


def wood(x):
    return [
        10 * (x[1] - x[0] ** 2),
        1 - x[0],
        90**0.5 * (x[3] - x[2] ** 2),
        1 - x[2],
        10**0.5 * (x[1] + x[3] - 2),
        0.1**0.5 * (x[1] - x[3]),
    ]


KOWALIK = (0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246)
RATES = (4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)


def kowalik_osborne(x):
    return [y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3]) for y, u in zip(KOWALIK, RATES, strict=True)]


def brown_dennis(x):
    t = [i / 5 for i in range(1, 21)]
    return [(x[0] + s * x[1] - np.exp(s)) ** 2 + (x[2] + x[3] * np.sin(s) - np.cos(s)) ** 2 for s in t]


FUNCTIONS = (
    rosenbrock, freudenstein_roth, powell_badly_scaled, brown_badly_scaled, beale, jennrich_sampson,
    helical_valley, bard,
    gaussian, meyer, box, powell_singular, wood, kowalik_osborne, brown_dennis,
)  # fmt: skip
PROBLEMS = {  # function, start, lower, upper, sum of squares, tolerance
    "rosenbrock": (rosenbrock, (-1.2, 1), None, None, 0.0, 1e-20),
    "rosenbrock, 10 x start": (rosenbrock, (-12, 10), None, None, 0.0, 1e-20),
    "freudenstein-roth": (freudenstein_roth, (0.5, -2), None, None, 48.9842537, 1e-7),
    "powell badly scaled": (powell_badly_scaled, (0, 1), None, None, 0.0, 1e-18),
    "powell badly scaled, bounded": (powell_badly_scaled, (0, 1), (0, 1), (1, 9), 1.5125936724e-10, 1e-8),
    "brown badly scaled": (brown_badly_scaled, (1, 1), None, None, 0.0, 1e-15),
    "brown badly scaled, bounded": (brown_badly_scaled, (1, 1), (0, 3e-5), (1e6, 100), 784.0, 1e-9),
    "beale": (beale, (1, 1), None, None, 0.0, 1e-20),
    "beale, bounded": (beale, (1, 1), (0.6, 0.5), (10, 100), 0.0, 1e-18),
    "jennrich-sampson": (jennrich_sampson, (0.3, 0.4), None, None, 124.36218236, 1e-9),
    "helical valley": (helical_valley, (-1, 0, 0), None, None, 0.0, 1e-20),
    "helical valley, bounded": (helical_valley, (-1, 0, 0), (-100, -1, -1), (0.8, 1, 1), 0.99042212, 1e-7),
    "bard": (bard, (1, 1, 1), None, None, 8.2148773e-3, 1e-7),
    "gaussian": (gaussian, (0.4, 1, 0), None, None, 1.1279328e-8, 1e-6),
    "gaussian, bounded": (gaussian, (0.4, 1, 0), (0.398, 1, -0.5), (4.2, 2, 0.1), 1.1279328e-8, 1e-6),
    "meyer": (meyer, (0.02, 4000, 250), None, None, 87.9458551, 1e-8),
    "box": (box, (0, 10, 20), None, None, 0.0, 1e-20),
    "box, bounded": (box, (0, 10, 20), (0, 5, 0), (2, 9.5, 20), 3.0998153e-6, 1e-6),
    "powell singular": (powell_singular, (3, -1, 0, 1), None, None, 0.0, 1e-10),
    "wood": (wood, (-3, -1, -3, -1), None, None, 0.0, 1e-18),
    "wood, bounded": (wood, (-3, -1, -3, -1), (-100,) * 4, (0, 10, 100, 100), 1.5567008, 1e-7),
    "kowalik-osborne": (kowalik_osborne, (0.25, 0.39, 0.415, 0.39), None, None, 3.0750561e-4, 1e-7),
    "brown-dennis": (brown_dennis, (25, 5, -5, -1), None, None, 85822.2016, 1e-8),
}


def residual(x, which):
    """One program for all problems: they are padded to 20 rows of 4 parameters."""

    def padded(fn):
        def run(x):
            rows = jnp.stack([jnp.asarray(r, x.dtype) for r in fn(x)])
            return jnp.concatenate([rows, jnp.zeros(M - rows.size, x.dtype)])

        return run

    return lax.switch(which, [padded(fn) for fn in FUNCTIONS], x)


@pytest.fixture(scope="module", params=SOLVERS)
def solve(request):
    solver = SOLVERS[request.param]

    @quick_jit
    def run(x, which, lower, upper):
        answer = optx.least_squares(
            residual, solver, x, which, options={"lower": lower, "upper": upper}, max_steps=1000, throw=False
        )
        rows = residual(answer.value, which)
        return answer.value, jnp.sum(rows**2), answer.result == optx.RESULTS.successful, answer.stats["num_steps"]

    return run


@pytest.mark.parametrize("case", PROBLEMS)
def test_more_garbow_hillstrom(solve, case):
    fn, start, lower, upper, best, tolerance = PROBLEMS[case]
    p = len(start)
    x = jnp.zeros(4).at[:p].set(jnp.asarray(start, float))
    low, high = jnp.zeros(4), jnp.zeros(4)  # what is beyond p is fixed
    low = low.at[:p].set(-INF if lower is None else jnp.asarray(lower, float))
    high = high.at[:p].set(INF if upper is None else jnp.asarray(upper, float))
    y, ssq, success, steps = solve(x, jnp.array(FUNCTIONS.index(fn)), low, high)
    if case != "powell singular":  # its Jacobian is singular at the optimum: a factor 4 a step, without end
        assert bool(success), f"{int(steps)} steps, sum of squares {float(ssq)}"
    assert bool(jnp.all((y >= low) & (y <= high)))
    close(ssq, best, tolerance, tolerance if best == 0 else 0.0)


class Target(eqx.Module):
    value: jax.Array

    def __call__(self, y, args):
        return least_squares_linearise(lambda y: (y - self.value) * jnp.array([1.0, 10.0]), y)

    def hessian(self, y):
        return jnp.diag(jnp.array([1.0, 100.0]))


TREE = {"a": jnp.array([1.0, 1.0]), "b": (jnp.asarray(0.0),)}


def tree_residual(y, args):
    return {"r": y["a"] - args, "s": y["b"][0] - 3.0 + 0 * y["a"][0]}


TREE_BOUNDS = {
    "none": ({}, [5.0, -4.0, 3.0]),
    "numbers": ({"lower": -1.0, "upper": 4.0}, [4.0, -1.0, 3.0]),
    "lower only": ({"lower": -1.0}, [5.0, -1.0, 3.0]),
    "tree of numbers": ({"lower": {"a": -2.0, "b": (0.0,)}, "upper": {"a": 4.5, "b": (2.0,)}}, [4.5, -2.0, 2.0]),
    "tree of arrays": (
        {
            "lower": {"a": jnp.array([-9.0, -3.0]), "b": (jnp.asarray(0.0),)},
            "upper": {"a": jnp.array([4.0, 9.0]), "b": (jnp.asarray(2.5),)},
        },
        [4.0, -3.0, 2.5],
    ),
}


@pytest.mark.parametrize("case", TREE_BOUNDS)
def test_pytrees_of_parameters_residuals_and_bounds(case):
    options, expected = TREE_BOUNDS[case]
    run = quick_jit(lambda args: optx.least_squares(tree_residual, js.GaussNewton(), TREE, args, options=options).value)
    value = run(jnp.array([5.0, -4.0]))
    assert jax.tree.structure(value) == jax.tree.structure(TREE)
    close(jnp.concatenate([value["a"], value["b"][0][None]]), np.array(expected), 1e-9)


def test_aux_and_derivatives_through_the_door():
    def fn(y, target):
        return y - target, {"seen": 2 * y}

    def value(target):
        answer = optx.least_squares(
            fn, js.TRF(), jnp.zeros(2), target, has_aux=True, options={"upper": 1.0}, adjoint=js.KKTAdjoint()
        )
        return answer.value, answer.aux

    (y, aux), (dy, _) = quick_jit(lambda t: (value(t), jax.jacrev(value)(t)))(jnp.array([3.0, 0.25]))
    close(y, np.array([1.0, 0.25]), 1e-12)
    close(aux["seen"], 2 * y, 1e-12)
    close(dy, np.array([[0.0, 0.0], [0.0, 1.0]]), 0, 1e-12)


@pytest.mark.parametrize("name", SOLVERS)
def test_linearise_is_a_module_and_never_a_closure(name):
    target = jnp.array([1.0, 2.0])
    module = optx.least_squares(lambda y, _: y, SOLVERS[name], jnp.zeros(2), options={"linearise": Target(target)})
    close(module.value, target, 1e-12)

    def closure(y, args):
        return Target(target)(y, args)

    with pytest.raises(TypeError, match=r"must be a Module .*: a closure over arrays gives silently wrong gradients"):
        optx.least_squares(lambda y, _: y, SOLVERS[name], jnp.zeros(2), options={"linearise": closure})


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("curvature", [-3.0, -30.0])
def test_the_exact_hessian_helps_where_gauss_newton_overshoots(name, curvature):
    """r = (y + 1, c y^2 + y - 1): at the optimum y = 0 the Hessian is 2 - 2 c, its Gauss-Newton part 2."""

    def fn(y, c):
        return jnp.stack([y + 1, c * y**2 + y - 1])

    def solve(y):
        return optx.least_squares(fn, SOLVERS[name], jnp.asarray(y), jnp.asarray(curvature), max_steps=300, throw=False)

    for start in (0.3, -0.2, 1.0):
        answer = solve(start)
        assert answer.result == optx.RESULTS.successful
        assert int(answer.stats["num_steps"]) <= 40
        at = float(answer.value)
        slope = (at + 1) + (curvature * at**2 + at - 1) * (2 * curvature * at + 1)
        assert abs(slope) < 1e-8 * (2 - 2 * curvature)


def test_our_solvers_are_optimistix_solvers():
    for solver in SOLVERS.values():
        assert isinstance(solver, optx.AbstractLeastSquaresSolver)
        assert isinstance(solver, AbstractTrustSolver)
    assert isinstance(js.Adam(), optx.AbstractMinimiser)


def test_adam_as_an_optimistix_minimiser():
    def fn(y, args):
        return jnp.sum((y - args) ** 2 * jnp.array([1.0, 5.0]))

    answer = quick_jit(lambda t: optx.minimise(fn, js.Adam(), jnp.zeros(2), t, max_steps=5000))(jnp.array([1.0, -2.0]))
    close(answer.value, np.array([1.0, -2.0]), 1e-5)
    assert int(answer.stats["num_steps"]) < 3000
