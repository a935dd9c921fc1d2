"""The thin adapter to ArviZ: a posterior as InferenceData (ArviZ 0.x) or a DataTree (1.x), for plots and statistics.

The two differ in name and import alone: both are made of groups of arrays. ArviZ is an extra, and imported inside.
"""

import importlib
import types
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..datasets import Dataset

if TYPE_CHECKING:
    from arviz import InferenceData

    from ._posterior import Posterior
else:
    Posterior = InferenceData = Any


def arviz() -> types.ModuleType:
    """ArviZ itself.

    **Raises:** `ImportError` with the line that installs it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 0.x announces 1.x at each import
            return importlib.import_module("arviz")
    except ImportError as error:
        raise ImportError("this needs ArviZ, which is not installed: pip install 'jaxsci[sampling]'") from error


def is_first(library: types.ModuleType) -> bool:
    """True for ArviZ 0.x, whose functions have other names and arguments than those of 1.x."""
    return int(library.__version__.split(".")[0]) < 1


def to_arviz(posterior: Posterior, likelihoods: Float[np.ndarray, "chains draws n"] | None) -> InferenceData:
    """Draws by name, statistics under ArviZ's names, and of the rows that are used observations and `likelihoods`."""
    draws = {name: np.asarray(posterior.samples(name)) for name, _ in posterior.start.free}
    steps = np.asarray(posterior.num_steps)
    stats = {
        "lp": np.asarray(posterior.log_density),
        "energy": np.asarray(posterior.energy),
        "diverging": np.asarray(posterior.diverging),
        "acceptance_rate": np.asarray(posterior.accept_prob),
        "n_steps": steps,
        "tree_depth": np.ceil(np.log2(steps + 1)).astype(int),
    }
    groups = {"posterior": draws, "sample_stats": stats}
    rows = np.flatnonzero(np.asarray(posterior.data.mask))
    if isinstance(posterior.data, Dataset):
        groups["observed_data"] = {"observed": np.asarray(posterior.data.observed)[rows]}
    if likelihoods is not None:
        groups["log_likelihood"] = {"observed": likelihoods}
    library = arviz()
    named: dict[str, Any] = {"dims": {"observed": ["row"]}, "coords": {"row": rows}}
    return library.from_dict(**groups, **named) if is_first(library) else library.from_dict(groups, **named)
