"""Deterministic kernels on a CPU: the same numbers are added in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["deterministic_on_cpu"]


@contextmanager
def deterministic_on_cpu(device: torch.device) -> Iterator[None]:
    """Let PyTorch choose deterministic kernels while training on a CPU; elsewhere do nothing.

    By default the gradient of indexing adds float32 rows with atomic operations when there are
    several threads, so that two runs differ in their last bits, and after some steps in all.

    Args:
        device: where the training runs.
    """
    if device.type != "cpu":
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    # a kernel without a deterministic form is warned of, not refused: the loss may be a user's own
    torch.use_deterministic_algorithms(True, warn_only=warn_only or not enabled)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
