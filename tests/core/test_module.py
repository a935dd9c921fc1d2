import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float
from problems import Decay, Polynomial

import jaxsci as js


class Converted(js.Module):
    x: Float[Array, " n"] = eqx.field(converter=jnp.asarray)
    y: Float[Array, " n"] = eqx.field(converter=jnp.asarray)


class OwnInit(js.Module):
    x: Float[Array, " n"]

    def __init__(self, value: Any):
        self.x = jnp.asarray(value)


class AbstractBase(js.AbstractModel):
    width: eqx.AbstractVar[js.Scalar]


class AbstractMiddle(AbstractBase):
    pass


class Child(AbstractMiddle):
    width: js.Scalar = js.param()
    steps: int = 3

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return x * self.width


class TwoAxes(js.Module):
    matrix: Float[Array, "n k"] = eqx.field(converter=jnp.asarray)
    vector: Float[Array, " k"] = eqx.field(converter=jnp.asarray)


REFUSED = {
    "vector for a scalar": (lambda: Decay([1.0, 2.0], 1.0, 0.0), "Decay.amp should be .*, but it is float64\\[2\\]"),
    "two lengths": (
        lambda: Converted(jnp.ones(3), jnp.ones(4)),
        "Converted.y should be .*float64\\[4\\].*beside x: float64\\[3\\]",
    ),
    "column": (lambda: Converted(jnp.ones(3), jnp.ones((3, 1))), "Converted.y .* float64\\[3, 1\\]"),
    "own init": (lambda: OwnInit([[1.0]]), "OwnInit.x should be .*, but it is float64\\[1, 1\\]"),
    "integer through own init": (lambda: OwnInit([1, 2]), "OwnInit.x should be .*, but it is int64\\[2\\]"),
    "grandchild": (lambda: Child(jnp.ones(2)), "Child.width should be .* float64\\[2\\]"),
    "static field": (lambda: Child(1.0, "three"), "Child.steps should be int, but it is str 'three'"),
    "two axes": (lambda: TwoAxes(jnp.ones((3, 2)), jnp.ones(3)), "TwoAxes.vector .*beside matrix: float64\\[3, 2\\]"),
    "text for a number": (lambda: Decay("a", 1.0, 0.0), "Decay.amp should be .*, but it is str 'a'"),
    "none for a number": (lambda: Decay(None, 1.0, 0.0), "Decay.amp should be"),
    "complex": (lambda: Decay(1j, 1.0, 0.0), "Decay.amp should be .* complex128"),
    "no array at all": (lambda: Polynomial([1.0], "grid"), "Polynomial.grid should be .*, but it is str 'grid'"),
    "loss scale": (lambda: js.Huber(jnp.ones(3)), "Huber.scale should be"),
    "low rank": (lambda: js.LowRank(js.White(1.0), jnp.ones((4, 2)), jnp.ones(3)), "LowRank.variance .*beside basis"),
    "dense": (lambda: js.Dense(jnp.ones((2, 3))), "Dense.covariance should be .* float64\\[2, 3\\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_fields_are_held_to_their_annotations(case):
    build, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        build()


ACCEPTED = {
    "python number": lambda: Decay(1, 2.0, True),
    "numpy": lambda: Child(jnp.float32(2)),
    "grandchild": lambda: Child(1.0, 7),
    "own init": lambda: OwnInit([1.0, 2.0]),
    "empty": lambda: Converted(jnp.ones(0), jnp.ones(0)),
    "two axes": lambda: TwoAxes(jnp.ones((3, 2)), jnp.ones(2)),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_fits_is_accepted_and_survives_transformations(case):
    module = ACCEPTED[case]()
    leaves, structure = jax.tree.flatten(module)
    assert jax.tree.structure(jax.tree.unflatten(structure, leaves)) == structure
    batch = jax.jit(jax.vmap(lambda m: m))(js.stack([module, module]))
    assert jax.tree.structure(batch) == structure


def test_shape_letters_of_two_objects_are_independent():
    Converted(jnp.ones(3), jnp.ones(3))
    Converted(jnp.ones(4), jnp.ones(4))


def test_modules_are_immutable():
    with pytest.raises(AttributeError):
        Decay(1.0, 2.0, 3.0).amp = jnp.array(2.0)


def test_abstract_classes_cannot_be_made():
    for abstract in (js.AbstractModel, AbstractMiddle, js.AbstractNoise, js.AbstractLoss, js.AbstractDataset):
        with pytest.raises(TypeError, match=re.escape(abstract.__name__)):
            abstract()
