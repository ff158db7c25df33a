"""One process at a time changes a file that several may read and write.

A folder itself is locked, so that no further file is left behind, and a lock ends with its process,
however that ends. Where the system or the file system has no locks there is none.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from quickstudy.core import CheckpointError

__all__ = ["changing"]

_LONGEST_WAIT = 60.0  # seconds
_PAUSE = 0.05  # seconds between two tries


@contextlib.contextmanager
def changing(path: Path, *, wait: float = _LONGEST_WAIT) -> Iterator[None]:
    """Let nobody else who asks for this change files in the folder of ``path`` meanwhile.

    Args:
        path: of the file that is read, changed and written.
        wait: seconds to wait for another process.

    Raises:
        CheckpointError: if another process needs longer.
    """
    folder = path.absolute().resolve().parent
    with _opened(folder) as handle:
        end = time.monotonic() + wait
        while not _try_to_lock(handle):
            if time.monotonic() > end:
                raise CheckpointError(
                    f"another command has been changing a file in {folder} for {wait:.0f} s. Wait "
                    "until it has ended, and try again."
                )
            time.sleep(_PAUSE)
        yield


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """Yield a handle of the folder, or ``None`` if there is no such folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # whoever reads or writes there says so
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)  # the lock ends with it


def _try_to_lock(handle: int | None) -> bool:
    """Return whether the lock is ours now; where there are no locks it always is."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return True
    if handle is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
