"""A Python function f(x, a, b, ...) as a model with parameters a, b, ...

A fit is of a Module with named parameters, and users of scipy have a function. Here its signature gives the names
(`named_parameters`), it is traced as it is at this call (`trace`), and a class with those parameters is made once for
each list of names (`curve_class`). `_curve_fit` and `_problem` call this; `_least_squares` uses the tracing alone.
"""

import functools
import inspect
import math
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike

from ..core import AbstractModel, AnyArray, Inputs, Module, Scalar, Tree, describe, param, traced, untraceable
from ..fitting import Found, Solution, Traced, freshly


class Signature(NamedTuple):
    """A function to fit as messages and results speak of it: its title, and the names of its parameters."""

    title: str
    names: tuple[str, ...]


class _Declared(NamedTuple):
    """What the declaration of a function says of its parameters.

    - `names`: of those that it lists, x left out. `least`: how many of them have no default.
    - `more`: whether it takes any number of others (`*args`).
    """

    title: str
    names: tuple[str, ...]
    least: int
    more: bool


def named_parameters(f: Callable[..., Any], p0: AnyArray | None) -> Signature:
    """Read the names of the parameters of f(x, a, b, ...) from its declaration.

    **Arguments:** `f`: the function; `p0`: its start, shape (p,), which says how many parameters there are to be.

    **Raises:** `ValueError` when f does not take that many, when their number cannot be known, or when f is a class
    or nothing that can be called.
    """
    title, names, least, more = _signature_of(f)
    if p0 is None:
        if more:
            raise ValueError(f"{title} takes any number of parameters: give p0, whose length says how many to fit")
        return Signature(title, names)
    size = int(np.prod(np.shape(p0)))
    if more:
        names = (*names, *(f"p{k}" for k in range(len(names), size)))
    if not least <= size <= len(names):
        raise ValueError(f"{title} takes {len(names)} parameters ({', '.join(names)}), but p0 has {size} values")
    return Signature(title, names[:size])


def title_of(f: object) -> str:
    """Give the name by which messages and results call a function; "f" where it has none.

    **Raises:** `ValueError` for a class, or what cannot be called.
    """
    if isinstance(f, type):
        raise ValueError(
            f"the function to fit is the class {f.__name__}: give a function (x, a, b, ...), or an instance"
        )
    if not callable(f):
        raise ValueError(f"the function to fit should be a function (x, a, b, ...), but it is {describe(f)}")
    name: str = getattr(f, "__name__", type(f).__name__)
    return name if name.isidentifier() else "f"


def _signature_of(f: Callable[..., Any]) -> _Declared:
    title_of(f)
    if isinstance(f, AbstractModel):
        raise ValueError(
            f"{type(f).__name__} is a model with parameters of its own: fit it by jaxsci.fit(model, jaxsci.Dataset(x, "
            "y)), or give curve_fit a function (x, a, b, ...)"
        )
    if isinstance(f, eqx.Module):
        return _signature(type(f).__call__, bound=True, title=type(f).__name__)
    if type(f) is types.FunctionType and not vars(f):
        return _plain_signature(f.__code__, len(f.__defaults__ or ()), f.__name__)
    return _signature(f)


@functools.lru_cache(maxsize=512)
def _plain_signature(code: types.CodeType, defaults: int, name: str) -> _Declared:
    """By the code, so that no function is kept alive with all that it captured."""
    stand_in = types.FunctionType(code, {}, name, (None,) * defaults, (types.CellType(),) * len(code.co_freevars))
    return _signature(stand_in)


def _signature(f: Callable[..., Any], bound: bool = False, title: str = "") -> _Declared:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    all_of_it = list(inspect.signature(f).parameters.values())
    ordered = [p for p in all_of_it if p.kind in kinds][1 + bound :]
    more = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in all_of_it)
    name = title or getattr(f, "__name__", type(f).__name__)
    title = name if name.isidentifier() else "f"
    if not ordered and not more:
        raise ValueError(f"{title} takes no parameter to fit: it should be f(x, a, b, ...)")
    names = tuple(p.name for p in ordered)
    return _Declared(title, names, sum(p.default is p.empty for p in ordered), more)


class Call(Module):
    """What is called with (x, *parameters), or for residuals with (x, args, kwargs): a traced function.

    The arrays that it captured are leaves.

    - `own_jacobian`: whether the function answers (f(...), jac(...)).
    """

    function: Traced
    own_jacobian: bool = eqx.field(static=True)

    def __call__(self, x: Inputs, *values: Tree) -> Any:
        return _with_jacobian(self.function, x, values) if self.own_jacobian else self.function(x, *values)


class Live(Module):
    """What is called with (x, *parameters) after a fit: the user's function itself, as it is then."""

    function: Callable[..., Any] = eqx.field(static=True)

    def __call__(self, x: Inputs, *values: Tree) -> Any:
        return self.function(x, *values)


def trace(
    f: Callable[..., Any],
    jac: Callable[..., Any] | None,
    args: tuple[Tree, ...],
    title: str,
    watched: tuple[Any, ...] | None = None,
) -> Found:
    """Trace f as it is now, at arguments like `args`; with `jac`, a function that answers (f(...), jac(...)).

    **Arguments:**

    - `args`: arrays, or shapes and dtypes alone.
    - `title`: the name of f in messages.
    - `watched`: the user's own functions of which f and jac are made; f and jac themselves, unless told.

    **Raises:** `TypeError` and `ValueError`, naming f by its `title`, where it cannot be traced or answers no real
    numbers.
    """

    def checked(*args: Tree) -> Any:
        return _real(f(*args), title)

    def pair(*args: Tree) -> Any:
        assert jac is not None
        return _real(f(*args), title), _real(jac(*args), "jac")

    try:
        return freshly(
            checked if jac is None else pair, args, (jac is None, *((f, jac) if watched is None else watched))
        )
    except TypeError as error:
        better = untraceable(error, title)
        if better is error:
            raise
        raise better from error


def _real(out: object, title: str) -> Any:
    """What a function answers, checked to be real numbers."""
    leaves = jtu.tree_leaves(out)
    if not leaves:
        raise ValueError(f"{title} returns {'nothing' if out is None else repr(out)}: it should return an array")
    for leaf in leaves:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float | complex):
            raise ValueError(f"{title} returns {describe(leaf)}, but it should return an array of real numbers")
        if jnp.iscomplexobj(leaf):
            raise ValueError(
                f"{title} returns complex numbers, but residuals are real: return jnp.abs(z), or the real and the "
                "imaginary part in one array, with data to match"
            )
    return out


def _with_jacobian(both: Traced, x: Inputs, values: tuple[ArrayLike, ...]) -> Array:
    """f(x, *values) whose derivative with respect to the values is jac(x, *values); `both` answers the two of them."""

    @jax.custom_jvp
    def run(both: Traced, x: Inputs, values: tuple[ArrayLike, ...]) -> Array:
        return both(x, *values)[0]

    def rule(primals: Sequence[Tree], tangents: Sequence[Tree]) -> tuple[Array, Array]:
        both, x, values = primals
        *others, dvalues = tangents
        out, columns = both(x, *values)
        columns = as_columns(columns, jnp.shape(out), len(values)).astype(out.dtype)
        tangent = jnp.zeros_like(out)
        for k, dvalue in enumerate(dvalues):
            if not isinstance(dvalue, SymbolicZero):
                tangent = tangent + columns[..., k] * dvalue
        if any(not isinstance(d, SymbolicZero) for d in jtu.tree_leaves(others)):
            others = jtu.tree_map(_instantiated, tuple(others))
            tangent = tangent + jax.jvp(lambda both, x: both(x, *values)[0], (both, x), others)[1]
        return out, tangent

    run.defjvp(rule, symbolic_zeros=True)
    return run(both, x, values)


def _instantiated(tangent: AnyArray | SymbolicZero) -> Any:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    xp: Any = np if tangent.dtype == jax.dtypes.float0 else jnp
    return xp.zeros(tangent.shape, tangent.dtype)


def as_columns(jac: Tree, rows: Sequence[int], count: int) -> Array:
    """Bring a Jacobian into the shape (*rows, count); one of a single row or a single parameter may be flat.

    **Arguments:** `jac`: what a user's function of the derivatives returned; `rows`: the shape of what the function
    itself returns; `count`: the number of parameters.

    **Raises:** `ValueError` for another shape.
    """
    jac = jnp.asarray(jac)
    if jac.ndim == 1 and (tuple(rows), count) in {(jac.shape, 1), ((1,), jac.size), ((), jac.size)}:
        return jac.reshape(*rows, count)
    if jac.shape != (*rows, count):
        raise ValueError(f"jac has shape {jac.shape}, but f has shape {tuple(rows)} and {count} parameters")
    return jac


class Layout(NamedTuple):
    """How a function wants its x, other than rows first.

    - `absent`: it gets None. `last`: the rows run along the last axis. `grid`: the shape, where rows are the points of
      a grid.
    """

    absent: bool = False
    last: bool = False
    grid: tuple[int, ...] = ()

    def x(self, rows: Inputs) -> Any:
        """Give the function its x: these rows in the form in which the user gave xdata."""
        if self.absent:
            return None
        x = jnp.moveaxis(rows, 0, -1) if self.last else rows
        return x.reshape(self.grid) if self.grid and x.size == math.prod(self.grid) else x


def as_layout(x: Inputs, count: int) -> tuple[Any, Layout]:
    """Find the rows of x: (x with its rows first, how the function wants it).

    **Arguments:** `x`: an array of NumPy or JAX of any of the shapes that `curve_fit` takes, a tree of arrays with rows
    first, or `None`; `count`: the number of rows of the data.

    **Raises:** `ValueError` where its rows do not match those of the data.
    """
    if x is None:
        return np.zeros(count), Layout(absent=True)
    if not isinstance(x, jax.Array | np.ndarray):
        for path, leaf in jtu.tree_flatten_with_path(x)[0]:
            if leaf.shape[:1] != (count,):
                raise ValueError(
                    f"xdata{jtu.keystr(path)} has shape {leaf.shape}, ydata has shape ({count},): rows must match"
                )
        return x, Layout()
    if x.ndim == 0 and count == 1:
        return x.reshape(1), Layout()
    if x.ndim > 1 and x.shape[-1] == count:
        return jnp.moveaxis(x, -1, 0) if isinstance(x, jax.Array) else np.moveaxis(x, -1, 0), Layout(last=True)
    if x.shape[:1] == (count,):
        return x, Layout()
    if x.ndim > 2 and math.prod(x.shape[1:]) == count:
        return x.reshape(x.shape[0], count).T, Layout(last=True, grid=x.shape)
    if x.ndim > 1 and x.size == count:
        return x.reshape(count), Layout(grid=x.shape)
    raise ValueError(f"xdata has shape {x.shape}, ydata has shape ({count},): rows must match")


@functools.lru_cache(maxsize=512)
def curve_class(title: str, names: tuple[str, ...]) -> Any:
    """Make a model class with one scalar parameter for each name: so a Solution speaks of the function's own."""

    def __call__(self: Any, inputs: Inputs) -> Array:
        values = [getattr(self, name) for name in names]
        out = self._call(self._layout.x(inputs), *values)
        if not isinstance(out, jax.Array | np.ndarray | float | int):
            raise ValueError(f"{title} returns a {type(out).__name__}, but it should return one array of shape (n,)")
        out = jnp.asarray(out, values[0].dtype)
        return jnp.broadcast_to(out, jtu.tree_leaves(inputs)[0].shape[:1]) if out.ndim == 0 else out

    namespace = {
        "__annotations__": {"_call": Any, "_layout": Layout, **dict.fromkeys(names, Scalar)},
        "__call__": __call__,
        "__doc__": f"{title}(x, {', '.join(names)}) as a model.",
        "__module__": __name__,
        "_layout": eqx.field(static=True),
        **{name: param() for name in names},
    }
    metaclass: Any = type(AbstractModel)
    return metaclass(title, (AbstractModel,), namespace)


def with_live_function(solution: Solution, f: Callable[..., Any]) -> Solution:
    """Give the Solution a model that calls f itself, at any number of points, in place of what was traced of it.

    One whose captured arrays are being traced stays as it is: f could not be called after the transformation.
    """
    if traced(solution.model._call):
        return solution
    live: Solution = eqx.tree_at(lambda s: s.fitted.model._call, solution, Live(f))
    return live
