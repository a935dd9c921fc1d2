"""What a config of `task = "compsep"` describes, read and checked: components, instrument, calibration, sky.

Maps come from FITS files or are simulated from templates, whose truth is then known and compared with. The task calls
`read_mixing`, `read_instrument` and `read_sky`, whose errors name the table and the key.
"""

import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ... import compsep
from ...core import Normal, free_spec
from ...datasets import read_arrays
from ...runs import CLASS_ERRORS, Config, ConfigError, Registry, check_keys, first_line, flatten, shown, take
from .. import io
from .._mixing import CALIBRATION
from .._patches import lay_out

_INSTRUMENT = ("name", "frequency", "depth_i", "depth_p", "fwhm")
_CALIBRATION = ("gain", "angle", "gain_sigma", "angle_sigma")
_SKY = (
    "templates",
    "seed",
    "noise",
    "varies",
    "maps",
    "assume",
    "mask",
    "sigma",
    "stokes",
    "units",
    "cmb",
    "resolution",
)
_PARTS = ("cmb_uKcmb", "dust353_uKrj", "sync30_uKrj")
_TEMPLATES = {"dust.beta": "beta_d", "dust.temp": "temp_d", "sync.beta": "beta_s"}


@dataclasses.dataclass(frozen=True)
class SkyData:
    """Maps (f, s, pixel) with what is known of them: noise sigma (f, s), mask, the truth of simulated ones.

    `noisy`: False where they were simulated without the noise that sigma tells of. `resolution`: the beam
    that they were smoothed to, arcmin, after which noise hangs together between pixels; `None` for maps as they were.
    """

    maps: np.ndarray
    sigma: np.ndarray
    mask: np.ndarray | None
    stokes: str
    units: str
    source: str
    truth: dict[str, np.ndarray]
    cmb: np.ndarray | None
    noisy: bool = True
    resolution: float | None = None


def read_calibration(tables: Mapping[str, Any], f: int) -> tuple[compsep.Calibration | None, dict[str, Normal]]:
    """What `[calibration]` says of f channels, and the Gaussian priors of gains and angles (degrees) around it."""
    table = take(tables, "calibration", dict, "")
    if table is None:
        return None, {}
    check_keys(table, _CALIBRATION, "calibration")
    given = {key: np.broadcast_to(_numbers(table, key, f), (f,)) for key in _CALIBRATION if key in table}
    if "angle_sigma" in given and "angle" not in given:
        given["angle"] = np.zeros(f)
    gain, angle = given.get("gain", np.ones(f)), given.get("angle")
    found = compsep.Calibration(f, gain=gain, angle=angle)
    priors = {
        f"{CALIBRATION}.{name}.{what}": Normal(middle[k], given[f"{what}_sigma"][k])
        for what, middle in (("gain", gain), ("angle", angle))
        if middle is not None and f"{what}_sigma" in given
        for k, name in enumerate(found.names)
    }
    return found, priors


def _numbers(table: Mapping[str, Any], key: str, f: int) -> np.ndarray:
    """A number, or one for each channel; those of a prior's width are positive."""
    values = np.asarray(take(table, key, (int, float, list), "calibration"), float)
    if values.shape not in ((), (f,)) or (key.endswith("sigma") and not np.all(values > 0)):
        raise ConfigError(
            f"calibration.{key}", f"should be one number or {f}, one for each channel, but it is {shown(table[key])}"
        )
    return values


def read_mixing(
    tables: Mapping[str, Any], registry: Registry, calibration: compsep.Calibration | None = None
) -> compsep.MixingMatrix:
    """The components of `[components]`, in order."""
    entries = take(tables, "components", dict, "", {})
    if not entries:
        raise ConfigError("components", 'there are none: give at least [components.cmb] with type = "CMB"')
    spectra = registry["spectra"].classes
    parts = {name: _component(entry, f"components.{name}", spectra) for name, entry in entries.items()}
    return compsep.MixingMatrix(calibration=calibration, **parts)


def _component(entry: Any, where: str, spectra: Mapping[str, type]) -> Any:
    if not isinstance(entry, dict):
        raise ConfigError(where, f"should be a table, but it is {shown(entry)}")
    kind = take(entry, "type", str, where)
    if kind not in spectra:
        raise ConfigError(f"{where}.type", f"should be one of {', '.join(spectra)}, but it is {shown(kind)}")
    cls = spectra[kind]
    arguments = {key: value for key, value in entry.items() if key != "type"}
    known = inspect.signature(cls).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        check_keys(arguments, list(known), where)
    try:
        return cls(**{k: jnp.asarray(v, float) if isinstance(v, list) else v for k, v in arguments.items()})
    except CLASS_ERRORS as error:
        raise ConfigError(where, first_line(error)) from error


def read_instrument(tables: Mapping[str, Any]) -> compsep.Instrument:
    """A bundled instrument by name, or one of `[instrument]`'s own numbers."""
    table = take(tables, "instrument", dict, "", {})
    check_keys(table, _INSTRUMENT, "instrument")
    try:
        if "name" in table and "frequency" not in table:
            return compsep.Instrument.named(table["name"])
        rows: dict[str, Any] = {key: jnp.asarray(table[key], float) for key in _INSTRUMENT[1:] if key in table}
        return compsep.Instrument(**rows, name=table.get("name", ""))
    except CLASS_ERRORS as error:
        raise ConfigError("instrument", first_line(error)) from error


def read_sky(config: Config, instrument: compsep.Instrument) -> SkyData:
    """The maps of `[sky]`: FITS files, or simulated from templates."""
    table = take(config.tables, "sky", dict, "", {})
    check_keys(table, _SKY, "sky")
    stokes = take(table, "stokes", str, "sky", "QU")
    if stokes not in ("I", "QU", "IQU"):
        raise ConfigError("sky.stokes", f'should be "I", "QU" or "IQU", but it is {shown(stokes)}')
    if ("maps" in table) == ("templates" in table):
        raise ConfigError("sky", "give maps, FITS files of the channels, or templates to simulate from")
    try:
        read = _simulated if "templates" in table else _observed
        return read(config, table, instrument, stokes)
    except CLASS_ERRORS as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("sky", first_line(error)) from error


def _observed(config: Config, table: dict[str, Any], instrument: compsep.Instrument, stokes: str) -> SkyData:
    units = take(table, "units", str, "sky", "uK_CMB")
    paths = [config.resolve(name, f"sky.maps[{k}]") for k, name in enumerate(take(table, "maps", list, "sky"))]
    nus = np.asarray(instrument.frequency).tolist()
    if len(nus) != len(paths):
        raise ConfigError("sky.maps", f"there are {len(paths)} maps, but the instrument has {len(nus)} channels")
    maps = io.read_maps(paths, units, frequencies=nus, fields=stokes, assume=take(table, "assume", str, "sky"))
    mask = None
    if "mask" in table:
        # the maps agree about their coordinates, or they would not have been read
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when the maps were read
            frame = io.read_sky_map(paths[0]).coordinates
        mask = io.read_mask(config.resolve(table["mask"], "sky.mask"), coordinates=frame)
    sigma = (
        np.asarray(table["sigma"], float)
        if "sigma" in table
        else np.asarray(instrument.sigma(maps.shape[2], stokes, units))
    )
    if sigma.shape != maps.shape[:2]:
        raise ConfigError("sky.sigma", f"should be {len(nus)} rows of {len(stokes)}, the noise of a pixel in {units}")
    resolution = take(table, "resolution", (int, float), "sky")
    if resolution is not None:
        if instrument.fwhm is None:
            raise ConfigError("sky.resolution", "takes an instrument whose beams are known: give instrument.fwhm")
        smooth = compsep.common_resolution(maps, instrument.fwhm, float(resolution))
        maps, sigma = np.asarray(smooth.maps), sigma * np.asarray(smooth.noise)
    source = ", ".join(path.name for path in paths)
    return SkyData(maps, sigma, mask, stokes, units, source, {}, None, resolution=resolution)


def _simulated(config: Config, table: dict[str, Any], instrument: compsep.Instrument, stokes: str) -> SkyData:
    if "resolution" in table:
        raise ConfigError("sky.resolution", "is for maps from files: templates have no beam")
    path = config.resolve(take(table, "templates", str, "sky"), "sky.templates")
    parts = {name: np.asarray(array, float) for name, array in read_arrays(path).items()}
    missing = [name for name in (*_PARTS, *_TEMPLATES.values()) if name not in parts]
    if missing:
        raise ConfigError("sky.templates", f"{path.name} has no {', '.join(missing)}; it has {', '.join(parts)}")
    rows = ["IQU".index(letter) for letter in stokes]
    varies = flatten(take(table, "varies", dict, "sky", {}))
    check_keys(varies, list(_TEMPLATES), "sky.varies")
    truth = {
        name: _averaged(parts[key], varies[name], f"sky.varies.{name}") if name in varies else parts[key]
        for name, key in _TEMPLATES.items()
    }
    cmb = parts["cmb_uKcmb"][rows] * float(take(table, "cmb", (int, float), "sky", 1.0))
    maps = _foregrounds(instrument, parts, truth, rows) + cmb
    sigma = np.asarray(instrument.sigma(maps.shape[2], stokes))
    noisy = take(table, "noise", bool, "sky", True)
    if noisy:
        seed = take(table, "seed", int, "sky", 1)
        maps = maps + np.random.default_rng(seed).normal(size=maps.shape) * sigma[:, :, None]
    mask = None if "mask" not in table else io.read_mask(config.resolve(table["mask"], "sky.mask"))
    return SkyData(maps, sigma, mask, stokes, "uK_CMB", Path(path).name, truth, cmb, noisy)


def _averaged(values: np.ndarray, nside: Any, where: str) -> np.ndarray:
    """A map replaced by its means over coarser pixels."""
    if not isinstance(nside, int):
        raise ConfigError(where, f"should be an nside, or 0 for one value, but it is {shown(nside)}")
    patch = lay_out(["x"], {"x": nside}, np.ones(values.size, bool)).element["x"]
    return (np.bincount(patch, values) / np.bincount(patch))[patch]


def _foregrounds(
    instrument: compsep.Instrument, parts: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], rows: list[int]
) -> np.ndarray:
    """Dust and synchrotron as templates and parameter maps have them, uK_CMB."""
    mixing = compsep.MixingMatrix(dust=compsep.ModifiedBlackBody(), sync=compsep.PowerLaw())
    moving, rest = eqx.partition(mixing, free_spec(mixing, list(truth)))
    structure = jtu.tree_structure(moving)

    def one(values: list[Any]) -> Any:
        return eqx.combine(jtu.tree_unflatten(structure, values), rest).eval(instrument.nu)

    A = np.asarray(jax.vmap(one)([jnp.asarray(values) for values in truth.values()]))
    to_cmb = [float(compsep.conversion(jnp.asarray(nu), "uK_RJ", "uK_CMB")) for nu in (353.0, 30.0)]
    amplitudes = np.stack([parts["dust353_uKrj"][rows] * to_cmb[0], parts["sync30_uKrj"][rows] * to_cmb[1]])
    return np.einsum("pfc,csp->fsp", A, amplitudes)
