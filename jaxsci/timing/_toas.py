"""Times of arrival, with all that a timing model needs to know of the observatory.

Clock corrections, TDB, and the place of the observatory and the planets depend on the tim file and not on the pulsar's
model, and take a second to compute; so they are computed once (`timing.io`) and kept in arrays, which can be stored and
read again without PINT or an ephemeris. `timing._anchor` ties them to a model.
"""

import os
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..core import Module, as_array, require_x64, rows, suggest
from ..datasets import read_arrays

_OPTIONAL = ("planets", "dm", "dm_error", "added")
_ARRAYS = ("day", "second", "second_low", "frequency", "error", "position", "velocity", "sun", "troposphere", "utc")
_COLUMNS = ("TEL", "NAME")  # selected by a column of the tim file, whose names have no dash
_SHAPES = dict.fromkeys(("position", "velocity", "sun"), (3,)) | {"planets": (5, 3)}


class TOAs(Module):
    """n times of arrival in TDB, free of any timing model.

    - `day`, `second`, `second_low`: MJD (TDB) at the observatory: whole day, seconds of the day as a sum of two.
    - `frequency`: MHz, infinity allowed. `error`: microseconds.
    - `position`, `velocity`: of the observatory from the solar-system barycentre (ICRS), lt-s and lt-s/s, shape (n, 3).
    - `sun`: the Sun from the observatory, lt-s, shape (n, 3). `troposphere`: its delay, s.
    - `utc`: MJD (UTC), by which windows of DMX are given.
    - `turn`: the pulse that each TOA is taken for, as a count of turns (the flag -pn); NaN where unknown.
    - `selected`: shape (n, s): which TOAs have each flag. `flags`: those flags, such as `"-f L-wide_PUPPI"`, or a
      telescope, as `"TEL gbt"`, or the name in the first column, as `"NAME x.ar"`; `"-tim_jump 1"` is the first pair
      of JUMPs in the tim file. They are what the par file selects by, and what else `timing.load` keeps.
    - `planets`: Jupiter, Saturn, Venus, Uranus and Neptune from the observatory, lt-s, shape (n, 5, 3), or `None`.
    - `dm`, `dm_error`: the dispersion measured with each TOA (wideband), pc cm^-3, NaN for none; or `None`.
    - `added`: turns that the tim file adds to the phase of each TOA (PHASE, the flag -padd); `None` for none.
    """

    day: Float[Array, " n"] = rows("edge")
    second: Float[Array, " n"] = rows("edge")
    second_low: Float[Array, " n"] = rows("edge")
    frequency: Float[Array, " n"] = rows("edge")
    error: Float[Array, " n"] = rows("edge")
    position: Float[Array, "n 3"] = rows("edge")
    velocity: Float[Array, "n 3"] = rows("edge")
    sun: Float[Array, "n 3"] = rows("edge")
    troposphere: Float[Array, " n"] = rows("edge")
    utc: Float[Array, " n"] = rows("edge")
    turn: Float[Array, " n"] = rows("edge")
    selected: Bool[Array, "n s"] = rows(False)
    flags: tuple[str, ...] = eqx.field(static=True)  # type: ignore[misc]
    planets: Float[Array, "n 5 3"] | None = rows("edge", default=None)
    dm: Float[Array, " n"] | None = rows(jnp.nan, default=None)
    dm_error: Float[Array, " n"] | None = rows(1.0, default=None)
    added: Float[Array, " n"] | None = rows(0.0, default=None)

    def __check_init__(self) -> None:
        require_x64("pulsar timing")
        if len(self.flags) != self.selected.shape[1]:
            raise ValueError(f"there are {len(self.flags)} flags, but selected has {self.selected.shape[1]} columns")

    def __len__(self) -> int:
        return self.day.shape[0]

    def has(self, flag: str) -> np.ndarray:
        """Say which TOAs have a flag, such as `"-fe L-wide"`, or lie in `"MJD 54000 54500"` or `"FREQ 1000 1500"`.

        **Returns:** True or False for each, shape (n,).

        **Raises:** `ValueError` when no TOA has the flag.
        """
        if flag.startswith(("MJD ", "FREQ ")):
            kind, *ends = flag.split()
            try:
                low, high = map(float, ends)
            except ValueError:
                raise ValueError(f"{flag!r} should have two numbers, such as '{kind} 1000 1500'") from None
            values = np.asarray(self.utc if kind == "MJD" else self.frequency)
            return (values >= low) & (values <= high)
        if flag not in self.flags:
            raise ValueError(f"no TOA has the flag {flag!r}{suggest(flag, self.flags)} (there are: {self.flags})")
        return np.asarray(self.selected)[:, self.flags.index(flag)]

    def select(
        self,
        *,
        mjd: tuple[float | int, float | int] | None = None,
        frequency: tuple[float | int, float | int] | None = None,
        flags: Mapping[str, str | Sequence[str]] | None = None,
        invert: bool = False,
    ) -> "TOAs":
        """Keep the TOAs within a range of dates and of frequencies and with some flags, or all others.

        The others may be what DMX windows or JUMPs of the par file were for: a fit warns of each that it frees and
        that no TOA is left for, and gives it an infinite error.

        **Arguments:**

        - `mjd`: from and to, MJD (UTC), both included; infinity leaves an end open.
        - `frequency`: from and to, MHz, both included.
        - `flags`: by name, with or without its dash, the value or the values of which a TOA should have one:
          `{"f": "430_ASP", "be": ["ASP", "PUPPI"]}`; `TEL` is the observatory. A TOA should have all of these flags.
        - `invert`: True keeps the TOAs that do not meet all of that.

        **Returns:** those TOAs, in their order.

        **Raises:** `ValueError` for a range that is none, a flag that no TOA has, and where no TOA is left.
        """
        meets = np.ones(len(self), bool)
        for name, limits, values in (("mjd", mjd, self.utc), ("frequency", frequency, self.frequency)):
            if limits is not None:
                if len(limits) != 2 or not limits[0] <= limits[1]:
                    raise ValueError(f"{name} should be two numbers, from and to, but it is {limits!r}")
                meets &= (np.asarray(values) >= limits[0]) & (np.asarray(values) <= limits[1])
        for name, wanted in (flags or {}).items():
            words = (wanted,) if isinstance(wanted, str) else tuple(wanted)
            key = name if name in _COLUMNS or name.startswith("-") else f"-{name}"
            meets &= np.any([self.has(f"{key} {word}") for word in words], axis=0)
        kept = ~meets if invert else meets
        if not kept.any():
            days, bands = np.asarray(self.utc), np.asarray(self.frequency)
            raise ValueError(
                f"no TOA of {len(self)} is left; they are from MJD {days.min():.2f} to {days.max():.2f} and from "
                f"{bands.min():g} to {bands.max():g} MHz"
            )
        return self.without(np.flatnonzero(~kept))

    def check(self) -> None:
        """Raise `ValueError` for numbers that make no sense, naming the TOA."""
        for name in _ARRAYS:
            values = np.asarray(getattr(self, name)).reshape(len(self), -1)
            bad = np.isnan(values) if name == "frequency" else ~np.isfinite(values)
            if bad.any():
                raise ValueError(f"TOA {int(np.argmax(bad.any(axis=1)))} has a {name} that is not a number")
        for name, low in (("error", np.asarray(self.error) <= 0), ("frequency", np.asarray(self.frequency) <= 0)):
            if low.any():
                raise ValueError(f"TOA {int(np.argmax(low))} has the {name} {float(getattr(self, name)[low][0])}")
        if self.added is not None and not np.isfinite(np.asarray(self.added)).all():
            raise ValueError("the turns that are added to TOAs should be numbers")
        if self.dm is not None:
            wide = np.isfinite(np.asarray(self.dm))
            if self.dm_error is None or (wide & ~(np.asarray(self.dm_error) > 0)).any():
                raise ValueError("every dispersion measured with a TOA needs an error above 0")

    def repeats(self) -> np.ndarray:
        """Find each TOA that is there once more, the same in all its numbers and flags, and the one before it.

        **Returns:** shape (r, 2), in rising order of the first.
        """
        keys = [np.asarray(x) for x in (self.second_low, self.error, self.frequency, self.second, self.day, self.turn)]
        keys += [np.asarray(x) for x in (self.dm, self.dm_error, self.added) if x is not None]
        # NaN is no pulse number, and two of them are the same
        columns = np.nan_to_num(np.stack([*np.asarray(self.selected, float).T, *np.asarray(self.position).T, *keys]))
        order = np.lexsort(columns)  # which keeps the order of those that are equal
        same = (columns[:, order[1:]] == columns[:, order[:-1]]).all(axis=0)
        pairs = np.stack([order[1:][same], order[:-1][same]], axis=1)
        return pairs[np.argsort(pairs[:, 0])]

    def without(self, which: np.ndarray) -> "TOAs":
        """Leave out the TOAs at these places."""
        kept = np.setdiff1d(np.arange(len(self)), which)
        return jax.tree.map(lambda x: as_array(np.asarray(x)[kept]), self)

    def save(self, path: str | os.PathLike[str], remarks: Sequence[str] = ()) -> None:
        """Write to a compressed npz file without pickles, which needs neither PINT nor an ephemeris to be read.

        **Arguments:** `path`: of the file; `remarks`: what was noticed when the TOAs were read, kept for `remarks_of`.
        """
        arrays = {name: np.asarray(getattr(self, name)) for name in (*_ARRAYS, "turn")}
        # a byte for eight TOAs: the flags would be most of the file
        packed = np.packbits(np.asarray(self.selected), axis=0)
        flags = np.array(self.flags, dtype=np.str_)
        there = {name: getattr(self, name) for name in _OPTIONAL}
        arrays |= {name: np.asarray(array) for name, array in there.items() if array is not None}
        arrays |= {"selected": packed, "flags": flags, "remarks": np.array(remarks, dtype=np.str_)}
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "TOAs":
        """Read what `save` wrote.

        **Raises:** `ValueError` when the file is not one of those, saying what it lacks or has beside.
        """
        needed = (*_ARRAYS, "turn", "selected", "flags")
        file = read_arrays(path)
        missing = [name for name in needed if name not in file]
        other = [name for name in file if name not in (*needed, *_OPTIONAL, "remarks")]
        if missing or other:
            lacks = f"it has no {', '.join(missing)}" if missing else ""
            more = f"it has {', '.join(other)}, which this version does not know" if other else ""
            told = " and ".join(part for part in (lacks, more) if part)
            raise ValueError(f"{path} is no file of TOAs: {told}; `TOAs.save` of this version writes one")
        flags = tuple(str(flag) for flag in file["flags"].ravel())
        arrays = {name: file[name] for name in (*_ARRAYS, "turn", *_OPTIONAL) if name in file}
        count, packed = file["day"].size, file["selected"]
        wrong = [f"{n} {x.shape}" for n, x in arrays.items() if x.shape != (count, *_SHAPES.get(n, ()))]
        wrong += [f"{name} of {array.dtype}" for name, array in arrays.items() if array.dtype != np.float64]
        if packed.shape != ((count + 7) // 8, len(flags)) or packed.dtype != np.uint8:
            wrong.append(f"selected {packed.shape} of {packed.dtype} for {len(flags)} flags")
        if wrong:
            raise ValueError(f"{path} is no file of TOAs: there are {count} days, but {', '.join(wrong)}")
        chosen = np.unpackbits(packed, axis=0, count=count).astype(bool).reshape(count, len(flags))
        return TOAs(**{name: as_array(x) for name, x in arrays.items()}, selected=as_array(chosen), flags=flags)


def remarks_of(path: str | os.PathLike[str]) -> list[str]:
    """What was noticed when the TOAs of a file that `TOAs.save` wrote were read from their tim file."""
    return [str(remark) for remark in read_arrays(path, ("remarks",)).get("remarks", np.zeros(0)).ravel()]
