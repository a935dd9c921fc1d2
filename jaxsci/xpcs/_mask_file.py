"""Masks as tables: in a TOML config, in JSON, and in HDF5 beside the pixels that they use.

A table names the class of a mask as its `type` and gives its arguments, as every object of a config is written, and may
hold other tables. Reading goes through the one door of configs, so a misspelt name is answered with the nearest one.
The task of this room calls `masks_from_tables`; users save and load a `MaskHistory`.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core import AnyArray
from ..datasets import CONFIG_BYTES, find_item, parse_json, read_dataset, read_text
from ..runs import Kind, Registry, construct, write_whole
from ._mask import (
    AbstractMask,
    And,
    BadPixels,
    Blemish,
    Circle,
    Ellipse,
    Line,
    MapRange,
    MaskHistory,
    Not,
    Or,
    Outliers,
    PixelMask,
    Polygon,
    Rectangle,
    Threshold,
)

_CLASSES = (And, Or, Not, Threshold, PixelMask, BadPixels, Blemish, MapRange, Outliers)

MASKS = Kind(
    "mask",
    (AbstractMask,),
    {cls.__name__: cls for cls in (*_CLASSES, Circle, Ellipse, Rectangle, Line, Polygon)},
)
"""The masks that a config may name."""

_REGISTRY: Registry = {"masks": MASKS}
_FORMAT = "jaxsci masks 1"


Resolve: TypeAlias = Callable[[object, str], Path]
"""From the name of a file, as a config has it, and its place there to the file; `Config.resolve` is one."""


def masks_from_tables(
    tables: Sequence[object], where: str = "mask", registry: Registry = _REGISTRY, resolve: Resolve | None = None
) -> MaskHistory:
    """Build a history from tables such as `{type = "Circle", centre = [60, 41], radius = 8}`, applied in their order.

    **Arguments:** `tables`: of a config, or of `tables_of_masks`. `where`: their place, for messages. `registry`: what
    they may name; the masks of this package by default. `resolve`: finds the files that blemishes name; `None` for
    paths from the working folder.

    **Raises:** `ConfigError` for an unknown class or argument, a missing one, a value of the wrong type or shape.
    """
    found = [_resolved(table, f"{where}[{i}]", resolve) for i, table in enumerate(tables)]
    return MaskHistory(construct(table, "masks", registry, f"{where}[{i}]") for i, table in enumerate(found))


def _resolved(table: object, where: str, resolve: Resolve | None) -> object:
    """The same table, with the files that it and its inner tables name as their paths."""
    if isinstance(table, list):
        return [_resolved(item, f"{where}[{i}]", resolve) for i, item in enumerate(table)]
    if not isinstance(table, dict) or resolve is None:
        return table
    inner = {key: _resolved(value, f"{where}.{key}", resolve) for key, value in table.items()}
    if table.get("type") == "Blemish" and "path" in table:
        inner["path"] = str(resolve(table["path"], f"{where}.path"))
    return inner


def tables_of_masks(history: MaskHistory) -> list[dict[str, Any]]:
    """Write the masks of a history as tables, of which `masks_from_tables` makes the same masks again."""
    return [_encoded(mask) for mask in history.masks]


def write_masks(path: str | Path, history: MaskHistory, used: AnyArray | None = None) -> None:
    """Save a history of masks as JSON, or as HDF5 where the name ends in `.h5`, `.hdf5` or `.hdf`.

    **Arguments:** `path`: of the file, which is written whole or not at all. `used`: the pixels that the masks use, for
    programs that read only these; HDF5 keeps them as the dataset `mask`.

    **Raises:** `ValueError` for pixels beside JSON, which would not hold them.
    """
    path, text = (
        Path(path),
        json.dumps({"format": _FORMAT, "cursor": history.cursor, "masks": tables_of_masks(history)}, indent=1),
    )
    if path.suffix not in (".h5", ".hdf5", ".hdf"):
        if used is not None:
            raise ValueError(f"{path.name} is JSON, which does not keep pixels: give a name that ends in .h5")
        write_whole(path, text + "\n")
        return
    from ._qmap_file import written

    with written(path) as file:
        file["history"] = text
        if used is not None:
            file.create_dataset("mask", data=np.asarray(used, np.uint8), compression="gzip")


def read_masks(path: str | Path) -> MaskHistory:
    """Load what `write_masks` saved.

    **Raises:** `ValueError` naming the file where it holds no masks; `ConfigError` where one of them is wrong.
    """
    path = Path(path)
    text = _text(path)
    try:
        found = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path} holds no masks: {error}") from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ValueError(f"{path} holds no masks that were saved by write_masks")
    tables, cursor = found.get("masks"), found.get("cursor")
    if not isinstance(tables, list) or type(cursor) is not int:
        raise ValueError(f"{path} holds no masks that were saved by write_masks: it has no list, or no cursor")
    return MaskHistory(masks_from_tables(tables, path.name).masks, cursor)


def _text(path: Path) -> str:
    if path.suffix not in (".h5", ".hdf5", ".hdf"):
        return read_text(path, CONFIG_BYTES)
    import h5py

    from ._qmap_file import opened

    with opened(path) as file:
        found = find_item(file, "history", path.resolve().parent)
        text = read_dataset(found) if isinstance(found, h5py.Dataset) else b"{}"
    if not isinstance(text, bytes):
        raise ValueError(f"{path} holds no masks that were saved by write_masks: its history is no text")
    return text.decode("utf-8", "replace")


def _encoded(mask: AbstractMask) -> dict[str, Any]:
    if isinstance(mask, Blemish):
        return {"type": "Blemish", "path": mask.path, "dataset": mask.dataset}
    fields = {field.name: getattr(mask, field.name) for field in dataclasses.fields(mask)}
    return {"type": type(mask).__name__} | {k: _value(v) for k, v in fields.items() if not _endless(v)}


def _value(value: object) -> object:
    if isinstance(value, AbstractMask):
        return _encoded(value)
    if isinstance(value, tuple):
        return [_value(part) for part in value]
    return np.asarray(value).tolist() if eqx.is_array(value) else value


def _endless(value: object) -> bool:
    """A limit at infinity, which is left out because JSON has no word for it."""
    return isinstance(value, jax.Array) and value.ndim == 0 and not bool(jnp.isfinite(value))
