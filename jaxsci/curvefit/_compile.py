"""Programs that are run a few times over few rows: compiled without optimisation, which takes half of the time."""

from collections.abc import Callable
from typing import Any

import jax

from ..fitting import compiler_options


def compile_quickly(fn: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """The program of fn for arguments like these; a GPU's programs are compiled as ever."""
    return jax.jit(fn).lower(*args).compile(compiler_options(once=True))
