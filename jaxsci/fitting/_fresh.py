"""Compiled programs of a user's function that are never stale: found by what it computes, not by which object it is.

JAX compiles a function with all that it reads beside its arguments (arrays, attributes, globals, numbers) baked in,
and finds the program again by the function object: a second call then gives the answer of the first, whatever has
changed since. Here the function is traced at each call, the arrays it captured become arguments, and the compiled
program is reused only where the traced steps are equal. `seen` in `_seen` tells where even the trace may be skipped.

    found = freshly(f, args)    # found.function(*args) is f(*args) as f is now
    found.run(solve, (), *rest)  # solve(found.function, *rest), compiled once for all functions of the same steps
"""

import collections
import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.extend.core import Literal

from ..core import Module, is_traced, traced
from ._keys import JITS, Key, Unkeyed, equation_key, holds, inner_of
from ._program import compiler_options, keep, outermost
from ._seen import Seen, snapshot


class Steps:
    """What a traced function does: equations on numbered slots. It holds no array but small literals."""

    def __init__(self, flat: "_Flat", moving: tuple[int, ...]):
        self.baked = {slot: literal.value for slot, literal in flat.literals.items() if slot not in moving}
        self.slots = (*flat.captured, *moving, *flat.inputs)
        self.steps, self.outs, self.tree, self.given = flat.steps, flat.outs, flat.tree, flat.given

    def __call__(self, consts: Sequence[Any], args: Any) -> Any:
        """The result for these arguments, `consts` being what the function captured."""
        leaves, tree = jtu.tree_flatten(args)
        given = tree, tuple([(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves])
        if given != self.given:
            raise ValueError(
                "a function that was fitted inside of a transformation, with arrays of it that are being traced, is "
                f"known for arguments like those of the fit only: {self.given[1]}, not {given[1]}"
            )
        slots = self.baked | dict(zip(self.slots, [*consts, *leaves], strict=True))
        for eqn, ins, results in self.steps:
            with eqn.ctx.manager:
                out = eqn.primitive.bind(*[slots[i] for i in ins], **eqn.primitive.get_bind_params(eqn.params))
            slots.update(zip(results, out if eqn.primitive.multiple_results else [out], strict=True))
        return jtu.tree_unflatten(self.tree, [slots[i] for i in self.outs])


class Traced(Module):
    """A function as it was when it was traced; the arrays that it captured are leaves."""

    consts: list[Any]
    steps: Steps = eqx.field(static=True)

    def __call__(self, *args: Any) -> Any:
        return self.steps(self.consts, args)


class Program:
    """Steps, and all that has been compiled of them: whoever drops the Program frees that."""

    def __init__(self, steps: Steps):
        self.steps = steps
        self._jits: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def jitted(self, solve: Callable[..., Any], static: tuple[int, ...]) -> Any:
        """(consts, *rest) -> solve(the function with these consts, *rest), jitted; `static` counts from consts."""
        with self._lock:  # two of them in place of one would both be compiled
            if solve not in self._jits:
                steps = self.steps  # and not self, which would keep itself alive

                def run(consts: list[Any], *rest: Any) -> Any:
                    return solve(Traced(consts, steps), *rest)

                self._jits[solve] = jax.jit(run, static_argnums=static, compiler_options=compiler_options())
            return self._jits[solve]


class _Literal(NamedTuple):
    value: np.ndarray
    aval: Any


class _Flat:
    """A traced function as steps on numbered slots: what it captured, its arguments, its literals, its results."""

    def __init__(self, f: Callable[..., Any], args: Any):
        # a fresh function, because JAX finds the traces of an old one again
        closed, shape = jax.make_jaxpr(lambda *a: f(*a), return_shape=True)(*args)
        self.size = 0
        self.captured: dict[int, Any] = {}
        self.literals: dict[int, _Literal] = {}
        self.steps: list[tuple[Any, tuple[int, ...], list[int]]] = []
        env = {v: self._slot() for v in closed.jaxpr.invars}
        self.inputs, self.tree = tuple(env.values()), jtu.tree_structure(shape)
        self.outs = self._walk(closed, env)
        self.given = jtu.tree_structure(args), tuple([(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars])
        avals = [v.aval for v in closed.jaxpr.invars] + [jax.typeof(v) for v in self.captured.values()]
        literals = [(slot, literal.aval) for slot, literal in self.literals.items()]
        self.head = (self.given[0], self.tree, *avals, *self.captured, *literals, *self.outs)

    def _slot(self) -> int:
        self.size += 1
        return self.size - 1

    def _read(self, atom: Any, env: dict[Any, int]) -> int:
        if not isinstance(atom, Literal):
            return env[atom]
        slot, aval = self._slot(), atom.aval
        self.literals[slot] = _Literal(np.array(atom.val, getattr(aval, "dtype", None)), aval)
        return slot

    def _walk(self, closed: Any, env: dict[Any, int]) -> list[int]:
        for var, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
            env[var] = self._slot()
            # an array of NumPy may be filled anew while what came out of the program still shares its memory
            self.captured[env[var]] = np.array(value) if isinstance(value, np.ndarray) else value
        for eqn in closed.jaxpr.eqns:
            ins = tuple([self._read(v, env) for v in eqn.invars])
            if eqn.primitive.name in JITS and holds(inner_of(eqn)):  # taken apart to get at its arrays
                inner = inner_of(eqn)
                outs = self._walk(inner, dict(zip(inner.jaxpr.invars, ins, strict=True)))
            else:
                outs = [self._slot() for _ in eqn.outvars]
                self.steps.append((eqn, ins, outs))
            env.update(zip(eqn.outvars, outs, strict=True))
        return [self._read(v, env) for v in closed.jaxpr.outvars]

    def key(self) -> Key:
        return Key((*self.head, *[(ins, equation_key(eqn, True)) for eqn, ins, _ in self.steps]))


class _Structure:
    """The literals of the first function seen with these steps; those that ever differed are `moving`, and arguments.

    So a number that changes is compiled anew once, not at each change.
    """

    def __init__(self, flat: _Flat):
        self.first = {slot: literal.value.tobytes() for slot, literal in flat.literals.items()}
        self.moving: tuple[int, ...] = ()
        self.program = Program(Steps(flat, ()))

    def meet(self, flat: _Flat) -> "Found":
        values = {slot: literal.value for slot, literal in flat.literals.items()}
        moving = tuple([s for s, v in values.items() if s in self.moving or v.tobytes() != self.first[s]])
        if moving != self.moving:
            self.moving, self.program = moving, Program(Steps(flat, moving))
        return Found(self.program, [*flat.captured.values(), *[values[slot] for slot in moving]])


class Found(NamedTuple):
    """A program, and the arrays with which it is the function asked for."""

    program: Program
    consts: list[Any]

    @property
    def function(self) -> Traced:
        """The function asked for."""
        return Traced(self.consts, self.program.steps)

    def run(self, solve: Callable[..., Any], static: tuple[int, ...], *rest: Any) -> Any:
        """solve(self.function, *rest), compiled, or part of the caller's program inside of a transformation."""
        if traced((self.consts, rest)):
            return solve(self.function, *rest)
        within = functools.partial(_within, self, solve)
        return outermost(self.program.jitted(solve, static), within, self.consts, *rest)


class _Recipe(NamedTuple):
    """How to call the program of a function again without tracing it: its arrays by their place among those seen."""

    program: Program
    places: tuple[int | np.ndarray, ...]
    arrays: tuple[Callable[[], Any], ...]  # weak references: who fits many closures gets their memory back

    def found(self, seen: Seen) -> Found | None:
        """The program for what is seen now; `None` unless all arrays are the same objects as before."""
        if any(ref() is not array for ref, array in zip(self.arrays, seen.arrays, strict=True)):
            return None
        return Found(self.program, [seen.arrays[p] if isinstance(p, int) else p for p in self.places])


def _within(found: Found, solve: Callable[..., Any], consts: list[Any], *rest: Any) -> Any:
    return solve(found.function, *rest)


_LOCK = threading.RLock()
_STRUCTURES: collections.OrderedDict[Key, _Structure] = collections.OrderedDict()
_RECIPES: collections.OrderedDict[Any, _Recipe] = collections.OrderedDict()


def freshly(f: Callable[..., Any], args: tuple[Any, ...], watched: Any = None) -> Found:
    """The program of f(*args) as f is now.

    **Arguments:** `args`: a tree of `jax.ShapeDtypeStruct`; `watched`: the functions, in a hashable tree,
    whose captured values decide what f does; f itself, unless told. Where nothing that they can see may change
    unnoticed, f is not traced again.
    """
    seen = snapshot(f if watched is None else watched)
    if seen is None:
        return _traced(f, args)
    leaves, tree = jtu.tree_flatten(args)
    key = seen.key, tree, tuple([(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in leaves]), _settings()
    with _LOCK:
        recipe = _RECIPES.get(key)
        if recipe is not None:
            found = recipe.found(seen)
            if found is not None:
                _RECIPES.move_to_end(key)
                return found
    found = _traced(f, args)
    places = [_place(const, seen.arrays) for const in found.consts]
    if None not in places:
        with _LOCK:
            keep(_RECIPES, key, _Recipe(found.program, tuple(places), tuple(map(weakref.ref, seen.arrays))))
    return found


def _place(const: Any, arrays: Sequence[Any]) -> Any:
    """Where a captured array stands among those seen; a moving literal, being small, stands for itself; else None."""
    if isinstance(const, np.ndarray) and const.ndim == 0:
        return const
    return next((k for k, array in enumerate(arrays) if array is const and not is_traced(const)), None)


def _settings() -> Any:
    """The settings of JAX that change what a trace gives."""
    config: Any = jax.config
    return config.jax_enable_x64, config.jax_numpy_dtype_promotion, config.jax_default_matmul_precision


def _traced(f: Callable[..., Any], args: tuple[Any, ...]) -> Found:
    flat = _Flat(f, args)
    try:
        key = flat.key()
    except Unkeyed:
        return Found(Program(Steps(flat, ())), [*flat.captured.values()])
    with _LOCK:
        known = _STRUCTURES.get(key) or _Structure(flat)
        keep(_STRUCTURES, key, known)
        return known.meet(flat)
