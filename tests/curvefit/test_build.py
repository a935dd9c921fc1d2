"""What a config's tables become."""

from pathlib import Path

import jax.numpy as jnp
import pytest

import jaxsci as js
from jaxsci.curvefit._task.build import build_job
from jaxsci.curvefit._task.run import group
from jaxsci.curvefit.task import CurveFitTask
from jaxsci.runs import Config, ConfigError

LINE = {"x": [0.0, 1.0, 2.0], "y": [1.0, 2.0, 4.0]}
RATES = {"type": "nist.Misra1a", "b1": 1.0, "b2": 0.5}


def job(**tables):
    return build_job(Config(Path("fit.toml"), {"model": RATES, **tables}), CurveFitTask().kinds())


def test_defaults_are_those_of_fit():
    (member,) = job(data=[LINE]).members
    assert member.settings.arguments()["max_steps"] == 200
    assert isinstance(member.settings.solver, js.TRF)
    assert isinstance(member.data.noise, js.Unit)
    assert member.name == "data 0"


def test_ties():
    """Those of a data set win over those of all, and the rest stands."""
    two = {"type": "nist.Misra1d", "b1": 1.0, "b2": 0.5}
    fit = {"ties": {"b2": "b1 / 2"}}
    first, second = job(model=two, fit=fit, data=[LINE, LINE | {"name": "own", "ties": {"b2": "3 * b1"}}]).members
    assert (first.model.b2, second.model.b2) == (0.5, 3.0)
    assert first.what == "Misra1d"
    assert list(js.parameters(first.model)) == ["b1"]
    for ties, where, said in (
        ({"b3": "b1"}, "fit.ties", "no parameter 'b3' to tie"),
        ({"b2": 2.0}, "fit.ties.b2", "should be a formula as a text"),
        ({"b2": "b1 +"}, "fit.ties", "the formula for b2: column"),
    ):
        with pytest.raises(ConfigError, match=f"^{where}: .*{said}"):
            job(model=two, fit={"ties": ties}, data=[LINE])


@pytest.mark.parametrize(
    ("entry", "noise"),
    [
        ({"sigma": 2}, js.White(jnp.asarray(2.0))),
        ({"sigma": [1, 2, 3]}, js.Diagonal(jnp.asarray([1.0, 2.0, 3.0]))),
        ({"noise": {"type": "White", "sigma": 2}}, js.White(jnp.asarray(2.0))),
        ({"noise": "Poisson"}, js.Poisson(jnp.asarray([1.0, 2.0, 4.0]))),
        (
            {
                "noise": {
                    "type": "LowRank",
                    "diagonal": {"type": "White", "sigma": 1},
                    "basis": [[1], [1], [1]],
                    "variance": [2],
                }
            },
            js.LowRank(js.White(jnp.asarray(1.0)), jnp.ones((3, 1)), jnp.asarray([2.0])),
        ),
    ],
)
def test_noise(entry, noise):
    import equinox as eqx

    (member,) = job(data=[LINE | entry]).members
    assert eqx.tree_equal(member.data.noise, noise)


def test_start_stands_in_for_arguments_and_wins_over_them():
    (a,) = job(model="nist.Misra1a", data=[LINE | {"start": {"b1": 3, "b2": 4.0}}]).members
    (b,) = job(data=[LINE | {"start": {"b1": 3}}]).members
    assert (float(a.model.b1), float(a.model.b2)) == (3.0, 4.0)
    assert (float(b.model.b1), float(b.model.b2)) == (3.0, 0.5)


def test_each_start_is_a_member_and_all_are_one_batch():
    members = job(data=[LINE | {"name": "a", "starts": [{"b1": 1}, {"b1": 2}]}]).members
    assert [m.name for m in members] == ["a, start 1", "a, start 2"]
    assert group(members) == [[0, 1]]


def test_sum_of_models_with_dotted_names():
    tables = {"type": "Sum", "rise": RATES, "growth": {"type": "nist.Misra1d", "b1": 1.0, "b2": 1.0}}
    fit = {"free": ["rise.*"], "bounds": {"rise": {"b1": [0, float("inf")]}}}
    (member,) = job(model=tables, fit=fit, data=[LINE | {"start": {"rise": {"b1": 7}}}]).members
    assert float(member.model.rise.b1) == 7.0
    assert member.settings.bounds == {"rise.b1": (0.0, float("inf"))}
    assert member.settings.free == ("rise.*",)


def test_a_member_may_have_its_own_bounds_which_win():
    fit = {"bounds": {"b1": [0, 9], "b2": [0, 9]}, "loss": {"type": "Huber", "scale": 2}}
    a, b = job(fit=fit, data=[LINE, LINE | {"name": "b", "bounds": {"b1": [1, 2]}}]).members
    assert a.settings.bounds == {"b1": (0.0, 9.0), "b2": (0.0, 9.0)}
    assert b.settings.bounds == {"b1": (1.0, 2.0), "b2": (0.0, 9.0)}
    assert isinstance(b.settings.loss, js.Huber)
    assert group([a, b]) == [[0], [1]]


def test_prior():
    prior = {"type": "Normal", "mean": 1, "sigma": 0.5}
    (member,) = job(fit={"priors": {"b1": prior}}, data=[LINE]).members
    assert float(member.settings.priors["b1"].sigma) == 0.5


def test_rows_that_are_not_finite_are_masked_on_request():
    broken = {"x": [0.0, 1.0, 2.0], "y": [1.0, float("nan"), 4.0], "sigma": [1.0, 1.0, float("inf")]}
    (member,) = job(data=[broken | {"omit_nonfinite": True}]).members
    assert member.data.mask.tolist() == [True, False, False]


def test_several_inputs(folder):
    (folder / "two.csv").write_text("a;b;z\n1;2;3\n4;5;6\n")
    config = Config(
        folder / "fit.toml", {"model": RATES, "data": [{"file": "two.csv", "columns": {"x": "a", "y": "z"}}]}
    )
    (member,) = build_job(config, CurveFitTask().kinds()).members
    assert member.data.inputs.tolist() == [1.0, 4.0]
    assert member.labels == ("a", "z")


def test_nist_file_brings_starts_and_certified_values():
    members = job(data=[{"file": "bundled:nist/Misra1a.dat"}]).members
    assert [float(m.model.b1) for m in members] == [500.0, 250.0]
    assert members[0].reference.values["b1"] == 2.3894212918e02
