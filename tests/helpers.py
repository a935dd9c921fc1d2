"""What many tests share: oracles by finite differences, trace counters, compilation without optimisation, readers."""

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from jaxsci.curvefit import curve_fit
from jaxsci.fitting import compiler_options


def quick_compile() -> dict[str, Any] | None:
    """Compiler options for a program that a test runs once: None on a GPU.

    Optimising machine code takes most of a test's time and changes no fact that a test asserts. The other options are
    the package's own, which knows what the XLA of this Python accepts.
    """
    return compiler_options(once=True)


def quick_jit(fn: Callable) -> Any:
    """`jax.jit` that compiles fast."""
    return jax.jit(fn, compiler_options=quick_compile())


def close(actual: Any, expected: Any, rtol: Any = 1e-12, atol: Any = 0.0) -> None:
    """Assert that two trees of numbers agree (tolerances may be arrays); NaN agrees with nothing."""
    assert jtu.tree_structure(actual) == jtu.tree_structure(expected)
    for a, b in zip(jtu.tree_leaves(actual), jtu.tree_leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape or a.ndim == 0 or b.ndim == 0, f"shapes {a.shape} and {b.shape}"
        if a.dtype == bool or b.dtype == bool:
            assert np.array_equal(a, b), f"{a}\n{b}"
            continue
        a, b = np.broadcast_arrays(a, b)
        with np.errstate(invalid="ignore"):
            gap = np.where(a == b, 0, np.abs(a - b))
        fine = (gap <= atol + rtol * np.abs(b)) | (a == b)
        assert fine.all(), f"differ by at most {np.max(gap)}:\n{a}\n{b}"


def same_bits(actual: Any, expected: Any) -> None:
    """Assert that two trees are equal to the last bit; NaN agrees with NaN."""
    for a, b in zip(jtu.tree_leaves(actual), jtu.tree_leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def derivative(fn: Callable[[Any], Any], at: float, step: float) -> np.ndarray:
    """dfn/dx by central differences of fourth order."""
    values = [np.asarray(fn(at + k * step), float) for k in (-2, -1, 1, 2)]
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)


def jacobian(fn: Callable[[np.ndarray], Any], at: Any, step: Any) -> np.ndarray:
    """The Jacobian of fn at a flat point by central differences of fourth order, one column an element."""
    at = np.asarray(at, float)
    steps = np.broadcast_to(np.asarray(step, float), at.shape)

    def along(k: int) -> np.ndarray:
        unit = np.eye(at.size)[k]
        return derivative(lambda t: fn(at + t * unit), 0.0, float(steps[k]))

    return np.stack([along(k) for k in range(at.size)], axis=-1)


def log_relative_error(actual: Any, certified: Any) -> np.ndarray:
    """Digits that agree: -log10 of the relative error, at most 11 as NIST certifies."""
    actual, certified = np.asarray(actual, float), np.asarray(certified, float)
    error = np.abs(actual - certified) / np.abs(certified)
    return np.minimum(-np.log10(np.maximum(error, 1e-300)), 11.0)


def solved(*args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
    """(popt, pcov, the Solution) of `curve_fit`."""
    popt, pcov, info, *_ = curve_fit(*args, full_output=True, **kwargs)
    return popt, pcov, info["solution"]


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """The events of compilation heard within, by name; other listeners, the package's own among them, stay."""
    heard: list[str] = []

    def listen(name: str, *args: Any, **kwargs: Any) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            heard.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield heard
    finally:
        jax._src.monitoring.unregister_event_duration_listener(listen)


def compiles(fn: Callable) -> int:
    """How many programs `fn()` compiles."""
    with compilations() as heard:
        fn()
    return len(heard)


def custom_calls(text: str) -> set[str]:
    """The targets of all custom calls in lowered or compiled text."""
    found = re.findall(r'custom_call_target="([^"]+)"', text) + re.findall(r"custom_call @([\w.]+)", text)
    return set(found)


class Counter:
    """Counts how often a function is traced."""

    def __init__(self, fn: Callable):
        self.fn, self.traces = fn, 0

    def __call__(self, *args: Any) -> Any:
        self.traces += 1
        return self.fn(*args)


def to_float32(tree: Any) -> Any:
    """The tree with its real arrays in single precision."""
    return jtu.tree_map(
        lambda x: x.astype(jnp.float32) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, tree
    )


def _stored(folder: Path) -> dict[str, str]:
    """The JSON that interactive.html holds, by the names of its elements."""
    page = (folder / "interactive.html").read_text()
    return dict(re.findall(r'<script type="application/json" id="([^"]*)">(.*?)</script>', page, re.DOTALL))


def told_of(folder: Path) -> list[dict[str, Any]]:
    """What interactive.html says of each member in its menu."""
    return json.loads(_stored(folder)["about"])["members"]


def figures_of(folder: Path) -> dict[str, Any]:
    """{member: panels} of interactive.html, each panel with its `traces`, whose numbers are arrays."""
    stored, found = _stored(folder), {}
    for each in json.loads(stored["about"])["members"]:
        if f"figures-{each['anchor']}" in stored:
            panels = json.loads(stored[f"figures-{each['anchor']}"])
            found[each["name"]] = [{**p, "traces": [_unpacked(t) for t in p["figure"]["data"]]} for p in panels]
    return found


def _unpacked(value: Any) -> Any:
    """What plotly packs: the bytes of an array."""
    if not isinstance(value, dict):
        return value
    if "bdata" not in value:
        return {key: _unpacked(item) for key, item in value.items()}
    flat = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
    return flat.reshape([int(n) for n in value["shape"].split(",")]) if "shape" in value else flat
