"""What a researcher may get wrong at the command line, and what is said of it: one line, an exit code, and no folder.

Each row is a command within a folder of its own, which has a config, its table and its model, as they would be fitted,
and in which one thing is wrong. All run in one process, in which nothing but the command itself looks at types.
"""

import contextlib
import dataclasses
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ._mistaken_calls import spoken

MODELS = """import jax.numpy as jnp
import jaxsci as js

class Decay(js.AbstractModel):
    amp: js.Scalar = js.param(unit="mV")
    tau: js.Scalar = js.param(unit="s", bounds=(0, None))

    def __call__(self, t):
        return self.amp * jnp.exp(-t / self.tau)
"""
CONFIG = """[fit]
max_steps = 60

[model]
type = "Decay"
amp = 1.0
tau = 1.0

[[data]]
file = "decay.csv"
"""
TABLE = "x,y\n" + "".join(f"{k},{3 * 0.5**k}\n" for k in range(8))


@dataclasses.dataclass(frozen=True)
class Command:
    """A mistake: `what` it is, the words after `jaxsci`, what is done to the folder beforehand, and the exit code."""

    what: str
    words: str
    files: Sequence[tuple[str, str]] = ()
    code: int = 2


RUN = "run fit.toml --import my_models.py --out out"
BATCH = "batch items.csv --import my_models.py --out out"


def _swap(old: str, new: str, text: str = CONFIG) -> str:
    assert old in text, f"there is no {old!r} to be changed"
    return text.replace(old, new, 1)


def _items(*lines: str) -> tuple[tuple[str, str], ...]:
    return (("items.csv", "\n".join(lines) + "\n"),)


def _config(old: str, new: str) -> tuple[tuple[str, str], ...]:
    return (("fit.toml", _swap(old, new)),)


def _model(old: str, new: str) -> tuple[tuple[str, str], ...]:
    return (("my_models.py", _swap(old, new, MODELS)),)


COMMANDS = (
    Command("a config that is not there", "run none.toml"),
    Command("a folder for a config", "run ."),
    Command("a table for a config", "run decay.csv"),
    Command("a bundled config misspelt", "run bundled:quickstartt.toml"),
    Command("a science misspelt", RUN, (("fit.toml", 'task = "xray"\n'),)),
    Command("a bracket left open", RUN, _config("[model]", "[model")),
    Command("a key misspelt", RUN, _config("max_steps", "maxsteps")),
    Command("one bracket for two", RUN, _config("[[data]]", "[data]")),
    Command("a model misspelt", RUN, _config('"Decay"', '"Decai"')),
    Command("no --import of the model", "run fit.toml --out out"),
    Command("an argument misspelt", RUN, _config("tau =", "tua =")),
    Command("a text for a number", RUN, _config("tau = 1.0", 'tau = "1"')),
    Command("a table that is not there", RUN, _config("decay.csv", "deacy.csv")),
    Command("a table outside of the folder", RUN, _config("decay.csv", "../decay.csv")),
    Command("a table with decimal commas", RUN, (("decay.csv", "x;y\n1,5;2,5\n"),)),
    Command("a table without rows", RUN, (("decay.csv", "x,y\n"),)),
    Command("no HDF5 file", f"{RUN} --set data.0.file=a.h5", (("a.h5", "x"),)),
    Command("no .npy file", f"{RUN} --set data.0.file=a.npy", (("a.npy", "x"),)),
    Command("a model with NumPy", RUN, _model("jnp.exp(-t", "__import__('numpy').exp(-t")),
    Command("a model without return", RUN, _model("return ", "")),
    Command("a name in a model that is none", RUN, _model("return self", "return slef")),
    Command("a model that asserts", RUN, _model("return", "assert False, 'not yet'\n        return")),
    Command("a model annotated as float", RUN, _model("amp: js.Scalar", "amp: float")),
    Command("--import of no file", "run fit.toml --import none.py"),
    Command("--import of what raises", "run fit.toml --import bad.py", (("bad.py", "raise RuntimeError('oops')\n"),)),
    Command("--import of no Python", "run fit.toml --import bad.py", (("bad.py", "def f(:\n"),)),
    Command("--import of what imports nothing", "run fit.toml --import bad.py", (("bad.py", "import nosuchthing\n"),)),
    Command("--import of what ends", "run fit.toml --import bad.py", (("bad.py", "raise SystemExit(5)\n"),)),
    Command("--import of no class", "check fit.toml --import bad.py", (("bad.py", "x = 1\n"),)),
    Command("--set without a value", f"{RUN} --set fit.max_steps"),
    Command("--set of a key misspelt", f"{RUN} --set fit.maxsteps=5"),
    Command("--set of a word for a number", f"{RUN} --set fit.max_steps=abc"),
    Command("--set of a number below 1", f"{RUN} --set fit.max_steps=-1"),
    Command("--set of a place that there is not", f"{RUN} --set data.7.file=x"),
    Command("--set within a number", f"{RUN} --set fit.max_steps.a=3"),
    Command("a device misspelt", f"{RUN} --device tpu"),
    Command("a file for --out", "run fit.toml --import my_models.py --out decay.csv"),
    Command("--resume without --out", "run fit.toml --import my_models.py --resume"),
    Command("a kind misspelt", "list modells"),
    Command("a starter misspelt", "new curvefitt"),
    Command("a starter over files", "new curvefit ."),
    Command("a starter in a file", "new curvefit decay.csv"),
    Command("a manifest that is not there", "batch none.csv"),
    Command("a manifest of another kind", "batch items.txt", (("items.txt", "a"),)),
    Command("a manifest without items", BATCH, _items("name,config")),
    Command("an item without config", BATCH, _items("name,file", "a,b")),
    Command("an item of no file", BATCH, _items("name,config", "a,none.toml")),
    Command("two items of one name", BATCH, _items("name,config", "a,fit.toml", "a,fit.toml")),
    Command("a cell too many", BATCH, _items("name,config", "a,fit.toml,3")),
    Command("an item named as a path", BATCH, _items("name,config", "../a,fit.toml")),
    Command("a table of a manifest misspelt", "batch items.toml", (("items.toml", "[[itemm]]\nname = 'a'\n"),)),
    Command("no workers", f"{BATCH} -j 0", _items("name,config", "a,fit.toml")),
    Command("an executor that there is not", f"{BATCH} --executor ray", _items("name,config", "a,fit.toml")),
    Command("less than no retries", f"{BATCH} --retries -2", _items("name,config", "a,fit.toml")),
    Command("--resume of a batch without --out", "batch items.csv --resume", _items("name,config", "a,fit.toml")),
    Command("par and tim that are not there", "timing fit none.par none.tim"),
    Command("a par file alone", "timing fit decay.csv"),
    Command("a table for a par file", "timing fit decay.csv decay.csv"),
    Command("a pulsar misspelt", "timing fit bundled:J1909"),
    Command("a free name misspelt", "timing fit bundled:NGC6440E --free F00"),
    Command("TOAs to another kind of file", "timing load bundled:NGC6440E --out a.xyz"),
    Command("a simulation to nowhere", "timing simulate bundled:NGC6440E"),
    Command("dates that go back", "timing simulate bundled:NGC6440E --mjd 56000 55000 --out a.npz"),
    Command("a cadence below 0", "timing simulate bundled:NGC6440E --mjd 55000 55100 --cadence -3 --out a.npz"),
    Command("a flag without a value", "timing simulate bundled:NGC6440E --mjd 55000 55100 --flag abc --out a.npz"),
    Command("maps that are not there", "compsep separate none.fits --frequency 30 --out maps"),
    Command("an instrument misspelt", "compsep separate decay.csv --instrument LiteBERD --out maps"),
    Command("neither instrument nor frequencies", "compsep separate decay.csv --out maps"),
    Command("frequencies in words", "compsep separate decay.csv --frequency a,b --out maps"),
    Command("frequencies below 0", "compsep separate decay.csv decay.csv --frequency=-30,-100 --out maps"),
    Command("a table for maps", "compsep ilc decay.csv decay.csv --frequency 30,100 --out cmb.fits"),
    Command("Stokes parameters out of order", "compsep separate decay.csv --frequency 30 --stokes UQ --out maps"),
    Command("a description that is not there", "xpcs qmap none.toml --out q.h5"),
    Command("a q-map of no size", "xpcs qmap fit.toml --out q.h5"),
    Command("no frames", "xpcs correlate none.h5 --qmap decay.csv --frame-time 1 --out r.h5"),
    Command("a time below 0", "xpcs correlate decay.csv --qmap decay.csv --frame-time -1 --out r.h5"),
    Command("a result that is not there", "xpcs fit none.h5"),
    Command("a table for a result", "xpcs fit decay.csv"),
)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, what it said on stderr, what was raised past it, and what it left behind."""

    code: int
    said: str
    raised: str
    left: list[str]


def ended(command: Command) -> Ended:
    """Make the mistake, in a folder of its own."""
    from typer.testing import CliRunner

    from jaxsci.cli import app

    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name).resolve()
        for path, text in (("my_models.py", MODELS), ("fit.toml", CONFIG), ("decay.csv", TABLE), *command.files):
            (folder / path).write_text(text)
        before = set(folder.rglob("*"))
        result: Any = CliRunner().invoke(app, command.words.split())
        new = [path for path in sorted(set(folder.rglob("*")) - before) if "__pycache__" not in path.parts]
        left = [path.relative_to(folder).as_posix() for path in new]
        own = result.exception is None or isinstance(result.exception, SystemExit)
        raised = "" if own else f"{type(result.exception).__name__}: {result.exception}"
        return Ended(result.exit_code, result.stderr.replace(f"{folder}/", "").replace(str(folder), "."), raised, left)


def told() -> list[Ended]:
    """How each of `COMMANDS` ends, found in a process of its own."""
    return [Ended(**each) for each in spoken(Path(__file__).stem)]


def line_of(command: Command, said: str) -> str:
    """The line of docs/messages.md on a command."""
    words = said.strip().replace("`", "'").replace("|", "\\|")
    return f"| {command.what} | `jaxsci {command.words}` | `{words}` |"


def lines() -> list[str]:
    """All lines of docs/messages.md on commands."""
    return [line_of(command, each.said) for command, each in zip(COMMANDS, told(), strict=True)]


if __name__ == "__main__":
    out: Callable[[str], int] = sys.stdout.write
    with contextlib.redirect_stdout(io.StringIO()):
        found = [dataclasses.asdict(ended(command)) for command in COMMANDS]
    out(json.dumps(found) + os.linesep)
