"""Many pulsars in one call."""

from pathlib import Path

import numpy as np
import pytest
from test_fit import check_against_pint

from benchmarks._ng9 import staged
from jaxsci import timing
from jaxsci.timing._array import _member, buckets

FITS = {key.split("/")[0] for key in np.load(Path(__file__).with_name("pint_fits.npz")).files}
NANOGRAV = sorted(name for name in FITS if not name.endswith(".wb"))


@pytest.fixture(scope="module")
def fitted(shared_data):
    """All staged pulsars of NANOGrav in one call."""
    assert {path.stem for path in (shared_data / "timing" / "ng9").glob("*.par")} == set(NANOGRAV)
    solutions = timing.fit_array(*zip(*map(staged, NANOGRAV), strict=True))
    return dict(zip(NANOGRAV, solutions, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", NANOGRAV)
def test_a_pulsar_of_an_array_is_that_of_pint(name, fitted):
    check_against_pint(fitted[name], name)


def test_a_batch_gives_what_each_fit_gives():
    pairs = [timing.bundled(name) for name in ("J0931-1902", "J1832-0836")]
    members = [_member(k, *pair, None) for k, pair in enumerate(pairs)]
    assert [len(bucket) for bucket in buckets(members)] == [2]  # in one program, padded
    together = timing.fit_array(*zip(*pairs, strict=True))
    alone = timing.fit(*pairs[0])
    first = together[0]
    assert all(solution.success for solution in together)
    assert first.names == alone.names
    assert first.dof == alone.dof
    assert float(first.chi2) == pytest.approx(float(alone.chi2), rel=1e-9)
    for name, std in alone.std.items():
        assert abs(first.offsets[name] - alone.offsets[name]) < 1e-5 * std
        assert first.std[name] == pytest.approx(std, rel=1e-6)
    assert first.model.par == pairs[0][0].par
    assert first.model.dmx.DMX.shape == pairs[0][0].dmx.DMX.shape


def test_as_many_models_as_toas():
    model, toas = timing.bundled("NGC6440E")
    with pytest.raises(ValueError, match="1 timing models but 2 sets"):
        timing.fit_array([model], [toas, toas])
