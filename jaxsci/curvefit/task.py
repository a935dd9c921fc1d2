"""`task = "curvefit"`: curve fits described by a config, from its tables to their report.

The entry point of curve fitting in the group `jaxsci.sciences`. The steps are in `_task/`: a config becomes members
(`build`, `sources`, `tables`, `estimate`), which are checked or fitted (`check`, `run`), recorded and drawn (`record`,
`figures`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from ..core import AbstractModel, Product, Sum
from ..datasets import Dataset
from ..fitting import make_plan
from ..runs import Column, Config, Job, Kind, Record, Refusal, Registry, Report, Tile, Untried
from ..runs.fits import COLUMNS, KINDS, AbstractFitTask
from . import _functions
from ._task.build import Member, build_job
from ._task.check import refusals
from ._task.run import Outcome, fit_members, group

MODELS = (
    Sum,
    Product,
    _functions.Constant,
    _functions.Line,
    _functions.Polynomial,
    _functions.Gaussian,
    _functions.Gaussian2D,
    _functions.Lorentzian,
    _functions.Voigt,
    _functions.Moffat,
    _functions.Lognormal,
    _functions.Exponential,
    _functions.BiExponential,
    _functions.StretchedExponential,
    _functions.PowerLaw,
    _functions.Logistic,
    _functions.Gompertz,
    _functions.MichaelisMenten,
    _functions.Hill,
    _functions.Sinusoid,
)
"""Models that a config may name."""


class CurveFitTask(AbstractFitTask[Member, Outcome]):
    """Fits of models to data sets, each a member of the job; known answers are compared with."""

    columns: ClassVar[tuple[Column, ...]] = (
        *COLUMNS,
        Column("worst_lre", "digits, values", ".1f", screen="digits", screen_form=".1f", poor_below=6.0),
        Column("worst_lre_std", "digits, std", ".1f", screen="digits, std", screen_form=".1f", poor_below=6.0),
    )

    def kinds(self) -> Registry:
        """Models, solvers, losses, noises and priors; NIST's models are imported when a config names one."""
        models = {model.__name__: model for model in MODELS}
        nist = {"nist": "jaxsci.data.nist:MODELS"}
        return {"models": Kind("model", (AbstractModel,), models, nist), **KINDS}

    def build(self, config: Config, registry: Registry) -> Job[Member]:
        """Build and check all fits."""
        return build_job(config, registry)

    def run(
        self, members: Sequence[Member], report: Report, beside: bool
    ) -> Iterator[tuple[list[int], list[Outcome | Untried]]]:
        """Fit all members: like ones in batches, unlike ones beside each other."""
        return fit_members(members, report, beside)

    def batches(self, members: Sequence[Member]) -> list[int]:
        """How many members share their programs."""
        return [len(places) for places in group(members)]

    def refusals(self, members: Sequence[Member]) -> Mapping[int, Refusal]:
        """Fits that would end before their first step."""
        return refusals(members)

    def describe(self, member: Member) -> Mapping[str, str]:
        """Model, rows, and the parameters that are free."""
        names = make_plan(member.model, member.data.noise, member.settings.free).names
        rows = str(int(member.data.mask.sum())) if isinstance(member.data, Dataset) else "streamed"
        return {"model": member.what, "rows": rows, "free parameters": " ".join(names)}

    def counts(self, records: Sequence[Record]) -> dict[str, int]:
        """How many fits agree with known answers to 6 and to 9 digits, where there are any."""
        compared = [r for r in records if "worst_lre" in r]
        if not compared:
            return {}
        return {
            "compared": len(compared),
            "values_to_6_digits": sum(r["worst_lre"] >= 6 for r in compared),
            "values_to_9_digits": sum(r["worst_lre"] >= 9 for r in compared),
            "std_to_6_digits": sum(r.get("worst_lre_std", 0) >= 6 for r in compared),
        }

    def tiles(self, counts: Mapping[str, int]) -> Sequence[Tile]:
        """Agreement with known answers."""
        if "compared" not in counts:
            return ()
        of = counts["compared"]
        return (
            Tile(counts["values_to_6_digits"], of, "agree to 6 digits or more, all values"),
            Tile(counts["values_to_9_digits"], of, "agree to 9 digits or more, all values"),
            Tile(counts["std_to_6_digits"], of, "agree to 6 digits or more, all standard errors"),
        )

    def said(self, counts: Mapping[str, int]) -> Sequence[str]:
        """Agreement with known answers, in words."""
        if "compared" not in counts:
            return ()
        return (
            f"values agree to 6 digits in {counts['values_to_6_digits']} of {counts['compared']}",
            f"to 9 digits in {counts['values_to_9_digits']}",
            f"standard errors to 6 digits in {counts['std_to_6_digits']}",
        )
