"""What users hand in where numbers are wanted: masks are kept, units converted or refused, complex numbers refused.

JAX and NumPy read astropy's Quantities, masked arrays and complex numbers without a word and drop what they do not
know of: the unit, the mask, the imaginary part. Every door of the house asks here first, so that nothing is lost in
silence. Quantities are known by their `unit` and their `to`: no package of units is imported.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._traced import is_traced

_SYMMETRIC = 1e-4  # of the largest element: more than a sum in single precision rounds


class Plain(NamedTuple):
    """Numbers without a mask or a unit of their own.

    - `values`: an array, a number or a list of them, as it was given but for its mask and its unit.
    - `hidden`: bool of the same shape, True where the mask of a masked array hides the element; `None` where no
      element is hidden.
    """

    values: Any
    hidden: np.ndarray | None


def plain(value: object, name: str, unit: str = "", *, real: bool = True) -> Plain:
    """Read numbers of any origin: the values in the declared unit, and which of them a mask hides.

    **Arguments:**

    - `value`: an array, a number, a list or tuple of them, a `numpy.ma` array, an astropy Quantity, Masked or Column.
    - `name`: what it is called where the user gave it, for messages.
    - `unit`: the unit that has been declared for it, as astropy spells it; "" where none is declared, and then a
      Quantity should be a pure number.
    - `real`: False to let complex numbers pass.

    **Raises:** `ValueError` with the name and the remedy for a unit that cannot be converted to the declared one, for
    a Quantity where no unit is declared, for lists of Quantities or of masked arrays, and for complex numbers.
    """
    hidden = None
    if not isinstance(value, jax.Array | float | int) and type(value) is not np.ndarray:
        if isinstance(value, list | tuple):
            _check_list(value, name)
        hidden = _hidden(value)
        value = _unmasked(_converted(value, name, unit))
    if isinstance(value, str):
        raise ValueError(f"{name} should be a number or an array of numbers, but it is str {value!r:.60}")
    if real and is_complex(value):
        raise ValueError(
            f"{name} is complex, but a fit is of real numbers: give the real and the imaginary parts as rows of their "
            "own (jnp.concatenate([z.real, z.imag])), or the modulus (jnp.abs(z))"
        )
    return Plain(value, hidden)


def unmasked(value: object, name: str, unit: str = "", *, real: bool = True) -> Any:
    """The values alone, as `plain` reads them, where a mask has no meaning.

    **Arguments:** as in `plain`.

    **Raises:** `ValueError` as `plain` does, and where a mask hides an element.
    """
    values, hidden = plain(value, name, unit, real=real)
    if hidden is not None:
        raise ValueError(
            f"{name} is a masked array with {int(np.sum(hidden))} hidden of {hidden.size} elements, which have no "
            f"meaning here: give {name}.filled(...) or leave them out; rows of a data set are masked by mask= "
            "(True = used)"
        )
    return values


def unit_of(value: object) -> Any:
    """The unit that a value carries by itself: of an astropy Quantity or Column, also of pint and unyt; or `None`."""
    if isinstance(value, jax.Array | float | int) or type(value) is np.ndarray:
        return None
    if getattr(value, "to", None) is None:
        return None
    unit = getattr(value, "unit", None)
    return getattr(value, "units", None) if unit is None else unit


def is_complex(value: object) -> bool:
    """True for complex numbers and arrays of them, traced ones too."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return isinstance(value.dtype, np.dtype) and value.dtype.kind == "c"
    if isinstance(value, list | tuple):
        return any(is_complex(element) for element in value)
    return isinstance(value, complex)


def filled(given: Plain) -> Any:
    """The values with NaN where a mask hides them; False among truth values."""
    if given.hidden is None:
        return given.values
    if given.values.dtype == bool:
        return given.values & ~given.hidden
    return np.where(
        given.hidden, np.nan, given.values if given.values.dtype.kind == "f" else given.values.astype(float)
    )


def rows_hidden(hidden: np.ndarray | None, length: int) -> np.ndarray:
    """bool of shape (length,): True for the rows of an array of which a mask hides an element."""
    if hidden is None:
        return np.zeros(length, bool)
    return np.asarray(hidden.reshape(length, -1).any(axis=1))


def as_array(value: object) -> Any:
    """`jnp.asarray`, which for NumPy arrays compiles a program for each new shape unless it is told the dtype."""
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ndarray | np.generic):
        dtype = jax.dtypes.canonicalize_dtype(value.dtype)
        return jnp.asarray(value.astype(dtype, copy=False), dtype)
    return jnp.asarray(value)


def as_float(value: object, name: str = "a parameter", unit: str = "") -> Any:
    """An array of floats, never weakly typed; a Python number becomes one too, or each value would cost a trace.

    What is no array of real numbers is left as it is, for the check of the field to name.

    **Raises:** `ValueError` for a unit, or a mask that hides an element, as in `unmasked`.
    """
    if isinstance(value, jax.Array):
        keep = jnp.issubdtype(value.dtype, jnp.inexact) and not value.weak_type
        return value if keep or is_complex(value) or is_key(value) else value.astype(float)
    if value is None or isinstance(value, str | eqx.Module):
        return value
    value = unmasked(value, name, unit, real=False)
    if isinstance(value, np.ndarray | np.generic | float | int):
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            return _on_device(value)
        keep = array.dtype.kind == "f" and isinstance(value, np.ndarray | np.generic)
        # a copy, because JAX may go on using the memory of an array that its owner then changes
        return as_array(array.astype(array.dtype if keep else float))
    return _on_device(value)


def is_real_number(value: object) -> bool:
    """True for one real number, of Python, NumPy or JAX, traced ones too."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return value.ndim == 0 and value.dtype.kind in "iuf"
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_count(value: object, name: str, least: int = 1) -> int:
    """A whole number, of Python or NumPy.

    **Raises:** `ValueError` with the name for anything else, and for less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} should be a whole number of at least {least}, but it is {value!r:.60}")
    return int(value)


def as_real(value: object, name: str, what: str = "a number") -> Any:
    """One real number as it is.

    **Raises:** `ValueError` for anything else: "`name` should be `what`, but it is ...".
    """
    if not is_real_number(value):
        raise ValueError(f"{name} should be {what}, but it is {value!r:.60}")
    return value


def require_positive(value: object, name: str, unit: str = "") -> None:
    """Raise `ValueError` with the first element that is not positive; what is traced, or `None`, is not looked at."""
    if value is None or is_traced(value):
        return
    host = np.asarray(value)
    bad = np.argwhere(~(host > 0))
    if len(bad):
        place = f"[{', '.join(map(str, bad[0]))}]" if host.ndim else ""
        raise ValueError(f"{name}{place} is {host[tuple(bad[0])]}{unit and f' {unit}'}, but it should be positive")


def is_key(value: object) -> bool:
    """True for an array of typed random keys (`jax.random.key`)."""
    # the dtype of numbers is NumPy's; asking that first spares what asks of every leaf of a small fit a microsecond
    if not isinstance(value, jax.Array) or isinstance(value.dtype, np.dtype):
        return False
    return bool(jnp.issubdtype(value.dtype, jax.dtypes.prng_key))


def require_symmetric(matrix: Any, name: str) -> None:
    """Raise `ValueError` for a square matrix that is not symmetric: of a factor, only one triangle would be read."""
    if is_traced(matrix) or matrix.shape[0] != matrix.shape[1]:
        return
    host = np.asarray(matrix)
    with np.errstate(invalid="ignore"):  # NaN, which a mask may hide, compares as no difference
        size = np.abs(host).max(initial=0, where=np.isfinite(host))
        bad = np.argwhere(np.abs(host - host.T) > _SYMMETRIC * size)
    if len(bad):
        i, j = bad[0].tolist()
        raise ValueError(
            f"{name} should be symmetric, but element [{i}, {j}] is {host[i, j]} and [{j}, {i}] is {host[j, i]}: of a "
            "factor L, give L @ L.T"
        )


def require_key(key: object, name: str = "key") -> None:
    """Raise `ValueError` for what is no random key, typed (`jax.random.key`) or raw (`jax.random.PRNGKey`)."""
    raw = isinstance(key, jax.Array | np.ndarray) and key.ndim == 1 and key.dtype == np.uint32
    if not (raw or is_key(key)):
        raise ValueError(f"{name} should be a key of JAX, jax.random.key(0), but it is {key!r:.60}")


def is_number(leaf: object) -> bool:
    """True for leaves that vary from fit to fit: arrays and Python floats. All others are part of a program."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float)


def _on_device(value: object) -> Any:
    """An array of floats of anything else that JAX reads: lists, tuples, arrays of other packages."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        return value
    return array if jnp.issubdtype(array.dtype, jnp.inexact) and not array.weak_type else as_float(array)


def _check_list(values: Any, name: str) -> None:
    """Arrays in a list would be stacked without their units and masks."""
    for element in values:
        if isinstance(element, float | int | jax.Array):
            continue
        if isinstance(element, list | tuple):
            _check_list(element, name)
        elif isinstance(element, str):
            raise ValueError(f"{name} should be an array of numbers, but it holds {element!r}")
        elif unit_of(element) is not None:
            raise ValueError(
                f"{name} is a list of Quantities, the first in {unit_of(element)}: make it one Quantity first "
                "(astropy.units.Quantity(list)), or give plain numbers (.to_value(unit) of each)"
            )
        elif _hidden(element) is not None:
            raise ValueError(f"{name} is a list of masked arrays: make it one first (numpy.ma.stack(list))")


def _hidden(value: Any) -> np.ndarray | None:
    """True where the mask of a `numpy.ma` array or of an astropy Masked hides an element; `None` if nowhere."""
    if isinstance(value, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(value)
    elif getattr(value, "unmasked", None) is not None:
        mask = np.broadcast_to(value.mask, np.shape(value))
    else:
        return None
    return mask if mask.any() else None


def _unmasked(value: object) -> Any:
    """A plain NumPy array in place of one of its subclasses (masked arrays, columns of tables)."""
    value = getattr(value, "unmasked", value)
    return np.asarray(np.ma.getdata(value)) if isinstance(value, np.ndarray) else value


def _converted(value: Any, name: str, unit: str) -> Any:
    """The numbers of a Quantity in the declared unit."""
    own = unit_of(value)
    if own is None:
        return value
    if not unit:
        if str(own) == "":
            return value.value
        raise ValueError(
            f"{name} is a {type(value).__name__} in {own}, but no unit is declared for it: give plain numbers, such as "
            f"those of .to_value({str(own)!r}), all in units that belong together"
        )
    try:
        return value.to(unit).value
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{name} is a {type(value).__name__} in {own}, which cannot be converted to the declared unit {unit!r} "
            f"({error}): give plain numbers in {unit}, such as those of .to_value(...)"
        ) from error
