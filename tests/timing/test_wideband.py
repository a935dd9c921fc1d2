"""A real wideband pulsar against PINT."""

import re

import pytest

from jaxsci import timing

# PINT 1.1.8, WidebandDownhillFitter, with DE440 and BIPM2019 in place of the par file's: (new less old value, error)
PINT = {
    "F0": (-4.843458967229708e-12, 1.9685728440386002e-13),
    "F1": (4.949944560460671e-21, 4.6727267251378336e-21),
    "PX": (-0.0012685658431308422, 0.0920427191788428),
    "ELONG": (-2.678129362720938e-08, 5.608345518123512e-09),
    "PMELAT": (0.04626007535142307, 0.49889132121241253),
    "PB": (7.034889164259095e-12, 4.765681625227755e-11),
    "A1": (1.4393251035471621e-09, 5.926354056819178e-08),
    "TASC": (3.7155238885588915e-09, 6.556499934339712e-09),
    "EPS1": (8.875162511904324e-10, 7.635951460932085e-09),
    "SINI": (-3.7339625891252837e-07, 2.9114243346829196e-06),
    "M2": (1.827454704761422e-05, 0.0021642169709798443),
    "PBDOT": (-7.030434802163429e-15, 1.1609050203992887e-13),
    "DMX_0001": (3.330971798441154e-05, 7.887740501092649e-05),
    "DMX_0105": (-2.012510846530636e-05, 0.0001273096354008367),
    "JUMP1": (-3.267291220752531e-09, 1.024393496052894e-07),
}
CHI2, DOF = 431.9053631966785, 419


@pytest.mark.slow
def test_a_wideband_fit_is_that_of_pint(shared_data, tmp_path):
    pytest.importorskip("pint")
    folder = shared_data / "timing"
    text = (folder / "par" / "J1614-2230_NANOGrav_12yv3.wb.gls.par").read_text()
    text = re.sub(r"EPHEM\s+\S+", "EPHEM DE440", re.sub(r"(CLK|CLOCK)\s+\S+", r"\1 TT(BIPM2019)", text))
    (tmp_path / "wide.par").write_text(text)
    tim = folder / "tim" / "J1614-2230_NANOGrav_12yv3.wb.tim.xz"
    model, toas = timing.load(tmp_path / "wide.par", tim, clock_dir=folder / "clock", cache=False)
    solution = timing.fit(model, toas)
    assert solution.dof == DOF
    assert float(solution.chi2) == pytest.approx(CHI2, rel=1e-5)
    for name, (offset, error) in PINT.items():
        assert abs(solution.offsets[name] - offset) < 2e-3 * error, name
        assert solution.std[name] == pytest.approx(error, rel=1e-3), name
