"""Make notebooks of pages of the documentation: `python docs/_notebooks.py` writes docs/notebooks.

A page is the source: its words become cells of Markdown, its code cells of code, what it prints is left for the reader
to run. The tests run the code of the pages, and hold the notebooks to them.
"""

import re
from pathlib import Path

import nbformat
from _pages import blocks
from nbformat import v4

DOCS = Path(__file__).parent
PAGES = ("getting-started", "curvefit", "timing", "compsep", "meanfield", "xpcs", "sampling", "inside-jax", "pipelines")
_LINK = re.compile(r'(\]\(|src="|srcset=")(?!https?:|#)([^)"]+)')


def notebook(page: str) -> str:
    """Make the text of the notebook of a page, without outputs."""
    text, at, cells = (DOCS / f"{page}.md").read_text(), 0, []
    for block in blocks(DOCS / f"{page}.md"):
        if block.is_run or block.prints:
            cells += _words(text[at : block.start], page, len(cells))
            at = block.end
        if block.is_run:
            cells.append(v4.new_code_cell(block.text.rstrip("\n"), id=f"{page}-{len(cells)}"))
    cells += _words(text[at:], page, len(cells))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


def _words(text, page, number):
    """A cell of Markdown, if there are any words; what it links to lies one folder up."""
    text = _LINK.sub(r"\1../\2", text.strip())
    return [v4.new_markdown_cell(text, id=f"{page}-{number}")] if text else []


def main():
    """Write them all."""
    folder = DOCS / "notebooks"
    folder.mkdir(exist_ok=True)
    for page in PAGES:
        (folder / f"{page}.ipynb").write_text(notebook(page))


if __name__ == "__main__":
    main()
