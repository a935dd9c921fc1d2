"""The blocks of code in a page of the documentation, for those that run them, draw with them or make notebooks of them.

Python is run unless it says `title="not run here"`; a block that says `title="prints"` is what the one before prints.
"""

import re
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
PRINTS, NOT_RUN = 'title="prints"', 'title="not run here"'


class Block(NamedTuple):
    """A fenced block: the line at which it begins, what stands behind its fence, and its text; where it lies."""

    line: int
    info: str
    text: str
    start: int
    end: int

    @property
    def is_run(self) -> bool:
        """True for Python that does not say that it is not run."""
        return self.info.split()[:1] == ["python"] and NOT_RUN not in self.info

    @property
    def prints(self) -> bool:
        """True for what the block before it prints."""
        return PRINTS in self.info


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = path.read_text()
    return [
        Block(text.count("\n", 0, m.start()) + 2, m[1].strip(), m[2], m.start(), m.end()) for m in FENCE.finditer(text)
    ]
