"""The noise that residuals hold: the most probable realisation of each process, with its error.

Red noise, noise of dispersion and jitter are no errors of single TOAs but signals, of which a fit takes the most
probable course into account without showing it. Here it is shown, so that residuals can be looked at without it, or
it without the rest. Plots, reports and researchers call `noise_realisation`.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import Module, element_names, free_spec, leaf_values
from ...core.linalg import cholesky, solve_factored, svd_square
from .._anchor import AnchoredTOAs, tied
from .._components import TimingNoise
from .._fit import TimingSolution, bare
from .._jacobian import linearised
from .._model import TimingModel, elements
from .._toas import TOAs
from .whitened import ordered

_LOST = 10.0  # roundings of a Fisher matrix within which a direction is lost


class Realised(Module):
    """The most probable course of a process at n TOAs, s, and its standard error, s, shape (n,)."""

    value: Float[Array, " n"]
    std: Float[Array, " n"]


class NoiseRealisation(Module):
    """What each process of correlated noise adds to n TOAs; `None` where the par file has no such process.

    - `red`: noise of the spin (TNRED, RNAMP). `dm`, `chromatic`, `wind`: noise of dispersion, of the chromatic
      measure and of the solar wind, at the frequency of each TOA. `ecorr`: the jitter of each epoch.
    - `total`: all of them together.
    """

    red: Realised | None
    dm: Realised | None
    chromatic: Realised | None
    wind: Realised | None
    ecorr: Realised | None
    total: Realised

    @property
    def parts(self) -> dict[str, Realised]:
        """The processes that there are, by name, without the total."""
        found = {name: getattr(self, name) for name in ("red", "dm", "chromatic", "wind", "ecorr")}
        return {name: part for name, part in found.items() if part is not None}


def noise_realisation(model: TimingModel | TimingSolution, toas: TOAs) -> NoiseRealisation:
    """Find the most probable realisation of all correlated noise, and how well it is known.

    K C^-1 (r - c) of a process with the covariance K, C being the covariance of all noise, r the residuals and c their
    generalised mean (van Haasteren and Vallisneri 2014, Phys. Rev. D 90, eq. 26); at a solution it is what generalised
    least squares finds with the amplitudes of all modes as parameters, as PINT's `noise_resids`. The variance is
    K - K C^-1 K, and for a solution K C^-1 M S M^T C^-1 K more, M being the derivatives with what was fitted, S their
    covariance: slow red noise cannot be told from F0 and F1. Where the data do not determine all of them, S is that of
    the directions that they do.

    **Arguments:** `model`: a solution, with its fitted noise, or a model, whose phase offset alone is uncertain then;
    `toas`: n TOAs.

    **Returns:** a `NoiseRealisation`, in s and in the order of the TOAs. Where all noise is white it is 0.

    **Raises:** `ValueError` as `timing.residuals`.
    """
    start = model.model if isinstance(model, TimingSolution) else model
    data, order = tied(start, toas)
    fitted = model.noise if isinstance(model, TimingSolution) else None
    noise = data.noise if fitted is None else fitted
    assert isinstance(noise, TimingNoise)
    ready = (bare(start), data, noise)
    if isinstance(model, TimingSolution):
        rows, covariance = _derivatives(data, model)
        values, variances = _realised(*ready, rows, covariance)
    else:
        values, variances = _realised(*ready, None, None)
    counts = {"red": noise.frequency.size, "ecorr": bool(noise.ECORR.size)}
    there = {name: bool(counts.get(name, getattr(noise, name, None) is not None)) for name in _PROCESSES}
    rest = len(toas)

    def part(k: int) -> Realised:
        return Realised(ordered(values[k], order, rest), ordered(jnp.sqrt(variances[k]), order, rest))

    parts = {name: part(k) if there[name] else None for k, name in enumerate(_PROCESSES)}
    return NoiseRealisation(**parts, total=part(len(_PROCESSES)))


_PROCESSES = ("red", "dm", "chromatic", "wind", "ecorr")


def _derivatives(
    data: AnchoredTOAs, solution: TimingSolution
) -> tuple[Float[Array, "p n"], Float[Array, "p p"] | None]:
    """(derivatives of the residuals with each parameter of the timing model that was fitted, their covariance).

    `None` for the covariance where the data do not determine all of them.
    """
    model = solution.model
    spots = dict(zip(solution.names, solution.places, strict=True))
    spots |= {name: k for k, name in enumerate(solution.fit.names) if name == "PHOFF"}
    named = dict(elements(model))
    leaves = tuple(dict.fromkeys(place.split("[")[0] for place, name in named.items() if name in spots))
    shapes = {leaf: value.shape for leaf, value in leaf_values(model) if leaf in leaves and value.size}
    every = [named[place] for leaf, shape in shapes.items() for place in element_names(leaf, shape)]
    kept = [k for k, name in enumerate(every) if name in spots]
    start = bare(model)
    rows = _columns(start, eqx.filter(start, free_spec(start, leaves)), data)[jnp.asarray(kept)]
    at = [spots[every[k]] for k in kept]
    matrix = np.asarray(solution.fit.covariance)[np.ix_(at, at)]
    # where a direction is lost the numbers that are left are none: that of the others is found anew
    return rows, jnp.asarray(matrix) if np.isfinite(matrix).all() else None


@eqx.filter_jit
def _columns(model: TimingModel, free: TimingModel, data: AnchoredTOAs) -> Float[Array, "p n"]:
    return linearised(model, free, data)[1]


@eqx.filter_jit
def _realised(
    model: TimingModel,
    data: AnchoredTOAs,
    noise: TimingNoise,
    rows: Float[Array, "p n"] | None,
    covariance: Float[Array, "p p"] | None,
) -> tuple[Float[Array, "k n"], Float[Array, "k n"]]:
    """(realisations, variances) of each process and of their total, in the order of the epochs."""
    mask = data.mask
    timed = mask if data.measures is None else mask & ~data.measures
    return realised(noise, mask, timed, model.residual(data), rows, covariance)


def realised(
    noise: TimingNoise,
    mask: Array,
    timed: Array,
    residual: Float[Array, " n"],
    rows: Float[Array, "p n"] | None = None,
    covariance: Float[Array, "p p"] | None = None,
) -> tuple[Float[Array, "k n"], Float[Array, "k n"]]:
    """What `noise_realisation` gives, for rows in the order of the epochs.

    With u an epoch and J its jitter, (N + J u u^T)^-1 = N^-1 - N^-1 u g u^T N^-1, g = J / (1 + J u^T N^-1 u); modes are
    scaled by their priors, so that what is solved is 1 + something whatever the amplitudes. Where the parameters of the
    timing model move by d, residuals move by `rows`^T d, and with them the amplitudes and what they leave to an epoch.
    """
    ready, epoch, epochs = noise.prepare(mask), noise.epoch, noise.jitter.shape[0]
    weight, gain = ready.inverse**2, ready.gain
    ones = jnp.where(timed, 1.0, 0.0)
    modes = jnp.where(mask[None, :], noise.modes().T * jnp.sqrt(noise.power())[:, None], 0.0)

    def jitter_of(x: Float[Array, "q n"]) -> Float[Array, "q n"]:
        """The most probable jitter of each TOA's epoch where the residuals are `x` and nothing else is in them."""
        if not epochs:
            return jnp.zeros_like(x)
        return jax.vmap(lambda row: (gain * jax.ops.segment_sum(weight * row, epoch, epochs))[epoch])(x)

    def solve(x: Float[Array, "q n"]) -> Float[Array, "q n"]:
        """Apply the inverse of N + U J U^T."""
        return weight[None, :] * (x - jitter_of(x))

    reduced = solve(modes)
    few = jnp.eye(modes.shape[0]) + modes @ reduced.T
    factor = cholesky(few)[0] if few.size else few

    def amplitudes(x: Float[Array, "q n"]) -> Float[Array, "m q"]:
        """The most probable amplitudes of the scaled modes for residuals `x`."""
        return _solved(factor, reduced @ x.T)

    flat = solve(ones[None, :])[0] - amplitudes(ones[None, :])[:, 0] @ reduced
    level = flat @ jnp.where(mask, residual, 0.0) / (flat @ ones)
    rows = jnp.where(mask[None, :], ones[None, :] if rows is None else rows, 0.0)
    centred = jnp.where(mask, residual - level * ones, 0.0)
    found, moved = amplitudes(centred[None, :])[:, 0], amplitudes(rows)
    if covariance is None:
        covariance = _of_what_is_determined((solve(rows) - moved.T @ reduced) @ rows.T)
    # of the amplitudes, and with the timing model, whose errors they share
    inner = _solved(factor, jnp.eye(modes.shape[0])) + moved @ covariance @ moved.T
    cross = moved @ covariance

    def spread(of_modes: Float[Array, "m n"], of_rows: Float[Array, "p n"]) -> Float[Array, " n"]:
        """The variance of A^T amplitudes + B^T parameters at each TOA."""
        mixed = inner @ of_modes + 2 * cross @ of_rows
        return jnp.sum(of_modes * mixed, axis=0) + jnp.sum(of_rows * (covariance @ of_rows), axis=0)

    values, variances = [], []
    for start, stop in _cuts(noise):
        basis = modes[start:stop]
        values.append(found[start:stop] @ basis)
        variances.append(jnp.sum(basis * (inner[start:stop, start:stop] @ basis), axis=0))
    red = found @ modes
    jitter = jitter_of((centred - red)[None, :])[0]
    # what a mode or a parameter adds to the residuals, its epoch takes up in part
    taken, shared = jitter_of(modes), jitter_of(rows)
    own = gain[epoch] if epochs else jnp.zeros_like(red)
    values += [jitter, red + jitter]
    variances += [own + spread(-taken, shared), own + spread(modes - taken, shared)]
    return jnp.stack(values), jnp.maximum(jnp.stack(variances), 0.0)


def _of_what_is_determined(information: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """The inverse of a Fisher matrix in the directions that the data determine, 0 in the others."""
    diagonal = jnp.diagonal(information)
    scale = jnp.where(diagonal > 0, 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0)), 0.0)
    values, vectors = svd_square(information * scale[:, None] * scale[None, :])
    known = values > _LOST * jnp.finfo(values.dtype).eps * information.shape[0] * jnp.max(values)
    inverse = jnp.where(known, 1 / jnp.where(known, values, 1.0), 0.0)
    return (vectors * inverse[None, :]) @ vectors.T * scale[:, None] * scale[None, :]


def _solved(factor: Float[Array, "m m"], rhs: Float[Array, "m q"]) -> Float[Array, "m q"]:
    """What L L^T is to be multiplied by for `rhs`; of no modes nothing."""
    return solve_factored(factor, rhs) if factor.size else rhs


def _cuts(noise: TimingNoise) -> list[tuple[int, int]]:
    """Where the modes of red, dispersion, chromatic and wind noise are among all of them."""
    sizes = [noise.frequency.shape[0]]
    sizes += [0 if one is None else one.frequency.shape[0] for one in (noise.dm, noise.chromatic, noise.wind)]
    ends = np.cumsum([0, *sizes]).tolist()
    return list(itertools.pairwise(ends))
