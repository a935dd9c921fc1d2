"""The No-U-Turn sampler of numpyro as two functions of one chain: `begin` and `advance`.

numpyro's kernel adapts step size and mass matrix and builds the trees; here it is given the potential of a `Target` and
told what the house knows: that z is whitened already, so that trees are short and a diagonal mass matrix will do.
`_lanes` maps these over chains. numpyro is an extra, and imported inside: `pip install 'jaxsci[sampling]'`.
Hoffman and Gelman 2014, JMLR 15, 1593; Betancourt 2017, arXiv:1701.02434.
"""

import contextlib
import importlib
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from ..core import AnyArray, Scalar, Tree
from ._target import AbstractTarget


class Settings(NamedTuple):
    """What is part of the compiled program of a sampler, beside the model.

    - `num_warmup`: draws that adapt and are dropped. `target_accept`: of the adaptation of the step size.
    - `max_tree_depth`: a tree has at most 2^depth - 1 leapfrog steps. `segment`: draws of one call.
    """

    num_warmup: int
    target_accept: float
    max_tree_depth: int
    segment: int


class Trace(NamedTuple):
    """What is kept of some draws of one chain, or of many: in lanes on the host.

    - `y`: the parameters, within their bounds. `log_density`: over z, less a constant. `energy`: Hamiltonian.
    - `diverging`: the integrator left the energy surface. `num_steps`: leapfrog steps of the tree.
    - `accept_prob`: mean acceptance over the tree.
    """

    y: Float[AnyArray, "*lanes draws p"]
    log_density: Float[AnyArray, "*lanes draws"]
    energy: Float[AnyArray, "*lanes draws"]
    diverging: Bool[AnyArray, "*lanes draws"]
    num_steps: Int[AnyArray, "*lanes draws"]
    accept_prob: Float[AnyArray, "*lanes draws"]


def numpyro_hmc() -> types.ModuleType:
    """numpyro's module of kernels.

    **Raises:** `ImportError` with the line that installs it.
    """
    try:
        return importlib.import_module("numpyro.infer.hmc")
    except ImportError as error:
        raise ImportError(
            "sampling needs numpyro and arviz, which are not installed: pip install 'jaxsci[sampling]'"
        ) from error


def begin(target: AbstractTarget, key: UInt32[Array, "2"], jitter: Scalar, settings: Settings) -> PyTree:
    """The state of a chain that starts `jitter` whitened standard deviations from the fit's answer.

    0 starts at the answer itself, and so does a chain that would start where the density is no number.
    """
    to_start, to_kernel = jax.random.split(key)
    origin = _wide(target.origin)
    z = origin + _wide(jitter) * jax.random.normal(to_start, origin.shape)
    # a step away the model may be no number, as a rate below 0 is none; at the fit's answer it is one
    z = jnp.where(jnp.isfinite(target.potential(z.astype(target.origin.dtype))), z, origin)
    with _lenient():
        return _kernels(target, z, settings, to_kernel)[0]


def advance(target: AbstractTarget, state: PyTree, settings: Settings) -> tuple[PyTree, Trace]:
    """The state after `settings.segment` draws more, and the draws."""
    with _lenient():
        # numpyro makes its step beside a first state, which is thrown away here
        known = importlib.import_module("numpyro.infer.util").ParamInfo(state.z, state.potential_energy, state.z_grad)
        step = _kernels(target, known, settings, state.rng_key)[1]

        def draw(state: Any, _: None) -> tuple[Any, Trace]:
            state = step(state)
            y = target.constrain(state.z.astype(target.origin.dtype))
            steps = state.num_steps.astype(jnp.int32)
            seen = (-state.potential_energy, state.energy, state.diverging, steps, state.accept_prob)
            return state, Trace(y, *seen)

        return lax.scan(draw, state, None, length=settings.segment)


def _kernels(target: AbstractTarget, z: Tree, settings: Settings, key: Array) -> tuple[Any, Callable[[Any], Any]]:
    def potential(z: Array) -> Array:
        return _wide(target.potential(z.astype(target.origin.dtype)))

    init, step = numpyro_hmc().hmc(potential, algo="NUTS")
    state = init(
        z,
        num_warmup=settings.num_warmup,
        target_accept_prob=settings.target_accept,
        max_tree_depth=settings.max_tree_depth,
        trajectory_length=None,
        forward_mode_differentiation=_forward(potential, target.origin),
        rng_key=key,
    )
    return state, step


def _forward(potential: Callable[[Array], Array], z: Array) -> bool:
    """True where the model has forward derivatives alone, as one with a loop of unknown length."""
    try:
        jax.eval_shape(jax.grad(potential), z)
    except ValueError as error:
        if "Reverse-mode differentiation does not work" not in str(error):
            raise
        return True
    return False


def _wide(x: Array) -> Array:
    """In JAX's default precision, in which numpyro draws momenta and adds up energies, whatever that of the data."""
    return x.astype(jnp.result_type(float))


@contextlib.contextmanager
def _lenient() -> Iterator[None]:
    """numpyro adds integers to floats: it is traced under JAX's standard promotion, whatever the caller's."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
