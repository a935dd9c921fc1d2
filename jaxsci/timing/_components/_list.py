"""The list of all components, and what can be asked of all of them together.

`TimingModel.parse` makes a model by going through `COMPONENTS`; readers and writers of par files look up single lines
in `LINES`. The order of the tuple is the order in which components act where it matters: `delays` and `phases` add up
their members as they come.
"""

from typing import Any

from ...core import Module
from .._binary.from_par import BINARY
from ._line import ONE, READ, RECORD, WORD, Component, Entry, Par
from .astrometry import ASTROMETRY
from .chromatic import CHROMATIC, CMX
from .dispersion import DISPERSION, DM_JUMP, DMX
from .frequency_dependent import PROFILE, PROFILE_JUMP
from .glitch import GLITCH
from .jump import JUMP, OFFSET
from .noise_lines import NOISE_LINES
from .piecewise import PIECEWISE, TABLE
from .solar_wind import SOLAR_WIND
from .spindown import SPINDOWN
from .wave import CM_WAVE_X, DM_WAVE_X, WAVE, WAVE_X

TRACKS = ("-2", "0")
"""What TRACK may say: that pulse numbers count, or that they do not."""

OBSERVATIONS = Component(  # how TOAs were taken and are read
    "",
    (
        *(Entry(name, role=READ, look=WORD) for name in ("EPHEM", "UNITS", "TRACK")),
        Entry("CLK", role=READ, look=WORD, aliases=("CLOCK",)),
        *(Entry(name, role=READ, look=WORD) for name in ("CORRECT_TROPOSPHERE", "PLANET_SHAPIRO")),
    ),
)
RECORDS = Component(  # names, and what an earlier fit or another program left behind
    "",
    (
        Entry("PSR", role=RECORD, look=WORD, aliases=("PSRJ", "PSRB")),
        *(Entry(name, role=RECORD, look=WORD) for name in ("INFO", "MODE", "EPHVER", "DMDATA", "TIMEEPH", "T2CMETHOD")),
        *(Entry(name, role=RECORD) for name in ("START", "FINISH", "NTOA", "TRES", "DMRES", "CHI2", "CHI2R", "NITS")),
        *(Entry(name, role=RECORD) for name in ("BIPMVERSION", "TZRMJD", "TZRFRQ")),
        Entry("TZRSITE", role=RECORD, look=WORD),
    ),
)
COMPONENTS = (
    OBSERVATIONS,
    RECORDS,
    NOISE_LINES,
    ASTROMETRY,
    DISPERSION,
    DMX,
    SOLAR_WIND,
    BINARY,
    PROFILE,
    PROFILE_JUMP,
    WAVE_X,
    DM_WAVE_X,
    CHROMATIC,
    CMX,
    CM_WAVE_X,
    SPINDOWN,
    JUMP,
    GLITCH,
    WAVE,
    PIECEWISE,
    TABLE,
    DM_JUMP,
    OFFSET,
)
"""Every component, and the groups of lines that no component of the model reads. A new component is added here."""

LINES: tuple[Entry, ...] = tuple(entry for component in COMPONENTS for entry in component.lines)
"""What each line that this library reads is."""

_OPEN = ("delays", "phases")  # the fields of a model that take any number of components
_BY_NAME = {entry.name: entry for entry in LINES if entry.exact}
_BY_STEM = {entry.name: entry for entry in LINES if entry.family}
_BY_LEAF = {entry.leaf: entry for entry in LINES if entry.form != ONE}


def components(par: Par) -> dict[str, Any]:
    """The components of a `TimingModel` by field; `None` for those that the par file does not use.

    **Raises:** `ValueError` for a par file without F0 or PEPOCH, in other units than TDB, with a TRACK that is not
    supported, and whatever a component refuses.
    """
    if par.word("UNITS", "TDB").upper() != "TDB":
        raise ValueError(f"UNITS is {par.word('UNITS')}, but there are TDB and TCB")
    if par.word("TRACK", "0") not in TRACKS:
        raise ValueError(f"TRACK {par.word('TRACK')} is not supported; there are {' and '.join(TRACKS)}")
    # said first, since everything else depends on them
    par.value("F0", None), par.value("PEPOCH", None)
    found: dict[str, Any] = {}
    several: dict[str, list[Module]] = {field: [] for field in _OPEN}
    for component in COMPONENTS:
        part = component.from_par(par)
        if component.field in several:
            several[component.field] += [] if part is None else [part]
        elif component.field:
            found[component.field] = part
    return found | {field: tuple(parts) for field, parts in several.items()}


def entry_of(name: str) -> Entry | None:
    """What declares a line: the entry of its name, or of the family that its number belongs to; `None` for none."""
    return _BY_NAME.get(name) or _BY_STEM.get(name.rstrip("0123456789"))


def listed(par: Par, leaf: str) -> tuple[str, ...]:
    """The par file's names of the elements of a list: `F` is F0, F1, ...; `DMX` all windows in rising order.

    **Raises:** `KeyError` for a field that holds no list of a par file's lines.
    """
    return _BY_LEAF[leaf].elements(par)
