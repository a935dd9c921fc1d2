"""What a researcher may get wrong in a call from Python, and what is said of it: one expression a row.

Each expression is evaluated as it stands on the page, among the names that its area has beside the package, in a
process without the checks of types that the tests put around every function: a user has none of those either. The
tests hold each message to the page, to the kind of its error, and to words of its own.
"""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Call:
    """A mistake: the `area` it belongs to, `what` it is, the expression, and the class of the error by name."""

    area: str
    what: str
    code: str
    error: str = "ValueError"


def _core() -> dict[str, Any]:
    """A decay, 20 rows of data, a model of a line."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxsci as js

    class Decay(js.AbstractModel):
        """A decay."""

        amp: js.Scalar = js.param()
        tau: js.Scalar = js.param(bounds=(0, None))

        def __call__(self, t: Any) -> Any:
            return self.amp * jnp.exp(-t / self.tau)

    def model_of(function: Callable[..., Any]) -> Any:
        """A model of one parameter k with this body."""

        class Mine(js.AbstractModel):
            k: js.Scalar = js.param()

            def __call__(self, t: Any) -> Any:
                return function(self.k, t)

        return Mine(1.0)

    x = np.linspace(0.1, 5.0, 20)
    y = 3 * np.exp(-x / 1.4) + 0.01 * np.sin(40 * x)
    return {
        "js": js, "np": np, "jnp": jnp, "jax": jax, "Decay": Decay, "model_of": model_of, "x": x, "y": y,
        "model": Decay(1.0, 1.0), "data": js.Dataset(x, y, js.White(0.1)),
        "few": js.Dataset(x[:7], y[:7], js.White(0.1)),
    }  # fmt: skip


@functools.cache
def _solved() -> dict[str, Any]:
    """The same with a solution."""
    names = _core()
    solution = names["js"].fit(names["model"], names["data"])
    return {**names, "solution": solution, "key": names["jax"].random.key(0)}


def _curvefit() -> dict[str, Any]:
    from jaxsci import curvefit

    names = _solved()

    def f(x: Any, a: Any, b: Any) -> Any:
        return a * names["jnp"].exp(-x / b)

    return {**names, "cf": curvefit, "f": f}


def _timing() -> dict[str, Any]:
    import numpy as np

    import jaxsci as js
    from jaxsci import timing

    model, toas = timing.bundled("NGC6440E")
    par = "PSR A\nRAJ 1:0:0\nDECJ 1:0:0\nF0 100 1\nPEPOCH 55000\nDM 1\n"
    parse = timing.TimingModel.parse
    return {"js": js, "np": np, "timing": timing, "model": model, "toas": toas, "par": par, "parse": parse}


def _compsep() -> dict[str, Any]:
    import numpy as np

    import jaxsci as js
    from jaxsci import compsep as cs

    nu = np.array([40.0, 68.0, 100.0, 140.0, 235.0, 402.0])
    mixing = cs.MixingMatrix(cmb=cs.CMB(), dust=cs.ModifiedBlackBody(), sync=cs.PowerLaw())
    instrument = cs.Instrument(nu, depth_p=np.full(6, 10.0), fwhm=np.full(6, 30.0))
    maps = np.random.default_rng(0).normal(size=(6, 2, 12))
    return {"js": js, "np": np, "cs": cs, "nu": nu, "mixing": mixing, "instrument": instrument, "maps": maps}


def _meanfield() -> dict[str, Any]:
    import jax.numpy as jnp
    import numpy as np

    from jaxsci import evolution as ev, meanfield as mf

    box = mf.Box(-3.0, 3.0)
    grid = mf.Grid(box, 30)
    ts, flat = np.linspace(0.0, 1.0, 11), np.full(30, 1 / 6)
    return {
        "np": np, "jnp": jnp, "ev": ev, "mf": mf, "box": box, "grid": grid, "ts": ts, "flat": flat,
        "sde": ev.SDE(lambda t, x: -x, 0.7), "crowd": ev.Ensemble(np.linspace(-1, 1, 50), key=1),
        "game": mf.MeanFieldGame(grid, ts, flat, diffusion=0.1),
    }  # fmt: skip


def _xpcs() -> dict[str, Any]:
    import jax.numpy as jnp
    import numpy as np

    from jaxsci import xpcs

    picture = np.array([[1, 1, 1, 0, 2], [1, 1, 1, 0, 2], [1, 1, 1, 2, 2], [1, 0, 0, 2, 2]])
    frames = np.random.default_rng(0).poisson(1.5, (40, 4, 5)).astype(np.uint8)
    geometry = xpcs.TransmissionGeometry(8.0, (2.0, 2.0), 5000.0, 0.075, (4, 5))
    t = jnp.geomspace(1e-3, 1, 20)
    g2 = (1 + 0.2 * jnp.exp(-2 * t / 0.05))[:, None] * jnp.ones((1, 3))
    curves = xpcs.Curves(t, g2, None, jnp.ones((20, 3), bool), jnp.array([0.01, 0.02, 0.03]))
    return {
        "np": np, "jnp": jnp, "xpcs": xpcs, "picture": picture, "frames": frames, "geometry": geometry,
        "curves": curves, "used": np.ones((4, 5), bool), "bins": xpcs.Labels.of(picture),
    }  # fmt: skip


NAMES: dict[str, Callable[[], dict[str, Any]]] = {
    "models": _core,
    "data": _core,
    "noise": _core,
    "fits": _core,
    "batches": _core,
    "curvefit": _curvefit,
    "sampling": _solved,
    "timing": _timing,
    "compsep": _compsep,
    "meanfield": _meanfield,
    "xpcs": _xpcs,
}
"""What each area's expressions find beside Python itself."""

CALLS = (
    Call("models", "a list for one number", "Decay([1.0, 2.0], 1.0)"),
    Call("models", "a text for a number", "Decay('1.0', 1.0)"),
    Call("models", "a complex number", "Decay(1j, 1.0)"),
    Call("models", "bounds the wrong way round", "js.param(bounds=(2, 1))"),
    Call("models", "bounds that are no pair", "js.param(bounds='positive')"),
    Call("models", "a bound that is NaN", "js.param(bounds=(float('nan'), 1))"),
    Call("models", "a unit that is no text", "js.param(unit=3)"),
    Call("models", "a name misspelt", "js.get(model, 'taau')"),
    Call("models", "a model without return", "js.fit(model_of(lambda k, t: None), data)"),
    Call("models", "a model that returns a text", "js.fit(model_of(lambda k, t: 'a'), data)"),
    Call("models", "NumPy in a model", "js.fit(model_of(lambda k, t: np.exp(-k * t)), data)", "TypeError"),
    Call("models", "an if on a parameter", "js.fit(model_of(lambda k, t: t if k > 0 else -t), data)", "TypeError"),
    Call("models", "a complex model", "js.fit(model_of(lambda k, t: 1j * k * t), data)"),
    Call("models", "whole numbers out of a model", "js.fit(model_of(lambda k, t: (k * t).astype(int)), data)"),
    Call("models", "another number of rows", "js.fit(model_of(lambda k, t: k * t[:5]), data)"),
    Call("data", "two lengths", "js.Dataset(x, y[:-1])"),
    Call("data", "a column in place of a row", "js.Dataset(x, y[:, None])"),
    Call("data", "a text", "js.Dataset(x, 'y.csv')"),
    Call("data", "a list of texts", "js.Dataset(x, ['a'] * 20)"),
    Call("data", "nothing observed", "js.Dataset(x, None)"),
    Call("data", "a mask of another length", "js.Dataset(x, y, mask=np.ones(19, bool))"),
    Call("data", "a mask of whole numbers", "js.Dataset(x, y, mask=np.ones(20, int))"),
    Call("data", "every row masked", "js.fit(model, js.Dataset(x, y, mask=np.zeros(20, bool)))"),
    Call("data", "no rows", "js.fit(model, js.Dataset(x[:0], y[:0]))"),
    Call("data", "NaN observed", "js.fit(model, js.Dataset(x, np.where(y < 1, np.nan, y)))"),
    Call("data", "NaN among the inputs", "js.fit(model, js.Dataset(np.where(x > 4, np.nan, x), y))"),
    Call("data", "padded to fewer rows", "js.pad(data, 3)"),
    Call("data", "padded to half a row", "js.pad(data, 30.5)"),
    Call("data", "stacked without padding", "js.stack([data, few])"),
    Call("data", "nothing to stack", "js.stack([])"),
    Call("noise", "a number for a noise", "js.Dataset(x, y, 0.1)"),
    Call("noise", "an array for a noise", "js.Dataset(x, y, np.full(20, 0.1))"),
    Call("noise", "an array for one sigma", "js.White(np.ones(20))"),
    Call("noise", "sigma of 0", "js.fit(model, js.Dataset(x, y, js.White(0.0)))"),
    Call("noise", "a negative sigma", "js.fit(model, js.Dataset(x, y, js.Diagonal(np.where(x > 4, -1.0, 1.0))))"),
    Call("noise", "sigmas of another length", "js.Dataset(x, y, js.Diagonal(np.ones(19)))"),
    Call("noise", "a covariance that is no square", "js.Dense(np.ones((20, 3)))"),
    Call("noise", "a factor for a covariance", "js.Dense(np.tril(np.ones((20, 20))))"),
    Call("noise", "a covariance that is none", "js.fit(model, js.Dataset(x, y, js.Dense(-np.eye(20))))"),
    Call("noise", "negative counts", "js.fit(model, js.Dataset(x, y, js.Poisson(np.where(x > 4, -1.0, 3.0))))"),
    Call("noise", "a robust loss of counts",
         "js.fit(model, js.Dataset(x, y, js.Poisson(np.ones(20))), loss=js.Huber())"),
    Call("noise", "a prior of no width", "js.Normal(1.0, 0.0)"),
    Call("noise", "a prior the wrong way round", "js.Uniform(2.0, 1.0)"),
    Call("noise", "a loss of negative scale", "js.Huber(-1.0)"),
    Call("fits", "model and data swapped", "js.fit(data, model)"),
    Call("fits", "a class for a model", "js.fit(Decay, data)"),
    Call("fits", "a function for a model", "js.fit(lambda t: t, data)"),
    Call("fits", "arrays for data", "js.fit(model, (x, y))"),
    Call("fits", "a free name misspelt", "js.fit(model, data, free=['taau'])"),
    Call("fits", "numbers for names", "js.fit(model, data, free=[0])"),
    Call("fits", "nothing free", "js.fit(model, data, free=[])"),
    Call("fits", "bounds of a misspelt name", "js.fit(model, data, bounds={'taau': (0, 1)})"),
    Call("fits", "bounds the wrong way round", "js.fit(model, data, bounds={'tau': (3, 1)})"),
    Call("fits", "bounds that are no pair", "js.fit(model, data, bounds={'tau': 3})"),
    Call("fits", "bounds in a list", "js.fit(model, data, bounds=[(0, 1), (0, 1)])"),
    Call("fits", "bounds in words", "js.fit(model, data, bounds={'tau': ('a', 'b')})"),
    Call("fits", "bounds of another shape", "js.fit(model, data, bounds={'tau': (np.zeros(3), np.ones(3))})"),
    Call("fits", "a prior of a misspelt name", "js.fit(model, data, priors={'taau': js.Normal(1.0, 1.0)})"),
    Call("fits", "a pair for a prior", "js.fit(model, data, priors={'tau': (1.0, 1.0)})"),
    Call("fits", "a start outside of its bounds, strictly", "js.fit(Decay(1.0, -1.0), data, strict=True)"),
    Call("fits", "a fixed value outside of its bounds", "js.fit(Decay(1.0, -1.0), data, free=['amp'])"),
    Call("fits", "a start that is NaN", "js.fit(Decay(float('nan'), 1.0), data)"),
    Call("fits", "a solver's name", "js.fit(model, data, solver='lm')"),
    Call("fits", "a solver's class", "js.fit(model, data, solver=js.TRF)"),
    Call("fits", "a negative tolerance", "js.TRF(rtol=-1.0)"),
    Call("fits", "a tolerance in words", "js.TRF(rtol='tight')"),
    Call("fits", "a learning rate below 0", "js.Adam(-1.0)"),
    Call("fits", "a loss's name", "js.fit(model, data, loss='huber')"),
    Call("fits", "no steps", "js.fit(model, data, max_steps=0)"),
    Call("fits", "steps and a half", "js.fit(model, data, max_steps=10.5)"),
    Call("fits", "a chunk of no whole rows", "js.fit(model, data, chunk=2.5)"),
    Call("fits", "names for truth values", "js.fit(model, data, active=['tau'])"),
    Call("fits", "a number for a mesh", "js.fit_batch(model, [data], mesh=2)"),
    Call("fits", "a solution that is not there", "js.Solution.load('none.jsci', model)", "FileNotFoundError"),
    Call("batches", "arrays for data sets", "js.fit_batch(model, [y, y])"),
    Call("batches", "a number for data sets", "js.fit_batch(model, 3)"),
    Call("batches", "as many models as they are not", "js.fit_batch([model] * 3, [data, data])"),
    Call("batches", "a shared name misspelt", "js.fit_batch(model, [data, data], shared=['taau'])"),
    Call("batches", "no steps", "js.fit_batch(model, [data, data], max_steps=0)"),
    Call("curvefit", "no function", "cf.curve_fit(3, x, y)"),
    Call("curvefit", "two lengths", "cf.curve_fit(f, x, y[:-1])"),
    Call("curvefit", "a start of another length", "cf.curve_fit(f, x, y, [1.0])"),
    Call("curvefit", "a start in words", "cf.curve_fit(f, x, y, ['a', 'b'])"),
    Call("curvefit", "nothing observed", "cf.curve_fit(f, x, None, [1.0, 1.0])"),
    Call("curvefit", "sigma of another length", "cf.curve_fit(f, x, y, [1.0, 1.0], np.ones(3))"),
    Call("curvefit", "NaN", "cf.curve_fit(f, x, np.where(y < 1, np.nan, y), [1.0, 1.0])"),
    Call("curvefit", "three bounds", "cf.curve_fit(f, x, y, [1.0, 1.0], bounds=(0, 1, 2))"),
    Call("curvefit", "bounds the wrong way round", "cf.curve_fit(f, x, y, [1.0, 1.0], bounds=([2, 2], [1, 1]))"),
    Call("curvefit", "a method misspelt", "cf.curve_fit(f, x, y, [1.0, 1.0], method='lmm')"),
    Call("curvefit", "a loss misspelt", "cf.curve_fit(f, x, y, [1.0, 1.0], loss='hubber')"),
    Call("curvefit", "an option misspelt", "cf.curve_fit(f, x, y, [1.0, 1.0], maxfevv=3)", "TypeError"),
    Call("curvefit", "a negative tolerance", "cf.curve_fit(f, x, y, [1.0, 1.0], ftol=-3)"),
    Call("curvefit", "a tolerance in words", "cf.curve_fit(f, x, y, [1.0, 1.0], ftol='x')"),
    Call("curvefit", "a start in words", "cf.least_squares(lambda p: p, 'ab')"),
    Call("curvefit", "no residuals", "cf.least_squares(lambda p: None, [5.0, 1.0])"),
    Call("curvefit", "arguments that are no tuple", "cf.least_squares(lambda p, q: p * q, [5.0, 1.0], args=3)"),
    Call("curvefit", "a scale below 0", "cf.least_squares(lambda p: p, [5.0], loss='huber', f_scale=-1.0)"),
    Call("curvefit", "a model that has no estimate", "cf.estimate(Decay, x, y)"),
    Call("curvefit", "a start out of two lengths", "cf.estimate(cf.Gaussian, x, y[:-1])"),
    Call("curvefit", "a start out of NaN", "cf.estimate(cf.Gaussian, x, y * np.nan)"),
    Call("curvefit", "an interval of a misspelt name", "cf.confidence_interval(solution, data, 'taau')"),
    Call("curvefit", "a level in per cent", "cf.confidence_interval(solution, data, 'tau', 95)"),
    Call("curvefit", "an interval by other data", "cf.confidence_interval(solution, few, 'tau')"),
    Call("curvefit", "an interval of a model", "cf.confidence_interval(model, data, 'tau')"),
    Call("curvefit", "no box to start in", "cf.multi_start(model, data, starts=4)"),
    Call("curvefit", "no starts", "cf.multi_start(model, data, starts=0)"),
    Call("curvefit", "starts in words", "cf.multi_start(model, data, starts='many')"),
    Call("sampling", "a text for a key", "js.sample(solution, data, key='a')"),
    Call("sampling", "a model for a solution", "js.sample(model, data, key=key)"),
    Call("sampling", "other data than were fitted", "js.sample(solution, few, key=key)"),
    Call("sampling", "arrays for data", "js.sample(solution, y, key=key)"),
    Call("sampling", "no draws", "js.sample(solution, data, key=key, num_samples=0)"),
    Call("sampling", "no chains", "js.sample(solution, data, key=key, num_chains=0)"),
    Call("sampling", "an acceptance above 1", "js.sample(solution, data, key=key, target_accept=2.0)"),
    Call("sampling", "an acceptance in words", "js.sample(solution, data, key=key, target_accept='high')"),
    Call("sampling", "data that leave a direction open",
         "js.sample(js.fit(model, js.Dataset(x[:1], y[:1], js.White(0.1))), js.Dataset(x[:1], y[:1], js.White(0.1)), "
         "key=key)"),
    Call("timing", "a pulsar misspelt", "timing.bundled('NGC6440F1')"),
    Call("timing", "files that are not there", "timing.load('none.par', 'none.tim')", "FileNotFoundError"),
    Call("timing", "a choice misspelt", "timing.load('a.par', 'a.tim', duplicates='dropp')"),
    Call("timing", "model and TOAs swapped", "timing.fit(toas, model)"),
    Call("timing", "an array for TOAs", "timing.residuals(model, np.ones(3))"),
    Call("timing", "residuals of nothing but TOAs", "timing.residuals(toas, model)"),
    Call("timing", "a data set for TOAs", "timing.fit(model, js.Dataset(np.ones(3), np.ones(3)))"),
    Call("timing", "a free name misspelt", "timing.fit(model, toas, free=['F00'])"),
    Call("timing", "one pulsar for an array", "timing.fit_array(model, toas)"),
    Call("timing", "a name that no pulsar has", "timing.fit_array([model], [toas], free=['F00'])"),
    Call("timing", "a grid of nothing", "timing.chi2_grid(model, toas, {})"),
    Call("timing", "a grid without values", "timing.chi2_grid(model, toas, {'F0': []})"),
    Call("timing", "a grid of NaN", "timing.chi2_grid(model, toas, {'F0': [float('nan')]})"),
    Call("timing", "what a model implies", "timing.derived(model)"),
    Call("timing", "a range of one number", "toas.has('MJD 54000')"),
    Call("timing", "a schedule that goes back", "timing.schedule(model, (56000, 55000), 10)"),
    Call("timing", "a schedule of one date", "timing.schedule(model, 55000, 10)"),
    Call("timing", "a text for a key", "timing.simulate(model, toas, key='a')"),
    Call("timing", "a spin frequency below 0", "parse(par.replace('F0 100', 'F0 -100'))"),
    Call("timing", "no spin frequency", "parse(par.replace('F0 100 1', ''))"),
    Call("timing", "25 hours", "parse(par.replace('RAJ 1:0:0', 'RAJ 25:0:0'))"),
    Call("timing", "four parts of an angle", "parse(par.replace('RAJ 1:0:0', 'RAJ 1:0:0:0'))"),
    Call("timing", "95 degrees", "parse(par.replace('DECJ 1:0:0', 'DECJ 95:0:0'))"),
    Call("timing", "an orbit that there is not", "parse(par + 'BINARY DDX')"),
    Call("timing", "a path for a par file's text", "parse('J1909.par')"),
    Call("compsep", "an instrument misspelt", "cs.Instrument.named('LiteBERD')"),
    Call("compsep", "frequencies below 0", "cs.Instrument(-nu)"),
    Call("compsep", "frequencies in Hz", "cs.Instrument(nu * 1e9)"),
    Call("compsep", "a depth of 0", "cs.Instrument(nu, depth_p=np.zeros(6))"),
    Call("compsep", "depths of another length", "cs.Instrument(nu, depth_p=np.ones(3))"),
    Call("compsep", "no components", "cs.MixingMatrix()"),
    Call("compsep", "classes for spectra", "cs.MixingMatrix(cs.CMB, cs.PowerLaw)"),
    Call("compsep", "words for spectra", "cs.MixingMatrix('cmb', 'dust')"),
    Call("compsep", "a table that falls", "cs.TabulatedSED([3.0, 2.0], [1.0, 2.0])"),
    Call("compsep", "mixing matrix and instrument swapped", "cs.separate(instrument, mixing, maps)"),
    Call("compsep", "a file for maps", "cs.separate(mixing, instrument, 'maps.fits')"),
    Call("compsep", "axes the wrong way round", "cs.separate(mixing, instrument, maps.transpose(2, 1, 0))"),
    Call("compsep", "NaN", "cs.separate(mixing, instrument, maps * np.nan)"),
    Call("compsep", "a mask of another size", "cs.separate(mixing, instrument, maps, mask=np.ones(5, bool))"),
    Call("compsep", "every pixel masked", "cs.separate(mixing, instrument, maps, mask=np.zeros(12, bool))"),
    Call("compsep", "inverse noise below 0", "cs.separate(mixing, instrument, maps, inv_n=-np.ones(6))"),
    Call("compsep", "a free name misspelt", "cs.separate(mixing, instrument, maps, free=['dust.betta'])"),
    Call("compsep", "an nside of 3", "cs.separate(mixing, instrument, maps, patches=3)"),
    Call("compsep", "a unit of no kind", "cs.separate(mixing, instrument, maps, units='uK')"),
    Call("compsep", "a solver's name", "cs.separate(mixing, instrument, maps, solver='TNC')"),
    Call("compsep", "a tolerance below 0", "cs.separate(mixing, instrument, maps, tolerance=-1.0)"),
    Call("compsep", "fewer channels than components",
         "cs.ilc(mixing, cs.Instrument(nu[:2]), np.random.default_rng(0).normal(size=(2, 2, 12)))"),
    Call("compsep", "multipoles below 0", "cs.harmonics(maps, lmax=-1)"),
    Call("compsep", "more patches than pixels", "cs.kmeans(1000, 1)"),
    Call("compsep", "a unit misspelt", "cs.conversion(100.0, 'K_CMBB', 'K_RJ')"),
    Call("meanfield", "equation and ensemble swapped", "ev.evolve(crowd, sde, ts)"),
    Call("meanfield", "an array for an ensemble", "ev.evolve(sde, np.zeros(5), ts)"),
    Call("meanfield", "a step for times", "ev.evolve(sde, crowd, 0.1)"),
    Call("meanfield", "times that fall", "ev.evolve(sde, crowd, ts[::-1])"),
    Call("meanfield", "a stepper's name", "ev.evolve(sde, crowd, ts, stepper='heun')"),
    Call("meanfield", "what is kept, by name", "ev.evolve(sde, crowd, ts, save='moments')"),
    Call("meanfield", "every third of ten steps", "ev.evolve(sde, crowd, ts, every=3)"),
    Call("meanfield", "every two and a half steps", "ev.evolve(sde, crowd, ts, every=2.5)"),
    Call("meanfield", "a chunk of no particles", "ev.evolve(sde, crowd, ts, chunk=0)"),
    Call("meanfield", "a weaker generator", "ev.evolve(sde, crowd, ts, rounds=3)"),
    Call("meanfield", "a negative diffusion", "ev.SDE(lambda t, x: -x, -0.7)"),
    Call("meanfield", "a number for a drift", "ev.SDE(0.3, 0.7)"),
    Call("meanfield", "a drift of another shape", "ev.evolve(ev.SDE(lambda t, x: jnp.zeros(3), 0.7), crowd, ts)"),
    Call("meanfield", "a drift without return", "ev.evolve(ev.SDE(lambda t, x: None, 0.7), crowd, ts)"),
    Call("meanfield", "weights below 0", "ev.Ensemble(np.zeros(3), -np.ones(3))"),
    Call("meanfield", "no weight at all", "ev.Ensemble(np.zeros(3), np.zeros(3))"),
    Call("meanfield", "no particles", "ev.Draw(mf.Gaussian(0.0, 1.0), 0)"),
    Call("meanfield", "a width below 0", "mf.Gaussian(0.0, -1.0)"),
    Call("meanfield", "mean and width of two lengths", "mf.Gaussian([0.0, 1.0], [1.0, 1.0, 1.0])"),
    Call("meanfield", "a box the wrong way round", "mf.Box(1.0, 0.0)"),
    Call("meanfield", "a wall misspelt", "mf.Box(0.0, 1.0, 'reflect')"),
    Call("meanfield", "grid and box swapped", "mf.Grid(10, box)"),
    Call("meanfield", "half a cell", "mf.Grid(box, 10.5)"),
    Call("meanfield", "a density of another shape",
         "mf.solve_fokker_planck(lambda t, x: -x, 0.1, np.ones(7), grid, ts)"),
    Call("meanfield", "a density of mass 6", "mf.solve_fokker_planck(lambda t, x: -x, 0.1, np.ones(30), grid, ts)"),
    Call("meanfield", "a diffusion of too many axes",
         "mf.solve_fokker_planck(lambda t, x: -x, np.ones(3), flat, grid, ts)"),
    Call("meanfield", "a number for a drift at faces", "mf.solve_fokker_planck(0.3, 0.1, flat, grid, ts)"),
    Call("meanfield", "a scheme misspelt",
         "mf.solve_fokker_planck(lambda t, x: -x, 0.1, flat, grid, ts, scheme='crank')"),
    Call("meanfield", "a box for a grid", "mf.solve_fokker_planck(lambda t, x: -x, 0.1, flat, box, ts)"),
    Call("meanfield", "a cost that is NaN", "mf.solve_hamilton_jacobi(float('nan'), grid, ts, diffusion=0.1)"),
    Call("meanfield", "a tolerance below 0", "mf.solve_game(game, tol=-1.0)"),
    Call("meanfield", "a solver's name", "mf.solve_game(game, solver='anderson')"),
    Call("meanfield", "a grid for a game", "mf.solve_game(grid)"),
    Call("meanfield", "a bandwidth below 0", "mf.SpectralKDE(grid, -1.0)"),
    Call("meanfield", "a rule's name", "mf.SpectralKDE(grid, 'scott')"),
    Call("xpcs", "an energy below 0", "xpcs.TransmissionGeometry(-8.0, (2.0, 2.0), 5000.0, 0.075, (4, 5))"),
    Call("xpcs", "an energy in eV", "xpcs.TransmissionGeometry(8000.0, (2.0, 2.0), 5000.0, 0.075, (4, 5))"),
    Call("xpcs", "an energy in words", "xpcs.TransmissionGeometry('8 keV', (2.0, 2.0), 5000.0, 0.075, (4, 5))"),
    Call("xpcs", "one number for a centre", "xpcs.TransmissionGeometry(8.0, 2.0, 5000.0, 0.075, (4, 5))"),
    Call("xpcs", "half a row", "xpcs.TransmissionGeometry(8.0, (2.0, 2.0), 5000.0, 0.075, (4.5, 5))"),
    Call("xpcs", "a map misspelt", "xpcs.cached_map(geometry, 'qq')"),
    Call("xpcs", "an axis without bins", "xpcs.Axis('q', 0)"),
    Call("xpcs", "an axis alone", "xpcs.partition(geometry, used, xpcs.Axis('q', 2))"),
    Call("xpcs", "an axis beside the detector",
         "xpcs.partition(geometry, used, [xpcs.Axis('q', 2, low=100, high=200)])"),
    Call("xpcs", "a mask of another shape", "xpcs.partition(geometry, np.ones((3, 3), bool), [xpcs.Axis('q', 2)])"),
    Call("xpcs", "labels of one and a half", "xpcs.Labels.of(picture * 1.5)"),
    Call("xpcs", "frames of another shape", "xpcs.correlate(frames[:, :3], picture)"),
    Call("xpcs", "one frame", "xpcs.correlate(frames[:1], picture)"),
    Call("xpcs", "a geometry for a partition", "xpcs.correlate(frames, geometry)"),
    Call("xpcs", "a file that is not there", "xpcs.correlate('none.h5', picture)"),
    Call("xpcs", "the end before the start", "xpcs.correlate(frames, picture, first=30, last=20)"),
    Call("xpcs", "a normalisation misspelt", "xpcs.correlate(frames, picture, normalise='stat')"),
    Call("xpcs", "no lags a level", "xpcs.correlate(frames, picture, per_level=0)"),
    Call("xpcs", "a bin that is not there", "xpcs.correlate(frames, picture, two_time=[7])"),
    Call("xpcs", "half precision", "xpcs.correlate(frames, picture, dtype='float16')"),
    Call("xpcs", "a block below 0", "xpcs.correlate(frames, picture, block=-3)"),
    Call("xpcs", "no frames", "xpcs.TwoTime(0)"),
    Call("xpcs", "a model's name", "xpcs.fit_g2(curves, 'stretched')"),
    Call("xpcs", "a curve that is not there", "curves.take([7])"),
    Call("xpcs", "arrays of NumPy",
         "xpcs.Curves(np.ones(2), np.ones((2, 1)), None, np.ones((2, 1), bool), np.ones(1))"),
    Call("xpcs", "a picture for labels", "xpcs.saxs(frames[0], picture)"),
    Call("xpcs", "a ring the wrong way round", "xpcs.ring(frames[0], geometry, used, 2.0, 1.0)"),
    Call("xpcs", "a radius below 0", "xpcs.Circle((1.0, 2.0), -1.0)"),
    Call("xpcs", "a size of 0", "xpcs.Rectangle((1.0, 2.0), (0.0, 3.0))"),
    Call("xpcs", "a polygon of two corners", "xpcs.Polygon([(1.0, 2.0), (3.0, 4.0)])"),
    Call("xpcs", "a threshold the wrong way round", "xpcs.Threshold(5.0, 1.0)"),
    Call("xpcs", "a pixel beside the detector", "xpcs.BadPixels([(100, 100)])(xpcs.View(shape=(4, 5)))"),
    Call("xpcs", "a number among masks", "xpcs.And((3,))"),
    Call("xpcs", "a contrast above 1", "xpcs.SimulatedFrames(np.ones(20), 1.0, 2.0, np.arange(10.0))"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Told:
    """What came of a call: the class of the error by name, empty where there was none, and all of its text."""

    error: str
    text: str


def told_of(call: Call, names: dict[str, Any]) -> Told:
    """Make the mistake; what is said, where nothing is refused, is empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            eval(call.code, dict(names))  # the expressions are those above
        except Exception as error:
            return Told(type(error).__name__, str(error))
    return Told("", "")


def spoken(module: str) -> list[dict[str, Any]]:
    """What a module of mistakes finds in a process of its own, where nothing but the package looks at types."""
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH", ""))))
    words = [sys.executable, "-m", f"benchmarks.{module}"]
    # what is asked of a program that is compiled once, and of its device, changes no word
    own = {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=root, env={**os.environ, **own})
    if done.returncode:
        raise RuntimeError(f"the mistakes of {module} cannot be made: {done.stderr[-2000:]}")
    found: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def told() -> list[Told]:
    """What is said of each of `CALLS`."""
    return [Told(**each) for each in spoken(Path(__file__).stem)]


def line_of(call: Call, said: str) -> str:
    """The line of docs/messages.md on a call."""
    words = said.replace("`", "'").replace("|", "\\|")
    return f"| {call.area} | {call.what} | `{call.code}` | `{words}` |"


def lines() -> list[str]:
    """All lines of docs/messages.md on calls."""
    return [line_of(call, each.text) for call, each in zip(CALLS, told(), strict=True)]


def _main() -> None:
    import jaxsci as js

    js.enable_x64()
    names = {area: functools.cache(make) for area, make in NAMES.items()}
    print(json.dumps([dataclasses.asdict(told_of(call, names[call.area]())) for call in CALLS]))


if __name__ == "__main__":
    _main()
