"""`task = "meanfield"`: evolutions of particles, mean field games and calibrations, described by a config.

The entry point of this science in the group `jaxsci.sciences`. The steps are in `_task/`: a config becomes members
(`config`, with the names of `kinds`), which are run beside what they are compared with (`work`, `references`), recorded
(`outcomes`) and drawn (`figures`).
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..runs import (
    AbstractTask,
    Column,
    Config,
    Job,
    Record,
    Refusal,
    Registry,
    Report,
    Tile,
    Untried,
    Words,
)
from ._task.config import Member, build_job
from ._task.figures import draw_rate
from ._task.kinds import KINDS
from ._task.outcomes import BEYOND, Chosen, Evolved, Outcome, Played
from ._task.work import refusals, run_member


class MeanFieldTask(AbstractTask[Member, Outcome]):
    """Evolutions, games and calibrations, one after the other."""

    words: ClassVar[Words] = Words("run", "finished")
    columns: ClassVar[tuple[Column, ...]] = (
        Column("particles", "particles", ",d", screen="particles", screen_form=",d", batch=True, csv=True),
        Column("method", "method", screen="method", csv=True),
        Column("steps", "steps", ",d", csv=True),
        Column("mean", "mean", ".4g", screen="mean", screen_form=".4g", batch=True, csv=True),
        Column("sd", "sd", ".4g", screen="sd", screen_form=".4g", csv=True),
        Column("survival", "left", ".4f", screen="left", screen_form=".4f", csv=True),
        Column("maps", "maps", "d", screen="maps", screen_form="d", csv=True),
        Column("residual", "residual", ".1e", screen="residual", screen_form=".1e", csv=True),
        Column("l1", "L1 to reference", ".1e", screen="L1", screen_form=".1e", batch=True, csv=True, watch=True),
        Column("l1_explained", "explained", ".1e", screen="explained", screen_form=".1e", csv=True),
        Column("reduced_chi2", "χ² / dof", ".4g", screen="chi2/dof", screen_form=".4g", csv=True),
        Column("seconds", "seconds", ".2f", csv=True),
    )

    def kinds(self) -> Registry:
        """Drifts, diffusions, starts, steppers, densities and bandwidths; costs, Hamiltonians and solvers of games."""
        return KINDS

    def build(self, config: Config, registry: Registry) -> Job[Member]:
        """Read and check all runs."""
        return build_job(config, registry)

    def run(
        self, members: Sequence[Member], report: Report, beside: bool
    ) -> Iterator[tuple[list[int], list[Outcome | Untried]]]:
        """Run all members, one after the other."""
        for place, member in enumerate(members):
            outcome = run_member(member)
            report(1)
            yield [place], [outcome]

    def describe(self, member: Member) -> Mapping[str, str]:
        """What moves the particles, how large the run is, and what it is compared with."""
        return {"model": member.what, "size": member.size, "source": member.source}

    def facts(self, record: Record) -> Sequence[str]:
        """Its columns, of those that are numbers, and the facts of the record."""
        numbers = [c for c in self.columns if c.heading and c.form and c.key in record]
        return (*(f"{c.heading} {record[c.key]:{c.form}}" for c in numbers), *record.get("facts", ()))

    def batches(self, members: Sequence[Member]) -> list[int]:
        """Each by itself."""
        return [1] * len(members)

    def refusals(self, members: Sequence[Member]) -> Mapping[int, Refusal]:
        """Runs that would end before their first step."""
        return refusals(members)

    def counts(self, records: Sequence[Record]) -> dict[str, int]:
        """How many runs are as near to their reference as particles and bandwidth explain."""
        compared = [r for r in records if "l1_explained" in r]
        if not compared:
            return {}
        near = sum(r["l1"] <= BEYOND * r["l1_explained"] for r in compared)
        return {"compared": len(compared), "as_near_as_explained": near}

    def tiles(self, counts: Mapping[str, int]) -> Sequence[Tile]:
        """How many are near to their reference."""
        if "compared" not in counts:
            return ()
        return (
            Tile(counts["as_near_as_explained"], counts["compared"], "as near to the reference as can be expected"),
        )

    def said(self, counts: Mapping[str, int]) -> Sequence[str]:
        """The same in words."""
        if "compared" not in counts:
            return ()
        return (
            f"{counts['as_near_as_explained']} of {counts['compared']} as near to the reference as can be expected",
        )

    def pictures(self, outcomes: Sequence[Outcome]) -> Mapping[str, Callable[[], object]]:
        """The distance to the reference over the number of particles, where there are several numbers."""
        compared = [o for o in outcomes if isinstance(o, Evolved) and o.distance is not None]
        if len({outcome.member.count for outcome in compared}) < 2:
            return {}
        return {"Distance to the reference": partial(draw_rate, compared)}

    def files(self, outcome: Outcome, name: str) -> Mapping[str, str | Callable[[Path], object]]:
        """The densities of an evolution or a game as .npz, those on a line as .csv too."""
        found: dict[str, str | Callable[[Path], object]] = {}
        if isinstance(outcome, Evolved | Chosen | Played):
            arrays = _arrays(outcome)
            found[f"densities/{name}.npz"] = partial(_write_npz, arrays)
            if "x" in arrays and arrays["density"].ndim == 2:
                found[f"densities/{name}.csv"] = _csv(arrays)
        if isinstance(outcome, Chosen):
            found[f"densities/{name}-method.txt"] = f"{outcome.found.choice}\n"
        return found


def _arrays(outcome: Evolved | Chosen | Played) -> dict[str, np.ndarray]:
    """Times, centres of cells by axis, densities with their standard errors."""
    if isinstance(outcome, Played):
        grid, found = outcome.member.game.grid, outcome.equilibrium
        arrays = {"t": found.ts, "density": found.density, "value": found.value}
    elif isinstance(outcome, Chosen):
        grid, chosen = outcome.member.grid, outcome.found
        known = {} if chosen.standard_error is None else {"standard_error": chosen.standard_error}
        arrays = {"t": chosen.ts, "density": chosen.density, **known}
    else:
        grid, density = outcome.member.grid, outcome.density
        arrays = {"t": outcome.evolution.ts, "density": density.values, "standard_error": density.standard_error}
    d = grid.box.d
    axes = {"xyz"[axis] if d <= 3 else f"x{axis}": grid.centres(axis) for axis in range(d)}
    return {name: np.asarray(values) for name, values in {**arrays, **axes}.items()}


def _write_npz(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(buffer.getvalue())


def _csv(arrays: Mapping[str, np.ndarray]) -> str:
    """One row for each time and cell."""
    t, x = np.meshgrid(arrays["t"], arrays["x"], indexing="ij")
    names = [name for name in arrays if name not in ("t", "x")]
    columns = [t.ravel(), x.ravel(), *(arrays[name].ravel() for name in names)]
    rows = "\n".join(",".join(f"{value:.9g}" for value in row) for row in zip(*columns, strict=True))
    return f"t,x,{','.join(names)}\n{rows}\n"
