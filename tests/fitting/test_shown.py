"""What the prompt, notebooks and tables show of models and fits: numbers, as they are, in every form alike."""

import html
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci.core import notebook_table


class Line(js.AbstractModel):
    slope: js.Scalar = js.param(unit="m/s", bounds=(0, None), prior=js.Normal(2.0, 9.0), doc="how <fast>")
    level: js.Scalar = js.param(default=0.0)

    def __call__(self, x):
        return self.slope * x + self.level


X = jnp.linspace(0.0, 1.0, 20)
NOISE = 0.1 * jax.random.normal(jax.random.key(3), (5, 20))
DATA = [js.Dataset(X, 2 * X + 1 + noise, js.White(0.1)) for noise in NOISE]


@pytest.fixture(scope="module")
def solution():
    return js.fit(Line(1.0), DATA[0])


@pytest.fixture(scope="module")
def batch():
    return js.fit_batch(Line(1.0), DATA)


def cells(text):
    return [html.unescape(cell) for cell in re.findall(r"<t[hd] [^>]*>(.*?)</t[hd]>", text)]


def test_a_model_shows_its_numbers():
    assert repr(Line(1.5)) == "Line(slope=1.5, level=0.0)"
    assert repr(js.White(1e-7)) == "White(sigma=1e-07)"
    assert repr(js.Sum(a=Line(2.0), b=Line(3.0))).count("slope=") == 2


def test_what_has_no_numbers_shows_its_shape():
    shown = []
    jax.jit(lambda model: shown.append(repr(model)) or model)(Line(1.0))
    assert shown == ["Line(slope=f64[], level=f64[])"]
    many = jax.vmap(lambda a: Line(a, a))(jnp.arange(50.0))
    assert repr(many) == "Line(slope=f64[50], level=f64[50])"


BARE = {
    "shapes": lambda s: jax.eval_shape(lambda x: x, s),
    "a part": lambda s: eqx.filter(s, eqx.is_inexact_array),
    "the other part": lambda s: eqx.filter(s, eqx.is_inexact_array, inverse=True),
    "nothing": lambda s: jax.tree.map(lambda x: None, s),
    "words": lambda s: jax.tree.map(lambda x: "word", s),
    "given away": lambda s: jax.tree.map(gone, s),
    "a batch": lambda s: jax.tree.map(lambda x: jnp.stack([x, x]), s),
    "as NumPy": lambda s: jax.tree.map(np.asarray, s),
}


def gone(x):
    copy = jnp.array(x)
    copy.delete()
    return copy


@pytest.mark.parametrize("case", BARE)
def test_nothing_is_too_bare_to_be_shown(solution, case):
    """A repr stands in tracebacks and debuggers, where trees hold anything: it never raises."""
    bare = BARE[case](solution)
    assert repr(bare)
    assert bare._repr_html_()
    assert repr(BARE[case](Line(1.5))).startswith("Line(")


def test_a_model_in_a_notebook():
    text = Line(1.5)._repr_html_()
    assert cells(text) == [
        *("parameter", "value", "unit", "bounds", "prior", ""),
        *("slope", "1.5", "m/s", "0.0 to inf", "Normal(mean=2.0, sigma=9.0)", "how <fast>"),
        *("level", "0.0", "", "", "", ""),
    ]


def test_the_prompt_and_a_notebook_say_what_the_summary_says(solution):
    assert repr(solution) == solution.summary()
    found = cells(solution._repr_html_())
    for line in solution.summary().splitlines()[1:3]:
        name, value, _, std = line.split()[:4]
        at = found.index(name)
        assert found[at : at + 3] == [name, value, std]


def test_a_table_of_one_fit(solution):
    pandas = pytest.importorskip("pandas")
    table = solution.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert table.loc["slope", "value"] == float(solution.values["slope"])
    assert table.loc["slope", "std"] == float(solution.std["slope"])
    assert list(table["unit"]) == ["m/s", ""]


def test_labelled_arrays_of_fits(solution):
    pytest.importorskip("xarray")
    one = solution.to_xarray()
    assert float(one["value"].sel(parameter="level")) == float(solution.values["level"])
    root = float(one["covariance"].sel(parameter="slope", with_parameter="slope")) ** 0.5
    assert root == pytest.approx(float(solution.std["slope"]), rel=1e-12)
    assert str(one["unit"].sel(parameter="slope").item()) == "m/s"
    fits = jax.vmap(lambda y: js.fit(Line(1.0), js.Dataset(X, y, js.White(0.1)), throw=False))(
        (2 * X + 1)[None] + NOISE
    )
    many = fits.to_xarray()
    assert dict(many.sizes) == {"member": 5, "parameter": 2, "with_parameter": 2}
    np.testing.assert_array_equal(many["chi2"], np.asarray(fits.chi2))
    with pytest.raises(ValueError, match="holds a batch"):
        fits.to_pandas()
    median = f"{np.median(np.asarray(fits.values['slope'])):.2f}"
    assert any(cell.startswith(median[:3]) for cell in cells(fits._repr_html_()))


def test_a_batch_in_a_table_and_a_notebook(batch):
    pytest.importorskip("pandas")
    table = batch.to_pandas()
    assert table.index.name == "member"
    np.testing.assert_array_equal(table["slope"], [float(one.values["slope"]) for one in batch])
    text = batch._repr_html_()
    assert "5 fits: 5 converged" in text
    assert cells(text)[:5] == ["parameter", "median", "spread", "median error", "unit"]


def test_a_failed_member_is_named_in_a_notebook():
    bad = js.Dataset(X, DATA[0].observed.at[3].set(jnp.nan), js.White(0.1))
    text = js.fit_batch(Line(1.0), [*DATA, bad])._repr_html_()
    assert "6 fits: 5 converged" in text
    assert "member 5 failed" in text


def test_shared_parameters_in_a_notebook():
    text = js.fit_batch(Line(1.0), DATA, shared=("slope",)).shared._repr_html_()
    assert "slope" in cells(text)


def test_nothing_of_a_table_is_markup():
    text = notebook_table("<b>", ("<i>",), [("<script>",)], ["&"])
    assert not re.search(r"<(b|i|script)>", text)
    assert "&amp;" in text


def test_without_pandas_the_error_names_the_extra(solution, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"jaxsci\[tables\]"):
        solution.to_pandas()
