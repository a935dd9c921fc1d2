"""HEALPix maps from FITS files and into them: what a header says of units, order and signs is used, or told.

Published maps differ in the order of their pixels, the sign of U, the marks of bad pixels and the spelling of units.
Any of these spoils an analysis unseen. A user reads maps and masks here and hands them to `separate`, and writes
separations; the command line does the same. healpy is imported inside the functions: `pip install 'jaxsci[sky]'`.
"""

import contextlib
import importlib.resources
import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..core import suggest
from ..datasets import DAMAGED, FilePath, check_promise, open_unpacked
from ..runs import first_line
from ._given import Given, plain
from ._healpix import nest_to_ring, nside_of, ring_to_nest
from ._noise import UNSEEN
from ._units import conversion, split_unit

if TYPE_CHECKING:
    from astropy.io.fits import HDUList, Header

    from ._separation import Separation

_MISSING = "reading and writing FITS maps takes healpy: install jaxsci[sky]"
_STOKES = {
    "I": ("I", "T", "I_STOKES", "TEMPERATURE", "I_POLARISATION", "INTENSITY", "SIGNAL", "TT"),
    "Q": ("Q", "Q_STOKES", "Q_POLARISATION", "Q_POLARIZATION", "Q-POLARISATION", "Q-POLARIZATION"),
    "U": ("U", "U_STOKES", "U_POLARISATION", "U_POLARIZATION", "U-POLARISATION", "U-POLARIZATION"),
}
_MOST_AXES, _BLOCK = 999, 2880  # of the FITS standard 4.0, sections 4.4.1 and 3.1: axes or columns, bytes
_ORDERS = {"RING": False, "NESTED": True, "NEST": True}
_THERMODYNAMIC = ("", "CMB", "_CMB", "(CMB)", ",THERMODYNAMIC", "_THERMO")
_ANTENNA = ("RJ", "_RJ", "(RJ)", ",ANTENNA", "_ANTENNA")


class SkyMap(NamedTuple):
    """Hold a map as a file has it: `values` (s, pixel), NaN and bad values UNSEEN, and what the header says of it.

    `units`: of each column, `None` where the header says nothing. `coordinates`: `"G"`, `"C"`, `"E"` or `""`. `masks`:
    what the file has of masks that were not asked for, columns and tables.
    """

    values: np.ndarray
    names: tuple[str, ...]
    units: tuple[str | None, ...]
    nest: bool
    coordinates: str
    masks: tuple[str, ...]


def bundled(name: str | None = None) -> Any:
    """Find a map that comes with the package: its path, or, without a name, the names of all of them.

    **Raises:** `ValueError` for an unknown name.
    """
    folder = Path(str(importlib.resources.files("jaxsci"))) / "data" / "compsep"
    names = tuple(sorted(path.name for path in folder.glob("*.fits")))
    if name is None:
        return names
    if name not in names:
        raise ValueError(f"no map {name!r} comes with the package{suggest(name, names)} (maps: {', '.join(names)})")
    return folder / name


def unit_of(text: str) -> str:
    """Tell the unit that a header's TUNIT means, in the words of `conversion`: `"mK"` is `"mK_CMB"`, as WMAP has it.

    **Raises:** `ValueError` for one that is not known.
    """
    short = text.strip().strip("'").replace(" ", "").replace("µ", "u").replace("μ", "u").replace("muK", "uK")
    if short.upper() in ("MJY/SR", "MJY*SR^-1", "MJYSR-1"):
        return "MJy/sr"
    if short.upper() in ("Y_SZ", "YSZ"):
        return "y_SZ"
    if short in ("uy_SZ", "my_SZ", "ny_SZ"):
        return short
    head, kelvin, tail = short.partition("K")
    for base, tails in (("K_CMB", _THERMODYNAMIC), ("K_RJ", _ANTENNA)):
        if kelvin and head in ("", "m", "u", "n") and tail.upper() in tails:
            return head + base
    raise ValueError(f"unknown unit {text!r} in a header: it should be like mK, uK_CMB, K_RJ or MJy/sr")


def read_sky_map(path: str | os.PathLike[str], fields: Sequence[str] | None = None, hdu: int = 1) -> SkyMap:
    """Read a map as it is in a file, in the order that its header names.

    **Arguments:** `fields`: Stokes parameters I, Q, U or names of columns; `None` for those of I, Q, U that there are.
    `hdu`: of the table. Partial skies become full ones; what is missing is UNSEEN, and so is what the header marks by
    BAD_DATA or TNULL. U of a file with POLCCONV = IAU changes its sign, since HEALPix counts angles the other way
    (COSMO, which a file that says nothing means). A plain K in a file with TEMPTYPE = ANTENNA is K_RJ.

    **Warns:** of masks in the file that are not read, since bad pixels need not be marked in the map itself.

    **Raises:** `ValueError` for a file that is no HEALPix map, lacks a column, an order or the pixels of its NSIDE, and
    for words of POLCCONV, TEMPTYPE and units that are not known or contradict each other.
    """
    healpy = _healpy()
    with opened_fits(path) as file:
        header, columns = _table(file, hdu, path)
        names = _wanted(fields, columns, path)
        nest, nside = _order(header, path), _nside(header, path)
        iau = _iau(header, file[0].header, path)
        units = tuple(_unit(columns[name], header, f"{path}, column {name}") for name in names)
        coordinates = str(header.get("COORDSYS", "")).strip()[:1].upper()
        marks = [header.get("BAD_DATA"), *(_null(header, name) for name in names)]
        masks = tuple(name for name in (*columns, *(table.name for table in file[1:])) if _is_mask(name, names))
        rows = int(header["NAXIS1"]) * int(header["NAXIS2"])
        check_promise(12.0 * nside**2 * 8 * len(names), rows, f"{path}, by its NSIDE {nside},")
        try:
            values = np.atleast_2d(healpy.read_map(file, field=names, hdu=hdu, nest=None, dtype=np.float64))
        except DAMAGED as error:
            raise ValueError(
                f"{path} cannot be read as a map of NSIDE {nside} ({12 * nside**2} pixels): {error}"
            ) from error
        if values.shape != (len(names), 12 * nside**2):
            raise ValueError(f"{path} has {values.shape[-1]} pixels, but its NSIDE {nside} needs {12 * nside**2}")
    bad = ~np.isfinite(values) | (values <= 0.99 * UNSEEN)
    for mark in marks:
        if isinstance(mark, int | float):
            bad |= np.isclose(values, mark, rtol=1e-6, atol=0)  # it may have been rounded to single precision
    values = np.where(bad, UNSEEN, values)
    if iau:
        flip = np.array([name.upper() in _STOKES["U"] for name in names])
        values = np.where(flip[:, None] & (values != UNSEEN), -values, values)
    if masks:
        warnings.warn(
            f"{path} has masks that are not read: {', '.join(masks)}. Where they are to count, give "
            f"jaxsci.compsep.io.read_mask(path, field={masks[0]!r}) as mask=",
            stacklevel=2,
        )
    return SkyMap(values, tuple(names), units, nest, coordinates, masks)


@contextlib.contextmanager
def opened_fits(path: FilePath) -> "Iterator[HDUList]":
    """A FITS file to read, whose headers and tables were looked at: nothing in it promises more than the file has.

    **Raises:** `ValueError` where it is none, is damaged or cut short; `FileNotFoundError`.
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyUserWarning

    with open_unpacked(path) as content:
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        try:
            with warnings.catch_warnings():
                # accents in a comment are no reason to speak; what is cut short or no table is an error below
                warnings.simplefilter("ignore", AstropyUserWarning)
                _check_counts(content, size)
                file = fits.open(content, memmap=False)
                ends = [(hdu.name, hdu.fileinfo()["datLoc"] + hdu.size) for hdu in file]
        except (*DAMAGED, fits.VerifyError) as error:
            why = first_line(error).partition(" If this is really")[0]  # astropy's own remedy is none here
            raise ValueError(f"{path} is no FITS file, or a damaged one: {why}") from error
        for name, end in ends:
            if end > size:
                raise ValueError(f"{path} is cut short: {name or 'a table'} ends at byte {end}, the file at {size}")
        try:
            yield file
        except (*DAMAGED, fits.VerifyError) as error:
            if isinstance(error, ValueError) and str(path) in str(error):
                raise
            raise ValueError(f"{path} is a damaged FITS file: {first_line(error)}") from error


def _check_counts(content: io.BufferedIOBase, size: int) -> None:
    """Refuse headers that promise more axes or columns than the FITS standard allows: astropy would count to them.

    What else is wrong with a file is left to astropy, which reads it after this.
    """
    from astropy.io import fits

    at = 0
    while at < size:
        content.seek(at)
        try:
            header = fits.Header.fromfile(content)
            counts = {name: header.get(name, 0) for name in ("NAXIS", "TFIELDS")}
        except (*DAMAGED, fits.VerifyError):
            break
        for name, count in counts.items():
            if not isinstance(count, int) or not 0 <= count <= _MOST_AXES:
                raise ValueError(f"{name} should be a whole number up to {_MOST_AXES}, but it is {count}")
        sizes = [header.get(f"NAXIS{k + 1}", 0) for k in range(counts["NAXIS"])]
        words = [header.get("BITPIX", 8), header.get("PCOUNT", 0), header.get("GCOUNT", 1), *sizes]
        if not all(isinstance(word, int) for word in words):
            break
        bits, extra, groups = words[:3]
        data = abs(bits) // 8 * groups * (extra + (math.prod(sizes) if sizes else 0))
        at = content.tell() + max(data + -data % _BLOCK, 0)
    content.seek(0)


def read_map(
    path: str | os.PathLike[str],
    units: str = "uK_CMB",
    *,
    fields: Sequence[str] | None = None,
    assume: str | None = None,
    frequency: float | None = None,
    nside: int | None = None,
    coordinates: str | None = None,
    nest: bool = False,
) -> np.ndarray:
    """Read a map in these units and this order.

    **Arguments:** `units`: of the answer. `fields`: as in `read_sky_map`. `assume`: the unit of a file whose header
    names none. `frequency`: GHz, where units of different kinds are converted. `nside`,
    `coordinates`: what the file must have, where its header says anything. `nest`: NESTED order in place of RING.

    **Returns:** (s, pixel), masked pixels UNSEEN.

    **Raises:** `ValueError` where the unit, the order or the resolution is not known, or not what it should be.
    """
    sky = read_sky_map(path, fields)
    found = nside_of(sky.values.shape[1])
    if nside is not None and found != nside:
        raise ValueError(f"{path} has nside {found}, but nside {nside} is needed")
    _check_frame(sky, coordinates, path)
    return _turned(sky, units, assume, frequency, nest, path)


def _turned(
    sky: SkyMap, units: str, assume: str | None, frequency: float | None, nest: bool, path: str | os.PathLike[str]
) -> np.ndarray:
    """(s, pixel) in these units and this order."""
    rows = [
        _converted(row, own or assume, units, frequency, f"{path}, column {name}")
        for row, own, name in zip(sky.values, sky.units, sky.names, strict=True)
    ]
    values = np.stack(rows)
    if sky.nest == nest:
        return values
    side = nside_of(values.shape[1])
    return values[:, nest_to_ring(side) if nest else ring_to_nest(side)]


def read_maps(
    paths: Sequence[str | os.PathLike[str]],
    units: str = "uK_CMB",
    *,
    frequencies: Sequence[float] | None = None,
    fields: Sequence[str] | None = None,
    assume: str | None = None,
    nest: bool = False,
) -> np.ndarray:
    """Read the maps of several channels, as `separate` takes them.

    **Arguments:** as in `read_map`; `frequencies`: of the channels, GHz, one for each file.

    **Returns:** (f, s, pixel).

    **Raises:** `ValueError` also where resolutions, coordinates or Stokes parameters differ between the files.
    """
    skies = [read_sky_map(path, fields) for path in paths]
    for path, sky in zip(paths[1:], skies[1:], strict=True):
        for what, own, first in (
            ("nside", nside_of(sky.values.shape[1]), nside_of(skies[0].values.shape[1])),
            ("coordinates", sky.coordinates or "?", skies[0].coordinates or "?"),
            ("columns", len(sky.names), len(skies[0].names)),
        ):
            if own != first:
                raise ValueError(f"{path} has {what} {own}, but {paths[0]} has {first}: all channels need the same")
    nus = frequencies if frequencies is not None else [None] * len(paths)
    return np.stack(
        [_turned(sky, units, assume, nu, nest, path) for sky, nu, path in zip(skies, nus, paths, strict=True)]
    )


def read_mask(
    path: str | os.PathLike[str],
    *,
    field: str | None = None,
    threshold: float = 0.5,
    coordinates: str | None = None,
    nest: bool = False,
) -> np.ndarray:
    """Read a mask, True = used: where the values of a column are above the threshold.

    **Arguments:** `field`: the column, the first by default. `coordinates`: those of the maps, which the file must have
    where its header says anything. `nest`: NESTED order in place of RING.

    **Raises:** `ValueError` as `read_sky_map`, and for other coordinates.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*has masks that are not read")  # a mask is what is read here
        sky = read_sky_map(path, None if field is None else [field])
    _check_frame(sky, coordinates, path)
    mask = sky.values[0] > threshold
    if sky.nest == nest:
        return mask
    nside = nside_of(mask.size)
    return mask[nest_to_ring(nside) if nest else ring_to_nest(nside)]


def write_map(
    path: str | os.PathLike[str],
    values: Given,
    units: str | Sequence[str],
    *,
    names: Sequence[str] | None = None,
    nest: bool = False,
    coordinates: str = "G",
    overwrite: bool = False,
) -> None:
    """Write a map in double precision.

    **Arguments:** `values`: (s, pixel) or (pixel,); NaN, and what a mask hides, becomes UNSEEN. `units`: of all columns
    or of each. `names`: of the columns, the Stokes parameters by default. `nest`: whether `values` are in NESTED order.
    `coordinates`: G, C, E.

    **Raises:** `ValueError` for a wrong number of pixels or names; `FileExistsError` unless `overwrite`.
    """
    healpy = _healpy()
    rows = np.atleast_2d(np.asarray(plain(values, "values", units if isinstance(units, str) else ""), float))
    nside_of(rows.shape[1])
    default = {1: ("I_STOKES",), 2: ("Q_STOKES", "U_STOKES"), 3: ("I_STOKES", "Q_STOKES", "U_STOKES")}
    labels = default.get(len(rows)) if names is None else tuple(names)
    every = (units,) * len(rows) if isinstance(units, str) else tuple(units)
    if labels is None or len(labels) != len(rows) or len(every) != len(rows):
        raise ValueError(f"{len(rows)} maps need as many names and units, but there are {labels} and {every}")
    if Path(path).exists() and not overwrite:
        raise FileExistsError(f"{path} is there already; overwrite=True replaces it")
    whole = np.where(np.isfinite(rows), rows, UNSEEN)
    columns: dict[str, Any] = {"column_names": labels, "column_units": every, "coord": coordinates}
    if any(label.upper() in _STOKES["U"] for label in labels):
        columns["extra_header"] = [("POLCCONV", "COSMO")]
    healpy.write_map(path, list(whole), nest=nest, dtype=np.float64, overwrite=True, **columns)


def write_separation(
    folder: str | os.PathLike[str], separation: "Separation", *, nest: bool = False, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write a separation: a file for each component with its errors, the spectral parameters, chi2.

    **Arguments:** `folder`: made where there is none. `nest`: the order of its pixels. `overwrite`: files that exist.

    **Returns:** the files.

    **Raises:** `FileExistsError` for a file that is there already, unless `overwrite`.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"nest": nest, "overwrite": overwrite}
    written = []
    stokes = [f"{letter}_STOKES" for letter in separation.stokes]
    for k, name in enumerate(separation.components):
        rows = np.concatenate([np.asarray(separation.amplitudes[k]), np.asarray(separation.errors[k])])
        columns = stokes + [f"{letter}_ERROR" for letter in separation.stokes]
        written.append(target / f"{name}.fits")
        write_map(written[-1], rows, separation.amplitude_units[k], names=columns, **options)
    if separation.free:
        names = [n for name in separation.free for n in (name, f"{name}.error")]
        maps = [m for n in separation.free for m in (separation.parameter_map(n), separation.error_map(n))]
        written.append(target / "parameters.fits")
        write_map(written[-1], np.stack([np.asarray(m) for m in maps]), "", names=names, **options)
    written.append(target / "chi2.fits")
    write_map(written[-1], separation.chi2, "", names=["CHI2"], **options)
    return tuple(written)


def _healpy() -> Any:
    try:
        import healpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_MISSING) from error
    return healpy


def _table(file: "HDUList", hdu: int, path: str | os.PathLike[str]) -> "tuple[Header, dict[str, str]]":
    """(header, {column: unit}) of a table."""
    if not 0 < hdu < len(file) or "TTYPE1" not in file[hdu].header:
        raise ValueError(f"{path} has no table in extension {hdu}: it is no HEALPix map")
    header = file[hdu].header
    count = int(header["TFIELDS"])
    explicit = str(header.get("INDXSCHM", "")).strip() == "EXPLICIT" or str(header.get("OBJECT", "")) == "PARTIAL"
    kept = range(2 if explicit else 1, count + 1)
    columns = {str(header[f"TTYPE{k}"]).strip(): str(header.get(f"TUNIT{k}", "")).strip() for k in kept}
    if not columns:
        raise ValueError(f"{path} has no column of values in extension {hdu}: it is no HEALPix map")
    return header, columns


def _wanted(fields: Sequence[str] | None, columns: dict[str, str], path: str | os.PathLike[str]) -> list[str]:
    upper = {name.upper(): name for name in columns}
    found = {letter: next((upper[n] for n in names if n in upper), None) for letter, names in _STOKES.items()}
    if fields is None:
        present = [name for name in found.values() if name is not None]
        return present or [next(iter(columns))]
    out = []
    for field in fields:
        name = found.get(field) or upper.get(field.upper())
        if name is None:
            raise ValueError(f"{path} has no column {field!r}{suggest(field, columns)} ({', '.join(columns)})")
        out.append(name)
    return out


def _order(header: "Header", path: str | os.PathLike[str]) -> bool:
    order = str(header.get("ORDERING", "")).strip().upper()
    if order not in _ORDERS:
        raise ValueError(f"{path}: ORDERING is {order or 'missing'}; without RING or NESTED the pixels have no place")
    return _ORDERS[order]


def _iau(header: "Header", primary: "Header", path: str | os.PathLike[str]) -> bool:
    """Whether angles of polarisation are counted as the IAU does."""
    word = str(header.get("POLCCONV") or primary.get("POLCCONV") or "COSMO").strip().upper()
    if word not in ("IAU", "COSMO"):
        raise ValueError(f"{path}: POLCCONV is {word}; the sign of U is known for COSMO and IAU only")
    return word == "IAU"


def _null(header: "Header", name: str) -> Any:
    """The TNULL of a column of integers."""
    every = range(1, int(header["TFIELDS"]) + 1)
    k = next((k for k in every if str(header.get(f"TTYPE{k}", "")).strip() == name), 0)
    return header.get(f"TNULL{k}")


def _is_mask(name: str, wanted: Sequence[str]) -> bool:
    return "MASK" in name.upper() and name not in wanted


def _check_frame(sky: SkyMap, coordinates: str | None, path: str | os.PathLike[str]) -> None:
    if coordinates and sky.coordinates and sky.coordinates != coordinates:
        raise ValueError(f"{path} has coordinates {sky.coordinates}, but {coordinates} is needed: rotate it first")


def _unit(text: str, header: "Header", what: str) -> str | None:
    """The unit of a column; a plain K is of the kind that TEMPTYPE names."""
    kind = str(header.get("TEMPTYPE", "")).strip().upper()
    bases = {"": "", "THERMO": "K_CMB", "THERMODYNAMIC": "K_CMB", "ANTENNA": "K_RJ", "RJ": "K_RJ"}
    if kind not in bases:
        raise ValueError(f"{what}: TEMPTYPE is {kind}; it should be THERMO or ANTENNA")
    if not text:
        return None
    unit, bare = unit_of(text), text.strip().strip("'").strip().upper().endswith("K")
    base = split_unit(unit)[1]
    if not bases[kind] or base not in ("K_CMB", "K_RJ") or base == bases[kind]:
        return unit
    if bare:
        return unit.removesuffix(base) + bases[kind]
    raise ValueError(f"{what} is in {text}, but TEMPTYPE is {kind}: the file contradicts itself")


def _nside(header: "Header", path: str | os.PathLike[str]) -> int:
    nside = header.get("NSIDE")
    if not isinstance(nside, int) or nside < 1 or nside & (nside - 1):
        raise ValueError(f"{path}: NSIDE is {nside}; it should be a power of two")
    return nside


def _converted(row: np.ndarray, own: str | None, units: str, frequency: float | None, what: str) -> np.ndarray:
    if own is None:
        raise ValueError(f"{what}: the header names no unit (TUNIT); say which it is by assume=")
    (size, base), (wanted, target) = split_unit(own), split_unit(units)
    if frequency is None and base != target:
        raise ValueError(f"{what} is in {own}, but {units} is asked for: that takes the frequency of the channel")
    factor = size / wanted if base == target else float(conversion(jnp.asarray(frequency, float), own, units))
    return np.where(row == UNSEEN, UNSEEN, row * factor)
