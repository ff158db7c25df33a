"""Decoded pools, kept in the cache folder so that images are decoded once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from quickstudy.core import DataError
from quickstudy.storage.files import replacing
from quickstudy.storage.places import cache_home
from quickstudy.tasks.pool import Pool

__all__ = [
    "cached_pool",
    "pool_cache_path",
]

_FORMAT = 2  # part of each entry's name: raise it when decoding or the layout of an entry changes


def pool_cache_path(key: Mapping[str, object]) -> Path:
    """Return the cache file of a decoded pool, whether it exists or not.

    Args:
        key: everything that the pool depends on: the source's sha256 and every option of decoding.
    """
    text = json.dumps({"format": _FORMAT, **key}, sort_keys=True, default=str)
    stem = re.sub(r"[^a-z0-9]+", "-", str(key.get("name", "pool")).lower())
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    return cache_home() / "pools" / f"{stem}-{digest}.safetensors"


def cached_pool(key: Mapping[str, object], build: Callable[[], Pool]) -> Pool:
    """Return a decoded pool from the cache, or build it and keep it there.

    An entry that cannot be read is built again. If the cache cannot be written, the pool is built
    each time.

    Args:
        key: as for :func:`pool_cache_path`.
        build: decodes the pool.
    """
    try:
        path = pool_cache_path(key)
    except DataError:
        return build()
    pool = _load_pool(path)
    if pool is None:
        pool = build()
        with contextlib.suppress(OSError, SafetensorError):
            _save_pool(pool, path)
    return pool


def _save_pool(pool: Pool, path: Path) -> None:
    tensors = {"x": pool.x.contiguous(), "y": pool.y.contiguous()}
    if pool.groups is not None:
        tensors["groups"] = pool.groups.contiguous()
    about = {"class_names": pool.class_names, "name": pool.name, "split": pool.split}
    with replacing(path) as part:
        save_file(tensors, part, metadata={"pool": json.dumps(about)})


def _load_pool(path: Path) -> Pool | None:
    """Return the pool of a cache file, or ``None`` if there is no file or it is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["pool"])
            names = list(file.keys())
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in names}
        return Pool(
            tensors["x"],
            tensors["y"],
            tuple(about["class_names"]),
            about["name"],
            about["split"],
            tensors.get("groups"),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        return None
