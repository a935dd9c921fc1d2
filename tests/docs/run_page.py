"""Run the code of a page: `python run_page.py PAGE CACHE`. Exit status 1, with the reason, where it does not hold.

A process of its own: JAX as users have it, without the checks of every shape that the tests switch on and that make
tracing several times slower.
"""

import contextlib
import io
import math
import re
import sys
import types
import warnings
from pathlib import Path

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?")
PRINTS, NOT_RUN = 'title="prints"', 'title="not run here"'


def blocks(path: Path) -> list[tuple[int, str, str]]:
    """(line, info, text) of each fenced block of a page."""
    text = path.read_text()
    return [(text.count("\n", 0, m.start()) + 2, m[1].strip(), m[2]) for m in FENCE.finditer(text)]


def is_run(info: str) -> bool:
    """True for Python that does not say that it is not run."""
    return info.split()[:1] == ["python"] and NOT_RUN not in info


def alike(printed: str, told: str) -> bool:
    """The same words, and numbers equal to two parts in a hundred: another machine rounds differently."""
    words, other = (re.split(r"\s+", NUMBER.sub(" ", text).strip()) for text in (printed, told))
    numbers = [[float(x) for x in NUMBER.findall(text)] for text in (printed, told)]
    near = (math.isclose(one, two, rel_tol=2e-2, abs_tol=1e-12) for one, two in zip(*numbers))
    return words == other and len(numbers[0]) == len(numbers[1]) and all(near)


def run(page: Path) -> None:
    """Blocks in order, in one namespace; a block titled "prints" is what the one before it prints."""
    module = types.ModuleType(page.stem.replace("-", "_"))
    sys.modules[module.__name__] = module
    printed = ""
    for line, info, text in blocks(page):
        if is_run(info):
            out = io.StringIO()
            source = "\n" * (line - 1) + text  # a traceback names the line of the page
            with contextlib.redirect_stdout(out):
                exec(compile(source, str(page), "exec"), vars(module))
            printed = out.getvalue()
        elif PRINTS in info and not alike(printed, text):
            sys.exit(f"{page.name}:{line} should be\n{printed}")


def main(page: str, cache: str) -> None:
    """Set JAX up for short runs, then run the page in the current folder."""
    import jax
    import matplotlib

    matplotlib.use("Agg")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.config.update("jax_disable_most_optimizations", True)
    warnings.simplefilter("error")
    run(Path(page))


if __name__ == "__main__":
    main(*sys.argv[1:])
