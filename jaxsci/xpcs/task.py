"""`task = "xpcs"`: measurements by X-ray photon correlation spectroscopy, described by a config.

The entry point of this science in the group `jaxsci.sciences`. The steps are in `_task/`: a config becomes measurements
(`config`, `detector`, with the names of `kinds`), which are analysed (`work`), recorded (`outcomes`) and drawn
(`figures`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..runs import AbstractTask, Column, Config, Job, Record, Refusal, Registry, Report, Tile, Untried, Words
from ._task.config import Measurement, build_job
from ._task.detector import Frames
from ._task.figures import draw_dispersions
from ._task.kinds import KINDS
from ._task.outcomes import Analysed
from ._task.work import analyse, refusals
from .io import write_result


class XPCSTask(AbstractTask[Measurement, Analysed]):
    """Measurements, one after the other; the q-bins of each in one batch."""

    words: ClassVar[Words] = Words("measurement", "analysed")
    columns: ClassVar[tuple[Column, ...]] = (
        Column("q_bins", "q-bins", "d", screen="q-bins", screen_form="d", csv=True),
        Column("fitted", "fitted", "d", screen="fitted", screen_form="d", batch=True, csv=True),
        Column("reduced_chi2", "χ² / dof", ".4g", screen="chi2/dof", screen_form=".4g", batch=True, csv=True),
        Column("slope", "exponent of q", ".3f", screen="slope", screen_form=".3f", batch=True, csv=True),
        Column("r_hat", "largest R̂", ".4f", screen="R-hat", screen_form=".4f", csv=True),
        Column("ess", "least ESS", ".0f", screen="ESS", screen_form=".0f", csv=True),
        Column("divergences", "divergences", "d", csv=True),
        Column("seconds", "seconds", ".2f", csv=True),
    )

    def kinds(self) -> Registry:
        """Models of g2, geometries, masks and axes of partitions."""
        return KINDS

    def build(self, config: Config, registry: Registry) -> Job[Measurement]:
        """Read and check all measurements."""
        return build_job(config, registry)

    def run(
        self, members: Sequence[Measurement], report: Report, beside: bool
    ) -> Iterator[tuple[list[int], list[Analysed | Untried]]]:
        """Analyse all measurements, one after the other."""
        for place, member in enumerate(members):
            outcome = analyse(member)
            report(1)
            yield [place], [outcome]

    def describe(self, member: Measurement) -> Mapping[str, str]:
        """The model, how large the measurement is, and where it comes from."""
        return {"model": member.what, "size": member.size, "source": member.source}

    def batches(self, members: Sequence[Measurement]) -> list[int]:
        """Each by itself."""
        return [1] * len(members)

    def refusals(self, members: Sequence[Measurement]) -> Mapping[int, Refusal]:
        """Measurements without a point to fit, or without the scattering that is asked for."""
        return refusals(list(members))

    def counts(self, records: Sequence[Record]) -> dict[str, int]:
        """How many q-bins were fitted, of all, and whose chains meet every criterion."""
        counted = {key: sum(r.get(key, 0) for r in records) for key in ("q_bins", "fitted")}
        mixed = [r for r in records if "mixed" in r]
        more = {"mixed": sum(r["mixed"] for r in mixed)} if mixed else {}
        return {**counted, **more} if counted["q_bins"] else {}

    def tiles(self, counts: Mapping[str, int]) -> Sequence[Tile]:
        """How many q-bins were fitted, and whose chains can be believed."""
        if "q_bins" not in counts:
            return ()
        tiles = [Tile(counts["fitted"], counts["q_bins"], "q-bins fitted")]
        if "mixed" in counts:
            tiles.append(Tile(counts["mixed"], counts["fitted"], "posteriors that meet every criterion"))
        return tiles

    def said(self, counts: Mapping[str, int]) -> Sequence[str]:
        """The same in words."""
        return [f"{tile.have} of {tile.of} {tile.text}" for tile in self.tiles(counts)]

    def facts(self, record: Record) -> Sequence[str]:
        """Its columns, of those that are numbers, and the facts of the record."""
        numbers = [c for c in self.columns if c.heading and c.form and c.key in record]
        return (*(f"{c.heading} {record[c.key]:{c.form}}" for c in numbers), *record.get("facts", ()))

    def pictures(self, outcomes: Sequence[Analysed]) -> Mapping[str, Callable[[], object]]:
        """The relaxation times of all measurements over q, where there are several."""
        found = [o for o in outcomes if isinstance(o, Analysed) and o.fitted is not None and o.fitted.law is not None]
        return {"Relaxation over q": partial(draw_dispersions, found)} if len(found) > 1 else {}

    def files(self, outcome: Analysed, name: str) -> Mapping[str, str | Callable[[Path], object]]:
        """The fits of a measurement and its scattering as tables; of frames, the result that came of them."""
        found: dict[str, str | Callable[[Path], object]] = {}
        if outcome.fitted is not None:
            found[f"fits/{name}.csv"] = fits_csv(outcome)
        if outcome.scattered is not None:
            found[f"saxs/{name}.csv"] = partial(_write_curve, outcome)
        if isinstance(outcome.member.given, Frames):
            found[f"correlated/{name}.h5"] = partial(_write_result, outcome)
        return found


def fits_csv(outcome: Analysed) -> str:
    """One row for each q-bin: its place, q, phi, how its fit ended, and its parameters with their errors."""
    fitted = outcome.fitted
    assert fitted is not None
    phi = outcome.result.phi
    table: dict[str, np.ndarray] = {"column": fitted.columns, "q": np.asarray(fitted.curves.q)}
    if phi is not None:
        table["phi"] = np.asarray(phi)[fitted.columns]
    table |= {key: value for key, value in fitted.table.items() if key not in ("success", "warning", "result")}
    table |= {f"posterior_{key}": value for key, value in fitted.chains.items() if key != "refused"}
    rows = zip(*table.values(), strict=True)
    return "\n".join([",".join(table), *(",".join(map(_cell, row)) for row in rows)]) + "\n"


def _cell(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value:.10g}"


def _write_curve(outcome: Analysed, path: Path) -> None:
    assert outcome.scattered is not None
    path.parent.mkdir(exist_ok=True)
    outcome.scattered.curve.write_csv(path)


def _write_result(outcome: Analysed, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    write_result(path, outcome.result)
