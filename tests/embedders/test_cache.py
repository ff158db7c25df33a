"""The cache of embeddings: bounded, shared by processes, and never in the way."""

from __future__ import annotations

import copy
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from quickstudy.estimators import EmbeddingCache

FILE = "quickstudy/embeddings/embeddings-1.sqlite3"
KEYS = [f"{i:064x}" for i in range(1200)]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / FILE


def vectors(n: int, seed: int = 0, dim: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def test_what_was_put_is_found_by_another_process():
    z = vectors(len(KEYS))
    EmbeddingCache().put("space", KEYS, z)
    found = EmbeddingCache().get("space", KEYS)
    np.testing.assert_array_equal(np.stack([found[k] for k in KEYS]), z)
    assert EmbeddingCache().get("another space", KEYS) == {}
    assert EmbeddingCache(disk=False).get("space", KEYS) == {}
    assert EmbeddingCache().get("space", []) == {}


def test_nothing_of_the_content_is_on_the_disk(file):
    EmbeddingCache().put("space", ["a secret"], vectors(1))
    data = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert b"secret" not in data


def test_arrays_are_not_shared_with_the_caller():
    cache = EmbeddingCache(disk=False)
    z = vectors(1)
    cache.put("s", ["k"], z)
    want = z.copy()
    z[:] = 0
    found = cache.get("s", ["k"])["k"]
    np.testing.assert_array_equal(found, want[0])
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_memory_is_bounded_and_the_last_used_stays():
    cache = EmbeddingCache(disk=False, max_memory=10 * 32)  # ten vectors of 8 numbers
    cache.put("s", KEYS[:10], vectors(10))
    cache.get("s", KEYS[:1])
    cache.put("s", KEYS[10:13], vectors(3))
    assert sorted(cache.get("s", KEYS[:13])) == sorted([KEYS[0], *KEYS[4:13]])
    cache.clear_memory()
    assert cache.get("s", KEYS) == {}


def test_disk_is_bounded_and_the_oldest_goes(file):
    cache = EmbeddingCache(max_disk=600_000, max_memory=0)
    for seed in range(6):
        cache.put(f"space {seed}", KEYS, vectors(len(KEYS), seed, dim=64))
    assert sum(path.stat().st_size for path in file.parent.glob("*.sqlite3")) < 1_000_000
    assert len(cache.get("space 5", KEYS)) == len(KEYS)
    assert len(cache.get("space 0", KEYS)) < len(KEYS)
    EmbeddingCache(max_disk=10).put("too large", KEYS, vectors(len(KEYS)))
    assert EmbeddingCache().get("too large", KEYS) == {}


def test_use_is_noted_once_a_day(file, monkeypatch):
    EmbeddingCache().put("s", KEYS[:2], vectors(2))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3 * 86_400)
    EmbeddingCache().get("s", KEYS[:1])
    with sqlite3.connect(file) as connection:
        days = [day for (day,) in connection.execute("SELECT day FROM embeddings ORDER BY day")]
    connection.close()
    assert days[1] - days[0] == 3


@pytest.mark.parametrize("damage", ["rubbish", "cut", "empty", "row", "folder", "foreign"])
def test_a_damaged_file_costs_time_only(file, damage):
    EmbeddingCache().put("s", KEYS, vectors(len(KEYS)))
    if damage == "rubbish":
        file.write_bytes(b"no database at all " * 500)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "row":
        connection = sqlite3.connect(file)
        connection.execute("UPDATE embeddings SET z = zeroblob(36)")
        connection.execute("UPDATE embeddings SET z = NULL WHERE rowid % 2")
        connection.commit()
        connection.close()
    elif damage == "foreign":
        connection = sqlite3.connect(file)
        connection.execute("DROP TABLE embeddings")
        connection.execute("CREATE TABLE embeddings (other TEXT)")
        connection.commit()
        connection.close()
    else:
        for path in file.parent.iterdir():
            path.unlink()
        file.mkdir()
    found = EmbeddingCache().get("s", KEYS)
    # a row may be lost, but none may be wrong
    z = vectors(len(KEYS))
    assert all(np.array_equal(v, z[KEYS.index(k)]) for k, v in found.items())
    EmbeddingCache().put("s", KEYS[:1], z[:1])
    if damage not in ("folder", "foreign"):
        np.testing.assert_array_equal(EmbeddingCache().get("s", KEYS[:1])[KEYS[0]], z[0])


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache = EmbeddingCache()
    cache.put("s", KEYS[:1], vectors(1))
    assert list(cache.get("s", KEYS[:1])) == KEYS[:1]  # from memory


def test_a_file_in_use_for_too_long_is_done_without(file, monkeypatch):
    monkeypatch.setattr("quickstudy.embedders.cache._LOCK_TIMEOUT_S", 0.1)
    EmbeddingCache().put("s", KEYS[:1], vectors(1))
    other = sqlite3.connect(file)
    other.execute("BEGIN EXCLUSIVE")
    try:
        EmbeddingCache().put("s", KEYS[1:2], vectors(1))
    finally:
        other.rollback()
        other.close()
    assert list(EmbeddingCache().get("s", KEYS[:2])) == KEYS[:1]


WRITER = """
import sys, numpy as np
from quickstudy.estimators import EmbeddingCache
me = int(sys.argv[1])
for i in range(40):
    keys = [f"{me * 1000 + i * 10 + j}" for j in range(10)]
    z = np.full((10, 64), me * 1000 + i, np.float32)
    EmbeddingCache().put("s", keys, z)
"""


def test_two_processes_write_at_once():
    both = [subprocess.Popen([sys.executable, "-c", WRITER, str(n)]) for n in (1, 2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    for me in (1, 2):
        keys = [f"{me * 1000 + i}" for i in range(400)]
        found = EmbeddingCache().get("s", keys)
        assert len(found) == 400
        assert all(v[0] == me * 1000 + int(k[1:]) // 10 for k, v in found.items())


def test_a_writer_that_is_killed_leaves_a_good_file(tmp_path):
    code = WRITER.replace("range(40)", "range(100000)")
    writer = subprocess.Popen([sys.executable, "-c", code, "1"])
    deadline = time.monotonic() + 60
    while not EmbeddingCache().get("s", ["1000"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    writer.kill()
    writer.wait()
    connection = sqlite3.connect(tmp_path / FILE)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert EmbeddingCache().get("s", ["1000"])


def test_threads_share_one(file):
    cache, faults = EmbeddingCache(max_memory=2000), []

    def work(n: int) -> None:
        try:
            for i in range(20):
                cache.put("s", [f"{n}-{i}"], np.full((1, 8), n, np.float32))
                assert cache.get("s", [f"{n}-{i}"])[f"{n}-{i}"][0] == n
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not faults


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_copies_start_empty():
    cache = EmbeddingCache(disk=False)
    cache.put("s", KEYS[:1], vectors(1))
    for other in (pickle.loads(pickle.dumps(cache)), copy.copy(cache)):  # noqa: S301
        assert other.get("s", KEYS[:1]) == {}
