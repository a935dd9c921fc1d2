"""Items per hour of `jaxsci batch`, and what an item costs beside loading and fitting.

`python -m benchmarks._items [COUNT [KINDS]]` prints the rows that `rows` makes, for one worker and for two. An item is
a par file and its own TOAs, simulated from a bundled pulsar, and fitted by itself, as of thousands in a night.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIG = """
task = "timing"

[[data]]
par = "none.par"
tim = "none.npz"
"""


def simulate(folder: Path, count: int, kinds: int) -> None:
    """Write so many simulated pulsars, the first `kinds` bundled ones in turn, and a manifest of all."""
    import jax

    import jaxsci as js
    from jaxsci import timing
    from jaxsci.runs import bundled

    js.enable_x64()
    (folder / "toas").mkdir()
    names = timing.bundled()[:kinds]
    pulsars = {name: timing.bundled(name) for name in names}
    items = ['[defaults]\nconfig = "pulsar.toml"']
    for name in names:
        (folder / f"{name}.par").write_text(bundled(f"bundled:timing/{name}.par", "").read_text())
    for k, name in zip(range(count), itertools.cycle(names), strict=False):
        made = timing.simulate(*pulsars[name], key=jax.random.key(k))
        made.save(folder / "toas" / f"{k}.npz")
        items.append(f'[[item]]\nname = "{name}-{k}"\ndata.0.par = "{name}.par"\ndata.0.tim = "toas/{k}.npz"')
    (folder / "pulsar.toml").write_text(CONFIG)
    (folder / "items.toml").write_text("\n".join(items))


def measure(folder: Path, workers: int) -> dict[str, Any]:
    """Run all items by so many workers, and read from what each has left how long it took.

    Start-up, and the first items of each kind, which compile, are not counted: a night has them once.
    """
    from jaxsci.runs._batch.item import read_result

    out = folder / f"out-{workers}"
    command = [sys.executable, "-m", "jaxsci", "batch", "items.toml", "-j", str(workers), "--out", str(out)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 3):  # 3: there are fits that did not end well, which are told below
        raise RuntimeError(f"jaxsci batch ended with {done.returncode}: {done.stderr[-2000:]}")
    whole = time.perf_counter() - began
    ended = sorted((path.stat().st_mtime, path.parent) for path in out.glob("items/*/item.jsci"))
    warm = len(ended) // 4
    counted = [read_result(place).seconds for _, place in ended[warm:]]
    wall = (ended[-1][0] - ended[warm - 1][0]) / len(counted)
    load, run = (statistics.mean(seconds[key] for seconds in counted) for key in ("load", "run"))
    return {
        "items": len(ended),
        "workers": workers,
        "not well": sorted(place.name for _, place in ended if not read_result(place).success),
        "seconds": whole,
        "items per hour": 3600 / wall,
        "load, ms": 1e3 * load,
        "fit, ms": 1e3 * run,
        "beside, ms": 1e3 * (wall * workers - load - run),
    }


def rows(count: int = 1000, kinds: int = 9) -> list[dict[str, Any]]:
    """A row for one worker and one for two, with so many pulsars made of so many bundled ones."""
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder), count, kinds)
        return [measure(Path(folder), workers) for workers in (1, 2)]


if __name__ == "__main__":
    for row in rows(*map(int, sys.argv[1:])):
        print(json.dumps(row))
