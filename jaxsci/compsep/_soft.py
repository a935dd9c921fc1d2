"""Soft patches: a pixel's parameter as a weighted mean of the values of several patches."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..core import Module
from ._given import plain

_SUM = 1e-6  # how far from 1 weights may sum, which lets single precision through


class SoftPatches(Module):
    """Where a parameter lives when each pixel has shares in several patches: its value there is the weighted mean.

    What `separate(patches=...)` takes, and `soft_kmeans` makes.

    - `numbers`: (q, pixel) the patches of each pixel, in any order; a pixel whose numbers are all negative is masked.
    - `weights`: (q, pixel) how much of each, at least 0, with a sum of 1; what has no weight may have any number.

    **Raises:** `ValueError` for shapes that differ.
    """

    numbers: Int[np.ndarray, "q pixel"]
    weights: Float[np.ndarray, "q pixel"]

    def __init__(self, numbers: Any, weights: Any):
        self.numbers = np.asarray(plain(numbers, "numbers", fill=-1))
        self.weights = np.asarray(plain(weights, "weights", fill=0.0))

    @property
    def used(self) -> np.ndarray:
        """(pixel,) where any patch is named."""
        return np.any(self.numbers >= 0, axis=0)

    def over(self, name: str, npix: int) -> "SoftPatches":
        """These, if they are for so many pixels.

        **Raises:** `ValueError` if they are for others.
        """
        if self.numbers.shape[1] != npix:
            raise ValueError(f"patches of {name} are for {self.numbers.shape[1]} pixels, but the maps have {npix}")
        return self

    def checked(self, name: str, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(numbers, weights) of these pixels, in as few rows as they need; of a single one no weights.

        Rows begin with the largest weight, and a number without weight is that one's, so that nothing hangs on it.

        **Raises:** `ValueError` for weights that are negative, do not sum to 1, or belong to no patch.
        """
        numbers, weights = self.numbers[:, pixel], self.weights[:, pixel].astype(float)

        def refuse(bad: np.ndarray, what: str) -> None:
            if bad.any():
                first = pixel[bad][0]
                raise ValueError(f"patches of {name}: {bad.sum()} pixels (the first is {first}) have {what}")

        refuse(~np.all(weights >= 0, axis=0), "a weight that is negative or not a number")
        refuse(np.any((weights > 0) & (numbers < 0), axis=0), "weight in no patch, but in a negative number")
        refuse(np.abs(weights.sum(axis=0) - 1) > _SUM, "weights that do not sum to 1")
        rows = int(np.sum(weights > 0, axis=0).max(initial=1))
        order = np.lexsort((numbers, -weights), axis=0)[:rows]
        numbers, weights = np.take_along_axis(numbers, order, 0), np.take_along_axis(weights, order, 0)
        return (np.where(weights > 0, numbers, numbers[:1]), weights) if rows > 1 else (numbers[0], None)


def mean(values: Any, index: Any, share: Any = None) -> Any:
    """The parameter of each lane: the element `index` (k,) of it, or the mean of several (q, k) with these shares."""
    if share is None:
        return values[index]
    return (values[index] * share).sum(0)
