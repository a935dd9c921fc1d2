"""How models and results look where a person meets them: the prompt of Python, and notebooks.

JAX shows an array as its type, `f64[]`; a researcher who prints a model wants its numbers. `value_text` is the text of
every Module, and `notebook_table` the one look of all tables that notebooks show of models, fits and posteriors.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np

from ._traced import is_traced
from ._typing import Tree

_MOST = 6  # numbers of an array that are shown
_DIGITS = 6

# lines and backgrounds take the colour of the text, so that a table is readable in light and in dark notebooks
_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.4em 0;color:inherit"
_CAPTION = "caption-side:top;text-align:left;font-weight:600;padding:.2em 0;color:inherit"
_HEAD = "padding:.2em .9em .2em 0;border-bottom:1px solid currentColor;font-weight:600;white-space:nowrap"
_CELL = "padding:.15em .9em .15em 0;background:none;white-space:nowrap"


class _Text:
    """Stands for an array in a tree that is printed."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def value_text(tree: Tree) -> str:
    """A Module, or any tree, with the numbers of its small arrays; large ones, and those in a trace, by their shape."""
    return eqx.tree_pformat(jtu.tree_map(_of_leaf, tree, is_leaf=_is_choice))


def readable(tree: Tree) -> bool:
    """True where the numbers of all leaves can be looked at; not within a trace, or of shapes in place of arrays."""
    return all(_is_readable(leaf) for leaf in jtu.tree_leaves(tree))


def _is_readable(leaf: object) -> bool:
    if is_traced(leaf) or not isinstance(leaf, jax.Array | np.ndarray):
        return False
    # of an array that was given away, or lies on other hosts too, there is nothing to read here
    return isinstance(leaf, np.ndarray) or (leaf.is_fully_addressable and not leaf.is_deleted())


def _is_choice(node: object) -> bool:
    """Members of an `equinox.Enumeration`, which print their own name."""
    return type(node).__name__ == "EnumerationItem"


def _of_leaf(leaf: object) -> object:
    if _is_choice(leaf):  # which reads its number to print its name
        return leaf if readable(leaf) else _Text("one of an enumeration")
    if not isinstance(leaf, jax.Array | np.ndarray) or not _is_readable(leaf):
        return leaf
    if leaf.size > _MOST or leaf.ndim > 1 or leaf.dtype.kind not in "fciub":
        return leaf
    values = np.atleast_1d(np.asarray(leaf)).tolist()
    texts = [repr(float(f"{value:.{_DIGITS}g}")) if leaf.dtype.kind == "f" else str(value) for value in values]
    return _Text(f"[{', '.join(texts)}]" if leaf.ndim else texts[0])


def bounds_text(bounds: tuple[Any, Any]) -> str:
    """`0.0 to inf`; nothing where there are no bounds."""
    ends = [value_text(np.asarray(end, float)) for end in bounds]
    return "" if ends == ["-inf", "inf"] else " to ".join(ends)


def notebook_text(text: str) -> str:
    """HTML of plain text, which is scrolled where it is wider than the page."""
    return f'<pre style="overflow-x:auto;color:inherit">{html.escape(text)}</pre>'


def notebook_table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    notes: Iterable[str] = (),
    left: Sequence[int] = (0,),
) -> str:
    """HTML of a table with a title above and lines below it; every text is escaped.

    **Arguments:** `head`: names of columns. `rows`: texts. `left`: the columns of words; numbers are set right.
    """

    def cell(kind: str, style: str, text: str, place: int) -> str:
        side = "left" if place in left else "right"
        return f'<{kind} style="{style};text-align:{side}">{html.escape(text)}</{kind}>'

    def row(kind: str, style: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(cell(kind, style, text, place) for place, text in enumerate(cells))}</tr>"

    body = "".join(row("td", _CELL, cells) for cells in rows)
    table = f'<table style="{_TABLE}"><caption style="{_CAPTION}">{html.escape(title)}</caption>'
    table += f"<thead>{row('th', _HEAD, head)}</thead><tbody>{body}</tbody></table>"
    said = "".join(f'<div style="opacity:.8">{html.escape(note)}</div>' for note in notes)
    return f'<div style="overflow-x:auto;margin-bottom:1em">{table}{said}</div>'
