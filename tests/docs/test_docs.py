"""The documentation: its code runs and prints what it says, and the site builds without a warning."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest
from run_pages import blocks, is_run

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUN = [page for page in PAGES if any(is_run(info) for _, info, _ in blocks(page))]
RUNNER = Path(__file__).with_name("run_pages.py")


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
        timeout=500,
        check=False,
    )


def what_is_wrong(pages):
    """{page: what is wrong with it, if anything}."""
    done = python(RUNNER, jax.config.jax_compilation_cache_dir, *pages, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def findings():
    return what_is_wrong(RUN)


@pytest.mark.parametrize("page", RUN, ids=label)
def test_the_code_of_a_page_runs(page, findings):
    assert not findings[str(page)]


@pytest.mark.slow
def test_the_code_of_the_readme_runs():
    """Slow because the pages have the same code."""
    readme = ROOT / "README.md"
    assert not what_is_wrong([readme])[str(readme)]


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
    wanted |= {f"jaxsci.curvefit.{name}" for name in curvefit.__all__ if is_public(name, getattr(curvefit, name))}
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
