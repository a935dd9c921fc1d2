"""Where particles begin: distributions as functions of (key, particle), so that a part of an ensemble is a part.

Positions follow from uniform numbers of each particle by the inverse of a distribution function, or by rejection with a
number of tries that is known beforehand. Quasi-random numbers fill a distribution more evenly than random ones. Each is
a `start` for `evolution.Draw`, or gives an ensemble by `start.ensemble(n, key)`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float, UInt

from ..core import Given, Model, is_traced, require_positive, unmasked
from ..evolution import AbstractStart, uniforms
from ..fitting import compiled
from ._boundary import Box, Grid, averaged, same_box

_MASS = 1e-6  # by which the mass of an initial density may differ from 1


def _spread(
    key: UInt[Array, " 2"], ids: UInt[Array, " n"], d: int, dtype: jnp.dtype, quasi: bool
) -> Float[Array, "n d"]:
    """Numbers in (0, 1), d for each particle: independent ones, or those of a Kronecker sequence.

    The generators of the sequence are powers of 1/phi, phi^(d+1) = phi + 1, in 32-bit whole numbers, which wrap around
    by themselves; a random shift makes each number uniform (Cranley and Patterson 1976).
    """
    half = jnp.asarray(2.0**-33 if jnp.dtype(dtype) == jnp.float64 else 2.0**-25, dtype)
    if not quasi:
        draws = jnp.arange(d, dtype=jnp.uint32)
        return uniforms(key, ids[:, None], draws[None], dtype) + half
    phi = 1.5
    for _ in range(60):
        phi = (1 + phi) ** (1 / (d + 1))
    steps = jnp.asarray([int(2**32 * phi ** -(k + 1)) % 2**32 for k in range(d)], jnp.uint32)
    shift = jnp.stack([key[0] + jnp.uint32(k) * key[1] for k in range(d)])
    place = shift[None] + (ids[:, None] + jnp.uint32(1)) * steps[None]
    return (place >> jnp.uint32(8)).astype(dtype) * jnp.asarray(2.0**-24, dtype) + half


class Gaussian(AbstractStart):
    """A normal distribution.

    **Arguments:**

    - `mean`: shape (d,), or a number in one dimension. `sd`: standard deviations of the axes, in the same form.
    - `box`: cuts it off at the walls of a box; what is left is made to have mass 1.
    - `quasi`: quasi-random numbers in place of random ones.
    """

    mean: Float[Array, " d"]
    sd: Float[Array, " d"]
    box: Box | None
    quasi: bool = eqx.field(static=True)

    def __init__(self, mean: Given, sd: Given, box: Box | None = None, quasi: bool = False) -> None:
        self.mean = jnp.atleast_1d(jnp.asarray(unmasked(mean, "mean"), float))
        deviations = jnp.asarray(unmasked(sd, "sd"), float)
        if deviations.shape not in ((), (1,), self.mean.shape):
            raise ValueError(
                f"mean has shape {self.mean.shape}, sd has shape {deviations.shape}: one number an axis each"
            )
        require_positive(deviations, "sd")
        self.sd = jnp.broadcast_to(deviations, self.mean.shape)
        self.box, self.quasi = box, quasi

    def sample(self, key: UInt[Array, " 2"], ids: UInt[Array, " n"]) -> Float[Array, "n d"]:
        """By the inverse of the normal distribution function."""
        u = _spread(key, ids, self.mean.shape[0], self.mean.dtype, self.quasi)
        if self.box is not None:
            low, high = (
                jax.scipy.special.ndtr((wall - self.mean) / self.sd) for wall in (self.box.lower, self.box.upper)
            )
            u = low[None] + (high - low)[None] * u
        x = self.mean[None] + self.sd[None] * ndtri(u)
        return x if self.box is None else jnp.clip(x, self.box.lower[None], self.box.upper[None])


class FromDensity(AbstractStart):
    """A density given by its means over the cells of a grid.

    **Arguments:**

    - `density`: shape grid.shape, not negative, of mass 1: sum(density) * grid.volume = 1.
    - `quasi`: quasi-random numbers in place of random ones.

    **Raises:** `ValueError` for a density that is negative, not a number, or whose mass is not 1.
    """

    density: Float[Array, "..."]
    grid: Grid
    quasi: bool = eqx.field(static=True)

    def __init__(self, density: Given, grid: Grid, quasi: bool = False) -> None:
        self.density, self.grid, self.quasi = jnp.asarray(density, float), grid, quasi
        if self.density.shape != grid.shape:
            raise ValueError(f"the density has shape {self.density.shape}, but the grid has {grid.shape}")
        if not is_traced(self.density):
            known = np.asarray(self.density)
            mass = float(known.sum() * np.asarray(grid.volume))
            if not np.isfinite(mass) or known.min() < 0:
                raise ValueError("an initial density should be finite and not negative")
            if abs(mass - 1) > _MASS:
                raise ValueError(f"the initial density has mass {mass:.6g}, not 1: divide it by that")

    def sample(self, key: UInt[Array, " 2"], ids: UInt[Array, " n"]) -> Float[Array, "n d"]:
        """A cell by the inverse of the cumulative mass, axis after axis, and a place in it."""
        dtype = self.density.dtype
        u = _spread(key, ids, len(self.grid.shape), dtype, self.quasi)
        # mass before each cell, the last axis running fastest: that of a block of cells is a difference of two of them
        before = jnp.concatenate([jnp.zeros(1, dtype), jnp.cumsum(self.density.reshape(-1))])
        block, size = jnp.zeros(ids.shape, jnp.int32), self.density.size
        places = []
        for axis, n in enumerate(self.grid.shape):
            low, high = before[block * size], before[(block + 1) * size]
            size //= n
            first, aim = block * n, low + u[:, axis] * (high - low)
            cell = jnp.zeros_like(block)
            for power in reversed(range(n.bit_length())):
                more = cell + (1 << power)
                fits = (more < n) & (before[(first + jnp.minimum(more, n)) * size] <= aim)
                cell = jnp.where(fits, more, cell)
            block = first + cell
            mass = before[(block + 1) * size] - before[block * size]
            share = jnp.clip((aim - before[block * size]) / jnp.where(mass > 0, mass, 1), 0, 1)
            places.append(self.grid.box.lower[axis] + (cell.astype(dtype) + share) * self.grid.step[axis])
        return jnp.stack(places, axis=1)


class Rejection(AbstractStart):
    """A density given by a function, which need not be normalised.

    **Arguments:**

    - `density`: a function or Module, x of shape (d,) -> a number that is not negative.
    - `box`: where to look. `largest`: a bound on the density there.
    - `tries`: of each particle; one that is never accepted stays at its last try. `missing` tells how often that is.
    """

    density: Model
    box: Box
    largest: Float[Array, ""]
    tries: int = eqx.field(static=True)

    def __init__(self, density: Model, box: Box, largest: Given, tries: int = 64) -> None:
        self.density, self.box, self.largest, self.tries = density, box, jnp.asarray(largest, float), tries

    def sample(self, key: UInt[Array, " 2"], ids: UInt[Array, " n"]) -> Float[Array, "n d"]:
        """The first try of each particle that is accepted."""
        return self._tried(key, ids)[0]

    def missing(self, key: UInt[Array, " 2"], ids: UInt[Array, " n"]) -> Bool[Array, " n"]:
        """True for particles of which no try was accepted: increase `tries`, or lower `largest`."""
        return ~self._tried(key, ids)[1]

    def _tried(self, key: UInt[Array, " 2"], ids: UInt[Array, " n"]) -> tuple[Array, Array]:
        d, dtype = self.box.d, self.box.lower.dtype

        def attempt(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
            x, found = carry
            draws = k * jnp.uint32(d + 1) + jnp.arange(d + 1, dtype=jnp.uint32)
            u = uniforms(key, ids[:, None], draws[None], dtype)
            trial = self.box.lower[None] + u[:, :d] * self.box.width[None]
            accept = u[:, d] * self.largest <= jax.vmap(self.density)(trial)
            return (jnp.where(found[:, None], x, trial), found | accept), None

        start = jnp.broadcast_to(self.box.lower, (ids.shape[0], d)), jnp.zeros(ids.shape, bool)
        (x, found), _ = jax.lax.scan(attempt, start, jnp.arange(self.tries, dtype=jnp.uint32))
        return x, found


class Uniform(AbstractStart):
    """Everywhere in a box alike.

    **Arguments:** `box`.
    """

    box: Box

    def sample(self, key: UInt[Array, " 2"], ids: UInt[Array, " n"]) -> Float[Array, "n d"]:
        """A uniform number for each axis."""
        u = _spread(key, ids, self.box.d, self.box.lower.dtype, False)
        return self.box.lower[None] + u * self.box.width[None]


def density_on(start: AbstractStart, grid: Grid) -> Float[Array, "*shape"] | None:
    """The density from which particles are drawn, as means over cells, of mass 1 on the grid.

    **Returns:** shape `grid.shape`; `None` where it is not known: for a class of one's own, and for a density given on
    other cells that these are no parts or multiples of. That of a `Rejection` is taken at the centres of cells.
    """
    if isinstance(start, FromDensity) and not same_box(start.grid.box, grid.box):
        return None
    return compiled(_density_on, (start, grid))


def _density_on(start: AbstractStart, grid: Grid) -> Array | None:
    if isinstance(start, Uniform):
        values = jnp.ones(grid.shape)
    elif isinstance(start, Gaussian):
        values = jnp.ones((), start.mean.dtype)
        for axis in range(grid.box.d):
            edges = (grid.edges(axis).astype(values.dtype) - start.mean[axis]) / start.sd[axis]
            values = jnp.tensordot(values, jnp.diff(jax.scipy.special.ndtr(edges)), axes=0)
    elif isinstance(start, FromDensity):
        values = start.density
        for axis, (n, m) in enumerate(zip(start.grid.shape, grid.shape, strict=True)):
            values = jnp.repeat(values, m // n if m % n == 0 else 1, axis)
        means = averaged(values, grid.shape)
        if means is None:
            return None
        values = means
    elif isinstance(start, Rejection):
        points = grid.points()
        values = jax.vmap(start.density)(points.reshape(-1, grid.box.d)).reshape(grid.shape)
    else:
        return None
    return values / (jnp.sum(values) * grid.volume.astype(values.dtype))
