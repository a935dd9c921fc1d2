"""How a map is cut into bins: what a user asks for, the edges that follow, and the bin of each pixel.

Edges are worked out once, on the host, from the pixels that are used. Labels from given edges are a function that is
compiled, mapped and differentiated around. Angles come round: they are brought into one turn before they are compared.
`labels` puts two axes together.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...core import AnyArray, Given, Module, Scalar, as_array, as_float, suggest, traced
from .._geometry import ANGLES

SPACINGS = ("linear", "log")
"""How bins widen."""


class Axis(Module):
    """How one map is cut into bins.

    **Arguments:**

    - `map`: its name, such as "q" or "phi".
    - `bins`: how many.
    - `spacing`: "linear", or "log" for equal steps of the logarithm; pixels at or below zero then belong to no bin.
    - `low`, `high`: the outer edges; those of the pixels that are used by default. A bin holds its lower edge, and the
      last one its upper edge too. Of an angle they may be any two that are at most one turn (or one fold) apart:
      adding 360 to both changes nothing.
    - `edges`: all of them, used as given, in place of `bins`, `spacing`, `low` and `high`.
    - `offset`: degrees that are added to an angle first; edges and values are told after it.
    - `fold`: for a pattern that repeats `fold` times in a turn: angles that are 360 / fold apart share a bin.

    **Raises:** `ValueError` for what cannot be cut so.
    """

    map: str = eqx.field(static=True)
    bins: int = eqx.field(static=True)
    spacing: str = eqx.field(static=True)
    low: Scalar | None
    high: Scalar | None
    edges: Float[Array, " edges"] | None
    offset: Scalar
    fold: int = eqx.field(static=True)

    def __init__(
        self,
        map: str,
        bins: int = 0,
        spacing: str = "linear",
        low: Given | None = None,
        high: Given | None = None,
        edges: Given | None = None,
        offset: Given = 0.0,
        fold: int = 1,
    ) -> None:
        self.map, self.spacing, self.fold = map, spacing, fold
        self.low, self.high = (None if limit is None else as_float(limit, "low") for limit in (low, high))
        self.edges = None if edges is None else as_float(edges, "edges")
        self.offset = as_float(offset, "offset")
        self.bins = bins if self.edges is None else self.edges.shape[0] - 1
        if spacing not in SPACINGS:
            raise ValueError(f"no spacing {spacing!r}{suggest(spacing, ('linear', 'log'))}: linear, log")
        if self.bins < 1:
            raise ValueError(f"the axis {map!r} needs one bin or more: give bins= or edges=")
        if fold < 1 or (map not in ANGLES and (fold != 1 or not _is_zero(self.offset))):
            raise ValueError(f"offset and fold are for angles ({', '.join(ANGLES)}), not for {map!r}")
        if self.edges is not None and not traced(self.edges) and not np.all(np.diff(np.asarray(self.edges)) > 0):
            raise ValueError(f"the edges of {map!r} should rise, but they are {np.asarray(self.edges)}")
        if self.map in ANGLES:
            _fits_in_a_turn(self)

    def split(self, parts: int) -> "Axis":
        """Cut each bin into several of equal width, or of equal ratio where they are spaced by logarithm."""
        if self.edges is None:
            return Axis(self.map, self.bins * parts, self.spacing, self.low, self.high, None, self.offset, self.fold)
        return Axis(self.map, edges=_refined(self.edges, parts, self.spacing), offset=self.offset, fold=self.fold)


class Cut(Module):
    """An axis whose edges are known: what its labels and the values of its bins follow from.

    `steps` are the edges as pixels are compared with them: angles between given limits are counted from the lower one.
    """

    axis: Axis
    edges: Float[Array, " edges"]
    steps: Float[Array, " edges"]
    values: Float[Array, " bins"]


def cut_map(values: AnyArray, used: AnyArray, axis: Axis) -> Cut:
    """Find the edges of an axis over the pixels that are used.

    **Raises:** `ValueError` where no pixel is used, or all have one value and no edges are given.
    """
    mask = np.asarray(used) != 0
    if not mask.any():
        raise ValueError("no pixel is used: the mask removes all of them, look at its rules one by one")
    if axis.edges is not None:
        return _cut(axis, np.asarray(axis.edges))
    found = np.asarray(turned(as_array(values), axis))
    counted = found[mask & np.isfinite(found) & ((found > 0) | (axis.spacing != "log"))]
    if counted.size == 0:
        raise ValueError(f"no pixel that is used has a value of {axis.map!r} that could be cut into bins")
    if axis.map in ANGLES and axis.low is not None and axis.high is not None:
        # cut from zero and moved: so are the pixels, and limits that lie a turn further on cut the same bins
        return _cut(axis, np.asarray(axis.low) + _spaced(0.0, float(axis.high - axis.low), axis))
    low, high = (
        float(f(counted) if limit is None else limit) for f, limit in ((np.min, axis.low), (np.max, axis.high))
    )
    cut = _cut(axis, _spaced(low, high, axis))
    if axis.fold == 1:
        return cut
    return eqx.tree_at(lambda c: c.values, cut, jnp.asarray(_first_fold(np.asarray(values), mask, cut)))


def turned(values: Float[Array, "*n"], axis: Axis) -> Float[Array, "*n"]:
    """Bring a map to where its bins are cut: an angle with offset and fold, counted from the lower edge if given."""
    if axis.map not in ANGLES:
        return values
    values, period = values + axis.offset, 360 / axis.fold
    low = axis.edges[0] if axis.edges is not None else axis.low
    if low is not None:
        return jnp.mod(values - jnp.mod(low, 360), period)
    within_turn = values - 360 * jnp.ceil((values - 180) / 360)  # above -180, up to 180
    return within_turn if axis.fold == 1 else jnp.mod(within_turn + 180, period)


@eqx.filter_jit
def labels_of(values: Float[Array, "*n"], cut: Cut) -> Int[Array, "*n"]:
    """Say in which bin of an axis each value of a map lies: 1 ... n, 0 where it lies in none.

    A bin holds its lower edge, the last one also its upper edge.
    """
    axis, found, steps, n = cut.axis, turned(values, cut.axis), cut.steps, cut.axis.bins
    if axis.edges is not None:
        place = jnp.searchsorted(steps, found, side="right").astype(jnp.int32) - 1
    else:
        if axis.spacing == "log":
            share = jnp.log(jnp.where(found > 0, found, steps[0]) / steps[0]) / jnp.log(steps[-1] / steps[0])
        else:
            share = (found - steps[0]) / (steps[-1] - steps[0])
        near = jnp.clip(jnp.nan_to_num(n * share), 0, n - 1).astype(jnp.int32)
        # rounding moves a value across one edge at most, so one look at both edges is as good as a search, and faster
        place = near - (found < steps[near]).astype(jnp.int32) + (found >= steps[near + 1]).astype(jnp.int32)
    inside = (found >= steps[0]) & (found <= steps[-1])
    return jnp.where(inside, jnp.clip(place, 0, n - 1) + 1, 0)


def _cut(axis: Axis, edges: Float[np.ndarray, " edges"]) -> Cut:
    """Edges, the values between them, and the edges as pixels are compared with them."""
    told = axis.map in ANGLES and (axis.edges is not None or axis.low is not None)
    steps = edges - edges[0] if told else edges
    if told and axis.edges is None and axis.low is not None and axis.high is not None:
        steps = _spaced(0.0, float(axis.high - axis.low), axis)
    return Cut(axis, *(jnp.asarray(part) for part in (edges, steps, _middle(edges, axis))))


def _middle(edges: Float[np.ndarray, " edges"], axis: Axis) -> Float[np.ndarray, " bins"]:
    return np.sqrt(edges[1:] * edges[:-1]) if axis.spacing == "log" else (edges[1:] + edges[:-1]) / 2


def _spaced(low: float, high: float, axis: Axis) -> Float[np.ndarray, " edges"]:
    """Equal bins; both ends are exactly what they were, so that the pixel with the least value is in a bin."""
    if not high > low or (axis.spacing == "log" and low <= 0):
        above = " above zero" if axis.spacing == "log" else ""
        raise ValueError(
            f"{axis.map!r} cannot be cut into {axis.bins} bins from {low} to {high}: give low < high{above}"
        )
    if axis.spacing == "linear":
        return np.linspace(low, high, axis.bins + 1)
    edges = np.logspace(np.log10(low), np.log10(high), axis.bins + 1)
    edges[0], edges[-1] = low, high
    return edges


def split_cut(cut: Cut, parts: int) -> Cut:
    """Cut each bin into several, whose outer edges are those of the bin to the last bit."""
    if parts < 1:
        raise ValueError(f"finer says into how many static bins a dynamic one is cut, 1 or more, not {parts}")
    axis = cut.axis.split(parts)
    edges, steps = (_refined(part, parts, axis.spacing) for part in (cut.edges, cut.steps))
    return Cut(axis, *(jnp.asarray(part) for part in (edges, steps, _middle(edges, axis))))


def _refined(edges: AnyArray, parts: int, spacing: str) -> Float[np.ndarray, " edges"]:
    """Edges with more of them between, every `parts`-th of which is one of the old."""
    edges = np.asarray(edges)
    coarse = np.log(edges) if spacing == "log" else edges
    fine = np.interp(np.arange((edges.size - 1) * parts + 1) / parts, np.arange(edges.size), coarse)
    fine = np.exp(fine) if spacing == "log" else fine
    fine[::parts] = edges
    return fine


def _first_fold(values: Float[np.ndarray, "v h"], used: Bool[np.ndarray, "v h"], cut: Cut) -> np.ndarray:
    """The mean angle of each bin's pixels in the first fold, by which it is called; where it has none, of all."""
    labels = np.where(used, np.asarray(labels_of(as_array(values), cut)), 0).ravel()
    angle = values - 360 * np.ceil((values + float(cut.axis.offset) - 180) / 360) + float(cut.axis.offset)
    first = ((angle >= 0) & (angle < 360 / cut.axis.fold)).ravel()
    sums, counts = (
        np.stack(
            [np.bincount(labels * keep, weights, minlength=cut.axis.bins + 1)[1:] for keep in (first, first | True)]
        )
        for weights in (values.ravel(), np.ones(labels.size))
    )
    means = sums / np.maximum(counts, 1)
    return np.where(counts[0] > 0, means[0], means[1])


def _fits_in_a_turn(axis: Axis) -> None:
    """Refuse limits of an angle that are not both known, or more than a turn apart."""
    if (axis.low is None) != (axis.high is None):
        raise ValueError(f"an angle such as {axis.map!r} needs both low and high, or neither")
    ends = (axis.low, axis.high) if axis.edges is None else (axis.edges[0], axis.edges[-1])
    if ends[0] is None or ends[1] is None or traced(ends):
        return
    if not 0 < float(ends[1] - ends[0]) <= 360 / axis.fold:
        raise ValueError(
            f"{axis.map!r} runs from {float(ends[0])} to {float(ends[1])}, but its bins should cover more than nothing "
            f"and at most {360 / axis.fold:g} degrees"
        )


def _is_zero(offset: Scalar) -> bool:
    return not traced(offset) and float(offset) == 0
