"""Whether JAX is tracing a value, and what is said where a user's function asks of a traced value what it cannot tell.

A traced value stands for numbers that are not known yet: inside `jax.jit`, `jax.vmap` and `jax.grad`, and wherever a
fit is compiled. Checks on the host, warnings and saved files need numbers, so doors that offer them ask `traced` first;
no other file asks JAX itself. Whoever calls a user's model or function turns JAX's own complaints into advice with
`untraceable`.
"""

import jax
import jax.tree_util as jtu

from ._typing import Tree

# JAX raises a plain TypeError for these; its text is all that tells them apart
_COUNTED = ("converted to a scalar index", "Shapes must be 1D sequences of concrete values")


def is_traced(value: object) -> bool:
    """True for one value that JAX is tracing."""
    return isinstance(value, jax.core.Tracer)


def traced(tree: Tree) -> bool:
    """True where JAX is tracing any leaf of a tree: its numbers cannot be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jtu.tree_leaves(tree))


def untraceable(error: TypeError, who: str, aside: str = "") -> TypeError:
    """What to raise in place of an error of JAX: who did what to a traced value, and what to write instead.

    **Arguments:**

    - `error`: what the call of a user's function raised.
    - `who`: that function, as its author knows it.
    - `aside`: one more remedy, where the value may have been meant as no parameter.

    **Returns:** the error to raise; `error` itself where it has nothing to do with tracing.
    """
    if isinstance(error, jax.errors.TracerBoolConversionError):
        return TypeError(
            f"{who} decides by the value of an array or a parameter (if, while, and, or, min, max), which is not known "
            f"while a program is compiled: use jnp.where(condition, a, b), jnp.minimum or jax.lax.cond{aside}"
        )
    if isinstance(error, jax.errors.TracerIntegerConversionError) or any(text in str(error) for text in _COUNTED):
        return TypeError(
            f"{who} counts or indexes by the value of an array or a parameter (range(), a list's [ ], a shape), which "
            "is not known while a program is compiled: count by a fixed whole number and switch terms by jnp.where, or "
            f"pick elements by jnp.take{aside}"
        )
    if isinstance(error, jax.errors.TracerArrayConversionError | jax.errors.ConcretizationTypeError):
        return TypeError(
            f"{who} hands an array or a parameter to NumPy or Python (np.exp, math.exp, float(), int()), which cannot "
            "follow it while a program is compiled: use the function of the same name in jax.numpy"
        )
    return error
