"""Parameters that are weighted means of several patches' values."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sky
from jax.flatten_util import ravel_pytree

import jaxsci as js
from jaxsci import compsep
from jaxsci.compsep._fit.dataset import SkyDataset, white_data
from jaxsci.compsep._fit.fit import covariance_of_cells
from jaxsci.compsep._healpix import nest_to_ring, parents
from jaxsci.compsep._mixing import at_lanes
from jaxsci.compsep._patches import lay_out
from jaxsci.compsep._settings import Limits
from jaxsci.core._parameter import free_spec

NSIDE = 4
NPIX = 12 * NSIDE**2
NU, SIGMA = sky.few(NPIX)
FREE = ("dust.beta", "sync.beta")
HARD = parents(NSIDE, 1)


def model(beta=1.54, beta_s=-3.0):
    dust = compsep.ModifiedBlackBody(beta, 20.0)
    return compsep.MixingMatrix(cmb=compsep.CMB(), dust=dust, sync=compsep.PowerLaw(beta_s))


@jax.jit
@jax.vmap
def matrices(beta, beta_s):
    return model(beta, beta_s).eval(jnp.asarray(NU))


def made(beta, beta_s, noise=1.0):
    """Maps of a sky with these parameters in each pixel."""
    rng = np.random.default_rng(5)
    A = np.asarray(matrices(jnp.asarray(beta), jnp.asarray(beta_s)))
    amplitudes = rng.normal(size=(3, 2, NPIX)) * 5 + np.array([0.0, 60, 40])[:, None, None]
    return np.einsum("pfc,csp->fsp", A, amplitudes) + noise * rng.normal(size=(6, 2, NPIX)) * SIGMA[:, None, None]


def fit(maps, soft, **choices):
    how = {"free": FREE, "inv_n": SIGMA**-2.0, "patches": {"dust.beta": soft}, **choices}
    return compsep.separate(model(), NU, maps, **how)


def blurred(seed=2):
    """Three of twelve patches for each pixel: its own and two others."""
    rng = np.random.default_rng(seed)
    others = (HARD + np.array([[1], [6]]) + rng.integers(0, 5, (2, NPIX))) % 12
    shares = rng.dirichlet((4.0, 1.0, 1.0), NPIX).T
    return compsep.SoftPatches(np.concatenate([HARD[None], others]), shares)


@pytest.fixture(scope="module")
def soft():
    return blurred()


@pytest.fixture(scope="module")
def truth():
    return 1.5 + 0.02 * np.arange(12)


@pytest.fixture(scope="module")
def maps(soft, truth):
    return made(np.sum(truth[soft.numbers] * soft.weights, axis=0), np.full(NPIX, -3.05))


def test_without_noise_the_truth_is_found(soft, truth):
    here = np.sum(truth[soft.numbers] * soft.weights, axis=0)
    found = fit(made(here, np.full(NPIX, -3.05), noise=0.0), soft)
    assert bool(found.success.all())
    np.testing.assert_allclose(found.values["dust.beta"], truth, rtol=1e-6)
    np.testing.assert_allclose(found.values["sync.beta"], [-3.05], rtol=1e-6)
    np.testing.assert_allclose(found.parameter_map("dust.beta"), here, rtol=1e-6)


def test_the_noise_makes_the_scatter_that_the_errors_say(soft, truth, maps):
    found = fit(maps, soft)
    pulls = (np.asarray(found.values["dust.beta"]) - truth) / np.asarray(found.std["dust.beta"])
    assert np.max(np.abs(pulls)) < 3.5
    scatter = (2 / int(found.dof)) ** 0.5
    assert abs(float(jnp.sum(found.chi2)) / int(found.dof) - 1) < 4 * scatter
    assert int(found.dof) == maps.size - 6 * NPIX - 13
    assert "dust.beta              12" in found.summary()


def one_hot():
    """The patches of nside 1 as soft ones; the southern half is soft in earnest, and shares nothing with the north."""
    own = np.stack([HARD, np.where(HARD < 8, HARD, 8 + (HARD + 1) % 4)])
    share = np.where(HARD < 8, 1.0, 0.7)
    return compsep.SoftPatches(own, np.stack([share, 1 - share]))


def test_one_hot_shares_are_hard_patches(maps):
    """By the programs that have two shares for each pixel, beside patches that are soft in earnest."""
    choices = {"solver": js.GaussNewton(rtol=1e-12, atol=1e-14), "tolerance": 1e-9, "free": ("dust.beta",)}
    one, other = fit(maps, one_hot(), **choices), fit(maps, np.where(HARD < 8, HARD, -1), **choices)
    assert one.index["dust.beta"].shape == (2, NPIX)
    north = HARD < 8
    for name in ("values", "std"):
        np.testing.assert_allclose(getattr(one, name)["dust.beta"][:8], getattr(other, name)["dust.beta"], rtol=1e-10)
    for of in ("parameter_map", "error_map"):
        np.testing.assert_allclose(getattr(one, of)("dust.beta")[north], getattr(other, of)("dust.beta")[north], 1e-10)
    np.testing.assert_allclose(one.errors[..., north], other.errors[..., north], rtol=1e-9)
    np.testing.assert_allclose(one.amplitudes[..., north], other.amplitudes[..., north], rtol=1e-8)


def test_shares_of_all_or_nothing_cost_nothing(maps):
    """A soft patch in name only goes the way of hard ones, to the bit."""
    pair = compsep.SoftPatches(np.stack([np.full(NPIX, 77), HARD]), np.stack([np.zeros(NPIX), np.ones(NPIX)]))
    one, other = fit(maps, pair), fit(maps, HARD)
    assert one.index["dust.beta"].shape == (NPIX,)
    np.testing.assert_array_equal(one.values["dust.beta"], other.values["dust.beta"])
    np.testing.assert_array_equal(one.errors, other.errors)


def test_the_order_of_shares_does_not_matter(soft, maps):
    shuffled = np.random.default_rng(1).permuted(np.tile(np.arange(3)[:, None], NPIX), axis=0)
    turned = compsep.SoftPatches(*(np.take_along_axis(x, shuffled, 0) for x in (soft.numbers, soft.weights)))
    one, other = fit(maps, soft), fit(maps, turned)
    np.testing.assert_array_equal(one.values["dust.beta"], other.values["dust.beta"])
    np.testing.assert_array_equal(one.error_map("dust.beta"), other.error_map("dust.beta"))


def test_orders_of_pixels_agree(soft, maps):
    order = nest_to_ring(NSIDE)
    nest = compsep.SoftPatches(soft.numbers[:, order], soft.weights[:, order])
    one, other = fit(maps, soft), fit(maps[..., order], nest, nest=True)
    np.testing.assert_allclose(other.parameter_map("dust.beta"), one.parameter_map("dust.beta")[order], rtol=1e-9)


@pytest.fixture(scope="module")
def likelihood(soft, maps):
    """(cost, sums and information of cells at a point, its cells, the point): two soft parameters of other patches."""
    cells = lay_out(FREE, {"dust.beta": soft, "sync.beta": blurred(9)}, np.ones(NPIX, bool), single=True)
    index, share = jax.tree.map(jnp.asarray, cells.elements())
    root = jnp.asarray(1 / SIGMA)[None, :, None]
    white = white_data(jnp.asarray(maps)[None], root)
    rng = np.random.default_rng(3)
    start = {"dust.beta": 1.5 + 0.05 * rng.random(12), "sync.beta": -3.1 + 0.05 * rng.random(12)}
    begin, objective = at_lanes(model(), start), SimpleNamespace()
    flat, objective.model = ravel_pytree(eqx.filter(begin, free_spec(begin, FREE)))
    objective.places = objective.model(jnp.arange(flat.size, dtype=float))
    rest = eqx.filter(begin, free_spec(begin, FREE), inverse=True)
    objective.model = lambda y, unravel=objective.model: eqx.combine(unravel(y), rest)
    its = SkyDataset(jnp.asarray(NU), white, root, index=index, marginal=True, share=share)

    @jax.jit
    def cost(y):
        return its.sums(objective, y, js.White(jnp.ones(())), False)[0]

    @jax.jit
    def sums(y):
        return its.sums(objective, y, js.White(jnp.ones(())), True)[1], its.cells(objective.model(y), FREE).gram

    return cost, *sums(flat), cells, flat


def test_the_gradient_is_that_of_finite_differences(likelihood):
    cost, total, _, _, y = likelihood
    assert total.shape == (25, 25)
    np.testing.assert_allclose(total[-1, -1], 2 * cost(y), rtol=1e-14)
    expected = np.array([float(cost(y + s) - cost(y - s)) / 2e-5 for s in 1e-5 * np.eye(24)])
    np.testing.assert_allclose(total[-1, :-1], expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_the_information_is_that_of_the_cells_spread_by_their_shares(likelihood):
    _, total, gram, cells, _ = likelihood
    spread = np.zeros((2, 24, NPIX))
    for i, name in enumerate(FREE):
        for row, share in zip(cells.element[name], cells.share[name], strict=True):
            np.add.at(spread[i], (12 * i + row, np.arange(NPIX)), share)
    expected = np.einsum("iak,ijk,jbk->ab", spread, np.asarray(gram), spread)
    np.testing.assert_allclose(total[:-1, :-1], expected, rtol=1e-10, atol=1e-12 * expected.max())


def test_a_pixels_covariance_is_that_of_its_means(soft):
    """w^T Sigma w, beside a parameter that is one for all; an element that is not determined spoils what has it."""
    spread = np.zeros((12, NPIX))
    np.add.at(spread, (soft.numbers, np.arange(NPIX)), soft.weights)
    root = np.random.default_rng(0).normal(size=(13, 13))
    every, group = (root @ root.T)[None], np.zeros(NPIX, int)
    where = [soft.numbers, np.full(NPIX, 12)], [soft.weights, None]
    whole = np.concatenate([spread, np.ones((1, NPIX))])
    jacobian = np.stack([whole * (np.arange(13) < 12)[:, None], whole * (np.arange(13) == 12)[:, None]])
    expected = np.einsum("iak,ab,jbk->ijk", jacobian, every[0], jacobian)
    np.testing.assert_allclose(covariance_of_cells(np, every, group, *where), expected, rtol=1e-12, atol=1e-13)
    every[0, 3], every[0, :, 3], every[0, 3, 3] = np.nan, np.nan, np.inf
    found, hit = covariance_of_cells(np, every, group, *where), spread[3] > 0
    assert 0 < hit.sum() < NPIX
    assert np.all(np.isposinf(found[0, 0]) == hit)
    assert np.all(np.isnan(found[0, 1]) == hit)
    np.testing.assert_allclose(found[..., ~hit], expected[..., ~hit], rtol=1e-12, atol=1e-13)


def test_pixels_have_their_own_errors(soft, maps):
    found = fit(maps, soft)
    expected = np.asarray(found.values["dust.beta"])[soft.numbers]
    np.testing.assert_allclose(found.parameter_map("dust.beta"), np.sum(expected * soft.weights, axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.error_map("dust.beta") ** 2, found.covariance[0, 0][found.cell], rtol=1e-14)
    std = np.asarray(found.std["dust.beta"])[soft.numbers]
    assert np.all(found.error_map("dust.beta") < np.max(std, axis=0))


def test_errors_of_amplitudes_have_those_of_the_pixels_own_values(soft, maps):
    """With the spectra held where they came out, only what the noise does is left."""
    found = fit(maps, soft)
    held = {name: found.parameter_map(name) for name in FREE}
    known = compsep.separate(model(), NU, maps, free=(), fixed=held, inv_n=SIGMA**-2.0)
    np.testing.assert_allclose(known.amplitudes, found.amplitudes, rtol=1e-9, atol=1e-9)
    more = np.asarray(found.errors) ** 2 - np.asarray(known.errors) ** 2
    step = 1e-4
    slopes = [
        np.asarray(
            compsep.separate(
                model(), NU, maps, free=(), fixed=held | {name: held[name] + step}, inv_n=SIGMA**-2.0
            ).amplitudes
            - known.amplitudes
        )
        / step
        for name in FREE
    ]
    sigma = np.asarray(found.covariance)[..., np.asarray(found.cell)]
    np.testing.assert_allclose(more, np.einsum("icsk,ijk,jcsk->csk", slopes, sigma, slopes), rtol=0.01, atol=1e-9)


@pytest.mark.slow
def test_soft_patches_pass_under_jit_vmap_and_grad(soft, maps):
    alone = fit(maps, soft)

    @jax.jit
    def both(scale):
        def total(scale):
            many = jax.vmap(lambda a: fit(a * jnp.asarray(maps), soft))(jnp.stack([scale, 2 * scale]))
            return jnp.sum(many.errors[0]), (many.values, many.covariance)

        (_, found), slope = jax.value_and_grad(total, has_aux=True)(scale)
        return found, slope

    (values, covariance), slope = both(jnp.array(1.0))
    away = (values["dust.beta"][0] - alone.values["dust.beta"]) / alone.std["dust.beta"]
    assert np.max(np.abs(away)) < 1e-4
    np.testing.assert_allclose(covariance[0], alone.covariance, rtol=1e-4)
    assert np.isfinite(slope)


@pytest.mark.parametrize(
    ("numbers", "weights", "message"),
    [
        (None, (-0.1, 1.1), r"dust.beta: 1 pixels \(the first is 7\) have a weight that is negative"),
        (None, (np.nan, 1.0), "have a weight that is negative or not a number"),
        (None, (0.5, 0.6), r"1 pixels \(the first is 7\) have weights that do not sum to 1"),
        (None, (0.0, 0.0), "do not sum to 1"),
        ((-1, 3), (0.5, 0.5), "have weight in no patch"),
    ],
)
def test_bad_weights_are_named(maps, numbers, weights, message):
    pair = one_hot()
    bad = compsep.SoftPatches(pair.numbers.copy(), pair.weights.copy())
    bad.weights[:, 7] = weights
    bad.numbers[:, 7] = bad.numbers[:, 7] if numbers is None else numbers
    with pytest.raises(ValueError, match=message):
        fit(maps, bad)
    lay_out(FREE, {"dust.beta": bad}, np.arange(NPIX) != 7)  # where a pixel is not used its weights do not matter


def test_pixels_of_no_patch_are_masked(maps):
    pair = one_hot()
    outside = np.arange(NPIX) % 7 == 0
    cut = compsep.SoftPatches(np.where(outside, -1, pair.numbers), np.where(outside, 0.0, pair.weights))
    one, other = fit(maps, cut), fit(maps, pair, mask=~outside)
    np.testing.assert_array_equal(np.asarray(one.used), ~outside)
    np.testing.assert_array_equal(one.values["dust.beta"], other.values["dust.beta"])
    assert np.all(np.isnan(np.asarray(one.parameter_map("dust.beta"))) == outside)


def test_shapes_are_named(maps):
    with pytest.raises(ValueError, match=r"patches of dust\.beta are for 48 pixels, but the maps have 192"):
        fit(maps, compsep.SoftPatches(np.zeros((1, 48), int), np.ones((1, 48))))
    with pytest.raises(ValueError, match=r"SoftPatches.weights should be .*float64\[2, 48\]"):
        compsep.SoftPatches(np.zeros((1, 48), int), np.ones((2, 48)))


def test_soft_patches_do_not_go_into_blocks(tmp_path, soft, maps):
    with pytest.raises(ValueError, match=r"soft patches of dust\.beta tie all blocks together"):
        compsep.separate_blocks(
            model(), NU, maps, tmp_path, free=("dust.beta",), patches={"dust.beta": soft}, inv_n=SIGMA**-2.0
        )


def test_places_without_an_element_keep_their_start_and_hold_no_prior():
    """Groups have as many places as the widest of them needs; a prior against an empty one would cost nothing."""
    limits = Limits(*(jnp.array(pair) for pair in ([1.0, -4.0], [2.0, -2.0], [1.6, -3.0], [1e6, 25.0])))
    start, own = limits.at_places(jnp.array([1.2, -3.1]), [jnp.array([True, False, True]), jnp.array([True])])
    np.testing.assert_array_equal(start, [1.2, 1.2, 1.2, -3.1])
    np.testing.assert_array_equal(own.lower, [1.0, 1.2, 1.0, -4.0])
    np.testing.assert_array_equal(own.upper, [2.0, 1.2, 2.0, -2.0])
    np.testing.assert_array_equal(own.prior_weight, [1e6, 0.0, 1e6, 25.0])
    np.testing.assert_array_equal(own.prior_mean, [1.6, 1.6, 1.6, -3.0])
