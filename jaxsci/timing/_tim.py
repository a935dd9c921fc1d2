"""Tim files as text: the files that they INCLUDE, and what of them is read.

PINT parses tim files. `gather` collects a tim file with all that it includes, for PINT to read from one folder and for
the cache to know by its content. `check_commands` and `unread_flags` hold what PINT found there against the lists of
what is read: what is on no list is refused or told, so that nothing is dropped in silence.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..datasets import check_file, read_text

COMMANDS = {  # those that PINT applies
    *("FORMAT", "MODE", "TIME", "PHASE", "EFAC", "EQUAD", "EMAX", "EMIN", "FMAX", "FMIN", "JUMP", "SKIP", "NOSKIP"),
    *("INCLUDE", "INFO", "END"),
}
"""What a line of a tim file may begin with, beside the name of a TOA."""
COMMENTS = ("#", "C ", "c ", "CC ")
APPLIED = {
    "pn",
    "padd",
    "phase",
    "to",
    "jump",
    "tim_jump",
    "pp_dm",
    "pp_dme",
    "telx",
    "tely",
    "telz",
    "vx",
    "vy",
    "vz",
}
"""Flags that PINT or `timing.load` reads: they say when and with what dispersion a TOA came."""
_OTHERS = {"addsat", "radd", "pnadd", "dmo"}  # with them tempo2 moves a TOA, and PINT does not
_LABELS = {  # which receiver, which template and how good: they change nothing unless a par file selects by them
    *("format", "name", "info", "clkcorr", "f", "fe", "be", "B", "bw", "i", "g", "h", "j", "v", "r", "c", "X", "sys"),
    *(
        "group",
        "pta",
        "tobs",
        "tmplt",
        "length",
        "len",
        "gof",
        "nbin",
        "nch",
        "nchan",
        "nchx",
        "chan",
        "chbw",
        "bandno",
    ),
    *("bandno", "subint", "nsub", "nsubint", "snr", "prof_snr", "wt", "proc", "ver", "fratio", "flux", "fluxe"),
    *(
        "flux_ref_freq",
        "simul",
        "cut",
        "rcvr",
        "rf",
        "cpp",
        "mjd",
        "beconfig",
        "obs",
        "medres",
        "img",
        "pol",
        "ddm",
        "gui_jump",
    ),
}


TIM_BYTES = 2**28
"""The largest tim file with all that it includes: some million TOAs, more than PINT reads in a day."""

_MOST_FILES = 1000  # included: files that include two others, which include two others, would have no end
_DEEPEST = 20


class TimFile(NamedTuple):
    """A tim file: where it is, its text, and which of the gathered files each line with an INCLUDE names."""

    path: Path
    text: str
    includes: dict[int, int]

    def lines(self) -> list[str]:
        """Its lines, those with an INCLUDE with the name that the file has in one folder; see `write`."""
        lines = self.text.splitlines()
        return [f"INCLUDE {_name(self.includes[k])}" if k in self.includes else line for k, line in enumerate(lines)]


def gather(path: Path, within: Path | None = None) -> tuple[TimFile, ...]:
    """A tim file and all that it includes, itself first; a path is relative to the file that names it.

    **Arguments:** `within`: a folder that all included files should lie in, links followed; `None` for anywhere.

    **Raises:** `ValueError` for a file that is no text, is empty, too large or includes itself, an INCLUDE without a
    file or of one outside of `within`, too many of them, and an END in an included file, at which PINT ends all
    reading.
    """
    files: list[TimFile] = []
    _gather(path, (), files, None if within is None else within.resolve())
    return tuple(files)


def write(files: Sequence[TimFile], folder: Path) -> Path:
    """Write gathered files to a folder, plain, and return the first."""
    for k, file in enumerate(files):
        (folder / _name(k)).write_text("\n".join(file.lines()) + "\n", encoding="utf-8")
    return folder / _name(0)


def _name(k: int) -> str:
    return f"{k}.tim"


def _gather(path: Path, above: tuple[Path, ...], files: list[TimFile], within: Path | None) -> int:
    """Append a file and what it includes; returns its place."""
    # links followed: a file may include itself under another name
    if path.resolve() in above:
        raise ValueError(f"{path} includes itself")
    if len(files) >= _MOST_FILES or len(above) > _DEEPEST:
        raise ValueError(
            f"{above[0]} includes more than {_MOST_FILES} files, or files that include others more than {_DEEPEST} "
            f"times: put their TOAs into one file"
        )
    text = read_text(path, TIM_BYTES - sum(len(file.text) for file in files))
    if not text.strip():
        raise ValueError(f"{path} is empty")
    # its place is taken before those that it includes take theirs
    place, includes = len(files), dict[int, int]()
    files.append(TimFile(path, text, includes))
    for k, line in enumerate(text.splitlines()):
        words = line.split()
        if not words or line.startswith(COMMENTS):
            continue
        if words[0].upper() == "END":
            if above:
                raise ValueError(f"{path}:{k + 1}: END in an included file ends all reading in PINT: leave it out")
            break
        if words[0].upper() != "INCLUDE":
            continue
        if len(words) != 2:
            raise ValueError(f"{path}:{k + 1}: {line.strip()!r} should name one file, without spaces in its name")
        found = path.parent / words[1]
        try:
            outside = within is not None and not found.resolve().is_relative_to(within)
            outside or check_file(found)
        except FileNotFoundError:
            raise ValueError(
                f"{path}:{k + 1}: there is no file {found} to include; paths are relative to {path.name}"
            ) from None
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path}:{k + 1}: {words[1]!r:.60} cannot be included: {error}") from None
        if outside:
            raise ValueError(
                f"{path}:{k + 1}: {words[1]!r} lies outside of {within}; `within=None` permits it, on the command line "
                "--allow-outside"
            )
        includes[k] = _gather(found, (*above, path.resolve()), files, within)
    return place


def check_commands(commands: Iterable[Sequence[str]], files: Sequence[TimFile]) -> list[str]:
    """Refuse commands that PINT passes over; returns what should be told of the others.

    **Arguments:** `commands`: the words of each line that PINT took for a command.

    **Raises:** `ValueError` naming the line.
    """
    told = []
    for words in commands:
        kind = words[0].upper()
        if kind not in COMMANDS:
            raise ValueError(
                f"{_where(files, words)}: {' '.join(words[:3])!r} is a command to PINT, which does not apply it; "
                "the line of a TOA should begin with another word"
            )
        if kind == "MODE" and words[1:2] != ["1"]:
            told.append(f"{' '.join(words)} is not applied: TOAs are always weighted by their errors")
    return told


def _where(files: Sequence[TimFile], words: Sequence[str]) -> str:
    for file in files:
        for k, line in enumerate(file.lines()):
            if line.split() == list(words):
                return f"{file.path}:{k + 1}"
    return str(files[0].path)


def check_words(files: Sequence[TimFile]) -> None:
    """Refuse lines of TOAs whose flags PINT would overwrite or take for its own.

    **Raises:** `ValueError` naming the line.
    """
    for file in files:
        for k, line in enumerate(file.text.splitlines()):
            words = line.split()
            if line.startswith(COMMENTS) or len(words) < 6 or words[0].upper() in COMMANDS:
                continue
            flags = [word for word in words[5::2] if word.startswith("-")]
            twice = next((flag for flag in flags if flags.count(flag) > 1), None)
            if twice is not None:
                raise ValueError(f"{file.path}:{k + 1}: the flag {twice} is there twice")
            if "-clkcorr" in flags:
                raise ValueError(
                    f"{file.path}:{k + 1}: with a flag -clkcorr PINT would correct no clock: leave it out, and take "
                    "the correction out of the time"
                )


def unread_flags(found: Iterable[str], selected: Sequence[str], where: Path) -> list[str]:
    """What should be told of the flags that TOAs have (without their dash), `selected` being what the par file selects.

    **Raises:** `ValueError` for one that moves TOAs in tempo2 and not in PINT.
    """
    names = set(found)
    for name in sorted(names & _OTHERS):
        raise ValueError(
            f"{where}: with the flag -{name} tempo2 moves a TOA, but PINT passes over it: apply it to the TOA"
        )
    chosen = {flag.split()[0][1:] for flag in selected if flag.startswith("-")}
    idle = sorted(names - APPLIED - _LABELS - chosen)
    return [f"nothing reads the flags {', '.join('-' + name for name in idle)}"] if idle else []
