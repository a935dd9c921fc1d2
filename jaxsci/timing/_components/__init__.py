"""The components of a timing model, and the one tuple that names them all.

Each file holds the physics of a component and what it knows of par files: its lines, and how it is made from them.
`COMPONENTS` is their list. Whatever reads, checks, converts or writes par files asks this list, so that a new component
is a file here and an entry there; `timing._model` says in which order they act. Orbits are in `timing._binary`.
"""

from ._line import (
    EXACT as EXACT,
    FOREIGN as FOREIGN,
    MASKED as MASKED,
    PAIR as PAIR,
    PARAMETER as PARAMETER,
    PICO as PICO,
    READ as READ,
    RECORD as RECORD,
    SERIES as SERIES,
    SEXAGESIMAL as SEXAGESIMAL,
    TCB as TCB,
    TWICE as TWICE,
    WORD as WORD,
    Component as Component,
    Entry as Entry,
    Line as Line,
    Par as Par,
    is_numbered as is_numbered,
    number as number,
)
from ._list import (
    COMPONENTS as COMPONENTS,
    LINES as LINES,
    components as components,
    entry_of as entry_of,
    listed as listed,
)
from ._passage import (
    AbstractDelay as AbstractDelay,
    AbstractPhase as AbstractPhase,
    Passage as Passage,
    Rotation as Rotation,
)
from ._vector import Vector as Vector, dot as dot, xyz as xyz
from .astrometry import (
    AbstractAstrometry as AbstractAstrometry,
    AstrometryEcliptic as AstrometryEcliptic,
    AstrometryEquatorial as AstrometryEquatorial,
)
from .chromatic import Chromatic as Chromatic, ChromaticCMX as ChromaticCMX, cm_windows as cm_windows
from .dispersion import (
    DispersionDM as DispersionDM,
    DispersionDMX as DispersionDMX,
    DispersionJump as DispersionJump,
    dispersion_delay as dispersion_delay,
    in_windows as in_windows,
    inside as inside,
    windows as windows,
)
from .frequency_dependent import FD as FD, FDJump as FDJump
from .glitch import Glitch as Glitch
from .jump import PhaseJump as PhaseJump, PhaseOffset as PhaseOffset
from .noise import (
    ChromaticNoise as ChromaticNoise,
    DMNoise as DMNoise,
    PreparedNoise as PreparedNoise,
    SolarWindNoise as SolarWindNoise,
    TimingNoise as TimingNoise,
)
from .noise_lines import Epochs as Epochs, Scales as Scales, epochs as epochs, noise_of as noise_of
from .piecewise import PiecewiseSpindown as PiecewiseSpindown, TabulatedPhase as TabulatedPhase
from .solar_system import planet_shapiro as planet_shapiro, solar_shapiro as solar_shapiro
from .solar_wind import SolarWind as SolarWind
from .spindown import Spindown as Spindown, spins as spins
from .wave import CMWaveX as CMWaveX, DMWaveX as DMWaveX, Wave as Wave, WaveX as WaveX
