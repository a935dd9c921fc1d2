"""Damaged and hostile files by the ten thousand: each reader should read them, or refuse them by its documented errors.

Cases are mutations of real files, by their number: a case that is found can be made again. Each reader runs in a
process of its own that is watched from outside, so that a crash or a hang is counted and not met. `rows` is what the
area `reliability` shows; `python -m benchmarks._fuzz READER FIRST COUNT` runs some cases and prints what came of each.
"""

import collections
import dataclasses
import hashlib
import importlib.util
import io
import json
import os
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "jaxsci" / "data"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
REFUSALS = (ValueError, OSError)
"""What readers may raise: errors of the ValueError family, and those of the system that name the file."""

SLOW = 120.0  # seconds on the wall, of a machine that may be busy: a reader that says nothing for longer has hung
_MEMORY = 12 * 2**30
_NUMBERS = (
    *(
        b"0",
        b"-1",
        b"1e400",
        b"-1e400",
        b"nan",
        b"inf",
        b"-inf",
        b"1e-400",
        b"9" * 30,
        b"9" * 5000,
        b"1D+30",
        b"1e99999",
    ),
    *(
        b"2147483648",
        b"9223372036854775808",
        b"1e999999999",
        b"0x" + b"f" * 400,
        b"00:99:99",
        b"-0",
        b"\xc2\xb2",
        b"1_0",
    ),
)
_TOKENS = (
    *(
        b"\0",
        b"\r",
        b"\r\n",
        b"\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xff",
        b"\t",
        b" ",
        b'"',
        b"'",
        b"#",
        b",",
        b";",
        b"=",
    ),
    *(
        b"[",
        b"]",
        b"[[",
        b"]]",
        b"{",
        b"}",
        b"(",
        b")",
        b"[" * 2000,
        b"(" * 2000,
        b"{" * 2000,
        b".",
        b"a." * 200,
        b"\\",
        b"/",
    ),
    *(
        b"../../../etc/passwd",
        b"/dev/zero",
        b"INCLUDE ",
        b"-",
        b"**",
        b"__import__",
        b"lambda:0",
        b"A" * 70000,
        b"%",
        b"$",
    ),
)
_NUMBER = re.compile(rb"[+-]?\d+(?:\.\d*)?(?:[eEdD][+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader under test.

    - `read`: reads a file; `suffix`: of its name. `corpus`: real contents, which are mutated. `cases`: how many.
    - `mutate`: makes a case of a content. `needs`: a package without which there is nothing to run.
    """

    name: str
    read: Callable[[Path], object]
    suffix: str
    corpus: Callable[[], Sequence[bytes]]
    cases: int
    mutate: Callable[[random.Random, bytes, Sequence[bytes]], bytes]
    needs: str = ""


def mutated(dice: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """One to four changes of a content: of bits, bytes, words, numbers, lines, and of where it ends."""
    found = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4))):
        found = bytearray(dice.choice(_CHANGES)(dice, found, others))
    return bytes(found[: 2**21])


def _span(dice: random.Random, x: bytearray, most: int = 64) -> tuple[int, int]:
    start = dice.randrange(len(x) + 1)
    return start, min(start + dice.randrange(1, most), len(x))


def _flip(dice: random.Random, x: bytearray, others: Sequence[bytes]) -> bytes:
    if x:
        x[dice.randrange(len(x))] ^= 1 << dice.randrange(8)
    return x


def _drop(dice: random.Random, x: bytearray, others: Sequence[bytes]) -> bytes:
    a, b = _span(dice, x)
    return x[:a] + x[b:]


def _twice(dice: random.Random, x: bytearray, others: Sequence[bytes]) -> bytes:
    a, b = _span(dice, x)
    return x[:b] + x[a:b] * dice.choice((1, 1, 50)) + x[b:]


def _noise(dice: random.Random, x: bytearray, others: Sequence[bytes]) -> bytes:
    a, b = _span(dice, x, 16)
    return x[:a] + dice.randbytes(b - a) + x[b:]


def _token(dice: random.Random, x: bytearray, others: Sequence[bytes]) -> bytes:
    a, b = _span(dice, x, 8)
    return x[:a] + dice.choice(_TOKENS) + x[dice.choice((a, b)) :]


def _number(dice: random.Random, x: bytearray, others: Sequence[bytes]) -> bytes:
    places = list(_NUMBER.finditer(bytes(x[: 2**16])))
    if not places:
        return x
    at = dice.choice(places)
    return x[: at.start()] + dice.choice(_NUMBERS) + x[at.end() :]


def _cut(dice: random.Random, x: bytearray, others: Sequence[bytes]) -> bytes:
    return x[: dice.randrange(len(x) + 1)]


def _splice(dice: random.Random, x: bytearray, others: Sequence[bytes]) -> bytes:
    other = dice.choice(others)
    return x[: dice.randrange(len(x) + 1)] + other[dice.randrange(len(other) + 1) :]


def _lines(dice: random.Random, x: bytearray, others: Sequence[bytes]) -> bytes:
    lines = bytes(x).split(b"\n")
    i, j = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    if dice.random() < 0.5:
        lines.insert(i, dice.choice(dice.choice(others).split(b"\n")))
    return b"\n".join(lines)


def _words(dice: random.Random, x: bytearray, others: Sequence[bytes]) -> bytes:
    """One word replaced by another of the same or another file."""
    words = list(re.finditer(rb"[^\s=,]+", bytes(x[: 2**15])))
    theirs = re.findall(rb"[^\s=,]+", dice.choice(others)[: 2**15])
    if not words or not theirs:
        return x
    at = dice.choice(words)
    return x[: at.start()] + dice.choice(theirs) + x[at.end() :]


_CHANGES = (
    _flip,
    _flip,
    _drop,
    _twice,
    _noise,
    _token,
    _number,
    _number,
    _number,
    _cut,
    _splice,
    _lines,
    _words,
    _words,
)


_BYTES = (
    b"\0",
    b"\xff",
    b"\xff" * 8,
    b"\0" * 8,
    b"\0\0\0\x80",
    b"\xff\xff\xff\x7f",
    b"\0\xca\x9a;",
    b"\x01",
    b"\x10\0\0\0\x10",
)


def inplace(dice: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A file of binary structure, of whose bytes some are others: its length, which is looked at first, is the same."""
    if dice.random() < 0.1:
        return mutated(dice, content, others)
    x = bytearray(content)
    # most of such files is empty space: where something is, is where it matters
    places = [k for k in range(len(x)) if x[k]]
    for _ in range(dice.choice((1, 1, 2, 8))):
        at = min(dice.choice(places) + dice.choice((0, 0, 1, 4)), len(x) - 1)
        part = dice.choice(
            (*_BYTES, bytes([x[at] ^ 1 << dice.randrange(8)]), bytes([(x[at] + dice.choice((1, 255))) % 256]))
        )
        if dice.random() < 0.1:
            start = dice.choice(places)
            part = bytes(x[start : start + dice.choice((4, 8, 32))])
        x[at : at + len(part)] = part[: len(x) - at]
    return bytes(x)


_VALUES = (
    *("0", "-1", "1", "nan", "-inf", "1e400", "1e-400", "9223372036854775807", "9" * 30, "0x" + "f" * 400, "9" * 5000),
    *("true", '""', '"x"', '"\\u0000"', '"../../x"', '"/etc/passwd"', '"' + "a" * 9000 + '"', "1979-05-27", "07:32:00"),
    *(
        "[]",
        "[[]]",
        "[1, 2, 3]",
        "[0.0, 'a']",
        "[[1], [2, 3]]",
        "[true]",
        "[nan, nan]",
        "[" * 40 + "]" * 40,
        "{}",
        "[{}]",
    ),
    *(
        "{ type = 'TRF' }",
        "{ type = 'Normal', mean = 0.0, sigma = -1.0 }",
        "{ type = 3 }",
        "{ x = { x = { x = 1 } } }",
        "1e9",
    ),
    *("1000000", "[1000000000]", "-0.0", "1e308", "[1e308, -1e308]", "['*']", "'*'", "'\U0001f600'", "'bundled:nist'"),
)
_KEY = re.compile(r"([\w.]+) = ")


def retold(dice: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A config in which values or keys are others, so that it is mostly still TOML."""
    if dice.random() < 0.1:
        return mutated(dice, content, others)
    lines = content.decode().splitlines()
    for _ in range(dice.choice((1, 1, 2))):
        k = dice.randrange(len(lines))
        keys = list(_KEY.finditer(lines[k]))
        if keys and dice.random() < 0.85:
            lines[k] = (
                f"{lines[k][: dice.choice(keys).end()] if len(keys) == 1 else keys[0].group()}{dice.choice(_VALUES)}"
            )
        elif dice.random() < 0.5:
            lines[k] = dice.choice(dice.choice(others).decode().splitlines())
        else:
            lines.pop(k) if len(lines) > 1 else None
    return "\n".join(lines).encode()


def rezipped(dice: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A zip whose members are mutated and sealed again, so that the change is not found by its checksum."""
    if dice.random() < 0.3:
        return mutated(dice, content, others)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        chosen = dice.choice(names)
        for name in names:
            part = old.read(name)
            if name == chosen:
                head = 128 if dice.random() < 0.7 else len(part)
                part = mutated(dice, part[:head], [old.read(dice.choice(names))[:128]]) + part[head:]
            if name != chosen or dice.random() < 0.95:
                new.writestr(name, part)
    return out.getvalue()


def reframed(dice: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A framed file whose header or payload is mutated, with the right digests: forged, not damaged."""
    if dice.random() < 0.3:
        return mutated(dice, content, others)
    (size,) = struct.unpack("<I", content[6:10])
    head, payload = content[42 : 42 + size], content[42 + size :]
    if dice.random() < 0.5:
        header = mutated(dice, head, [head])
    else:
        payload = mutated(dice, payload, [payload])
        table = json.loads(head)
        table |= {"sha256": hashlib.sha256(payload).hexdigest(), "size": len(payload)}
        header = json.dumps(table).encode()
    return content[:6] + struct.pack("<I", len(header)) + hashlib.sha256(header).digest() + header + payload


def recarded(dice: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A FITS file in whose headers cards of 80 characters are changed, dropped or swapped."""
    if dice.random() < 0.2:
        return mutated(dice, content, others)
    x = bytearray(content)
    cards = [
        k for k in range(0, min(len(x), 2880 * 8), 80) if x[k : k + 8].strip().isalnum() and x[k + 8 : k + 9] == b"="
    ]
    for _ in range(dice.choice((1, 1, 2))):
        at, other = dice.choice(cards), dice.choice(cards)
        value = dice.choice(
            (*_NUMBERS[:8], b"T", b"'RING'", b"'1PJ(99999999)'", b"'1024E'", b"''", b"2", b"1000000000")
        )
        card = dice.choice((
            lambda at, other, value=value: bytes(x[at : at + 10]) + value[:70].rjust(20).ljust(70),
            lambda at, other: bytes(x[other : other + 80]),
            lambda at, other: b" " * 80,
            lambda at, other: b"HIERARCH " + bytes(x[at : at + 71]),
            lambda at, other: bytes(mutated(dice, bytes(x[at : at + 80]), [b"x"])[:80].ljust(80)),
        ))(at, other)  # fmt: skip
        x[at : at + 80] = card
    return bytes(x)


def _files(*patterns: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [path.read_bytes() for pattern in patterns for path in sorted(DATA.glob(pattern))]


def _texts(*texts: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [text.encode() for text in texts]


def _made(write: Callable[[Path], object], name: str) -> Callable[[], Sequence[bytes]]:
    """The content of a file that a function of ours writes."""

    def content() -> Sequence[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / name)
            return [(Path(folder) / name).read_bytes()]

    return content


def _par(path: Path) -> object:
    from jaxsci import timing
    from jaxsci.datasets import read_text

    return timing.TimingModel.parse(read_text(path), "warn")


def _tim_corpus() -> Sequence[bytes]:
    from jaxsci.timing.io import tim_text

    rest = (
        b"FORMAT 1\nJUMP\na 1400 55000.1 1.0 gbt -f x\nJUMP\nINCLUDE a.tim\nSKIP\nb 14 55001 1 gbt -pn 5\nNOSKIP\nEND\n"
    )
    return [tim_text("NGC6440E").encode(), tim_text("J1909-3744")[:6000].encode(), rest]


def _tim(path: Path) -> object:
    from jaxsci.timing._tim import check_words, gather

    files = gather(path, path.parent)
    check_words(files)
    return files


def _pint(path: Path) -> object:
    from jaxsci import timing

    par = path.with_suffix(".par")
    par.write_text((DATA / "timing" / "NGC6440E.par").read_text())
    return timing.load(par, path, cache=False, ephem="DE421", clock_dir=os.environ["JAXSCI_CLOCKS"])


def _short_tim() -> Sequence[bytes]:
    from jaxsci.timing.io import tim_text

    return ["\n".join(tim_text("NGC6440E").splitlines()[:8]).encode()]


def _toas(path: Path) -> object:
    from jaxsci import timing

    toas = timing.TOAs.load(path)
    toas.check()
    return toas


def _toml(path: Path) -> object:
    from jaxsci.runs import read_config

    return read_config(str(path))


def _toml_corpus() -> Sequence[bytes]:
    return [path.read_bytes() for path in sorted(CONFIGS.rglob("*.toml"))]


def _config(path: Path) -> object:
    from jaxsci import runs

    return runs.load(str(path))


_SMALL = (
    """task = "curvefit"
[model]
type = "Exponential"
amplitude = 2.0
tau = 1.0
[fit]
solver = { type = "TRF", rtol = 1e-8 }
loss = { type = "Huber", scale = 1.0 }
max_steps = 20
[fit.bounds]
tau = [0.1, 10.0]
[[data]]
x = [0.0, 1.0, 2.0, 3.0, 4.0]
y = [3.0, 2.0, 1.5, 1.2, 1.1]
sigma = 0.1
""",
    """task = "timing"
[fit]
free = ["F0", "F1"]
[[data]]
pulsar = "bundled:NGC6440E"
""",
    """task = "xpcs"
[fit]
model = { type = "StretchedExponential", exponent = 1.0 }
delays = [0.0, 10.0]
columns = [0, 1, 2]
bounds = { tau = [1e-6, 1e3] }
[[data]]
file = "bundled:xpcs/diffusion.h5"
""",
    """task = "meanfield"
particles = 100
seed = 1
diffusion = 0.7
stepper = "Heun"
reference = "finite volume"
[box]
lower = -3.0
upper = 3.0
cells = 20
[drift]
type = "OrnsteinUhlenbeck"
theta = 1.0
mu = 1.0
[start]
type = "Gaussian"
mean = 0.5
sd = 0.2
[time]
end = 1.0
steps = 10
keep = 5
[density]
type = "SpectralKDE"
bandwidth = "ISJ"
""",
    """task = "compsep"
[instrument]
frequency = [30.0, 90.0, 150.0, 220.0, 353.0]
depth_p = [10.0, 5.0, 5.0, 9.0, 20.0]
[components.cmb]
type = "CMB"
[components.dust]
type = "AnalyticSED"
expression = "(nu / nu0)**beta"
nu0 = 353.0
[sky]
templates = "bundled:compsep/sky16.npz"
stokes = "QU"
""",
)


def _small() -> Sequence[bytes]:
    from jaxsci import runs  # those that are fine, so that a change of the format is noticed

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for text in _SMALL:
            path = Path(folder) / "a.toml"
            path.write_text(text)
            try:
                runs.load(str(path))
            except runs.ConfigError as error:
                print(f"a config of the corpus is not read: {error}", file=sys.stderr)
            found.append(text.encode())
    return found


def _csv(path: Path) -> object:
    from jaxsci.curvefit._task.tables import is_nist, is_stack, read_nist, read_table

    assert not is_stack(path, "file")
    if is_nist(path, "file"):
        return read_nist(path, "file")
    return read_table(path, "file", ("x", "y", "sigma", "time", "volts"))


def _table(path: Path) -> object:
    from jaxsci.curvefit._task.tables import is_stack, read_stack, read_table

    return read_stack(path, "file") if is_stack(path, "file") else read_table(path, "file", ("x", "y", "sigma"))


def _hdf5_table(path: Path) -> None:
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        file["x"], file["y"] = np.arange(20.0), np.arange(20)
        file.create_dataset("sigma", data=np.ones(20), chunks=(5,), compression="gzip")
        file["texts"] = ["a", "b"]


def _npy_table(path: Path) -> None:
    import numpy as np

    np.save(path, np.zeros(9, [("x", float), ("y", float)]))


def _parquet_table(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"x": [1.0, 2.0, 3.0], "y": [1, 2, None], "n": ["a", "b", "b"]}), path)


def _result(path: Path) -> object:
    from jaxsci import xpcs

    return xpcs.read_result(path, within=path.parent)


def _result_file(path: Path) -> None:
    import dataclasses as dc

    import equinox as eqx

    from jaxsci import xpcs

    whole = xpcs.read_result(DATA / "xpcs" / "diffusion.h5")
    small = dc.replace(whole, curves=whole.curves.take((0, 1)), scattering=None, two_time=None, intensity=None)
    del eqx
    xpcs.write_result(path, small)


def _qmap(path: Path) -> object:
    from jaxsci import xpcs

    return xpcs.read_qmap(path)


def _detector() -> Any:
    import jax.numpy as jnp

    from jaxsci import xpcs

    geometry = xpcs.TransmissionGeometry(10.0, (3.0, 3.0), 1000.0, 0.1, (8, 8))
    mask = jnp.ones((8, 8), bool)
    return geometry, mask, xpcs.partition(geometry, mask, [xpcs.Axis("q", 3)])


def _qmap_file(path: Path) -> None:
    from jaxsci import xpcs

    xpcs.write_qmap(path, *_detector())


def _masks(path: Path) -> object:
    from jaxsci import xpcs

    return xpcs.read_masks(path)


def _mask_file(path: Path) -> None:
    from jaxsci import xpcs

    masks = [xpcs.Circle([3.0, 3.0], 2.0), xpcs.Not(xpcs.Rectangle([0.0, 0.0], [2.0, 2.0])), xpcs.BadPixels([[1, 2]])]
    xpcs.write_masks(path, xpcs.MaskHistory(masks))


def _poni(path: Path) -> object:
    from jaxsci import xpcs

    return xpcs.read_poni(path)


def _poni_file(path: Path) -> None:
    from jaxsci import xpcs

    xpcs.write_poni(path, _detector()[0])


def _layout(path: Path) -> object:
    from jaxsci.xpcs.io import read_layout

    return read_layout(path)


def _blemish(path: Path) -> object:
    from jaxsci import xpcs

    return xpcs.Blemish(str(path))


def _blemish_file(path: Path) -> None:
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        file["lambda_blemish"] = np.ones((8, 8), np.uint8)


def _sky(path: Path) -> object:
    from jaxsci.compsep import io as sky

    return sky.read_mask(path), sky.read_map(path, assume="uK_CMB")


def _sky_file(path: Path) -> None:
    import numpy as np

    from jaxsci.compsep import io as sky

    sky.write_map(path, np.arange(3.0 * 48).reshape(3, 48), "uK_CMB")


def _sed(path: Path) -> object:
    import jax.numpy as jnp

    from jaxsci import compsep

    content = path.read_bytes().decode("utf-8", "replace")
    sed = compsep.AnalyticSED(content)
    return sed(jnp.asarray([30.0, 100.0])) if len(content) < 60 else sed


_EXPRESSIONS = (
    *(
        "(nu / nu0)**beta",
        "expm1(h_over_k * 100 / T) / expm1(h_over_k * nu / T) * (nu / 100.0)**(1 + b)",
        "nu",
        "-nu + 1",
    ),
    *("exp(-((nu - 90) / w)**2)", "sqrt(abs(nu)) * log10(nu) - 2.5e-3 / (1 + tanh(nu / pi))", "E**(-nu) + cosh(1e2)"),
)


def _decay() -> Any:
    import jax.numpy as jnp

    import jaxsci as js

    class Decay(js.AbstractModel):
        """A small model."""

        amp: js.Scalar = js.param()
        tau: js.Scalar = js.param(bounds=(0, None))

        def __call__(self, t: Any) -> Any:
            return self.amp * jnp.exp(-t / self.tau)

    return Decay(1.0, 1.0)


def _solution(path: Path) -> object:
    import jaxsci as js

    return js.Solution.load(path, _decay())


def _solution_file(path: Path) -> None:
    import jax.numpy as jnp

    import jaxsci as js

    t = jnp.linspace(0.0, 3.0, 10)
    js.fit(_decay(), js.Dataset(t, 2 * jnp.exp(-t / 1.5), js.White(0.1))).save(path)


def _checkpoint(path: Path) -> object:
    from jaxsci.parallel import Kept

    return Kept.read(path)


def _checkpoint_file(path: Path) -> None:
    import numpy as np

    from jaxsci.parallel import Checkpoint

    with Checkpoint(path, {"data": (np.zeros(2), "fit")}, every=0, about={"free": ["a"]}) as kept:
        kept.keep("lanes", (np.arange(3.0), np.ones(2, bool)))


def _density(path: Path) -> object:
    from jaxsci.meanfield._task.references import _columns

    return _columns(path, "reference")


def _density_corpus() -> Sequence[bytes]:
    return [
        b"t,x,density\n0,0.5,1\n0,1.5,2\n1,0.5,2\n1,1.5,1\n",
        b"t,x,density,err\n0,0.5,1,.1\n1,0.5,2,.1\n",
    ]


def _manifest(path: Path) -> object:
    from jaxsci.runs._batch.manifest import read_manifest

    return read_manifest(path)


_MANIFESTS = (
    """[defaults]
config = "bundled:curvefit/own-data"
fit.max_steps = 50
[[item]]
name = "one"
[[item]]
name = "two"
fit = { max_steps = 10 }
""",
    """[[each]]
files = "*.toml"
config = "bundled:curvefit/own-data"
name = "{stem}"
title = "{file}"
""",
)

READERS = (
    Reader("par", _par, ".par", _files("timing/*.par"), 12_000, mutated),
    Reader("tim, text", _tim, ".tim", _tim_corpus, 12_000, mutated),
    Reader("tim, by PINT", _pint, ".tim", _short_tim, 300, mutated, "pint"),
    Reader("TOAs, npz", _toas, ".npz", _files("timing/NGC6440E.npz"), 8_000, rezipped),
    Reader("TOML", _toml, ".toml", _toml_corpus, 15_000, mutated),
    Reader("configs, checked", _config, ".toml", _small, 2_000, retold),
    Reader("manifests", _manifest, ".toml", _texts(*_MANIFESTS), 1_500, retold),
    Reader("text tables", _csv, ".csv", _files("curvefit/*.csv"), 12_000, mutated),
    Reader("NIST files", _csv, ".dat", _files("nist/*.dat"), 6_000, mutated),
    Reader("npy tables", _table, ".npy", _made(_npy_table, "a.npy"), 4_000, mutated),
    Reader("Parquet tables", _table, ".parquet", _made(_parquet_table, "a.parquet"), 3_000, inplace, "pyarrow"),
    Reader("HDF5 tables", _table, ".h5", _made(_hdf5_table, "a.h5"), 3_000, inplace, "h5py"),
    Reader("densities, csv", _density, ".csv", _density_corpus, 3_000, mutated),
    Reader("densities, npz", _density, ".npz", _files("meanfield/ou_snapshots.npz"), 3_000, rezipped),
    Reader("results, HDF5", _result, ".h5", _made(_result_file, "a.h5"), 2_000, inplace, "h5py"),
    Reader("q-maps, HDF5", _qmap, ".h5", _made(_qmap_file, "a.h5"), 2_000, inplace, "h5py"),
    Reader("blemish files", _blemish, ".h5", _made(_blemish_file, "a.h5"), 1_500, inplace, "h5py"),
    Reader("masks, JSON", _masks, ".json", _made(_mask_file, "a.json"), 3_000, mutated),
    Reader("poni files", _poni, ".poni", _made(_poni_file, "a.poni"), 4_000, mutated),
    Reader("layouts", _layout, ".toml", _texts('g2 = "/a/b"\ndelays = "/exchange/tau"\n'), 3_000, mutated),
    Reader("maps, FITS", _sky, ".fits", _made(_sky_file, "a.fits"), 2_000, recarded, "healpy"),
    Reader("spectra", _sed, ".txt", _texts(*_EXPRESSIONS), 10_000, mutated),
    Reader("solutions", _solution, ".jsci", _made(_solution_file, "a.jsci"), 1_500, reframed),
    Reader("checkpoints", _checkpoint, ".jsci", _made(_checkpoint_file, "a.jsci"), 6_000, reframed),
)


def case(reader: Reader, number: int, corpus: Sequence[bytes]) -> bytes:
    """The content of a case: by its number alone."""
    dice = random.Random(f"{reader.name}/{number}")
    return reader.mutate(dice, dice.choice(corpus), corpus)


def run_cases(reader: Reader, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Run some cases in this process; what came of each, as a dictionary."""
    from jaxsci.core import enable_x64

    enable_x64()
    corpus = reader.corpus()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"case{reader.suffix}"
        path.write_bytes(corpus[0])
        try:  # what a first call loads is no part of a case
            reader.read(path)
        except REFUSALS as error:
            print(f"{reader.name}: the corpus itself is refused: {error}", file=sys.stderr)
        before = _peak()
        for number in range(first, first + count):
            path.write_bytes(case(reader, number, corpus))
            began = time.process_time()
            yield {"case": number, **_outcome(reader, path), "s": time.process_time() - began, "mb": _peak() - before}


def _outcome(reader: Reader, path: Path) -> dict[str, str]:
    try:
        reader.read(path)
    except REFUSALS as error:
        # a message should name the file, or the place in a text that has no file
        named = path.name in str(error) or type(error).__name__ == "ConfigError" or reader.name in ("spectra", "par")
        return {"kind": "refused", "error": type(error).__name__, "named": str(named), "said": str(error)[:300]}
    except BaseException as error:  # whatever it is, it is what is looked for
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "jaxsci" in f.filename]
        at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return {"kind": "unexpected", "error": f"{type(error).__name__} at {at}", "said": str(error)[:300]}
    return {"kind": "read"}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def watched(reader: Reader, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Run some cases in a process of their own, and another after a crash or a hang, until all have been run."""
    import selectors

    at = first
    while at < first + count:
        command = [sys.executable, "-m", "benchmarks._fuzz", reader.name, str(at), str(first + count - at)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            ready = selectors.DefaultSelector()
            ready.register(process.stdout, selectors.EVENT_READ)
            patience = 120.0  # what is loaded first
            while ready.select(patience):
                line = process.stdout.readline()
                if not line:
                    break
                found = json.loads(line)
                patience, at = SLOW, found["case"] + 1
                yield found
            else:
                process.kill()
                yield {"case": at, "kind": "unexpected", "error": "hung", "said": "", "s": SLOW, "mb": 0.0}
                at += 1
                continue
        if at < first + count:
            said = f"ended with {process.returncode}"
            yield {"case": at, "kind": "unexpected", "error": "crashed", "said": said, "s": 0.0, "mb": 0.0}
            at += 1


def row(reader: Reader, share: float = 1.0) -> dict[str, Any]:
    """What came of all cases of a reader, or of a share of them."""
    if reader.needs and importlib.util.find_spec(reader.needs) is None:
        return {"reader": reader.name, "cases": 0, "note": f"not run: needs {reader.needs}"}
    found = list(watched(reader, 0, max(int(reader.cases * share), 20)))
    errors = collections.Counter(each["error"] for each in found if each["kind"] == "refused")
    wrong = [each for each in found if each["kind"] == "unexpected"]
    return {
        "reader": reader.name,
        "cases": len(found),
        "read": sum(each["kind"] == "read" for each in found),
        "refused": dict(errors),
        "unnamed": sum(each.get("named") == "False" for each in found),
        "unexpected": len(wrong),
        "kinds": dict(collections.Counter(each["error"] for each in wrong)),
        "examples": {each["error"]: each["case"] for each in reversed(wrong)},
        "slowest_s": max(each["s"] for each in found),
        "memory_mb": max(each["mb"] for each in found),
    }


def rows(share: float = 1.0) -> Iterator[dict[str, Any]]:
    """A row for each reader: cases, errors by kind, what was not expected (nothing should be), time and memory."""
    for reader in READERS:
        found = row(reader, share)
        print(found, file=sys.stderr, flush=True)
        yield found


def main(arguments: Sequence[str]) -> int:
    """Run some cases of a reader and print what came of each."""
    name, first, count = arguments
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))  # what takes all memory ends here, and nothing else does
    reader = next(each for each in READERS if each.name == name)
    for found in run_cases(reader, int(first), int(count)):
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
