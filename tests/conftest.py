"""What every test runs under: double precision, strict promotion, checked shapes, a compile cache."""

import faulthandler
import gc
import importlib
import os
import pkgutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# the tests compile hundreds of programs and run each for milliseconds: LLVM may spend less on them
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import jax
import pytest
from jaxtyping import install_import_hook
from typer.testing import CliRunner, Result
from written import CONFIG, MODELS, write_csv

faulthandler.enable()
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
_CACHE = os.environ.get("JAXSCI_CACHE", str(Path(tempfile.gettempdir()) / "jaxsci-test-cache"))
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

with install_import_hook("jaxsci", "beartype.beartype"):
    import jaxsci

    for module in pkgutil.walk_packages(jaxsci.__path__, "jaxsci."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long acceptance runs only where they are asked for (`-m slow`)."""
    if not config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))


@pytest.fixture(autouse=True, scope="session")
def _compile_fast() -> Iterator[None]:
    """Compile the package's own programs without optimisation, all of a process alike, or bits would differ.

    Optimising takes a sixth of the whole time and changes no fact asserted here.
    """
    from helpers import quick_compile

    from jaxsci.fitting import _fresh, _program

    options = quick_compile()
    quick = None if options is None else options | {"xla_cpu_parallel_codegen_split_count": 1}
    with pytest.MonkeyPatch.context() as patch:
        for module in (_fresh, _program):
            patch.setattr(module, "compiler_options", lambda once=False: quick)
        yield


MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def _give_back_compiled_programs() -> Iterator[None]:
    """Drop what was compiled once it is much: a process may hold 65,530 pieces of memory, and each program takes some.

    One more ends in a segmentation fault, within whatever is compiled or read from the cache just then.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 35_000:
        jax.clear_caches()
        gc.collect()


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data staged beside the project. Missing: a failure in CI, a skip elsewhere."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{SHARED} is missing")
        pytest.skip(f"{SHARED} is not here")
    return SHARED


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a test: my_models.py, decay.csv, fit.toml."""
    (tmp_path / "my_models.py").write_text(MODELS)
    (tmp_path / "fit.toml").write_text(CONFIG)
    write_csv(tmp_path / "decay.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


Command = Callable[..., Result]


@pytest.fixture
def command() -> Command:
    """Run `jaxsci` with these words."""
    from jaxsci.cli import app

    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
