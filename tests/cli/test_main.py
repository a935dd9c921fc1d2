"""The command itself: help, version, lists."""

import subprocess
import sys
import warnings

import pytest

import jaxsci
from jaxsci.runs import bad_input


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"]])
def test_help_does_not_import_jax(words):
    code = (
        "import sys\n"
        "from jaxsci.cli import app\n"
        f"app({words}, prog_name='jaxsci', standalone_mode=False)\n"
        "assert 'jax' not in sys.modules, 'jax was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "jaxsci" in done.stdout


def test_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "jaxsci", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"jaxsci {jaxsci.__version__}\n")


def test_help_names_the_commands(command):
    text = command("--help").stdout
    assert all(name in text for name in ("run", "demo", "check", "list"))


@pytest.mark.parametrize("words", [["run"], ["fitt"], ["run", "--sett", "a"], ["list", "modells"]])
def test_bad_usage_is_exit_code_2(command, words):
    assert command(*words).exit_code == 2


def test_list(command, folder):
    text = command("list").stdout
    assert all(name in text for name in ("nist.Hahn1", "TRF", "Huber", "White", "Normal"))
    assert "TRF" not in command("list", "losses").stdout
    assert "Decay" in command("list", "models", "--import", "my_models.py").stdout
    assert "did you mean 'models'?" in command("list", "model").stderr


def test_a_warning_is_a_note_of_one_line():
    """The place in our source from which a warning came says nothing to a researcher."""
    told = UserWarning("a line is passed over"), UserWarning, "/somewhere/io.py", 12
    plain = warnings.formatwarning(*told)
    with bad_input():
        assert warnings.formatwarning(*told) == "note: a line is passed over\n"
    assert warnings.formatwarning(*told) == plain


def test_bad_input_of_a_command_restores_what_it_changed(command):
    before = warnings.formatwarning
    assert command("check", "no-such-file.toml").exit_code == 2
    assert warnings.formatwarning is before
