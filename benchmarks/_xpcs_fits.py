"""Rows of the area `xpcs` on fits of g2: a batch beside a loop of scipy, and global fits beside stored optima.

The 200 stored curves are fitted with the bounds that they came with, from starts that are read off the data; scipy
takes one start for all, as viewers do, or ours.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.optimize import curve_fit

from jaxsci import xpcs

from ._harness import Area, Row, at_most, case, faster, race, timing_rows

AREA: Area = []
_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "xpcs"
_NAMES = ("contrast", "tau", "exponent", "baseline")


def _staged(name: str) -> dict[str, np.ndarray] | None:
    if not (_DATA / name).exists():
        return None
    with np.load(_DATA / name) as file:
        return dict(file)


def _missing(name: str) -> Row:
    return Row(name, note=f"not run: {_DATA} is not there")


def curves_of(t: Any, g2: Any, sigma: Any, q: Any) -> xpcs.Curves:
    """From arrays that lead with the delays."""
    g2 = jnp.asarray(g2, float)
    return xpcs.Curves(jnp.asarray(t), g2, jnp.asarray(sigma, float), jnp.ones(g2.shape, bool), jnp.asarray(q))


def _formula(t: np.ndarray, a: float, tau: float, c: float, d: float) -> np.ndarray:
    return a * np.exp(-2 * (t / tau) ** c) + d


@case(AREA, "g2 fits")
def fits(quick: bool) -> Iterator[Row]:
    """The stored curves, ten times over, beside `scipy.optimize.curve_fit` one after the other."""
    staged = _staged("g2_fitset.npz")
    if staged is None:
        yield _missing("g2 fits")
        return
    copies, some = (2, 20) if quick else (10, 100)
    t, g2, sigma = staged["t"], staged["g2"], staged["g2_err"]
    lower, upper = staged["bounds"]
    bounds = {name: (lower[k], upper[k]) for k, name in enumerate(_NAMES)}
    curves = curves_of(t, np.tile(g2.T, copies), np.tile(sigma.T, copies), np.ones(200 * copies))
    starts = xpcs.starts_of(curves, xpcs.StretchedExponential)
    first = np.stack([np.clip(np.asarray(getattr(starts, name)), *bounds[name]) for name in _NAMES], 1)

    def loop(first: np.ndarray) -> list[Any]:
        told = {"bounds": (lower, upper), "absolute_sigma": True}
        return [curve_fit(_formula, t, g2[k], first[k], sigma[k], **told) for k in range(some)]

    # one start for all, in the middle of the bounds, is what viewers take; tau by its logarithm
    middle = np.array([0.1, np.sqrt(t[0] * t[-1]), 1.0, 1.0])
    runners = {
        "ours": lambda: xpcs.fit_g2(curves, bounds=bounds),
        "scipy curve_fit": lambda: loop(np.tile(middle, (some, 1))),
        "scipy, started by ours": lambda: loop(first),
    }
    times = race(runners)
    members = 200 * copies
    share = {"ours": members} | dict.fromkeys(list(runners)[1:], some)
    found = times["ours"].value
    note = f"{int((~found.success).sum())} of {members} failed; scipy's loop is timed on {some} fits"
    yield from timing_rows(
        f"{members} g2 fits, 4 parameters, starts included", times, {"scipy curve_fit": faster(100)}, unit="us a fit",
        n=t.size, share=share, note=note,
    )  # fmt: skip
    yield _above(found, staged)


def _above(found: Any, staged: dict[str, np.ndarray]) -> Row:
    """How far our chi2 lies above scipy's, relative: 0 or less where ours is the better optimum."""
    t, table = staged["t"], found.table()
    theirs = [
        np.sum(((_formula(t, *p) - y) / s) ** 2)
        for p, y, s in zip(staged["scipy_trf"][:, 0], staged["g2"], staged["g2_err"], strict=True)
    ]
    worst = float(np.max(table["chi2"][:200] / np.array(theirs) - 1))
    return Row("chi2 above scipy's stored one, relative", worst, n=t.size, bar=at_most(1e-12))


@case(AREA, "g2 global")
def shared(quick: bool) -> Iterator[Row]:
    """D and its exponent shared by 20 q-bins, 42 parameters in all, against a dense fit at full tolerance."""
    staged = _staged("cases/global_fit.npz")
    if staged is None:
        yield _missing("g2 global")
        return
    curves = curves_of(staged["t"], staged["g2"].T, staged["sigma"].T, staged["q"])
    shared = ("D", "p")
    times = race({"ours": lambda: xpcs.fit_g2(curves, xpcs.DispersedExponential, shared=shared)}, repeats=3)
    found, timing = times["ours"].value.shared, times["ours"]
    known, errors = (np.array([staged[f"{name}{end}"] for name in shared]) for end in ("", "_se"))
    off = float(np.max(np.abs(np.asarray(found.y) - known) / errors))
    yield Row(
        "20 q-bins with D and p in common", timing.cpu * 1e3, "ms", n=20 * 61, cold=timing.cold, wall=timing.wall * 1e3,
        compiles=timing.compiles, again=timing.again, note=f"{int(found.num_steps)} evaluations",
    )  # fmt: skip
    yield Row("shared parameters against the dense fit, sigma", off, n=20 * 61, bar=at_most(1e-6))
