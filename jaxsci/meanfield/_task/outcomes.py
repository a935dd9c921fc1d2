"""How members ended, and their numbers for a report: an evolution, a game, a calibration.

An evolution is compared with its reference in L1, the integral of the absolute difference, beside what the finite
number of particles and the bandwidth explain of it: what is left is the length of the steps. A game tells how far its
density is from answering itself, a calibration what all fits tell. `work` makes the outcomes.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evolution import Evolution, Statistics
from ...fitting import Solution
from ...runs import SUCCESSFUL, AbstractOutcome, Image, Scatter
from ...runs.fits import result_of
from .._density import Density
from .._exits import exit_times
from .._game import Equilibrium
from .._select import EvolvedDensity
from .config import Calibration, Densities, Game, Particles
from .references import Reference, common

BEYOND = 2.0  # times what is explained: a distance that is larger deserves a look
_PULL = 4.0  # standard errors by which a moment may be off
_OUTSIDE = 1e-6  # of all weight, which may lie outside of the cells without a word


@dataclasses.dataclass(frozen=True)
class Distance:
    """How far densities are from their reference, in L1: at the last time `t` in common, and at the worst.

    `parts`: by name, what is known to be in the last; empty where nothing is known of it. `remedy`: what to do where it
    is larger.
    """

    t: float
    last: float
    worst: float
    parts: Mapping[str, float]
    remedy: str

    @property
    def explained(self) -> float:
        """All that is known to be in it; infinite where that is not known."""
        return sum(self.parts.values()) if self.parts else math.inf

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to look at where it is larger than that."""
        if self.last <= BEYOND * self.explained:
            return ()
        *first, last = self.parts
        known = f"{', '.join(first)} and {last}" if first else last
        return (
            f"at t = {self.t:.4g} the density is {self.last:.2g} from the reference in L1, but {known} explain only "
            f"{self.explained:.2g}: {self.remedy}",
        )

    @property
    def fact(self) -> str:
        """The parts, in words."""
        if not self.parts:
            return "what is in the L1 distance is not known"
        parts = ", ".join(f"{name} {value:.1e}" for name, value in self.parts.items())
        return f"of the L1 distance are explained: {parts}"

    def record(self) -> dict[str, float]:
        """The numbers of a report."""
        known = {"l1_explained": self.explained} if self.parts else {}
        return {"l1": self.last, "l1_worst": self.worst, **known}


@dataclasses.dataclass(frozen=True)
class Evolved(AbstractOutcome):
    """What became of an ensemble, beside its reference."""

    member: Particles
    evolution: Evolution
    seconds: float
    reference: Reference | None
    distance: Distance | None

    @property
    def density(self) -> Density:
        """The density at all times that were kept."""
        kept = self.evolution["density"]
        assert isinstance(kept, Density)
        return kept

    @property
    def moments(self) -> Statistics:
        """Its moments at these times."""
        kept = self.evolution["moments"]
        assert isinstance(kept, Statistics)
        return kept

    @property
    def told(self) -> str:
        """How long it took."""
        return f"{self.member.count} particles through {self.member.ts.size - 1} steps in {self.seconds:.2f} s"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to look at: particles without a cell, a bandwidth that was replaced, a distance without explanation."""
        of_distance = () if self.distance is None else self.distance.remarks
        return (*_of_density(self.density, self.evolution), *of_distance, *self._of_moments())

    def _of_moments(self) -> list[str]:
        found = []
        for what, pull in pulls(self).items():
            if abs(pull) > _PULL:
                found.append(
                    f"at the end the {what} is {pull:+.1f} standard errors from the reference: take more steps, or a "
                    "stepper of higher order"
                )
        return found

    def record(self) -> dict[str, Any]:
        """Counts, moments at the end, what is left, and how far it is from the reference."""
        return _record_evolution(self)

    def draw(self) -> Any:
        """The density over time."""
        from .figures import draw_evolution

        return draw_evolution(self)

    def panels(self) -> Sequence[Scatter | Image]:
        """The density over time."""
        from .figures import panels

        return panels(self.evolution, self.member.grid, None if self.reference is None else self.reference.path)


def _of_density(density: Density, evolution: Evolution) -> list[str]:
    """What to look at: weight in no cell, and a bandwidth that was replaced."""
    found = []
    share = float(np.max(np.asarray(density.outside) / np.maximum(np.asarray(density.mass), 1e-300)))
    if share > _OUTSIDE:
        found.append(f"up to {share:.2g} of the weight lies outside of the cells, in no density: make box larger")
    narrow = np.flatnonzero(~np.asarray(density.resolved))
    if narrow.size:
        t, h = float(evolution.ts[narrow[0]]), np.asarray(density.bandwidth[narrow[0]])
        found.append(
            f"at t = {t:.4g} the rule asks for a narrower bandwidth than {h.min():.3g}, the least that the "
            "estimator draws, which was used instead: raise density.nodes and density.coefficients"
        )
    return found


def pulls(outcome: Evolved) -> dict[str, float]:
    """Mean and variance of the first coordinate at the last time in common, less the reference, in standard errors."""
    reference = outcome.reference
    if reference is None or (reference.mean is None and reference.variance is None):
        return {}
    there, here = common(reference.ts, np.asarray(outcome.evolution.ts))[-1]
    moments = outcome.moments
    variance, n = float(moments.covariance[here, 0, 0]), float(moments.n_eff[here])
    found: dict[str, float] = {}
    if not (variance > 0 and n > 0):  # nothing is left, or all of it is at one place: there is no error to count in
        return found
    if reference.mean is not None:
        found["mean"] = (float(moments.mean[here, 0]) - float(reference.mean[there])) / math.sqrt(variance / n)
    if reference.variance is not None:  # the standard error of a normal distribution's
        found["variance"] = (variance - float(reference.variance[there])) / (variance * math.sqrt(2 / n))
    return found


def _record_evolution(outcome: Evolved) -> dict[str, Any]:
    member, moments = outcome.member, outcome.moments
    mean, sd = np.asarray(moments.mean[-1]), np.sqrt(np.diagonal(np.asarray(moments.covariance[-1])))
    record: dict[str, Any] = {
        "particles": member.count,
        "steps": member.ts.size - 1,
        "seconds": outcome.seconds,
        "stepper": type(member.stepper).__name__,
    }
    if mean.size == 1 and float(moments.mass[-1]) > 0:
        record |= {"mean": float(mean[0]), "sd": float(sd[0]), "mean_error": float(moments.standard_error[-1, 0])}
    if member.sde.domain.absorbs:
        record["survival"] = float(moments.mass[-1] / moments.mass[0])
    distance = outcome.distance
    if distance is not None:
        record |= distance.record()
    record["facts"] = _facts(outcome)
    return record


def _facts(outcome: Evolved) -> list[str]:
    member, moments, distance = outcome.member, outcome.moments, outcome.distance
    facts = [f"to t = {member.ts[-1]:.4g} by {type(member.stepper).__name__}"]
    mean, error = np.asarray(moments.mean[-1]), np.asarray(moments.standard_error[-1])
    if mean.size > 1 and float(moments.mass[-1]) > 0:
        facts.append("mean (" + ", ".join(f"{m:.4g} ± {e:.1g}" for m, e in zip(mean, error, strict=True)) + ")")
    exits = np.asarray(outcome.evolution.exits)
    if exits.size:
        gone = exit_times(outcome.evolution, member.ts, total=moments.mass[0])
        each = zip(member.sde.domain.walls, np.asarray(gone.share), np.asarray(gone.mean), strict=True)
        left = float(moments.mass[-1] / moments.mass[0])
        # of particles that are there or not; weights are a little better
        facts.append(f"{left:.4f} ± {math.sqrt(left * (1 - left) / member.count):.1g} left{_known_mass(outcome)}")
        facts.append("left through " + ", ".join(_left_through(*of_wall) for of_wall in each))
    facts.append(f"bandwidth {', '.join(f'{h:.3g}' for h in np.asarray(outcome.density.bandwidth[-1]))} at the end")
    if distance is not None:
        facts.append(distance.fact)
    facts += [f"{what} {pull:+.1f} standard errors from the reference" for what, pull in pulls(outcome).items()]
    return facts


def _left_through(wall: str, share: float, when: float) -> str:
    """How much left through a wall, and when, if any did."""
    return f"{wall}: {share:.4f}" + (f" (after {when:.4g} on average)" if math.isfinite(when) else "")


def _known_mass(outcome: Evolved) -> str:
    reference = outcome.reference
    if reference is None or reference.path is None:
        return ""
    there, here = common(reference.ts, np.asarray(outcome.evolution.ts))[-1]
    last = here == outcome.evolution.ts.size - 1
    return f" (reference {float(reference.path.mass[there]):.4f})" if last else ""


@dataclasses.dataclass(frozen=True)
class Chosen(AbstractOutcome):
    """A density by the method that was asked for, or that was found to be the fastest."""

    member: Densities
    found: EvolvedDensity
    seconds: float
    reference: Reference | None
    distance: Distance | None

    @property
    def told(self) -> str:
        """What was chosen, and how long it took."""
        return f"by {self.found.choice.method} (asked for: {self.member.method}) in {self.seconds:.2f} s"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to look at: particles without a cell, a bandwidth that was replaced, a distance without explanation."""
        of_distance = () if self.distance is None else self.distance.remarks
        evolution = self.found.evolution
        density = None if evolution is None else evolution["density"]
        if evolution is None or not isinstance(density, Density):
            return of_distance
        return (*_of_density(density, evolution), *of_distance)

    def record(self) -> dict[str, Any]:
        """The method, moments of the density at the end, what is left, and how far it is from the reference."""
        found, grid = self.found, self.member.grid
        record: dict[str, Any] = {"method": found.choice.method, "seconds": self.seconds}
        record |= {"steps": self.member.ts.size - 1}
        if found.evolution is not None:
            record["particles"] = self.member.n
        if grid.box.d == 1 and float(found.mass[-1]) > 0:
            record |= _moments_of_line(found)
        if self.member.sde.domain.absorbs:
            record["survival"] = float(found.mass[-1])
        facts = [f"method {found.choice.method}, asked for: {self.member.method}"]
        if self.distance is not None:
            record |= self.distance.record()
            facts.append(self.distance.fact)
        record["facts"] = facts
        record["choice"] = str(found.choice).splitlines()
        return record

    def draw(self) -> Any:
        """The density over time, and what was measured before the method was chosen."""
        from .figures import draw_chosen

        return draw_chosen(self)

    def panels(self) -> Sequence[Scatter | Image]:
        """The density over time."""
        from .figures import panels

        return panels(self.found, self.member.grid, None if self.reference is None else self.reference.path)


def _moments_of_line(found: EvolvedDensity) -> dict[str, float]:
    """Mean and standard deviation at the end, on a line: of the particles, or of finite volumes.

    Of particles that were drawn in chunks only a smoothed density is left, whose deviation is another: none is told.
    """
    if found.evolution is None:
        x, weights = np.asarray(found.grid.centres(), float), np.asarray(found.density[-1], float)
    elif found.evolution.ensemble is not None:
        ensemble = found.evolution.ensemble
        x, weights = np.asarray(ensemble.positions[:, 0], float), np.asarray(ensemble.weights, float)
    else:
        return {}
    mean = float((x * weights).sum() / weights.sum())
    return {"mean": mean, "sd": math.sqrt(float(((x - mean) ** 2 * weights).sum() / weights.sum()))}


@dataclasses.dataclass(frozen=True)
class Played(AbstractOutcome):
    """Where the search for an equilibrium ended."""

    member: Game
    equilibrium: Equilibrium
    seconds: float
    distance: Distance | None

    @property
    def code(self) -> str:
        """`successful`, or `no_equilibrium`."""
        return SUCCESSFUL if bool(self.equilibrium.success) else "no_equilibrium"

    @property
    def message(self) -> str:
        """What was reached, and what to do; empty after success."""
        if self.success:
            return ""
        residual, maps = float(self.equilibrium.residual), int(self.equilibrium.maps)
        return (
            f"The residual |T(m) - m| is {residual:.2g} after {maps} maps, and {float(self.equilibrium.tol):.2g} was "
            'asked for. Raise game.max_maps, or take game.solver = { type = "Anderson", depth = 10 } or a smaller '
            "mixing."
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to look at: a distance without explanation."""
        return () if self.distance is None or not self.success else self.distance.remarks

    @property
    def told(self) -> str:
        """How it ended and after how many maps."""
        return f"{self.code} after {int(self.equilibrium.maps)} maps in {self.seconds:.2f} s"

    def record(self) -> dict[str, Any]:
        """Maps, residual, and how far it is from the reference."""
        found, member = self.equilibrium, self.member
        record: dict[str, Any] = {
            "steps": int(found.ts.shape[0]) - 1,
            "maps": int(found.maps),
            "residual": float(found.residual),
            "seconds": self.seconds,
            "residuals": [float(x) for x in np.asarray(found.residuals)[: int(found.maps)]],
        }
        facts = [f"asked for a residual of {float(found.tol):.1g}"]
        if self.distance is not None and member.reference is not None:
            record |= self.distance.record()
            facts += [
                f"at the worst time {self.distance.worst:.1e} from {member.reference.name} in L1",
                self.distance.fact,
            ]
        record["facts"] = facts
        return record

    def draw(self) -> Any:
        """The density of the crowd, and the residuals."""
        from .figures import draw_game

        return draw_game(self)

    def panels(self) -> Sequence[Scatter | Image]:
        """The density over time."""
        from .figures import panels

        return panels(
            self.equilibrium,
            self.equilibrium.grid,
            None if self.member.reference is None else self.member.reference.path,
        )


@dataclasses.dataclass(frozen=True)
class Calibrated(AbstractOutcome):
    """A fit of drift and diffusion."""

    member: Calibration
    solution: Solution
    seconds: float

    @property
    def code(self) -> str:
        """The name of the result in `jaxsci.RESULTS`."""
        return result_of(int(self.solution.result._value))

    @property
    def message(self) -> str:
        """Why the fit failed; empty after success."""
        return "" if self.success else self.solution.message

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to look at though the fit converged."""
        return self.solution.remarks if self.success else ()

    @property
    def told(self) -> str:
        """How it ended and after how many steps."""
        return f"{self.code} after {int(self.solution.num_steps)} steps of the fit"

    @property
    def saved(self) -> Solution:
        """The solution, for `jaxsci.Solution.load`."""
        return self.solution

    def record(self) -> dict[str, Any]:
        """What every fit tells, and its parameters."""
        found = self.solution
        return {
            "particles": int(self.member.data.start.positions.shape[0]),
            "seconds": self.seconds,
            "num_data": int(found.num_data),
            "num_free": len(found.names),
            "rank": int(found.rank),
            "num_steps": int(found.num_steps),
            "chi2": float(found.chi2),
            "dof": int(found.dof),
            "reduced_chi2": float(found.reduced_chi2),
            "errors_scaled": not found.absolute,
            "verdict_of_fit": found.verdict,
            "facts": [
                f"the fit {found.verdict} after {int(found.num_steps)} steps",
                f"χ² {float(found.chi2):.6g} for {int(found.dof)} degrees of freedom",
                *(["errors scaled by √(χ²/dof)"] if not found.absolute else []),
            ],
            "parameters": _parameters(self),
            "covariance": np.asarray(found.covariance).tolist(),
        }

    def draw(self) -> Any:
        """The observed densities and the fitted ones."""
        from .figures import draw_calibration

        return draw_calibration(self)


def _parameters(outcome: Calibrated) -> list[dict[str, Any]]:
    found = outcome.solution
    values, errors = np.asarray(found.y), np.asarray(found.standard_errors)
    remarks = {
        "not determined by the data": ~np.asarray(found.determined),
        "at its lower bound": np.asarray(found.at_bound) < 0,
        "at its upper bound": np.asarray(found.at_bound) > 0,
        "start moved to its bound": np.asarray(found.projected),
    }
    rows = []
    for k, (name, unit) in enumerate(zip(found.names, found.units, strict=True)):
        told = [text for text, applies in remarks.items() if applies[k]]
        if name in outcome.member.truth:
            truth = outcome.member.truth[name]
            pull = f", pull {(values[k] - truth) / errors[k]:+.2f}" if errors[k] > 0 else ""
            told.append(f"truth {truth:.6g}{pull}")
        rows.append({"name": name, "unit": unit, "value": float(values[k]), "std": float(errors[k]), "remarks": told})
    return rows


@dataclasses.dataclass(frozen=True)
class Broken(AbstractOutcome):
    """A run that could be begun and not be ended, such as one whose particles went to infinity."""

    member: Particles | Densities | Game | Calibration
    why: str

    @property
    def code(self) -> str:
        """`broken`."""
        return "broken"

    @property
    def message(self) -> str:
        """What happened, and what to do."""
        return self.why

    def record(self) -> dict[str, Any]:
        """There are no numbers."""
        return {}


Outcome = Broken | Evolved | Chosen | Played | Calibrated
