"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from quickstudy.core import CheckpointError

__all__ = ["replacing", "write_atomically"]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees either the old contents or the new, even after a crash.

    Raises:
        CheckpointError: if the disk is full or the folder cannot be written; the old file is
            untouched.
    """
    # each writer has its own temporary file: two processes may save at once. Its name is cut, as
    # the longest that a file system takes leaves no room for more
    temporary = path.with_name(f"{path.name[:40]}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            # a device or a pipe would be replaced by a file
            raise OSError(errno.EINVAL, "it is no ordinary file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(
            f"cannot write {path} ({len(data) / 1e6:.1f} MB): {error.strerror or error}. "
            + _remedy(error, path)
        ) from error


def _remedy(error: OSError, path: Path) -> str:
    """Return the sentence that says what to do about a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "What was written before is intact: free some space and go on from there."
    return "Choose another place." if not path.exists() else "Make the folder writable."


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system allows it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the same folder, which replaces ``path`` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
