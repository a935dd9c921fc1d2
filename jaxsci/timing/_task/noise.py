"""Noise that is fitted with a pulsar: its names in a config, its rows in the record, its lines in a par file.

Researchers know EFAC and ECORR by the names of the par file, and the fit by those of its parameters; what is between is
here, for configs and for the commands of `jaxsci timing`, and for notebooks, which show a pulsar by the same names.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from ...core import element_names, get, notebook_table, parameters, suggest
from ...fitting import facts_of, remarks, verdict_of
from ...runs import ConfigError
from .._anchor import lay_out
from .._fit import TimingSolution, noise_there
from .._model import TimingModel
from .._notation import said
from .._par_out import PREFIX, noise_places, of_pint
from .._toas import TOAs


def noise_names(wanted: Sequence[str], model: TimingModel, toas: TOAs, where: str, strict: bool) -> tuple[str, ...]:
    """Names as `timing.fit` takes them, such as `noise.EFAC` for `EFAC`, in the order of the noise.

    **Arguments:** `wanted`: with or without the prefix; `strict`: refuse what the par file does not have.

    **Raises:** `ConfigError` for a name that no noise has, and where `strict` for one that this pulsar has not.
    """
    if not wanted:
        return ()
    noise: Any = lay_out(model, toas)[0].noise
    known = {name.split(".")[-1]: name for name in parameters(noise)}
    has = {name.split(".")[-1]: there for name, there in noise_there(noise).items()}
    stems = [name.removeprefix(PREFIX).split(".")[-1] for name in wanted]
    for stem in stems:
        if strict and not has.get(stem, False):
            there = [name for name in known if has[name]]
            raise ConfigError(where, f"the par file has no {stem}{suggest(stem, there)} (it has {', '.join(there)})")
    return tuple(PREFIX + name for stem, name in known.items() if stem in stems and has[stem])


def noise_rows(solution: TimingSolution, toas: TOAs) -> list[dict[str, Any]]:
    """A row for each parameter of the noise that was fitted; what it is for is its remark."""
    places = noise_places(solution)
    if not places:
        return []
    start, par = _at_start(solution, toas), solution.start.par
    assert par is not None
    y, std, at_bound = (np.asarray(a) for a in (solution.fit.y, solution.fit.standard_errors, solution.fit.at_bound))
    rows = []
    for name, k in places.items():
        value, error, line = float(y[k]), float(std[k]), par.find(name)
        remarks = [line.select] if line is not None and line.select else []
        remarks += [] if np.isfinite(error) else ["not determined by the data"]
        remarks += {-1: ["at its lower bound"], 1: ["at its upper bound"]}.get(int(at_bound[k]), [])
        rows.append(
            {
                "name": name,
                "unit": solution.fit.units[k],
                "value": value,
                "std": error,
                "exact": repr(value),
                "offset": value - start[name],
                **said(name, Decimal(value), error, solution.fit.units[k]),
                "folded": False,
                "remarks": remarks,
            }
        )
    return rows


def timing_remarks(solution: TimingSolution) -> tuple[str, ...]:
    """What to look at in a fit that converged, by the rule of `jaxsci.Solution.remarks`, with PINT's names."""
    noise = noise_places(solution)
    places, names = np.array([*solution.places, *noise.values()], int), (*solution.names, *noise)
    every = facts_of(solution.fit)
    flags = {name: getattr(every, name)[places] for name in ("determined", "fixed", "projected", "at_bound")}
    rank = int(flags["determined"].sum())
    return remarks(every._replace(names=names, rank=rank, dof=solution.dof, **flags))


def html_summary(solution: TimingSolution) -> str:
    """One pulsar for a notebook: values with the error of their last digits, and what to look at."""
    exact, std, units, par = solution.exact, solution.std, solution.units, solution.start.par
    assert par is not None
    rows = []
    for name in solution.names:
        texts = said(name, exact[name], std[name], units[name])
        error, unit = texts.get("std_text", f"{std[name]:.2g}"), texts.get("unit_text", units[name])
        rows.append((name, texts["text"], error, unit))
    look = timing_remarks(solution) if solution.success else ()
    verdict = verdict_of(solution.success, look)
    notes = [solution.summary().splitlines()[0], *([solution.fit.message] if solution.fit.message else [])]
    notes += [f"Look: {words}" for words in look]
    title = f"{par.word('PSR', 'pulsar')}: {verdict}"
    return notebook_table(title, ("parameter", "value", "standard error", "unit"), rows, notes, left=(0, 3))


def _at_start(solution: TimingSolution, toas: TOAs) -> dict[str, float]:
    """The par file's noise, by PINT's names."""
    noise: Any = lay_out(solution.start, toas)[0].noise
    flat: dict[str, float] = {}
    for name in parameters(noise):
        value = np.asarray(get(noise, name))
        elements = (of_pint(element) for element in element_names(name, value.shape))
        flat.update(zip(elements, value.ravel().tolist(), strict=True))
    return flat
