"""`jaxsci doctor`: it names what is missing with the line that brings it, and says when something is wrong."""

import importlib.metadata
import json
import sys

import pytest

from jaxsci.cli import _doctor

VERSIONS = importlib.metadata.version


@pytest.fixture(autouse=True)
def _few_sciences(monkeypatch):
    """One science, which a wheel without extras has too; all of them are the slow test's."""
    monkeypatch.setattr(_doctor.runs, "sciences", lambda: ("curvefit",))


def looked(command, code=0):
    done = command("doctor", "--json")
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)
    assert found["exit_code"] == code
    return {finding["what"]: finding for finding in found["findings"]}


def test_all_is_well_here(command):
    done = command("doctor")
    assert done.exit_code == 0, done.output
    assert "All that is installed works." in done.stdout
    assert "a curve was fitted to within" in " ".join(done.stdout.split())


def test_what_is_not_installed_is_named_with_the_line_that_brings_it(command, monkeypatch):
    def version(name):
        if name == "numpyro":
            raise importlib.metadata.PackageNotFoundError(name)
        return VERSIONS(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = looked(command)["extra sampling"]
    assert (found["state"], found["remedy"]) == ("not installed", "pip install 'jaxsci[sampling]'")
    assert "numpyro is not installed" in found["found"]


def test_a_version_that_is_too_old_is_wrong(command, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1" if name == "healpy" else VERSIONS(name))
    found = looked(command, code=3)["extra sky"]
    assert found["state"] == "wrong"
    assert "healpy is 0.1, but it needs >=" in found["found"]


def test_a_science_without_its_extra_is_not_wrong(command, monkeypatch):
    """A plain install works as far as it goes: nothing that is installed is broken."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setattr(_doctor.runs, "sciences", lambda: ("xpcs",))
    found = looked(command)["xpcs"]
    assert found["state"] == "not installed"
    assert "pip install 'jaxsci[xpcs]'" in found["found"]


def test_a_fit_that_is_wrong_is_told(command, monkeypatch):
    class Wrong(_doctor._Decay):
        def __call__(self, t):
            return 1.1 * super().__call__(t)

    assert looked(command)["a fit"]["state"] == "works"
    made = iter([Wrong(0.3), _doctor._Decay(1.7)])
    monkeypatch.setattr(_doctor, "_Decay", lambda rate: next(made))
    assert looked(command, code=3)["a fit"]["state"] == "wrong"


@pytest.mark.parametrize(
    ("version", "risky"), [("0.9.2", False), ("0.10.0", True), ("0.10.2", True), ("0.11.2", True), ("0.12.0.1", False)]
)
def test_risky_versions_of_jaxlib_are_known(version, risky):
    assert bool(_doctor._risk(version)) == risky


def test_a_config_that_cannot_be_read_is_told(command, monkeypatch):
    monkeypatch.setitem(_doctor._TRIED, "curvefit", "bundled:curvefit/no-such")
    assert "nothing is bundled" in looked(command, code=3)["curvefit"]["found"]


@pytest.mark.slow
def test_every_science_is_read(command, monkeypatch):
    """Slow because it imports all of them."""
    monkeypatch.undo()
    found = looked(command)
    assert {found[name]["state"] for name in _doctor._TRIED} == {"works"}
