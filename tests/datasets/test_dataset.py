import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, quick_jit, same_bits
from problems import Decay, Line

import jaxsci as js
from jaxsci.core._rows import split_rows

X3, Y3 = jnp.arange(3.0), jnp.arange(3.0)

WRONG_SHAPES = {
    "inputs": (
        lambda: js.Dataset(jnp.arange(4.0), Y3),
        "inputs has shape (4,), observed has shape (3,): rows must match",
    ),
    "inputs by key": (
        lambda: js.Dataset({"t": X3, "f": jnp.ones((2, 3))}, Y3),
        "inputs['f'] has shape (2, 3), observed has shape (3,)",
    ),
    "inputs scalar": (lambda: js.Dataset(1.0, Y3), "inputs has shape (), observed has shape (3,)"),
    "observed column": (lambda: js.Dataset(X3, Y3[:, None]), "observed has shape (3, 1)"),
    "observed scalar": (lambda: js.Dataset(X3, 1.0), "observed has shape ()"),
    "sigma": (
        lambda: js.Dataset(X3, Y3, js.Diagonal(jnp.ones(2))),
        "noise.sigma has shape (2,), observed has shape (3,)",
    ),
    "covariance": (
        lambda: js.Dataset(X3, Y3, js.Dense(jnp.eye(2))),
        "noise.covariance has shape (2, 2), observed has shape (3,)",
    ),
    "basis": (
        lambda: js.Dataset(X3, Y3, js.LowRank(js.White(1.0), jnp.ones((2, 1)), jnp.ones(1))),
        "noise.basis has shape (2, 1), observed has shape (3,)",
    ),
    "inner sigma": (
        lambda: js.Dataset(X3, Y3, js.LowRank(js.Diagonal(jnp.ones(4)), jnp.ones((3, 1)), jnp.ones(1))),
        "noise.diagonal.sigma has shape (4,), observed has shape (3,)",
    ),
    "counts": (
        lambda: js.Dataset(X3, Y3, js.Poisson(jnp.ones(2))),
        "noise.counts has shape (2,), observed has shape (3,)",
    ),
    "mask length": (
        lambda: js.Dataset(X3, Y3, mask=[True]),
        "mask should be bool[3] like observed (True = used), but it is bool[1]",
    ),
    "mask dtype": (
        lambda: js.Dataset(X3, Y3, mask=[1, 0, 1]),
        "mask should be bool[3] like observed (True = used), but it is int64[3]",
    ),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_wrong_shapes_are_named_with_both_shapes(case):
    build, message = WRONG_SHAPES[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


def test_a_model_that_broadcasts_is_refused():
    class Column(js.AbstractModel):
        a: js.Scalar = js.param()

        def __call__(self, x):
            return self.a * x[:, None]

    with pytest.raises(ValueError, match=re.escape("Column(inputs) has shape (3, 1), observed has shape (3,)")):
        js.Dataset(X3, Y3).residual(Column(1.0))


def test_residual_is_model_minus_observed():
    close(js.Dataset(X3, jnp.array([1.0, 0.0, -1.0])).residual(Line(2.0, 1.0)), jnp.array([0.0, 3.0, 6.0]))


ACCEPTED = {
    "lists": ([0, 1, 2], [3, 4, 5]),
    "integers": (np.arange(3), np.arange(3)),
    "booleans in inputs": ({"x": X3, "on": np.array([True, False, True])}, Y3),
    "tuple": ((X3, jnp.ones((3, 2))), Y3),
    "float32": (X3.astype(jnp.float32), Y3.astype(jnp.float32)),
    "tuple of observed": (X3, (1.0, 2.0, 3.0)),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_a_data_set_accepts(case):
    inputs, observed = ACCEPTED[case]
    data = js.Dataset(inputs, observed)
    assert data.observed.dtype == (jnp.float32 if case == "float32" else jnp.float64)
    assert data.mask.dtype == bool
    assert bool(jnp.all(data.mask))
    if case == "booleans in inputs":
        assert data.inputs["on"].dtype == bool
    assert bool(data.finite())


def noises(n):
    rng = np.random.default_rng(1)
    a = rng.normal(size=(n, n))
    return {
        "none": None,
        "white": js.White(0.5),
        "diagonal": js.Diagonal(jnp.linspace(0.5, 2.0, n)),
        "dense": js.Dense(a @ a.T + n * np.eye(n)),
        "low rank": js.LowRank(js.Diagonal(jnp.linspace(0.5, 2.0, n)), rng.normal(size=(n, 2)), jnp.array([1.0, 3.0])),
        "poisson": js.Poisson(jnp.arange(1.0, n + 1)),
    }


ROWWISE = {"diagonal": "sigma", "low rank": "basis", "poisson": "counts", "dense": "covariance"}
USED = np.array([True, True, False, True, False, True])


def prepared_cost(model, data):
    likelihood = data.noise.prepare(data.mask)
    return likelihood.cost(data.residual(model), data.mask)


@quick_jit
def masked_costs(x, y, poisoned, clean, mask):
    """Cost and its gradients, with the rows' values given by tracers; and with clean ones."""

    def cost(model, observed, noise):
        return prepared_cost(model, js.Dataset(x, observed, noise, mask))

    value, grads = jax.value_and_grad(cost, argnums=(0, 1))(Line(1.0, 2.0), y, poisoned)
    harmless = [jnp.where(mask, leaf, 1.0) for leaf in (x, y)]
    fine = js.Dataset(x, y, poisoned, mask).finite()
    return value, grads, prepared_cost(Line(1.0, 2.0), js.Dataset(*harmless, clean, mask)), fine


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", noises(3))
def test_what_lies_under_the_mask_reaches_neither_values_nor_gradients(name, bad):
    clean = noises(6)[name]
    poisoned = clean
    if name in ROWWISE:
        leaf = np.array(getattr(clean, ROWWISE[name]))
        leaf[~USED] = bad
        if name == "dense":
            leaf[:, ~USED] = bad
        poisoned = eqx.tree_at(lambda noise: getattr(noise, ROWWISE[name]), clean, jnp.asarray(leaf))
    x = jnp.where(USED, jnp.arange(6.0), bad)
    y = jnp.where(USED, jnp.linspace(2.0, 8.0, 6), bad)
    value, grads, expected, fine = masked_costs(x, y, poisoned, clean, jnp.asarray(USED))
    close(value, expected, 1e-13)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))
    assert bool(jnp.all(grads[1][~USED] == 0))
    assert bool(fine)


@pytest.mark.parametrize("field", ["inputs", "observed"])
def test_finite_looks_at_used_rows_only(field):
    bad = np.array([0.0, np.nan, 2.0])
    inputs, observed = (bad, Y3) if field == "inputs" else (X3, bad)
    assert not bool(js.Dataset(inputs, observed).finite())
    assert bool(js.Dataset(inputs, observed, mask=np.array([True, False, True])).finite())


@pytest.mark.parametrize("name", noises(3))
def test_padding_changes_nothing(name):
    length = 8
    x, y = {"x": jnp.linspace(1.0, 2.0, 5), "w": jnp.ones((5, 2))}, jnp.linspace(2.0, 4.0, 5)
    mask = np.array([True, True, False, True, True])

    class OnKey(js.AbstractModel):
        a: js.Scalar = js.param()

        def __call__(self, inputs):
            return self.a * jnp.log(inputs["x"]) * inputs["w"][:, 0]

    data = js.Dataset(x, y, noises(5)[name], mask)
    longer = js.pad(data, length)
    assert longer.observed.shape == longer.mask.shape == (length,)
    assert longer.inputs["w"].shape == (length, 2)
    assert int(jnp.sum(longer.mask)) == 4

    @quick_jit
    def cost(d):
        logdet = d.noise.logdet(d.mask) if isinstance(d.noise, js.AbstractNoise) else jnp.zeros(())
        return prepared_cost(OnKey(1.5), d), logdet, d.finite() & d.noise.valid(d.mask)

    close(cost(longer), cost(data), 1e-13)
    assert bool(cost(longer)[2])


def test_padding_cannot_shorten():
    with pytest.raises(ValueError, match=re.escape("the data set has 3 rows already; it cannot be padded to 2")):
        js.pad(js.Dataset(X3, Y3), 2)


def test_stack_adds_one_leading_axis():
    members = [js.Dataset(X3, Y3 + k, js.Diagonal(jnp.full(3, 1.0 + k))) for k in range(4)]
    batch = js.stack(members)
    assert batch.observed.shape == (4, 3)
    for k, member in enumerate(members):
        same_bits(jax.tree.map(lambda leaf, k=k: leaf[k], batch), member)
    sums = jax.vmap(lambda d: jnp.sum(d.observed))(batch)
    close(sums, jnp.array([3.0, 6.0, 9.0, 12.0]))


STACKED = {
    "empty": ([], "there is nothing to stack: the list is empty"),
    "classes": ([Line(1.0, 2.0), Decay(1.0, 2.0, 3.0)], "member 1 (Decay) has another structure than member 0 (Line)"),
    "lengths": (
        [js.Dataset(X3, Y3), js.Dataset(X3, Y3), js.Dataset(X3[:2], Y3[:2])],
        "inputs has shape (2,) in member 2 and (3,) in member 0; pad the data sets to one length first (jaxsci.pad)",
    ),
}


@pytest.mark.parametrize("case", STACKED)
def test_what_cannot_be_stacked_is_named(case):
    members, message = STACKED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        js.stack(members)


def test_padded_lengths_are_few_and_large_enough():
    lengths = range(1, 10_000)
    padded = [js.bucket(n) for n in lengths]
    assert all(n <= p < max(2 * n, 17) for n, p in zip(lengths, padded, strict=True))
    assert padded == sorted(padded)
    assert len(set(padded)) <= 12
    assert all(js.bucket(p) == p for p in set(padded))


def test_rows_are_told_from_the_rest():
    data = js.Dataset({"x": X3}, Y3, js.Diagonal(jnp.ones(3)))
    rows, rest = split_rows(data)
    assert rows.inputs["x"].shape == rows.observed.shape == rows.mask.shape == rows.noise.sigma.shape == (3,)
    assert rows.noise.efac is None
    assert rest.observed is None
    assert rest.noise.efac.shape == ()
    with pytest.raises(ValueError, match="a dense covariance couples all rows"):
        split_rows(js.Dataset(X3, Y3, js.Dense(jnp.eye(3))))


def test_what_stands_in_for_unused_rows_is_finite():
    """The first used row is NaN: it must not spread into the rows that are masked."""
    inputs = jnp.array([jnp.nan, 1.0, jnp.nan, 3.0])
    data = js.Dataset(inputs, jnp.arange(4.0), js.White(1.0), jnp.array([True, True, False, False]))
    np.testing.assert_array_equal(data.inputs, [np.nan, 1.0, 1.0, 1.0])
