"""The familiar doors are `separate` under other names."""

import numpy as np
import pytest
import sky

from jaxsci import compsep
from jaxsci.compsep._healpix import parents


def test_all_doors_agree_where_they_ask_the_same(mixing):
    maps, _ = sky.made(192, "QU")
    basic = compsep.basic_comp_sep(mixing, sky.LITEBIRD, maps, 1)
    others = (
        compsep.multi_res_comp_sep(mixing, sky.LITEBIRD, maps, (1, 1, 1)),
        compsep.adaptive_comp_sep(mixing, sky.LITEBIRD, maps, [parents(4, 1)] * 3),
    )
    for other in others:
        np.testing.assert_array_equal(other.values["dust.beta"], basic.values["dust.beta"])
        np.testing.assert_array_equal(other.std["dust.beta"], basic.std["dust.beta"])


def test_a_place_for_each_parameter_is_needed(mixing):
    with pytest.raises(ValueError, match=r"2 places for 3 parameters: dust\.beta, dust\.temp"):
        compsep.multi_res_comp_sep(mixing, sky.LITEBIRD, sky.made(192, "QU")[0], (2, 1))


def test_places_are_for_the_parameters_that_are_fitted(mixing):
    maps, _ = sky.made(192, "QU")
    temp = np.full(192, 20.0)
    free = compsep.multi_res_comp_sep(mixing, sky.LITEBIRD, maps, (1, 0), free=("*.beta",))
    held = compsep.multi_res_comp_sep(mixing, sky.LITEBIRD, maps, (1, 0), fixed={"dust.temp": temp})
    assert {name: values.size for name, values in free.values.items()} == {"dust.beta": 12, "sync.beta": 1}
    np.testing.assert_allclose(held.values["dust.beta"], free.values["dust.beta"], rtol=1e-9)
    with pytest.raises(ValueError, match=r"3 places for 2 parameters: dust\.beta, sync\.beta"):
        compsep.multi_res_comp_sep(mixing, sky.LITEBIRD, maps, (2, 1, 0), free=("*.beta",))
