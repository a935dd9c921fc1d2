"""Area `startup`: what a user waits for before the first result."""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ._cold import in_fresh_process
from ._harness import Area, Row, at_most, case

AREA: Area = []


@case(AREA, "import")
def import_time(quick: bool) -> Iterator[Row]:
    """`import jaxsci` over `import jax`, in processes that take turns."""
    names = ("import_jax", "import_jaxsci")
    in_fresh_process("import_jaxsci")  # byte-code and disk caches
    readings = [[in_fresh_process(name)["cpu"] for name in names] for _ in range(3 if quick else 7)]
    jax_alone = statistics.median(alone for alone, _ in readings)
    added = statistics.median(both - alone for alone, both in readings)
    note = f"import jax alone {jax_alone:.2f}; median of {len(readings)}"
    yield Row("import jaxsci, over import jax", added, "CPU-s", precision="", bar=at_most(1.6), note=note)


@case(AREA, "first fit")
def first_fit(quick: bool) -> Iterator[Row]:
    """A new process until it has fitted 50 points with 4 bounded parameters."""
    repeats = 1 if quick else 3
    plain = [in_fresh_process("first_fit") for _ in range(repeats)]
    with tempfile.TemporaryDirectory() as folder:
        in_fresh_process("first_fit", cache=Path(folder))
        cached = [in_fresh_process("first_fit", cache=Path(folder)) for _ in range(repeats)]
    for name, seen, limit in (("no cache", plain, 8), ("persistent cache", cached, 5)):
        cpu, wall = (min(s[f"process_{kind}"] for s in seen) for kind in ("cpu", "wall"))
        yield Row(f"process to first fit, {name}", cpu, "CPU-s", n=50, wall=wall, bar=at_most(limit))
