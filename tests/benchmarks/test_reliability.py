"""The figures of the page on reliability, at a size for every day; the whole ones are slow."""

import dataclasses

import pytest

from benchmarks import _damage, _fuzz, _kills, reliability
from benchmarks._long_jobs import job_named


def test_no_damaged_file_is_loaded():
    rows = _damage.rows(400, jobs=(job_named("evolve"),))
    assert [row["damaged"] for row in rows] == [200, 200]
    for row in rows:
        assert row["loaded silently"] == 0
        assert row["refused"] == row["damaged"]
        assert row["state"] == "saved fit" or row["gone on from the one before"] > 0


def test_rows_of_fuzzed_readers(monkeypatch):
    manifest = next(reader for reader in _fuzz.READERS if reader.name.startswith("manifest"))
    absent = dataclasses.replace(manifest, name="absent", needs="no_such_module")
    rows = [_fuzz.row(manifest, 0.0), _fuzz.row(absent, 0.0)]
    monkeypatch.setattr(_fuzz, "rows", lambda: rows)
    read, missing = reliability.fuzzed(quick=False)
    assert (read.ours, read.n) == (0, 20)
    assert missing.ours is None
    assert "no_such_module" in missing.note


@pytest.mark.slow
def test_ten_thousand_damaged_files():
    assert sum(row["loaded silently"] for row in _damage.rows(10_000)) == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_lose_nothing():
    rows = list(_kills.rows(100))
    assert sum(row["kills"] for row in rows) == 100
    assert [row["lost"] for row in rows] == [0] * len(rows)
    assert all(row["with something kept"] > 0 for row in rows)
