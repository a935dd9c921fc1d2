"""The least-squares problems of More, Garbow and Hillstrom (ACM TOMS 7, 1981), 1 to 19, and their bounded variants.

Each from its standard start. The bounds and the optima within them are those of Gay (1984), which Ceres lists too.
One program serves all problems of as many parameters: residuals are padded with zeros to one length, and a number picks
the problem.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import quick_jit

from jaxsci.curvefit import least_squares

BARD = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
HALF_BELL = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521]
MEYER = [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
KOWALIK_U = [4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]
KOWALIK_Y = [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
OSBORNE_1 = (
    "844 908 932 936 925 908 881 850 818 784 751 718 685 658 628 603 580 558 538 522 506 490 478 467 457 448 438 431 "
    "424 420 414 411 406"
)
OSBORNE_2 = (
    "1366 1191 1112 1013 991 885 831 847 786 725 746 679 608 655 616 606 602 626 651 724 649 649 694 644 624 661 612 "
    "558 533 495 500 423 395 375 372 391 396 405 428 429 523 562 607 653 672 708 633 668 645 632 591 559 597 625 739 "
    "710 729 720 636 581 428 292 162 98 54"
)


def thousandths(text):
    return np.array(text.split(), float) / 1000


def count(m):
    """1, 2, ..., m."""
    return np.arange(1.0, m + 1)


def rosenbrock(x):
    return [10 * (x[1] - x[0] ** 2), 1 - x[0]]


def freudenstein_roth(x):
    a, b = x
    return [a - 13 + ((5 - b) * b - 2) * b, a - 29 + ((b + 1) * b - 14) * b]


def powell_badly_scaled(x):
    return [1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001]


def brown_badly_scaled(x):
    return [x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2]


def beale(x):
    return np.array([1.5, 2.25, 2.625]) - x[0] * (1 - jnp.stack([x[1], x[1] ** 2, x[1] ** 3]))


def jennrich_sampson(x):
    i = count(10)
    return 2 + 2 * i - jnp.exp(i * x[0]) - jnp.exp(i * x[1])


def helical_valley(x):
    turn = jnp.arctan(x[1] / x[0]) / (2 * np.pi) + jnp.where(x[0] < 0, 0.5, 0.0)
    return [10 * (x[2] - 10 * turn), 10 * (jnp.hypot(x[0], x[1]) - 1), x[2]]


def bard(x):
    u = count(15)
    v = 16 - u
    return np.array(BARD) - x[0] - u / (v * x[1] + np.minimum(u, v) * x[2])


def gaussian(x):
    y = np.array([*HALF_BELL, 0.3989, *HALF_BELL[::-1]])
    return x[0] * jnp.exp(-x[1] * ((8 - count(15)) / 2 - x[2]) ** 2 / 2) - y


def meyer(x):
    return x[0] * jnp.exp(x[1] / (45 + 5 * count(16) + x[2])) - np.array(MEYER, float)


def gulf(x, m=99):
    t = count(m) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return jnp.exp(-(jnp.abs(y - x[1]) ** x[2]) / x[0]) - t


def box(x):
    t = count(3) / 10
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))


def powell_singular(x):
    a, b, c, d = x
    return [a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2]


def wood(x):
    a, b, c, d = x
    first = [10 * (b - a * a), 1 - a, 90**0.5 * (d - c * c), 1 - c]
    return [*first, 10**0.5 * (b + d - 2), (b - d) / 10**0.5]


def kowalik_osborne(x):
    u, y = np.array(KOWALIK_U), np.array(KOWALIK_Y)
    return y - x[0] * (u * u + u * x[1]) / (u * u + u * x[2] + x[3])


def brown_dennis(x):
    t = count(20) / 5
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


def osborne_1(x):
    t = 10 * (count(33) - 1)
    return thousandths(OSBORNE_1) - x[0] - x[1] * jnp.exp(-t * x[3]) - x[2] * jnp.exp(-t * x[4])


def biggs(x):
    t = count(13) / 10
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4]) - y


def osborne_2(x):
    t = (count(65) - 1) / 10
    peaks = [x[k] * jnp.exp(-((t - x[k + 7]) ** 2) * x[k + 4]) for k in (1, 2, 3)]
    return thousandths(OSBORNE_2) - x[0] * jnp.exp(-t * x[4]) - sum(peaks)


def gulf_of_three(x):
    return gulf(x, 3)


class Problem(NamedTuple):
    """A residual function, its start, and the least sums of squares: of the whole space and within bounds."""

    fun: Callable[..., Any]
    start: list[float]
    least: float | None
    bounds: tuple[Any, Any] | None = None
    bounded: float = 0.0


PROBLEMS = [
    Problem(rosenbrock, [-1.2, 1], 0),
    Problem(freudenstein_roth, [0.5, -2], 48.98425),  # a local one, where every descent from here ends; 0 elsewhere
    Problem(powell_badly_scaled, [0, 1], 0, ([0, 1], [1, 9]), 1.5125900e-10),
    Problem(brown_badly_scaled, [1, 1], 0, ([0, 3e-5], [1e6, 100]), 784),
    Problem(beale, [1, 1], 0, ([0.6, 0.5], [10, 100]), 0),
    Problem(jennrich_sampson, [1, 1], 124.362),
    Problem(helical_valley, [-1, 0, 0], 0, ([-100, -1, -1], [0.8, 1, 1]), 0.99042212),
    Problem(bard, [1, 1, 1], 8.21487e-3),
    Problem(gaussian, [0.4, 1, 0], 1.12793e-8, ([0.398, 1, -0.5], [4.2, 2, 0.1]), 1.12793e-8),
    Problem(meyer, [0.02, 4000, 250], 87.9458),
    Problem(gulf, [5, 2.5, 0.15], 0),
    Problem(gulf_of_three, [5, 2.5, 0.15], None, ([1e-16, 0, 0], [10, 10, 10]), 5.8281431e-5),
    Problem(box, [0, 10, 20], 0, ([0, 5, 0], [2, 9.5, 20]), 3.0998153e-6),
    Problem(powell_singular, [3, -1, 0, 1], 0),
    Problem(wood, [-3, -1, -3, -1], 0, ([-100] * 4, [0, 10, 100, 100]), 1.5567008),
    Problem(kowalik_osborne, [0.25, 0.39, 0.415, 0.39], 3.07505e-4),
    Problem(brown_dennis, [25, 5, -5, -1], 85822.2, ([-10, 0, -100, -20], [100, 15, 0, 0.2]), 88860.479),
    Problem(osborne_1, [0.5, 1.5, -1, 0.01, 0.02], 5.46489e-5),
    Problem(biggs, [1, 2, 1, 1, 1, 1], 0, ([0, 0, 0, 1, 0, 0], [2, 8, 1, 7, 5, 5]), 5.3209865e-4),
    Problem(osborne_2, [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5], 4.01377e-2),
]
CASES = [(problem, False) for problem in PROBLEMS if problem.least is not None]
CASES += [(problem, True) for problem in PROBLEMS if problem.bounds is not None]


@functools.cache
def together(p):
    """(x, which) -> residuals of the problem of p parameters with that place in PROBLEMS, padded to one length."""
    mine = [(k, problem) for k, problem in enumerate(PROBLEMS) if len(problem.start) == p]
    longest = max(len(problem.fun(np.asarray(problem.start, float))) for _, problem in mine)
    places = np.zeros(len(PROBLEMS), int)
    places[[k for k, _ in mine]] = np.arange(len(mine))

    def padded(fun):
        def of(x):
            residual = jnp.stack(list(fun(x)))
            return jnp.concatenate([residual, jnp.zeros(longest - residual.size)])

        return of

    branches = [padded(problem.fun) for _, problem in mine]
    return lambda x, which: jax.lax.switch(jnp.asarray(places)[which], branches, x)


@functools.cache
def program(p, method):
    """(start, bounds, which) -> the answer of `least_squares` for any problem of p parameters."""

    def solve(start, lower, upper, which):
        return least_squares(together(p), start, bounds=(lower, upper), method=method, args=(which,), max_nfev=500)

    return quick_jit(solve)


def digits(cost, least):
    """The logarithm of the relative error of a sum of squares; of the absolute one where the least is 0."""
    return -np.log10(max(abs(cost - least) / (least or 1), 1e-300))


# The first step of damped Gauss-Newton ends in a corner where the model and all its derivatives are zero.
ASTRAY = {("gulf_of_three", "lm")}
NEVER_DONE = (
    powell_singular,
)  # singular at a zero of all residuals: the cost falls for ever, at 1e-33 after 400 steps


def rows():
    for method in ("trf", "lm"):
        for problem, bounded in CASES:
            name = problem.fun.__name__
            marks = [pytest.mark.slow] * (method == "lm")
            if (name, method) not in ASTRAY:
                yield pytest.param(problem, bounded, method, marks=marks, id=name + "-bounded" * bounded + "-" + method)


@pytest.mark.parametrize(("problem", "bounded", "method"), list(rows()))
def test_the_listed_optimum_is_reached(problem, bounded, method):
    start, least = np.asarray(problem.start, float), problem.bounded if bounded else problem.least
    lower, upper = (np.full(start.size, side) for side in (-np.inf, np.inf))
    if bounded:
        lower, upper = (np.asarray(side, float) for side in problem.bounds)
    result = program(start.size, method)(start, lower, upper, PROBLEMS.index(problem))
    if digits(2 * result.cost, least) < 4:
        pytest.fail(f"{2 * result.cost} instead of {least} at {result.x}: {result.message}")
    assert result.success or problem.fun in NEVER_DONE, result.message
    assert np.all((result.x >= lower) & (result.x <= upper))
