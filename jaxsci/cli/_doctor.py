"""`jaxsci doctor`: what is installed here, whether it works, and the one line that enables the rest.

A researcher runs it when something is missing or slow, and sends its output along with a question. It looks at the
machine, JAX and its devices, the compile cache and the extras, fits a curve whose answer is known, and builds a config
of each science.
"""

import dataclasses
import importlib.metadata
import os
import re
import shutil
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from packaging.requirements import Requirement
from packaging.version import Version
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import runs
from ..core import AbstractModel, Scalar, param
from ..datasets import Dataset
from ..fitting import fit
from ..parallel import free_memory, in_words
from ..runs import FAILED, FINE, ConfigError
from ._terminal import print_json

GOOD, NOTE, ABSENT, WRONG = "works", "note", "not installed", "wrong"
_COLOURS = {GOOD: "green", NOTE: "yellow", ABSENT: "dim", WRONG: "red"}

_ENABLES = {
    "plot": "figures in reports, and those of your own",
    "interactive": "figures to zoom into, by --interactive",
    "tables": "data from .parquet and .h5 tables",
    "timing": "tim files (without it, TOAs that were stored before)",
    "sky": "FITS maps, fits in harmonics, other units",
    "forecast": "CMB spectra of any cosmology",
    "sampling": "posteriors",
    "xpcs": "frames and result files in HDF5",
    "cluster": "jaxsci batch on processes and clusters",
}
_TRIED = {
    "curvefit": "bundled:curvefit/own-data",
    "timing": "bundled:timing/single",
    "compsep": "bundled:compsep/litebird_global",
    "meanfield": "bundled:meanfield/ornstein_uhlenbeck",
    "xpcs": "bundled:xpcs/results_file",
}
# jaxlib's LAPACK and FFT calls share threads with the program that calls them; in these versions all may wait
_RISKY = (
    ("0.10.0", "0.10.2", "models of your own that call LAPACK (jnp.linalg) may hang in fits side by side"),
    ("0.11.0", "0.11.2", "programs with several FFTs may hang; XLA_FLAGS=--xla_cpu_multi_thread_eigen=false cures it"),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line: what was looked at, `state` (`GOOD`, `NOTE`, `ABSENT` or `WRONG`), what was found, what to do."""

    what: str
    state: str
    found: str
    remedy: str = ""


def doctor(as_json: bool) -> int:
    """Look at everything and print it; returns the exit code, `FAILED` where something that is installed fails."""
    used = runs.prepare("auto")
    findings = [*_machine(), *_jax(used["platform"]), *_extras(), *_sciences(), _known_fit()]
    code = FAILED if any(finding.state == WRONG for finding in findings) else FINE
    if as_json:
        found = list(map(dataclasses.asdict, findings))
        print_json({"exit_code": code, "versions": runs.versions(), "findings": found})
        return code
    table = Table(box=None, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")  # a path is never cut short
    for finding in findings:
        colour = _COLOURS[finding.state]
        remedy = f"\n[bold]{escape(finding.remedy)}[/bold]" if finding.remedy else ""
        said = escape(finding.found) + remedy
        table.add_row(finding.what, f"[{colour}]{finding.state}[/{colour}]", said)
    console = Console()
    console.print(table, highlight=False)
    wrong = [finding.what for finding in findings if finding.state == WRONG]
    console.print(f"To be mended: {', '.join(wrong)}." if wrong else "All that is installed works.", highlight=False)
    return code


def _machine() -> Iterator[Finding]:
    versions = runs.versions()
    yield Finding("jaxsci", GOOD, f"{versions['jaxsci']} on Python {versions['python']}, {versions['platform']}")
    yield Finding(
        "machine", GOOD, f"{runs.plural(psutil.cpu_count() or 1, 'core')}, {in_words(free_memory())} of memory free"
    )


def _jax(platform: str) -> Iterator[Finding]:
    versions = runs.versions()
    said = f"jax {versions['jax']}, jaxlib {versions['jaxlib']}, equinox {versions['equinox']}"
    risk = _risk(versions["jaxlib"])
    if risk:
        yield Finding("JAX", NOTE, f"{said}: {risk}", "where it matters: pip install -U jax, on Python 3.12 or later")
    else:
        yield Finding("JAX", GOOD, said)
    devices = jax.devices()
    shown = f"{len(devices)} x {platform} ({devices[0].device_kind})"
    if platform == "cpu" and shutil.which("nvidia-smi"):
        yield Finding("devices", NOTE, f"{shown}, though there is an NVIDIA driver", _install("cuda"))
    else:
        yield Finding("devices", GOOD, shown)
    yield Finding(
        "precision", GOOD, "double on the command line; in a program of your own, call js.enable_x64() before arrays"
    )
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if folder is None:
        remedy = "name a folder that is writable: export JAX_COMPILATION_CACHE_DIR=..."
        yield Finding("compile cache", WRONG, "compiled programs are not kept, so each command compiles anew", remedy)
        return
    sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()]
    yield Finding("compile cache", GOOD, f"{folder}: {runs.plural(len(sizes), 'file')}, {in_words(sum(sizes))}")


def _risk(jaxlib: str) -> str:
    """What is known to go wrong in this version of jaxlib, or nothing."""
    version = Version(jaxlib)
    return next((why for low, high, why in _RISKY if Version(low) <= version <= Version(high)), "")


def _install(extra: str) -> str:
    return f"pip install 'jaxsci[{extra}]'"


def _extras() -> Iterator[Finding]:
    """Each extra that enables something: whether all that it brings is there, in versions that do."""
    requirements = [Requirement(text) for text in importlib.metadata.requires("jaxsci") or []]
    for extra, enables in _ENABLES.items():
        brought = [r for r in requirements if r.marker is not None and r.marker.evaluate({"extra": extra})]
        # those that hold without an extra hold with this one, too
        brought = [r for r in brought if r.marker is not None and not r.marker.evaluate({"extra": ""})]
        lacking = [wrong for r in brought for wrong in _lacking(r)]
        if not lacking:
            yield Finding(f"extra {extra}", GOOD, enables)
            continue
        state = WRONG if any("but it needs" in wrong for wrong in lacking) else ABSENT
        yield Finding(f"extra {extra}", state, f"{enables}: {', '.join(lacking)}", _install(extra))


def _lacking(requirement: Requirement) -> Iterator[str]:
    """What is wrong with one package, its own extras aside."""
    if re.sub("[-_.]+", "-", requirement.name).lower() == "jaxsci":
        return  # an extra of ours within an extra has a line of its own
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        yield f"{requirement.name} is not installed"
        return
    if not requirement.specifier.contains(version, prereleases=True):
        yield f"{requirement.name} is {version}, but it needs {requirement.specifier}"


def _sciences() -> Iterator[Finding]:
    """A config of each science, built as `jaxsci check` does it."""
    for name in runs.sciences():
        config = _TRIED.get(name)
        try:
            if config is None:  # a science of another package
                runs.task_named(name)
                yield Finding(name, GOOD, "can be loaded")
            else:
                yield Finding(name, GOOD, f"{config} is read: {runs.load(config).count}")
        except (ConfigError, ImportError) as error:
            yield Finding(name, ABSENT if _is_for_want_of_a_package(error) else WRONG, f"{config or name}: {error}")


def _is_for_want_of_a_package(error: BaseException | None) -> bool:
    """Whether an error began with a package that is not installed; its message names the extra that brings it."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    return error is not None


class _Decay(AbstractModel):
    rate: Scalar = param()

    def __call__(self, t: jax.Array) -> jax.Array:
        return jnp.exp(-self.rate * t)


def _known_fit() -> Finding:
    """A fit of data without noise, whose answer is the rate that made them."""
    t = jnp.linspace(0.0, 4.0, 50)
    began = time.perf_counter()
    solution = fit(_Decay(jnp.asarray(0.3)), Dataset(t, _Decay(jnp.asarray(1.7))(t)), throw=False)
    error = abs(float(np.asarray(solution.values["rate"])) - 1.7)
    said = f"a curve was fitted to within {error:.0e} of its answer, in {time.perf_counter() - began:.1f} s"
    return Finding("a fit", GOOD if error < 1e-9 else WRONG, said)
