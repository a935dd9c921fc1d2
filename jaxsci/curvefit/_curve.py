"""A Python function f(x, a, b, ...) as a model with parameters a, b, ..."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from ..core import AbstractModel, Module, Scalar, param


def named_parameters(f: Callable[..., Any], p0: Any) -> tuple[str, tuple[str, ...]]:
    """(the function's name, the names of its parameters), as many as `p0` has where it is given.

    **Raises:** `ValueError` when f does not take that many, or when their number cannot be known.
    """
    if isinstance(f, eqx.Module):
        title, names, least, more = _signature(type(f).__call__, bound=True, title=type(f).__name__)
    else:
        title, names, least, more = _signature(f)
    if p0 is None:
        if more:
            raise ValueError(f"{title} takes any number of parameters: give p0, whose length says how many to fit")
        return title, names
    size = int(np.prod(np.shape(p0)))
    if more:
        names = (*names, *(f"p{k}" for k in range(len(names), size)))
    if not least <= size <= len(names):
        raise ValueError(f"{title} takes {len(names)} parameters ({', '.join(names)}), but p0 has {size} values")
    return title, names[:size]


@functools.lru_cache(maxsize=512)
def _signature(f: Callable[..., Any], bound: bool = False, title: str = "") -> tuple[str, tuple[str, ...], int, bool]:
    """(title, parameter names, how many have no default, whether there may be more)."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    all_of_it = list(inspect.signature(f).parameters.values())
    ordered = [p for p in all_of_it if p.kind in kinds][1 + bound :]
    more = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in all_of_it)
    name = title or getattr(f, "__name__", type(f).__name__)
    title = name if name.isidentifier() else "f"
    if not ordered and not more:
        raise ValueError(f"{title} takes no parameter to fit: it should be f(x, a, b, ...)")
    return title, tuple(p.name for p in ordered), sum(p.default is p.empty for p in ordered), more


class Call(Module):
    """What is called with (x, *parameters): a PyTree, so that a Module may bring its own arrays."""

    function: Any
    jac: Callable[..., Any] | None = eqx.field(static=True)

    def __call__(self, x: Any, *values: Any, **kwargs: Any) -> Any:
        try:
            if self.jac is not None:
                return _with_jacobian(self.function, self.jac, x, values)
            return self.function(x, *values, **kwargs)
        except jax.errors.TracerArrayConversionError as error:
            raise TypeError(
                "the function to fit calls NumPy: write it with jax.numpy (jnp.exp for np.exp, and so on)"
            ) from error


def as_call(f: Callable[..., Any], jac: Any) -> Call:
    """f, and its Jacobian where given, ready to be an argument of a compiled function.

    **Raises:** `ValueError` for a `jac` that cannot be called (scipy's `"2-point"` and the like).
    """
    if jac is not None and not callable(jac):
        raise ValueError(
            f"jac should be a function (x, a, b, ...) -> (n, p), or None for exact derivatives, not {jac!r}"
        )
    if isinstance(f, eqx.Module):
        arrays, static = eqx.partition(f, eqx.is_array)
        return Call(_Split(arrays, static), jac)
    return _plain_call(f, jac)


@functools.lru_cache(maxsize=512)
def _plain_call(f: Callable[..., Any], jac: Callable[..., Any] | None) -> Call:
    return Call(jtu.Partial(f), jac)


class _Split(Module):
    """A Module whose leaves that are no arrays have been made static."""

    arrays: Any
    static: Any = eqx.field(static=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return eqx.combine(self.arrays, self.static)(*args, **kwargs)


def closed(call: Call, *args: Any, **kwargs: Any) -> Any:
    """The call with the traced arrays that its function closes over made leaves: left in the closure, they
    would lose their gradients. The arguments are examples of what it will be called with."""
    if jtu.tree_leaves(call):
        return call  # a Module brings its arrays as leaves
    converted = eqx.filter_closure_convert(call, *args, **kwargs)
    # NumPy constants of a program come in a type of their own, which no `is_array` knows
    arrays, static = eqx.partition(converted, lambda leaf: isinstance(getattr(leaf, "dtype", None), np.dtype))
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jtu.tree_leaves(arrays))
    return _Split(jtu.tree_map(jnp.asarray, arrays), static) if traced else call


def closes_over_tracer(f: Callable[..., Any]) -> bool:
    """True where a free variable of f is being traced."""
    cells = getattr(f, "__closure__", None) or ()
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jtu.tree_leaves([cell.cell_contents for cell in cells]))


def _with_jacobian(f: Callable[..., Any], jac: Callable[..., Any], x: Any, values: tuple[Array, ...]) -> Array:
    """f(x, *values) whose derivative with respect to the values is jac(x, *values)."""

    @jax.custom_jvp
    def run(x: Any, values: tuple[Array, ...]) -> Array:
        return f(x, *values)

    def rule(primals: Any, tangents: Any) -> tuple[Array, Array]:
        x, values = primals
        dx, dvalues = tangents
        out = f(x, *values)
        columns = jac(x, *values)
        if jnp.shape(columns) != (*jnp.shape(out), len(values)):
            raise ValueError(
                f"jac has shape {jnp.shape(columns)}, but f has shape {jnp.shape(out)} and {len(values)} parameters"
            )
        columns = jnp.asarray(columns, out.dtype)
        tangent = jnp.zeros_like(out)
        for k, dvalue in enumerate(dvalues):
            if not isinstance(dvalue, SymbolicZero):
                tangent = tangent + columns[..., k] * dvalue
        if any(not isinstance(d, SymbolicZero) for d in jtu.tree_leaves(dx)):
            dx = jtu.tree_map(lambda d: jnp.zeros(d.shape, d.dtype) if isinstance(d, SymbolicZero) else d, dx)
            tangent = tangent + jax.jvp(lambda x: f(x, *values), (x,), (dx,))[1]
        return out, tangent

    run.defjvp(rule, symbolic_zeros=True)
    return run(x, values)


@functools.lru_cache(maxsize=512)
def curve_class(title: str, names: tuple[str, ...]) -> Any:
    """A model class with one scalar parameter for each name: so a Solution speaks of the function's own."""

    def __call__(self: Any, inputs: Any) -> Array:
        values = [getattr(self, name) for name in names]
        x = jnp.moveaxis(inputs, 0, -1) if self._last else inputs
        out = jnp.asarray(self._call(x, *values), values[0].dtype)
        return jnp.broadcast_to(out, jtu.tree_leaves(inputs)[0].shape[:1]) if out.ndim == 0 else out

    namespace = {
        "__annotations__": {"_call": Any, "_last": bool, **dict.fromkeys(names, Scalar)},
        "__call__": __call__,
        "__doc__": f"{title}(x, {', '.join(names)}) as a model.",
        "__module__": __name__,
        "_last": eqx.field(static=True),
        **{name: param() for name in names},
    }
    metaclass: Any = type(AbstractModel)
    return metaclass(title, (AbstractModel,), namespace)
