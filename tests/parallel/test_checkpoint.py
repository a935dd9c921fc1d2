import errno
import hashlib
import os
import resource
import shutil
import signal
import subprocess

import numpy as np
import pytest

from jaxsci.parallel import Checkpoint, Kept, WriteError, read_framed, write_framed

PAYLOAD, HEADER = bytes(range(64)), {"kind": "test", "round": 3, "name": "µ"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "state.eqx"
    write_framed(path, PAYLOAD, HEADER)
    return path


def test_round_trip(file):
    assert read_framed(file) == (HEADER, PAYLOAD)
    assert [p.name for p in file.parent.iterdir()] == ["state.eqx"]


@pytest.mark.parametrize("payload", [b"", b"\0" * 100_000, os.urandom(1000)])
def test_any_payload(tmp_path, payload):
    write_framed(tmp_path / "x", payload, {})
    assert read_framed(tmp_path / "x") == ({}, payload)


def test_every_single_bit_matters(file):
    whole = file.read_bytes()
    for k in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[k // 8] ^= 1 << k % 8
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|not a jaxsci file"):
            read_framed(file)


def test_every_truncation_and_every_appendix_is_noticed(file):
    whole = file.read_bytes()
    for content in [whole[:k] for k in range(len(whole))] + [whole + b"\0", whole + whole]:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged|not a jaxsci file"):
            read_framed(file)


def test_random_damage_is_noticed(file):
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        start, length = rng.integers(len(whole)), rng.integers(1, 40)
        damaged[start : start + length] = rng.bytes(len(damaged[start : start + length]))
        if bytes(damaged) == whole:
            continue
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|not a jaxsci file"):
            read_framed(file)


def test_another_header_with_its_own_digest_does_not_pass_for_the_payload(file, tmp_path):
    write_framed(tmp_path / "other", PAYLOAD[::-1], HEADER)
    ours, other = file.read_bytes(), (tmp_path / "other").read_bytes()
    file.write_bytes(ours[: -len(PAYLOAD)] + other[-len(PAYLOAD) :])
    with pytest.raises(ValueError, match="content"):
        read_framed(file)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_framed(tmp_path / "nothing")


@pytest.mark.parametrize("fails", ["fsync", "rename"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(file, monkeypatch, fails):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(type(file), "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_framed(file, b"new", {})
    monkeypatch.undo()
    assert read_framed(file) == (HEADER, PAYLOAD)
    assert [p.name for p in file.parent.iterdir()] == ["state.eqx"]


def test_a_folder_that_does_not_exist_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_framed(tmp_path / "nowhere" / "x", b"", {})


def test_overwriting_is_whole(file):
    write_framed(file, b"second", {"round": 4})
    assert read_framed(file) == ({"round": 4}, b"second")


def test_the_digest_is_sha256_of_the_payload(file):
    assert hashlib.sha256(PAYLOAD).hexdigest().encode() in file.read_bytes()


def test_a_file_that_may_not_grow_leaves_the_old_one_and_says_what_to_do(file):
    """The limit that a process has on the size of its files is one that the system enforces in earnest."""
    heard, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"\(the file before it is whole\); free some space, and run again.*state"):
            write_framed(file, bytes(10_000), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heard)
    assert read_framed(file) == (HEADER, PAYLOAD)
    assert [p.name for p in file.parent.iterdir()] == ["state.eqx"]


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 kB; only root may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount")
def test_a_full_disk_and_one_that_is_read_only(disk):
    with Checkpoint(disk / "x", {}, every=0) as kept:
        kept.keep("a", [np.arange(1000.0)])
        kept.keep("a", [np.arange(1000.0) + 1])
        with pytest.raises(WriteError, match="No space left on device"):
            kept.keep("b", [np.zeros(5000)])
        assert sorted(p.name for p in disk.iterdir()) == [".x.lock", "x", "x.previous"]
        del kept.states["b"]
    assert Kept.read(disk / "x").states["a"][0][0] == 1
    assert Kept.read(disk / "x.previous").states["a"][0][0] in (0, 1)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(WriteError, match="look at its permissions"):
        write_framed(disk / "x", b"", {})
    assert Kept.read(disk / "x").states["a"][0][0] == 1
