"""A spectrum from an expression, read by a parser that knows arithmetic and nothing else."""

import ast
import operator
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import Scalar, params, suggest
from ._sed import AbstractSED, check_given
from ._units import H_OVER_K, conversion

_FUNCTIONS: dict[str, Any] = {
    name: getattr(jnp, name)
    for name in ("exp", "expm1", "log", "log10", "log1p", "sqrt", "abs", "sin", "cos", "tan", "sinh", "cosh", "tanh")
}
_CONSTANTS = {"pi": jnp.pi, "E": jnp.e, "h_over_k": H_OVER_K}
_BINARY: dict[Any, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: dict[Any, Any] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_DEEPEST = 100  # nested operations; Python's own limit is not to be met


class AnalyticSED(AbstractSED):
    """A spectrum by an expression of `nu` (GHz) in Python's syntax: `AnalyticSED("(nu / nu0)**beta", nu0=30.0)`.

    Every other name in it is a parameter, unless a value is given for it. Known are + - * / **, numbers, `pi`, `E`,
    `h_over_k` (K/GHz), and exp, expm1, log, log10, log1p, sqrt, abs, sin, cos, tan, sinh, cosh, tanh.

    **Arguments:** `expression`. `start`: values of the parameters where a fit starts, 1 for those that are not
    named. `units`: of the maps. `given`: the unit that the expression is in, `units` by default: `given="K_RJ"` for a
    brightness temperature; the amplitude is in that unit then. `fixed`: values of names that are no parameters.

    **Raises:** `ValueError` for anything else in the expression, with its column, and for values of names that are
    not in it; for an unknown unit.
    """

    expression: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    units: str = eqx.field(static=True)
    given: str | None = eqx.field(static=True)
    constants: dict[str, Scalar]
    values: tuple[Scalar, ...] = params("names")

    def __init__(
        self,
        expression: str,
        start: Mapping[str, Any] | None = None,
        *,
        units: str = "K_CMB",
        given: str | None = None,
        **fixed: Any,
    ):
        check_given(units, given)
        tree = parse(expression)
        used = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(_FUNCTIONS))
        start = dict(start or {})
        for name in (*start, *fixed):
            if name not in used or name == "nu":
                raise ValueError(f"{expression!r} has no name {name!r} to give a value to{suggest(name, used)}")
        self.expression, self.units, self.given = expression, units, given
        self.names = tuple(n for n in used if n not in fixed and n not in _CONSTANTS and n != "nu")
        self.values = tuple(start.get(name, 1.0) for name in self.names)
        self.constants = {name: jnp.asarray(value, float) for name, value in fixed.items()}

    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        names = _CONSTANTS | self.constants | dict(zip(self.names, self.values, strict=True)) | {"nu": nu}
        values = jnp.broadcast_to(_value(parse(self.expression).body, names), nu.shape)
        return values if self.given is None else values * conversion(nu, self.given, self.units)

    def amplitude_units(self, units: str) -> str:
        return units if self.given is None else units.replace(self.units, self.given)


def parse(expression: str) -> ast.Expression:
    """The syntax tree of an expression that holds nothing but arithmetic.

    **Raises:** `ValueError` with the column of the first thing that is something else.
    """
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        column = getattr(error, "offset", None) or 1
        raise ValueError(f"column {column} of {expression!r}: {getattr(error, 'msg', error)}") from None
    _check(tree.body, expression, 0)
    return tree


def _check(node: ast.AST, text: str, depth: int) -> None:
    parts = _parts(node)
    if parts is None or depth > _DEEPEST:
        column = getattr(node, "col_offset", 0) + 1
        what = ast.get_source_segment(text, node) or type(node).__name__  # type: ignore[arg-type]
        near = suggest(node.func.id, _FUNCTIONS) if _is_call(node) else ""  # type: ignore[attr-defined]
        why = "is nested too deeply" if depth > _DEEPEST else f"is not arithmetic{near}"
        raise ValueError(f"column {column} of {text!r:.200}: {what!r:.60} {why}")
    for part in parts:
        _check(part, text, depth + 1)


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def _parts(node: ast.AST) -> list[ast.expr] | None:
    """What a permitted node is made of; None for one that is not."""
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return [node.operand]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        return node.args if len(node.args) == 1 and not node.keywords else None
    if isinstance(node, ast.Name):
        return None if node.id in _FUNCTIONS else []
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return []
    return None


def _value(node: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.UnaryOp):
        return _UNARY[type(node.op)](_value(node.operand, names))
    if isinstance(node, ast.Call):
        return _FUNCTIONS[node.func.id](_value(node.args[0], names))  # type: ignore[attr-defined]
    return names[node.id] if isinstance(node, ast.Name) else float(node.value)
