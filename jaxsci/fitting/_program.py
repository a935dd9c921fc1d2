"""Programs compiled once for each structure of their arguments: arrays vary, all else in a Module is part of them.

What the classes of a user's Modules see beside their fields (globals, class attributes, what their functions captured)
is part of a compiled program too. It is watched, so that a program is never run after something of it has changed.
"""

import collections
import contextlib
import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..core import Tree, traced
from ..parallel import give_back_programs, in_words, require_memory
from ._keys import Key, Same, Unkeyed, jaxpr_key
from ._seen import Unknown, Watch, roots_of

_ARRAYS = (jax.Array, np.ndarray)
_REFUSED = "compiler_options"  # what JAX says of an inner jit that has them
_LARGE = 1 << 23  # numbers in the arguments: a program of so many is asked what it takes before it is run


def compiled(
    program: Callable[..., Any],
    args: tuple[Any, ...],
    choices: tuple[Any, ...] = (),
    inside: tuple[Any, ...] | None = None,
    once: bool = False,
) -> Any:
    """program(*args, *choices), compiled for each structure of `args` and set of `choices`, which are static.

    And for each state of what the classes and functions in `args` see beside their fields. Inside a transformation it
    becomes part of the caller's program, with the choices `inside` if given. The work of `equinox.filter_jit` on a flat
    list of leaves, because that costs as much as a small fit. `program` should live as long as the process. What runs
    `once` is compiled quickly, without optimisation.

    **Raises:** `MemoryError` where a program of large arrays needs more than there is.
    """
    leaves, structure = jtu.tree_flatten(args)
    arrays = [leaf for leaf in leaves if isinstance(leaf, _ARRAYS)]
    rest = tuple([None if isinstance(leaf, _ARRAYS) else leaf for leaf in leaves])
    nested = traced(arrays)
    if not nested:
        give_back_programs()

    def compute() -> Any:
        if not nested:
            call = arrays, structure, rest, choices
            try:
                jitted = _jitted(program, False, once)
                if (
                    sum([math.prod(leaf.shape) for leaf in arrays]) > _LARGE
                ):  # bytes of a JAX array take ten times as long
                    _check_memory(jitted, call)
                return jitted(*call)
            except ValueError as error:
                if _REFUSED not in str(error):
                    raise
        # jitted all the same: a bare vmap or grad would run it operation by operation
        return _jitted(program, True, once)(arrays, structure, rest, choices if inside is None else inside)

    watched = _roots(structure, rest)
    if not watched:
        return compute()
    known = _known(watched)
    state = known.state
    if known.watch is None:
        state = State() if nested else _state_by_trace(program, arrays, structure, rest, choices)
    with seeing(state):
        out = compute()
    if not known.settled:
        known.settle()
    return out


def _check_memory(jitted: Any, call: tuple[Any, ...]) -> None:
    """Raise `MemoryError` where results and temporaries do not fit beside the arguments.

    The call that follows finds what is compiled here.
    """
    arrays, *static = call
    shapes = tuple([(leaf.shape, leaf.dtype) for leaf in arrays])
    asked = jitted, shapes, *static
    with _LOCK:
        if asked in _FITTING:
            return
    told = jitted.lower(*call).compile().memory_analysis()
    if told is not None:
        size = told.temp_size_in_bytes + told.output_size_in_bytes
        what = f"this call, of {in_words(sum([leaf.nbytes for leaf in arrays]))} of arrays,"
        remedy = "take rows in chunks (chunk=), fewer members (batch_size=), particles or times at once, or float32"
        require_memory(size, what, remedy, next(iter(jax.devices())))
    with _LOCK:
        keep(_FITTING, asked, True)


@functools.lru_cache(maxsize=512)
def _roots(structure: jtu.PyTreeDef, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is to be watched of arguments of this structure, whose arrays are None in `rest`."""
    return roots_of(jtu.tree_unflatten(structure, rest))


class State:
    """Stands for all that some classes, functions and objects can see, while that is the same; equal only to itself."""

    def __init__(self, roots: Sequence[Any] = ()):
        self.roots = frozenset(map(id, roots))


# JAX finds no trace and no program again that was made with another value of this: not ours, nor those of optimistix
# and of a user's own `jax.jit` that are called on the way
_SEEN: Any = jax.make_user_context(None)


def seeing(state: State | None) -> Any:
    """A context in which all programs are those of this state. Within a larger state than this that one stays."""
    around = _SEEN.value
    within = state is None or (around is not None and state.roots and state.roots <= around.roots)
    return contextlib.nullcontext() if within else _SEEN(state)


class _Known:
    """What was last seen of some roots, and its State.

    Without a watch something may change unnoticed, or is changed by the very trace that reads it.
    """

    def __init__(self, watch: Watch | None, state: State):
        self.watch, self.state, self.settled = watch, state, False

    def settle(self) -> None:
        """Look whether what has just been traced is still as it was before."""
        self.settled = True
        if self.watch is not None and not self.watch.holds():
            self.watch = None


_LOCK = threading.RLock()
_KEPT = 256
_KNOWN: collections.OrderedDict[tuple[Same, ...], _Known] = collections.OrderedDict()
_STATES: collections.OrderedDict[Any, State] = collections.OrderedDict()
_FITTING: collections.OrderedDict[Any, bool] = collections.OrderedDict()


def state_of(tree: Tree) -> State | None:
    """The State of what the user's classes and functions in a tree of Modules can see; `None` without any."""
    roots = roots_of(tree)
    if not roots:
        return None
    known = _known(roots)
    return State() if known.watch is None else known.state


def _known(roots: tuple[Any, ...]) -> _Known:
    name = tuple([Same(root) for root in roots])
    with _LOCK:
        known = _KNOWN.get(name)
        if known is not None and (known.watch is None or known.watch.holds()):
            return known
        try:
            watch = Watch(roots)
        except Unknown:
            return keep(_KNOWN, name, _Known(None, State()))
        state = keep(_STATES, (name, watch.key), _STATES.get((name, watch.key)) or State(roots))
        return keep(_KNOWN, name, _Known(watch, state))


def _state_by_trace(
    program: Callable[..., Any],
    arrays: list[Any],
    structure: jtu.PyTreeDef,
    rest: tuple[Any, ...],
    choices: tuple[Any, ...],
) -> State:
    """The State, told by what the whole program computes. Right whatever it sees, and dear: a trace at each call."""
    with _SEEN(State()):  # nothing of the traces that are known is used
        closed = jax.make_jaxpr(lambda *arrays: _run(program, arrays, structure, rest, choices))(*arrays)
    try:
        key: Key | None = jaxpr_key(closed, False)
    except Unkeyed:
        return State()
    with _LOCK:
        return keep(_STATES, (program, key), _STATES.get((program, key)) or State())


def keep(store: "collections.OrderedDict[Any, Any]", key: Any, value: Any) -> Any:
    """The value, put where the longest unused is dropped first."""
    store[key] = value
    store.move_to_end(key)
    while len(store) > _KEPT:
        store.popitem(last=False)
    return value


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
    def run(arrays: list[Any], structure: jtu.PyTreeDef, rest: tuple[Any, ...], choices: tuple[Any, ...]) -> Any:
        return _run(program, arrays, structure, rest, choices)

    # compiler options are for the outermost jit only
    options = None if nested else compiler_options(once)
    return jax.jit(run, static_argnums=(1, 2, 3), compiler_options=options)


def _run(
    program: Callable[..., Any],
    arrays: Sequence[Any],
    structure: jtu.PyTreeDef,
    rest: tuple[Any, ...],
    choices: tuple[Any, ...],
) -> Any:
    fill = iter(arrays)
    args = jtu.tree_unflatten(structure, [next(fill) if leaf is None else leaf for leaf in rest])
    return program(*args, *choices)


def outermost(program: Callable[..., Any], fallback: Callable[..., Any], *args: Any) -> Any:
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
# LLVM prefers vectors of 256 bits also where the processor has longer ones; small fits run a sixth faster with those
_WIDE: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512}


@functools.cache
def compiler_options(once: bool = False) -> dict[str, Any] | None:
    """Say how XLA compiles programs of many small kernels, such as fits and their gradients, quickly on a CPU.

    The fits of this package are compiled so where they are called by themselves. A fit inside of a `jax.jit` of your
    own is compiled with it: `jax.jit(f, compiler_options=jaxsci.compiler_options())` takes about two thirds of the time
    at the same speed of the program.

    **Arguments:** `once`: for a program that runs a few times over few rows: without optimisation, which compiles in
    about half of that time, and runs two to four times slower.

    **Returns:** what `jax.jit` takes as `compiler_options`; `None` on a GPU, which needs none.
    """
    if jax.default_backend() != "cpu":
        return None
    options = next((options for options in _CHEAP if _accepted(options)), {})
    options = options | (_WIDE if _accepted(_WIDE) else {})
    return options | {"xla_backend_optimization_level": 0} if once else options


def _accepted(options: dict[str, Any]) -> bool:
    """Whether this XLA knows the compiler options; it refuses those that it does not."""
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(jax.ShapeDtypeStruct((), jnp.float32)).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
