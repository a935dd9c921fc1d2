"""Programs compiled once for each structure of their arguments: arrays vary, all else in a Module is part of them."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer

_ARRAYS = (jax.Array, np.ndarray)
_REFUSED = "compiler_options"  # what JAX says of an inner jit that has them


def call(
    program: Callable[..., Any],
    args: tuple[Any, ...],
    choices: tuple[Any, ...] = (),
    inside: tuple[Any, ...] | None = None,
    once: bool = False,
) -> Any:
    """program(*args, *choices), compiled for each structure of `args` and set of `choices`, which are static.

    Inside a transformation it becomes part of the caller's program, with the choices `inside` if given.
    The work of `equinox.filter_jit` on a flat list of leaves, because that costs as much as a small fit.
    `program` should live as long as the process. What runs `once` is compiled quickly, without optimisation.
    """
    leaves, structure = jtu.tree_flatten(args)
    arrays = [leaf for leaf in leaves if isinstance(leaf, _ARRAYS)]
    rest = tuple([None if isinstance(leaf, _ARRAYS) else leaf for leaf in leaves])
    if not any(isinstance(array, Tracer) for array in arrays):
        try:
            return _jitted(program, False, once)(arrays, structure, rest, choices)
        except ValueError as error:
            if _REFUSED not in str(error):
                raise
    # jitted all the same: a bare vmap or grad would run it operation by operation
    return _jitted(program, True, once)(arrays, structure, rest, choices if inside is None else inside)


def made_once(make: Callable[..., Any]) -> Callable[..., Any]:
    """`functools.cache`, also where threads call it at once: two programs in place of one would both be compiled."""
    lock, cached = threading.RLock(), functools.cache(make)

    @functools.wraps(make)
    def locked(*args: Any) -> Any:
        with lock:
            return cached(*args)

    return locked


@made_once
def _jitted(program: Callable[..., Any], nested: bool, once: bool) -> Any:
    def run(arrays: list[Any], structure: Any, rest: tuple[Any, ...], choices: tuple[Any, ...]) -> Any:
        fill = iter(arrays)
        args = jtu.tree_unflatten(structure, [next(fill) if leaf is None else leaf for leaf in rest])
        return program(*args, *choices)

    # compiler options are for the outermost jit only
    options = None if nested else cheap_compile()
    if once and options is not None:
        options = options | {"xla_backend_optimization_level": "0"}
    return jax.jit(run, static_argnums=(1, 2, 3), compiler_options=options)


def outermost(program: Any, fallback: Any, *args: Any) -> Any:
    """program(*args); within another jit, which refuses the compiler options of an inner one, fallback(*args)."""
    try:
        return program(*args)
    except ValueError as error:
        if _REFUSED not in str(error):
            raise
    return fallback(*args)


# What makes XLA on the CPU compile many small kernels quickly, the best first; its version decides what it knows.
# The older fusion emitters (gone in jax 0.12) take less than half the time of the newer ones: 2.7 s against 7.2 s for a
# bounded curve_fit on jax 0.10.2. On jax 0.12 sums and products that are not left to YNNPACK save a quarter or more
# (5.5 s before, 3.6 to 4.2 s then), because each one that is breaks a kernel in two; that program also runs faster.
_CHEAP: tuple[dict[str, Any], ...] = (
    {"xla_cpu_use_fusion_emitters": False},
    {"xla_cpu_experimental_ynn_fusion_type": ""},
)


@functools.cache
def cheap_compile() -> dict[str, Any] | None:
    """Compiler options for programs of many small kernels: None on a GPU, empty where XLA knows none of them."""
    if jax.default_backend() != "cpu":
        return None
    return next((options for options in _CHEAP if _accepted(options)), {})


def _accepted(options: dict[str, Any]) -> bool:
    """Whether this XLA knows the compiler options; it refuses those that it does not."""
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(jax.ShapeDtypeStruct((), jnp.float32)).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
