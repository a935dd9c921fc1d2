"""Fits of spectra over the sky: golden numbers, closed forms, invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sky

from jaxsci import compsep
from jaxsci.compsep._healpix import nest_to_ring, parents, ring_to_nest

NSIDE = 4
NPIX = 12 * NSIDE**2


def stack(by_name):
    return np.stack([np.asarray(v) for v in by_name.values()])


def distance(separation, other):
    """How far other values (p, k) are from ours, in standard errors, cell by cell."""
    off = stack(separation.values) - other
    inverse = np.linalg.inv(np.moveaxis(np.asarray(separation.covariance), 2, 0))
    return np.sqrt(np.einsum("ik,kij,jk->k", off, inverse, off))


@pytest.mark.parametrize(("stokes", "const"), [("QU", True), ("QU", False)])
def test_global_fits_are_fgbusters(shared_data, golden_fits, mixing, stokes, const):
    maps, _ = sky.real(shared_data, 64, stokes, const)
    found = compsep.separate(mixing, sky.LITEBIRD, maps)
    name = f"global_{stokes}_const{const}"
    assert bool(found.success.all())
    assert float(distance(found, golden_fits[f"{name}_x"][:, None])[0]) < 5e-4  # fgbuster stops short of the optimum
    np.testing.assert_allclose(found.covariance[:, :, 0], golden_fits[f"{name}_Sigma"], rtol=1e-5)
    np.testing.assert_allclose(found.minus_log_like, golden_fits[f"{name}_fun"], rtol=1e-14)


def test_multi_resolution_reaches_below_all_peers(shared_data, golden_fits, mixing):
    maps, _ = sky.real(shared_data, 16, "QU")
    found = compsep.separate(mixing, sky.LITEBIRD, maps, patches={"dust.beta": 8, "dust.temp": 4, "sync.beta": 2})
    assert sum(v.size for v in found.values.values()) == 1008
    assert bool(found.success.all())
    assert float(found.minus_log_like) <= golden_fits["multires16_842_QU_best_minus_logL"]
    assert all(np.all(np.isfinite(s)) for s in stack_list(found.std))


def stack_list(by_name):
    return [np.asarray(v) for v in by_name.values()]


@pytest.fixture(scope="module")
def pixels(shared_data):
    maps, truth = sky.real(shared_data, 16, "IQU")
    mixing = compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(), sync=compsep.PowerLaw())
    return compsep.separate(mixing, sky.LITEBIRD, maps, patches=16), maps, truth


def test_single_pixels_are_fgbusters(pixels, golden_fits):
    found, *_ = pixels
    which = golden_fits["pix16_IQU_idx"]
    x, f = golden_fits["pix16_IQU_BFGS_x"], golden_fits["pix16_IQU_BFGS_f"]
    off = np.stack([np.asarray(found.parameter_map(n))[which] for n in found.free]) - x.T
    inverse = np.linalg.inv(np.moveaxis(np.asarray(found.covariance), 2, 0))[which]
    away = np.sqrt(np.einsum("ik,kij,jk->k", off, inverse, off))
    assert bool(found.success.all())
    assert np.median(away) < 1e-5
    assert np.mean(away < 1e-3) > 0.95  # BFGS itself stops short of the optimum in the others
    assert f.shape == away.shape


def test_chi2_is_that_of_the_noise(pixels):
    found, maps, _ = pixels
    assert int(found.dof) == maps.size - 9 * 3072 - 3 * 3072
    scatter = (2 / int(found.dof)) ** 0.5
    assert abs(float(jnp.sum(found.chi2)) / int(found.dof) - 1) < 5 * scatter


def test_pulls_of_pixels_have_unit_width(pixels):
    found, _, truth = pixels
    for name in found.free:
        pull = (np.asarray(found.parameter_map(name)) - truth[name]) / np.asarray(found.error_map(name))
        assert abs(np.median(pull)) < 0.1
        assert abs(np.percentile(pull, 84) - np.percentile(pull, 16) - 2) < 0.15


def test_faint_synchrotron_does_not_end_as_dust(shared_data, mixing):
    """Pixels where the first undamped step leads to a maximum of the likelihood that is far from the highest."""
    maps, _ = sky.real(shared_data, 64, "IQU")
    inv_n = 1 / np.asarray(sky.LITEBIRD.sigma(maps.shape[2], "IQU")) ** 2
    few = np.array([372, 962, 24476, 28426, 39493, 47938])
    found = compsep.separate(mixing, sky.LITEBIRD.frequency, maps[:, :, few], inv_n=inv_n, patches=np.arange(6))
    assert bool(found.success.all())
    assert np.all(scipy.stats.chi2.sf(np.asarray(found.chi2), 45 - 9 - 3) > 1e-3)
    assert np.all(np.asarray(found.values["sync.beta"]) < -2)


@pytest.mark.parametrize(("noise", "tolerance"), [(1.0, 1e-13), (1e-3, 1e-6), (1e-6, 1e-6)])
def test_bright_pixels_end_where_rounding_ends_them(noise, tolerance):
    """What rounding leaves of a step is no failure: however bright the sky, however near the answer is to be."""
    mixing = compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.54, 20.0), sync=compsep.PowerLaw(-3.0)
    )
    maps, _ = sky.made(NPIX, "IQU", noise=noise)
    inv_n = 1 / (noise * np.asarray(sky.LITEBIRD.sigma(NPIX, "IQU"))) ** 2
    few = {"patches": NSIDE, "tolerance": tolerance}
    found = compsep.separate(mixing, sky.LITEBIRD.frequency, maps, inv_n=inv_n, **few)
    assert bool(found.success.all())
    truth = np.repeat([[1.6], [19.0], [-3.1]], NPIX, axis=1)
    away = distance(found, truth)
    assert abs(np.mean(away**2) / 3 - 1) < 5 * (2 / 3 / NPIX) ** 0.5


@pytest.mark.slow
def test_likelihood_ratios_of_pixels_are_normal(shared_data, mixing):
    """Temperatures of faint pixels have errors that are not symmetric; how far chi2 rises is honest all the same."""
    maps, _ = sky.real(shared_data, 16, "IQU", True)
    found, held = (
        compsep.separate(mixing, sky.LITEBIRD, maps, patches=16, free=free)
        for free in (None, ("dust.beta", "sync.beta"))
    )
    off = np.asarray(found.parameter_map("dust.temp")) - 20
    root = np.sign(off) * np.sqrt(np.maximum(held.chi2 - found.chi2, 0))
    assert abs(root.mean()) < 4 / off.size**0.5
    assert abs(root.std() - 1) < 4 / (2 * off.size) ** 0.5


@pytest.fixture(scope="module")
def small():
    return sky.made(NPIX, "QU")


def fit(mixing, maps, **choices):
    return compsep.separate(mixing, sky.LITEBIRD, maps, **choices)


def test_without_noise_the_truth_is_found(mixing):
    maps, amplitudes = sky.made(NPIX, "QU", noise=0.0)
    found = fit(mixing, maps, patches=2)
    for name, value in zip(found.free, (1.6, 19.0, -3.1), strict=True):
        np.testing.assert_allclose(found.values[name], value, rtol=1e-6)
    np.testing.assert_allclose(found.component("dust"), amplitudes[1], rtol=1e-5, atol=1e-3)


def test_cells_and_groups_are_one_fit(mixing, small):
    """The same patches through the loop over cells and through the core's solver."""
    maps, _ = small
    patch = parents(NSIDE, 1)
    cells = fit(mixing, maps, patches=1)
    extra = np.where(np.arange(NPIX) == 7, 12, patch)  # one more value of one parameter: no cell is alone now
    groups = fit(mixing, maps, patches={"dust.beta": 1, "dust.temp": 1, "sync.beta": extra})
    others = np.delete(np.arange(12), patch[7])
    for name in cells.free:
        one, other = (np.asarray(f.values[name])[others] for f in (cells, groups))
        assert np.max(np.abs(one - other) / np.asarray(cells.std[name])[others]) < 1e-5
        np.testing.assert_allclose(np.asarray(groups.std[name])[others], np.asarray(cells.std[name])[others], rtol=1e-5)


def test_compressed_pixels_say_the_same(mixing, small):
    """Noise given pixel by pixel takes every pixel by itself; equal noise takes as many columns as channels."""
    maps, _ = small
    weights = 1 / np.asarray(sky.LITEBIRD.sigma(NPIX, "QU")) ** 2
    each = np.broadcast_to(weights[:, :, None], maps.shape)
    one, other = fit(mixing, maps, inv_n=weights), fit(mixing, maps, inv_n=each)
    assert float(distance(one, stack(other.values))[0]) < 1e-5
    np.testing.assert_allclose(one.cost, other.cost, rtol=1e-10)
    np.testing.assert_allclose(one.covariance[..., 0], other.covariance[..., 5], rtol=1e-5)


def test_dense_noise_without_correlation_is_diagonal(mixing, small):
    maps, _ = small
    weights = 1 / np.asarray(sky.LITEBIRD.sigma(NPIX, "QU")) ** 2
    dense = np.stack([np.diag(w) for w in weights.T])
    one, other = fit(mixing, maps, inv_n=weights), fit(mixing, maps, inv_n=dense)
    assert float(distance(one, stack(other.values))[0]) < 1e-5
    np.testing.assert_allclose(one.errors, other.errors, rtol=1e-7)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_data_and_noise_do_not_matter(mixing, small, scale):
    maps, _ = small
    weights = 1 / np.asarray(sky.LITEBIRD.sigma(NPIX, "QU")) ** 2
    one, other = fit(mixing, maps, inv_n=weights), fit(mixing, maps * scale, inv_n=weights / scale**2)
    assert float(distance(one, stack(other.values))[0]) < 1e-8
    np.testing.assert_array_equal(one.steps, other.steps)


def test_orders_of_pixels_agree(mixing, small):
    maps, _ = small
    order = nest_to_ring(NSIDE)
    assert np.array_equal(order[ring_to_nest(NSIDE)], np.arange(NPIX))
    ring = fit(mixing, maps, patches=1)
    nest = fit(mixing, maps[:, :, order], patches=1, nest=True)
    np.testing.assert_allclose(nest.parameter_map("dust.beta"), ring.parameter_map("dust.beta")[order], rtol=1e-9)


class TestMasks:
    def test_unseen_masked_and_absent_pixels_are_the_same(self, mixing, small):
        maps, _ = small
        mask = np.arange(NPIX) % 5 != 0
        masked = fit(mixing, maps, mask=mask)
        unseen = fit(mixing, jnp.where(mask, maps, compsep.UNSEEN))
        nan_below = fit(mixing, jnp.where(mask, maps, jnp.nan), mask=mask)
        cut = compsep.separate(mixing, sky.LITEBIRD, maps[:, :, mask], inv_n=1 / sky.LITEBIRD.sigma(NPIX, "QU") ** 2)
        for other in (unseen, nan_below, cut):
            np.testing.assert_allclose(stack(other.values), stack(masked.values), rtol=1e-12)
        assert np.array_equal(np.isnan(masked.amplitudes[1, 0]), ~mask)
        assert np.array_equal(masked.used, mask)

    def test_nan_where_there_is_weight_is_named(self, mixing, small):
        maps, _ = small
        with pytest.raises(ValueError, match=r"not finite in 1 pixels \(the first is 9\)"):
            fit(mixing, maps.at[3, 0, 9].set(jnp.nan))

    def test_a_band_without_weight_may_hold_anything(self, mixing, small):
        maps, _ = small
        weights = (1 / sky.LITEBIRD.sigma(NPIX, "QU") ** 2).at[4].set(0)
        keep = np.delete(np.arange(15), 4)
        blank = fit(mixing, maps.at[4].set(jnp.nan), inv_n=weights)
        few = compsep.separate(mixing, sky.LITEBIRD.frequency[keep], maps[keep], inv_n=weights[keep])
        np.testing.assert_allclose(stack(blank.values), stack(few.values), rtol=1e-8)

    def test_nothing_left_is_named(self, mixing, small):
        with pytest.raises(ValueError, match="no pixel is left"):
            fit(mixing, small[0], mask=np.zeros(NPIX, bool))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"patches": 8}, "power of two up to 4"),
        ({"patches": 3}, "power of two up to 4"),
        ({"patches": {"dust.bta": 2}}, "no free parameter 'dust.bta'; did you mean 'dust.beta'"),
        ({"patches": np.zeros(7, int)}, r"patches of dust.beta should be 192 integers"),
        ({"free": ("dust.tmp",)}, "no parameter 'dust.tmp'; did you mean 'dust.temp'"),
        ({"units": "uK_RJ"}, r"component 'cmb' is in K_CMB, but the maps are in uK_RJ"),
        ({"inv_n": np.ones(14)}, "the inverse noise has shape"),
        ({"inv_n": -np.ones(15)}, "negative variance"),
        ({"mask": np.ones(5, bool)}, r"mask should be bool\[192\]"),
        ({"bounds": {"dust.beta": (2, 1)}}, "lies above the upper bound"),
    ],
)
def test_wrong_choices_are_named(mixing, small, choices, message):
    with pytest.raises(ValueError, match=message):
        fit(mixing, small[0], **choices)


def test_maps_of_another_shape_are_named(mixing, small):
    with pytest.raises(ValueError, match=r"should have shape \(f, s, pixel\) with f = 15"):
        fit(mixing, small[0][:14])
    with pytest.raises(ValueError, match="make no HEALPix map"):
        fit(mixing, small[0][:, :, :100], patches=1, inv_n=np.ones(15))


@pytest.fixture(scope="module")
def tiny():
    """(frequencies, maps, standard deviations) of 48 pixels in a few channels."""
    maps, _ = sky.made(48, "QU")
    return sky.LITEBIRD.frequency[sky.FEW], maps[sky.FEW], sky.LITEBIRD.sigma(48, "QU")[sky.FEW]


@pytest.mark.slow
def test_realisations_share_one_trace(mixing, tiny):
    """Many noise realisations of a patch-wise fit under vmap; each the same as by itself."""
    nu, maps, sigma = tiny
    noise = jax.random.normal(jax.random.key(1), (8, *maps.shape)) * sigma[None, :, :, None]
    traces = []

    def alone(maps):
        return compsep.separate(mixing, nu, maps, inv_n=1 / sigma**2, patches=1)

    @jax.jit
    def fits(many):
        def one(maps):
            traces.append(1)
            found = alone(maps)
            return found.values, found.std, found.success

        return jax.vmap(one)(many)

    batches = maps[None] + noise, maps[None] - noise
    for batch in batches:
        values, std, success = fits(batch)
        assert bool(success.all())
        single = alone(batch[3])
        for name in single.free:
            away = np.asarray(values[name][3] - single.values[name]) / np.asarray(single.std[name])
            assert np.max(np.abs(away)) < 1e-5
            np.testing.assert_allclose(std[name][3], single.std[name], rtol=1e-4)
    assert len(traces) == 1


@pytest.mark.slow
def test_derivative_with_respect_to_depths(mixing, tiny):
    """Implicit differentiation of a global fit against central differences."""
    nu, maps, sigma = tiny

    @jax.jit
    @jax.value_and_grad
    def beta(scale):
        found = compsep.separate(mixing, nu, maps, inv_n=1 / (sigma * scale[:, None]) ** 2, free=("*.beta",))
        return found.values["dust.beta"][0]

    one = jnp.ones(len(sky.FEW))
    _, gradient = beta(one)
    assert np.all(np.abs(gradient) > 0)
    for channel in range(len(sky.FEW)):
        step = jnp.zeros(len(sky.FEW)).at[channel].set(1e-3)
        expected = (beta(one + step)[0] - beta(one - step)[0]) / 2e-3
        np.testing.assert_allclose(gradient[channel], expected, rtol=1e-4, atol=1e-9)


def test_jit_of_vmap_of_grad(mixing, tiny):
    """A fitted value by depths and data, all in one program: gradients are those of central differences."""
    nu, maps, sigma = tiny

    def beta(scale, maps):
        found = compsep.separate(mixing, nu, maps, inv_n=1 / (sigma * scale[:, None]) ** 2, free=("*.beta",))
        return found.values["dust.beta"][0]

    run = jax.jit(jax.vmap(jax.value_and_grad(beta, (0, 1))))
    f = len(sky.FEW)
    datum = float(sigma[0, 0])
    steps = [(1e-3, jnp.zeros(f).at[k].set(1e-3), jnp.zeros(maps.shape)) for k in range(f)]
    steps += [(datum, jnp.zeros(f), jnp.zeros(maps.shape).at[k, 0, 1].set(datum)) for k in range(2)]
    one = jnp.ones(f)
    scales = jnp.stack([one, *(one + sign * step for _, step, _ in steps for sign in (1, -1))])
    skies = jnp.stack([maps, *(maps + sign * step for _, _, step in steps for sign in (1, -1))])
    values, (by_scale, by_datum) = run(scales, skies)
    differences = [
        (up - down) / (2 * step) for (step, *_), up, down in zip(steps, values[1::2], values[2::2], strict=True)
    ]
    gradients = [*by_scale[0], by_datum[0, 0, 0, 1], by_datum[0, 1, 0, 1]]
    assert np.all(np.abs(np.array(gradients)) > 0)
    np.testing.assert_allclose(gradients, differences, rtol=1e-3, atol=1e-8)
