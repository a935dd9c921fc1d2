"""Compiled programs are found by the next process, whatever was killed while it wrote, and the folder stays bounded."""

import os
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import pytest

FIT = """
    import sys
    import jax
    import numpy as np
    import jaxsci as js

    hits = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event.endswith("cache_hits")))
    folder = js.use_compile_cache(sys.argv[1])
    class Line(js.AbstractModel):
        a: js.Scalar = js.param()
        def __call__(self, x):
            return self.a * x
    x = np.linspace(0, 1, 5)
    assert js.fit(Line(1.0), js.Dataset(x, 2 * x, js.White(0.1))).success
    print(sum(hits), folder)
"""


def _fit(folder, *flags):
    run = [sys.executable, *flags, "-c", textwrap.dedent(FIT), str(folder)]
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(run, capture_output=True, text=True, timeout=240, env=env, check=False)
    assert done.returncode == 0, done.stderr
    hits, place = done.stdout.split()
    return int(hits), place, done.stderr


def test_a_plain_fit_is_found_again_and_half_a_program_is_dropped(tmp_path):
    none, place, _ = _fit(tmp_path)
    entries = sorted(p for p in os.listdir(place) if p.endswith("-cache"))
    assert none == 0
    assert entries
    assert len(os.listdir(tmp_path)) == 1  # below, by the kind of processor
    largest = max(entries, key=lambda name: (Path(place) / name).stat().st_size)
    half = Path(place) / largest
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])  # as a process leaves it that is killed meanwhile
    old = time.time() - 300
    os.utime(half, (old, old))
    os.utime(Path(place) / ".tidied", (old - 1, old - 1))
    hits, _, said = _fit(tmp_path)
    assert hits == len(entries) - 1
    assert "compilation cache" not in said
    assert zlib.decompress(half.read_bytes())  # compiled anew, and kept


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where programs are kept, with JAX's own settings put back after the test."""
    import jax

    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()


def test_the_longest_unused_programs_go_when_there_are_too_many(folder):
    import jaxsci as js

    for k in range(10):
        entry = folder / f"program{k}-cache"
        entry.write_bytes(zlib.compress(os.urandom(1000)))
        os.utime(entry, (1e9 + (k * 7) % 10, 1e9))
    js.use_compile_cache(max_bytes=10_000)  # each is a little more than 1000 bytes
    left = {int(path.name[7]) for path in folder.glob("*-cache")}
    assert len(left) == 7
    assert left == {k for k in range(10) if (k * 7) % 10 >= 3}


def test_what_another_process_is_writing_is_left_alone(folder):
    import jaxsci as js

    (folder / "new-cache").write_bytes(zlib.compress(b"x" * 1000)[:5])
    (folder / "old-cache").write_bytes(zlib.compress(b"x" * 1000)[:5])
    os.utime(folder / "old-cache", (1e9, 1e9))
    js.use_compile_cache()
    assert [path.name for path in folder.glob("*-cache")] == ["new-cache"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    import jaxsci as js

    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        js.use_compile_cache(tmp_path / "file")
