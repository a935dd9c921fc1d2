"""Par files out: what was fitted, with all its digits, as tempo, tempo2 and PINT read it.

The lines of the file that was read stay as they are, in their order; fitted ones get new values, errors and flags. F0
and epochs have more digits than a float64 holds, and so the offset of the fit is added to the exact value of the line.
Users call `write_par`; runs and the command line write one for each pulsar.
"""

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np

from ..core import element_names, get, parameters
from ..parallel import write_atomic
from ._components import SEXAGESIMAL, Line, Par, entry_of
from ._fit import TimingSolution, fixed_phase
from ._model import TimingModel, elements

_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_STALE = {"CHI2", "CHI2R", "TRES", "NITS"}
_REFERENCE = {"TZRMJD", "TZRFRQ", "TZRSITE"}  # a PHOFF is written as counted from PEPOCH, not from there
_WIDTH, _DIGITS = 12, 25
_MORE = Decimal("1e-6")  # of the error: the last digit that is written
_TEMPO = ("RNAMP", "RNIDX")  # what TNREDAMP and TNREDGAM are in tempo's par files
PREFIX = "noise."
"""What the names of noise parameters begin with."""


def par_text(solution: TimingSolution | TimingModel) -> str:
    """Make a par file with the fitted values, errors and fit flags, noise too; the lines of the old one else.

    Names are PINT's. RAJ and DECJ are sexagesimal, with errors in seconds and arcseconds as par files have them. What a
    new fit makes stale (CHI2, TRES) is left out. So are the TZR lines where there is a PHOFF, which is written as
    counted from phase 0 at PEPOCH, since the pulse of TZRMJD moves with the model. An ECORR of 0 becomes a comment:
    PINT divides by it. A model without errors keeps its flags.

    **Returns:** the text, which `TimingModel.parse` and PINT read back to the same residuals.

    **Raises:** `ValueError` for a model that has lost its par file, as in a batch.
    """
    fitted = isinstance(solution, TimingSolution)
    solution = _with_noise(solution) if isinstance(solution, TimingSolution) else solution
    model = solution.model if isinstance(solution, TimingSolution) else solution
    if model.par is None:
        raise ValueError("this model has lost its par file, as in a batch: take the solution of one pulsar")
    std = solution.std if isinstance(solution, TimingSolution) else {}
    counted = {"PHOFF"} if model.par.zero is not None else set()
    offsets = {name: offset for name, offset in _offsets(model).items() if offset != 0 or name in {*std, *counted}}
    stale = _STALE | (_REFERENCE if fixed_phase(model) else set())
    lines = [line for line in model.par.lines if line.name not in stale]
    known = {line.name for line in lines}
    lines += [Line(name, "0") for name in offsets if name not in known]
    return "".join(_written(line, model.par, offsets, std, fitted) for line in lines)


def write_par(solution: TimingSolution | TimingModel, path: str | os.PathLike[str]) -> None:
    """Write `par_text` to a file, whole or not at all.

    **Raises:** `ValueError` as `par_text`; `FileNotFoundError` where there is no such folder.
    """
    write_atomic(path, par_text(solution).encode())


def _offsets(model: TimingModel) -> dict[str, float]:
    """Offset from the par file of each element, by PINT's name."""
    flat: dict[str, float] = {}
    for name in parameters(model):
        value = np.asarray(get(model, name))
        flat.update(zip(element_names(name, value.shape), value.ravel().tolist(), strict=True))
    return {pint: flat[name] for name, pint in elements(model) if pint != "PHOFF" or fixed_phase(model)}


def _written(line: Line, par: Par, offsets: Mapping[str, float], std: Mapping[str, float], fitted: bool) -> str:
    name, text, error = line.name, line.text, line.error
    flag = name in std if fitted else line.fit
    if name in offsets:
        exact = _EXACT.add(par.value(name), Decimal(offsets[name]))
        if name == "PHOFF" and par.zero is not None:  # the lines that it counted from are left out
            exact = _EXACT.add(exact, par.zero)
        text, error = _number(name, exact, std.get(name, math.nan))
    stem = name.rstrip("0123456789") if line.select else name
    words = [f"{stem:<{_WIDTH}}", *([line.select] if line.select else []), f"{text:<{_DIGITS}}"]
    if flag or error:
        words += [str(int(flag)), error]
    idle = stem == "ECORR" and line.value == 0  # PINT divides by it
    return ("# " if idle else "") + " ".join(words).rstrip() + "\n"


def _number(name: str, exact: Decimal, std: float) -> tuple[str, str]:
    """(value, error) as a par file has them: the value to a millionth of its error, never to fewer than 18 digits."""
    known = math.isfinite(std) and std > 0
    entry = entry_of(name)
    if entry is not None and entry.look == SEXAGESIMAL:  # of which the error is in seconds of time or of arc
        return _sexagesimal(exact), f"{3600.0 * std:.8g}" if known else ""
    # a float64 has 17 digits: fewer would change what is read back
    last = exact.adjusted() - 17
    if known:
        last = min(last, (Decimal(std) * _MORE).adjusted())
    value = exact.quantize(Decimal(1).scaleb(last), context=_EXACT) if exact else Decimal(0)
    return _plain(value), f"{std:.8g}" if known else ""


def _plain(value: Decimal) -> str:
    """Without an exponent where that is short: PINT splits an MJD at its point."""
    text = f"{value:f}"
    if len(text.lstrip("-")) <= _DIGITS + 3 and (value == 0 or abs(value) >= Decimal("1e-4")):
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:E}"


def _sexagesimal(value: Decimal) -> str:
    """Hours or degrees as `dd:mm:ss.sss`, to 1e-13 s or arcsec."""
    sign = "-" if value < 0 else ""
    seconds = _EXACT.multiply(abs(value), Decimal(3600)).quantize(Decimal("1e-13"), context=_EXACT)
    minutes, rest = divmod(seconds, 60)
    whole, minute = divmod(int(minutes), 60)
    return f"{sign}{whole:02d}:{minute:02d}:{rest:016.13f}"


def noise_places(solution: TimingSolution) -> dict[str, int]:
    """{PINT's name, such as `EFAC1`: its place among the elements of the fit} of the noise that was fitted."""
    found = {name: k for k, name in enumerate(solution.fit.names) if name.startswith(PREFIX)}
    return {of_pint(name): k for name, k in found.items()}


def of_pint(element: str) -> str:
    """PINT's name of an element of the noise: `EFAC1` for `noise.EFAC[0]`."""
    return re.sub(r"\[(\d+)\]$", lambda place: str(int(place[1]) + 1), element.split(".")[-1])


def _with_noise(solution: TimingSolution) -> TimingSolution:
    """The solution with the noise that was fitted in its par file, so that it is written.

    Fit flags stay off: a par file that flags noise would be refused by who fits it without.
    """
    places, par, noise = noise_places(solution), solution.start.par, solution.noise
    if not places or par is None or noise is None:
        return solution
    y, std = np.asarray(solution.fit.y), np.asarray(solution.fit.standard_errors)
    texts = {name: (repr(float(y[k])), _error(float(std[k]))) for name, k in places.items()}
    lines = par.lines
    if texts.keys() & {"TNREDAMP", "TNREDGAM"} and par.find("TNREDAMP") is None:
        red = {name: (repr(float(getattr(noise, name))), "") for name in ("TNREDAMP", "TNREDGAM")}
        texts = red | texts
        lines = tuple(line for line in lines if line.name not in _TEMPO) + tuple(Line(name, "0") for name in red)
    new = tuple(
        line._replace(text=texts[line.name][0], error=texts[line.name][1]) if line.name in texts else line
        for line in lines
    )
    return dataclasses.replace(solution, start=dataclasses.replace(solution.start, par=par._replace(lines=new)))


def _error(std: float) -> str:
    return f"{std:.8g}" if np.isfinite(std) and std > 0 else ""
