"""Inference of drift and diffusion from densities that were observed at some times.

`DensitySnapshots` is a data set whose model is an `SDE`: it evolves the same particles with the same random numbers for
every trial of the parameters (common random numbers), so that the residuals are smooth in them, and hands `jaxsci.fit`
a Jacobian by forward mode, which needs a small part of the memory that a linearisation of the scan would. Two distances
between distributions are here as well, for losses of one's own.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..core import AbstractLikelihood, Diagonal, Flag, Given, Scalar, Unit, is_traced
from ..datasets import AbstractDataset, FreeModel
from ..evolution import SDE, AbstractStepper, AbstractSummary, Ensemble, EulerMaruyama, evolve
from ._boundary import Grid
from ._density import BinnedKDE, Histogram, SpectralKDE


class DensitySnapshots(AbstractDataset):
    """Densities observed at some times, as a data set that `jaxsci.fit` takes with an `SDE` for a model.

    **Arguments:**

    - `start`: the ensemble at the time before the first snapshot, whose key is that of all evolutions.
    - `grid`: on which the densities are given.
    - `begin`: the time at which the ensemble starts. `ts`: (k,), those of the snapshots, at equal distances.
    - `observed`: (k, *grid.shape), means over cells. `sigma`: their standard errors, a number or of that shape;
      without one all cells count the same, and errors of parameters follow from the scatter.
    - `density`: the estimator; without one `SpectralKDE(grid, degree=3)`, whose cubic shares are smooth in the
      positions. Its bandwidth blurs the prediction, and should be that with which the observations were made, or small
      beside what they resolve.
    - `steps`: of time between two snapshots. `stepper`: `EulerMaruyama()` without one.

    **Raises:** `ValueError` for shapes that do not match, times that are not equally far apart, a sigma that is not
    positive, and for an estimator whose derivatives jump or vanish, with which searches are stuck.
    """

    start: Ensemble
    density: AbstractSummary
    grid: Grid
    ts: Float[Array, " times"]
    observed: Float[Array, " n"]
    noise: AbstractLikelihood
    mask: Bool[Array, " n"]
    stepper: AbstractStepper
    steps: int = eqx.field(static=True)

    def __init__(
        self,
        start: Ensemble,
        grid: Grid,
        begin: float,
        ts: Given,
        observed: Given,
        sigma: Given | None = None,
        *,
        density: AbstractSummary | None = None,
        steps: int = 10,
        stepper: AbstractStepper | None = None,
    ) -> None:
        density = SpectralKDE(grid, degree=3) if density is None else density
        _check_smooth(density)
        times = jnp.concatenate([jnp.asarray([begin], float), jnp.atleast_1d(jnp.asarray(ts, float))])
        found = jnp.asarray(observed, float)
        wanted = (times.shape[0] - 1, *grid.shape)
        if found.shape != wanted:
            raise ValueError(f"observed should have shape {wanted}, times and then the grid, but it has {found.shape}")
        if not is_traced(times):
            gaps = np.diff(np.asarray(times))
            rounding = 16 * float(jnp.finfo(times.dtype).eps) * float(np.abs(times).max())
            if not (gaps > 0).all() or np.ptp(gaps) > rounding:
                raise ValueError(f"snapshots should be equally far apart from begin on, but they are {gaps} apart")
        self.start, self.density, self.grid, self.ts = start, density, grid, times
        self.observed, self.mask = found.reshape(-1), jnp.ones(found.size, bool)
        self.steps, self.stepper = steps, EulerMaruyama() if stepper is None else stepper
        if sigma is None:
            self.noise = Unit()
            return
        errors = jnp.broadcast_to(jnp.asarray(sigma, float), wanted).reshape(-1)
        if not is_traced(errors) and not bool(np.all(np.asarray(errors) > 0)):
            raise ValueError("sigma should be positive everywhere: cells that were seen empty have an error too")
        self.noise = Diagonal(errors)

    def predict(self, model: SDE) -> Float[Array, "times *shape"]:
        """The densities at the times of the snapshots."""
        k = self.ts.shape[0] - 1
        fine = self.ts[0] + (self.ts[-1] - self.ts[0]) * jnp.linspace(0.0, 1.0, k * self.steps + 1, dtype=self.ts.dtype)
        found = evolve(model, self.start, fine, stepper=self.stepper, save={"density": self.density}, every=self.steps)
        return found["density"].values[1:]

    def residual(self, model: SDE) -> Float[Array, " n"]:
        """Predicted less observed densities, snapshot after snapshot."""
        return self.predict(model).reshape(-1).astype(self.observed.dtype) - self.observed

    def finite(self) -> Flag:
        """False where an observation is nan or infinite."""
        return jnp.all(jnp.isfinite(self.observed))

    def jacobian(self, at: FreeModel, y: Float[Array, " p"]) -> tuple[Float[Array, " n"], Float[Array, "p n"]]:
        """Residuals and their derivatives, a tangent for each parameter side by side through one evolution."""

        def along(tangent: Float[Array, " p"]) -> tuple[Array, Array]:
            return jax.jvp(lambda y: self.residual(at.model(y)), (y,), (tangent,))

        return jax.vmap(along, out_axes=(None, 0))(jnp.eye(y.size, dtype=y.dtype))


def _check_smooth(density: AbstractSummary) -> None:
    """A fit goes by derivatives, so the prediction should have some that mean something."""
    if isinstance(density, BinnedKDE | Histogram):
        raise ValueError(
            f"a {type(density).__name__} does not change while particles move within a cell, so that a fit has no "
            "derivatives to go by: leave density= out, or give SpectralKDE(grid, degree=3) or DenseKDE(grid)"
        )
    if isinstance(density, SpectralKDE) and density.degree < 3:
        raise ValueError(
            f"with weights shared by splines of degree {density.degree} each particle that passes a node makes a kink "
            "in the cost, at which searches are stuck: leave density= out, or give SpectralKDE(grid, degree=3)"
        )


def wasserstein(p: Float[Array, " m"], q: Float[Array, " m"], grid: Grid) -> Scalar:
    """The first Wasserstein distance of two densities in one dimension: the area between their distribution functions.

    **Arguments:** `p`, `q`: means over the cells of `grid`, each of mass 1.

    **Raises:** `ValueError` for a grid of more dimensions, or densities of another shape.
    """
    if len(grid.shape) != 1 or p.shape != grid.shape or q.shape != grid.shape:
        raise ValueError(f"densities of shape {grid.shape} in one dimension are needed, not {p.shape} and {q.shape}")
    step = grid.step[0].astype(p.dtype)
    gap = jnp.cumsum(p - q) * step
    before = jnp.concatenate([jnp.zeros(1, gap.dtype), gap[:-1]])
    # within a cell the difference is a straight line, which may cross zero
    same = before * gap >= 0
    width = jnp.abs(before) + jnp.abs(gap)
    crossed = (before**2 + gap**2) / jnp.where(width > 0, width, 1)
    return jnp.sum(jnp.where(same, width, crossed)) * step / 2


def maximum_mean_discrepancy(
    x: Float[Array, "n d"], y: Float[Array, "m d"], scale: float | Scalar, weights: Float[Array, " n"] | None = None
) -> Scalar:
    """The squared maximum mean discrepancy of two ensembles with a Gaussian kernel, without bias.

    E k(x, x') + E k(y, y') - 2 E k(x, y) over different particles (Gretton et al. 2012, eq. 3); n m evaluations.

    **Arguments:** `x`, `y`: positions. `scale`: the standard deviation of the kernel. `weights`: of the x.
    """
    w = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    v = jnp.ones(y.shape[0], y.dtype)

    def mean(a: Array, b: Array, wa: Array, wb: Array, apart: bool) -> Array:
        square = jnp.sum((a[:, None, :] - b[None, :, :]) ** 2, axis=-1)
        kernel = jnp.exp(-square / (2 * scale**2))
        share = wa[:, None] * wb[None, :]
        if apart:
            share = share * (1 - jnp.eye(a.shape[0], dtype=share.dtype))
        return jnp.sum(share * kernel) / jnp.sum(share)

    return mean(x, x, w, w, True) + mean(y, y, v, v, True) - 2 * mean(x, y, w, v, False)
