"""The figure of a curve fit in a report: data with fit, residuals, correlation; of an image, image, model, residuals.

Of a streamed file only some rows are shown, which the member has as its sample. The outcome calls `draw`;
the style of the page and its colours are those of the run.
"""

from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu

from ...datasets import Dataset
from ...fitting import Solution
from ...plot import plot_correlation, plot_fit, plot_image, plot_residuals
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
