"""A cache of embeddings, by the hash of the content and the fingerprint of the embedder.

The content itself is not kept. On disk the cache is one SQLite file, which any number of processes
may use at once. It is a convenience: if it cannot be read or written, embeddings are computed, and
a damaged file is deleted.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quickstudy.core import DataError
from quickstudy.core.arguments import checked
from quickstudy.storage.places import cache_home

__all__ = ["EmbeddingCache", "shared_cache"]

Vector = npt.NDArray[np.float32]

_DATABASE = "embeddings/embeddings-1.sqlite3"  # count up when the layout changes
_CREATE_TABLE = "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, z BLOB, day INTEGER)"
_KEYS_PER_QUERY = 500  # SQLite accepts 999 parameters, whatever its version
_LOCK_TIMEOUT_S = 2.0
_SECONDS_PER_DAY = 86_400
_LEAST_SHARE_DELETED = 0.25  # of the rows in a full cache, so that not every write deletes some


@checked
class EmbeddingCache:
    """Embeddings in memory and on disk. If it is full, the least recently used are deleted first.

    Args:
        disk: whether to keep embeddings on disk too, in the cache folder.
        max_disk: most bytes on disk.
        max_memory: most bytes in memory.

    Example::

        cache = EmbeddingCache(disk=False)
        cache.put("encoder 1", ["koala"], torch.rand(1, 64).numpy())
        found = cache.get("encoder 1", ["koala", "okapi"])  # only what is known
        z = found["koala"]  # [64]
    """

    def __init__(
        self, *, disk: bool = True, max_disk: int = 2_000_000_000, max_memory: int = 128_000_000
    ) -> None:
        self._disk, self._max_disk, self._max_memory = disk, max_disk, max_memory
        self._memory: OrderedDict[bytes, Vector] = OrderedDict()
        self._bytes_in_memory = 0
        self._lock = threading.Lock()

    def get(self, space: str, keys: Sequence[str]) -> dict[str, Vector]:
        """Return the known embeddings among ``keys``, each ``[D]``.

        Args:
            space: fingerprint of the embedder.
            keys: hashes of contents.
        """
        places = {_place(space, key): key for key in keys}
        found: dict[bytes, Vector] = {}
        with self._lock:
            for place in places:
                if (z := self._memory.get(place)) is not None:
                    self._memory.move_to_end(place)
                    found[place] = z
        missing = [place for place in places if place not in found]
        if missing and self._disk:
            read = self._read(missing)
            self._remember(read)
            found |= read
        return {places[place]: z for place, z in found.items()}

    def put(self, space: str, keys: Sequence[str], z: Vector) -> None:
        """Keep embeddings.

        Args:
            space: fingerprint of the embedder.
            keys: hashes of contents, ``N``.
            z: their embeddings ``[N, D]``.
        """
        # copies, so that changes of the caller's array do not reach the cache
        rows = {_place(space, key): np.array(row) for key, row in zip(keys, z, strict=True)}
        self._remember(rows)
        if self._disk and rows:
            self._write(rows)

    def clear_memory(self) -> None:
        """Delete all embeddings in memory; those on disk stay."""
        with self._lock:
            self._memory.clear()
            self._bytes_in_memory = 0

    def __reduce__(self) -> tuple[Callable[..., EmbeddingCache], tuple[bool, int, int]]:
        """Return what a pickle holds: the limits only, so that a copy starts with empty memory.

        A lock cannot be pickled.
        """
        return _rebuild, (self._disk, self._max_disk, self._max_memory)

    def _remember(self, rows: dict[bytes, Vector]) -> None:
        with self._lock:
            for place, z in rows.items():
                if (old := self._memory.pop(place, None)) is not None:
                    self._bytes_in_memory -= old.nbytes
                z.setflags(write=False)
                self._memory[place] = z
                self._bytes_in_memory += z.nbytes
            while self._bytes_in_memory > self._max_memory:
                self._bytes_in_memory -= self._memory.popitem(last=False)[1].nbytes

    def _read(self, places: Sequence[bytes]) -> dict[bytes, Vector]:
        found: dict[bytes, Vector] = {}
        today = int(time.time() // _SECONDS_PER_DAY)

        def read(connection: sqlite3.Connection) -> None:
            old: list[tuple[bytes]] = []
            for start in range(0, len(places), _KEYS_PER_QUERY):
                part = places[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, z, day FROM embeddings WHERE key IN ({marks})"
                for place, blob, day in connection.execute(query, part):
                    if (z := _unpack(blob)) is not None:
                        found[place] = z
                        old += [(place,)] if day != today else []
            # to note the day of use once a day is enough, and spares most reads a write
            connection.executemany(f"UPDATE embeddings SET day = {today} WHERE key = ?", old)

        _use(read, create=False)
        return found

    def _write(self, rows: dict[bytes, Vector]) -> None:
        today = int(time.time() // _SECONDS_PER_DAY)
        new = sum(z.nbytes for z in rows.values())

        def write(connection: sqlite3.Connection) -> None:
            pages, free, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            used = (pages - free) * size
            if (over := used + new - self._max_disk) > 0:
                # SQLite reuses the pages of deleted rows, so the file does not grow
                connection.execute(
                    "DELETE FROM embeddings WHERE key IN (SELECT key FROM embeddings ORDER BY day, "
                    "rowid LIMIT (SELECT 1 + CAST(COUNT(*) * ? AS INTEGER) FROM embeddings))",
                    (max(_LEAST_SHARE_DELETED, over / used),),
                )
            connection.executemany(
                "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)",
                [(place, _pack(z), today) for place, z in rows.items()],
            )

        if new <= self._max_disk:
            _use(write, create=True)


def _rebuild(disk: bool, max_disk: int, max_memory: int) -> EmbeddingCache:
    return EmbeddingCache(disk=disk, max_disk=max_disk, max_memory=max_memory)


_SHARED_CACHE = EmbeddingCache()


def shared_cache() -> EmbeddingCache:
    """Return the one cache of this process; it keeps embeddings on disk too."""
    return _SHARED_CACHE


def _place(space: str, key: str) -> bytes:
    """Return the key of an embedding in the cache."""
    return sha256(f"{space} {key}".encode()).digest()


def _pack(z: Vector) -> bytes:
    """Return an embedding as bytes, with a checksum at the end."""
    data = z.astype("<f4").tobytes()
    return data + zlib.crc32(data).to_bytes(4, "little")


def _unpack(blob: object) -> Vector | None:
    """Return the embedding, or ``None`` if the bytes do not fit their checksum."""
    if not isinstance(blob, bytes) or len(blob) < 8 or len(blob) % 4:
        return None
    data, check = blob[:-4], int.from_bytes(blob[-4:], "little")
    return np.frombuffer(data, "<f4").astype(np.float32) if zlib.crc32(data) == check else None


def _use(action: Callable[[sqlite3.Connection], None], *, create: bool) -> None:
    """Run an action on the database as one transaction; if the file does not allow it, do nothing.

    Args:
        action: gets the connection.
        create: make the file if it is not there.
    """
    connection = None
    try:
        path = cache_home() / _DATABASE
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            return
        # a new connection each time: no thread or forked process may use one of another
        connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S)
        # with a write-ahead log readers need not wait for writers; a crash loses the last rows
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_CREATE_TABLE)
        action(connection)
        connection.commit()
    except sqlite3.OperationalError:
        return  # locked for too long, disk full, not writable: embeddings are computed instead
    except sqlite3.DatabaseError:
        _discard(path)
    except (OSError, DataError):
        return
    finally:
        if connection is not None:
            connection.close()


def _discard(path: Path) -> None:
    """Delete a damaged database file, and the log files beside it."""
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink()
