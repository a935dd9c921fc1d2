"""Pictures of a posterior: its corner, its chains, their ranks, and what it predicts beside the data.

The first three are ArviZ's, of the draws as ArviZ has them; the last one is drawn here, since ArviZ does not know the
model. A user calls these functions one by one, and the reports of the sciences draw them. ArviZ and matplotlib are
imported inside the functions: `pip install 'jaxsci[sampling,plot]'`.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array

from ..datasets import Dataset
from ..plot import DATA, MODEL, _axes
from ._arviz import arviz, is_first
from ._posterior import Posterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWS = 500  # enough for the edges of a band


def plot_corner(posterior: Posterior, names: Sequence[str] | None = None) -> Any:
    """Draw every pair of parameters against each other, and each one's own distribution.

    **Arguments:** `names`: parameters; all that were sampled by default.

    **Returns:** what ArviZ makes: an array of axes (ArviZ 0.x), or a PlotCollection (1.x).

    **Raises:** `ValueError` for less than two.
    """
    wanted = list(names) if names is not None else _sampled(posterior)
    if sum(int(np.prod(posterior.samples(name).shape[2:])) for name in wanted) < 2:
        raise ValueError("a corner needs two numbers or more: plot_trace shows the distribution of one")
    choices = {"marginals": True} if is_first(arviz()) else {}  # 1.x draws them by itself
    return _by_arviz("plot_pair", posterior, names, **choices)


def plot_trace(posterior: Posterior, names: Sequence[str] | None = None) -> Any:
    """Draw each parameter's distribution chain by chain, and its draws in order.

    **Arguments:** `names`: parameters; all that were sampled by default.

    **Returns:** as `plot_corner`.
    """
    return _by_arviz("plot_trace" if is_first(arviz()) else "plot_trace_dist", posterior, names)


def plot_rank(posterior: Posterior, names: Sequence[str] | None = None) -> Any:
    """Draw the histogram of each chain's ranks among all draws: flat where chains agree (Vehtari et al. 2021, 5.1).

    **Arguments:** `names`: parameters; all that were sampled by default.

    **Returns:** as `plot_corner`.
    """
    return _by_arviz("plot_rank", posterior, names)


def plot_predictive(
    posterior: Posterior, ax: "Axes | None" = None, *, key: Array | None = None, probability: float = 0.95
) -> "Axes":
    """Draw the data, the posterior's model with its band, and lighter the band within which data are expected.

    **Arguments:**

    - `posterior`: of a `Dataset`; it is drawn over its one input, or over the row number where there are several.
    - `ax`: where to draw; a new figure by default. `key`: of the noise in the wider band.
    - `probability`: that the bands should hold.

    **Returns:** the axes.

    **Raises:** `ValueError` for other data than a `Dataset`.
    """
    if not isinstance(posterior.data, Dataset):
        raise ValueError(f"only a Dataset can be drawn beside its model, not a {type(posterior.data).__name__}")
    ax, data = _axes(ax), posterior.data
    used = np.asarray(data.mask)
    leaves = jax.tree.leaves(data.inputs)
    alone = len(leaves) == 1 and leaves[0].ndim == 1
    x = np.asarray(leaves[0]) if alone else np.arange(used.size)
    order = np.argsort(x[used], kind="stable")
    x, observed = x[used][order], np.asarray(data.observed)[used][order]
    model = np.asarray(posterior.predict(most=_DRAWS))[:, used][:, order]
    edges = [(1 - probability) / 2, (1 + probability) / 2]
    if key is not None:
        again = np.asarray(posterior.replicate(key, most=_DRAWS))[:, used][:, order]
        ax.fill_between(x, *np.quantile(again, edges, axis=0), color=MODEL, alpha=0.12, lw=0, zorder=1)
    ax.fill_between(x, *np.quantile(model, edges, axis=0), color=MODEL, alpha=0.35, lw=0, zorder=2)
    ax.plot(x, np.median(model, axis=0), color=MODEL, lw=1.4, label="posterior", zorder=3)
    ax.plot(x, observed, "o", ms=3.5, mew=0, color=DATA, alpha=0.85, label="data", zorder=4)
    ax.legend(frameon=False)
    return ax


def _by_arviz(function: str, posterior: Posterior, names: Sequence[str] | None, **choices: bool) -> Any:
    library = arviz()
    wanted = list(names) if names is not None else _sampled(posterior)
    for name in wanted:
        posterior.samples(name)  # which names a wrong one, with a suggestion
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies' own deprecations, which a reader can do nothing about
        return getattr(library, function)(posterior.to_arviz(), var_names=wanted, **choices)


def _sampled(posterior: Posterior) -> list[str]:
    """Names of the parameters of which any element was sampled."""
    elements = set(posterior.names)
    return [
        name
        for name, _ in posterior.start.free
        if any(element == name or element.startswith(f"{name}[") for element in elements)
    ]
