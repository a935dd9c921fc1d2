"""Fits against PINT's."""

import dataclasses
import importlib.resources
from pathlib import Path

import numpy as np
import pytest

import jaxsci as js
from jaxsci import timing

CLOSE = 1e-3  # of chi2, of an error, of errors


def check_against_pint(solution, name):
    """Values, errors and chi2 against PINT's converged fit (made by make_pint_fits.py)."""
    with np.load(Path(__file__).with_name("pint_fits.npz")) as file:
        names, offsets, errors, chi2, dof = (file[f"{name}/{k}"] for k in ("names", "offsets", "errors", "chi2", "dof"))
    assert solution.success
    assert set(solution.names) == set(names.tolist())
    assert solution.dof == int(dof)
    # PINT's own chi2 of J1909-3744 moves by 0.01 from step to step, by rounding in its residuals
    assert -0.01 < float(solution.chi2) - float(chi2) < CLOSE
    off = {key: (solution.offsets[key] - value) / std for key, value, std in zip(names, offsets, errors, strict=True)}
    assert max(map(abs, off.values())) < CLOSE, max(off.items(), key=lambda item: abs(item[1]))
    std = np.array([solution.std[key] for key in names])
    np.testing.assert_allclose(std, errors, rtol=CLOSE)


def test_a_fit_is_that_of_pint():
    check_against_pint(timing.fit(*timing.bundled("J0931-1902")), "J0931-1902")


def test_values_have_the_digits_of_the_par_file():
    model, toas = timing.bundled("J0931-1902")
    solution = timing.fit(model, toas)
    assert solution.names[:4] == ("ELONG", "ELAT", "PX", "DMX_0001")
    assert abs(solution.exact["F0"] - model.par.value("F0")) < 1e-9
    assert solution.values["F0"] == float(solution.exact["F0"])
    assert (solution.units["F1"], solution.units["DMX_0001"]) == ("Hz/s", "pc cm^-3")
    assert "F0" in solution.summary()
    # the fitted model, anchored afresh, has the residuals of the optimum
    again = timing.fit(solution.model, toas)
    assert float(again.chi2) == pytest.approx(float(solution.chi2), rel=1e-9)
    assert isinstance(solution.fit, js.Solution)


def test_noise_is_freed_by_maximum_likelihood():
    """One EFAC for all: EFAC^2 = chi2 / n with the errors as they are, and its error is EFAC / sqrt(2 n)."""
    model, toas = timing.bundled("NGC6440E")
    toas = dataclasses.replace(toas, selected=np.ones((len(toas), 1), bool), flags=("-f A",))
    par = importlib.resources.files("jaxsci") / "data" / "timing" / "NGC6440E.par"
    scaled = timing.TimingModel.parse(par.read_text() + "\nEFAC -f A 1.0\n")
    plain = timing.fit(model, toas)
    freed = timing.fit(scaled, toas, (*scaled.par.free, "noise.EFAC"))
    efac = np.sqrt(float(plain.chi2) / len(toas))
    assert float(freed.noise.EFAC[0]) == pytest.approx(efac, rel=1e-5)
    assert float(freed.fit.std["noise.EFAC"][0]) == pytest.approx(efac / np.sqrt(2 * len(toas)), rel=1e-2)
    assert freed.names == plain.names
    for name, std in plain.std.items():
        assert abs(freed.offsets[name] - plain.offsets[name]) < 1e-3 * std
        assert freed.std[name] == pytest.approx(efac * std, rel=1e-3)
    assert f"EFAC         -f A {float(freed.noise.EFAC[0])!r}"[:24] in timing.par_text(freed)
