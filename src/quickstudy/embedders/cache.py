"""Embeddings remembered by what was embedded and by what.

Nothing of the content is kept, only its hash and the embedding. On disk they lie in one SQLite
file, which any number of processes may use at once. The cache is a convenience: one that cannot be
read, written or trusted is done without, and a damaged one is thrown away.
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
from quickstudy.storage.places import cache_home

__all__ = ["EmbeddingCache", "shared_cache"]

Vector = npt.NDArray[np.float32]

_FILE = "embeddings/embeddings-1.sqlite3"  # another number when the layout changes
_TABLE = "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, z BLOB, day INTEGER)"
_AT_ONCE = 500  # SQLite takes so many parameters everywhere
_WAIT_S = 2.0
_DAY_S = 86_400
_AT_LEAST = 0.25  # share of the rows that goes at once, so that it is not each time


class EmbeddingCache:
    """Embeddings in memory and on disk, both bounded; what was not used for longest goes first.

    Args:
        disk: whether to keep them on disk too, below the cache folder.
        max_disk: bytes on disk.
        max_memory: bytes in memory.
    """

    def __init__(
        self, *, disk: bool = True, max_disk: int = 2_000_000_000, max_memory: int = 128_000_000
    ) -> None:
        self._disk, self._max_disk, self._max_memory = disk, max_disk, max_memory
        self._memory: OrderedDict[bytes, Vector] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def get(self, space: str, keys: Sequence[str]) -> dict[str, Vector]:
        """Return the known embeddings among ``keys``, each ``[D]``.

        Args:
            space: fingerprint of what embeds.
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
        """Remember embeddings ``z`` ``[N, D]`` of the contents ``keys``."""
        # copies: what the caller does to its array must not reach the cache
        rows = {_place(space, key): np.array(row) for key, row in zip(keys, z, strict=True)}
        self._remember(rows)
        if self._disk and rows:
            self._write(rows)

    def clear_memory(self) -> None:
        """Forget what is in memory; what is on disk stays."""
        with self._lock:
            self._memory.clear()
            self._held = 0

    def __reduce__(self) -> tuple[Callable[..., EmbeddingCache], tuple[bool, int, int]]:
        """A copy in another process starts empty: locks cannot be sent there."""
        return _rebuild, (self._disk, self._max_disk, self._max_memory)

    def _remember(self, rows: dict[bytes, Vector]) -> None:
        with self._lock:
            for place, z in rows.items():
                if (old := self._memory.pop(place, None)) is not None:
                    self._held -= old.nbytes
                z.setflags(write=False)
                self._memory[place] = z
                self._held += z.nbytes
            while self._held > self._max_memory:
                self._held -= self._memory.popitem(last=False)[1].nbytes

    def _read(self, places: Sequence[bytes]) -> dict[bytes, Vector]:
        found: dict[bytes, Vector] = {}
        today = int(time.time() // _DAY_S)

        def read(connection: sqlite3.Connection) -> None:
            old: list[tuple[bytes]] = []
            for start in range(0, len(places), _AT_ONCE):
                part = places[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, z, day FROM embeddings WHERE key IN ({marks})"
                for place, blob, day in connection.execute(query, part):
                    if (z := _unpack(blob)) is not None:
                        found[place] = z
                        old += [(place,)] if day != today else []
            # once a day and row is enough to know what is still used
            connection.executemany(f"UPDATE embeddings SET day = {today} WHERE key = ?", old)

        _use(read, create=False)
        return found

    def _write(self, rows: dict[bytes, Vector]) -> None:
        today = int(time.time() // _DAY_S)
        new = sum(z.nbytes for z in rows.values())

        def write(connection: sqlite3.Connection) -> None:
            pages, free, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            used = (pages - free) * size
            if (over := used + new - self._max_disk) > 0:
                # the pages are used again, so the file stays as large as it is
                connection.execute(
                    "DELETE FROM embeddings WHERE key IN (SELECT key FROM embeddings ORDER BY day, "
                    "rowid LIMIT (SELECT 1 + CAST(COUNT(*) * ? AS INTEGER) FROM embeddings))",
                    (max(_AT_LEAST, over / used),),
                )
            connection.executemany(
                "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)",
                [(place, _pack(z), today) for place, z in rows.items()],
            )

        if new <= self._max_disk:
            _use(write, create=True)


def _rebuild(disk: bool, max_disk: int, max_memory: int) -> EmbeddingCache:
    return EmbeddingCache(disk=disk, max_disk=max_disk, max_memory=max_memory)


_SHARED = EmbeddingCache()


def shared_cache() -> EmbeddingCache:
    """Return the cache of this process, which keeps embeddings on disk too."""
    return _SHARED


def _place(space: str, key: str) -> bytes:
    return sha256(f"{space} {key}".encode()).digest()


def _pack(z: Vector) -> bytes:
    data = z.astype("<f4").tobytes()
    return data + zlib.crc32(data).to_bytes(4, "little")


def _unpack(blob: object) -> Vector | None:
    """Return the embedding, or ``None`` if the bytes are not what was written."""
    if not isinstance(blob, bytes) or len(blob) < 8 or len(blob) % 4:
        return None
    data, check = blob[:-4], int.from_bytes(blob[-4:], "little")
    return np.frombuffer(data, "<f4").astype(np.float32) if zlib.crc32(data) == check else None


def _use(action: Callable[[sqlite3.Connection], None], *, create: bool) -> None:
    """Let something be done with the file, as one transaction.

    Every fault of the file ends here: what was to be done is left undone.
    """
    connection = None
    try:
        path = cache_home() / _FILE
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            return
        # a connection for each use: the next may be another thread's, or a forked process's
        connection = sqlite3.connect(path, timeout=_WAIT_S)
        # readers go on while somebody writes; a crash loses the last rows at most
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_TABLE)
        action(connection)
        connection.commit()
    except sqlite3.OperationalError:
        return  # in use for too long, no room, no right to write: it works without
    except sqlite3.DatabaseError:
        _discard(path)
    except (OSError, DataError):
        return
    finally:
        if connection is not None:
            connection.close()


def _discard(path: Path) -> None:
    """Remove a file that is no database any more, and what belongs to it."""
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink()
