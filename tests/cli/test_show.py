"""What a command prints is chosen: `--json`, `--quiet`; and what a shell offers for names half typed."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxsci.cli._complete import configs, starters
from jaxsci.runs import sciences

RUN = ("run", "fit.toml", "--import", "my_models.py")


def test_json_is_all_there_is_on_stdout(command, folder):
    done = command(*RUN, "--out", "out", "--json")
    assert done.exit_code == 0, done.output
    printed, written = json.loads(done.stdout), json.loads((folder / "out" / "results.json").read_text())
    assert printed["members"] == written["members"]
    assert printed["counts"] == written["counts"]
    assert (printed["exit_code"], printed["report"]) == (0, str((folder / "out" / "report.html").resolve()))


def test_quiet_says_where_the_report_is(command, folder):
    done = command(*RUN, "--out", "out", "--quiet")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{(folder / 'out' / 'report.html').resolve()}\n"
    assert not done.stderr


def test_a_check_in_json_names_what_would_fail(command, folder):
    text = (folder / "decay.csv").read_text().splitlines()
    text[3] = "nan,nan,0.05"
    (folder / "decay.csv").write_text("\n".join(text))
    done = command("check", "fit.toml", "--import", "my_models.py", "--json")
    found = json.loads(done.stdout)
    assert found["exit_code"] == done.exit_code == 3
    first = found["members"][0]
    assert (first["name"], first["model"], first["rows"]) == ("decay", "Decay", "12")
    assert "inputs[1] is nan" in first["would_fail"]


def test_lists_in_json_and_the_bundled_configs(command, folder):
    losses = json.loads(command("list", "losses", "--json").stdout)
    assert losses["losses"]["Huber"]["arguments"] == "scale = 1.0"
    listed = json.loads(command("list", "configs", "--json").stdout)["configs"]
    assert listed["bundled:timing/array"]["about"] == "An array of pulsars"
    assert all(row["about"] for row in listed.values()), "each has a title"


def test_a_shell_offers_configs_and_sciences(folder, monkeypatch):
    (folder / "deep").mkdir()
    (folder / "deep" / "er.toml").write_text("")
    assert configs("fi") == ["fit.toml"]
    assert configs("de") == ["deep/"]
    assert configs("deep/") == ["deep/er.toml"]
    assert "bundled:timing/single.toml" in configs("bundled:timing/")
    assert configs("no-such/") == []
    assert starters("curve") == ["curvefit"]


def test_a_shell_does_not_wait_for_jax(folder):
    code = "import sys; from jaxsci.cli._complete import configs; configs(''); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("words", [["run"], ["batch"], ["check"], ["list"], ["demo"], ["new"], ["doctor"], []])
def test_help_ends_with_examples(command, words):
    text = command(*words, "--help").stdout
    assert "Examples:" in text
    assert f"jaxsci {' '.join(words)}".strip() in text.split("Examples:")[1]


def uncommented(text):
    """(setting, config) for each setting that stands in a comment: the config with it, in place of one of its name."""
    lines, seen = text.splitlines(), 0
    for place, line in enumerate(lines):
        if place < seen:
            continue
        setting = re.fullmatch(r"# *((\w+) = .*|\[\w[^ ]*\].*)", line)
        if setting and not setting[1].startswith("["):
            rest = [other for other in lines if not re.match(rf"{setting[2]} =", other)]
            yield setting[1], "\n".join(setting[1] if other is line else other for other in rest)
        elif setting:  # a table with what stands below it
            below = list(itertools.takewhile(lambda other: re.match(r"# *\w+ = ", other), lines[place + 1 :]))
            seen = place + 1 + len(below)
            table = [setting[1], *(other.lstrip("# ") for other in below)]
            yield setting[1], "\n".join([*lines, *table])


@pytest.mark.parametrize("science", sciences())
def test_what_a_starter_offers_in_comments_is_taken(command, folder, science):
    done = command("new", science)
    words = done.stdout.removeprefix("Now run: jaxsci run ").split()
    config = folder / words[0]
    offered = dict(uncommented(config.read_text()))
    assert offered
    for setting, text in offered.items():
        config.write_text(text)
        said = command("check", *words).stderr
        assert not re.search("there is no key|TOML|cannot overwrite", said), (setting, said)


@pytest.mark.parametrize("science", sciences())
def test_every_science_has_something_to_start_from(command, folder, science):
    done = command("new", science)
    assert done.exit_code == 0, done.output
    words = done.stdout.removeprefix("Now run: jaxsci run ").split()
    checked = command("check", *words)
    assert checked.exit_code == 0, checked.output
    assert Path(science, "fit.toml").is_file()
