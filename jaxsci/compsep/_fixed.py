"""Parameters that vary over the sky without being fitted."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ..core import free_spec, leaf_names, leaf_values, parameters, suggest
from ._mixing import MixingMatrix
from ._units import plain

if TYPE_CHECKING:
    from ._patches import Cells


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


def in_memory(mixing: MixingMatrix, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """(pixel,) each, in double precision and the parameter's unit; NaN where a mask hides the value.

    **Raises:** `ValueError` for a quantity of another kind, and for complex numbers.
    """
    about = parameters(mixing)
    found = {name: plain(x, f"fixed: {name}", about[name].unit) for name, x in fixed.items()}
    return {name: x if isinstance(x, jax.core.Tracer) else np.asarray(x, float) for name, x in found.items()}


def outside(mixing: MixingMatrix, name: str, values: Any) -> Any:
    """Where values of a parameter lie outside the bounds that its class declares; NaN is not outside."""
    lower, upper = parameters(mixing)[name].bounds
    return (values < lower) | (values > upper)


def check_held(mixing: MixingMatrix, free: Sequence[str], cells: "Cells | None" = None) -> Any:
    """Whether all parameters that are not fitted lie within the bounds that their classes declare.

    **Returns:** True, or, for values that are being traced, flags of the used pixels.

    **Raises:** `ValueError` naming the first that does not.
    """
    fine: Any = np.array(True)
    for name, held in leaf_values(mixing):
        if name in free:
            continue
        by_pixel = cells is not None and name in cells.fixed
        values = on_host(cells.fixed[name] if cells is not None and by_pixel else held)
        beyond = outside(mixing, name, values)
        if isinstance(beyond, jax.core.Tracer):
            fine = fine & ~beyond
        elif beyond.any():
            lower, upper = parameters(mixing)[name].bounds
            one = values[beyond][0]
            where = ""
            if cells is not None and by_pixel:
                where = f" in {beyond.sum()} pixels (the first is {cells.pixel[beyond][0]})"
            raise ValueError(
                f"{name} is held at {one:g}{where}, which is outside of its bounds ({lower:g}, {upper:g}): give it "
                "another value, or a spectrum of your own that declares other bounds"
            )
    return fine


def on_host(x: Any) -> Any:
    """A NumPy array, unless it is being traced: NumPy indexes without a program for each shape."""
    return x if isinstance(x, jax.core.Tracer) else np.asarray(x)


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
