"""Gaussian filter and splines: SciPy's numbers at every border, derivatives, one trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Counter, close, derivative, quick_jit
from scipy import interpolate, ndimage

from jaxsci.xpcs import gaussian_filter, interp1d

RNG = np.random.default_rng(0)
MODES = ("reflect", "constant", "nearest", "mirror", "wrap")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "sigma"), [((9, 7), 1.3), ((9, 7), (0.0, 2.0)), ((4,), 3.0)])
def test_the_filter_is_scipys(mode, shape, sigma):
    """Also where the kernel is longer than the image: 25 pixels over 4."""
    image = RNG.normal(size=shape)
    known = ndimage.gaussian_filter(image, sigma, mode=mode, cval=0.7)
    close(gaussian_filter(jnp.asarray(image), sigma, mode=mode, cval=0.7), known, 0, 1e-14)


def test_truncation_and_radius_are_scipys():
    image = RNG.normal(size=20)
    close(
        gaussian_filter(jnp.asarray(image), 1.5, truncate=2.2), ndimage.gaussian_filter(image, 1.5, truncate=2.2), 1e-12
    )
    close(gaussian_filter(jnp.asarray(image), 1.5, radius=7), ndimage.gaussian_filter(image, 1.5, radius=7), 1e-12)


def test_the_filter_in_single_precision():
    image = RNG.normal(size=(9, 7)).astype(np.float32)
    found = gaussian_filter(jnp.asarray(image), 1.3)
    assert found.dtype == jnp.float32
    close(found, ndimage.gaussian_filter(image.astype(float), 1.3), 0, 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_the_filter_is_its_own_transpose(mode):
    """<w, F x> has the gradient F^T w; and a sum over the whole is kept where the border repeats pixels once each."""
    image, weights = (jnp.asarray(RNG.normal(size=(6, 5))) for _ in range(2))
    slope = quick_jit(jax.grad(lambda x: jnp.vdot(weights, gaussian_filter(x, 1.2, mode=mode))))(image)
    basis = jnp.eye(30).reshape(30, 6, 5)
    columns = quick_jit(jax.vmap(lambda e: gaussian_filter(e, 1.2, mode=mode)))(basis)
    close(slope.ravel(), columns.reshape(30, 30) @ weights.ravel(), 1e-12, 1e-14)
    if mode in ("reflect", "wrap"):
        close(gaussian_filter(image, 1.2, mode=mode).sum(), image.sum(), 1e-12)


def test_the_width_can_be_differentiated():
    image = jnp.asarray(RNG.normal(size=12))
    total = quick_jit(lambda s: jnp.sum(gaussian_filter(image, s, radius=6) ** 2))
    slope = quick_jit(jax.grad(lambda s: jnp.sum(gaussian_filter(image, s, radius=6) ** 2)))
    close(slope(1.3), derivative(total, 1.3, 1e-3), 1e-8)
    with pytest.raises(ValueError, match="give radius="):
        jax.grad(lambda s: jnp.sum(gaussian_filter(image, s)))(1.3)


def test_the_filter_maps_and_traces_once():
    images = jnp.asarray(RNG.normal(size=(3, 6, 5)))
    counted = Counter(lambda x: gaussian_filter(x, 1.0))
    batch = jax.jit(jax.vmap(counted))
    found = batch(images)
    batch(images + 1)
    assert counted.traces == 1
    close(found, jnp.stack([gaussian_filter(image, 1.0) for image in images]), 1e-14, 1e-15)


X = np.array([0.0, 0.3, 1.0, 1.1, 2.5, 4.0, 4.2])
AT = np.concatenate([X, np.linspace(0, 4.2, 23)])


@pytest.mark.parametrize("n", [3, 4, 5, 7])
@pytest.mark.parametrize("ends", ["not-a-knot", "natural"])
def test_the_spline_is_scipys(n, ends):
    x, y = X[:n], RNG.normal(size=n)
    at = AT[x[-1] >= AT]
    known = interpolate.CubicSpline(x, y, bc_type=ends)(at)
    close(interp1d(jnp.asarray(at), jnp.asarray(x), jnp.asarray(y), ends=ends), known, 1e-11, 1e-13)
    if ends == "not-a-knot" and n > 3:
        close(interpolate.interp1d(x, y, kind="cubic")(at), known, 1e-11, 1e-13)


def test_a_cubic_is_its_own_spline():
    cubic = lambda t: 2 - t + 0.5 * t**2 - 0.3 * t**3  # noqa: E731
    close(interp1d(jnp.asarray(AT), jnp.asarray(X), cubic(jnp.asarray(X))), cubic(AT), 1e-11, 1e-12)
    line = interp1d(jnp.asarray(AT), jnp.asarray(X), jnp.asarray(X) ** 2, kind="linear")
    close(line, np.interp(AT, X, X**2), 1e-13)


def test_outside_its_points_a_curve_is_unknown():
    found = interp1d(jnp.asarray([-0.1, 0.0, 4.2, 4.3]), jnp.asarray(X), jnp.asarray(X))
    np.testing.assert_array_equal(np.isnan(found), [True, False, False, True])


def test_derivatives_of_a_spline():
    y, at = jnp.asarray(RNG.normal(size=7)), jnp.asarray([0.2, 1.05, 3.0])
    for k, given in enumerate((at, jnp.asarray(X), y)):
        base = [at, jnp.asarray(X), y]

        def total(value, k=k, base=base):
            return jnp.sum(interp1d(*base[:k], value, *base[k + 1 :]) ** 2)

        unit = jnp.asarray(RNG.normal(size=given.shape))
        slope = jnp.vdot(quick_jit(jax.grad(total))(given), unit)
        along = quick_jit(lambda t, given=given, unit=unit, total=total: total(given + t * unit))
        close(slope, derivative(along, 0.0, 1e-4), 1e-7)


def test_what_is_no_filter_is_named():
    with pytest.raises(ValueError, match=r"no border 'reflekt'.*did you mean 'reflect'"):
        gaussian_filter(jnp.zeros(3), 1.0, mode="reflekt")
    with pytest.raises(ValueError, match="one for each of 2 axes"):
        gaussian_filter(jnp.zeros((3, 3)), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="zero or more"):
        gaussian_filter(jnp.zeros(3), -1.0)
    with pytest.raises(ValueError, match="two points or more"):
        interp1d(jnp.zeros(1), jnp.zeros(1), jnp.zeros(1))
    with pytest.raises(ValueError, match="should rise"):
        interp1d(jnp.zeros(1), jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(ValueError, match="kind is cubic or linear"):
        interp1d(jnp.zeros(1), jnp.arange(3.0), jnp.zeros(3), kind="quintic")
