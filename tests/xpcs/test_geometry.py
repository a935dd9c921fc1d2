"""Maps of q and phi: another program's, closed forms, symmetries, gradients, and the files of pyFAI."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Counter, close, derivative, quick_jit

import jaxsci as js
from jaxsci.xpcs import ReflectionGeometry, TransmissionGeometry, cached_map, q_by_sine, read_poni, write_poni

TRANSMISSION = {"q": "q", "phi": "phi", "TTH": "two_theta", "qx": "qx", "qy": "qy"}
REFLECTION = {**TRANSMISSION, "qz": "qz", "qr": "qr", "tth": "in_plane", "alpha_f": "alpha_f"}


def small(**changes):
    given = {"energy": 10.9, "centre": (4.3, 6.2), "distance": 300.0, "pixel_size": 0.5, "shape": (9, 12)} | changes
    return TransmissionGeometry(**given)


def grazing(**changes):
    given = {"energy": 7.35, "centre": (7.3, 6.2), "distance": 300.0, "pixel_size": 0.5, "shape": (9, 12)}
    return ReflectionGeometry(**(given | {"alpha_i": 0.4} | changes))


# rtol is relative to the largest value of the map; the other program's reflection leaves small angles out
@pytest.mark.parametrize(("case", "names", "tol"), [(0, TRANSMISSION, 1e-7), (1, TRANSMISSION, 1e-7),
                                                    (2, REFLECTION, 1e-6), (3, REFLECTION, 1e-6)])  # fmt: skip
def test_maps_are_those_of_another_program(golden, golden_geometry, case, names, tol):
    geometry = golden_geometry(case)
    for theirs, ours in names.items():
        known = golden[f"c{case}_{theirs}"].astype(float)
        atol, rtol = (1e-5, 1e-4) if ours == "phi" else (tol, 10 * tol)
        assert np.all(np.abs(geometry.map(ours) - known) <= atol + rtol * np.abs(known)), ours


def test_q_keeps_its_digits_near_the_beam():
    """r / L = 1e-7: an arccos would find zero, or one of two values."""
    geometry = small(centre=(0.0, 0.0), distance=1e6, pixel_size=0.1, shape=(1, 4))
    radius = 0.1 * np.arange(4)
    known = 2 * float(geometry.k0) * np.sin(np.arctan2(radius, 1e6) / 2)
    close(geometry.q()[0], known, 1e-14)


def test_q_is_the_length_of_its_components():
    for geometry in (small(swing=(12.0, -7.0), roll=5.0), grazing(swing=(3.0, 8.0), orientation=30.0)):
        parts = [geometry.map(name) for name in ("qx", "qy", "qz")]
        close(geometry.q(), jnp.sqrt(sum(part * part for part in parts)), 1e-12)
        close(geometry.q(), 2 * geometry.k0 * jnp.sin(jnp.deg2rad(geometry.two_theta()) / 2), 1e-12)


def test_grazing_incidence_at_angle_zero_is_transmission():
    through, along = small(swing=(2.0, 5.0)), grazing(alpha_i=0.0, energy=10.9, centre=(4.3, 6.2), swing=(2.0, 5.0))
    for a, b in {"q": "q", "phi": "phi", "two_theta": "two_theta", "qx": "qy", "qy": "qz", "qz": "qx"}.items():
        close(along.map(b), through.map(a), 1e-12, 1e-12)


def test_grazing_angles_are_exact():
    """sin(alpha_f) and the angle in the plane follow from the ray by projecting it onto the surface's own axes."""
    geometry = grazing()
    tilt = np.deg2rad(0.4)
    right = (np.arange(12) - 6.2)[None] * 0.5 + np.zeros((9, 1))
    up = -(np.arange(9) - 7.3)[:, None] * 0.5 + np.zeros((1, 12))
    ray = np.stack([np.full((9, 12), 300.0), right, up], axis=-1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    normal, shadow = np.array([-np.sin(tilt), 0, np.cos(tilt)]), np.array([np.cos(tilt), 0, np.sin(tilt)])
    close(geometry.alpha_f(), np.rad2deg(np.arcsin(ray @ normal)), 1e-11, 1e-11)
    close(geometry.in_plane(), np.rad2deg(np.arctan2(right / np.linalg.norm(
        np.stack([np.full((9, 12), 300.0), right, up], axis=-1), axis=-1), ray @ shadow)), 1e-11)  # fmt: skip
    close(geometry.qz(), float(geometry.k0) * (ray @ normal + np.sin(tilt)), 1e-10, 1e-13)
    qr, qz, chi = (np.asarray(geometry.map(name)) for name in ("qr", "qz", "chi"))
    close(np.abs(chi), np.rad2deg(np.arctan2(qr, qz)), 1e-12)
    assert np.array_equal(chi < 0, np.asarray(geometry.qy()) < 0)


@pytest.mark.parametrize("orientation", [0.0, 90.0, 180.0, 270.0])
def test_the_normal_turns_the_maps(orientation):
    """A square detector whose normal is turned by a quarter sees what the turned picture shows."""
    square = {"centre": (4.0, 4.0), "shape": (9, 9)}
    upright, turned = grazing(**square), grazing(**square, orientation=orientation)
    for name in ("q", "qx", "qy", "qz", "alpha_f"):
        close(turned.map(name), np.rot90(upright.map(name), round(orientation / 90)), 1e-12, 1e-13)


def test_the_pixel_under_the_beam_has_zero_and_finite_gradients():
    for geometry in (small(centre=(4.0, 6.0)), grazing(centre=(4.0, 6.0))):
        assert float(geometry.q()[4, 6]) == 0
        assert float(geometry.phi()[4, 6]) == 0

        def total(g):
            return sum(jnp.sum(g.map(name)) for name in g.names)

        for leaf in jax.tree.leaves(quick_jit(jax.grad(total))(geometry)):
            assert np.isfinite(leaf).all()


@pytest.mark.parametrize("leaf", ["energy", "distance", "centre", "pixel_size", "swing", "roll", "alpha_i"])
def test_gradients_are_those_of_finite_differences(leaf):
    geometry = grazing(swing=(2.0, 3.0), roll=4.0)
    weights = np.random.default_rng(0).normal(size=(9, 12))

    def total(value):
        moved = eqx.tree_at(lambda g: getattr(g, leaf), geometry, value)
        return jnp.sum(weights * (moved.q() + moved.qz() + moved.alpha_f() + moved.phi()))

    start = getattr(geometry, leaf)
    unit = jnp.ones_like(start)
    slope = jnp.sum(quick_jit(jax.grad(total))(start))
    at = quick_jit(total)
    close(slope, derivative(lambda t: at(start + t * unit), 0.0, 1e-3), 1e-6, 1e-8)


def test_vmap_is_a_loop_and_traces_once():
    distances = jnp.asarray([250.0, 300.0, 400.0])
    counted = Counter(lambda d: eqx.tree_at(lambda g: g.distance, small(), d).q())
    batch = jax.jit(jax.vmap(counted))
    found = batch(distances)
    batch(distances + 1)
    assert counted.traces == 1
    close(found, jnp.stack([small(distance=float(d)).q() for d in distances]), 1e-14)
    slopes = jax.jit(jax.vmap(jax.grad(lambda d: counted(d)[0, 0])))(distances)
    assert np.all(slopes < 0)


def test_the_beam_is_where_two_theta_vanishes():
    geometry = small(swing=(1.0, -0.5), roll=3.0, shape=(40, 40), centre=(4.3, 6.2))
    at = eqx.tree_at(lambda g: g.centre, geometry, geometry.centre - (geometry.beam - jnp.asarray([20.0, 11.0])))
    assert float(at.q()[20, 11]) < 1e-12
    close(small().beam, np.array([4.3, 6.2]), 0, 0)


def test_the_older_form_of_q_is_smaller_by_a_cosine():
    geometry = small()
    theta = jnp.deg2rad(geometry.two_theta()) / 2
    close(q_by_sine(geometry), geometry.q() * jnp.cos(theta), 1e-12)


def test_a_map_is_kept_by_content():
    assert cached_map(small(), "q") is cached_map(small(), "q")
    assert cached_map(small(), "q") is not cached_map(small(distance=301.0), "q")
    assert cached_map(small(), "q") is not cached_map(small(), "phi")
    close(jax.jit(lambda g: cached_map(g, "q"))(small()), small().q(), 1e-14)


def test_what_is_no_geometry_is_refused():
    with pytest.raises(ValueError, match="distance of a TransmissionGeometry should be above zero"):
        small(distance=-1.0)
    with pytest.raises(ValueError, match="number of rows and columns"):
        small(shape=(3,))
    with pytest.raises(ValueError, match=r"centre should be .*2"):
        small(centre=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match=r"no map of a TransmissionGeometry 'qr'.*did you mean 'q'"):
        small().map("qr")
    assert js.get(small(), "distance") == 300.0


@pytest.fixture
def single():
    """Without double precision."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def test_single_precision_is_refused(single):
    """float32 finds phi 0.006 degrees off on a large detector, beyond what partitions forgive."""
    with pytest.raises(RuntimeError, match="A TransmissionGeometry needs double precision"):
        small()


# --- the files of pyFAI ---------------------------------------------------------------------------------------------


def text(version=2, rot=(0.1, -0.2, 0.3), orientation=3):
    config = {
        "2": '{"pixel1": 5e-4, "pixel2": 4e-4, "max_shape": [9, 12]}',
        "2.1": f'{{"pixel1": 5e-4, "pixel2": 4e-4, "max_shape": [9, 12], "orientation": {orientation}}}',
    }
    size = "PixelSize1: 5e-4\nPixelSize2: 4e-4" if version == 1 else (
        f"poni_version: {version}\nDetector: Detector\nDetector_config: {config[str(version)]}")  # fmt: skip
    return f"# a comment\n{size}\nDistance: 0.3\nPoni1: 0.0021\nPoni2: 0.0035\nRot1: {rot[0]}\nRot2: {rot[1]}\n" + (
        f"Rot3: {rot[2]}\nWavelength: 1.2e-10\n"
    )


def poni_angles(rot):
    """(two theta, chi) by the rotations that the file's documentation writes down, in degrees."""
    (c1, c2, c3), (s1, s2, s3) = np.cos(rot), np.sin(rot)
    p1 = (np.arange(9)[:, None] + 0.5) * 5e-4 - 0.0021
    p2 = (np.arange(12)[None] + 0.5) * 4e-4 - 0.0035
    t1 = p1 * c2 * c3 + p2 * (c3 * s1 * s2 - c1 * s3) - 0.3 * (c1 * c3 * s2 + s1 * s3)
    t2 = p1 * c2 * s3 + p2 * (c1 * c3 + s1 * s2 * s3) - 0.3 * (-(c3 * s1) + c1 * s2 * s3)
    t3 = p1 * s2 - p2 * c2 * s1 + 0.3 * c1 * c2
    return np.rad2deg(np.arctan2(np.hypot(t1, t2), t3)), np.rad2deg(np.arctan2(t1, t2))


@pytest.mark.parametrize("version", [1, 2, 2.1])
def test_a_poni_file_is_its_rotations(tmp_path, version):
    (tmp_path / "a.poni").write_text(text(version))
    geometry = read_poni(tmp_path / "a.poni", **({"shape": (9, 12)} if version == 1 else {}))
    angle, chi = poni_angles((0.1, -0.2, 0.3))
    close(geometry.two_theta(), angle, 1e-12)
    close(geometry.phi(), -chi, 1e-12)
    close(geometry.wavelength, 1.2, 1e-14)


def test_a_geometry_survives_its_poni_file(tmp_path):
    geometry = small(swing=(12.0, -7.0), roll=5.0, pixel_size=(0.5, 0.4))
    write_poni(tmp_path / "b.poni", geometry)
    close(read_poni(tmp_path / "b.poni"), geometry, 1e-12, 1e-12)


def test_a_bad_poni_file_is_named(tmp_path):
    path = tmp_path / "c.poni"
    path.write_text(text().replace("Poni2: 0.0035", ""))
    with pytest.raises(ValueError, match=r"c\.poni has no Poni2"):
        read_poni(path)
    path.write_text(text().replace("Distance: 0.3", "Distance: far"))
    with pytest.raises(ValueError, match=r"c\.poni: Distance should be a number, but it is 'far'"):
        read_poni(path)
    path.write_text(text(1))
    with pytest.raises(ValueError, match="shape="):
        read_poni(path)
    path.write_text(text(2.1, orientation=7))
    with pytest.raises(ValueError, match="orientation 7"):
        read_poni(path)


@pytest.mark.parametrize(
    ("wrong", "unit"),
    [({"energy": 10900.0}, "eV"), ({"distance": 5.0}, "m"), ({"pixel_size": 75e-6}, "m"), ({"pixel_size": -0.1}, "")],
)
def test_numbers_of_another_unit_are_refused(wrong, unit):
    given = {"energy": 10.9, "centre": (3.0, 4.0), "distance": 5000.0, "pixel_size": 0.075, "shape": (8, 8)} | wrong
    with pytest.raises(ValueError, match=rf"is that in {unit}\?" if unit else "pixel_size .* above zero"):
        TransmissionGeometry(**given)
