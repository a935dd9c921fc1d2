"""Leave-one-out: how well a model predicts each row of the data from all others, by draws of one posterior.

Of each draw and row the density of the row given the parameters and the other rows is worked out here; ArviZ weighs
the draws as if the row had been left out (PSIS-LOO). Rows of a correlated noise are no exception: for a Gaussian one
the density given the others follows from the inverse of the covariance. `Posterior.loo` and `to_arviz` ask for these.

Vehtari, Gelman and Gabry 2017, Statistics and Computing 27, 1413; Buerkner, Gabry and Vehtari 2021, Computational
Statistics 36, 1243.
"""

import math
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ..core import AbstractNoise, Module, Poisson, opened
from ..fitting import compiled, format_pm
from ..parallel import require_memory
from ._arviz import arviz, is_first, to_arviz
from ._evidence import check_likelihood, log_counts
from ._predict import BATCH, Asked, Here, Told, asked, at_draw

if TYPE_CHECKING:
    from ._posterior import Posterior
else:
    Posterior = Any  # which imports this module

_LIMIT = 0.7  # of Pareto's k, above which the weights of the draws are no more to be believed


class Difference(NamedTuple):
    """By how much one model predicts the same rows better than another, with its standard error."""

    elpd: float
    std: float


class LeaveOneOut(Module):
    """The expected log predictive density: of each row the logarithm of its density given all others, added up.

    - `elpd`: the sum; larger is better. `std`: its standard error, from the scatter over rows.
    - `p_eff`: the effective number of parameters.
    - `rows`: which rows of the data are used; what follows is of these. `pointwise`: of each its part of `elpd`.
    - `pareto_k`: of each the shape of the tail of its weights; above .7 its part is not to be believed.
    """

    elpd: float
    std: float
    p_eff: float
    rows: Int[np.ndarray, " n"]
    pointwise: Float[np.ndarray, " n"]
    pareto_k: Float[np.ndarray, " n"]

    @property
    def doubtful(self) -> Int[np.ndarray, " k"]:
        """The rows whose `pareto_k` is above .7: the posterior without one of them differs too much from that with it.

        Fit again without these rows, and take the density of each from that.
        """
        return self.rows[~(self.pareto_k <= _LIMIT)]

    def less(self, other: "LeaveOneOut") -> Difference:
        """This model less another one of the same rows; the errors of both have most in common, and cancel.

        **Raises:** `ValueError` for other rows.
        """
        if not np.array_equal(self.rows, other.rows):
            raise ValueError("these models were fitted to different rows, so that their predictions do not compare")
        apart = self.pointwise - other.pointwise
        return Difference(float(apart.sum()), float(np.sqrt(apart.size * np.var(apart))))

    def __str__(self) -> str:
        head = f"elpd = {' +- '.join(format_pm(self.elpd, self.std))} of {self.rows.size} rows, p_eff {self.p_eff:.3g}"
        return f"{head}; {_doubts(self.doubtful)}" if self.doubtful.size else head


def _doubts(rows: np.ndarray) -> str:
    named = ", ".join(str(row) for row in rows[:10]) + (", ..." if rows.size > 10 else "")
    return (
        f"Pareto k is above {_LIMIT} for {rows.size} rows ({named}): the draws cannot tell what would be without them, "
        "and elpd is not to be believed; fit again without each of them"
    )


def leave_one_out(posterior: Posterior) -> LeaveOneOut:
    """PSIS-LOO of a posterior, by ArviZ."""
    library = arviz()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its k, which is told below by row
        found = library.loo(to_arviz(posterior, log_likelihoods(posterior)), pointwise=True)
    first = is_first(library)
    elpd, std, p_eff = (found.elpd_loo, found.se, found.p_loo) if first else (found.elpd, found.se, found.p)
    each = found.loo_i if first else found.elpd_i
    rows = np.flatnonzero(np.asarray(posterior.data.mask))
    told = LeaveOneOut(float(elpd), float(std), float(p_eff), rows, np.asarray(each), np.asarray(found.pareto_k))
    if told.doubtful.size:
        warnings.warn(_doubts(told.doubtful), stacklevel=4)  # past the method and what binds it
    return told


def log_likelihoods(posterior: Posterior) -> Float[np.ndarray, "chains draws n"]:
    """The logarithm of the density of each row that is used, given the parameters and all other rows, of each draw.

    **Raises:** `ValueError` for a likelihood that is not normalised; `MemoryError` where there is no room.
    """
    if posterior.refused:
        raise ValueError(f"there is no posterior: {posterior.refused}")
    check_likelihood(posterior.start, posterior.data)
    these, told = asked(posterior, None)
    chains, draws, rows = *posterior.draws.shape[:2], these.data.mask.shape[0]
    size = 3 * chains * draws * rows * these.y.dtype.itemsize
    require_memory(size, f"the likelihood of {rows} rows for {chains * draws} draws", "sample fewer draws or chains")
    base = opened(these.data.noise if these.likelihood is None else these.likelihood)
    if isinstance(base, AbstractNoise) and base.log_variance(these.data.mask) is None:
        # of a noise with free parameters each draw has a matrix of its own
        batch = BATCH if told.frees_noise else 1
        size = 3 * batch * rows**2 * these.y.dtype.itemsize
        require_memory(
            size, f"the inverse covariance of {rows} rows", "leave-one-out is for fewer rows of such a noise"
        )
    found = np.asarray(compiled(_each, (these,), (told,)))
    used = np.flatnonzero(np.asarray(posterior.data.mask))
    return found.reshape(chains, draws, rows)[..., used]


def _each(these: Asked, told: Told) -> Float[Array, "draws n"]:
    at = at_draw(these, told)
    # the inverse of a noise that is the same for all draws is worked out once, outside of the loop
    fixed = None if told.frees_noise else _inverse(at(these.y[0]))

    def one(y: Array) -> Array:
        here = at(y)
        if isinstance(here.likelihood, Poisson):
            value = here.likelihood.rows(here.data.residual(here.model))[0]
            return log_counts(here.likelihood) - value
        inverse = _inverse(here) if fixed is None else fixed
        assert inverse is not None
        return _gaussian(here, inverse, told)

    return lax.map(one, these.y, batch_size=BATCH)


class _Inverse(NamedTuple):
    """A noise made ready, and log of the diagonal of its inverse covariance."""

    noise: AbstractNoise
    log_diagonal: Float[Array, " n"]


def _inverse(here: Here) -> _Inverse | None:
    noise, mask = here.likelihood, here.data.mask
    if not isinstance(noise, AbstractNoise):
        return None
    ready, dtype = noise.prepare(mask), here.data.residual(here.model).dtype
    assert isinstance(ready, AbstractNoise)
    log_variance = noise.log_variance(mask)
    if log_variance is not None:
        return _Inverse(ready, -log_variance.astype(dtype))
    # C^-1 = W^T W: of each column of W the square
    columns = jax.vmap(lambda column: ready.whiten(column, mask))(jnp.eye(mask.size, dtype=dtype))
    return _Inverse(ready, jnp.log(jnp.where(mask, jnp.sum(columns**2, axis=1), 1)))


def _gaussian(here: Here, inverse: _Inverse, told: Told) -> Float[Array, " n"]:
    """With g = C^-1 r and k the diagonal of C^-1, a row given the others is normal: g / k off its mean, variance 1/k.

    Where the scale of C is integrated, flat in its logarithm, it is Student's t: of the sum of squares S of all n rows,
    and S - g^2 / k of the others (Buerkner et al., eq. 4 and section 3).
    """
    residual, mask = here.data.residual(here.model), here.data.mask

    def whiten(r: Array) -> Array:
        return inverse.noise.whiten(r, mask)

    z = whiten(residual)
    (g,) = jax.linear_transpose(whiten, residual)(z)
    square = g * g * jnp.exp(-inverse.log_diagonal)
    if not told.free_scale:
        return (inverse.log_diagonal - square - math.log(2 * math.pi)) / 2
    n, total = jnp.sum(mask).astype(z.dtype), jnp.sum(z * z)
    norm = jsp.gammaln(n / 2) - jsp.gammaln((n - 1) / 2) - math.log(math.pi) / 2 + inverse.log_diagonal / 2
    return norm - n / 2 * jnp.log(total) + (n - 1) / 2 * jnp.log(total - square)
