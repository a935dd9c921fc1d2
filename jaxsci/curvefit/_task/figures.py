"""The figure of a curve fit in a report: data with fit, residuals, correlation; of an image, image, model, residuals.

Of a streamed file only some rows are shown, which the member has as its sample. The outcome calls `draw`, and `panels`
for figures to zoom into; the style of the page and its colours are those of the run.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ...datasets import Dataset
from ...fitting import Solution
from ...plot import (
    _abscissa,
    _grid,
    _predict,
    _residual,
    _sigma,
    plot_correlation,
    plot_fit,
    plot_image,
    plot_residuals,
)
from ...runs import Image, Scatter, Series
from .build import Member


def draw(member: Member, solution: Solution) -> Any:
    """Draw the matplotlib figure of one member."""
    return _draw_curve(member, solution) if member.image is None else _draw_image(member, solution)


def _on_device(member: Member, solution: Solution) -> tuple[Solution, Dataset]:
    """The solution and the rows to show, as the arrays of the device that models expect."""
    data = member.sample or member.data
    assert isinstance(data, Dataset)
    return jtu.tree_map(jnp.asarray, (solution, data))


def _draw_curve(member: Member, solution: Solution) -> Any:
    """Data with fit, residuals below, correlation beside."""
    from matplotlib.figure import Figure

    solution, data = _on_device(member, solution)
    figure = Figure(figsize=(9.4, 3.5), facecolor="none", layout="constrained")
    panels = figure.subplot_mosaic(
        [["fit", "correlation"], ["residuals", "correlation"]], width_ratios=[2.15, 1], height_ratios=[2.6, 1]
    )
    panels["fit"].sharex(panels["residuals"])
    panels["fit"].tick_params(bottom=False, labelbottom=False)
    plot_fit(solution, data, panels["fit"]).set_ylabel(member.labels[1])
    plot_residuals(solution, data, panels["residuals"]).set_xlabel(member.labels[0])
    plot_correlation(solution, panels["correlation"]).set_title("correlation")
    for name in ("fit", "residuals"):
        panels[name].ticklabel_format(axis="y", scilimits=(-1, 4))
    panels["residuals"].locator_params(axis="y", nbins=4)
    figure.align_ylabels([panels["fit"], panels["residuals"]])
    return figure


def _draw_image(member: Member, solution: Solution) -> Any:
    """Image, model and residuals side by side, and the correlation."""
    from matplotlib.figure import Figure

    (solution, data), shape = _on_device(member, solution), member.image
    assert shape is not None
    figure = Figure(figsize=(9.4, 2.3), facecolor="none", layout="constrained")
    *pictures, correlation = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.25])
    for what, ax in zip(("data", "model", "residual"), pictures, strict=True):
        plot_image(solution, data, shape, what, ax)
        ax.locator_params(integer=True, nbins=5)
        ax.set(xlabel=member.labels[0], ylabel=member.labels[1] if ax is pictures[0] else "")
    plot_correlation(solution, correlation).set_title("correlation")
    return figure


def panels(member: Member, solution: Solution) -> Sequence[Scatter | Image]:
    """Data with the fitted curve, and the residuals; of an image, itself, the model and the residuals."""
    solution, data = _on_device(member, solution)
    known = solution.absolute
    noise = data.noise if solution.noise is None else solution.noise
    residual = np.asarray(_residual(solution.model, data, noise if known else None), float)
    unit = "residual / \N{GREEK SMALL LETTER SIGMA}" if known else "residual"
    if member.image is not None:
        return _images(member, data, np.asarray(_predict(solution, data.inputs)[0]), residual, unit)
    used = np.flatnonzero(np.asarray(data.mask))
    x, observed, sigma = np.asarray(_abscissa(data), float)[used], np.asarray(data.observed, float)[used], _sigma(data)
    grid, inputs = _grid(data, x)
    curve, std = (np.asarray(part, float) for part in _predict(solution, inputs))
    across, up = member.labels
    row = {"row": used}
    return [
        Scatter(
            f"Data and {member.what}",
            across,
            up,
            (
                Series("data", x, observed, None if sigma is None else np.asarray(sigma, float)[used], more=row),
                Series(member.what, np.asarray(grid, float), curve, std, line=True),
            ),
        ),
        Scatter("Residuals, model less data", across, unit, (Series("residuals", x, residual[used], more=row),)),
    ]


def _images(member: Member, data: Dataset, model: np.ndarray, residual: np.ndarray, unit: str) -> list[Image]:
    """Masked pixels are left empty but in the model."""
    assert member.image is not None
    height, width = member.image
    used = np.asarray(data.mask)
    shown = {
        "Data": np.where(used, data.observed, np.nan),
        "Model": model,
        "Residuals": np.where(used, residual, np.nan),
    }
    seen = np.asarray(data.observed)[used]
    scale = (float(seen.min()), float(seen.max())) if seen.size else None  # of data and model alike
    return [
        Image(
            title,
            member.labels[0],
            member.labels[1],
            np.asarray(values, float).reshape(member.image),
            np.arange(float(width)),
            np.arange(float(height)),
            unit if title == "Residuals" else title.lower(),
            equal=True,
            limits=None if title == "Residuals" else scale,
            signed=title == "Residuals",
        )
        for title, values in shown.items()
    ]
