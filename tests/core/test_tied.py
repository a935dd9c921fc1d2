"""Parameters that are formulas of others: fewer to fit, the same answer as a model written so by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci.curvefit import Gaussian, Line


class Doublet(js.AbstractModel):
    """Two lines of one width at a known distance, written by hand."""

    amplitude: js.Scalar = js.param()
    ratio: js.Scalar = js.param()
    center: js.Scalar = js.param(unit="nm")
    sigma: js.Scalar = js.param(unit="nm", bounds=(0, None))

    def __call__(self, x):
        def line(a, c):
            return a * jnp.exp(-(((x - c) / self.sigma) ** 2) / 2)

        return line(self.amplitude, self.center) + line(self.ratio * self.amplitude, self.center + 0.6)


X = jnp.linspace(-3.0, 4.0, 120)
TIES = {"b.sigma": "a.sigma", "b.center": "a.center + 0.6"}


def doublet(**ties):
    return js.Tied(js.Sum(a=Gaussian(1.0, 0.1, 0.5), b=Gaussian(0.4, 9.0, 9.0)), TIES | ties)


@pytest.fixture(scope="module")
def fits():
    y = Doublet(2.0, 0.35, 0.05, 0.4)(X) + 0.02 * np.random.default_rng(2).normal(size=X.size)
    data = js.Dataset(X, y, js.White(0.02))
    return js.fit(doublet(), data), js.fit(Doublet(1.0, 0.4, 0.1, 0.5), data), data


def test_a_tied_model_is_the_one_written_by_hand(fits):
    tied, hand, _ = fits
    assert tied.names == ("a.amplitude", "a.center", "a.sigma", "b.amplitude")
    assert tied.dof == hand.dof
    np.testing.assert_allclose(tied.chi2, hand.chi2, rtol=1e-10)
    for name in ("center", "sigma"):
        np.testing.assert_allclose(tied.values[f"a.{name}"], hand.values[name], rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(tied.std[f"a.{name}"], hand.std[name], rtol=1e-6)


def test_tied_parameters_have_values_and_errors(fits):
    tied, hand, _ = fits
    found = tied.tied
    assert list(found) == ["b.center", "b.sigma"]
    assert found["b.center"].formula == "a.center + 0.6"
    np.testing.assert_allclose(found["b.center"].value, hand.values["center"] + 0.6, rtol=1e-7)
    np.testing.assert_allclose(found["b.center"].std, hand.std["center"], rtol=1e-6)
    assert "b.sigma" in tied.summary()
    assert "= a.center + 0.6" in tied.summary()
    assert "= a.center + 0.6" in tied._repr_html_()
    assert tied.summary().startswith("Sum: converged")  # of the model within


def test_attributes_are_those_of_the_model(fits):
    tied, *_ = fits
    value, variance = tied.propagate(lambda model: model.b.center - model.a.center)
    assert value == pytest.approx(0.6, abs=1e-14)
    assert variance < 1e-20


def test_chains_are_followed_in_any_order():
    model = js.Tied(Gaussian(3.0, 0.0, 0.0), {"sigma": "center / 2", "center": "2 * amplitude**2"})
    assert (model.center, model.sigma) == (18.0, 9.0)
    assert js.Tied(Gaussian(3.0, 0.0, 0.0), {"center": "2 * amplitude**2", "sigma": "center / 2"}).sigma == 9.0


class Polynomial(js.AbstractModel):
    """c[0] + c[1] x + c[2] x^2."""

    c: jax.Array = js.param()
    d: jax.Array = js.param()

    def __call__(self, x):
        return jnp.polyval(self.c[::-1], x) + jnp.sum(self.d)


def test_arrays_and_their_elements():
    model = js.Tied(Polynomial(jnp.arange(3.0), jnp.zeros(3)), {"d": "c[2] - c[0]"})
    assert model.d.tolist() == [2.0, 2.0, 2.0]
    assert js.Tied(Polynomial(jnp.arange(3.0), jnp.zeros(3)), {"d": "2 * c"}).d.tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(ValueError, match=r"d has shape \(2,\), but '2 \* c' has shape \(3,\)"):
        js.Tied(Polynomial(jnp.arange(3.0), jnp.zeros(2)), {"d": "2 * c"})
    one = Polynomial(jnp.arange(3.0), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"formula for b.d: shapes do not go together \(a.c \(3,\), a.d \(2,\)\)"):
        js.Tied(js.Sum(a=one, b=one), {"b.d": "a.c + a.d"})


def test_under_jit_vmap_and_grad(fits):
    _, _, data = fits
    many = data.observed[None] + 0.02 * np.random.default_rng(3).normal(size=(3, X.size))

    def width(y):
        solution = js.fit(doublet(), js.Dataset(X, y, js.White(0.02)), throw=False)
        return solution.tied["b.center"].value

    together = jax.jit(jax.vmap(jax.value_and_grad(width)))(jnp.asarray(many))
    one = jnp.asarray(many[1])
    np.testing.assert_allclose(together[0][1], jax.jit(width)(one), rtol=1e-9)
    step = 1e-4 * jnp.asarray(np.random.default_rng(4).normal(size=X.size))
    slope = (jax.jit(width)(one + step) - jax.jit(width)(one - step)) / 2
    np.testing.assert_allclose(together[1][1] @ step, slope, rtol=1e-4)


def test_batches_bounds_and_files(fits, tmp_path):
    tied, _, data = fits
    batch = js.fit_batch(doublet(), [data, data], bounds={"a.sigma": (0.1, 0.45)})
    assert batch.success.all()
    np.testing.assert_allclose(batch[0].values["a.sigma"], tied.values["a.sigma"], rtol=1e-8)
    tied.save(tmp_path / "doublet.solution")
    again = js.Solution.load(tmp_path / "doublet.solution", doublet())
    assert again.tied["b.sigma"].value == tied.tied["b.sigma"].value


def test_models_within_models():
    both = js.Tied(Gaussian(3.0, 0.0, 0.0), {"sigma": "amplitude"}) + js.Tied(Line(1.0, 0.0), {"intercept": "slope"})
    assert list(js.parameters(both)) == ["tied.amplitude", "tied.center", "tied_2.slope"]
    solution = js.fit(both, js.Dataset(X, both(X), js.White(1.0)))
    assert {name: tied.formula for name, tied in solution.tied.items()} == {
        "tied.sigma": "amplitude",
        "tied_2.intercept": "slope",
    }


@pytest.mark.parametrize(
    ("ties", "said"),
    [
        ({"b.sigm": "a.sigma"}, "no parameter 'b.sigm' to tie; did you mean 'b.sigma'"),
        ({"b.sigma": "a.sigm"}, "b.sigma is tied to 'a.sigm' by 'a.sigm', but there is no such parameter"),
        ({"b.sigma": "b.center", "b.center": "b.sigma + 1"}, "in a circle"),
        ({"b.sigma": "b.sigma"}, "in a circle"),
        ({"b.sigma": "a.sigma +"}, "the formula for b.sigma: column"),
        ({"b.sigma": "a.__class__"}, "there is no such parameter"),
        ({"b.sigma": "open('x')"}, "column 1 of .* is not arithmetic"),
        ({"b.sigma": "a.sigma if 1 else 2"}, "is not arithmetic"),
    ],
)
def test_what_is_wrong_is_said(ties, said):
    with pytest.raises(ValueError, match=said):
        js.Tied(js.Sum(a=Gaussian(1.0, 0.1, 0.5), b=Gaussian(0.4, 9.0, 9.0)), ties)
