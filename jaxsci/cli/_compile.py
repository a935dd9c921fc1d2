"""Programs that are run a few times over few rows: compiled without optimisation, which takes half of the time."""

from collections.abc import Callable
from typing import Any

import jax

_QUICK: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": "0"}


def compile_quickly(fn: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """The program of fn for arguments like these; a GPU's programs are compiled as ever."""
    lowered = jax.jit(fn).lower(*args)
    if jax.default_backend() != "cpu":
        return lowered.compile()
    try:
        return lowered.compile(compiler_options=_QUICK)
    except RuntimeError:  # an XLA that knows no such option
        return lowered.compile()
