"""Parameters that are not fitted: maps of them that are given, and values that a model holds.

A parameter may vary over the sky without being fitted, as a temperature of dust that another experiment has measured.
Its map is checked and read here, and held to the bounds that its class declares, as every value is that stays as the
model has it. `separate`, `separate_blocks` and the linear combinations call this.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Array, Float

from ..core import leaf_names, leaf_values, parameters, suggest, traced
from ._given import Given, Values, at_hand, plain
from ._instrument import Frequencies
from ._mixing import MixingMatrix

if TYPE_CHECKING:
    from ._patches import Cells

FixedMaps: TypeAlias = Mapping[str, Given]
"""By name, the values (pixel,) of parameters that are not fitted."""


def not_fixed(mixing: MixingMatrix, fixed: FixedMaps | None) -> list[str] | None:
    """List the parameters that are left to fit; `None` where nothing is fixed, for all of them.

    **Raises:** `ValueError` for a name that no parameter has.
    """
    if not fixed:
        return None
    names = [name for name, _ in leaf_names(mixing, parameters(mixing))]
    for name in fixed:
        if name not in names:
            raise ValueError(f"fixed: no parameter {name!r}{suggest(name, names)} ({', '.join(names)})")
    return [name for name in names if name not in fixed]


def check_sizes(fixed: FixedMaps, free: Sequence[str], npix: int) -> None:
    """Check the names and sizes of the maps, which may be on disk, without reading them.

    **Raises:** `ValueError` for a map of another size than (pixel,), and one of a parameter that is fitted.
    """
    for name, values in fixed.items():
        if name in free:
            raise ValueError(f"{name} is both fixed and free: leave it out of one of them")
        if np.shape(values) != (npix,):
            raise ValueError(
                f"fixed: {name} should have a value for each of {npix} pixels, but its shape is {np.shape(values)}"
            )


def in_memory(mixing: MixingMatrix, fixed: FixedMaps) -> dict[str, Values]:
    """Read the maps (pixel,) in double precision and the parameter's unit; NaN where a mask hides the value.

    **Raises:** `ValueError` for a quantity of another kind, and for complex numbers.
    """
    about = parameters(mixing)
    found = {name: at_hand(plain(x, f"fixed: {name}", about[name].unit)) for name, x in fixed.items()}
    return {name: x if traced(x) else np.asarray(x, float) for name, x in found.items()}


def outside(mixing: MixingMatrix, name: str, values: Values) -> Values | np.bool_:
    """Tell where values of a parameter lie outside the bounds that its class declares; NaN is not outside."""
    lower, upper = parameters(mixing)[name].bounds
    return (values < lower) | (values > upper)


def check_held(mixing: MixingMatrix, free: Sequence[str], cells: "Cells | None" = None) -> Values | np.bool_:
    """Tell whether all parameters that are not fitted lie within the bounds that their classes declare.

    **Returns:** True, or, for values that are being traced, flags of the used pixels.

    **Raises:** `ValueError` naming the first that does not.
    """
    fine: Values | np.bool_ = np.array(True)
    for name, held in leaf_values(mixing):
        if name in free:
            continue
        by_pixel = cells is not None and name in cells.fixed
        values = at_hand(cells.fixed[name] if cells is not None and by_pixel else held)
        beyond = outside(mixing, name, values)
        if traced(beyond):
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


def unturned(mixing: MixingMatrix, what: str) -> None:
    """Refuse angles of polarisation where Q and U are not read together.

    **Raises:** `ValueError` saying what goes without them.
    """
    if mixing.calibration is not None and mixing.calibration.turns:
        raise ValueError(f"{what} take channels without angles of polarisation: leave angle= of the Calibration out")


def held_spectra(mixing: MixingMatrix, nu: Frequencies) -> Float[Array, "f c"]:
    """Evaluate the mixing matrix of parameters that nobody fits.

    **Raises:** `ValueError` for one that is not finite, and for parameters outside of the bounds that they declare.
    """
    check_held(mixing, ())
    unturned(mixing, "linear combinations of channels")
    A = mixing.eval(nu)
    if A.shape[0] < A.shape[1]:
        raise ValueError(
            f"{A.shape[0]} channels cannot keep {A.shape[1]} components apart ({', '.join(mixing.columns)}): give more "
            "channels, or fewer components"
        )
    if not traced(A) and not np.isfinite(A).all():
        channel, column = np.argwhere(~np.isfinite(A))[0]
        raise ValueError(
            f"the spectrum of {mixing.columns[column]} is {A[channel, column]} in channel {channel}: look at its "
            "parameters, reference frequency and bandpass"
        )
    return A


def numbered(name: str, values: Values, pixel: np.ndarray) -> np.ndarray:
    """Number these pixels so that those with the same value have the same number; traced ones may all differ.

    **Raises:** `ValueError` for values that are not finite there.
    """
    if traced(values):
        return np.arange(len(pixel))
    bad = ~np.isfinite(values[pixel])
    if bad.any():
        raise ValueError(
            f"{name} is not finite in {bad.sum()} pixels (the first is {pixel[bad][0]}): mask them, or give it a value"
        )
    return np.unique(values[pixel], return_inverse=True)[1]
