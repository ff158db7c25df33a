"""Keep the memory that a training step frees for the next step."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed blocks of up to 1 GB instead of handing them back to the kernel.

    Without it every activation of every training step is mapped anew, and the kernel clears its
    pages again: on 2 cores a Conv-4 step takes 1.4 to 1.6 times as long. All threads share one
    arena, because an arena of a thread's own cannot grow beyond 64 MB and is unmapped when it is
    empty. The setting holds for the whole process.

    Returns:
        Whether it took effect. Anywhere but on Linux with glibc nothing is done: ``False``.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    settings = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES),
        (_M_TRIM_THRESHOLD, _LARGEST_KEPT_BYTES),
    )
    return all(mallopt(name, value) for name, value in settings)
