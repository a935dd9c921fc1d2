import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close
from problems import Decay, Gaussian, Line

import jaxsci as js

X = jnp.linspace(-1.0, 2.0, 7)
A, B, C = Line(2.0, 1.0), Gaussian(3.0, 0.5, 0.7), Decay(1.0, 2.0, 0.3)

COMPOSED = {
    "a + b": (A + B, lambda a, b, c: a + b, ("line", "gaussian")),
    "a * b": (A * B, lambda a, b, c: a * b, ("line", "gaussian")),
    "a + b + c": (A + B + C, lambda a, b, c: a + b + c, ("line", "gaussian", "decay")),
    "a + (b + c)": (A + (B + C), lambda a, b, c: a + b + c, ("line", "gaussian", "decay")),
    "a * b * c": (A * B * C, lambda a, b, c: a * b * c, ("line", "gaussian", "decay")),
    "a * b + c": (A * B + C, lambda a, b, c: a * b + c, ("product", "decay")),
    "(a + b) * c": ((A + B) * C, lambda a, b, c: (a + b) * c, ("sum", "decay")),
    "a + a": (A + A, lambda a, b, c: 2 * a, ("line", "line_2")),
    "a + a + a": (A + A + A, lambda a, b, c: 3 * a, ("line", "line_2", "line_3")),
    "a + b + a": (A + B + A, lambda a, b, c: 2 * a + b, ("line", "gaussian", "line_2")),
    "Sum": (js.Sum(p=B, q=C), lambda a, b, c: b + c, ("p", "q")),
    "Product": (js.Product(p=B, q=C), lambda a, b, c: b * c, ("p", "q")),
    "Sum + c": (js.Sum(p=A, q=B) + C, lambda a, b, c: a + b + c, ("p", "q", "decay")),
}


@pytest.mark.parametrize("case", COMPOSED)
def test_composites_compute_what_they_say(case):
    model, expected, names = COMPOSED[case]
    assert model.names == names
    close(model(X), expected(A(X), B(X), C(X)))
    for name, term in zip(model.names, model.terms, strict=True):
        assert getattr(model, name) is term


@pytest.mark.parametrize("case", COMPOSED)
def test_composites_differentiate_and_batch(case):
    model = COMPOSED[case][0]
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), model)
    rows = jax.jit(jax.vmap(lambda m: m(X)))(many)
    close(rows[1], model(X), 1e-14)
    grads = jax.grad(lambda m: jnp.sum(m(X)))(model)
    assert jax.tree.structure(grads) == jax.tree.structure(model)


def test_parameters_of_composites_are_put_by_name():
    model = js.put(A * B + C, {"product.gaussian.center": -1.0})
    close(model(X), A(X) * Gaussian(3.0, -1.0, 0.7)(X) + C(X))
    assert float(model.product.gaussian.center) == -1.0


def test_a_missing_term_is_an_attribute_error_with_a_suggestion():
    with pytest.raises(AttributeError, match=re.escape("Sum has no term 'gausian'; did you mean 'gaussian'?")):
        (A + B).gausian  # noqa: B018


@pytest.mark.parametrize("other", ["x", None, True, 1j, np.ones(3)])
def test_only_models_and_numbers_compose(other):
    with pytest.raises(TypeError):
        A + other
    with pytest.raises(TypeError):
        A * other


def test_composites_round_trip_through_pickle_copy_and_trees():
    import copy

    model = A + B
    leaves, structure = jax.tree.flatten(model)
    close(jax.tree.unflatten(structure, leaves)(X), model(X))
    close(copy.deepcopy(model)(X), model(X))


OPERATIONS = {
    "a + 2": (lambda a, b: a + 2.0, lambda a, b: a + 2.0, ["gaussian"]),
    "2 + a": (lambda a, b: 2 + a, lambda a, b: 2 + a, ["gaussian"]),
    "2 * a": (lambda a, b: 2 * a, lambda a, b: 2 * a, ["gaussian"]),
    "NumPy on the left": (lambda a, b: np.float64(2.5) * a, lambda a, b: 2.5 * a, ["gaussian"]),
    "JAX on the left": (lambda a, b: jnp.asarray(2.5) - a, lambda a, b: 2.5 - a, ["gaussian"]),
    "a - b": (lambda a, b: a - b, lambda a, b: a - b, ["gaussian", "line"]),
    "a / b": (lambda a, b: a / b, lambda a, b: a / b, ["gaussian", "line"]),
    "a / 3": (lambda a, b: a / 3, lambda a, b: a / 3, ["gaussian"]),
    "3 / a": (lambda a, b: 3 / a, lambda a, b: 3 / a, ["gaussian"]),
    "a - (b - a)": (lambda a, b: a - (b - a), lambda a, b: a - b + a, ["gaussian", "line", "gaussian_2"]),
    "a / (b / a)": (lambda a, b: a / (b / a), lambda a, b: a / b * a, ["gaussian", "line", "gaussian_2"]),
    "-a + b": (lambda a, b: -a + b, lambda a, b: -a + b, ["gaussian", "line"]),
    "(a - b) * 2 - 1": (
        lambda a, b: (a - b) * 2 - 1,
        lambda a, b: (a - b) * 2 - 1,
        ["product.sum.gaussian", "product.sum.line"],
    ),
}


@pytest.mark.parametrize("case", OPERATIONS)
def test_arithmetic_of_models_is_that_of_their_values(case):
    of_models, of_values, terms = OPERATIONS[case]
    gaussian, line = Gaussian(2.0, 1.0, 0.5), Line(0.3, 1.0)
    x = jnp.linspace(0.5, 1.5, 7)
    model = of_models(gaussian, line)
    close(model(x), of_values(gaussian(x), line(x)), rtol=1e-15)
    names = list(js.parameters(model))
    assert list(dict.fromkeys(name.rsplit(".", 1)[0] for name in names)) == terms
    assert not [name for name in names if "constant" in name]
    first = names[0]
    assert js.get(js.put(model, {first: 7.0}), first) == 7.0
