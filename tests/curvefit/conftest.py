"""Programs compiled without optimisation: that takes most of a test's time and changes no fact asserted here."""

import pytest
from helpers import quick_compile

from jaxsci.curvefit import _curve_fit, _least_squares
from jaxsci.fitting import _program


@pytest.fixture(autouse=True, scope="package")
def _compile_fast():
    quick = quick_compile() and quick_compile() | {"xla_cpu_parallel_codegen_split_count": 1}
    with pytest.MonkeyPatch.context() as patch:
        for module in (_program, _curve_fit, _least_squares):
            patch.setattr(module, "cheap_compile", lambda: quick)
        yield
