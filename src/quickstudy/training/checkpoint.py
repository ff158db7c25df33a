"""Checkpoints: safetensors with JSON in the header, written atomically."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from quickstudy.core import CheckpointError

__all__ = [
    "hash_tensors",
    "load_tensors",
    "load_weights",
    "optimiser_state",
    "restore_optimiser",
    "save_tensors",
    "write_atomically",
]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old contents or the new, whatever happens in between.

    Raises:
        CheckpointError: if the disk is full or the folder cannot be written; the old file is
            untouched.
    """
    # a name of its own for each writer: two processes that save at once must not share one
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
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


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON-ready metadata into one safetensors file, atomically."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    about = {"quickstudy": json.dumps(meta)}
    write_atomically(path, save(plain, metadata={**about, "sha256": _digest(plain, about)}))


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """Return the sha256 over metadata, names, shapes and bytes."""
    hasher = hashlib.sha256(about["quickstudy"].encode())
    hash_tensors(hasher, tensors)
    return hasher.hexdigest()


def hash_tensors(hasher: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Feed names, types, shapes and values of tensors into a hash, in the order of their names."""
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        hasher.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        hasher.update(value.reshape(-1).view(torch.uint8).numpy().data)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a file written by :func:`save_tensors`.

    Raises:
        CheckpointError: if the file is missing, damaged or not ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["sha256"] != _digest(tensors, about):
            raise ValueError("its contents do not fit its checksum")
        return tensors, json.loads(about["quickstudy"])
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} does not exist. Train first, or name another run."
        ) from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or was not written by Quickstudy ({error}). Take a copy, or train "
            "again into another folder."
        ) from error


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Load weights and buffers strictly.

    Raises:
        CheckpointError: if names or shapes do not fit the model.
    """
    try:
        model.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{where} does not fit the model: {str(error).splitlines()[-1].strip()} "
            "Build the model with the recipe that made the run."
        ) from error


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
    """Put back what :func:`optimiser_state` returned, in the memory layout of each parameter."""
    for name, value in tensors.items():
        g, i, key = name.split(".", 2)
        parameter = optimiser.param_groups[int(g)]["params"][int(i)]
        if value.shape == parameter.shape and value.ndim:
            value = torch.empty_like(parameter).copy_(value)
        elif optimiser.defaults.get("fused") or optimiser.defaults.get("capturable"):
            value = value.to(parameter.device)
        optimiser.state[parameter][key] = value
