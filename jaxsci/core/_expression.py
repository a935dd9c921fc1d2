"""Arithmetic written as text: read without being executed, checked with columns, evaluated with JAX's numbers.

Configs and notebooks say a relation between numbers best by a formula. `parse` lets nothing but arithmetic, known
functions and names pass; `value_of` evaluates it under `jit` and `grad`. `Tied` relates parameters so, and a domain may
let users write a function, such as a spectrum.
"""

import ast
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import ArrayLike

from ._errors import suggest

_ONE = (
    *("exp", "expm1", "log", "log10", "log1p", "sqrt", "abs"),
    *("sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"),
)
_TWO = ("minimum", "maximum")
_FUNCTIONS: dict[str, Any] = {name: getattr(jnp, name) for name in (*_ONE, *_TWO)}
_NUMBERS: dict[str, float] = {"pi": jnp.pi, "E": jnp.e}
_BINARY: dict[Any, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: dict[Any, Any] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_LONGEST = 10_000  # characters: an expression of more is slow to read, and was not written by hand
_DEEPEST = 100  # nested operations; Python's own limit is not to be met


def parse(text: str, constants: Mapping[str, float] | None = None, dotted: bool = False) -> ast.expr:
    """The syntax tree of an expression that holds nothing but arithmetic.

    Known are + - * / **, numbers, `pi`, `E`, the functions of `value_of`, and any other name.

    **Arguments:** `constants`: further names that are numbers. `dotted`: a name may have dots and end in an element,
    as those of parameters do: `peak.coefficients[2]`.

    **Raises:** `ValueError` with the column of the first thing that is something else, and for one that is too long or
    whose numbers are too large, or divided by zero.
    """
    if not isinstance(text, str):
        raise ValueError(f"an expression is a text, but it is {text!r:.60}")
    if len(text) > _LONGEST:
        raise ValueError(f"{text!r:.60} has {len(text)} characters, where {_LONGEST} are the most")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        column = getattr(error, "offset", None) or 1
        raise ValueError(f"column {column} of {text!r:.200}: {getattr(error, 'msg', error)}") from None
    _check(tree, text, _NUMBERS | dict(constants or {}), dotted, 0)
    return tree


def names_in(tree: ast.expr) -> tuple[str, ...]:
    """The names in an expression that are not `pi` or `E`, each once, sorted."""
    return tuple(sorted({name for name in _names(tree) if name not in _NUMBERS}))


def value_of(tree: ast.expr, names: Mapping[str, ArrayLike]) -> ArrayLike:
    """Evaluate an expression that `parse` let pass.

    Functions are exp, expm1, log, log10, log1p, sqrt, abs, sin, cos, tan, arcsin, arccos, arctan, sinh, cosh, tanh,
    and minimum and maximum of two.

    **Arguments:** `names`: the value of each name, `pi` and `E` apart.
    """
    value: ArrayLike
    if isinstance(tree, ast.BinOp):
        value = _BINARY[type(tree.op)](value_of(tree.left, names), value_of(tree.right, names))
    elif isinstance(tree, ast.UnaryOp):
        value = _UNARY[type(tree.op)](value_of(tree.operand, names))
    elif isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        value = _FUNCTIONS[tree.func.id](*(value_of(part, names) for part in tree.args))
    elif isinstance(tree, ast.Constant):
        value = float(tree.value)  # type: ignore[arg-type]
    else:
        name = _name(tree) or ""
        value = names[name] if name in names else _NUMBERS[name]
    return value


def _names(tree: ast.expr) -> Iterator[str]:
    name = _name(tree)
    if name is not None:
        yield name
        return
    for part in _parts(tree, dotted=True) or ():
        yield from _names(part)


def _name(node: ast.AST) -> str | None:
    """The dotted name that a node is, with the place of an element; `None` where it is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = _name(node.value)
        return None if owner is None or owner.endswith("]") else f"{owner}.{node.attr}"
    if isinstance(node, ast.Subscript):
        owner = _name(node.value)
        places = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        numbers = [part.value for part in places if isinstance(part, ast.Constant) and type(part.value) is int]
        if owner is not None and not owner.endswith("]") and 0 < len(places) == len(numbers):
            return f"{owner}[{','.join(map(str, numbers))}]"
    return None


def _check(node: ast.expr, text: str, known: Mapping[str, float], dotted: bool, depth: int) -> float | None:
    """Check an expression; returns its value where it is one of numbers alone, whose overflows Python raises."""
    parts = _parts(node, dotted)
    if parts is None or depth > _DEEPEST:
        what = ast.get_source_segment(text, node) or type(node).__name__
        call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        near = suggest(node.func.id, _FUNCTIONS) if call else ""  # type: ignore[attr-defined]
        why = "is nested too deeply" if depth > _DEEPEST else f"is not arithmetic{near}"
        raise ValueError(f"column {node.col_offset + 1} of {text!r:.200}: {what!r:.60} {why}")
    inner = [_check(part, text, known, dotted, depth + 1) for part in parts]
    try:
        value = _of_numbers(node, inner, known)
        if value is None or (isinstance(value, float) and math.isfinite(value)):
            return value
        why = f"is {value}"
    except ArithmeticError as error:
        why = f"is no number ({error})"
    raise ValueError(f"column {node.col_offset + 1} of {text!r:.200}: {why}")


def _of_numbers(node: ast.expr, inner: Sequence[float | None], known: Mapping[str, float]) -> complex | float | None:
    """The value of an operation on numbers; `None` where a name or a function is in it."""
    if isinstance(node, ast.Constant):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.BinOp) and None not in inner:
        return _BINARY[type(node.op)](*inner)  # type: ignore[no-any-return]
    if isinstance(node, ast.UnaryOp) and None not in inner:
        return _UNARY[type(node.op)](*inner)  # type: ignore[no-any-return]
    return known.get(node.id) if isinstance(node, ast.Name) else None


def _parts(node: ast.AST, dotted: bool) -> list[ast.expr] | None:
    """What a permitted node is made of; None for one that is not."""
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return [node.operand]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        wanted = 2 if node.func.id in _TWO else 1
        return node.args if len(node.args) == wanted and not node.keywords else None
    if isinstance(node, ast.Name):
        return None if node.id in _FUNCTIONS else []
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return []
    return [] if dotted and _name(node) is not None else None
