"""The lock of a run: one process at a time trains it, and another one is told who does."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quickstudy.core import CheckpointError

__all__ = ["LOCK", "locked", "refuse_locked"]

LOCK = "run.lock"
"""The file in a folder that says who works in it; it is there only while somebody does."""

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it does not exist.

    The operating system gives the lock back when the process ends, however it ends: a file that
    a killed process left behind is no lock. Where the file system knows no locks, nothing is held.

    Raises:
        CheckpointError: if another process or thread holds it, or the folder cannot be written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(folder)
    except OSError as error:
        raise CheckpointError(
            f"cannot write into {folder}: {error.strerror or error}. Choose another place."
        ) from error
    try:
        yield
    finally:
        # removed while it is still held; who opened it meanwhile sees that it is gone
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        os.close(handle)
        if made:
            with contextlib.suppress(OSError):  # not empty: the work has begun
                folder.rmdir()


def refuse_locked(folder: Path) -> None:
    """Refuse a folder that somebody works in.

    Raises:
        CheckpointError: as :func:`locked`.
    """
    if (folder / LOCK).exists():
        with contextlib.suppress(OSError):
            handle = os.open(folder / LOCK, os.O_RDWR)
            try:
                _take(handle, folder)
            finally:
                os.close(handle)


def _acquire(folder: Path) -> int:
    """Return the open lock file, locked and with our name in it."""
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(handle, folder)
            if _is_file(handle, path):
                about = {"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps(about).encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_file(handle: int, path: Path) -> bool:
    """Return whether an open file is still the one of this name: the one before us may have
    removed it after we opened it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _take(handle: int, folder: Path) -> None:
    """Lock an open file, without waiting."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise CheckpointError(
                f"{folder} is being trained{_who(folder)}. Wait until it is done or stop it, or "
                "name another folder."
            ) from error
        # the file system knows no locks


def _who(folder: Path) -> str:
    """Return by which process, since when."""
    try:
        about: Any = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        return f" by process {int(about['pid'])} since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return " by another process"
