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


@pytest.mark.parametrize("other", [1.0, "x", None, np.ones(3)])
def test_only_models_compose(other):
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
