"""A process that compiles without end gives its programs back before it has no pieces of memory left."""

import jax
import jax.numpy as jnp
import pytest

from jaxsci.fitting import compiled
from jaxsci.parallel import _programs, give_back_programs


@pytest.fixture
def traced():
    """A program that tells how often it was traced."""
    seen = []

    @jax.jit
    def program(x):
        seen.append(1)
        return 2 * x

    return program, seen


def test_programs_stay_while_they_are_few(traced, monkeypatch):
    program, seen = traced
    monkeypatch.setattr(_programs, "_BETWEEN", 0)
    program(jnp.ones(3))
    give_back_programs()
    program(jnp.ones(3))
    assert len(seen) == 1


def _three(x):
    return 3 * x


@pytest.mark.parametrize("door", ["asked", "by a program"])
def test_too_many_are_dropped_and_compiled_again(traced, monkeypatch, door):
    program, seen = traced
    monkeypatch.setattr(_programs, "_MOST_PIECES", 10)
    program(jnp.ones(3))
    give_back_programs()  # not looked at before there are many new ones
    monkeypatch.setattr(_programs, "_BETWEEN", 0)
    if door == "asked":
        give_back_programs()
    else:
        assert float(compiled(_three, (jnp.ones(()),))) == 3
    assert float(program(jnp.ones(3))[0]) == 2
    assert len(seen) == 2


def test_compiled_programs_are_counted():
    before = _programs._COUNT.compiled
    jax.jit(lambda x: x * 1.7 + before)(jnp.ones(5))
    assert _programs._COUNT.compiled > before
