"""Programs that are run a few times over few rows: compiled without optimisation, which takes half of the time.

A config of a hundred unlike models spends its time in the compiler and next to none in the fits. The task calls this
for single fits (`_task.run`) and for estimates of starts (`_task.estimate`).
"""

from collections.abc import Callable
from typing import Any

import jax

from ..core import Tree
from ..fitting import compiler_options


def compile_quickly(fn: Callable[..., Any], *args: Tree) -> Callable[..., Any]:
    """The program of fn for arguments like these; a GPU's programs are compiled as ever."""
    return jax.jit(fn).lower(*args).compile(compiler_options(once=True))
