"""What a posterior predicts: the model of each draw, data as they would be measured again, and where the data fall.

Of a noise only `standardise` is asked, so that this holds for independent and correlated rows alike: in units of the
noise, rows are independent and normal. `Posterior` calls these, and its check asks how often the data lie where they
are expected.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.scipy.special as jsp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from ..core import AbstractLikelihood, AbstractNoise, Linear, Poisson, Scalar, free_spec, opened
from ..datasets import AbstractDataset, Dataset
from ..fitting import Fitted, compiled
from ..parallel import require_memory

if TYPE_CHECKING:
    from ._posterior import Posterior
else:
    Posterior = Any  # which imports this module

BATCH = 64  # draws at a time, so that memory does not grow with their number
_NUMBERS = 1 << 22  # of rows and draws, that are looked at to see where the data fall
_FEWEST = 50  # draws that tell it all the same


class Asked(NamedTuple):
    """What a program needs to know of a posterior.

    - `fitted`, `data`, `likelihood`: of the fit. `y`: (draws, p).
    """

    fitted: Fitted
    data: AbstractDataset
    likelihood: AbstractLikelihood | None
    y: Float[Array, "draws p"]


class Told(NamedTuple):
    """What is part of the program: names of the free parameters, and whether the noise's scale is integrated."""

    free: tuple[str, ...]
    free_scale: bool

    @property
    def frees_noise(self) -> bool:
        """True where draws differ in parameters of the noise."""
        return any(name.startswith("noise.") for name in self.free)


def asked(posterior: Posterior, most: int | None) -> tuple[Asked, Told]:
    """A posterior as a program takes it, with all of its draws or so many of them, evenly chosen."""
    start = posterior.start
    flat = posterior.draws.reshape(-1, posterior.draws.shape[-1])
    if most is not None and most < flat.shape[0]:
        flat = flat[np.linspace(0, flat.shape[0] - 1, most).astype(int)]
    told = Told(tuple(name for name, _ in start.free), posterior.free_scale)
    return Asked(start.fitted, posterior.data, start.terms.likelihood, flat), told


def predicted(posterior: Posterior, fn: Callable[[Any], Array] | None, most: int | None) -> Array:
    """fn(model) of the draws; the model at the inputs of the data by default."""
    if fn is None and not isinstance(posterior.data, Dataset):
        raise ValueError(f"{type(posterior.data).__name__} has no inputs at which the model could be called: give fn=")
    these, told = asked(posterior, most)
    _check_room(these)
    return compiled(_predicted, (these,), (told, fn))


def replicated(posterior: Posterior, key: Array, most: int | None) -> Array:
    """Data drawn again about the model of each draw."""
    if not isinstance(posterior.data, Dataset) or not scatter_is_known(posterior):
        raise ValueError(
            "data can be drawn again for a Dataset with Gaussian noise, or with the likelihood Poisson, and without a "
            "robust loss: use predict() for the model alone"
        )
    these, told = asked(posterior, most)
    _check_room(these)
    seed = jax.random.bits(key, (2,), jnp.uint32)
    return compiled(_replicated, (these, seed), (told,))


def _check_room(these: Asked) -> None:
    """Raise `MemoryError` where the rows of all draws cannot be held."""
    draws, rows = these.y.shape[0], these.data.mask.shape[0]
    size = 2 * draws * rows * these.y.dtype.itemsize
    require_memory(size, f"{draws} draws at {rows} rows", "give most=, a number of draws, or a function fn= of less")


def scatter_is_known(posterior: Posterior) -> bool:
    """True where the likelihood says how data scatter about the model."""
    terms = posterior.start.terms
    base = posterior.data.noise if terms.likelihood is None else terms.likelihood
    return isinstance(terms.loss, Linear) and isinstance(base, AbstractNoise | Poisson)


def places_of_data(posterior: Posterior) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """(probability that data lie below those observed, for each row in units of the noise; rows that count).

    Uniform where model and noise are right: the probability integral transform (Gelman et al., BDA3, section 6.3), for
    counts randomised within their own probability.
    """
    rows = max(posterior.data.mask.shape[0], 1)
    these, told = asked(posterior, max(_FEWEST, min(1000, _NUMBERS // rows)))
    places = compiled(_places, (these,), (told,))
    return np.asarray(places), np.asarray(posterior.data.mask)


class Here(NamedTuple):
    """Model, data and likelihood of one draw."""

    model: Any
    data: AbstractDataset
    likelihood: AbstractLikelihood


def at_draw(these: Asked, told: Told) -> Callable[[Array], Here]:
    """A function of y: model, data and likelihood of the draw."""
    parts, rest = eqx.partition(these.fitted, free_spec(these.fitted, told.free))
    unravel = jfu.ravel_pytree(parts)[1]
    data = opened(these.data)

    def at(y: Array) -> Here:
        fitted = opened(eqx.combine(unravel(y), rest))
        own = data.noise if these.likelihood is None else opened(these.likelihood)
        return Here(fitted.model, data, own if fitted.noise is None else fitted.noise)

    return at


def _predicted(these: Asked, told: Told, fn: Callable[[Any], Array] | None) -> Array:
    at = at_draw(these, told)

    def one(y: Array) -> Array:
        here = at(y)
        return fn(here.model) if fn is not None else here.model(here.data.inputs)  # type: ignore[attr-defined]

    return lax.map(one, these.y, batch_size=BATCH)


def _places(these: Asked, told: Told) -> Float[Array, " n"]:
    at = at_draw(these, told)

    def one(y: Array) -> Array:
        here = at(y)
        residual, mask = here.data.residual(here.model), here.data.mask
        if isinstance(here.likelihood, Poisson):
            return _below_counts(here.likelihood.counts, residual)
        z = here.likelihood.standardise(residual, mask)
        return _below(-z, jnp.sum(mask)) if told.free_scale else jsp.ndtr(-z)

    return jnp.mean(lax.map(one, these.y, batch_size=BATCH), axis=0)


def _below(z: Float[Array, " n"], count: Int[Array, ""]) -> Float[Array, " n"]:
    """Student's t with as many degrees of freedom as rows: a normal whose scale was integrated, at these parameters."""
    n = count.astype(z.dtype)
    square = z * z / (jnp.sum(z * z) / n)
    tail = jsp.betainc(n / 2, jnp.asarray(0.5, z.dtype), n / (n + square)) / 2
    return jnp.where(z > 0, 1 - tail, tail)


def _below_counts(counts: Float[Array, " n"], residual: Float[Array, " n"]) -> Float[Array, " n"]:
    mu = jnp.maximum(residual + counts, jnp.finfo(counts.dtype).tiny)
    less = jnp.where(counts > 0, jsp.gammaincc(jnp.maximum(counts, 1), mu), 0)
    share = jax.random.uniform(jax.random.key(0), counts.shape, counts.dtype)
    return less + share * (jsp.gammaincc(counts + 1, mu) - less)


def _replicated(these: Asked, seed: UInt32[Array, "2"], told: Told) -> Array:
    at = at_draw(these, told)

    def one(y: Array, key: Array) -> Array:
        here = at(y)
        residual = here.data.residual(here.model)
        if isinstance(here.likelihood, Poisson):
            return jax.random.poisson(key, residual + here.likelihood.counts).astype(y.dtype)
        assert isinstance(here.likelihood, AbstractNoise)
        scale = _scale(here, residual, key) if told.free_scale else jnp.ones((), y.dtype)
        mean = residual + here.data.observed  # type: ignore[attr-defined]
        return mean + scale * scattered(here.likelihood, here.data.mask, jax.random.fold_in(key, 1))

    keys = jax.random.split(jax.random.wrap_key_data(seed, impl="threefry2x32"), these.y.shape[0])
    return lax.map(lambda pair: one(*pair), (these.y, keys), batch_size=BATCH)


def _scale(here: Here, residual: Float[Array, " n"], key: Array) -> Scalar:
    """The scale of the noise drawn given the parameters: sigma^2 = chi2 / chi2_n."""
    z = here.likelihood.standardise(residual, here.data.mask)
    half = jnp.sum(here.data.mask).astype(z.dtype) / 2
    return jnp.sqrt(jnp.sum(z * z) / 2 / jax.random.gamma(key, half, dtype=z.dtype))


def scattered(noise: AbstractNoise, mask: Bool[Array, " n"], key: Array) -> Float[Array, " n"]:
    """Noise of this distribution; 0 where masked."""
    log_variance = noise.log_variance(mask)
    white = jax.random.normal(key, mask.shape)
    if log_variance is not None:
        return jnp.where(mask, jnp.exp(log_variance / 2) * white.astype(log_variance.dtype), 0)
    # whitening is linear: its matrix by its columns, with ones for the rows that it leaves out
    eye = jnp.eye(mask.size, dtype=white.dtype)
    whiten = jax.vmap(lambda column: noise.whiten(column, mask), 1, 1)(eye) + jnp.diag(jnp.where(mask, 0.0, 1.0))
    return jnp.where(mask, jnp.linalg.solve(whiten, white), 0)
