"""Residuals, averages and correlations as tables of columns, and quantities that follow from a fit as rows.

Reports and commands write them beside what they draw, for the researcher's own plots: comma-separated, one row for each
TOA, epoch or pair of parameters, with the digits that a float64 has. The task and `jaxsci timing residuals` call these.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from .._derived import derived
from .._fit import Correlation, TimingSolution
from .._notation import said
from .._residuals.averages import EpochAverages
from .._residuals.realisation import NoiseRealisation
from .._toas import TOAs


def residual_table(toas: TOAs, columns: Mapping[str, np.ndarray], noise: NoiseRealisation | None = None) -> str:
    """Columns of each TOA after its date and frequency, and what each process of the noise adds to it."""
    every = {"mjd_utc": np.asarray(toas.utc), "frequency_mhz": np.asarray(toas.frequency), **columns}
    for name, part in ({} if noise is None else noise.parts).items():
        every |= {f"{name}_s": np.asarray(part.value), f"{name}_std_s": np.asarray(part.std)}
    return _table(every)


def epoch_table(averages: EpochAverages) -> str:
    """The averages of each epoch."""
    return _table(
        {
            "mjd_utc": np.asarray(averages.mjd),
            "frequency_mhz": np.asarray(averages.frequency),
            "residual_s": np.asarray(averages.residual),
            "sigma_s": np.asarray(averages.sigma),
            "toas": np.asarray(averages.count),
        }
    )


def correlation_table(pairs: Sequence[Correlation]) -> str:
    """Pairs of parameters and their correlation."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["parameter", "other", "correlation"])
    writer.writerows([first, second, repr(value)] for first, second, value in pairs)
    return text.getvalue()


def derived_rows(solution: TimingSolution) -> list[dict[str, Any]]:
    """A row of the report for each quantity that follows from the parameters; its remark says so."""
    rows = []
    for name, value, std, unit, about in derived(solution):
        digits = said(name, Decimal(value), std, unit)
        if std == 0:
            digits = {"text": f"{value:.6g}", "std_text": ""}
        rows.append(
            {
                "name": name,
                "unit": unit,
                "value": value,
                "std": std if math.isfinite(std) else math.inf,
                "exact": repr(value),
                **digits,
                "folded": False,
                "derived": True,
                "remarks": [f"derived: {about}" if about else "derived"],
            }
        )
    return rows


def _table(columns: Mapping[str, np.ndarray]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*(values.tolist() for values in columns.values()), strict=True):
        writer.writerow([repr(value) for value in row])
    return text.getvalue()
