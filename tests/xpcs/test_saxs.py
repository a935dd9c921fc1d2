"""SAXS curves, regions, backgrounds, series, master curves and calibration, against loops and closed forms."""

import csv

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Counter, close, quick_jit
from scipy import signal

import jaxsci as js
from jaxsci.xpcs import (
    Axis,
    Curve,
    Exposure,
    Region,
    Rings,
    TransmissionGeometry,
    average_runs,
    calibrate,
    correlation,
    find_centre,
    intensity_spectrum,
    master_curve,
    mean_by_bin,
    normalise,
    normalise_g2,
    partition,
    region_mean,
    ring,
    saxs,
    saxs_over_time,
    stability,
    steady,
    subtract_background,
    typical,
    wedge,
)

SHAPE = (21, 25)
GEOMETRY = TransmissionGeometry(10.0, (10.0, 12.0), 1000.0, 0.1, SHAPE)
USED = np.ones(SHAPE, bool)
USED[2:5, 3:9] = False
RNG = np.random.default_rng(0)
IMAGE = RNG.poisson(30.0, SHAPE).astype(float)
IMAGE[15, 7] = np.nan
FOUND = partition(GEOMETRY, USED, [Axis("q", 5), Axis("phi", 3)])


def bins(labels):
    return [np.asarray(labels.labels) == b + 1 for b in range(labels.bins)]


def test_a_curve_is_that_of_a_loop():
    curve = saxs(IMAGE, FOUND.dynamic)
    values = [IMAGE[inside & np.isfinite(IMAGE)] for inside in bins(FOUND.dynamic)]
    close(curve.intensity, np.array([v.mean() for v in values]), 1e-14)
    close(curve.error, np.array([v.std(ddof=1) / np.sqrt(v.size) for v in values]), 1e-12)
    np.testing.assert_array_equal(curve.pixels, [v.size for v in values])
    close(curve.x, FOUND.q, 0, 0)


def test_a_bin_without_finite_pixels_is_nan_and_one_pixel_has_no_error():
    image = IMAGE.copy()
    inside = bins(FOUND.dynamic)
    image[inside[2]] = np.nan
    image[inside[4]] = np.nan
    image[tuple(np.argwhere(inside[4])[0])] = 7.0
    curve, whole = saxs(image, FOUND.dynamic), saxs(IMAGE, FOUND.dynamic)
    assert np.isnan(curve.intensity[2])
    assert float(curve.intensity[4]) == 7.0
    assert np.isnan(curve.error[4])
    others = np.delete(np.arange(FOUND.dynamic.bins), [2, 4])
    close(curve.intensity[others], whole.intensity[others], 0, 0)


def test_masked_pixels_change_nothing():
    spoilt = np.where(USED, IMAGE, 1e9)
    close(saxs(spoilt, FOUND.static).intensity, saxs(IMAGE, FOUND.static).intensity, 0, 0)


@pytest.mark.parametrize("precision", [jnp.float32, jnp.float64])
def test_means_map_over_frames_and_trace_once(precision):
    frames = jnp.asarray(RNG.poisson(5.0, (4, *SHAPE)), precision)
    counted = Counter(saxs_over_time)
    over = jax.jit(counted)
    found = over(frames, FOUND.dynamic)
    over(frames + 1, FOUND.dynamic)
    assert counted.traces == 1
    assert found.dtype == precision
    close(found, np.stack([[np.asarray(f)[inside].mean() for inside in bins(FOUND.dynamic)] for f in frames]), 1e-5)
    close(quick_jit(jax.vmap(mean_by_bin, (0, None)))(frames, FOUND.dynamic), found, 1e-6)
    slope = quick_jit(jax.grad(lambda f: jnp.nansum(mean_by_bin(f, FOUND.dynamic)[1])))(frames[0])
    close(slope, np.where(bins(FOUND.dynamic)[1], 1 / bins(FOUND.dynamic)[1].sum(), 0), 1e-6)


def test_wedges_and_rings_come_round():
    q, phi = (np.asarray(GEOMETRY.map(name)) for name in ("q", "phi"))
    curve = wedge(IMAGE, GEOMETRY, USED, 150.0, 210.0, bins=6)
    inside = USED & ((phi >= 150) | (phi <= -150))
    edges = np.linspace(q[inside].min(), q[inside].max(), 7)
    place = np.clip(np.searchsorted(edges, q, side="right") - 1, 0, 5)
    known = [IMAGE[inside & (place == k) & np.isfinite(IMAGE)] for k in range(6)]
    close(curve.intensity, np.array([v.mean() for v in known]), 1e-13)
    close(wedge(IMAGE, GEOMETRY, USED, -210.0, -150.0, bins=6), curve, 0, 0)
    around = ring(IMAGE, GEOMETRY, USED, 0.002, 0.004, bins=8)
    inside = USED & (q >= 0.002) & (q <= 0.004) & np.isfinite(IMAGE)
    sector = np.floor((phi + 180) % 360 / 45).astype(int)
    close(around.intensity, np.array([IMAGE[inside & (sector == k)].mean() for k in range(8)]), 1e-13)
    close(around.x, np.arange(-157.5, 180, 45), 1e-13)


def test_an_empty_sector_of_a_ring_is_nan():
    used = USED & (np.asarray(GEOMETRY.phi()) > 0)
    around = ring(IMAGE, GEOMETRY, used, 0.002, 0.004, bins=4)
    np.testing.assert_array_equal(np.isnan(around.intensity), [True, True, False, False])
    np.testing.assert_array_equal(np.asarray(around.pixels) == 0, [True, True, False, False])
    with pytest.raises(ValueError, match="no pixel is used"):
        wedge(IMAGE, GEOMETRY, used, -90.0, -80.0)


def test_regions_are_mapped_over():
    q, phi = GEOMETRY.q(), GEOMETRY.phi()
    limits = [
        jnp.asarray(v) for v in ([0.0, 0.002, 0.9], [0.003, 0.005, 1.0], [-180.0, 170.0, 0.0], [180.0, 190.0, 9.0])
    ]
    regions = jax.vmap(Region)(*limits)
    found = jax.jit(jax.vmap(region_mean, (None, None, None, None, 0)))(
        jnp.asarray(IMAGE), q, phi, jnp.asarray(USED), regions
    )
    good = USED & np.isfinite(IMAGE)
    pie = good & (q <= 0.003)
    cut = good & (q >= 0.002) & (q <= 0.005) & ((phi - 170) % 360 <= 20)
    close(found[:2], np.array([IMAGE[pie].mean(), IMAGE[cut].mean()]), 1e-13)
    assert np.isnan(found[2])


def test_the_background_is_subtracted_with_transmissions_and_fluxes():
    pure = np.array([5.0, 3.0, 1.0])
    solvent = np.array([1.0, 1.0, 2.0])
    x, pixels = jnp.asarray([0.1, 0.2, 0.3]), jnp.full(3, 10.0)
    sample = Curve(x, jnp.asarray(0.8 * 1e3 * (pure + 0.95 * solvent)), jnp.full(3, 8.0), pixels)
    empty = Curve(x, jnp.asarray(0.9 * 2e3 * solvent), jnp.full(3, 9.0), pixels)
    found = subtract_background(sample, empty, Exposure(0.8, 1e3), Exposure(0.9, 2e3), 0.95)
    close(found.intensity, pure, 1e-14)
    close(found.error, np.full(3, np.hypot(8 / 800, 0.95 * 9 / 1800)), 1e-14)
    with pytest.raises(ValueError, match="3 of q and 15 of q"):
        subtract_background(sample, saxs(IMAGE, FOUND.dynamic), Exposure(), Exposure())


@pytest.mark.parametrize(
    ("how", "factor"), [("none", 1), ("q2", "x2"), ("q4", "x4"), ("first", 1 / 4), ("mean", 1 / 3)]
)
def test_normalisations(how, factor):
    curve = Curve(jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([jnp.nan, 4.0, 2.0]), jnp.full(3, 0.5), jnp.ones(3))
    factor = {"x2": np.array([1, 4, 9.0]), "x4": np.array([1, 16, 81.0])}.get(factor, factor)
    found = normalise(curve, how)
    close(found.intensity[1:], (factor * np.array([np.nan, 4.0, 2.0]))[1:], 1e-14)
    close(found.error, factor * np.full(3, 0.5), 1e-14)
    with pytest.raises(ValueError, match=r"no normalisation 'frist'.*did you mean 'first'"):
        normalise(curve, "frist")


def test_a_curve_is_written_with_all_its_digits(tmp_path):
    curve = saxs(IMAGE, FOUND.dynamic)
    curve.write_csv(tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["q", "intensity", "error", "pixels"]
    assert [float(row["intensity"]) for row in rows] == curve.intensity.tolist()


def test_an_image_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="an image of shape"):
        saxs(IMAGE[:, :5], FOUND.dynamic)
    with pytest.raises(ValueError, match="an image of shape"):
        wedge(IMAGE[:, :5], GEOMETRY, USED, 0.0, 90.0)


# --- series -----------------------------------------------------------------------------------------------------------


def test_segments_tell_a_drift_from_noise():
    steady_, drifting = RNG.normal(100, 1, (400, 2)), RNG.normal(100, 1, 400) * (1 + 0.05 * np.arange(400) / 400)
    series = np.column_stack([steady_, drifting])
    series[7, 0] = np.nan
    found = stability(jnp.asarray(series), 8)
    parts = np.split(series, 8)
    close(found.means, np.stack([np.nanmean(p, axis=0) for p in parts]), 1e-13)
    count = np.stack([np.isfinite(p).sum(0) for p in parts])
    close(found.errors, np.stack([np.nanstd(p, axis=0, ddof=1) for p in parts]) / np.sqrt(count), 1e-12)
    assert np.all(found.chi2[:2] < 4)
    assert float(found.chi2[2]) > 50
    close(found.drift[2], 0.05 * 7 / 8, 0.2)
    with pytest.raises(ValueError, match="make no 9 segments"):
        stability(jnp.ones((10, 1)), 9)


@pytest.mark.parametrize("n", [64, 65])
def test_the_spectrum_is_scipys_and_keeps_the_variance(n):
    series = RNG.normal(10, 1, n) + np.sin(2 * np.pi * 5 * np.arange(n) / n)
    found = intensity_spectrum(jnp.asarray(series), 0.1)
    f, power = signal.periodogram(series, fs=10.0, detrend="constant")
    close(found.frequencies, f, 1e-13)
    close(found.power, power, 1e-10, 1e-20)
    close(jnp.sum(found.power) * (found.frequencies[1]), series.var(), 1e-12)
    assert int(jnp.argmax(found.power)) == 5


def test_a_lost_frame_does_not_spoil_a_spectrum():
    series = jnp.asarray(np.sin(2 * np.pi * 5 * np.arange(64) / 64)).at[9].set(jnp.nan)
    assert int(jnp.argmax(intensity_spectrum(series, 1.0).power)) == 5


def test_g2_is_normalised_in_one_batch():
    tau = np.geomspace(1, 1e4, 40)
    g2 = np.stack([(1 + b * np.exp(-2 * tau / t)) * s for b, t, s in [(0.3, 20, 1.02), (0.1, 50, 0.97)]])
    g2[1, -2] = np.nan
    lines = normalise_g2(jnp.asarray(g2))
    close(lines[:, 0], np.array([1 + 0.3 * np.exp(-0.1), 1 + 0.1 * np.exp(-0.04)]), 1e-10)
    shares = normalise_g2(jnp.asarray(g2), "contrast")
    close(shares[:, 0], np.ones(2), 1e-12)
    close(shares[0], np.exp(-2 * (tau - 1) / 20), 1e-6, 1e-12)
    with pytest.raises(ValueError, match="no scale 'base'"):
        normalise_g2(jnp.asarray(g2), "base")
    with pytest.raises(ValueError, match="1 to 40 delays"):
        normalise_g2(jnp.asarray(g2), tail=41)


def test_correlations_leave_out_what_is_nan():
    series = RNG.normal(size=(3, 50))
    series[1] += 0.8 * series[0]
    close(correlation(jnp.asarray(series)), np.corrcoef(series), 1e-12)
    series[0, 4] = np.nan
    series[2, :49] = np.nan
    found = correlation(jnp.asarray(series))
    close(found[0, 1], np.corrcoef(np.delete(series[:2], 4, axis=1))[0, 1], 1e-12)
    assert np.isnan(found[2]).all()
    middle, scatter = typical(jnp.asarray([[1.0, jnp.nan], [2.0, 3.0], [9.0, 5.0]]))
    close(middle, np.array([2.0, 4.0]), 0, 0)
    close(scatter, 1.4826 * np.array([1.0, 1.0]), 1e-14)


def test_runs_that_stand_apart_are_left_out():
    runs = 1 + 0.1 * RNG.random((9, 6))
    runs[3] += 5
    runs[5, 2] = np.nan
    baseline = runs.mean(axis=1)
    baseline[5] = np.nanmean(runs[5])
    found = average_runs(runs, statistic=baseline)
    np.testing.assert_array_equal(found.kept, np.arange(9) != 3)
    good = np.delete(runs, 3, axis=0)
    close(found.mean, np.nanmean(good, axis=0), 1e-13)
    count = np.isfinite(good).sum(axis=0)
    close(found.error, np.nanstd(good, axis=0, ddof=1) / np.sqrt(count), 1e-12)
    np.testing.assert_array_equal(found.runs, count)
    assert bool(steady(jnp.full(4, 1.3)).all())


def test_runs_are_weighted_by_their_errors():
    found = average_runs(np.array([[1.0], [4.0]]), np.array([[1.0], [2.0]]))
    close(found.mean, np.array([(1 + 4 / 4) / 1.25]), 1e-14)
    close(found.error, np.array([1 / np.sqrt(1.25)]), 1e-14)


def test_no_run_left_is_a_failure():
    with pytest.raises(ValueError, match="none of 3 runs is left"):
        average_runs(np.ones((3, 2)), kept=np.zeros(3, bool))
    with pytest.raises(ValueError, match="none of 3 runs is left"):
        average_runs(np.ones((3, 2)), statistic=np.full(3, np.nan))


# --- master curves ----------------------------------------------------------------------------------------------------

SHIFTS, SCALES = np.array([1.0, 2.0, 7.0]), np.array([1.0, 0.3, 4.0])


def copies(shifts, scales, noise=0.0):
    x = np.geomspace(1, 100, 60)[None] / np.array([1.0, 1.5, 5.0])[:, None]
    y = scales[:, None] * (1 + 5 / (1 + (shifts[:, None] * x / 9) ** 2)) * np.exp(-0.01 * shifts[:, None] * x)
    return x, y * (1 + noise * RNG.normal(size=y.shape))


@pytest.mark.parametrize("free", [("scale",), ("shift", "scale")])
def test_factors_of_copies_are_recovered(free):
    shifts = SHIFTS if "shift" in free else np.ones(3)
    scales = SCALES if "scale" in free else np.ones(3)
    found = master_curve(*copies(shifts, scales), free=free)
    close(found.shift, shifts, 1e-4)
    close(found.scale, scales, 1e-4)
    order = np.argsort(found.x.ravel())
    assert np.abs(np.diff(np.log(np.asarray(found.y).ravel()[order]))).max() < 0.3


def test_factors_of_copies_have_errors():
    """Over twelve sets of noise the distances in units of the errors scatter as a Gaussian's do."""
    away = []
    for _ in range(12):
        x, y = copies(SHIFTS, SCALES, noise=0.01)
        found = master_curve(x, y, 0.01 * y)
        away.append(np.log(np.asarray(found.shift) / SHIFTS)[1:] / np.asarray(found.log_shift_error)[1:])
        away.append(np.log(np.asarray(found.scale) / SCALES)[1:] / np.asarray(found.log_scale_error)[1:])
    assert 0.6 < np.sqrt(np.mean(np.square(away))) < 1.5
    assert np.all(np.asarray(found.log_shift_error)[1:] < 0.03)


def test_copies_that_cannot_be_compared_are_refused():
    x, y = copies(SHIFTS, SCALES)
    with pytest.raises(ValueError, match="curve 1 has 3 points above zero"):
        master_curve(x, np.where((np.arange(3) == 1)[:, None] & (np.arange(60) > 2), -1.0, y))
    with pytest.raises(ValueError, match="overlap nowhere"):
        master_curve(x * np.array([1, 1e6, 1])[:, None], y, free=("scale",))
    with pytest.raises(ValueError, match="'shift', 'scale' or both"):
        master_curve(x, y, free=("tau",))
    with pytest.raises(ValueError, match="should both have shape"):
        master_curve(x[0], y[0])


# --- calibration ------------------------------------------------------------------------------------------------------

TRUTH = TransmissionGeometry(10.0, (24.3, 31.6), 2000.0, 0.2, (56, 60))
PIXELS = jnp.asarray(np.argwhere(np.ones((56, 60), bool)).astype(float))


def rings_image(top=60.0, floor=4.0, seed=0):
    step = 0.007
    model = Rings(TRUTH, jnp.full(3, top), 0.0008, floor, step * jnp.arange(1.0, 4))
    expected = np.asarray(model(PIXELS)).reshape(56, 60)
    return np.random.default_rng(seed).poisson(expected).astype(float), np.asarray(model.rings)


KEPT = np.ones((56, 60), bool)
KEPT[20:28, 30:34] = False
KEPT[10, 10] = False


def started():
    return eqx.tree_at(
        lambda g: (g.centre, g.distance), TRUTH, (TRUTH.centre + jnp.asarray([1.7, -1.4]), TRUTH.distance * 1.04)
    )


def test_centre_and_distance_are_found_within_their_errors():
    image, rings = rings_image()
    image[10, 10] = np.nan
    found = calibrate(started(), image, rings, KEPT)
    std = found.solution.std
    centre = np.asarray(found.geometry.centre - TRUTH.centre) / np.asarray(std["geometry.centre"])
    assert np.all(np.abs(centre) < 4)
    assert np.all(np.asarray(std["geometry.centre"]) < 0.05)
    assert abs(float(found.geometry.distance) - 2000.0) < 4 * float(std["geometry.distance"]) < 20.0
    assert float(found.geometry.energy) == 10.0


def test_weights_from_the_counts_would_pull_the_answer():
    """With weights 1/counts the background is many errors off; with the variance of the model it is not."""
    wrong, right = [], []
    for seed in range(4):
        image, rings = rings_image(8.0, 3.0, seed)
        found = calibrate(TRUTH, image, rings, KEPT)
        right.append(
            (float(js.get(found.solution.model, "background")) - 3.0) / float(found.solution.std["background"])
        )
        counts = jnp.asarray(image[KEPT])
        data = js.Dataset(PIXELS[KEPT.ravel()], counts, js.Diagonal(jnp.sqrt(jnp.maximum(counts, 1.0))))
        names = ["geometry.centre", "geometry.distance", "heights", "width", "background"]
        biased = js.fit(found.solution.model, data, free=names)
        wrong.append((float(biased.model.background) - 3.0) / float(biased.std["background"]))
    assert abs(np.mean(right)) < 3 / np.sqrt(4)
    assert abs(np.mean(wrong)) > 10


def test_an_image_without_the_rings_is_refused():
    image, rings = rings_image()
    with pytest.raises(ValueError, match="none of the rings lies on the detector"):
        calibrate(started(), image, rings * 100)
    with pytest.raises(ValueError, match="fits no geometry"):
        calibrate(started(), image[:4], rings)
    with pytest.raises(ValueError, match="swingg"):
        calibrate(started(), image, rings, free=("swingg",))


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_centre_of_symmetry_is_found(shift):
    """Within a hundredth of a pixel without noise, off the middle, with a beam stop and a dead module."""
    v, h = np.indices((56, 60)).astype(float)
    r = np.hypot(v - 24.5 - shift / 2, h - 31.5 + shift)
    image = 1000 / (1 + (r / 5) ** 2) + 20 * np.exp(-(((r - 15) / 2) ** 2))
    used = np.ones((56, 60), bool)
    used[22:28, :40] = False
    used[40:44] = False
    image[0, 0] = np.nan
    close(find_centre(image, used), np.array([24.5 + shift / 2, 31.5 - shift]), 0, 0.05)
    noisy, _ = rings_image()
    close(find_centre(noisy), np.asarray(TRUTH.centre), 0, 0.2)
    with pytest.raises(ValueError, match="no scatter"):
        find_centre(np.ones((5, 5)))
