"""What sampling answers: draws of a fit's parameters, and whether they can be believed.

A `Posterior` has the draws by dotted name, in the constrained space of the model; the diagnostics of its chains, never
rounded; the fit that it was started from; and what it predicts for the data. `sample` returns one, or a
`BatchPosterior` of many. Plots and the ArviZ export read it.
"""

import io
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..core import Module, as_array, closed, element_names, suggest
from ..datasets import AbstractDataset
from ..fitting import DataFrame, Solution, frame
from ..parallel import fingerprint, read_framed, write_framed
from ._check import Checked, Criteria, check
from ._diagnostics import bfmi, ess_bulk, ess_mean, ess_tail, hdi, r_hat, saturated
from ._evidence import JOINT, Drawn, Evidence, evidence_of
from ._kernel import Trace
from ._leave_one_out import LeaveOneOut, leave_one_out, log_likelihoods
from ._predict import predicted, replicated
from ._summary import html_summary, text_summary

if TYPE_CHECKING:
    from arviz import InferenceData
else:
    InferenceData = Any

_ABOUT = ("max_tree_depth", "free_scale", "refused", "joint")
_TRACES = ("log_density", "energy", "diverging", "num_steps", "accept_prob")


class Posterior(Module):
    """Draws from the posterior of one fit.

    - `start`: the least-squares Solution that the chains were started from and whitened by. `data`: its data.
    - `draws`: the p free elements in the order of `start.names`, within their bounds; of fixed ones their value.
    - `first`: of each chain, the point before its first draw.
    - `log_density`: over the whitened coordinates, less a constant. `energy`: the Hamiltonian of each draw.
    - `diverging`: where the integrator failed. `num_steps`: leapfrog steps of its tree. `accept_prob`: of its tree.
    - `refused`: why there is no posterior; empty where there is one. All draws are NaN then.
    - `joint`: True for a member that shares parameters with others, of whose one density these draws are.
    """

    start: Solution
    data: AbstractDataset
    draws: Float[Array, "chains draws p"]
    first: Float[Array, "chains p"]
    log_density: Float[Array, "chains draws"]
    energy: Float[Array, "chains draws"]
    diverging: Bool[Array, "chains draws"]
    num_steps: Int[Array, "chains draws"]
    accept_prob: Float[Array, "chains draws"]
    max_tree_depth: int = eqx.field(static=True)
    free_scale: bool = eqx.field(static=True)
    refused: str = eqx.field(static=True, default="")
    joint: bool = eqx.field(static=True, default=False)

    @property
    def names(self) -> tuple[str, ...]:
        """What was sampled, one name an element: the free elements that no bound fixes."""
        return tuple(n for n, fixed in zip(self.start.names, np.asarray(self.start.fixed), strict=True) if not fixed)

    def samples(self, name: str) -> Float[Array, "chains draws ..."]:
        """The draws of a parameter by dotted name, (chains, draws, *shape); of one element of an array by `"c[0]"`.

        **Raises:** `ValueError` for a name that was not free, with a suggestion.
        """
        if name in self.start.names:
            return self.draws[..., self.start.names.index(name)]
        at = 0
        for known, shape in self.start.free:
            size = len(element_names(known, shape))
            if known == name:
                return self.draws[..., at : at + size].reshape(*self.draws.shape[:2], *shape)
            at += size
        known_names = list(dict.fromkeys([*(n for n, _ in self.start.free), *self.start.names]))
        raise ValueError(
            f"there is no free parameter {name!r}{suggest(name, known_names)} (free: {', '.join(known_names)})"
        )

    def summary(self) -> dict[str, np.ndarray]:
        """Columns over the sampled elements, which `pandas.DataFrame` takes as they are; nothing is rounded.

        `name`, `mean`, `sd`, `hdi_low` and `hdi_high` (94 % of highest density), `mcse` (standard error of the mean),
        `r_hat`, `ess_bulk`, `ess_tail`, and `least_squares`, the value that the fit found, with `least_squares_std`.
        """
        places = [self.start.names.index(name) for name in self.names]
        host = np.asarray(self.draws, float)[..., places]
        each = [host[..., k] for k in range(len(places))]
        low_high = np.array([hdi(x) for x in each]).reshape(-1, 2)
        columns = {
            "name": np.array(self.names, object),
            "mean": host.mean(axis=(0, 1)),
            "sd": host.std(axis=(0, 1), ddof=1),
            "hdi_low": low_high[:, 0],
            "hdi_high": low_high[:, 1],
            "mcse": np.array([float(np.std(x, ddof=1)) / math.sqrt(ess_mean(x)) for x in each]),
            "r_hat": np.array([r_hat(x) for x in each]),
            "ess_bulk": np.array([ess_bulk(x) for x in each]),
            "ess_tail": np.array([ess_tail(x) for x in each]),
        }
        std = np.asarray(self.start.standard_errors)[places]
        return columns | {"least_squares": np.asarray(self.start.y)[places], "least_squares_std": std}

    @property
    def divergences(self) -> int:
        """How many draws diverged, of all chains."""
        return int(jnp.sum(self.diverging))

    @property
    def bfmi(self) -> Float[np.ndarray, " chains"]:
        """The Bayesian fraction of missing information of each chain; below .3 is too little."""
        return bfmi(np.asarray(self.energy, float))

    @property
    def saturation(self) -> float:
        """The share of draws whose tree grew to its cap, `max_tree_depth`."""
        return float(np.mean(saturated(np.asarray(self.num_steps), self.max_tree_depth)))

    def check(self, criteria: Criteria = Criteria()) -> Checked:
        """Hold the posterior to what makes it worth believing: see `Criteria`.

        **Returns:** a `Checked`, true where all is well, which names each criterion that is not met, with the remedy.
        """
        return check(self, criteria)

    def predict(self, fn: Callable[[Any], Array] | None = None, most: int | None = None) -> Float[Array, "draws ..."]:
        """Any function of the model for the draws, chains one after the other.

        **Arguments:** `fn`: model -> array; the model at the inputs of the data by default. `most`: so many draws at
        most, evenly chosen.
        """
        return predicted(self, fn, most)

    def replicate(self, key: Array, most: int | None = None) -> Float[Array, "draws n"]:
        """Data as the posterior expects them to be measured again: the model of each draw with noise, one row a draw.

        **Arguments:** `key`: of JAX's random numbers. `most`: so many draws at most, evenly chosen.

        **Raises:** `ValueError` for a likelihood that says nothing of how data scatter, such as a robust loss.
        """
        return replicated(self, key, most)

    def log_evidence(self, key: Array) -> Evidence:
        """Find ln Z, the evidence: how probable priors and model made the data, for Bayes factors of two models.

        By bridge sampling with a Gaussian in the coordinates of the sampler, which takes about twice as many
        evaluations of the model as there are draws. A prior that bounds cut is normalised within them; between two
        finite bounds without a prior it is uniform.

        **Arguments:** `key`: of JAX's random numbers.

        **Returns:** an `Evidence`, which is NaN where it is not known.

        **Raises:** `ValueError` where a free parameter has no proper prior, with its name; for a noise of unknown
        scale, a robust loss, or another likelihood that is not normalised.
        """
        if self.refused:
            raise ValueError(f"there is no posterior: {self.refused}")
        if self.joint:
            raise ValueError(JOINT)
        trace = Trace(self.draws, *(getattr(self, name) for name in _TRACES))
        start, data, trace = jtu.tree_map(lambda x: x[None], (self.start, closed(self.data), trace))
        found = evidence_of(Drawn(start, data, trace, np.zeros(1, int), self.free_scale), key)
        return jtu.tree_map(lambda x: x[0], found)

    def loo(self) -> LeaveOneOut:
        """Find how well each row of the data is predicted from all others: leave-one-out cross-validation, by ArviZ.

        Priors may be flat. Rows of correlated noise are left out one by one as well, given all others.

        **Returns:** a `LeaveOneOut`; rows of which the draws cannot tell it are named in a warning.

        **Raises:** `ValueError` for a robust loss or another likelihood that is not normalised; `MemoryError` for more
        draws and rows than there is room for; `ImportError` without ArviZ.
        """
        return leave_one_out(self)

    def __repr__(self) -> str:
        return text_summary(self)

    def _repr_html_(self) -> str:
        return html_summary(self)

    def to_pandas(self) -> DataFrame:
        """The `summary` as a DataFrame, a row for each parameter.

        **Raises:** `ImportError` without pandas.
        """
        return frame(self.summary(), "name")

    def to_arviz(self, log_likelihood: bool = False) -> InferenceData:
        """The draws and statistics of all chains as ArviZ has them: InferenceData, or a DataTree from ArviZ 1 on.

        **Arguments:** `log_likelihood`: True adds that of each row and draw, for `arviz.loo` and `arviz.compare`.
        """
        from ._arviz import to_arviz

        return to_arviz(self, log_likelihoods(self) if log_likelihood else None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the draws to one checksummed file, whole or not at all; no pickle.

        The fit and its data are not in it: keep these by `Solution.save`, and `load` with both.
        """
        buffer = io.BytesIO()
        arrays = {name: np.asarray(getattr(self, name)) for name in ("draws", "first", *_TRACES)}
        np.savez(buffer, allow_pickle=False, **arrays)
        header: dict[str, Any] = {"kind": "Posterior", "of": _belongs(self.start), "names": self.start.names}
        header |= {name: getattr(self, name) for name in _ABOUT}
        write_framed(path, buffer.getvalue(), header)

    @staticmethod
    def load(path: str | os.PathLike[str], start: Solution, data: AbstractDataset) -> "Posterior":
        """Read what `save` wrote.

        **Arguments:** `path`: the file; `start`, `data`: the Solution that was sampled, and its data.

        **Raises:** `ValueError` for a damaged file, or one of another fit.
        """
        header, payload = read_framed(path)
        if header.get("kind") != "Posterior":
            raise ValueError(f"{path} holds a {header.get('kind')}, not a Posterior")
        if header["of"] != _belongs(start):
            raise ValueError(
                f"{path} holds the posterior of another fit, of {', '.join(header['names'])}: give the one that "
                "was sampled"
            )
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            fields = {name: as_array(arrays[name]) for name in arrays.files}
        about = {name: header[name] for name in _ABOUT}
        return Posterior(start=start, data=data, **fields, **about)

    def merge(self, *others: "Posterior") -> "Posterior":
        """All chains of several runs of the same fit, with different keys, as one posterior.

        **Raises:** `ValueError` for those of another fit, or with another number of draws.
        """
        for other in others:
            if _belongs(other.start) != _belongs(self.start):
                raise ValueError("only chains of one and the same fit can be merged: these are of another Solution")
            if other.draws.shape[1] != self.draws.shape[1]:
                raise ValueError(
                    f"chains of {other.draws.shape[1]} draws cannot be merged with chains of {self.draws.shape[1]}: "
                    "sample both with the same num_samples"
                )
            if bool(jnp.array_equal(other.draws, self.draws)):
                raise ValueError("these are the same chains twice: sample again with another key")
        every = (self, *others)
        fields = {n: jnp.concatenate([getattr(p, n) for p in every]) for n in ("draws", "first", *_TRACES)}
        depth = min(p.max_tree_depth for p in every)
        return Posterior(
            start=self.start, data=self.data, **fields, max_tree_depth=depth, free_scale=self.free_scale,
            refused=self.refused, joint=self.joint,
        )  # fmt: skip


def _belongs(start: Solution) -> str:
    """What tells one fit from another: its parameters, to the last bit, and the cost that they have."""
    return fingerprint((start.y, start.cost, start.names))
