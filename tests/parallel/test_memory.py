"""What does not fit is refused with the number before it is taken, and a long-lived process keeps within bounds."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

import jaxsci as js
from jaxsci import meanfield
from jaxsci.evolution import SDE, Additive, Ensemble, Snapshots, evolve
from jaxsci.fitting import compiled
from jaxsci.parallel import free_memory, in_words, require_memory


@pytest.mark.parametrize(("size", "words"), [(3, "3 B"), (28.8e9, "28.8 GB"), (1.5e15, "1.5e+03 TB")])
def test_bytes_in_words(size, words):
    assert in_words(size) == words


def test_free_memory_is_that_of_the_machine_or_less():
    assert 0 < free_memory() <= psutil.virtual_memory().total
    require_memory(free_memory() / 2, "half of it", "nothing")
    require_memory(1, "a byte", "nothing")
    with pytest.raises(MemoryError, match=r"a map needs .* of memory, and .* are free: take less"):
        require_memory(2.0 * psutil.virtual_memory().total, "a map", "take less")


def test_a_program_that_does_not_fit_is_refused_before_it_is_run(monkeypatch):
    monkeypatch.setattr("jaxsci.parallel._memory.free_memory", lambda device=None: 1e8)
    x = jnp.ones(9_000_000)  # 72 MB of arguments: asked
    with pytest.raises(MemoryError, match=r"72 MB of arrays, needs .* and 100 MB are free.*chunk="):
        compiled(lambda x: jnp.outer(x[:6000], x[:6000]) @ x[:6000], (x,))
    assert float(compiled(jnp.sum, (x,))) == 9_000_000  # little beside its arguments


@pytest.mark.parametrize("door", ["sample", "evolve", "density", "game values"])
def test_doors_refuse_what_cannot_be_held(door):
    """Each by a number of the caller's own; nothing of that size is touched, or the test would not end."""
    much = 10**11
    if door == "sample":

        class Line(js.AbstractModel):
            a: js.Scalar = js.param()

            def __call__(self, x):
                return self.a * x

        x = np.linspace(0, 1, 5)
        data = js.Dataset(x, 2 * x, js.White(0.1))
        with pytest.raises(MemoryError, match=r"draws of 1 members needs .* GB"):
            js.sample(js.fit(Line(1.0), data), data, key=jax.random.key(0), num_samples=much)
    elif door == "evolve":
        crowd = Ensemble(jnp.zeros((100_000, 1)), key=0)
        with pytest.raises(MemoryError, match=r"keeping 100000 particles at 1000001 times needs"):
            evolve(SDE(lambda t, x: -x, Additive(1.0)), crowd, jnp.linspace(0, 1, 1_000_001), save={"x": Snapshots()})
    else:
        grid = meanfield.Grid(meanfield.Box(0.0, 1.0), 1_000_000)
        times = jnp.linspace(0.0, 1.0, 500_001)
        solve = {
            "density": lambda: meanfield.solve_fokker_planck(lambda t, x: -x, 1.0, jnp.ones(1_000_000), grid, times),
            "game values": lambda: meanfield.solve_hamilton_jacobi(0.0, grid, times, diffusion=1.0),
        }[door]
        with pytest.raises(MemoryError, match=r"a path of 500001 times on 1000000 cells needs"):
            solve()


def test_an_address_space_that_is_limited_is_known():
    code = """
        import resource
        import psutil
        from jaxsci.parallel import free_memory
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
        assert free_memory() <= 1 << 20, free_memory()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)
