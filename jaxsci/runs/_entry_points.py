"""Entry points by which packages, this one included, say that they bring a science or commands.

In its own module because `jaxsci --help` shows the commands and must not wait for jax: nothing here imports more than
the standard library.
"""

import functools
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

SCIENCES, COMMANDS = "jaxsci.sciences", "jaxsci.commands"
"""Groups: subclasses of `AbstractTask` under the names that configs give as `task`, and typer apps."""


@runtime_checkable
class Point(Protocol):
    """An entry point: of `importlib.metadata`, or of its backport, which takes over once a package has imported it."""

    name: str
    value: str

    @property
    def dist(self) -> Any:
        """The metadata of its package, of either of the two as well, or None."""

    def load(self) -> Any:
        """Import what it names."""


def points(group: str) -> dict[str, Point]:
    """Find the entry points of a group by name; those of this package come first, and no other can take their names."""
    return dict(_points(group, tuple(sys.path)))


@functools.lru_cache(maxsize=8)
def _points(group: str, path: tuple[str, ...]) -> Mapping[str, Point]:
    """Kept for a `sys.path`: looking through all packages takes longer than a small fit."""
    found: dict[str, Point] = {}
    every = importlib.metadata.entry_points(group=group)
    # by name, because an installer keeps no order
    for point in sorted(every, key=lambda point: (point.dist is None or point.dist.name != "jaxsci", point.name)):
        found.setdefault(point.name, point)
    return found


def commands() -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, a function that imports its typer app) of each science that has commands of its own."""
    for name, point in points(COMMANDS).items():
        yield name, point.load


def sciences() -> tuple[str, ...]:
    """List the names that a config may give as its task, those of this package in front."""
    return tuple(points(SCIENCES))
