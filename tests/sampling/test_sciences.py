"""Answers of the sciences as posteriors: a pulsar, a patch of sky, a curve with a closed loop in its model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from posteriors import drawn

import jaxsci as js
from jaxsci.sampling import ess_mean


@pytest.mark.slow
def test_a_pulsar_in_the_names_of_its_par_file():
    model, toas = js.timing.bundled("NGC6440E")
    solution = js.timing.fit(model, toas)
    posterior = drawn(solution, toas)
    assert set(solution.names) < set(posterior.names)
    for name in solution.names:
        x = np.asarray(posterior.samples(name))
        assert x.std() == pytest.approx(solution.std[name], rel=0.15) or name == "RAJ"
        assert abs(x.mean() - solution.offsets[name]) < 0.2 * x.std()
    assert posterior.check()


@pytest.mark.slow
def test_a_pulsar_with_free_noise():
    """J0931-1902: white noise and ECORR at their bounds, 24 parameters; errors of the model grow with the noise's."""
    model, toas = js.timing.bundled("J0931-1902")
    noise = ("noise.EFAC", "noise.EQUAD", "noise.ECORR")
    solution = js.timing.fit(model, toas, free=(*model.par.free, *noise))
    posterior = js.sampling.sample(solution, toas, key=jax.random.key(0))
    checked = posterior.check()
    assert {failure.criterion for failure in checked.failed} <= {"distance"}, checked
    assert jnp.all(posterior.samples("noise.ECORR") >= 0)


@pytest.mark.slow
def test_a_pulsar_as_plain_numpyro_samples_it():
    """Ten times as many draws of one chain over all parameters, by the likelihood of `timing` itself."""
    from numpyro.infer import MCMC, NUTS

    from jaxsci import timing

    model, toas = timing.bundled("J0931-1902")
    solution = timing.fit(model, toas)
    posterior = js.sampling.sample(solution, toas, key=jax.random.key(0))
    data, names = timing.anchor(model, toas)[0], solution.names
    best = np.array([solution.offsets[name] for name in names])
    error = np.array([solution.std[name] for name in names])

    def potential(x):
        moved = model.with_offsets(dict(zip(names, best + error * x, strict=True)))
        return -timing.log_likelihood(moved, data)

    kernel = NUTS(potential_fn=potential, dense_mass=True)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        chain = MCMC(kernel, num_warmup=1500, num_samples=10_000, progress_bar=False)
        chain.run(jax.random.key(1), init_params=jnp.zeros(len(names)))
    plain = np.asarray(chain.get_samples())
    for k, name in enumerate(names):
        ours = (np.asarray(posterior.samples(name), float) - best[k]) / error[k]
        theirs = plain[None, :, k]
        for of in (lambda x: x, lambda x: x**2):
            gap = of(ours).mean() - of(theirs).mean()
            noise = np.hypot(*(of(x).std() / np.sqrt(ess_mean(of(x))) for x in (ours, theirs)))
            assert abs(gap) < 4.5 * noise, name


@pytest.mark.slow
def test_a_sky_by_its_spectral_likelihood():
    from jaxsci import compsep

    nu = np.array([40.0, 100.0, 145.0, 220.0, 280.0, 353.0])
    mixing = compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(nu0=353.0))
    rng = np.random.default_rng(0)
    amplitudes = np.stack([rng.normal(0, 30, (2, 48)), rng.normal(0, 60, (2, 48))])
    maps = np.einsum("fc,csp->fsp", np.asarray(mixing.eval(jnp.asarray(nu))), amplitudes) + rng.normal(0, 2, (6, 2, 48))
    data = compsep.SkyDataset.of(compsep.Sky.of(nu, maps, np.full(6, 0.25)))
    solution = js.fit(mixing, data, free=("dust.beta",))
    posterior = js.sampling.sample(solution, data, key=jax.random.key(0))
    for name, std in solution.std.items():
        x = np.asarray(posterior.samples(name))
        assert x.std() == pytest.approx(float(std), rel=0.2), name
        assert abs(x.mean() - float(solution.values[name])) < x.std()
    assert not {failure.criterion for failure in posterior.check().failed} & {"r_hat", "ess_bulk", "divergences"}


class Decay(js.AbstractModel):
    """exp(-rate t) by a loop of unknown length, which has forward derivatives alone."""

    rate: js.Scalar = js.param(bounds=(0, None))

    def __call__(self, t):
        def step(state):
            time, value = state
            return time + 0.125, value - 0.125 * self.rate * value

        return jax.vmap(
            lambda end: jax.lax.while_loop(lambda state: state[0] < end, step, (jnp.zeros(()), jnp.ones(())))[1]
        )(t)


@pytest.mark.slow
def test_a_model_with_forward_derivatives_alone():
    t = np.arange(12) * 0.25
    data = js.Dataset(t, np.exp(-t) + 0.05 * np.random.default_rng(0).standard_normal(12), js.White(0.05))
    solution = js.fit(Decay(0.7), data)
    posterior = drawn(solution, data)
    assert np.asarray(posterior.samples("rate")).std() == pytest.approx(float(solution.std["rate"]), rel=0.15)
