"""Finds the task that a config names among the sciences that are installed.

A package is a science because its metadata say so: `[project.entry-points."jaxsci.sciences"]` names the subclass of
`AbstractTask`, and `[project.entry-points."jaxsci.commands"]`, where there is one, a typer app of commands of its own.
Those in this package and those of others are found alike. The two groups are apart because `jaxsci --help` shows the
commands and must not wait for jax, which a task imports: the module of a typer app imports no more than typer.
"""

from typing import Any

from ._config import shown
from ._entry_points import SCIENCES, points
from ._errors import ConfigError
from ._task import AbstractTask

DEFAULT = "curvefit"
"""The task of a config that names none."""


def task_named(name: object, where: str = "task") -> AbstractTask[Any, Any]:
    """Load the task of a name.

    **Arguments:** `name`: what the config says; `where`: its place there, for errors.

    **Raises:** `ConfigError` for any other name, and where the science cannot be imported.
    """
    found = points(SCIENCES)
    if not found:
        raise ConfigError(where, "no science is installed: install jaxsci again, so that its entry points are known")
    if not isinstance(name, str) or name not in found:
        *names, last = (f'"{known}"' for known in found)
        known = f"{', '.join(names)} or {last}" if names else last
        raise ConfigError(where, f"should be {known}, but it is {shown(name)}")
    try:
        task: AbstractTask[Any, Any] = found[name].load()()
    except (ImportError, AttributeError) as error:
        package = found[name].dist
        whose = "" if package is None else f" of the package {package.name}"
        raise ConfigError(where, f'"{name}"{whose} cannot be loaded: {error}') from error
    return task
