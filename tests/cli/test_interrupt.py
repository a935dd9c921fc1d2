"""Ctrl-C on a command: what is finished is written, the exit code says so, and a second one ends it at once."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxsci.runs._interrupt import check_interrupt, orderly

# shells have what they start in the background ignore Ctrl-C, and so would the command
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxsci.cli import app
app()
"""

SLOW = """
import time
import jax
import jax.numpy as jnp
import numpy as np
import jaxsci as js


class Slow(js.AbstractModel):
    a: js.Scalar = js.param()

    def __call__(self, x):
        def wait(x):
            time.sleep(0.2)
            return x

        return self.a * jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Fits that take seconds each, of data sets with different numbers of rows."""
    folder = tmp_path_factory.mktemp("interrupted")
    (folder / "slow.py").write_text(SLOW)
    tables = []
    for k in range(6):
        rows = "\n".join(f"{x},{2 * x}" for x in range(1, 5 + k))
        (folder / f"d{k}.csv").write_text(f"x,y\n{rows}\n")
        tables.append(f'[[data]]\nfile = "d{k}.csv"\ncolumns = {{ x = "x", y = "y" }}\n')
    (folder / "fit.toml").write_text('task = "curvefit"\n[model]\ntype = "Slow"\na = 1.0\n\n' + "\n".join(tables))
    return folder / "fit.toml"


def _started(config, out):
    words = ["run", str(config), "--import", str(config.with_name("slow.py")), "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-c", START, *words], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 240
    while not (out / "log.txt").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(1.0)  # members are being run
    return process


def test_the_first_is_orderly(config, tmp_path):
    process = _started(config, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "what is finished is kept (Ctrl-C again stops at once)" in said
    assert "Traceback" not in said
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert not results["complete"]
    assert len(results["members"]) == 6
    assert (tmp_path / "out" / "report.html").exists()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_the_second_is_at_once(config, tmp_path):
    process = _started(config, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    while "stopping" not in (said := process.stderr.readline()):  # two while XLA compiles count as one
        assert said, "it ended before it had said anything"
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert time.monotonic() - began < 20


def test_one_that_a_callback_swallows_is_not_lost():
    def swallow():
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with orderly():
            check_interrupt()
            swallow()
            with pytest.raises(KeyboardInterrupt):
                check_interrupt()
        check_interrupt()  # the next command begins anew
    finally:
        signal.signal(signal.SIGINT, before)
