"""How jaxsci words its complaints: name the thing, show what is there, say what to do next.

A misspelt name is answered with the nearest one that exists, from whatever list the caller has. Double precision is
asked for here too, by what would lose its digits without it, because the remedy is one line that a message can give.
"""

import difflib
from collections.abc import Iterable, Sequence

import jax


def suggest(bad: str, known: Iterable[str]) -> str:
    """`"; did you mean 'tau'?"`, or nothing when no known name is near."""
    near = difflib.get_close_matches(str(bad), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def place_of(name: str, names: Sequence[str], what: str) -> int:
    """Where a name stands among others.

    **Raises:** `ValueError`, saying `what` it should name and what there is.
    """
    if name not in names:
        raise ValueError(f"no {what} {name!r}{suggest(name, names)}: {', '.join(names)}")
    return names.index(name)


def enable_x64() -> None:
    """Switch JAX to double precision for the whole process; call it before making any array."""
    jax.config.update("jax_enable_x64", True)


def require_x64(what: str) -> None:
    """Raise unless double precision is on.

    **Raises:** `RuntimeError` naming `what` and the one line that cures it.
    """
    if not jax.config.read("jax_enable_x64"):
        raise RuntimeError(
            f"{what} needs double precision: a float32 would lose its digits without a warning. "
            "Call jaxsci.enable_x64() before making any array."
        )
