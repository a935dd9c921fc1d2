"""The documentation: its code runs and prints what it says, and the site builds without a warning."""

import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest
from run_page import blocks, is_run

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUN = [page for page in PAGES if any(is_run(info) for _, info, _ in blocks(page))]
README = pytest.param(ROOT / "README.md", marks=pytest.mark.slow)  # the pages have the same code


def label(path):
    return str(path.relative_to(ROOT))


def python(*arguments, cwd):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": path, "NO_COLOR": "1", "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("page", [*RUN, README], ids=label)
def test_the_code_of_a_page_runs(page, tmp_path):
    cache = jax.config.jax_compilation_cache_dir
    done = python(Path(__file__).with_name("run_page.py"), page, cache, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_blocks_are_marked(page):
    for line, info, _ in blocks(page):
        known = info.split()[:1] and info.split()[0] in {"python", "text", "bash", "toml"}
        assert known, f"{label(page)}:{line}: a block of {info or 'no kind'!r}"


def test_every_public_name_is_in_the_api_pages():
    import jaxsci
    import jaxsci.curvefit as curvefit

    text = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", text, re.M))
    wanted = {f"jaxsci.{name}" for name in jaxsci.__all__ if not name.startswith("_")}
    wanted |= {f"jaxsci.curvefit.{name}" for name, kind in vars(curvefit).items() if is_public(name, kind)}
    assert not wanted - shown, sorted(wanted - shown)


def is_public(name, kind):
    return not name.startswith("_") and not isinstance(kind, types.ModuleType)


def test_the_site_builds_without_a_warning(tmp_path):
    if any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")):
        pytest.skip("mkdocs-material and mkdocstrings are not installed: pip install -e '.[docs]'")
    done = python("-m", "mkdocs", "build", "--strict", "-q", "-d", tmp_path / "site", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text())
        assert not loaded, f"{page.name} loads {loaded}"
