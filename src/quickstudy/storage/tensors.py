"""Tensors on disk: safetensors with JSON in the header, and a checksum over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from quickstudy.core import CheckpointError
from quickstudy.storage.files import write_atomically

__all__ = ["hash_tensors", "load_tensors", "load_weights", "save_tensors"]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON-ready metadata into one safetensors file, atomically."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    about = {"quickstudy": json.dumps(meta)}
    write_atomically(path, save(plain, metadata={**about, "sha256": _digest(plain, about)}))


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """Return the sha256 over metadata, names, types, shapes and values."""
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
            f"{path} is damaged or was not written by Quickstudy ({error}). Take another copy, or "
            "train again into another folder."
        ) from error


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Load weights and buffers into a model, which must have exactly these.

    Args:
        model: gets the values.
        tensors: weights and buffers by name.
        where: what they were read from, for the error.

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
