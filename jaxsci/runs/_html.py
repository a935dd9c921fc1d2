"""HTML from Python: text is escaped unless it is `Html` already.

The pages of a report are built from `tag` and `table`. A template language would be one more dependency for two pages,
and would leave escaping to whoever writes the template.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any

_VOID = ("img", "meta")  # elements without an end


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Write one element; children that are not `Html` are escaped.

    **Arguments:** `attributes`: `class_` stands for class, and `None` drops an attribute.
    """
    quoted = "".join(
        f' {key.rstrip("_")}="{html.escape(str(value))}"' for key, value in attributes.items() if value is not None
    )
    return Html(f"<{name}{quoted}>" if name in _VOID else f"<{name}{quoted}>{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Html:
    """Write elements one behind the other; text among them is escaped."""
    return Html("".join(c if isinstance(c, Html) else html.escape(str(c)) for c in children))


def table(head: Sequence[object], rows: Iterable[Iterable[object]], **attributes: object) -> Html:
    """Write a table of text and numbers; cells that are no `td` already become one.

    A heading is on the side of what stands below it: on the right above numbers.
    """
    cells = [[_cell(cell) for cell in row] for row in rows]
    top = (tag("th", text, scope="col", class_=_side([row[k] for row in cells])) for k, text in enumerate(head))
    body = tag("tbody", *(tag("tr", *row) for row in cells))
    return tag("div", tag("table", tag("thead", tag("tr", *top)), body, **attributes), class_="scroll")


def _side(column: Sequence[Html]) -> str | None:
    return "number" if column and all(cell.startswith('<td class="number') for cell in column) else None


def number(text: object, class_: str = "number") -> Html:
    """Write a cell of a table with a number in it."""
    return tag("td", text, class_=class_)


def _cell(cell: object) -> Html:
    return cell if isinstance(cell, Html) and cell.startswith("<td") else tag("td", cell)
