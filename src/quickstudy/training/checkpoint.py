"""The state of the outer optimiser as named tensors, for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.core import CheckpointError

__all__ = [
    "checked_checkpoint",
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

    Raises:
        CheckpointError: if a tensor fits no parameter.
    """
    for name, value in tensors.items():
        try:
            g, i, key = name.split(".", 2)
            parameter = optimiser.param_groups[int(g)]["params"][int(i)]
            if value.ndim and value.shape != parameter.shape:
                raise ValueError(f"its shape is {list(value.shape)}")
        except (ValueError, IndexError) as error:
            raise CheckpointError(
                f"the checkpoint's state {name!r} of the optimiser fits no parameter ({error}). "
                "Begin another run."
            ) from error
        if value.shape == parameter.shape and value.ndim:
            value = torch.empty_like(parameter).copy_(value)
        elif optimiser.defaults.get("fused") or optimiser.defaults.get("capturable"):
            value = value.to(parameter.device)
        optimiser.state[parameter][key] = value


def checked_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], meta: Any, progress: Sequence[str]
) -> dict[str, Any]:
    """Return the description of a checkpoint, with the entries and types that a run writes.

    Args:
        path: of the checkpoint, for errors.
        tensors: its tensors.
        meta: its description.
        progress: names of the numbers that a run counts.

    Raises:
        CheckpointError: if something is missing or of another type.
    """
    marks = meta if isinstance(meta, dict) else {}
    counted, print_ = marks.get("progress"), marks.get("fingerprint")
    parts = {name.split("/", 1)[0] for name in tensors if "/" in name}
    sound = (
        isinstance(print_, dict)
        and all(isinstance(value, str) for value in print_.values())
        and type(marks.get("threads")) is int
        and isinstance(counted, dict)
        and counted.keys() == set(progress)
        and all(type(counted[n]) is int and counted[n] >= 0 for n in ("step", "best_step", "worse"))
        and all(
            type(counted[n]) in (int, float) or (n == "best" and counted[n] is None)
            for n in ("best", "seconds")
        )
        and parts - {"optimiser"} == {"weights", "average", "best"}
        and all("/" in name for name in tensors)
    )
    if not sound:
        raise CheckpointError(
            f"{path} does not hold what a run writes into it. Take another copy, or begin another "
            "run."
        )
    return marks
