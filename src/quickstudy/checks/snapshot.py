"""What a module holds, so that two moments can be compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["changed", "snapshot"]

_PLAIN = (bool, int, float, str, bytes, tuple, type(None))


def snapshot(learner: nn.Module) -> dict[str, Any]:
    """Return everything a module holds: parameters, buffers, and attributes set on it or its parts.

    Equal snapshots (compared with ``==``) mean that nothing was changed, added or hidden on the
    module.
    """
    held: dict[str, Any] = {}
    for name, module in learner.named_modules():
        values = {**module._parameters, **module._buffers, **vars(module)}
        for key, value in values.items():
            if isinstance(value, Tensor):
                bits = value.detach().cpu().contiguous().flatten().view(torch.uint8)
                held[f"{name}.{key}"] = (tuple(value.shape), bits.numpy().tobytes())
            elif isinstance(value, _PLAIN):
                held[f"{name}.{key}"] = value
            else:
                # a container is watched by its size: states kept in a list or a dict show up here
                held[f"{name}.{key}"] = len(value) if isinstance(value, (list, dict, set)) else 0
    return held


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names that two snapshots do not agree on."""
    return sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
