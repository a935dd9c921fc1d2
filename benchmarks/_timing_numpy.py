"""A Gauss-Newton step of a pulsar-timing fit in NumPy, as one would write it by hand: analytic columns.

`python -m benchmarks._timing_numpy N P` prints its time in ms: run with glibc's allocator told to keep its memory.
"""

import itertools
import sys
import time

import numpy as np

_KPC, _MAS, _YEAR, _K = 1.0292712503e11, np.pi / 648e6, 365.25 * 86400, 1 / 2.41e-4
SIZES = ((100, 5), (500, 10), (2000, 15), (10000, 20))
_ORDER = ("F0", "F1", "RAJ", "DECJ", "DM", "PMRA", "PMDEC", "PX", "F2", "DM1")
F0, F1, RAJ, DECJ, DM, EPOCH = 300.0, -1e-15, 3.1, 20.3, 30.0, 54500


def par(parameters: int) -> str:
    """The par file of a model with so many free parameters; beyond ten they are windows of DMX."""
    values = {"F0": F0, "F1": F1, "RAJ": "03:06:00", "DECJ": "20:18:00", "DM": DM}
    lines = [f"{name} {values.get(name, 0)} {int(name in _ORDER[:parameters])}" for name in _ORDER]
    edges = np.linspace(52999, 56001, max(parameters - 10, 0) + 1)
    for k, (low, high) in enumerate(itertools.pairwise(edges), 1):
        lines += [f"DMX_{k:04d} 0 1", f"DMXR1_{k:04d} {low}", f"DMXR2_{k:04d} {high}"]
    return "\n".join(["PSR TEST", f"PEPOCH {EPOCH}", f"POSEPOCH {EPOCH}", f"DMEPOCH {EPOCH}", *lines, ""])


def times(n: int) -> dict[str, np.ndarray]:
    """When and from where n TOAs come: three thousand days on a circle of 499 lt-s about the barycentre."""
    rng = np.random.default_rng(0)
    mjd = np.sort(rng.uniform(53000, 56000, n))
    angle = 2 * np.pi * mjd / 365.25
    position = 499.0 * np.stack([np.cos(angle), 0.917 * np.sin(angle), 0.398 * np.sin(angle)], axis=1)
    velocity = (
        499.0 * 2 * np.pi / _YEAR * np.stack([-np.sin(angle), 0.917 * np.cos(angle), 0.398 * np.cos(angle)], axis=1)
    )
    return {"mjd": mjd, "position": position, "velocity": velocity, "frequency": rng.choice([820.0, 1400.0], n)}


class Step:
    """Residuals, analytic columns, normal equations and their solution, for n TOAs and p parameters."""

    def __init__(self, n: int, p: int):
        data = times(n)
        self.p, self.n = p, n
        self.time = (data["mjd"] - EPOCH) * 86400
        self.position, self.velocity, self.frequency = data["position"], data["velocity"], data["frequency"]
        self.window = np.minimum((data["mjd"] - 52999) / 3002 * max(p - 10, 1), max(p - 10, 1) - 1).astype(int)
        self.phase = np.random.default_rng(1).normal(0, 1e-3, n)
        self.weight = np.full(n, 1e6)
        self.y = np.zeros(p + 1)
        self.reference = self.delay(np.zeros(p + 1))[0]

    def delay(self, y: np.ndarray) -> tuple[np.ndarray, ...]:
        get = dict(zip(_ORDER, [*y[: min(self.p, 10)], *[0.0] * 10]))
        a, d = np.deg2rad(15 * RAJ) + get["RAJ"], np.deg2rad(DECJ) + get["DECJ"]
        sa, ca, sd, cd = np.sin(a), np.cos(a), np.sin(d), np.cos(d)
        east, north = np.array([-sa, ca, 0]), np.array([-ca * sd, -sa * sd, cd])
        drift = get["PMRA"] * _MAS / _YEAR * east + get["PMDEC"] * _MAS / _YEAR * north
        n = np.array([ca * cd, sa * cd, sd]) + self.time[:, None] * drift
        n /= np.sqrt(np.sum(n * n, axis=1))[:, None]
        along = np.sum(self.position * n, axis=1)
        square = np.sum(self.position**2, axis=1)
        nu = self.frequency * (1 - np.sum(self.velocity * n, axis=1))
        dm = DM + get["DM"] + get["DM1"] * self.time / _YEAR
        if self.p > 10:
            dm = dm + y[10 : self.p][self.window]
        far = square - along**2
        return (
            get["PX"] / (2 * _KPC) * far - along + _K * dm / nu**2,
            _K / nu**2,
            far,
            self.position @ east,
            self.position @ north,
        )

    def __call__(self) -> np.ndarray:
        """One step from where it stands."""
        y = self.y
        delay, slope, far, east, north = self.delay(y)
        get = dict(zip(_ORDER, [*y[: min(self.p, 10)], *[0.0] * 10]))
        x = delay - self.reference
        t = self.time - delay
        phase = self.phase - F0 * x + get["F0"] * t + get["F1"] * t * t / 2 + get["F2"] * t**3 / 6
        residual = phase / F0
        cosine = np.cos(np.deg2rad(DECJ))
        columns = {
            "F0": lambda: t / F0,
            "F1": lambda: t * t / (2 * F0),
            "F2": lambda: t**3 / (6 * F0),
            "RAJ": lambda: east * cosine,
            "DECJ": lambda: north,
            "DM": lambda: -slope,
            "DM1": lambda: -slope * self.time / _YEAR,
            "PMRA": lambda: east * self.time * (_MAS / _YEAR),
            "PMDEC": lambda: north * self.time * (_MAS / _YEAR),
            "PX": lambda: -far / (2 * _KPC),
        }
        design = np.zeros((self.n, self.p + 1))
        for k, name in enumerate(_ORDER[: self.p]):
            design[:, k] = columns[name]()
        if self.p > 10:
            design[np.arange(self.n), 10 + self.window] = -slope
        design[:, self.p] = 1.0
        scale = np.sqrt(np.sum(design * design, axis=0))
        scaled = design / scale
        weighted = scaled * self.weight[:, None]
        return y - np.linalg.solve(weighted.T @ scaled, weighted.T @ residual) / scale


def fastest(n: int, p: int) -> float:
    """CPU ms of a step, the fastest of many."""
    step, best = Step(n, p), np.inf
    for _ in range(60):
        start = time.process_time()
        for _ in range(5):
            step()
        best = min(best, (time.process_time() - start) / 5)
    return 1e3 * best


if __name__ == "__main__":
    print(fastest(int(sys.argv[1]), int(sys.argv[2])))
