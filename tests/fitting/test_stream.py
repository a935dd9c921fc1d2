"""Data larger than memory: the answer of the same rows at hand, in little memory, and what goes wrong on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import close
from problems import Decay

import jaxsci as js

N, BLOCK = 101, 30
RNG = np.random.default_rng(5)
T = np.linspace(0.0, 5.0, N)
Y = np.asarray(Decay(2.0, 1.3, 3.0)(jnp.asarray(T))) + 0.1 * RNG.normal(size=N)
SIGMA = RNG.uniform(0.05, 0.2, N)
MASK = np.arange(N) % 7 != 3
START = Decay(2.5, 1.6, 2.0)
GN = js.GaussNewton()


def same(streamed, dense):
    """The same Solution, field by field."""
    std = np.asarray(dense.standard_errors)
    close(streamed.y, dense.y, 1e-12, 1e-12 * std.min())
    close((streamed.cost, streamed.chi2, streamed.bic), (dense.cost, dense.chi2, dense.bic), 1e-12)
    close(streamed.covariance, dense.covariance, 1e-12, 1e-13 * std.min() ** 2)
    for field in ("dof", "rank", "num_data", "at_bound", "determined", "fixed", "names"):
        assert np.all(np.asarray(getattr(streamed, field)) == np.asarray(getattr(dense, field))), field


def stream(sigma=None, mask=None, **arrays):
    given = {"inputs": T, "observed": Y} | arrays
    return js.StreamedDataset(given["inputs"], given["observed"], sigma, mask, chunk=BLOCK)


CASES = {  # sigma, its noise, mask, loss
    "unit": (None, None, None, js.Linear()),
    "white, masked": (0.1, js.White(0.1), MASK, js.Linear()),
    "diagonal, masked": (SIGMA, js.Diagonal(SIGMA), MASK, js.Linear()),
    "robust": (SIGMA, js.Diagonal(SIGMA), MASK, js.Cauchy(1.0)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_answer_as_dense_rows(case):
    """30 rows at a time and 11 in the last block."""
    sigma, noise, mask, loss = CASES[case]
    dense = js.fit(START, js.Dataset(T, Y, noise, mask), loss=loss, solver=GN)
    same(js.fit(START, stream(sigma, mask), loss=loss, solver=GN), dense)
