"""The curves that the curvefit rows fit: each as a jaxsci model and, for the peers, in plain NumPy."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxsci as js


class Decay(js.AbstractModel):
    """a exp(-b x) + c."""

    a: js.Scalar = js.param()
    b: js.Scalar = js.param()
    c: js.Scalar = js.param()

    def __call__(self, x):  # type: ignore[no-untyped-def]
        return self.a * jnp.exp(-self.b * x) + self.c


class Peak(js.AbstractModel):
    """a exp(-((x - centre) / width)^2 / 2)."""

    a: js.Scalar = js.param()
    centre: js.Scalar = js.param()
    width: js.Scalar = js.param()

    def __call__(self, x):  # type: ignore[no-untyped-def]
        return self.a * jnp.exp(-(((x - self.centre) / self.width) ** 2) / 2)


class PeakOnLine(js.AbstractModel):
    """A Gaussian peak on a straight line."""

    a: js.Scalar = js.param()
    centre: js.Scalar = js.param()
    width: js.Scalar = js.param()
    level: js.Scalar = js.param()
    slope: js.Scalar = js.param()

    def __call__(self, x):  # type: ignore[no-untyped-def]
        peak = self.a * jnp.exp(-(((x - self.centre) / self.width) ** 2) / 2)
        return peak + self.level + self.slope * x


class PeakOnLevel(js.AbstractModel):
    """A Gaussian peak on a constant, every parameter between bounds."""

    a: js.Scalar = js.param(bounds=(0, 10))
    centre: js.Scalar = js.param(bounds=(0, 10))
    width: js.Scalar = js.param(bounds=(0.1, 5))
    level: js.Scalar = js.param(bounds=(-1, 3))

    def __call__(self, x):  # type: ignore[no-untyped-def]
        return self.a * jnp.exp(-(((x - self.centre) / self.width) ** 2) / 2) + self.level


class TwoPeaks(js.AbstractModel):
    """Two Gaussian peaks on a constant, every parameter between bounds."""

    a: js.Scalar = js.param(bounds=(0, 10))
    centre: js.Scalar = js.param(bounds=(0, 10))
    width: js.Scalar = js.param(bounds=(0.1, 5))
    b: js.Scalar = js.param(bounds=(0, 10))
    other: js.Scalar = js.param(bounds=(0, 10))
    breadth: js.Scalar = js.param(bounds=(0.1, 5))
    level: js.Scalar = js.param(bounds=(-1, 3))

    def __call__(self, x):  # type: ignore[no-untyped-def]
        first = self.a * jnp.exp(-(((x - self.centre) / self.width) ** 2) / 2)
        return first + self.b * jnp.exp(-(((x - self.other) / self.breadth) ** 2) / 2) + self.level


class Wave(js.AbstractModel):
    """A damped wave on a constant, every parameter between bounds."""

    a: js.Scalar = js.param(bounds=(0, 10))
    rate: js.Scalar = js.param(bounds=(0, 5))
    omega: js.Scalar = js.param(bounds=(0, 10))
    phase: js.Scalar = js.param(bounds=(-4, 4))
    level: js.Scalar = js.param(bounds=(-3, 3))

    def __call__(self, x):  # type: ignore[no-untyped-def]
        return self.a * jnp.exp(-self.rate * x) * jnp.cos(self.omega * x + self.phase) + self.level


def decay(xp: Any, x: Any, a: Any, b: Any, c: Any) -> Any:
    """`Decay` for any array namespace."""
    return a * xp.exp(-b * x) + c


def decay_jacobian(x: Any, a: Any, b: Any, c: Any) -> Any:
    """Its derivatives, shape (n, 3)."""
    e = np.exp(-b * x)
    return np.stack([e, -a * x * e, np.ones_like(x)], 1)


def peak(xp: Any, x: Any, a: Any, centre: Any, width: Any) -> Any:
    """`Peak` for any array namespace."""
    return a * xp.exp(-(((x - centre) / width) ** 2) / 2)


def peak_jacobian(x: Any, a: Any, centre: Any, width: Any) -> Any:
    """Its derivatives, shape (n, 3)."""
    z = (x - centre) / width
    e = np.exp(-z * z / 2)
    return np.stack([e, a * e * z / width, a * e * z * z / width], 1)


def peak_on_line(xp: Any, x: Any, a: Any, centre: Any, width: Any, level: Any, slope: Any) -> Any:
    """`PeakOnLine` for any array namespace."""
    return peak(xp, x, a, centre, width) + level + slope * x


def peak_on_line_jacobian(x: Any, a: Any, centre: Any, width: Any, level: Any, slope: Any) -> Any:
    """Its derivatives, shape (n, 5)."""
    return np.concatenate([peak_jacobian(x, a, centre, width), np.ones((len(x), 1)), x[:, None]], 1)


def peak_on_level(xp: Any, x: Any, a: Any, centre: Any, width: Any, level: Any) -> Any:
    """`PeakOnLevel` for any array namespace."""
    return peak(xp, x, a, centre, width) + level


def peak_on_level_jacobian(x: Any, a: Any, centre: Any, width: Any, level: Any) -> Any:
    """Its derivatives, shape (n, 4)."""
    return np.concatenate([peak_jacobian(x, a, centre, width), np.ones((len(x), 1))], 1)


def two_peaks(xp: Any, x: Any, a: Any, centre: Any, width: Any, b: Any, other: Any, breadth: Any, level: Any) -> Any:
    """`TwoPeaks` for any array namespace."""
    return peak(xp, x, a, centre, width) + peak(xp, x, b, other, breadth) + level


def two_peaks_jacobian(
    x: Any, a: Any, centre: Any, width: Any, b: Any, other: Any, breadth: Any, level: Any
) -> np.ndarray:
    """Its derivatives, shape (n, 7)."""
    first, second = peak_jacobian(x, a, centre, width), peak_jacobian(x, b, other, breadth)
    return np.concatenate([first, second, np.ones((len(x), 1))], 1)


def wave(xp: Any, x: Any, a: Any, rate: Any, omega: Any, phase: Any, level: Any) -> Any:
    """`Wave` for any array namespace."""
    return a * xp.exp(-rate * x) * xp.cos(omega * x + phase) + level


def wave_jacobian(x: Any, a: Any, rate: Any, omega: Any, phase: Any, level: Any) -> np.ndarray:
    """Its derivatives, shape (n, 5)."""
    e, c, s = np.exp(-rate * x), np.cos(omega * x + phase), np.sin(omega * x + phase)
    return np.stack([e * c, -a * x * e * c, -a * x * e * s, -a * e * s, np.ones_like(x)], 1)


@dataclasses.dataclass(frozen=True)
class Problem:
    """One curve to fit: our model at its start, the peers' function, and data.

    `y` has shape (n,), or (b, n) for a batch. `bounds` is (lower, upper), each of shape (p,).
    """

    model: js.AbstractModel
    formula: Callable[..., Any]
    jacobian: Callable[..., Any]
    start: np.ndarray
    x: np.ndarray
    y: np.ndarray
    sigma: float
    bounds: tuple[np.ndarray, np.ndarray] | None = None

    def function(self, x: Any, *p: Any) -> Any:
        """The formula in NumPy: what scipy and lmfit call."""
        return self.formula(np, x, *p)

    def slope(self, p: np.ndarray) -> float:
        """How far from flat the sum of squares is at p: the largest |J_i . r| / |J_i|."""
        jacobian = self.jacobian(self.x, *p)
        return float(
            np.max(np.abs(jacobian.T @ (self.function(self.x, *p) - self.y)) / np.linalg.norm(jacobian, axis=0))
        )

    def data(self) -> js.Dataset:
        """The data with noise of unknown scale, as `curve_fit` takes it without sigma."""
        return js.Dataset(self.x, self.y)


def medium() -> Problem:
    """NLSQ's own "Medium" benchmark problem."""
    rng = np.random.default_rng(42)
    x = np.linspace(0, 10, 1000)
    y = decay(np, x, 2.0, 0.5, 0.3) + rng.normal(0, 0.05, x.size)
    return Problem(Decay(1.0, 1.0, 0.0), decay, decay_jacobian, np.array([1.0, 1.0, 0.0]), x, y, 0.05)


def large() -> Problem:
    """NLSQ's own "Large" benchmark problem."""
    rng = np.random.default_rng(42)
    x = np.linspace(-10, 10, 10_000)
    y = peak(np, x, 5.0, 0.0, 2.0) + rng.normal(0, 0.1, x.size)
    return Problem(Peak(4.0, 0.5, 1.5), peak, peak_jacobian, np.array([4.0, 0.5, 1.5]), x, y, 0.1)


def long(n: int) -> Problem:
    """A peak on a line, n points, 5 parameters."""
    rng = np.random.default_rng(42)
    x = np.linspace(0, 10, n)
    y = peak_on_line(np, x, 3.0, 5.2, 0.7, 0.5, 0.1) + rng.normal(0, 0.05, n)
    start = np.array([2.0, 4.5, 1.0, 0.0, 0.0])
    return Problem(PeakOnLine(*start), peak_on_line, peak_on_line_jacobian, start, x, y, 0.05)


def many(members: int) -> Problem:
    """Bounded fits of 50 points and 4 parameters, all from one start."""
    rng = np.random.default_rng(42)
    x = np.linspace(0, 10, 50)
    low, high = np.array([1.0, 4.0, 0.5, 0.0]), np.array([5.0, 6.0, 1.5, 1.0])
    truth = rng.uniform(low, high, (members, 4))
    y = np.stack([peak_on_level(np, x, *p) for p in truth]) + rng.normal(0, 0.1, (members, 50))
    start = np.array([2.0, 5.0, 1.0, 0.3])
    bounds = np.array([0.0, 0.0, 0.1, -1.0]), np.array([10.0, 10.0, 5.0, 3.0])
    return Problem(PeakOnLevel(*start), peak_on_level, peak_on_level_jacobian, start, x, y, 0.1, bounds)


def half_bound(members: int) -> Problem:
    """The same with an upper bound on the width that is active in half of them."""
    problem = many(members)
    lower, upper = problem.bounds or (np.zeros(4), np.zeros(4))
    start = np.array([2.0, 5.0, 0.8, 0.3])
    bounds = lower, np.where(np.arange(4) == 2, 1.0, upper)
    return dataclasses.replace(problem, model=PeakOnLevel(*start), start=start, bounds=bounds)


def _around(cls: Any, formula: Any, jacobian: Any, truth: tuple[np.ndarray, np.ndarray], members: int) -> Problem:
    """Fits of 50 points, from the middle of where the truth is drawn from."""
    rng = np.random.default_rng(42)
    x, (low, high) = np.linspace(0, 10, 50), truth
    drawn = rng.uniform(low, high, (members, len(low)))
    y = np.stack([formula(np, x, *p) for p in drawn]) + rng.normal(0, 0.1, (members, 50))
    bounds = [about.bounds for about in js.parameters(cls(*low)).values()]
    start = (low + high) / 2
    lower, upper = np.array(bounds, float).T
    return Problem(cls(*start), formula, jacobian, start, x, y, 0.1, (lower, upper))


def two_gaussians(members: int) -> Problem:
    """Bounded fits of two peaks that overlap little, 7 parameters."""
    low = np.array([2.0, 2.0, 0.5, 2.0, 6.0, 0.5, 0.0])
    high = np.array([5.0, 3.5, 1.2, 5.0, 8.0, 1.2, 1.0])
    return _around(TwoPeaks, two_peaks, two_peaks_jacobian, (low, high), members)


def damped_waves(members: int) -> Problem:
    """Bounded fits of damped waves, 5 parameters."""
    low, high = np.array([2.0, 0.1, 2.0, -0.5, -1.0]), np.array([5.0, 0.4, 2.4, 0.5, 1.0])
    return _around(Wave, wave, wave_jacobian, (low, high), members)
