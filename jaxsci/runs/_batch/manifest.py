"""The list of items of a batch: TOML or CSV, one row for each, read and checked before anything runs.

A row names an item and its config; what else it says are settings of that config, as `jaxsci run --set` takes them. So
an item is no more than a run with settings of its own, and a manifest is data: it can import and run nothing.
"""

import csv
import dataclasses
import glob
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...datasets import parse_toml, read_text
from .._config import BUNDLED, Config, check_keys, flatten, read_config, shown, take
from .._errors import ConfigError
from .._sciences import DEFAULT, task_named

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")
"""What an item may be called: it is the name of its folder too."""

_BYTES = 2**26  # of a manifest: some hundred thousand items
_OWN = ("name", "config")


@dataclasses.dataclass(frozen=True)
class Item:
    """One row: a name, a config file, the settings that change it, the science, and where the manifest says so."""

    name: str
    config: str
    settings: tuple[str, ...]
    science: str
    row: str

    @property
    def kind(self) -> tuple[str, tuple[str, ...]]:
        """Equal for items that set the same keys of one config."""
        return self.config, tuple(setting.partition("=")[0] for setting in self.settings)


def read_manifest(path: Path, allow_outside: bool = False) -> tuple[Item, ...]:
    """Read a manifest and check its rows, each config with its settings among them, without loading data.

    **Arguments:** `allow_outside`: configs may lie outside the manifest's folder.

    **Raises:** `ConfigError` naming manifest and row: a name twice or one that is no name of a folder, a config that is
    not there, a setting that fits nothing.
    """
    if path.suffix not in (".toml", ".csv") or not path.is_file():
        what = (
            "there is no such file"
            if path.suffix in (".toml", ".csv")
            else "a manifest should be a .toml or a .csv file"
        )
        raise ConfigError(str(path), what)
    try:
        text = read_text(path, _BYTES)
        rows = _csv_rows(text) if path.suffix == ".csv" else _toml_rows(text, path.parent)
        items = tuple(_item(row, where, path, allow_outside) for where, row in rows)
        if not items:
            raise ConfigError("", "it has no items: give each a row of its own, with a name and a config")
        _unique(items)
    except ConfigError as error:
        raise ConfigError(path.name, str(error)) from error
    except (ValueError, csv.Error) as error:
        raise ConfigError(path.name, f"this cannot be read: {error}") from error
    return items


def _csv_rows(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of each line but blank ones; the settings of a row are the cells that are not empty."""
    reader = csv.reader(io.StringIO(text), strict=True)
    head = [cell.strip() for cell in next(reader, [])]
    if len(set(head)) < len(head) or not all(head):
        raise ConfigError("row 1", f"the columns should have names, each its own: {', '.join(head)}")
    for cells in reader:
        where = f"row {reader.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(head):
            raise ConfigError(where, f"it has {len(cells)} cells, and there are {len(head)} columns")
        yield where, {name: cell.strip() for name, cell in zip(head, cells, strict=True) if cell.strip()}


def _toml_rows(text: str, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of each `[[item]]`, and of each file of an `[[each]]`, upon `[defaults]`."""
    tables = parse_toml(text)
    check_keys(tables, ("defaults", "item", "each"), "")
    defaults = flatten(take(tables, "defaults", dict, "", {}))
    for key in ("item", "each"):
        for k, table in enumerate(take(tables, key, list, "", [])):
            where = f"{key}[{k}]"
            if not isinstance(table, dict):
                raise ConfigError(where, f"should be a table, but it is {shown(table)}")
            row = {**defaults, **flatten(table)}
            if key == "item":
                yield where, _as_settings(row, where)
            else:
                yield from _each(row, where, folder)


def _each(row: dict[str, object], where: str, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A row for each file of a pattern, with `{file}`, `{stem}` and `{folder}` put in.

    Both paths are as the config's own would be: from its folder where they lie in it, absolute elsewhere.
    """
    pattern, config = (take(row, key, str, where, "") for key in ("files", "config"))
    found = sorted(path for path in glob.glob(pattern, root_dir=folder, recursive=True) if (folder / path).is_file())
    if not found:
        raise ConfigError(f"{where}.files", f"no file is like {pattern!r} in {folder.resolve()}")
    home = (folder / config).resolve().parent
    for name in found:
        path = (folder / name).resolve()
        inside = path.is_relative_to(home) and not config.startswith(BUNDLED)
        said = path.relative_to(home) if inside else path
        words = {"{file}": said.as_posix(), "{stem}": path.stem, "{folder}": said.parent.as_posix()}
        filled = {key: _filled(value, words) for key, value in {"name": "{stem}", **row}.items() if key != "files"}
        yield f"{where} ({name})", _as_settings(filled, where)


def _filled(value: object, words: Mapping[str, str]) -> object:
    """A value with the words put into all of its texts."""
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(word, text)
    return value


def _as_settings(row: Mapping[str, object], where: str) -> dict[str, str]:
    """Name and config as they are, all else as the text of a setting, which is TOML."""
    plain = {key: take(row, key, str, where) for key in _OWN if key in row}
    return {**plain, **{key: _toml(value, f"{where}.{key}") for key, value in row.items() if key not in _OWN}}


def _toml(value: object, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return '"' + re.sub(r'[\x00-\x1f\x7f"\\]', lambda found: f"\\u{ord(found[0]):04x}", value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(_toml(item, where) for item in value)}]"
    if isinstance(value, dict):
        pairs = (f"{_toml(str(key), where)} = {_toml(item, where)}" for key, item in value.items())
        return f"{{ {', '.join(pairs)} }}"
    raise ConfigError(where, f"no setting is a {type(value).__name__}")


def _item(row: Mapping[str, str], where: str, manifest: Path, allow_outside: bool) -> Item:
    for key in _OWN:
        if key not in row:
            raise ConfigError(where, f"it has no {key}")
    if not NAME.fullmatch(row["name"]):
        raise ConfigError(
            where,
            f"{row['name']!r} cannot be the name of a folder: it may have letters, digits and "
            "._+-, and starts with a letter or a digit",
        )
    config = row["config"]
    if not config.startswith(BUNDLED):
        config = str(Config(manifest, {}, allow_outside).resolve(config, where))
    settings = tuple(f"{key}={value}" for key, value in row.items() if key not in _OWN)
    try:
        tables = read_config(config, settings).tables
        science = take(tables, "task", str, "", DEFAULT)
        task_named(science)
    except ConfigError as error:
        raise ConfigError(f"{where}, item {row['name']}", str(error)) from error
    return Item(row["name"], config, settings, science, where)


def _unique(items: tuple[Item, ...]) -> None:
    """A name for each, where some file systems take a and A for one; and one science, whose words the report has."""
    seen: dict[str, Item] = {}
    for item in items:
        if item.science != items[0].science:
            raise ConfigError(
                item.row,
                f"item {item.name} is of the science {item.science}, and those before it of {items[0].science}: "
                "give each science a manifest of its own",
            )
        other = seen.setdefault(item.name.casefold(), item)
        if other is not item:
            raise ConfigError(
                item.row, f"the item of {other.row} is called {other.name!r} too: give each a name of its own"
            )
