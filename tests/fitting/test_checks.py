"""Bad input: every complaint names the thing and the remedy, in words of this package."""

import json
import math
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import SIGMA, START, TIMES, Decay, Gaussian, decay_data

import jaxsci as js

Y = decay_data()
DATA = js.Dataset(TIMES, Y, js.White(SIGMA))


class Plain(eqx.Module):
    """No model: nothing calls it."""

    a: js.Scalar = js.param()


class Undeclared(js.AbstractModel):
    a: js.Scalar

    def __call__(self, x):
        return self.a * x


class Returns(js.AbstractModel):
    """A model that returns whatever `what` makes of it."""

    a: js.Scalar = js.param(default=1.0)
    what: object = eqx.field(static=True, default=None)

    def __call__(self, x):
        return self.what(self.a, x)


def returns(what):
    return lambda: js.fit(Returns(what=what), DATA)


def annotated_as_float():
    class Wrong(js.AbstractModel):
        a: float = js.param()

        def __call__(self, x):
            return self.a * x

    return Wrong(1.0)


def branches(a, x):
    if a > 0:
        return a * x
    return x


def fit(**choices):
    return lambda: js.fit(START, DATA, **choices)


BAD = {
    "bounds as a pair": (fit(bounds=(0, 1)), "bounds should be a dictionary {name: (lower, upper)}, but it is tuple"),
    "bounds of one side": (fit(bounds={"tau": 1.0}), "bounds of tau should be a pair (lower, upper)"),
    "bounds of a stranger": (fit(bounds={"tua": (0, 1)}), "no free parameter 'tua'; did you mean 'tau'?"),
    "priors as a pair": (fit(priors=(0, 1)), "priors should be a dictionary {name: jaxsci.Normal(mean, sigma)}"),
    "prior as a pair": (fit(priors={"tau": (0, 1)}), "the prior of tau is a tuple; a fit takes jaxsci.Normal"),
    "free as a number": (fit(free=1), "free should be names of parameters"),
    "free as numbers": (fit(free=(0, 1)), "free should be names of parameters"),
    "loss by name": (fit(loss="huber"), "loss should be a loss such as jaxsci.Huber(1.0), but it is 'huber'"),
    "loss by name, remedy": (fit(loss="soft_l1"), "give jaxsci.SoftL1()"),
    "loss as a class": (fit(loss=js.Huber), "it is the class Huber; make one: Huber()"),
    "solver by name": (fit(solver="trf"), "but it is 'trf': give jaxsci.TRF()"),
    "solver as a class": (fit(solver=js.TRF), "it is the class TRF; make one: TRF()"),
    "likelihood as a number": (
        fit(likelihood=0.1),
        "likelihood should be a noise or a likelihood such as jaxsci.White",
    ),
    "data as a tuple": (lambda: js.fit(START, (TIMES, Y)), "data should be a jaxsci.Dataset, but it is tuple"),
    "noise as a number": (lambda: js.Dataset(TIMES, Y, 0.1), "noise should be a noise such as jaxsci.White(sigma)"),
    "noise as an array": (
        lambda: js.Dataset(TIMES, Y, Y),
        "or jaxsci.Diagonal(sigmas) with one standard deviation a row",
    ),
    "noise as a class": (lambda: js.Dataset(TIMES, Y, js.White), "noise should be a noise such as jaxsci.White(sigma)"),
    "observations of many": (
        lambda: js.Dataset(TIMES, np.ones((2, 50))),
        "observed has shape (2, 50), but one number a row is needed, shape (n,): ravel it, or give many",
    ),
    "observations of none": (
        lambda: js.Dataset(TIMES, None),
        "observed should be one array of shape (n,), but it is None",
    ),
    "observations as words": (
        lambda: js.Dataset(TIMES, ["a"] * 30),
        "observed should be an array of numbers, but it holds",
    ),
    "a ragged list": (lambda: js.Dataset([[1.0], [1.0, 2.0]], [1.0, 2.0]), "inputs should be an array of numbers"),
    "inputs as a word": (
        lambda: js.Dataset("times", Y),
        "inputs should be a number or an array of numbers, but it is str 'times'",
    ),
    "a class for a model": (lambda: js.fit(Decay, DATA), "model is the class Decay, but a fit starts from an instance"),
    "a function for a model": (
        lambda: js.fit(lambda t, a: a * t, DATA),
        "model is the function <lambda>, which has no",
    ),
    "NumPy's function": (lambda: js.fit(np.sin, DATA), "which has no named parameters: write a jaxsci.AbstractModel"),
    "a Module that is no model": (lambda: js.fit(Plain(1.0), DATA), "Plain cannot be called: a model needs __call__"),
    "no declared field": (
        lambda: js.fit(Undeclared(jnp.ones(())), DATA),
        "Undeclared has no free parameter: declare its",
    ),
    "no model at all": (lambda: js.fit(None, DATA), "NoneType has no free parameter"),
    "an annotation of a float": (annotated_as_float, "Wrong.a should be float, but it is float64[]: a parameter is an"),
    "a word for a parameter": (lambda: Decay("a", 1.0, 0.0), "Decay.amp should be one real number, but it is str 'a'"),
    "a branch": (returns(branches), "Returns(inputs) decides by the value of an array or a parameter (if, while"),
    "NumPy in a model": (returns(lambda a, x: np.exp(a * x)), "Returns(inputs) hands an array or a parameter to NumPy"),
    "math in a model": (
        returns(lambda a, x: math.exp(a) * x),
        "Returns(inputs) hands an array or a parameter to NumPy",
    ),
    "a count in a model": (returns(lambda a, x: x * len(range(int(a)))), "hands an array or a parameter to NumPy"),
    "a range in a model": (
        returns(lambda a, x: sum(x**k for k in range(a))),
        "Returns(inputs) counts or indexes by the value of an array or a parameter (range(), a list's [ ], a shape)",
    ),
    "a list's element in a model": (
        returns(lambda a, x: x * [1.0, 2.0][a]),
        "or pick elements by jnp.take; what is no",
    ),
    "nothing returned": (returns(lambda a, x: None), "Returns(inputs) returned None, but a model returns one"),
    "a pair returned": (returns(lambda a, x: (a, x)), "Returns(inputs) returned tuple"),
    "complex numbers returned": (
        returns(lambda a, x: jax.lax.complex(a * x, x)),
        "Returns(inputs) is complex, but a fit is of real",
    ),
    "a column returned": (
        returns(lambda a, x: a * x[:, None]),
        "Returns(inputs) has shape (30, 1), observed has shape",
    ),
    "a fixed value beyond its bounds": (
        lambda: js.fit(Gaussian(-1.0, 1.0, 0.5), DATA, free="width"),
        "height is not fitted, and its value -1.0 lies outside its bounds (0, inf)",
    ),
}


def batch(models=START, **choices):
    return lambda: js.fit_batch(models, [DATA, DATA], **choices)


BATCHES = {
    "batch: bounds": (batch(bounds=(0, 1)), "bounds should be a dictionary"),
    "batch: loss": (batch(loss="cauchy"), "give jaxsci.Cauchy()"),
    "batch: solver": (batch(solver="adam"), "give jaxsci.Adam()"),
    "batch: model": (batch(Decay), "model is the class Decay"),
    "batch: one of the models": (batch([START, len]), "model is the function len"),
    "batch: branch": (batch(Returns(what=branches)), "decides by the value of an array or a parameter"),
}


@pytest.fixture(scope="module")
def said():
    """What each of these raises for a user: in a process without the checks of annotations that all tests run under."""
    script = """
import json, sys, jax
jax.config.update("jax_enable_x64", True)
sys.path[:0] = sys.argv[1:]
import test_checks
said = {}
for name, (make, _) in {**test_checks.BAD, **test_checks.BATCHES}.items():
    try:
        make()
    except Exception as error:
        said[name] = (type(error).__name__, str(error))
print(json.dumps(said))
"""
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", script, str(here), str(here.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", [*BAD, *BATCHES])
def test_bad_input_is_named_with_its_remedy(case, said):
    kind, message = said[case]
    assert kind in ("ValueError", "TypeError")
    assert {**BAD, **BATCHES}[case][1] in message
    assert "tracer" not in message.lower()


def test_a_model_that_numpy_spoils_is_named_within_transformations_too():
    def amp(y):
        return js.fit(Returns(what=branches), js.Dataset(TIMES, y), throw=False).y

    with pytest.raises(TypeError, match=r"Returns\(inputs\) decides by the value"):
        jax.vmap(amp)(jnp.stack([Y, Y]))


def test_complex_parameters_of_foreign_modules_are_refused_by_name():
    class Foreign(eqx.Module):
        z: jax.Array = js.param()

        def __call__(self, x):
            return jnp.abs(self.z) * x

    with pytest.raises(ValueError, match="z of Foreign is complex, but a fit is of real numbers"):
        js.fit(Foreign(1j), DATA)


def test_a_fixed_value_that_is_no_number_is_no_success():
    free = js.fit(Decay(1.0, np.nan, 0.0), DATA, free=("amp", "base"), throw=False)
    assert free.result == js.RESULTS.nonfinite_start
    with pytest.raises(ValueError, match="Decay is nan at row 0 for the starting values"):
        js.fit(Decay(1.0, np.nan, 0.0), DATA, free=("amp", "base"))


def test_a_fixed_value_on_its_bound_is_fine():
    fitted = js.fit(Gaussian(0.0, 1.0, 0.5) + START, DATA, free="decay.*")
    assert fitted.success
