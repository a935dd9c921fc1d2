"""One fit by two programs: the lean one first, the one with all branches only where it is wanted.

The branches that few fits take (the exact Hessian, the QR of the rows) are a third of what there is to compile. So the
host runs a program without them, whose flags tell whether one of them is missing, and only then compiles and runs the
other. What is decided depends on this fit alone, never on its neighbours in a batch. Inside a transformation the host
sees no flags, and all is one program. `fit`, the lanes of `fit_batch` and the groups of a sky all run this way.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ..core import is_traced
from ._program import compiled


class Flags(NamedTuple):
    """What the host must know of a fit that ran, or of g of them; arrays of JAX within a program, of NumPy after it.

    - `stalled`: the search wanted the exact Hessian, or no step decreased the cost although the gradient said so.
    - `well`: the covariance from the normal matrix can be trusted.
    - `code`: of the `RESULTS`. `projected`: the start was moved onto a bound. `lost`: the data do not determine
      something.
    """

    stalled: Any
    well: Any = True
    code: Any = 0
    projected: Any = False
    lost: Any = False

    def packed(self) -> Int[Array, "*g 5"]:
        """All of them in one array: a transfer to the host costs more than what it carries."""
        each = jnp.broadcast_arrays(*(jnp.asarray(x, jnp.int32) for x in self))
        return jnp.stack(each, axis=-1)

    @staticmethod
    def of(packed: Array) -> "Flags":
        """The flags that `packed` made one array of, on the host."""
        return Flags(*np.asarray(packed).T)


class Attempt(NamedTuple):
    """A lean program that is under way, and what to run where it turns out to lack something."""

    program: Callable[..., Any]
    args: tuple[Any, ...]
    choices: tuple[Any, ...]
    mend: Callable[..., Any] | None
    answer: Any
    packed: Array

    def finished(self) -> tuple[Any, Flags | None]:
        """(the answer, its flags), waiting for the lean program; `None` for flags inside a transformation."""
        if is_traced(self.packed):
            return self.answer, None
        flags = Flags.of(self.packed)
        well = np.all(flags.well)
        if np.any(flags.stalled) or not (well or self.mend):
            answer, packed = compiled(self.program, self.args, (*self.choices, True))
            return answer, Flags.of(packed)
        if well or self.mend is None:
            return self.answer, flags
        answer, packed = compiled(self.mend, (*self.args, self.answer))
        return answer, Flags.of(packed)


def attempt(
    program: Callable[..., Any],
    args: tuple[Any, ...],
    choices: tuple[Any, ...] = (),
    mend: Callable[..., Any] | None = None,
) -> Attempt:
    """Start the lean program, without waiting for it: a host with many fits has all of them under way first.

    **Arguments:**

    - `program`: `program(*args, *choices, complete)` returns an answer and packed `Flags`; with `complete` False
      it does without the branches that few fits take. Compiled as by `compiled`.
    - `mend`: `mend(*args, answer)` returns the same where only the covariance is missing; `None` to run the complete
      program in that case too.
    """
    answer, packed = compiled(program, args, (*choices, False), (*choices, True))
    return Attempt(program, args, choices, mend, answer, packed)


def lean_first(
    program: Callable[..., Any],
    args: tuple[Any, ...],
    choices: tuple[Any, ...] = (),
    mend: Callable[..., Any] | None = None,
) -> tuple[Any, Flags | None]:
    """(answer, flags) of one fit, or of several that share a program; arguments as in `attempt`."""
    return attempt(program, args, choices, mend).finished()
