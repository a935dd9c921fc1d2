"""The names that a config may use, each with its class: nothing else can be built from a config.

Each science gives the kinds of class that its configs name, such as models or spectra (`AbstractTask.kinds`). A file
that is given by `--import` is run, and its classes join the kinds whose base they have. `construct` builds from this.
"""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core import suggest
from ._errors import CLASS_ERRORS, ConfigError, StructureError


@dataclasses.dataclass(frozen=True)
class Kind:
    """Classes of one kind that a config may name.

    - `noun`: what one of them is called in messages, such as "model".
    - `base`: the bases of which an imported class of this kind has one.
    - `classes`: by name.
    - `libraries`: more of them that are imported when a config names one: `{"nist": "package.module:NAME"}` stands for
      the dictionary `NAME` of that module, whose classes are called `nist.<key>`.
    """

    noun: str
    base: tuple[type, ...]
    classes: Mapping[str, type]
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def find(self, name: str, where: str) -> type:
        """The class of that name; raises `ConfigError` with the nearest name."""
        if name in self.classes:
            return self.classes[name]
        library = name.partition(".")[0]
        found = self._library(library) if library in self.libraries else {}
        if name not in found:
            every = self.every()
            known = f" ({', '.join(every)})" if len(every) <= 12 else ": a class of your own takes --import FILE.py"
            raise StructureError(where, f"no {self.noun} is called {name!r}{suggest(name, every) or known}")
        return found[name]

    def knows(self, name: object) -> bool:
        """True for the name of a class."""
        library = name.partition(".")[0] if isinstance(name, str) else ""
        return name in self.classes or (library in self.libraries and name in self._library(library))

    def every(self) -> dict[str, type]:
        """All classes by name, those of libraries included."""
        more = (self._library(library).items() for library in self.libraries)
        return {**self.classes, **dict(itertools.chain.from_iterable(more))}

    def _library(self, library: str) -> dict[str, type]:
        module, _, name = self.libraries[library].partition(":")
        return {f"{library}.{key}": cls for key, cls in getattr(importlib.import_module(module), name).items()}


Registry = Mapping[str, Kind]
"""What a config may name: kinds by their keys, such as `models`."""


def extended(registry: Registry, imports: Sequence[Path]) -> Registry:
    """Extend the registry by the classes of a researcher's own files, which are run.

    **Raises:** `ConfigError` as `imported` does.
    """
    for path in imports:
        registry = imported(registry, path)
    return registry


def imported(registry: Registry, path: Path) -> Registry:
    """The registry with the classes that a researcher's own file defines, each in the kind whose base it has.

    The file is run, so this is only ever done for a path given on the command line.

    **Raises:** `ConfigError` when the file is missing, fails, defines nothing of use, or takes a known name.
    """
    module = _run_file(path)
    classes = [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]
    found = dict(registry)
    new: list[str] = []
    for key, kind in registry.items():
        own = {cls.__name__: cls for cls in classes if issubclass(cls, kind.base) and not inspect.isabstract(cls)}
        for name in own:
            if name in kind.classes:
                raise ConfigError(path.name, f"there is a {kind.noun} called {name!r} already; give yours another name")
        found[key] = dataclasses.replace(kind, classes={**kind.classes, **own})
        new += own
    if not new:
        raise ConfigError(
            path.name,
            f"it defines no class that a config could name{_bases(registry)}",
        )
    return found


def _bases(registry: Registry) -> str:
    """What a class would have to be a subclass of."""
    bases = [f"{' or '.join(base.__name__ for base in kind.base)} (a {kind.noun})" for kind in registry.values()]
    return f": subclass {', '.join(bases)}" if bases else ", and this task has no names for any"


def _run_file(path: Path) -> Any:
    if not path.is_file() or path.suffix != ".py":
        raise StructureError(f"--import {path}", "there is no such Python file")
    try:
        return _module(path.resolve(), path.read_bytes())
    except (SyntaxError, ImportError, OSError, *CLASS_ERRORS) as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).name == path.name
        ]
        line = f", line {lines[-1]}" if lines else ""
        raise StructureError(f"--import {path}{line}", f"{type(error).__name__}: {error}") from error
    except SystemExit as error:
        raise StructureError(f"--import {path}", "it ends the program: leave nothing but classes in it") from error


@functools.lru_cache(maxsize=64)
def _module(path: Path, source: bytes) -> Any:
    """The file run once, as it is now: a process of many configs compiles the programs of its classes once."""
    name = f"jaxsci_imported_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def describe(cls: type) -> tuple[str, str]:
    """(arguments, first sentence of the docstring) of a registered class, for `jaxsci list`."""
    arguments = []
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.append("name = model, ...")
        elif name != "norm":  # a function, which no config can write
            default = parameter.default
            arguments.append(name if default is parameter.empty else f"{name} = {default}")
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return ", ".join(arguments), text
