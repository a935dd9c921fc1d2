"""`task = "meanfield"`: the configs as a researcher would run them, what is refused and how, classes of one's own."""

import csv
import json
import re

import numpy as np
import pytest
from helpers import figures_of

import jaxsci as js
from jaxsci.meanfield.task import MeanFieldTask
from jaxsci.runs import ConfigError, bundled_files, read_config, task_named

CONFIGS = ("ornstein_uhlenbeck", "double_well", "absorbing", "towel_1d", "crowd_2d", "calibrate")
OTHER_WORDS = re.compile(r"χ²|chi2|\bfits?\b|converged")


def members(folder):
    return {m["name"]: m for m in json.loads((folder / "results.json").read_text())["members"]}


def words(page):
    """The text of a page without its style and the config that it repeats."""
    return re.sub(r"<style>.*?</style>|<details>.*?</details>|<svg.*?</svg>", "", page, flags=re.DOTALL)


def ran(command, name, *settings, code=0):
    given = [word for setting in settings for word in ("--set", setting)]
    done = command("run", f"bundled:meanfield/{name}", "--out", "out", "--interactive", *given)
    assert done.exit_code == code, done.output
    return done


def test_each_config_is_run_here():
    bundled = {name for name in bundled_files() if re.fullmatch(r"meanfield/.*\.toml", name)}
    assert bundled == {f"meanfield/{name}.toml" for name in CONFIGS}


@pytest.mark.parametrize("name", CONFIGS)
def test_each_config_can_be_built(name):
    task = task_named("meanfield")
    job = task.build(read_config(f"bundled:meanfield/{name}"), task.kinds())
    assert len({member.name for member in job.members}) == len(job.members)
    assert job.title
    assert len(job.description) > 100


def test_ornstein_uhlenbeck(command, folder):
    runs = (
        'run=[{name="few", particles=500}, {name="more", particles=8000}, '
        '{name="coarse", particles=8000, stepper="EulerMaruyama", time={steps=4, keep=2}}]'
    )
    done = ran(command, "ornstein_uhlenbeck", runs, "box.cells=40", "time.steps=10", "time.keep=2", "density.nodes=768",
               "density.coefficients=384", "density.bandwidth=Silverman")  # fmt: skip
    found = members(folder / "out")
    mean, sd = 1 - np.exp(-2), np.sqrt(0.04 * np.exp(-4) + 0.49 / 2 * (1 - np.exp(-4)))
    assert found["more"]["mean"] == pytest.approx(mean, abs=4 * found["more"]["mean_error"] + 0.01)
    assert found["more"]["sd"] == pytest.approx(sd, rel=0.05)
    assert found["more"]["l1"] < 0.5 * found["few"]["l1"], "sixteen times the particles, a quarter of the noise"
    assert found["more"]["l1"] < 2 * found["more"]["l1_explained"]
    # Euler's mean after four steps of .5 is 1 - .5^4
    assert found["coarse"]["mean"] == pytest.approx(1 - 0.5**4, abs=4 * found["coarse"]["mean_error"])
    assert found["coarse"]["verdict"] == "finished, look"
    assert "take more steps, or a stepper of higher order" in found["coarse"]["look"][0]
    assert found["more"]["verdict"] == "finished"
    page = (folder / "out" / "report.html").read_text()
    for text in ("3 / 3", "as near to the reference as can be expected", "L1 to reference", "to t = 2 by Heun"):
        assert text in page.replace("<span> / 3</span>", " / 3"), text
    assert "Distance to the reference" in page
    assert page.count('<svg role="img"') == 4
    for text in (words(page), done.stdout):
        assert not OTHER_WORDS.search(text), OTHER_WORDS.search(text)
    with np.load(folder / "out" / "densities" / "more.npz") as file:
        assert file["density"].shape == file["standard_error"].shape == (3, 40)
        assert file["density"].sum(axis=1) * 6 / 40 == pytest.approx(1, abs=1e-9)
        at_times, over_time = figures_of(folder / "out")["more"]
        points = [trace for trace in at_times["traces"] if trace["mode"] == "markers"]
        assert [trace["name"] for trace in points] == [f"t = {t:.4g}" for t in file["t"]]
        assert (np.stack([trace["y"] for trace in points]) == file["density"]).all()
        assert (np.stack([trace["error_y"]["array"] for trace in points]) == file["standard_error"]).all()
        over = over_time["traces"][0]["z"][::-1].T
        assert over == pytest.approx(file["density"], rel=1e-6, abs=1e-9)
    rows = list(csv.DictReader((folder / "out" / "densities" / "more.csv").read_text().splitlines()))
    assert len(rows) == 3 * 40
    assert set(rows[0]) == {"t", "x", "density", "standard_error"}


def test_moments_of_mckean_and_vlasov_are_known(command, folder):
    config = read_config("bundled:meanfield/ornstein_uhlenbeck")
    table = next(run for run in config.tables["run"] if run["name"] == "McKean and Vlasov")
    assert table["reference"]["mean"] == "ou_mean"
    runs = (
        'run=[{name="attracted", drift={type="Attraction", theta=1.0, mu=0.3, alpha=0.5}, diffusion=1.0, '
        'start={mean=1.0, sd=0.5}, box={lower=-4.0, upper=5.0, walls="free"}, time={end=1.0}, particles=4000, '
        'reference={file="bundled:meanfield/ou_and_mckean_vlasov_moments.npz", mean="ou_mean", variance="mv_var"}}]'
    )
    ran(command, "ornstein_uhlenbeck", runs, "box.cells=40", "time.steps=10", "density.bandwidth=0.1")
    (found,) = members(folder / "out").values()
    pulls = [fact for fact in found["facts"] if "standard errors from the reference" in fact]
    assert len(pulls) == 2
    assert all(abs(float(re.search(r"([-+][\d.]+) standard", pull).group(1))) < 4 for pull in pulls)


def test_double_well(command, folder):
    runs = 'run=[{name="improved", density={bandwidth="ISJ"}}, {name="binned", method="binned"}]'
    ran(command, "double_well", runs, "particles=20000", "time.steps=20", "time.keep=4", "box.cells=60")
    found = members(folder / "out")
    assert found["improved"]["l1"] < found["binned"]["l1"] < 0.06, "Silverman's rule is too wide for two wells"
    assert (found["binned"]["method"], found["binned"]["particles"]) == ("binned", 20000)
    assert all(m["l1"] < 2 * m["l1_explained"] for m in found.values())
    text = (folder / "out" / "densities" / "binned-method.txt").read_text()
    assert text.startswith("method: binned (asked for: binned), 20000 particles")


def test_a_run_in_space_is_drawn_by_its_marginals(command, folder):
    space = CONFIG.replace("= 0.0", "= [0, 0, 0]", 1).replace("= 1.0", "= [1, 1, 1]", 1).replace("16", "[8, 8, 8]")
    (folder / "it.toml").write_text(space)
    small = [w for s in ("time.steps=2", "time.keep=2", "density.type=BinnedKDE") for w in ("--set", s)]
    done = command("run", "it.toml", "--out", "out", *small)
    assert done.exit_code == 0, done.output
    assert (folder / "out" / "report.html").read_text().count('<svg role="img"') == 1
    with np.load(folder / "out" / "densities" / "it.npz") as file:
        assert file["density"].shape == (3, 8, 8, 8)
        assert {"x", "y", "z"} <= set(file.files)


def test_moments_of_a_chosen_method_are_those_of_the_particles(command, folder):
    """A kernel and a cell have widened the density, so that its own deviation is another number."""
    tight = CONFIG.replace('"Uniform"', '"Gaussian"\nmean = 0.5\nsd = 0.02').replace("0.5\n[box]", "0.05\n[box]")
    (folder / "it.toml").write_text(tight)
    runs = 'run=[{name="plain"}, {name="chosen", method="binned"}, {name="chunks", method="binned", chunk=100}]'
    done = command("run", "it.toml", "--out", "out", "--set", runs, "--set", "density.type=BinnedKDE",
                   "--set", "density.bandwidth=0.1")  # fmt: skip
    assert done.exit_code == 0, done.output
    found = members(folder / "out")
    for key in ("mean", "sd"):
        assert found["chosen"][key] == pytest.approx(found["plain"][key], rel=1e-6)
        assert key not in found["chunks"], "of these only the smoothed density is left"


def test_a_chosen_method_tells_of_weight_in_no_cell(command, folder):
    free = CONFIG.replace("cells = 16", 'cells = 16\nwalls = "free"').replace(
        '"Uniform"', '"Gaussian"\nmean = 0.5\nsd = 0.3'
    )
    (folder / "it.toml").write_text(f'method = "binned"\n{free}')
    done = command("run", "it.toml", "--out", "out", "--set", "density.type=BinnedKDE")
    assert done.exit_code == 0, done.output
    (found,) = members(folder / "out").values()
    assert any("lies outside of the cells" in look for look in found["look"])


def test_cells_of_another_place_are_refused_on_each_axis(tmp_path):
    from jaxsci.meanfield import Box, Grid
    from jaxsci.meanfield._task.references import read_densities

    grid = Grid(Box([0.0, 0.0], [1.0, 2.0]), (4, 4))
    x, y = np.asarray(grid.centres(0)), np.asarray(grid.centres(1))
    about = {"t": np.zeros(1), "density": np.full((1, 4, 4), 0.5)}
    for name, places in {"right": {"x": x, "y": y}, "edges": {"x": x, "y": np.asarray(grid.edges(1))}}.items():
        np.savez(tmp_path / f"{name}.npz", **about, **places)
        assert read_densities(tmp_path / f"{name}.npz", grid, "reference").values.shape == (1, 4, 4)
    for name, places in {"y": {"x": x, "y": y / 2}, "x": {"x": np.arange(7.0)}}.items():
        np.savez(tmp_path / f"{name}.npz", **about, **places)
        with pytest.raises(ConfigError, match=f"has {name} at"):
            read_densities(tmp_path / f"{name}.npz", grid, "reference")


def test_absorbing(command, folder):
    runs = 'run=[{name="ten steps", time={steps=10, keep=2}}]'
    ran(command, "absorbing", runs, "particles=20000", "chunk=5000", "box.cells=50", "density.bandwidth=0.03")
    found = members(folder / "out")
    left = float(np.load(bundled_files()["meanfield/const_drift_absorbing.npz"])["mass"][-1])
    error = np.sqrt(left * (1 - left) / 20000)
    assert found["ten steps"]["survival"] == pytest.approx(left, abs=0.01 * left + 3 * error)
    facts = " ".join(found["ten steps"]["facts"])
    through = re.search(r"lower 0: ([.\d]+) \(after ([.\d]+) on average\), upper 0: ([.\d]+) \(after", facts).groups()
    walls = [float(through[0]), float(through[2])]
    assert 0 < float(through[1]) < 1
    assert sum(walls) + found["ten steps"]["survival"] == pytest.approx(1, abs=2e-4)
    assert f"(reference {left:.4f})" in facts


def test_towel_1d(command, folder):
    done = ran(command, "towel_1d", 'run=[{name="towels"}]', "box.cells=32", "time.steps=20")
    fast = members(folder / "out")["towels"]
    assert fast["maps"] <= 30
    assert fast["residual"] <= 1e-8
    assert fast["l1_worst"] < 0.015
    assert fast["l1"] < 2 * fast["l1_explained"]
    assert fast["residuals"][-1] == fast["residual"]
    assert len(fast["residuals"]) == fast["maps"]
    page = (folder / "out" / "report.html").read_text()
    assert "asked for a residual of 1e-08" in page
    for text in (words(page), done.stdout):
        assert not OTHER_WORDS.search(text)


def test_crowd_2d(command, folder):
    ran(command, "crowd_2d", "box.cells=[24, 24]", "time.steps=9")
    (found,) = members(folder / "out").values()
    assert found["maps"] <= 30
    assert found["l1_worst"] < 0.015
    with np.load(folder / "out" / "densities" / "A-crowd-on-a-square.npz") as file:
        assert file["density"].shape == (10, 24, 24)
        assert file["y"].shape == (24,)


def test_calibrate(command, folder):
    ran(command, "calibrate", "particles=4000")
    found = members(folder / "out")
    both, one = found["drift and diffusion"], found["diffusion alone"]
    assert one["parameters"][0]["std"] < 0.5 * both["parameters"][2]["std"], "what is known need not be found"
    assert [row["name"] for row in both["parameters"]] == ["drift.theta", "drift.mu", "diffusion.scale"]
    for row, truth in zip(both["parameters"], (1.2, 0.8, 0.7), strict=True):
        assert abs(row["value"] - truth) < 4.5 * row["std"] < 0.3
        assert row["remarks"][0].startswith(f"truth {truth}, pull ")
    assert both["dof"] == 117
    assert 0.6 < both["reduced_chi2"] < 1.5
    page = (folder / "out" / "report.html").read_text()
    for text in ("the fit converged after", "χ²", "standard error", "drift.theta"):
        assert text in page
    task = MeanFieldTask()
    member = task.build(read_config("bundled:meanfield/calibrate"), task.kinds()).members[0]
    saved = js.Solution.load(folder / "out" / "solutions" / "drift-and-diffusion.eqx", member.sde)
    assert saved.y.tolist() == [row["value"] for row in both["parameters"]]


CONFIG = """
task = "meanfield"
particles = 200
diffusion = 0.5
[box]
lower = 0.0
upper = 1.0
cells = 16
[start]
type = "Uniform"
[drift]
type = "Constant"
mu = 0.1
[time]
end = 0.1
steps = 4
"""
GAME = """
task = "meanfield"
diffusion = 0.5
[box]
lower = 0.0
upper = 1.0
cells = 16
[start]
type = "Uniform"
[time]
end = 0.5
steps = 8
[game]
running = { type = "Bowl", strength = 1.0, centre = [0.7] }
coupling = 1.0
"""
WRONG = [
    ('type = "Constant"', 'type = "Constnt"', r"drift\.type: no drift is called 'Constnt'.*did you mean 'Constant'"),
    ("mu = 0.1", "nu = 0.1", r"drift\.nu: Constant has no argument 'nu' \(arguments: mu\)"),
    ("particles = 200", "particels = 200", r"particels: .*did you mean 'particles'"),
    ("particles = 200", "particles = 0", r"particles: should be 1 or more"),
    ("particles = 200", "particles = 2e2", r"particles: should be a whole number"),
    ("diffusion = 0.5", "", r"diffusion: is needed: S of dX = b dt \+ S dW"),
    ("diffusion = 0.5", "diffusion = [0.5, 0.5]", r"diffusion: in 1 dimensions a diffusion has shape"),
    ("cells = 16", "cell = 16", r"box\.cell: .*did you mean 'cells'"),
    ("cells = 16", "", r"box\.cells: is needed"),
    ("upper = 1.0", "upper = -1.0", r"box: each lower corner should be below its upper one"),
    ("cells = 16", 'cells = 16\nwalls = "reflect"', r"box\.walls: should be one of reflecting, absorbing, periodic"),
    ('type = "Uniform"', "", r"start: a start needs type = "),
    ('type = "Uniform"', 'type = "Gaussian"\nmean = [0.5, 0.5]\nsd = 0.1', r"start: has 2 coordinates, but the box"),
    ("end = 0.1", "end = -0.1", r"time\.end: should be a time after 0"),
    ("steps = 4", "steps = 4\nkeep = 3", r"time\.keep: 3 does not divide 4 steps: take 2 or 4"),
    ("particles = 200", 'reference = "finite volumes"', r"reference: there is no file"),
    ("particles = 200", 'reference = "bundled:meanfield/double_well.npz"', r"reference: double_well.npz has x at"),
    ("particles = 200", 'stepper = "Milstien"', r"stepper\.type: no stepper .*did you mean 'Milstein'"),
    ("particles = 200", 'density = "SpectralKD"', r"density\.type: no density .*did you mean 'SpectralKDE'"),
    ("particles = 200", "density = { bandwidth = 0.0001 }", r"density: a bandwidth of 0.0001 on axis 0 is too narrow"),
    ("particles = 200", 'method = "fast"', r"method: should be one of auto, spectral, dense, binned, finite volume"),
    ("particles = 200", "accuracy = 0.1", r"accuracy: goes with a method"),
    ("steps = 4", 'steps = 4\n[[run]]\nname = "a"\ncalibrate = {}\ngame = {}', r"run\[0\]: a run is a game or a"),
    ("steps = 4", "steps = 4\n[[run]]\nparticles = true", r"run\[0\]\.particles: should be a number"),
    ("steps = 4", "steps = 4\n[run]\nparticles = 2", r"run: should be a list.*Write \[\[run\]\]"),
    ("steps = 4", "steps = 4\n[calibrate]\nfree = []", r"calibrate\.observed: is needed"),
]  # fmt: skip
WRONG_GAMES = [
    ('type = "Bowl"', 'type = "Bow"', r"game\.running\.type: no cost is called 'Bow'.*did you mean 'Bowl'"),
    ("coupling = 1.0", "couple = 1.0", r"game\.couple: .*did you mean 'coupling'"),
    ("coupling = 1.0", "running_ = 1", r"game\.running_"),
    ("coupling = 1.0", "tolerance = 0", r"game\.tolerance: should be a positive number"),
    ("coupling = 1.0", "terminal = [1.0, 2.0]", r"game: the terminal cost should have shape \(16,\)"),
    ("cells = 16", 'cells = 16\nwalls = "free"', r"box\.walls: a game needs walls"),
    ("steps = 8", "steps = 8\nkeep = 4", r"time\.keep: a game keeps all its times"),
    ("diffusion = 0.5", "", r"diffusion: is needed: S of dX = a dt \+ S dW"),
    (
        "coupling = 1.0",
        'coupling = 1.0\n[[run]]\ndrift = "Constant"',
        r"run\[0\]\.drift: this means nothing for a game",
    ),
]


def built(folder, text):
    path = folder / "it.toml"
    path.write_text(text)
    task = task_named("meanfield")
    return task.build(read_config(str(path)), task.kinds())


@pytest.mark.parametrize(("old", "new", "message"), WRONG, ids=[new for _, new, _ in WRONG])
def test_bad_configs_are_named(tmp_path, old, new, message):
    assert old in CONFIG
    with pytest.raises(ConfigError, match=message):
        built(tmp_path, CONFIG.replace(old, new, 1))


@pytest.mark.parametrize(("old", "new", "message"), WRONG_GAMES, ids=[new for _, new, _ in WRONG_GAMES])
def test_bad_games_are_named(tmp_path, old, new, message):
    assert old in GAME
    with pytest.raises(ConfigError, match=message):
        built(tmp_path, GAME.replace(old, new, 1))


def test_what_cannot_be_run_is_refused_by_check_and_run(command, folder):
    noise = "[diffusion]\ntype = 'SquareRoot'\nscale = 0.3\n"
    wrong = CONFIG.replace("diffusion = 0.5", "stepper = 'Heun'") + noise
    (folder / "it.toml").write_text(wrong)
    for words_ in (("check", "it.toml"), ("run", "it.toml", "--out", "out")):
        done = command(*words_)
        assert done.exit_code == 2
    (found,) = members(folder / "out").values()
    assert found["result"] == "refused"
    assert "use EulerMaruyama(), Milstein() or Platen()" in found["message"]
    named = command("run", "it.toml", "--set", "box.cells=one", "--out", "other")
    assert named.exit_code == 2
    assert "it.toml: box.cells: should be a number or a list, but it is a text, 'one'" in named.stderr


def test_a_run_that_breaks_off_fails_and_the_others_go_on(command, folder):
    (folder / "own.py").write_text(
        "import jaxsci as js\nfrom jaxsci.evolution import AbstractDrift\n\n"
        "class Away(AbstractDrift):\n    speed: js.Scalar = js.param()\n\n"
        "    def __call__(self, t, x):\n        return self.speed / (x - x)\n"
    )
    runs = '\n[[run]]\nname = "fine"\n[[run]]\nname = "away"\ndrift = { type = "Away", speed = 1.0 }\n'
    (folder / "it.toml").write_text(CONFIG + runs)
    done = command("run", "it.toml", "--out", "out", "--import", "own.py")
    assert done.exit_code == 3
    found = members(folder / "out")
    assert found["fine"]["success"]
    assert found["away"]["result"] == "broken"
    assert "200 particles end at nan or infinity" in found["away"]["message"]


@pytest.mark.parametrize("chunk", ["", "chunk = 50\n"])
def test_a_check_takes_no_steps(chunk, command, folder, monkeypatch):
    """What ends at infinity in the run is no fault of the config, and finite volumes are not solved to look at it."""
    from jaxsci.meanfield import _costs

    (folder / "own.py").write_text(
        "from jaxsci.evolution import AbstractDrift\n\nclass Away(AbstractDrift):\n"
        "    def __call__(self, t, x):\n        return 1 / (x - x)\n"
    )
    away = CONFIG.replace('type = "Constant"\nmu = 0.1', 'type = "Away"')
    (folder / "it.toml").write_text(f'method = "spectral"\n{chunk}{away}')
    checked = command("check", "it.toml", "--import", "own.py")
    assert checked.exit_code == 0, checked.output
    done = command("run", "it.toml", "--out", "out", "--import", "own.py")
    assert done.exit_code == 3, done.output
    (found,) = members(folder / "out").values()
    assert (found["result"], "200 particles end at nan" in found["message"]) == ("broken", True)
    monkeypatch.setattr(_costs, "solve_fokker_planck", lambda *a, **k: pytest.fail("solved"))
    (folder / "it.toml").write_text(f'method = "finite volume"\n{CONFIG}')
    assert command("check", "it.toml").exit_code == 0


def test_a_search_that_ends_too_early_fails_with_advice(command, folder):
    (folder / "it.toml").write_text(GAME + "max_maps = 3\n")
    assert command("check", "it.toml").exit_code == 0
    done = command("run", "it.toml", "--out", "out")
    assert done.exit_code == 3
    (found,) = members(folder / "out").values()
    assert found["result"] == "no_equilibrium"
    assert "Raise game.max_maps" in found["message"]
    assert "|T(m) - m|" in (folder / "out" / "report.html").read_text()


def test_what_a_run_writes_is_a_reference_for_another(command, folder):
    (folder / "it.toml").write_text(CONFIG)
    first = command("run", "it.toml", "--out", "first", "--set", "method=finite volume", "--set", "time.steps=40")
    assert first.exit_code == 0, first.output
    for name in ("it.csv", "it.npz"):
        done = command("run", "it.toml", "--out", name[-3:], "--set", f"reference=first/densities/{name}")
        assert done.exit_code == 0, done.output
        (found,) = members(folder / name[-3:]).values()
        assert 0 < found["l1"] < 0.2
    with np.load(folder / "first" / "densities" / "it.npz") as file:
        assert "standard_error" not in file, "it has no particles"


def test_classes_of_ones_own_enter_by_import(command, folder):
    (folder / "own.py").write_text(
        "import jaxsci as js\n\nclass Shy(js.AbstractModel):\n    strength: js.Scalar = js.param()\n\n"
        "    def __call__(self, x, m, field):\n        return self.strength * m * (1 + abs(x[0] - field.mean[0]))\n"
    )
    (folder / "it.toml").write_text(GAME.replace("coupling = 1.0", 'coupling = { type = "Shy", strength = 1.0 }'))
    done = command("run", "it.toml", "--out", "out", "--import", "own.py")
    assert done.exit_code == 0, done.output
    (found,) = members(folder / "out").values()
    assert found["residual"] <= 1e-8
    without = command("check", "it.toml")
    assert (without.exit_code, without.stderr.count("\n")) == (2, 1)
    assert "game.coupling.type: no cost is called 'Shy'" in without.stderr


def test_the_starter_runs_and_names_are_listed(command, folder):
    done = command("new", "meanfield", folder / "mine")
    assert done.exit_code == 0, done.output
    assert "--import" in done.output
    small = [w for s in ("particles=2000", "time.steps=20", "box.cells=40") for w in ("--set", s)]
    where = folder / "mine"
    done = command("run", where / "fit.toml", "--import", where / "my_drifts.py", "--out", "out", *small)
    assert done.exit_code == 0, done.output
    found = members(folder / "out")
    assert abs(found["level"]["mean"]) < 0.1 < found["on a slope"]["mean"]
    listed = command("list", "drifts", "--import", where / "my_drifts.py").stdout
    for name in ("DoubleWell", "Attraction", "Tilted"):
        assert name in listed
    costs = command("list", "costs", "--import", where / "my_drifts.py").stdout
    assert "Lane" in costs
    assert "Tilted" not in costs, "a drift is no cost"
    assert "Lane" not in listed, "a cost is no drift"
    for kind, name in (("densities", "SpectralKDE"), ("costs", "Bowl"), ("bandwidths", "ISJ"), ("steppers", "Platen")):
        assert name in command("list", kind).stdout


@pytest.mark.slow
def test_the_fastest_way_is_measured(command, folder):
    runs = 'run=[{name="fastest", method="auto", particles=5000}]'
    ran(command, "double_well", runs, "time.steps=20", "box.cells=60")
    (found,) = members(folder / "out").values()
    assert found["method"] in ("spectral", "dense", "binned", "finite volume")
    text = (folder / "out" / "densities" / "fastest-method.txt").read_text()
    assert all(method in text for method in ("spectral", "dense", "binned", "finite volume", "taken"))
