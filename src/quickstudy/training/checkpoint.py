"""The state of the outer optimiser as named tensors, for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = [
    "optimiser_state",
    "restore_optimiser",
]


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state as ``{"group.index.name": tensor}``."""
    return {
        f"{g}.{i}.{name}": value
        for g, group in enumerate(optimiser.param_groups)
        for i, parameter in enumerate(group["params"])
        for name, value in optimiser.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state that :func:`optimiser_state` returned.

    Each tensor gets the memory layout of its parameter, because a fused optimiser walks both along
    their memory.
    """
    for name, value in tensors.items():
        g, i, key = name.split(".", 2)
        parameter = optimiser.param_groups[int(g)]["params"][int(i)]
        if value.shape == parameter.shape and value.ndim:
            value = torch.empty_like(parameter).copy_(value)
        elif optimiser.defaults.get("fused") or optimiser.defaults.get("capturable"):
            value = value.to(parameter.device)
        optimiser.state[parameter][key] = value
