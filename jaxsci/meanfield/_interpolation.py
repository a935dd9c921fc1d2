"""Linear interpolation of what is known on a grid, at particles.

The grid is uniform, so that the cell of a particle is found by arithmetic; a search in a sorted list costs twenty times
as much. Between the centre of an outer cell and a wall the value is that of the cell, across a periodic wall that of
both sides. Drifts on grids call it for one particle, which `vmap` makes many.
"""

import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._boundary import Grid


def interpolate(values: Float[Array, "*shape k"], grid: Grid, x: Float[Array, " d"]) -> Float[Array, " k"]:
    """Values at x, linear between the centres of cells.

    **Arguments:** `values`: shape (*grid.shape, k); `x`: shape (d,), anywhere: beyond a wall it is that at the wall.
    """
    low, share = [], []
    for axis, n in enumerate(grid.shape):
        place = (x[axis] - grid.box.lower[axis].astype(x.dtype)) / grid.step[axis].astype(x.dtype) - 0.5
        if grid.box.walls_of_axes[axis][0] == "periodic":
            down = jnp.floor(place)
            at = jnp.mod(down.astype(jnp.int32), n)
            low.append((at, jnp.where(at + 1 == n, 0, at + 1)))
        else:
            place = jnp.clip(place, 0, n - 1)
            at = jnp.clip(place.astype(jnp.int32), 0, n - 2)
            down = at.astype(x.dtype)
            low.append((at, at + 1))
        share.append(place - down)
    flat = values.reshape(-1, values.shape[-1])
    total = jnp.zeros(values.shape[-1], values.dtype)
    for corner in itertools.product((0, 1), repeat=len(grid.shape)):
        index, weight = jnp.zeros((), jnp.int32), jnp.ones((), x.dtype)
        for axis, up in enumerate(corner):
            index = index * grid.shape[axis] + low[axis][up]
            weight = weight * (share[axis] if up else 1 - share[axis])
        total = total + weight * flat.at[index].get(mode="promise_in_bounds")
    return total
