"""A science outside the package runs from a config to a report with its own columns, files and picture."""

import csv
import json
import re

import pytest

SCIENCE = '''
"""Allele frequencies that drift from one generation to the next, by Wright and Fisher: nothing is fitted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxsci import runs


class AbstractMating:
    """How the frequency among newborns follows from that of their parents."""


class Random(AbstractMating):
    def __call__(self, frequency):
        return frequency


@dataclasses.dataclass(frozen=True)
class Population:
    name: str
    size: int
    mating: object
    source: str = ""
    what: str = "Wright-Fisher"


@dataclasses.dataclass(frozen=True)
class Path(runs.AbstractOutcome):
    member: Population
    frequency: np.ndarray

    @property
    def code(self):
        return runs.SUCCESSFUL if np.isfinite(self.frequency).all() else "lost"

    @property
    def message(self):
        return "" if self.success else "A frequency is no number: change the mating."

    @property
    def remarks(self):
        return ("the allele is fixed",) if self.frequency[-1] == 1 else ()

    def record(self):
        end = float(self.frequency[-1])
        return {"generations": len(self.frequency) - 1, "end": end, "facts": [f"{self.member.size} parents"]}

    def draw(self):
        from matplotlib.figure import Figure

        figure = Figure()
        figure.subplots().set_title(f"drift of {self.member.name}")
        return figure


class Drift(runs.AbstractTask):
    words = runs.Words("population", "evolved")
    columns = (
        runs.Column("generations", "generations", csv=True),
        runs.Column("end", "frequency at the end", ".3f", screen="end", screen_form=".3f", csv=True),
    )

    def kinds(self):
        return {"matings": runs.Kind("mating", (AbstractMating,), {"Random": Random})}

    def build(self, config, registry):
        runs.check_keys(config.tables, ("task", "title", "mating", "population"), "")
        mating = runs.construct(config.tables.get("mating", "Random"), "matings", registry, "mating")
        rows = enumerate(runs.take(config.tables, "population", list, ""))
        read = (Population(row["name"], runs.take(row, "size", int, f"population[{k}]"), mating) for k, row in rows)
        return runs.Job(config.tables.get("title", "Drift"), "", tuple(read))

    def run(self, members, report, beside):
        for place, member in enumerate(members):
            def step(p, key, member=member):
                p = jax.random.binomial(key, member.size, member.mating(p)) / member.size
                return p, p
            keys = jax.random.split(jax.random.key(1), 40)
            frequency = jax.lax.scan(step, jnp.asarray(0.5), keys)[1]
            report(1)
            yield [place], [Path(member, np.concatenate([[0.5], frequency]))]

    def tiles(self, counts):
        return (runs.Tile(counts["fixed"], counts["populations"], "alleles that are fixed", partly=False),)

    def counts(self, records):
        return {"fixed": sum(record["end"] == 1 for record in records if "end" in record)}

    def files(self, outcome, name):
        return {f"paths/{name}.txt": "\\n".join(map(str, outcome.frequency))}
'''
CONFIG = """
task = "drift"
title = "Islands"
[[population]]
name = "large"
size = 100000
[[population]]
name = "small"
size = 4
"""
ENTRY = "[jaxsci.sciences]\ndrift = island_drift:Drift\n"


@pytest.fixture
def installed(folder, monkeypatch):
    """A package that brings a science, as pip would have installed it; the working folder has a config for it."""
    site = folder / "site"
    about = site / "island_drift-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: island-drift\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY)
    (site / "island_drift.py").write_text(SCIENCE)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(__import__("sys").modules, "island_drift", raising=False)
    (folder / "drift.toml").write_text(CONFIG)
    return folder


def test_it_runs_from_config_to_report(installed, command):
    done = command("run", "drift.toml", "--out", "out")
    assert done.exit_code == 0, done.output
    out = installed / "out"
    document = json.loads((out / "results.json").read_text())
    large, small = document["members"]
    assert document["counts"] == {"populations": 2, "succeeded": 2, "failed": 0, "not_run": 0, "fixed": 1}
    # drift by sqrt(p (1 - p) / size) a generation: 40 of them move 100,000 by .01, and four by all there is
    assert large["end"] == pytest.approx(0.5, abs=0.05)
    assert small["end"] == 1.0
    assert (large["verdict"], small["verdict"]) == ("evolved", "evolved, look")
    assert [float(x) for x in (out / "paths" / "small.txt").read_text().split()][-1] == 1.0
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [(row["member"], row["generations"], float(row["end"])) for row in rows] == [
        ("large", "40", large["end"]),
        ("small", "40", 1.0),
    ]


def test_the_page_and_the_screen_speak_its_language(installed, command):
    done = command("run", "drift.toml", "--out", "out")
    page = (installed / "out" / "report.html").read_text()
    for text in ("populations evolved", "frequency at the end", "Evolved, to look at", "4 parents", "All populations"):
        assert text in page
    assert "drift of large" in page
    assert "alleles that are fixed" in page
    assert (
        f'<td class="number">{json.loads((installed / "out/results.json").read_text())["members"][0]["end"]:.3f}'
        in page
    )
    for text in (page, done.stdout):
        assert not re.search(r"\bfits?\b|converged|χ²|chi2", text)
    assert "2 of 2 populations evolved; 1 of them to look at." in " ".join(done.stdout.split())


def test_check_list_and_bad_input(installed, command):
    checked = command("check", "drift.toml")
    assert checked.exit_code == 0
    assert "drift.toml is fine: 2 populations in one batch." in checked.stdout
    assert "Random" in command("list", "matings").stdout
    bad = command("check", "drift.toml", "--set", "population.1.size=many")
    assert (bad.exit_code, bad.stderr.count("\n")) == (2, 1)
    assert "drift.toml: population[1].size: should be a number, but it is a text, 'many'" in bad.stderr


def test_a_class_of_ones_own_enters_by_import(installed, command):
    (installed / "own.py").write_text(
        "from island_drift import AbstractMating\n\nclass Doomed(AbstractMating):\n"
        "    def __call__(self, frequency):\n        return frequency * 0\n"
    )
    done = command("run", "drift.toml", "--out", "out", "--import", "own.py", "--set", "mating=Doomed")
    assert done.exit_code == 0, done.output
    assert [m["end"] for m in json.loads((installed / "out" / "results.json").read_text())["members"]] == [0.0, 0.0]


def test_a_science_that_cannot_be_imported_is_named_with_its_package(installed, command):
    (installed / "site" / "island_drift.py").write_text("import no_such_thing\n")
    done = command("check", "drift.toml")
    assert done.exit_code == 2
    assert "\"drift\" of the package island-drift cannot be loaded: No module named 'no_such_thing'" in done.stderr
    assert command("check", "bundled:curvefit/own-data").exit_code == 0, "the others are as they were"


def test_no_package_takes_the_name_of_another_science(installed, command):
    (installed / "site" / "island_drift-1.0.dist-info" / "entry_points.txt").write_text(
        "[jaxsci.sciences]\ncurvefit = island_drift:Drift\n"
    )
    assert command("check", "bundled:curvefit/own-data").exit_code == 0
