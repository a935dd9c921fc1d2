"""furax as a peer: the likelihood of spectral parameters and its gradient, a parameter of its own in each pixel."""

import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_NAMES = {"dust.beta": "beta_dust", "dust.temp": "temp_dust", "sync.beta": "beta_pl"}
_BLOCK = 2048  # pixels; the fastest of 128 to 49152, a third faster than all at once


def value_and_gradient(nu: Array, maps: Array, sigma: Array) -> Callable[[Mapping[str, float]], Any]:
    """Parameters by our names -> (-d^T N^-1 A s of each block of pixels, its gradients in each pixel), compiled.

    **Arguments:** `maps`: (f, 3, pixel). `sigma`: (f, 3). Twice our `minus_log_like`; dust at 353 GHz, synchrotron at
    30, amplitudes in K_RJ there, which the likelihood knows nothing of.
    """
    from furax import DiagonalOperator
    from furax.obs import negative_log_likelihood
    from furax.obs.stokes import StokesIQU

    size = math.gcd(_BLOCK, maps.shape[2])
    patches = {f"{name}_patches": np.arange(size) for name in _NAMES.values()}

    def cost(values: Mapping[str, Array], block: Array) -> Array:
        data = StokesIQU(*(block[:, k] for k in range(3)))
        noise = DiagonalOperator(sigma.T[:, :, None] ** 2, in_structure=data.structure)
        parameters = {theirs: values[ours] for ours, theirs in _NAMES.items()}
        return negative_log_likelihood(parameters, nu, noise, data, 353.0, 30.0, patches, analytical_gradient=True)

    @jax.jit
    def each(values: Mapping[str, Array], blocks: Array) -> Any:
        return jax.lax.map(lambda one: jax.value_and_grad(cost)(*one), (values, blocks))

    blocks = jnp.moveaxis(maps.reshape(*maps.shape[:2], -1, size), 2, 0)
    return lambda values: each({k: jnp.full((len(blocks), size), v) for k, v in values.items()}, blocks)


def missing() -> str:
    """Why there is no furax here; empty where there is."""
    if sys.version_info < (3, 12):
        return "furax not run: it needs Python 3.12"
    return "" if importlib.util.find_spec("furax") else "furax not run: it is not installed"
