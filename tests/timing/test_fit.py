"""Fits against PINT's."""

import dataclasses
import importlib.resources
import re
from pathlib import Path

import jax
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


def test_errors_are_scaled_on_demand_as_tempo2_does():
    """By sqrt(chi2 / dof), alone and in an array; values and chi2 are the same."""
    model, toas = timing.bundled("NGC6440E")
    plain = timing.fit(model, toas)
    scaled = timing.fit(model, toas, scale_covariance=True)
    (batch,) = timing.fit_array([model], [toas], scale_covariance=True)
    factor = np.sqrt(plain.reduced_chi2)
    assert abs(factor - 1) > 0.01
    for solution in (scaled, batch):
        assert float(solution.chi2) == pytest.approx(float(plain.chi2), rel=1e-6)
        for name, std in plain.std.items():
            assert solution.std[name] == pytest.approx(factor * std, rel=1e-6)
            assert abs(solution.offsets[name] - plain.offsets[name]) < 1e-4 * std


@pytest.mark.parametrize(
    ("free", "message"),
    [
        (("noise.EFAC",), "the par file has no EFAC, which should be fitted .it has no noise"),
        (("F0", "noise.TNREDAMP"), "the par file has no TNREDAMP"),
    ],
)
def test_noise_that_the_par_file_does_not_have(free, message):
    with pytest.raises(ValueError, match=message):
        timing.fit(*timing.bundled("NGC6440E"), free)


def test_a_phase_offset_of_the_par_file_is_a_parameter():
    model, toas = timing.bundled("NGC6440E")
    toas = timing.simulate(model, toas, key=jax.random.key(1))
    plain = timing.fit(model, toas, ("F0", "DM"))
    text = "".join(line for line in timing.par_text(model).splitlines(keepends=True) if not line.startswith("TZR"))
    moved = timing.TimingModel.parse(text + "PHOFF 0.1 1\n")
    found = timing.fit(moved, toas, ("F0", "DM", "PHOFF"))
    assert found.names == ("DM", "F0", "PHOFF")
    assert found.dof == plain.dof
    assert float(found.chi2) == pytest.approx(float(plain.chi2), rel=1e-6)
    (batch,) = timing.fit_array([moved], [toas], ("F0", "DM", "PHOFF"))
    assert abs(batch.offsets["PHOFF"] - found.offsets["PHOFF"]) < 1e-4 * found.std["PHOFF"]
    # where it is held, it holds the phase: the residuals keep their mean, and there is one parameter less
    at = timing.TimingModel.parse(f"{text}PHOFF {found.exact['PHOFF']}\n")
    held = timing.fit(at, toas, ("F0", "DM"))
    assert held.dof == plain.dof + 1
    assert float(held.chi2) == pytest.approx(float(plain.chi2), rel=1e-3)
    worse = timing.fit(timing.TimingModel.parse(text + "PHOFF 0.1\n"), toas, ("F0", "DM"))
    assert float(worse.chi2) > 100 * float(plain.chi2)
    with pytest.warns(UserWarning, match="PHOFF counts from phase 0 at PEPOCH"):
        with_reference = timing.TimingModel.parse(text + "PHOFF 0.1\nTZRMJD 53801.3\nTZRSITE 1\nTZRFRQ 1400\n")
    with pytest.raises(ValueError, match="it counts from the pulse of TZRMJD"):
        timing.fit(with_reference, toas, ("F0", "DM"))
    assert "TZRMJD" not in timing.par_text(with_reference)


def test_windows_that_overlap_add_up():
    """Two windows of the same TOAs are one with the sum; a third has TOAs of its own."""
    model, toas = timing.bundled("NGC6440E")
    text = timing.par_text(model)
    first, middle, last = np.quantile(np.asarray(toas.utc), [0, 0.5, 1])

    def with_windows(*windows):
        lines = [
            f"DMX_000{k} {value}\nDMXR1_000{k} {low}\nDMXR2_000{k} {high}\n"
            for k, (value, low, high) in enumerate(windows, 1)
        ]
        return timing.TimingModel.parse(text + "".join(lines))

    both = with_windows((1e-2, first - 1, middle), (2e-2, first - 1, last + 1), (4e-2, middle, last + 1))
    alone = with_windows((3e-2, first - 1, middle), (6e-2, np.nextafter(middle, last), last + 1))
    ours, theirs = (np.asarray(timing.residuals(m, toas)) for m in (both, alone))
    on_edge = np.asarray(toas.utc) == middle
    np.testing.assert_allclose((ours - theirs)[~on_edge] - (ours - theirs)[~on_edge][0], 0, atol=1e-12)
    data, _ = timing.anchor(both, toas)
    assert data.window.shape == (62, 2 + int(on_edge.any()))
    one, two = timing.fit_array([both, model], [toas, toas], ("F0", "DMX_0001"))
    assert one.success
    assert two.success
    assert one.names == ("DMX_0001", "F0")


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


def test_a_solution_shows_its_summary_and_a_table_with_the_names_of_the_par_file():
    model, toas = timing.bundled("NGC6440E")
    solution = timing.fit(model, toas)
    assert repr(solution) == solution.summary()
    page = solution._repr_html_()
    assert "1748-2021E: converged" in page
    assert re.search(r">17:48:52\.\d+\(\d\d\)<.*?>0\.000\d+ s<.*?>h:m:s<", page)
    bare = jax.tree.map(lambda x: None, solution)
    assert repr(bare)
    assert bare._repr_html_().startswith("<pre")
