"""`jaxsci new`: what it writes runs as it is, and nothing of yours is overwritten."""

import json
import shlex

import pytest


def test_starter_runs_with_the_command_that_is_printed(command, folder):
    done = command("new", "curvefit", "mine")
    assert done.exit_code == 0
    words = shlex.split(done.stdout.removeprefix("Now run: "))
    assert words == ["jaxsci", "run", "mine/fit.toml", "--import", "mine/my_models.py"]
    prior = 'fit.priors.tau={ type = "Percent", value = 1.6, percent = 50.0 }'
    ran = command(*words[1:], "--out", "out", "--set", prior)
    assert ran.exit_code == 0, ran.output
    (member,) = json.loads((folder / "out" / "results.json").read_text())["members"]
    amplitude, tau, base = member["parameters"]
    for parameter, truth in ((amplitude, 3.2), (tau, 1.6), (base, 0.5)):
        assert abs(parameter["value"] - truth) < 4 * parameter["std"]
    assert member["dof"] == 30 - 3 + 1, "the prior of the file's own class is one more datum"


@pytest.mark.parametrize("name", ["fit.toml", "my_models.py", "decay.csv"])
def test_an_existing_file_is_left_alone(command, tmp_path, name):
    (tmp_path / name).write_text("mine")
    done = command("new", "curvefit", tmp_path)
    assert done.exit_code == 2
    assert f"{name} exists already" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_unknown_starter(command):
    done = command("new", "curvfit")
    assert done.exit_code == 2
    assert "did you mean 'curvefit'?" in done.stderr
