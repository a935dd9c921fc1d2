"""Models and data that hold more than arrays: networks, functions, words, counts, keys, outputs of fixed length."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compilations
from jaxtyping import Array, Bool, Float, Key

import jaxsci as js
from jaxsci.core import AbstractLikelihood
from jaxsci.core._static import closed, opened
from jaxsci.datasets import blocks
from jaxsci.parallel import fingerprint

X = jnp.linspace(-1.0, 1.0, 16)  # a length that batches do not pad
RIDGE = {"net.*": js.Normal(0.0, 1.0)}


class Peak(js.AbstractModel):
    """A peak over a background that a network learns; everything in it but arrays is part of the program."""

    net: eqx.nn.MLP = js.param()
    height: js.Scalar = js.param()
    key: Key[Array, ""] | None = None
    shape: Callable = jnp.exp
    word: str = "even"
    power: int = 2
    scale: float = 10.0

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        if self.word != "even" or not isinstance(self.power, int):
            raise AssertionError("static parts should come as they are")
        noise = 0.0 if self.key is None else 1e-3 * jax.random.normal(self.key, x.shape)
        background = jax.vmap(self.net)(x[:, None])[:, 0]
        return self.height * self.shape(-self.scale * x**self.power) + background + noise


def peak(seed=0, **parts):
    return Peak(eqx.nn.MLP(1, 1, 2, 1, jnp.tanh, key=jax.random.key(seed)), 1.0, **parts)


def observed(seed):
    rng = np.random.default_rng(seed)
    return np.asarray(2 * jnp.exp(-10 * X**2) + 0.5 * X) + 0.05 * rng.normal(size=16)


DATA = [js.Dataset(X, observed(seed), js.White(0.05)) for seed in range(2)]
NAMES = ["net.layers.0.weight", "net.layers.0.bias", "net.layers.1.weight", "net.layers.1.bias", "height"]


def test_a_network_is_declared_by_the_names_of_its_arrays():
    model = peak()
    assert list(js.parameters(model)) == NAMES
    new = js.put(model, {"net.layers.1.bias": 7.0})
    assert new.net.layers[1].bias == 7.0
    assert set(js.get(model, "net.*.bias")) == {NAMES[1], NAMES[3]}

    class Outer(js.AbstractModel):
        peak: Peak = js.param(unit="mV")

        def __call__(self, x):
            return self.peak(x)

    about = js.parameters(Outer(model))
    assert list(about) == [f"peak.{name}" for name in NAMES]  # what the inner model declares, under its own names
    assert about["peak.height"].unit == ""


@pytest.fixture(scope="module")
def fitted():
    return js.fit(peak(key=jax.random.key(3)), DATA[0], priors=RIDGE)


def test_a_network_is_fitted_and_what_is_no_array_comes_back(fitted, tmp_path):
    assert fitted.success
    assert fitted.chi2 < 40
    assert fitted.free[0] == ("net.layers.0.weight", (2, 1))
    moved = fitted.model.net.layers[0].weight - peak().net.layers[0].weight
    assert jnp.all(jnp.abs(moved) > 1e-6)
    start = peak(key=jax.random.key(3))
    assert jax.tree.structure(fitted.model) == jax.tree.structure(start)
    assert (fitted.model.word, fitted.model.power, fitted.model.shape) == ("even", 2, jnp.exp)
    assert fitted.model.key == start.key
    fitted.save(tmp_path / "fit.jsci")
    loaded = js.Solution.load(tmp_path / "fit.jsci", peak(1, key=jax.random.key(9)))
    np.testing.assert_array_equal(loaded.model(X), fitted.model(X))
    assert loaded.model.key == start.key


@pytest.mark.parametrize("several", [False, True])
def test_a_batch_of_networks_is_each_fit_alone(fitted, several):
    model = peak(key=jax.random.key(3))
    batch = js.fit_batch([model, model] if several else model, DATA, priors=RIDGE)
    assert batch.success.all()
    np.testing.assert_allclose(batch[0].chi2, fitted.chi2, rtol=1e-6)
    np.testing.assert_allclose(batch[0].model(X), fitted.model(X), atol=1e-3)
    assert batch[1].model.word == "even"
    assert batch[1].model.key == model.key


def test_members_of_a_stack_keep_their_keys_and_words():
    models = [peak(key=jax.random.key(k)) for k in range(3)]
    stacked = js.stack(models)
    assert stacked.word == "even"
    assert jnp.all(stacked.key == jnp.stack([m.key for m in models]))
    for a, b in zip(
        jax.tree.leaves(eqx.filter(stacked.net, eqx.is_array)),
        jax.tree.leaves(eqx.filter(models[1].net, eqx.is_array)),
        strict=True,
    ):
        np.testing.assert_array_equal(a[1], b)
    with pytest.raises(ValueError, match="word is str 'odd' in member 1 and str 'even' in member 0"):
        js.stack([models[0], peak(key=models[0].key, word="odd")])


def test_closed_trees_hold_numbers_alone_and_open_again():
    tree = {"f": jnp.tanh, "n": 3, "s": "x", "x": 1.5, "a": jnp.ones(2), "k": jax.random.split(jax.random.key(0))}
    shut = closed(tree)
    assert all(eqx.is_array(leaf) and leaf.dtype.kind in "fu" for leaf in jax.tree.leaves(shut))
    assert closed(shut) is shut
    back = opened(shut)
    assert (back["f"], back["n"], back["s"], float(back["x"])) == (jnp.tanh, 3, "x", 1.5)
    assert jnp.all(back["k"] == tree["k"])
    np.testing.assert_array_equal(opened(jax.jit(lambda t: t)(shut))["a"], tree["a"])


def test_a_checkpoint_knows_words_counts_and_functions():
    prints = {
        fingerprint(closed(tree))
        for tree in ((1, "a", jnp.sin), (2, "a", jnp.sin), (1, "b", jnp.sin), (1, "a", jnp.cos), (1, "a", jnp.sin))
    }
    assert len(prints) == 4


class Pendulum(js.AbstractModel):
    """The angle of a damped pendulum, by an ODE solver whose steps forward-mode derivatives can follow."""

    frequency: js.Scalar = js.param(bounds=(0, None))
    damping: js.Scalar = js.param()
    solver: diffrax.AbstractSolver = diffrax.Tsit5()

    def __call__(self, t: Float[Array, " n"]) -> Float[Array, " n"]:
        def slope(t, y, args):
            return jnp.stack([y[1], -(self.frequency**2) * jnp.sin(y[0]) - self.damping * y[1]])

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            self.solver,
            t[0],
            t[-1] + 1e-6,
            0.05,
            jnp.array([1.0, 0.0]),
            saveat=diffrax.SaveAt(ts=t),
            stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-8),
            adjoint=diffrax.ForwardMode(),
        )
        return solution.ys[:, 0]


def test_an_ode_is_fitted_alone_and_in_a_batch():
    t = jnp.linspace(0.0, 4.0, 16)
    truth = Pendulum(1.5, 0.3)
    scatter = np.random.default_rng(0).normal(size=(2, 16))
    data = [js.Dataset(t, truth(t) + 0.01 * s, js.White(0.01)) for s in scatter]
    alone = js.fit(Pendulum(1.3, 0.1), data[0])
    assert alone.success
    assert np.all(np.abs(alone.y - np.array([1.5, 0.3])) < 5 * alone.standard_errors)
    batch = js.fit_batch(Pendulum(1.3, 0.1), data)
    assert batch.success.all()
    np.testing.assert_allclose(batch[0].y, alone.y, rtol=1e-5)


class Snapshots(js.AbstractDataset):
    """Pictures of one size, of which the model makes moments of a fixed number: nothing that could be padded."""

    pictures: Float[Array, "t d"]
    moments: Float[Array, " n"]
    noise: AbstractLikelihood
    mask: Bool[Array, " n"]
    name: str = "lamp"

    def residual(self, model):
        assert self.pictures.shape == (4, 3)
        assert self.name == "lamp"
        return model(jnp.mean(self.pictures, axis=0)) - self.moments

    def finite(self):
        return jnp.all(jnp.isfinite(self.moments))


class Scale(js.AbstractModel):
    a: js.Scalar = js.param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.a * x


def snapshots(factor):
    pictures = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))
    used = jnp.array([True, True, False])
    return Snapshots(pictures, factor * jnp.mean(pictures, axis=0), js.Diagonal(jnp.ones(3)), used)


def test_outputs_of_fixed_length_are_not_padded():
    members = [snapshots(factor) for factor in (2.0, 3.0, 4.0)]
    (block,) = blocks(Scale(1.0), members)
    assert block.length == 3
    assert block.data.noise.sigma.shape == (3, 3)
    batch = js.fit_batch(Scale(1.0), members)
    assert batch.success.all()
    np.testing.assert_allclose([s.values["a"] for s in batch], [2.0, 3.0, 4.0], rtol=1e-10)
    assert [int(s.num_data) for s in batch] == [2, 2, 2]
    with pytest.raises(ValueError, match=r"Snapshots does not declare its mask by jaxsci\.rows"):
        js.fit_batch(Scale(1.0), js.RaggedDataset(snapshots(2.0), [0, 3]))


def test_thousands_of_data_sets_are_stacked_without_a_program():
    members = [js.Dataset(np.full(3, k, float), np.arange(3.0), js.Diagonal(np.ones(3))) for k in range(300)]
    with compilations() as compiled:
        stacked = js.stack(members)
    assert not compiled
    np.testing.assert_array_equal(stacked.inputs, np.repeat(np.arange(300.0), 3).reshape(300, 3))
