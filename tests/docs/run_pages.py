"""Run the code of pages: `python run_pages.py CACHE PAGE...` prints for each {page: what is wrong with it} in JSON.

A process of its own: JAX as users have it, without the checks of every shape that the tests switch on and that make
tracing several times slower.
"""

import contextlib
import io
import json
import math
import re
import sys
import tempfile
import traceback
import types
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
from _pages import blocks

NUMBER = re.compile(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?")


def alike(printed: str, told: str) -> bool:
    """The same words, and numbers equal to two parts in a hundred: another machine rounds differently."""
    words, other = (re.split(r"\s+", NUMBER.sub(" ", text).strip()) for text in (printed, told))
    numbers = [[float(x) for x in NUMBER.findall(text)] for text in (printed, told)]
    near = (math.isclose(one, two, rel_tol=2e-2, abs_tol=1e-12) for one, two in zip(*numbers))
    return words == other and len(numbers[0]) == len(numbers[1]) and all(near)


def run(page: Path) -> str:
    """What is wrong with a page: blocks run in order, in one namespace; "prints" is what the one before prints."""
    module = types.ModuleType(page.stem.replace("-", "_"))
    sys.modules[module.__name__] = module
    printed = ""
    for block in blocks(page):
        if block.is_run:
            out = io.StringIO()
            source = "\n" * (block.line - 1) + block.text  # a traceback names the line of the page
            try:
                with contextlib.redirect_stdout(out):
                    exec(compile(source, str(page), "exec"), vars(module))
            except Exception:
                return traceback.format_exc()
            printed = out.getvalue()
        elif block.prints and not alike(printed, block.text):
            return f"{page.name}:{block.line} should be\n{printed}"
    return ""


def main(cache: str, *pages: str) -> None:
    """Set JAX up for short runs, then run each page in a folder of its own."""
    import jax
    import matplotlib

    matplotlib.use("Agg")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.config.update("jax_disable_most_optimizations", True)
    warnings.simplefilter("error")
    for page in pages:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            wrong = run(Path(page))
        print(json.dumps({page: wrong}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
