"""A folder with a researcher's model, data and config, and a way to run commands in it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from written import CONFIG, MODELS, write_csv

from jaxsci.cli._main import app

Command = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a test: my_models.py, decay.csv, fit.toml."""
    (tmp_path / "my_models.py").write_text(MODELS)
    (tmp_path / "fit.toml").write_text(CONFIG)
    write_csv(tmp_path / "decay.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command() -> Command:
    """Run `jaxsci` with these words."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
