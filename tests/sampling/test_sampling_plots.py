"""Pictures of a posterior are drawn, show what they should, and name what they cannot draw."""

import jax
import matplotlib
import numpy as np
import pytest
from posteriors import Line, drawn, line_data

import jaxsci as js
from jaxsci.sampling import plot

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def posterior():
    data = line_data(noise=js.White(0.3))
    return drawn(js.fit(Line(1.0, 0.0), data), data)


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("draw", [plot.plot_corner, plot.plot_trace, plot.plot_rank])
def test_arviz_draws_them(posterior, draw):
    assert draw(posterior) is not None
    if draw is plot.plot_corner:
        with pytest.raises(ValueError, match="a corner needs two numbers or more"):
            draw(posterior, ["slope"])
    else:
        assert draw(posterior, ["slope"]) is not None
    with pytest.raises(ValueError, match="no free parameter 'slopes'"):
        draw(posterior, ["slopes"])


def test_bands_hold_model_and_data(posterior):
    ax = plot.plot_predictive(posterior, key=jax.random.key(0))
    wide, narrow = (band.get_paths()[0].vertices[:, 1] for band in ax.collections[:2])
    assert np.ptp(wide) > np.ptp(narrow)
    median = ax.lines[0].get_ydata()
    assert np.allclose(median, np.median(np.asarray(posterior.predict()), axis=0), atol=0.05)
    assert plot.plot_predictive(posterior, ax) is ax
