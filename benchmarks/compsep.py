"""Area `compsep`: single pixels, patches, global fits; rates, evaluations, and how deep the fits get.

Figures of fgbuster in the notes are of earlier runs on one core, not timed beside ours. furax runs beside ours where it
is installed, which takes Python 3.12.
"""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci import compsep

from . import _furax, _skies
from ._cold import in_fresh_process
from ._harness import Area, Row, Timing, at_least, at_most, case as any_case, race

js.enable_x64()

AREA: Area = []
_BLOCK = 512  # pixels that are evaluated together


def case(name: str, *, slow: bool = False) -> Callable[..., Any]:
    """As the harness's, for functions that need the templates."""

    def declare(run: Callable[[bool], Iterator[Row]]) -> Callable[[bool], Iterator[Row]]:
        def guarded(quick: bool) -> Iterator[Row]:
            if _skies.MISSING:
                yield Row(name, note=_skies.MISSING)
            else:
                yield from run(quick)

        any_case(AREA, name, slow=slow)(guarded)
        return run

    return declare


def timed(maps: Any, **choices: Any) -> Timing:
    """A separation of LiteBIRD's maps, data in hand, Sigma and amplitudes and all."""

    def run() -> Any:
        return compsep.separate(_skies.mixing(), _skies.LITEBIRD, maps, **choices)

    return race({"ours": run}, repeats=5, seconds=4)["ours"]


def about(timing: Timing) -> dict[str, Any]:
    """Columns of a row that are not the number itself."""
    return {"cold": timing.cold, "compiles": timing.compiles, "again": timing.again}


_FGBUSTER = {"BFGS": 51.0, "L-BFGS-B": 232.0}  # pixels a core-s, timed by themselves; the second ends 2.4 sigma off


@case("single pixels")
def pixels(quick: bool) -> Iterator[Row]:
    """Three parameters in each pixel of a varying sky, IQU, 15 bands."""
    nside = 16 if quick else 64
    npix = 12 * nside**2
    timing = timed(_skies.maps(nside, "IQU"), patches=nside)
    found, name = timing.value, f"single pixels, nside {nside}"
    rate = npix / timing.cpu
    failed = npix - int(found.success.sum())
    bar = at_least(1e5) if nside == 64 else None  # few pixels do not fill a call
    note = f"{failed} not converged; at most {int(found.steps.max())} evaluations"
    yield Row(name, rate, "px / core-s", n=npix, wall=npix / timing.wall, bar=bar, note=note, **about(timing))
    for solver, theirs in _FGBUSTER.items():
        row = f"{name}: time of one"
        yield Row(row, 1e6 / rate, "us a pixel", f"fgbuster {solver} (stored)", 1e6 / theirs, n=npix)
    if nside == 16:
        yield from agreement(found)
    else:
        yield from agreement(timed_once(16))


def timed_once(nside: int) -> Any:
    """Single pixels without the clock."""
    return compsep.separate(_skies.mixing(), _skies.LITEBIRD, _skies.maps(nside, "IQU"), patches=nside)


def agreement(found: Any) -> Iterator[Row]:
    """How far from 400 of fgbuster's fits by BFGS, and which of the two is lower."""
    golden = _skies.golden()
    which, theirs = golden["pix16_IQU_idx"], golden["pix16_IQU_BFGS_x"]
    off = np.stack([np.asarray(found.parameter_map(name))[which] for name in found.free], axis=1) - theirs
    covariance = np.moveaxis(np.asarray(found.covariance)[:, :, np.asarray(found.cell)[which]], 2, 0)
    away = np.sqrt(np.einsum("ki,kij,kj->k", off, np.linalg.inv(covariance), off))
    there = {name: np.asarray(found.parameter_map(name)).copy() for name in found.free}
    for name, values in zip(found.free, theirs.T, strict=True):
        there[name][which] = values
    held = compsep.separate(_skies.mixing(), _skies.LITEBIRD, _skies.maps(16, "IQU"), free=(), fixed=there)
    above = np.asarray(found.chi2 - held.chi2)[which]
    note = f"{int(np.sum(away < 1e-4))} of {len(which)} within 1e-4, the farthest {away.max():.1e}: see the next row"
    yield Row("single pixels: median from fgbuster BFGS", float(np.median(away)), "sigma", bar=at_most(1e-4), note=note)
    note = (
        f"BFGS has more than 1e-8 more in {int(np.sum(above < -1e-8))} of {len(which)}, at most {-above.min():.1e} more"
    )
    yield Row("single pixels: chi2 above fgbuster BFGS", float(above.max()), bar=at_most(1e-8), note=note)


@case("pulls", slow=True)
def pulls(quick: bool) -> Iterator[Row]:
    """Every pixel of a sky with the same spectra everywhere, none left out: the signed root of the likelihood ratio.

    Its square is how much chi2 rises when the parameter is held at the truth; a standard normal, if all is well. The
    difference over the standard error is one where errors are symmetric, which those of faint temperatures are not.
    """
    maps, truth = _skies.maps(64, "IQU", constant=True), {"dust.beta": 1.54, "dust.temp": 20.0, "sync.beta": -3.0}

    def fit(free: Any) -> Any:
        return compsep.separate(_skies.mixing(), _skies.LITEBIRD, maps, patches=64, free=tuple(free))

    found = fit(truth)
    for name, value in truth.items():
        off = np.asarray(found.parameter_map(name)) - value
        rise = np.asarray(fit(k for k in truth if k != name).chi2 - found.chi2)
        root, plain = np.sign(off) * np.sqrt(np.maximum(rise, 0)), off / np.asarray(found.error_map(name))
        note = f"over the standard error {plain.mean():+.3f}, width {plain.std():.3f}"
        yield Row(f"pulls of {name}: mean", abs(root.mean()), "sigma", n=off.size, bar=at_most(0.015), note=note)
        note = "distance of the standard deviation from 1"
        yield Row(f"pulls of {name}: width", abs(root.std() - 1), n=off.size, bar=at_most(0.015), note=note)
    reduced, note = float(found.chi2.sum()) / int(found.dof), "distance from 1"
    yield Row("chi2/dof of all pixels", abs(reduced - 1), n=off.size, bar=at_most(0.004), note=note)


_MULTI = {"dust.beta": 8, "dust.temp": 4, "sync.beta": 2}


@case("multi-resolution", slow=True)
def multi_resolution(quick: bool) -> Iterator[Row]:
    """1008 coupled parameters, QU: nside 8, 4, 2 for beta_d, T_d, beta_s."""
    limits, notes = {16: 1.15, 64: 2.0}, {16: "fgbuster TNC 17.2 s", 64: ""}
    for nside in limits:
        name, timing = f"multi-resolution, nside {nside}", timed(_skies.maps(nside, "QU"), patches=_MULTI)
        found = timing.value
        n = sum(v.size for v in found.values.values())
        bar = at_most(limits[nside])
        yield Row(name, timing.cpu, "s", n=n, wall=timing.wall, bar=bar, note=notes[nside], **about(timing))
        steps, good = int(found.steps.max()), bool(found.success.all())
        note = "converged" if good else "NOT converged"
        yield Row(f"{name}: evaluations", steps, n=n, bar=at_most(12) if nside == 16 else None, note=note)
        if nside == 16:
            above = float(found.minus_log_like - _skies.golden()["multires16_842_QU_best_minus_logL"])
            yield Row(f"{name}: -logL above the lowest of all peers", above, n=n, bar=at_most(0))


@case("connected over the sky", slow=True)
def connected(quick: bool) -> Iterator[Row]:
    """An own beta_d in each pixel, T_d in patches of nside 8, one beta_s for the whole sky."""
    for nside in (16, 64):
        n, where = 12 * nside**2, {"dust.beta": nside, "dust.temp": 8, "sync.beta": 0}
        for priors in ({}, {"dust.beta": js.Normal(1.54, 0.3), "dust.temp": js.Normal(20.0, 3.0)}):
            timing = timed(_skies.maps(nside, "QU"), patches=where, priors=priors)
            found = timing.value
            good = "converged" if bool(found.success.all()) else "NOT converged"
            note = f"{good}, {int(found.steps.max())} evaluations; a dense matrix takes {(n + 769) ** 2 * 8e-9:.2g} GB"
            name = f"connected over the sky, nside {nside}, {'priors' if priors else 'no priors'}"
            yield Row(name, timing.cpu, "s", n=n + 769, wall=timing.wall, note=note, **about(timing))


@case("evaluation")
def evaluation(quick: bool) -> Iterator[Row]:
    """-logL, gradient and Fisher matrix of every pixel by itself, IQU, 15 bands, 3 parameters."""
    nside = 16 if quick else 64
    npix = 12 * nside**2
    data, sigma = _skies.maps(nside, "IQU"), _skies.LITEBIRD.sigma(npix, "IQU")
    names = tuple(js.parameters(_skies.mixing()))
    index = dict.fromkeys(names, jnp.arange(_BLOCK))
    temperature = jnp.pad(data[:, :1], ((0, 0), (0, 1), (0, 0)))
    root = 1 / sigma.T[:2, :, None]
    whole = root[:, :, None] * jnp.stack([temperature, data[:, 1:]])
    blocks = jnp.moveaxis(whole.reshape(*whole.shape[:3], -1, _BLOCK), 3, 0)
    count = jnp.broadcast_to(jnp.array([[1.0], [2.0]]), (2, _BLOCK))
    start = [jnp.full(_BLOCK, value) for value in (1.54, 20.0, -3.0)]
    model = eqx.tree_at(_spectra, _skies.mixing(), start)

    @jax.jit
    def evaluate(model: Any, blocks: Any) -> Any:
        def one(block: Any) -> Any:
            nu = _skies.LITEBIRD.frequency
            return compsep.SkyDataset(nu, block, root, index=index, count=count).cells(model, names)

        return jax.lax.map(one, blocks)

    runners, missing = {"ours": lambda: evaluate(model, blocks)}, _furax.missing()
    if not missing:
        theirs = _furax.value_and_gradient(_skies.LITEBIRD.frequency, data, sigma)
        values = dict(zip(names, (1.54, 20.0, -3.0), strict=True))
        runners["furax"] = lambda: theirs(values)
    times = race(runners)
    timing, each = times["ours"], 1e6 / npix
    note = missing or "furax: value and gradient alone"
    yield Row(
        f"-logL, gradient, Fisher, nside {nside}",
        timing.cpu * each,
        "us a pixel",
        "" if missing else "furax",
        None if missing else times["furax"].cpu * each,
        n=npix,
        wall=timing.wall * each,
        bar=at_most(1),
        note=note,
        **about(timing),
    )


def _spectra(mixing: compsep.MixingMatrix) -> list[Any]:
    _, dust, synchrotron = mixing.components
    return [dust.beta, dust.temp, synchrotron.beta]


@case("global fits", slow=True)
def global_fits(quick: bool) -> Iterator[Row]:
    """One value of each parameter for the whole sky, also where the sky varies and no model fits."""
    golden = _skies.golden()
    for stokes in ("QU", "IQU"):
        for constant in (True, False):
            name = f"global, nside 64 {stokes}, {'constant' if constant else 'varying'} sky"
            timing = timed(_skies.maps(64, stokes, constant=constant))
            found, n = timing.value, 12 * 64**2
            theirs = float(golden[f"global_{stokes}_const{constant}_fun"])
            below = (theirs - float(found.minus_log_like)) / abs(theirs)
            note = f"{int(found.steps[0])} evaluations; relative -logL {below:.1e} below fgbuster's"
            yield Row(f"{name}: seconds", timing.cpu, "s", n=n, wall=timing.wall, note=note, **about(timing))
            yield Row(f"{name}: converged", int(found.success.sum()), "of 1", n=n, bar=at_least(1))


@case("first call")
def first_call(quick: bool) -> Iterator[Row]:
    """A new process: trace, compile, run."""
    for kind in ("pixels",) if quick else ("pixels", "multi-resolution", "global"):
        seen = in_fresh_process("first_separation", kind)
        note = "peers 14 to 60"
        yield Row(f"first call, {kind}", seen["cpu"], "CPU-s", wall=seen["wall"], bar=at_most(5), note=note)


@case("first derivative")
def first_derivative(quick: bool) -> Iterator[Row]:
    """A new process: trace, compile and run jit(vmap(grad)) of a small sky."""
    seen = in_fresh_process("differentiated_separation")
    yield Row("first derivative of a small sky", seen["cpu"], "CPU-s", n=12, bar=at_most(10))


@case("a sky from disk", slow=True)
def from_disk(quick: bool) -> Iterator[Row]:
    """Each pixel of nside 512, IQU, 15 bands, in blocks of 65536: 566 MB of maps, 880 MB of results."""
    with tempfile.TemporaryDirectory() as folder:
        seen = in_fresh_process("stream_sky", folder, "64")
    n, name = int(seen["pixels"]), "single pixels, nside 512, from disk to disk"
    note = f"float32 maps; {int(seen['failed'])} not converged"
    yield Row(name, n / seen["cpu"], "px / core-s", n=n, wall=n / seen["wall"], bar=at_least(1e5), note=note)
    block = 65_536 * 8 * (15 * 3 + 2 * 9 + 3 * 5 + 1) / 2**20
    limit = at_most(1.3 * block + 200)
    yield Row(
        f"{name}: peak memory", seen["mebibytes"], "MiB", n=n, bar=limit, note=f"a block with results {block:.0f}"
    )


@case("single pixels on a GPU")
def on_a_gpu(quick: bool) -> Iterator[Row]:
    """The same pixels on a GPU, by the clock on the wall."""
    nside = 16 if quick else 64
    name, npix = f"single pixels, nside {nside}, on a GPU", 12 * nside**2
    try:
        gpu = jax.devices("gpu")[0]
    except RuntimeError:
        yield Row(name, n=npix, note="not run: no GPU")
        return
    with jax.default_device(gpu):
        timing = timed(_skies.maps(nside, "IQU"), patches=nside)
    yield Row(name, npix / timing.wall, "px / s", n=npix, note="wall clock", **about(timing))


@any_case(AREA, "compile")
def compiles(quick: bool) -> Iterator[Row]:
    """What the first separation of skies inside a program costs, in a process of its own."""
    note = "eight realisations, 15 channels, QU, 48 pixels, one value of each parameter; trace, compile and run"
    for how, bar in (("plain", None), ("quick", at_most(10)), ("once", None)):
        cold = in_fresh_process("skies_in_vmap", how)
        name = f"compile: jit(vmap(separate)), {how}, first call"
        yield Row(name, cold["first"], "CPU-s", n=8, cold=cold["first"], bar=bar, note=note)
        yield Row(name.replace("first", "next"), cold["next"], "CPU-s", n=8)
