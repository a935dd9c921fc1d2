"""Programs that are run a few times over few rows: compiled without optimisation, which takes half of the time."""

from collections.abc import Callable
from typing import Any

import jax

from ..fitting import cheap_compile


def compile_quickly(fn: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """The program of fn for arguments like these; a GPU's programs are compiled as ever."""
    options = cheap_compile()
    lowered = jax.jit(fn).lower(*args)
    return lowered.compile(None if options is None else options | {"xla_backend_optimization_level": "0"})
