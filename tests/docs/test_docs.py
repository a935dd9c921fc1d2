"""The documentation: its code runs and prints what it says, and the site builds without a warning."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import jax
import pytest
from run_pages import blocks

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUN = [page for page in PAGES if any(block.is_run for block in blocks(page))]
RUNNER = Path(__file__).with_name("run_pages.py")


def label(path):
    return str(path.relative_to(ROOT))


def started(*arguments, cwd, stderr=subprocess.PIPE):
    """A Python of its own with these arguments, without colours and announcements."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": path, "NO_COLOR": "1"}
    words = [sys.executable, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=cwd, env=os.environ | settings, stdout=pipe, stderr=stderr, text=True)


class Runner:
    """One process that runs pages, one after the other; each test waits for its own."""

    def __init__(self, pages):
        cache = jax.config.jax_compilation_cache_dir
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe that nobody reads would fill up
        self.process = started(RUNNER, cache, *pages, cwd=ROOT, stderr=self.stderr)
        self.found = {}

    def wrong_with(self, page):
        """What is wrong with a page, if anything."""
        while str(page) not in self.found:
            line = self.process.stdout.readline()
            assert line, self._said()
            self.found |= json.loads(line)
        return self.found[str(page)]

    def _said(self):
        self.stderr.seek(0)
        return self.stderr.read()

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.stderr.close()


@pytest.fixture(scope="module")
def runner():
    made = Runner(RUN)
    yield made
    made.close()


@pytest.mark.parametrize("page", RUN, ids=label)
def test_the_code_of_a_page_runs(page, runner):
    assert not runner.wrong_with(page)


@pytest.mark.slow
def test_the_code_of_the_readme_runs():
    """Slow because the pages have the same code."""
    readme = ROOT / "README.md"
    made = Runner([readme])
    assert not made.wrong_with(readme)
    made.close()


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_blocks_are_marked(page):
    for line, info, *_ in blocks(page):
        known = info.split()[:1] and info.split()[0] in {"python", "text", "bash", "toml"}
        assert known, f"{label(page)}:{line}: a block of {info or 'no kind'!r}"


def test_notebooks_are_the_pages():
    """Their code is that of the pages, which is run above."""
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "_notebooks.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for page in made.PAGES:
        path = DOCS / "notebooks" / f"{page}.ipynb"
        assert path.read_text() == made.notebook(page), f"python docs/_notebooks.py writes {path.name} anew"
        run = [block.text.rstrip("\n") for block in blocks(DOCS / f"{page}.md") if block.is_run]
        cells = json.loads(path.read_text())["cells"]
        assert ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"] == run


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


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=label)
def test_pictures_are_there_for_light_and_dark_pages(page):
    for name in re.findall(r'(?:srcset|src)="([^"]+)"|!\[[^]]*\]\(([^)]+)\)', page.read_text()):
        assert (page.parent / "".join(name)).is_file(), name
    assert "![" not in page.read_text(), "a picture needs its dark twin: <picture>, see index.md"


def test_the_site_builds_without_a_warning(tmp_path):
    if any(importlib.util.find_spec(name) is None for name in ("zensical", "mkdocstrings", "l2m4m")):
        pytest.skip("what builds the site is not installed: pip install -e '.[docs]'")
    shutil.copytree(DOCS, tmp_path / "docs")  # the site is built beside its sources
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    (tmp_path / "jaxsci").symlink_to(ROOT / "jaxsci")
    build = started("-m", "zensical", "build", "--strict", "--clean", cwd=tmp_path)
    said = build.communicate(timeout=500)
    assert build.returncode == 0, said
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', text)
        assert not loaded, f"{page.name} loads {loaded}"
        assert "$" not in re.sub(r"<(code|pre|script)\b.*?</\1>", "", text, flags=re.S), (
            f"{page.name}: a formula is not set"
        )
    assert "<math" in (tmp_path / "site" / "meanfield.html").read_text()
    assert (tmp_path / "site" / "search.js").is_file(), "search from disk"
