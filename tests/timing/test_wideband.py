"""A real wideband pulsar against PINT."""

import re

import pytest
from test_fit import check_against_pint

from jaxsci import timing


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
    check_against_pint(solution, "J1614-2230.wb")
