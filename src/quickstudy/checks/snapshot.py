"""Snapshots of a module: everything it holds, to find out what was changed in between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.core.arguments import checked

__all__ = ["changed", "snapshot"]

_PLAIN_TYPES = (bool, int, float, str, bytes, tuple, type(None))


@checked
def snapshot(learner: nn.Module) -> dict[str, Any]:
    """Return everything a module holds: parameters, buffers, and attributes of it and its parts.

    Two snapshots are equal (``==``) if nothing on the module was changed, added or removed.

    Args:
        learner: any module.

    Returns:
        Values by their names: tensors as shape and bytes, so that the last bit counts.
    """
    held: dict[str, Any] = {}
    for name, module in learner.named_modules():
        values = {**module._parameters, **module._buffers, **vars(module)}
        for key, value in values.items():
            if isinstance(value, Tensor):
                bits = value.detach().cpu().contiguous().flatten().view(torch.uint8)
                held[f"{name}.{key}"] = (tuple(value.shape), bits.numpy().tobytes())
            elif isinstance(value, _PLAIN_TYPES):
                held[f"{name}.{key}"] = value
            else:
                # of a container only its size: states that are kept in a list or a dict add to it
                held[f"{name}.{key}"] = len(value) if isinstance(value, (list, dict, set)) else 0
    return held


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names whose values differ between two snapshots, sorted."""
    return sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
