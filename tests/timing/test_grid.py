"""chi2 over grids of parameters."""

import numpy as np
import pytest

from jaxsci import timing


def test_a_grid_is_the_profile_of_chi2():
    """Of a model that is all but linear: chi2 - min = z^2 along one parameter, z^T C^-1 z along two."""
    model, toas = timing.bundled("NGC6440E")
    best = timing.fit(model, toas)
    at = np.array([-1.0, 0.0, 2.0])
    grid = {name: best.values[name] + best.std[name] * at for name in ("DM", "DECJ")}
    found = timing.chi2_grid(model, toas, grid) - float(best.chi2)
    places = [best.places[best.names.index(name)] for name in grid]
    matrix = np.linalg.inv(np.asarray(best.fit.correlation)[np.ix_(places, places)])
    x, y = np.meshgrid(at, at, indexing="ij")
    expected = matrix[0, 0] * x * x + 2 * matrix[0, 1] * x * y + matrix[1, 1] * y * y
    np.testing.assert_allclose(found, expected, atol=1e-4)
    alone = timing.chi2_grid(model, toas, {"DM": grid["DM"]}) - float(best.chi2)
    np.testing.assert_allclose(alone, at**2, atol=1e-4)


@pytest.mark.slow
def test_every_point_is_fitted_where_chi2_is_noisy():
    """Rounding in residuals makes chi2 rough by 1e-5; a search that trusts it more gives up at some points."""
    model, toas = timing.bundled("B1855+09")
    m2 = np.linspace(0.2, 0.3, 12)
    found = timing.chi2_grid(model, toas, {"M2": m2, "SINI": [0.996 + 2 * 0.0039 / 11]}).ravel()
    assert np.isfinite(found).all()
    smooth = np.polynomial.Polynomial.fit(m2, found, 5)(m2)
    np.testing.assert_allclose(found, smooth, atol=0.01)


def test_grids_that_cannot_be():
    model, toas = timing.bundled("NGC6440E")
    with pytest.raises(ValueError, match="no parameter FO"):
        timing.chi2_grid(model, toas, {"FO": [1.0]})
    with pytest.raises(ValueError, match="the grid is empty"):
        timing.chi2_grid(model, toas, {})
