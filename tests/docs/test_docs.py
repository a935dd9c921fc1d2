"""The documentation: its code runs and prints what it says, and the site builds without a warning."""

import contextlib
import importlib.util
import io
import math
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?")


def label(path):
    return str(path.relative_to(DOCS))


def blocks(path):
    """(line, info, text) of each fenced block of a page."""
    text = path.read_text()
    return [(text.count("\n", 0, m.start()) + 2, m[1].strip(), m[2]) for m in FENCE.finditer(text)]


def is_run(info):
    return info.split()[:1] == ["python"] and 'title="not run' not in info


RUN = [page for page in [*PAGES, ROOT / "README.md"] if any(is_run(info) for _, info, _ in blocks(page))]


@contextlib.contextmanager
def as_users_have_it():
    """JAX's default promotion, which the other tests forbid."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def alike(printed, told):
    """The same words, and numbers equal to two parts in a hundred: another machine rounds differently."""
    words, other = (re.split(r"\s+", NUMBER.sub(" ", text).strip()) for text in (printed, told))
    numbers = [[float(x) for x in NUMBER.findall(text)] for text in (printed, told)]
    return words == other and len(numbers[0]) == len(numbers[1]) and all(map(near, *numbers))


def near(one, other):
    return math.isclose(one, other, rel_tol=2e-2, abs_tol=1e-12)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """Blocks in order, in one namespace; a block titled "prints" is what the one before it prints."""
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(f"docs_{page.stem.replace('-', '_').lower()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    printed = ""
    with as_users_have_it():
        for line, info, text in blocks(page):
            if is_run(info):
                out = io.StringIO()
                source = "\n" * (line - 1) + text  # a traceback names the line of the page
                with contextlib.redirect_stdout(out):
                    exec(compile(source, str(page), "exec"), vars(module))
                printed = out.getvalue()
            elif 'title="prints"' in info:
                assert alike(printed, text), f"{page.name}:{line} prints\n{printed}"
    plt = sys.modules.get("matplotlib.pyplot")
    if plt is not None:
        plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_blocks_are_marked(page):
    """Code is run, or says that it is not."""
    known = {"python", "text", "bash", "toml"}
    for line, info, _ in blocks(page):
        assert info.split()[:1] and info.split()[0] in known, f"{label(page)}:{line}: a block of {info or 'no kind'!r}"


def test_every_public_name_is_in_the_api_pages():
    import jaxsci
    import jaxsci.curvefit as curvefit

    text = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", text, re.M))
    wanted = {f"jaxsci.{name}" for name in jaxsci.__all__}
    wanted |= {f"jaxsci.curvefit.{name}" for name, kind in vars(curvefit).items() if is_public(name, kind)}
    assert not wanted - shown, sorted(wanted - shown)


def is_public(name, kind):
    return not name.startswith("_") and not isinstance(kind, types.ModuleType)


def test_the_site_builds_without_a_warning(tmp_path):
    if any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings_handlers.python")):
        pytest.skip("mkdocs-material and mkdocstrings are not installed: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"NO_COLOR": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text())
        assert not loaded, f"{page.name} loads {loaded}"
