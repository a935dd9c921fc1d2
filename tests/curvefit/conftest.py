"""Programs compiled without optimisation: that takes most of a test's time and changes no fact asserted here."""

import pytest

from jaxsci.curvefit import _curve_fit, _least_squares
from jaxsci.fitting import _program

QUICK = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
}


@pytest.fixture(autouse=True, scope="package")
def _compile_fast():
    with pytest.MonkeyPatch.context() as patch:
        for module in (_program, _curve_fit, _least_squares):
            patch.setattr(module, "cheap_compile", lambda: QUICK)
        yield
