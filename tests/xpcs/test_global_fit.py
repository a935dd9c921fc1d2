"""Fits in which q-bins share parameters, against one dense fit of another program and against real data."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, same_bits

from jaxsci import xpcs


@pytest.fixture(scope="module")
def case(shared_data):
    with np.load(shared_data / "xpcs" / "cases" / "global_fit.npz") as file:
        return dict(file)


def curves_of(case):
    shape = case["g2"].T.shape
    arrays = (case["t"], case["g2"].T, case["sigma"].T, np.ones(shape, bool), case["q"])
    return xpcs.Curves(*(jnp.asarray(x) for x in arrays))


def test_shared_diffusion_and_exponent(case):
    """D and p of all 20 q-bins with their own contrasts and baselines: 42 parameters of one dense fit by scipy."""
    found = xpcs.fit_g2(curves_of(case), xpcs.DispersedExponential, shared=("D", "p"))
    shared, table = found.shared, found.table()
    assert bool(shared.success)
    assert shared.names == ("D", "p")
    truth, errors = np.array([case["D"], case["p"]]), np.array([case["D_se"], case["p_se"]])
    assert np.all(abs(np.asarray(shared.y) - truth) < 1e-6 * errors)
    close(np.asarray(shared.standard_errors), errors, rtol=1e-6)
    close(float(shared.covariance[0, 1] / np.prod(errors)), float(case["corr_logD_p"]), rtol=1e-6)
    for name, known in (("contrast", "contrast"), ("baseline", "base")):
        assert np.all(abs(table[name] - case[known]) < 1e-6 * case[f"{known}_se"])
        close(table[f"{name}_std"], case[f"{known}_se"], rtol=1e-6)
    close(float(shared.chi2), float(case["chi2"]), rtol=1e-12)
    assert int(shared.dof) == int(case["dof"])


WORDS = [("D", "p"), *(pytest.param(words, marks=pytest.mark.slow) for words in (("D",), ("D", "p", "contrast"), ()))]


@pytest.mark.parametrize("shared", WORDS, ids=str)
def test_one_word_moves_a_name_between_local_and_shared(case, shared):
    curves = curves_of(case)
    found = xpcs.fit_g2(curves, xpcs.DispersedExponential, shared=shared)
    if not shared:
        assert found.shared is None
        return
    assert found.shared.names == shared
    for name in ("D", "p", "contrast", "baseline"):
        values = [found[k].values[name] for k in range(20)]
        assert (len({float(value) for value in values}) == 1) == (name in shared)
        if name in shared:
            for value in values:
                same_bits(value, found.shared.y[found.shared.names.index(name)])


FREE = ("tau_1", "tau_2", "fraction", "exponent_1", "exponent_2")


@pytest.mark.parametrize("name", ["00951_01050", "01051_01150"])
def test_real_curves_with_shared_exponents(shared_data, name):
    """Two relaxations of one field over the first five q-bins of a real measurement, contrast .135 and baseline 1."""
    with np.load(shared_data / "xpcs" / f"real_aps8id_B0147_{name}_globalfit.npz") as file:
        golden = dict(file)
    arrays = (golden["t"], golden["g2"], golden["g2_err"], golden["q"])
    t, g2, sigma, q = (jnp.asarray(x, float) for x in arrays)
    curves = xpcs.Curves(t, g2, sigma, jnp.ones(g2.shape, bool), q).take(range(5))
    model = xpcs.DoubleField(1.0, 1.0, contrast=0.135, baseline=1.0)
    found = xpcs.fit_g2(curves, model, free=FREE, shared=("exponent_*",))
    assert bool(found.shared.success)
    table = found.table()
    own = np.stack([table[key] for key in ("tau_1", "fraction", "tau_2")], 1)
    mine = np.concatenate([np.asarray(found.shared.y), own.ravel()])
    assert float(found.shared.chi2) / 2 <= golden["cost"] * (1 + 1e-9)
    assert np.all(abs(mine - golden["x"]) < 2e-3 * golden["x_err"])  # scipy stopped that far from the optimum
    close(float(found.shared.chi2) / int(found.shared.dof), float(golden["red_chi2"]), rtol=1e-8)
    close(np.asarray(found.shared.standard_errors), golden["x_err"][:2], rtol=1e-3)
