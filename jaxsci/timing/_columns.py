"""Derivatives by columns: a function of few parameters and many rows is differentiated once, not once a tangent."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.tree_util as jtu
from jax import lax
from jaxtyping import Array, Float, PyTree

from ..core._parameter import free_spec, parameters


def by_columns(
    fn: Callable[..., PyTree], module: PyTree, along: tuple[Array | None, ...], fixed: PyTree, flat: bool = False
) -> PyTree:
    """fn(module, along, fixed), whose derivative with respect to the parameters of `module` is a small matrix.

    Each answer's row i may depend on all parameters, but of `along` on row i alone. Pushing 100 tangents
    through 200 operations a row reads and writes memory 20,000 times a row; here k columns are computed once
    and each tangent costs k products.

    **Arguments:**

    - `fn`: (module, along, fixed) -> arrays of shape (n,).
    - `module`: its `param()` leaves are differentiated by columns.
    - `along`: arrays of shape (n,); `None` for those that there are not.
    - `fixed`: anything else that fn needs.
    - `flat`: leave out second derivatives. A fit by Gauss-Newton never needs them, and they take longer to
      compile than all the rest.
    """
    free, rest = eqx.partition(module, free_spec(module, parameters(module)))
    theta, unravel = jfu.ravel_pytree(free)

    there = [k for k, array in enumerate(along) if array is not None]

    def of(theta: Array, arrays: tuple[Array, ...], others: PyTree) -> PyTree:
        rest, fixed = others
        full: list[Array | None] = [None] * len(along)
        for k, array in zip(there, arrays, strict=True):
            full[k] = array
        return fn(eqx.combine(unravel(theta), rest), tuple(full), fixed)

    return _columns(theta, tuple(along[k] for k in there), (rest, fixed), fn=of, flat=flat)


@eqx.filter_custom_jvp
def _columns(theta: Float[Array, " k"], along: tuple[Array, ...], others: PyTree, *, fn: Any, flat: bool) -> PyTree:
    return fn(theta, along, others)


@_columns.def_jvp
def _columns_jvp(primals: Any, tangents: Any, *, fn: Any, flat: bool) -> tuple[PyTree, PyTree]:
    theta, along, others = lax.stop_gradient(primals) if flat else primals
    d_theta, d_along, d_others = tangents
    out, push = jax.linearize(lambda theta, along: fn(theta, along, others), theta, along)
    out = fn(*primals) if flat else out
    k = theta.size

    def column(unit: Array) -> PyTree:
        return push(unit[:k], tuple(jnp.full_like(a, unit[k + i]) for i, a in enumerate(along)))

    # a loop, whose results XLA must write down: it would compute every sine anew for each tangent that uses them
    columns = lax.map(column, jnp.eye(k + len(along), dtype=theta.dtype))
    parts = []
    if d_theta is not None:
        parts.append(jtu.tree_map(lambda c: d_theta @ c[:k], columns))
    for i, moved in enumerate(d_along):
        if moved is not None:
            parts.append(jtu.tree_map(lambda c: c[k + i] * moved, columns))  # noqa: B023
    if any(leaf is not None for leaf in jtu.tree_leaves(d_others)):
        parts.append(eqx.filter_jvp(lambda o: fn(theta, along, o), (others,), (d_others,))[1])
    total = jtu.tree_map(jnp.zeros_like, out)
    return out, jtu.tree_map(lambda *x: sum(x[1:], x[0]), *parts) if parts else total
