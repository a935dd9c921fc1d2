"""Parameters that vary over the sky without being fitted."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ..core._errors import suggest
from ..core._parameter import free_spec, leaf_names, parameters
from ._mixing import MixingMatrix


def not_fixed(mixing: MixingMatrix, fixed: Mapping[str, Any] | None) -> list[str] | None:
    """The parameters that are left to fit; `None` where nothing is fixed, for all of them.

    **Raises:** `ValueError` for a name that no parameter has.
    """
    if not fixed:
        return None
    names = [name for name, _ in leaf_names(mixing, parameters(mixing))]
    for name in fixed:
        if name not in names:
            raise ValueError(f"fixed: no parameter {name!r}{suggest(name, names)} ({', '.join(names)})")
    return [name for name in names if name not in fixed]


def checked(fixed: Mapping[str, Any] | None, free: Sequence[str], npix: int) -> dict[str, Any]:
    """The maps as they are, which may be on disk.

    **Raises:** `ValueError` for a map of another size than (pixel,), and one of a parameter that is fitted.
    """
    for name, values in (fixed or {}).items():
        if name in free:
            raise ValueError(f"{name} is both fixed and free: leave it out of one of them")
        if np.shape(values) != (npix,):
            raise ValueError(
                f"fixed: {name} should have a value for each of {npix} pixels, but its shape is {np.shape(values)}"
            )
    return dict(fixed or {})


def in_memory(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """(pixel,) each, in double precision."""
    return {name: x if isinstance(x, jax.core.Tracer) else np.asarray(x, float) for name, x in fixed.items()}


def at_lanes(mixing: MixingMatrix, rows: Mapping[str, Any]) -> MixingMatrix:
    """The mixing matrix with other leaves for some parameters, of any shape."""
    if not rows:
        return mixing
    moving, rest = eqx.partition(mixing, free_spec(mixing, list(rows)))
    names = [name for name, _ in leaf_names(mixing, list(rows))]
    leaves: list[Array] = [jnp.asarray(rows[name]) for name in names]
    return eqx.combine(jtu.tree_unflatten(jtu.tree_structure(moving), leaves), rest)


def kinds(name: str, values: Any, pixel: np.ndarray) -> np.ndarray:
    """A number for each of these pixels, the same where the values are.

    **Raises:** `ValueError` for values that are not finite there.
    """
    if isinstance(values, jax.core.Tracer):
        return np.arange(len(pixel))
    bad = ~np.isfinite(values[pixel])
    if bad.any():
        raise ValueError(
            f"{name} is not finite in {bad.sum()} pixels (the first is {pixel[bad][0]}): mask them, or give it a value"
        )
    return np.unique(values[pixel], return_inverse=True)[1]
