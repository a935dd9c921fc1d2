import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import Decay, Gaussian, Line, Polynomial

import jaxsci as js

PEAK, LINE = Gaussian(2.0, 1.0, 0.5), Line(0.1, 3.0)


class Nested(js.AbstractModel):
    parts: dict[str, Line]
    pair: tuple[Decay, ...]
    scale: js.Scalar = js.param(default=1.0)

    def __call__(self, x):
        return self.scale * (self.parts["a"](x) + self.pair[0](x))


NESTED = Nested({"b": Line(1.0, 2.0), "a": Line(3.0, 4.0)}, (Decay(1.0, 2.0, 3.0),))

NAMES = {
    "plain": (Decay(1.0, 2.0, 3.0), ["amp", "tau", "base"]),
    "array": (Polynomial([1.0, 2.0, 3.0], jnp.arange(4.0)), ["c"]),
    "sum": (PEAK + LINE, ["gaussian.height", "gaussian.center", "gaussian.width", "line.slope", "line.offset"]),
    "named": (js.Sum(peak=PEAK, sky=LINE), ["peak.height", "peak.center", "peak.width", "sky.slope", "sky.offset"]),
    "product": (LINE * Line(1.0, 2.0), ["line.slope", "line.offset", "line_2.slope", "line_2.offset"]),
    "nested": (
        NESTED,
        [
            "parts.a.slope",
            "parts.a.offset",
            "parts.b.slope",
            "parts.b.offset",
            "pair.0.amp",
            "pair.0.tau",
            "pair.0.base",
            "scale",
        ],
    ),
    "noise": (js.Diagonal(jnp.ones(3)), ["efac", "equad"]),
    "no parameter": (js.Dense(jnp.eye(2)), []),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_follow_the_fields(case):
    module, names = NAMES[case]
    assert list(js.parameters(module)) == names


@pytest.mark.parametrize("case", [name for name, (_, names) in NAMES.items() if names])
def test_put_then_get_returns_the_value_and_leaves_all_others(case):
    module, names = NAMES[case]
    for name in names:
        old = js.get(module, name)
        new = js.put(module, {name: old * 0 + 7.25})
        assert np.all(np.asarray(js.get(new, name)) == 7.25)
        assert jax.tree.structure(new) == jax.tree.structure(module)
        back = js.put(new, {name: old})
        jax.tree.map(np.testing.assert_array_equal, back, module)


def test_metadata():
    about = js.parameters(PEAK + Decay(1.0, 2.0, 3.0))
    assert about["gaussian.height"].bounds == (0, float("inf"))
    assert about["gaussian.width"].bounds == (1e-3, 10.0)
    assert about["gaussian.center"].unit == "nm"
    assert about["decay.tau"].doc == "life time"
    assert about["decay.amp"].bounds == (-float("inf"), float("inf"))
    assert about["decay.amp"].prior is None


def test_globs_choose_by_name():
    model = js.Sum(peak=PEAK, sky=LINE)
    assert set(js.get(model, "sky.*")) == {"sky.slope", "sky.offset"}
    assert set(js.get(model, "*.width")) == {"peak.width"}
    assert list(js.get(model, "*")) == NAMES["named"][1]
    moved = js.put(model, {"sky.*": 0.0, "peak.center": 5})
    assert [float(v) for v in js.get(moved, "*").values()] == [2.0, 5.0, 0.5, 0.0, 0.0]


def test_later_entries_of_put_win():
    assert float(js.get(js.put(LINE, {"*": 1.0, "slope": 2.0}), "slope")) == 2.0


UNKNOWN = {
    "near": (
        Decay(1.0, 2.0, 3.0),
        "taau",
        "Decay has no parameter 'taau'; did you mean 'tau'? (parameters: amp, tau, base)",
    ),
    "far": (Decay(1.0, 2.0, 3.0), "zzz", "Decay has no parameter 'zzz' (parameters: amp, tau, base)"),
    "undeclared": (NAMES["array"][0], "grid", "Polynomial has no parameter 'grid' (parameters: c)"),
    "glob": (LINE, "dust.*", "Line has no parameter 'dust.*' (parameters: slope, offset)"),
    "none at all": (js.Dense(jnp.eye(2)), "x", "Dense has no parameter 'x' (parameters: none)"),
}


@pytest.mark.parametrize("case", UNKNOWN)
@pytest.mark.parametrize("door", [js.get, lambda m, name: js.put(m, {name: 1.0})])
def test_unknown_names_are_errors_with_a_suggestion(case, door):
    module, name, message = UNKNOWN[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        door(module, name)


def test_put_casts_fills_and_refuses():
    poly = NAMES["array"][0]
    assert js.get(js.put(poly, {"c": 1}), "c").dtype == jnp.float64
    np.testing.assert_array_equal(js.get(js.put(poly, {"c": 1}), "c"), np.ones(3))
    np.testing.assert_array_equal(js.get(js.put(poly, {"c": np.arange(3)}), "c"), np.arange(3.0))
    with pytest.raises(ValueError, match=re.escape("c has shape (3,), but the new value has shape (2,)")):
        js.put(poly, {"c": [1.0, 2.0]})
    with pytest.raises(ValueError, match=re.escape("tau has shape (), but the new value has shape (2,)")):
        js.put(Decay(1.0, 2.0, 3.0), {"tau": [1.0, 2.0]})


def test_put_keeps_single_precision():
    one = jnp.float32(1)
    assert js.get(js.put(Decay(one, one, one), {"tau": 3.0}), "tau").dtype == jnp.float32


def test_put_works_on_stacked_models_and_under_transformations():
    many = js.stack([Decay(float(k), 1.0, 0.0) for k in range(4)])
    np.testing.assert_array_equal(js.get(js.put(many, {"tau": np.arange(4.0)}), "tau"), np.arange(4.0))
    slope = jax.jit(jax.grad(lambda v: js.put(LINE, {"slope": v})(jnp.array([3.0]))[0]))
    assert float(slope(2.0)) == 3.0


BAD_BOUNDS = {
    "reversed": ((1.0, 0.0), "bounds: the lower bound 1.0 lies above the upper bound 0.0"),
    "nan": ((float("nan"), 1.0), "bounds are (nan, 1.0), but a bound is a number"),
    "not a pair": (3.0, "bounds should be a pair (lower, upper), but it is 3.0"),
    "three": ((0, 1, 2), "bounds should be a pair"),
}


@pytest.mark.parametrize("case", BAD_BOUNDS)
def test_bounds_that_make_no_sense_are_refused_where_they_are_declared(case):
    bounds, message = BAD_BOUNDS[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        js.param(bounds=bounds)


def test_python_numbers_share_one_trace():
    count = 0

    @jax.jit
    def f(model):
        nonlocal count
        count += 1
        return model(jnp.ones(2))

    for value in (1, 2.0, np.float64(3.0), jnp.asarray(4.0)):
        f(Line(value, 0.5))
    assert count == 1
