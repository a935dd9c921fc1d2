"""A mistake in a file, a command or a call is said with its place and with what to do, in one line that can be read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import _mistaken_calls as calls, _mistaken_commands as commands
from benchmarks._mistakes import MISTAKES, line_of, said_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "messages.md"
INSIDE = re.compile(r"Traced<|jaxtyping|beartype|Traceback|equinox/|site-packages|object at 0x|XlaRuntime|<class '")
REMEDY = re.compile(
    r"should|must|need|give|make|take|use |return|read|write|choose|did you mean|there (are|is)|or is not|have to|"
    r"look|mask|leave|move|ravel|free it|no more|divide|pad|start|name|number|nothing|lies|match|say|permits|has \(?\d|"
    r"is that in|Install|for example|but |has no|cannot|is no |at line \d|: \w+, \w+|"
    r"(Assertion|Runtime|Syntax|ModuleNotFound)Error: ",  # a researcher's own words, or Python's of their file
    re.IGNORECASE,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.reader}: {mistake.what}")
def test_what_is_said(tmp_path, mistake):
    said = said_of(mistake, tmp_path)
    assert re.search(mistake.place, said), said
    assert re.search(mistake.remedy, said), said
    assert "Traceback" not in said
    assert len(said) < 1200
    line = line_of(mistake, said.replace(f"{tmp_path}/", ""))
    assert line in PAGE.read_text(), f"python -m benchmarks show writes {PAGE.name} anew"


@pytest.fixture(scope="module")
def told():
    """What is said of all calls, made as a user makes them: without the checks of types that tests have."""
    return dict(zip(calls.CALLS, calls.told(), strict=True))


@pytest.mark.parametrize("call", calls.CALLS, ids=lambda call: f"{call.area}: {call.what}")
def test_what_is_said_of_a_call(told, call):
    said = told[call]
    assert said.error == call.error, said.text or f"{call.code} is taken without a word"
    _one_sentence(said.text)
    line = calls.line_of(call, said.text)
    assert line in PAGE.read_text(), f"python -m benchmarks show writes {PAGE.name} anew"


@pytest.fixture(scope="module")
def ended():
    """How all commands end."""
    return dict(zip(commands.COMMANDS, commands.told(), strict=True))


@pytest.mark.parametrize("command", commands.COMMANDS, ids=lambda command: command.what)
def test_what_is_said_of_a_command(ended, command):
    end = ended[command]
    assert (end.raised, end.code, end.left) == ("", command.code, [])
    assert end.said.startswith("error: ")
    assert end.said.endswith("\n")
    _one_sentence(end.said.strip())
    line = commands.line_of(command, end.said)
    assert line in PAGE.read_text(), f"python -m benchmarks show writes {PAGE.name} anew"


def _one_sentence(said):
    assert "\n" not in said
    assert 10 < len(said) < 700
    assert not INSIDE.search(said), said
    assert REMEDY.search(said), said


def test_a_process_of_its_own_ends_so_too(tmp_path):
    """Nothing that the runner of the tests catches comes through: neither a traceback nor another exit code."""
    (tmp_path / "bad.py").write_text("raise SystemExit(5)\n")
    words = [sys.executable, "-m", "jaxsci", "check", "bundled:curvefit/own-data.toml", "--import", "bad.py"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: --import bad.py: it ends the program")


def test_all_lines_of_the_page_are_held():
    """None is left of a mistake that is no longer made."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 3 + len(MISTAKES) + len(calls.CALLS) + len(commands.COMMANDS)
