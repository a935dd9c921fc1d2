"""A mistake in a file is said with the place where it is and with what to do, in one line that can be read."""

import re
from pathlib import Path

import pytest

from benchmarks._mistakes import MISTAKES, line_of, said_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "messages.md"


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.reader}: {mistake.what}")
def test_what_is_said(tmp_path, mistake):
    said = said_of(mistake, tmp_path)
    assert re.search(mistake.place, said), said
    assert re.search(mistake.remedy, said), said
    assert "Traceback" not in said
    assert len(said) < 1200
    line = line_of(mistake, said.replace(f"{tmp_path}/", ""))
    assert line in PAGE.read_text(), f"python -m benchmarks show writes {PAGE.name} anew"
