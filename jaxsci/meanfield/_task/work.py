"""Carries out what a config of `task = "meanfield"` asks for, and finds beforehand what would be refused.

Members run one after the other, because each is a program that uses the whole device. What the library refuses for a
reason that only a run can find, such as particles that end at infinity, is told of that member, and the others go
on. The task calls `run_member` and `refusals`.
"""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import Linear
from ...evolution import SDE, AbstractSummary, Draw, Ensemble, Evolution, Moments, evolve
from ...fitting import TRF, fit, foresee_one
from ...runs import CLASS_ERRORS, REFUSED, SUCCESSFUL, Refusal, Untried, first_line
from ...runs.fits import advice, result_of
from .._bandwidth import Fixed, Silverman, as_bandwidth
from .._boundary import Grid, averaged
from .._costs import Problem, check_solvable
from .._density import BinnedKDE, DenseKDE, Density, SpectralKDE
from .._game import Equilibrium, solve_game
from .._select import EvolvedDensity, evolve_density
from .config import Calibration, Densities, Game, Member, Particles, drawn
from .outcomes import Broken, Calibrated, Chosen, Distance, Evolved, Outcome, Played
from .references import Reference, SolvedReference, common

_TRIED = 1024  # particles whose places are looked at before a run
_DOTS = {1: 8, 2: 3}  # of a cell along each axis, by which a density is made into particles; else 2


def run_member(member: Member) -> Outcome | Untried:
    """Run a member; one that cannot be run, or that breaks off, says why."""
    try:
        if isinstance(member, Particles):
            return _evolved(member)
        if isinstance(member, Densities):
            return _chosen(member)
        return _played(member) if isinstance(member, Game) else _calibrated(member)
    except CLASS_ERRORS as error:
        # what would have been refused before the first step was never run
        known = refusals([member]).get(0)
        return Broken(member, first_line(error)) if known is None else Untried(member, REFUSED, known.message)


# --- evolutions ----------------------------------------------------------------------------------------------------


def _evolved(member: Particles) -> Evolved:
    began = time.perf_counter()
    found = jax.block_until_ready(_evolution(member, _ensemble(member)))
    seconds = time.perf_counter() - began
    reference = _known(member.reference)
    return Evolved(member, found, seconds, reference, _distance_of_particles(member, found, reference))


def _known(reference: Reference | SolvedReference | None) -> Reference | None:
    return reference.solved if isinstance(reference, SolvedReference) else reference


def _ensemble(member: Particles) -> Ensemble | Draw:
    return drawn(member.draw) if member.chunk is None else member.draw


def _evolution(member: Particles, ensemble: Ensemble | Draw) -> Evolution:
    save: dict[str, AbstractSummary] = {"moments": Moments(), "density": member.density}
    options = {"stepper": member.stepper, "save": save, "every": member.every, "chunk": member.chunk}
    return evolve(member.sde, ensemble, member.ts, **options)  # type: ignore[arg-type]


def _distance_of_particles(member: Particles, found: Evolution, reference: Reference | None) -> Distance | None:
    density = found["density"]
    if reference is None or reference.path is None or not isinstance(density, Density):
        return None
    bare = _apart(reference, found.ts, density.values)
    parts = _of_estimator(member.density, member.grid, density, bare)
    steps = "take more steps, or a stepper of higher order"
    return Distance(bare.t, bare.last, bare.worst, {**parts, "reference": reference.error}, steps)


class Apart(NamedTuple):
    """Distances in L1, and the reference at the last time in common, whose place is `here`."""

    t: float
    last: float
    worst: float
    known: np.ndarray
    here: int


def _apart(reference: Reference, ts: Float[Array, " k"], values: Float[Array, "k *shape"]) -> Apart:
    assert reference.path is not None
    volume, known = float(reference.path.grid.volume), np.asarray(reference.path.density)
    host, pairs = np.asarray(values), common(reference.ts, np.asarray(ts))
    apart = [float(np.abs(host[here] - known[there]).sum() * volume) for there, here in pairs]
    there, here = pairs[-1]
    return Apart(float(ts[here]), apart[-1], max(apart), known[there], here)


def _of_estimator(estimator: AbstractSummary, grid: Grid, density: Density, bare: Apart) -> dict[str, float]:
    """What the number of particles and the bandwidth explain of a distance."""
    volume = float(grid.volume)
    # the mean of |z| of a normal number is sqrt(2 / pi) of its standard deviation
    noise = math.sqrt(2 / math.pi) * float(np.asarray(density.standard_error[bare.here]).sum() * volume)
    blurred = _blurred(estimator, grid, jnp.asarray(bare.known), density.bandwidth[bare.here])
    blur = 0.0 if blurred is None else float(np.abs(np.asarray(blurred) - bare.known).sum() * volume)
    return {"particles": noise, "bandwidth": blur}


@eqx.filter_jit
def _blurred(
    density: AbstractSummary, grid: Grid, known: Float[Array, "*shape"], h: Float[Array, " d"]
) -> Float[Array, "*shape"] | None:
    """What the estimator makes of the reference itself: particles at many places of each cell, with its mass."""
    if not isinstance(density, SpectralKDE | DenseKDE | BinnedKDE):
        return None
    dots = _DOTS.get(grid.box.d, 2)
    fine = Grid(grid.box, [n * dots for n in grid.shape])
    weights = known
    for axis in range(grid.box.d):
        weights = jnp.repeat(weights, dots, axis)
    total = 1.0 if density.total is None else density.total
    weights = jnp.maximum(weights, 0) * fine.volume * total
    fixed = eqx.tree_at(lambda d: d.bandwidth, density, Fixed(h))
    return fixed.evaluate(fixed.deposit(fine.points().reshape(-1, grid.box.d), weights.reshape(-1))).values


# --- densities by a method that is chosen --------------------------------------------------------------------------


def _chosen(member: Densities) -> Chosen:
    began = time.perf_counter()
    found = evolve_density(member.sde, member.start, member.grid, member.ts, **member.asked)
    jax.block_until_ready(found.density)
    seconds = time.perf_counter() - began
    reference = _known(member.reference)
    return Chosen(member, found, seconds, reference, _distance_of_density(member, found, reference))


def _distance_of_density(member: Densities, found: EvolvedDensity, reference: Reference | None) -> Distance | None:
    if reference is None or reference.path is None:
        return None
    bare, parts = _apart(reference, found.ts, found.density), {}
    kept = None if found.evolution is None else found.evolution["density"]
    if isinstance(kept, Density):
        make = {"spectral": SpectralKDE, "dense": DenseKDE, "binned": BinnedKDE}[found.choice.method]
        parts = _of_estimator(make(member.grid, total=1.0), member.grid, kept, bare) | {"reference": reference.error}
    else:
        # the error of a value over the largest one, which finite volumes measured, over the width of this density
        values, volume = np.asarray(found.density[bare.here]), float(member.grid.volume)
        width = float(values.max() / (values**2).sum()) / volume
        known = [row.error * width for row in found.choice.candidates if row.method == found.choice.method]
        parts = {"cells": known[0], "reference": reference.error} if known and math.isfinite(known[0]) else {}
    return Distance(bare.t, bare.last, bare.worst, parts, "take more steps, or a stepper of higher order")


# --- games and calibrations ----------------------------------------------------------------------------------------


def _played(member: Game) -> Played:
    began = time.perf_counter()
    found = jax.block_until_ready(solve_game(member.game, **member.options))
    seconds = time.perf_counter() - began
    return Played(member, found, seconds, _distance_of_game(member, found))


def _distance_of_game(member: Game, found: Equilibrium) -> Distance | None:
    """Beside what cells and steps explain: a third of what half of them change, as they are of second order."""
    reference = member.reference
    if reference is None or reference.path is None:
        return None
    bare, parts = _apart(reference, found.ts, found.density), {}
    coarse = member.coarse() if bool(found.success) else None
    if coarse is not None:
        rough = solve_game(coarse, **member.options)
        fine, place = found.density[::2], min(bare.here // 2, rough.ts.shape[0] - 1)
        halves = averaged(np.asarray(fine[place : place + 1]), rough.density.shape[1:])
        assert halves is not None  # half as many cells
        apart = float(np.abs(halves[0] - np.asarray(rough.density[place])).sum())
        error = apart * float(coarse.grid.volume) / 3
        parts = {"cells and steps": error, "reference": reference.error}
    return Distance(bare.t, bare.last, bare.worst, parts, "take more cells, or more steps")


def _calibrated(member: Calibration) -> Calibrated:
    began = time.perf_counter()
    found = jax.block_until_ready(fit(member.sde, member.data, throw=False, **member.options))
    return Calibrated(member, found, time.perf_counter() - began)


# --- what would be refused -----------------------------------------------------------------------------------------


def refusals(members: Sequence[Member]) -> dict[int, Refusal]:
    """Members, by their places, that would end before their first step."""
    found: dict[int, Refusal] = {}
    for place, member in enumerate(members):
        try:
            code, why = _tried(member)
        except CLASS_ERRORS as error:
            code, why = REFUSED, first_line(error)
        if code != SUCCESSFUL:
            found[place] = Refusal(code, why)
    return found


def _tried(member: Member) -> tuple[str, str]:
    """The result that is known beforehand, and why."""
    if isinstance(member, Particles):
        _try_particles(member)
    elif isinstance(member, Densities):
        _try_density(member)
    elif isinstance(member, Game):
        game, options = member.game, member.options
        eqx.filter_eval_shape(lambda m: solve_game(game, start=m, **options), _still(member))
    else:
        chosen = {key: member.options[key] for key in ("free", "bounds")}
        value = foresee_one(member.sde, member.data, **chosen, priors=None, solver=TRF(), loss=Linear())
        return result_of(value), advice(value)
    return SUCCESSFUL, ""


def _still(member: Game) -> Float[Array, "t *shape"]:
    game = member.game
    return jnp.broadcast_to(game.initial[None], (game.ts.shape[0], *game.grid.shape))


def _try_density(member: Densities) -> None:
    """The same with the method that is asked for; which one "auto" takes is only known in the run.

    **Raises:** `ValueError` as the evolution would.
    """
    x = drawn(Draw(member.start, min(member.n, _TRIED))).positions
    _check_start(member.sde, x)
    options = member.options
    options["stepper"].check(member.sde, x[0])
    if member.method == "auto":
        return
    ts, bandwidth = jnp.asarray(member.ts), as_bandwidth(options.get("bandwidth", Silverman()))
    problem = Problem(
        member.sde, member.start, member.grid, ts, bandwidth, options["stepper"], member.n, options["chunk"]
    )
    check_solvable(problem, member.method)
    if member.method != "finite volume":
        asked = {name: value for name, value in member.asked.items() if name not in ("key", "accuracy")}
        key = jnp.zeros(2, jnp.uint32)
        eqx.filter_eval_shape(
            lambda key: evolve_density(member.sde, member.start, member.grid, member.ts, key=key, **asked).density, key
        )


def _check_start(sde: SDE, x: Float[Array, "n d"]) -> None:
    outside = int(jnp.sum(sde.domain.outside(x)))
    if outside:
        raise ValueError(
            f"{outside} of {x.shape[0]} particles begin outside of the box: make it larger, or begin inside of it"
        )


def _try_particles(member: Particles) -> None:
    """All that an evolution does but the numbers, and the numbers of a few particles at the first time.

    **Raises:** `ValueError` as the evolution would.
    """
    some = drawn(Draw(member.draw.start, min(member.count, _TRIED), member.draw.key))
    _check_start(member.sde, some.positions)
    member.stepper.check(member.sde, some.positions[0])
    if member.chunk is None:
        whole = eqx.filter_eval_shape(drawn, member.draw)
        eqx.filter_eval_shape(lambda e: _evolution(member, e), whole)
    else:
        draw = member.draw
        eqx.filter_eval_shape(lambda key: _evolution(member, eqx.tree_at(lambda d: d.key, draw, key)), draw.key)
