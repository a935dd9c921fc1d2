"""`python -m benchmarks AREA [--quick] [--json FILE] [--compare OLD.json] [--page PAGE.md]`.

`python -m benchmarks all` runs every area in a process of its own and keeps the rows in `benchmarks/stored`, of which
`python -m benchmarks show` makes the page of the documentation and the table of the README.
"""

import argparse
import difflib
import importlib
import subprocess
import sys
from pathlib import Path

from . import _threads as _threads  # before anything that imports NumPy
from ._harness import Row, change, read_json, write_json
from ._page import STORED, show, write_page
from ._table import print_rows

AREAS = ("curvefit", "compsep", "startup", "timing", "particles", "xpcs", "reliability")


def main(arguments: list[str] | None = None) -> int:
    """Run one area and print its table. Returns 0, 1 when a row falls short, 2 for bad arguments."""
    options = _parser().parse_args(arguments)
    if options.area == "all":
        return _all(options.quick, options.only, options.json or STORED)
    if options.area == "show":
        show()
        return 0
    if options.area not in AREAS:
        near = difflib.get_close_matches(options.area, AREAS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"there is no area {options.area!r}{hint} (areas: {', '.join(AREAS)})", file=sys.stderr)
        return 2
    try:
        old = None if options.compare is None else read_json(options.compare)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    rows = _run(options.area, options.quick, options.only)
    print_rows(options.area, rows, None if old is None else [change(r, old.get((r.name, r.peer))) for r in rows])
    if options.json is not None:
        write_json(options.json, options.area, options.quick, rows, some=bool(options.only))
    if options.page is not None:
        write_page(options.page, options.area, rows)
    return 1 if any(row.holds is False for row in rows) else 0


def _all(quick: bool, only: str, folder: Path) -> int:
    """Each area in a process of its own, which begins with nothing compiled; its rows are kept when it ends."""
    codes = []
    for area in AREAS:
        command = [sys.executable, "-m", "benchmarks", area, "--json", str(folder / f"{area}.json")]
        command += ["--quick"] * quick + (["--only", only] if only else [])
        codes.append(subprocess.run(command, check=False).returncode)
    return max(codes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure an area beside its peers.")
    parser.add_argument("area", help=", ".join((*AREAS, "all", "show")))
    parser.add_argument("--quick", action="store_true", help="small problems with bars of their own, within 45 s")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here (of all areas: a folder)")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="show the change from an earlier --json")
    parser.add_argument("--page", type=Path, metavar="PAGE.md", help="write the table into this page, at its marks")
    return parser


def _run(area: str, quick: bool, only: str) -> list[Row]:
    cases = importlib.import_module(f"benchmarks.{area}").AREA
    rows: list[Row] = []
    for case in cases:
        if only.lower() in case.name.lower():
            print(f"{case.name} ...", file=sys.stderr, flush=True)
            rows.extend(case.rows(quick))
    return rows


if __name__ == "__main__":
    sys.exit(main())
