"""Programs compiled without optimisation: that takes most of a test's time and changes no fact asserted here."""

import pytest
from helpers import quick_compile

from jaxsci.fitting import _fresh, _program


@pytest.fixture(autouse=True, scope="package")
def _compile_fast():
    options = quick_compile()
    quick = None if options is None else options | {"xla_cpu_parallel_codegen_split_count": 1}
    with pytest.MonkeyPatch.context() as patch:
        for module in (_program, _fresh):
            patch.setattr(module, "compiler_options", lambda once=False: quick)
        yield
