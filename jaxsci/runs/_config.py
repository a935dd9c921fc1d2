"""Config files: TOML in, plain tables out, and which files they may name.

A config is data and never code: it may name classes of the registry, and files in its own folder or `bundled:` with the
package. Tasks read its tables with `take`, `check_keys` and `flatten`, whose errors name the place and the nearest
known key.
"""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..core import suggest
from ..datasets import CONFIG_BYTES, check_file, parse_toml, read_text
from ._bundled import bundled_files
from ._errors import ConfigError, StructureError

BUNDLED = "bundled:"


@dataclasses.dataclass(frozen=True)
class Config:
    """A config file as read: its tables, and the folder that its relative paths start from.

    `resolved` grows: the files that were asked for so far, by the names that the config gives them.
    """

    path: Path
    tables: dict[str, Any]
    allow_outside: bool = False
    resolved: dict[str, Path] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def within(self) -> Path | None:
        """The folder in which all files should lie that a config leads to; `None` for anywhere."""
        return None if self.allow_outside else self.path.parent.resolve()

    def resolve(self, name: object, where: str) -> Path:
        """The file that a config names: `bundled:NAME`, or a path relative to the config's folder.

        **Raises:** `ConfigError` where it is no file, or lies outside the folder (links followed) without
        `--allow-outside`.
        """
        if not isinstance(name, str):
            raise ConfigError(where, f"should be the name of a file, but it is {shown(name)}")
        if name.startswith(BUNDLED):
            return self.resolved.setdefault(name, bundled(name, where))
        folder = self.path.parent.resolve()
        try:
            path = (folder / Path(name).expanduser()).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # null bytes, links in a circle, a home of nobody
            raise ConfigError(where, f"{name!r:.60} is no name of a file: {error}") from None
        if not self.allow_outside and not path.is_relative_to(folder):
            raise ConfigError(where, f"{name!r} lies outside the config's folder {folder}; --allow-outside permits it")
        try:
            check_file(path)
        except FileNotFoundError as error:
            near = suggest(path.name, (entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else ""
            raise StructureError(where, f"{error}{near}") from None
        except ValueError as error:
            raise ConfigError(where, str(error)) from None
        return self.resolved.setdefault(name, path)


def read_config(name: str, settings: Collection[str] = (), allow_outside: bool = False) -> Config:
    """Read a config file and apply `--set` settings to it.

    **Arguments:** `name`: a path or `bundled:NAME`; `settings`: `"table.key=value"`, the value as in TOML,
    or a bare word for a text.

    **Raises:** `ConfigError` for a missing file, bad TOML, or a setting that fits nothing.
    """
    path = bundled(name, "") if name.startswith(BUNDLED) else Path(name)
    try:
        text = read_text(path, CONFIG_BYTES)
    except FileNotFoundError:
        example = "a config is a TOML file, for example bundled:quickstart.toml"
        raise ConfigError(str(name), f"there is no such file; {example}") from None
    except ValueError as error:
        raise ConfigError("", f"{error}; a config is a TOML file, and data belong into files of their own") from error
    try:
        tables = parse_toml(text)
    except ValueError as error:
        raise ConfigError(path.name, str(error)) from error
    for setting in settings:
        _apply(tables, setting)
    return Config(path, tables, allow_outside)


def bundled(name: str, where: str) -> Path:
    """Find the file behind `bundled:NAME`: a data set or a config that ships with the package; `.toml` may be left out.

    **Raises:** `ConfigError` for an unknown name, with a suggestion.
    """
    wanted = name.removeprefix(BUNDLED)
    files = bundled_files()
    wanted = f"{wanted}.toml" if wanted not in files and f"{wanted}.toml" in files else wanted
    if wanted not in files:
        raise ConfigError(where, f"nothing is bundled as {wanted!r}{suggest(wanted, files) or _listed(files)}")
    return files[wanted]


def check_keys(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raise a `ConfigError` that names the first unknown key and the known one nearest to it."""
    for key in table:
        if key not in known:
            path = f"{where}.{key}" if where else key
            raise StructureError(path, f"there is no key {key!r} here{suggest(key, known) or _listed(known)}")


def take(table: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str, default: Any = None) -> Any:
    """Read the value of a key, held to a type; `default` where the key is absent.

    **Raises:** `ConfigError` saying what the key should be.
    """
    if key not in table:
        return default
    value, at = table[key], f"{where}.{key}" if where else key
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
        return value
    words = " or ".join(dict.fromkeys(_WORDS[k] for k in kinds))
    if isinstance(value, float) and int in kinds:
        words = words.replace(_WORDS[int], "a whole number, without a point or an exponent")
    message = f"should be {words}, but it is {shown(value)}"
    if list in kinds and isinstance(value, dict) and not where:
        message += f". Write [[{key}]] for [{key}]: there may be several"
    if dict in kinds and isinstance(value, list) and value and isinstance(value[0], dict) and not where:
        message += f". Write [{key}] for [[{key}]]: there is one"
    raise ConfigError(at, message)


def shown(value: object) -> str:
    """Describe a TOML value in a few words, for messages."""
    return f"{_WORDS.get(type(value), type(value).__name__)}, {value!r:.60}"


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested tables as dotted names, so that `peak.center = 1` needs no quotes; one with a `type` stays one."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        nested = isinstance(value, dict) and "type" not in value
        out.update(flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value})
    return out


_WORDS: dict[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a table",
}


def _listed(known: Collection[str]) -> str:
    return f" (known: {', '.join(sorted(known))})"


def _apply(tables: dict[str, Any], setting: str) -> None:
    """Put one `a.b.0.c=value` into the tables."""
    name, equals, text = setting.partition("=")
    where = f"--set {setting}"
    if not equals or not all(name.strip().split(".")):
        raise ConfigError(where, "a setting reads table.key=value, for example fit.max_steps=500")
    *parents, last = name.strip().split(".")
    node: Any = tables
    for parent in parents:
        node = _child(node, parent, where)
    if isinstance(node, list):
        node[_index(node, last, where)] = setting_value(text)
    elif isinstance(node, dict):
        node[last] = setting_value(text)
    else:
        raise ConfigError(where, f"{parents[-1]!r} holds {shown(node)}, which has no keys")


def _child(node: object, key: str, where: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, key, where)]
    if isinstance(node, dict):
        return node.setdefault(key, {})
    raise ConfigError(where, f"there is no {key!r} in {shown(node)}")


def _index(node: list[Any], key: str, where: str) -> int:
    if not (key.isdecimal() and len(key) < 10) or int(key) >= len(node):
        raise ConfigError(where, f"{key!r} should be a place in a list of {len(node)}, counted from 0")
    return int(key)


def setting_value(text: str) -> Any:
    """A value as TOML reads it; what is no TOML value is a text, so that names need no quotes."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text.strip()
