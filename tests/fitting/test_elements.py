"""Names of elements of array parameters, `c[0]`, go back in where names are taken."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import same_bits
from problems import Polynomial

import jaxsci as js

X = jnp.linspace(-1.0, 1.0, 16)
Y = 1.0 + 2.0 * X - 0.5 * X**2 + 0.1 * jnp.asarray(np.random.default_rng(0).normal(size=16))
DATA = js.Dataset(X, Y, js.White(0.1))
START = Polynomial([0.5, 0.0, 0.25], jnp.arange(4.0))


@pytest.fixture(scope="module")
def whole():
    return js.fit(START, DATA)


def test_values_and_errors_answer_to_the_names_in_the_summary(whole):
    for k, name in enumerate(whole.names):
        assert name == f"c[{k}]"
        assert whole.values[name] == whole.values["c"][k] == whole.y[k]
        assert whole.std[name] == whole.standard_errors[k]
    assert dict(whole.values).keys() == {"c"}
    batch = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), whole.values)
    np.testing.assert_array_equal(batch["c[1]"], [whole.y[1], 2 * whole.y[1]])


@pytest.mark.parametrize("name", ["d", "c[3]", "c[0", "c[0,0]", "cc[0]", "c[a]"])
def test_a_wrong_name_is_an_error_with_a_suggestion(whole, name):
    for table in (whole.values, whole.std):
        with pytest.raises(KeyError, match=re.escape(f"there is no free parameter {name!r}")):
            table[name]
    with pytest.raises(KeyError, match=re.escape("did you mean 'c[0]'")):
        whole.values["c[0"]


def test_one_element_is_free_and_the_others_keep_their_values():
    single = js.fit(START, DATA, free="c[1]")
    design = np.asarray(X)
    rest = np.asarray(Y - 0.5 - 0.25 * X**2)
    np.testing.assert_allclose(single.values["c[1]"], design @ rest / (design @ design), rtol=1e-10)
    assert single.values["c[0]"] == 0.5
    assert single.values["c[2]"] == 0.25
    assert single.std["c[0]"] == 0
    assert int(single.dof) == 15
    same_bits(single, js.fit(START, DATA, active=[False, True, False]))
    same_bits(js.fit(START, DATA, free=("c[1]", "c")).y, js.fit(START, DATA).y)
    both = js.fit(START, DATA, free=("c[1]", "c[0]"), active=[True, False, True])
    assert both.fixed.tolist() == [False, True, True]


def test_bounds_and_priors_of_one_element():
    array = (jnp.array([-jnp.inf, -jnp.inf, -jnp.inf]), jnp.array([jnp.inf, 1.5, jnp.inf]))
    bounded = js.fit(START, DATA, bounds={"c[1]": (None, 1.5)})
    assert bounded.values["c[1]"] == 1.5
    same_bits(bounded, js.fit(START, DATA, bounds={"c": array}))
    assert js.fit(START, DATA, bounds={"c": (-9.0, 9.0), "c[1]": (None, 1.5)}).values["c[1]"] == 1.5
    sigma = jnp.array([jnp.inf, 1e-3, jnp.inf])
    told = js.fit(START, DATA, priors={"c[1]": js.Normal(1.0, 1e-3)})
    same_bits(told.y, js.fit(START, DATA, priors={"c": js.Normal(jnp.array([0.0, 1.0, 0.0]), sigma)}).y)


def test_a_batch_takes_the_names_of_elements():
    batch = js.fit_batch(START, [DATA, DATA], free="c[1]", bounds={"c[1]": (0, 1.5)})
    assert batch.success.all()
    assert [float(s.values["c[1]"]) for s in batch] == [1.5, 1.5]
    assert [float(s.values["c[0]"]) for s in batch] == [0.5, 0.5]
    with pytest.raises(ValueError, match="frees whole arrays"):
        js.fit_batch(START, [DATA, DATA], free=("c[1]",), shared=("c",))


REFUSED = {
    "free": ({"free": "c[7]"}, "has no parameter 'c[7]'"),
    "bounds": ({"bounds": {"c[7]": (0, 1)}}, "bounds: no free parameter 'c[7]'"),
    "priors": ({"priors": {"c[7]": js.Normal(0.0, 1.0)}}, "priors: no free parameter 'c[7]'"),
    "bounds of one": ({"bounds": {"c[1]": (1, 0)}}, "bounds of c[1]: the lower bound 1 lies above the upper bound 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_element_that_is_not_there_is_named(case):
    given, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        js.fit(START, DATA, **given)
