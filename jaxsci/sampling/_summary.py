"""A posterior as text: a table with as many digits as its errors ask for, and how far it can be believed.

Numbers are rounded here, for the eye alone: to two digits of the posterior's standard deviation, so that 1e-7 shows its
digits as 1e3 does. `Posterior` shows this where it is printed.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import class_name, notebook_table
from ..fitting import format_pm

if TYPE_CHECKING:
    from ._posterior import Posterior
else:
    Posterior = Any  # which imports this module

_HEAD = ("parameter", "mean", "sd", "94 % from", "to", "R-hat", "bulk ESS", "tail ESS", "least squares")


def text_summary(posterior: Posterior) -> str:
    """The table of what was sampled, and the facts of the chains."""
    title = _title(posterior)
    if posterior.refused:
        return f"{title}, refused: {posterior.refused}"
    rows = [_HEAD, *_rows(posterior.summary())]
    widths = [max(len(row[k]) for row in rows) for k in range(len(_HEAD))]
    lines = [
        "  ".join([f"{row[0]:<{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([title, *lines, _facts(posterior)])


def html_summary(posterior: Posterior) -> str:
    """The same for a notebook."""
    title = _title(posterior)
    if posterior.refused:
        return notebook_table(title, (), [], [f"refused: {posterior.refused}"])
    return notebook_table(title, _HEAD, _rows(posterior.summary()), [_facts(posterior)])


def _title(posterior: Posterior) -> str:
    chains, draws = posterior.draws.shape[:2]
    return f"Posterior of {class_name(posterior.start.model)}: {chains} chains of {draws} draws"


def _rows(columns: dict[str, np.ndarray]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for k, name in enumerate(columns["name"]):
        sd = float(columns["sd"][k])
        mean, error = format_pm(float(columns["mean"][k]), sd)
        low, high, best = (
            format_pm(float(columns[column][k]), sd)[0] for column in ("hdi_low", "hdi_high", "least_squares")
        )
        trust = (f"{columns['r_hat'][k]:.4f}", f"{columns['ess_bulk'][k]:.0f}", f"{columns['ess_tail'][k]:.0f}")
        rows.append((name, mean, error, low, high, *trust, best))
    return rows


def _facts(posterior: Posterior) -> str:
    least = float(np.min(posterior.bfmi))
    return (
        f"divergences {posterior.divergences}; least BFMI {least:.3g}; trees at their cap {posterior.saturation:.3%}; "
        f"leapfrog steps a draw {float(np.mean(np.asarray(posterior.num_steps))):.3g}"
    )
