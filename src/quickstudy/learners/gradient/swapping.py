"""Run a module with other tensors in the place of its own, and put its own back.

``torch.func.functional_call`` swaps name by name. Where a module can be reached under two names (a
layer used twice, one network in two branches) the second swap finds the first one's tensor, takes
it for the module's own, and leaves it there. Here the tables of each module are swapped once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["RECURRENT", "Own", "Parts", "own_tensors", "swapped"]

Names = list[str]

Parts = Sequence[tuple[str, nn.Module]]
"""The ``named_modules()`` of a module: each of its parts once, whatever its names."""

Own = dict[str, tuple[Tensor, list[tuple[dict[str, Any], str]]]]
"""By name: a tensor, and every table and key under which the module keeps it."""

RECURRENT = ("_flat_weights", "_flat_weight_refs")
"""Lists in which a recurrent layer of PyTorch keeps its weights a second time."""


def own_tensors(parts: Parts, *, buffers: bool = False) -> Own:
    """Return a module's parameters, or its buffers, with all places that hold them.

    Args:
        parts: the module's ``named_modules()``.
        buffers: return the buffers.

    Returns:
        By the names of ``named_parameters()`` or ``named_buffers()``.
    """
    found: Own = {}
    names: dict[int, str] = {}
    for prefix, part in parts:
        table: dict[str, Any] = part._buffers if buffers else part._parameters
        for key, tensor in table.items():
            if tensor is None:
                continue
            # of several names, PyTorch gives a tensor the first
            name = names.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
            found.setdefault(name, (tensor, []))[1].append((table, key))
    return found


@contextmanager
def swapped(parts: Parts, own: Own, others: Mapping[str, Tensor]) -> Iterator[Callable[[], Names]]:
    """Put other tensors into a module while the body runs; then it holds its own again.

    Args:
        parts: the module's ``named_modules()``.
        own: its tensors, of :func:`own_tensors`.
        others: the tensors to put in, by name.

    Yields:
        A function that returns the names of tensors that the body replaced, added or deleted.
    """
    tables: list[tuple[str, dict[str, Any]]] = [
        (p, t) for p, part in parts for t in (part._parameters, part._buffers)
    ]
    before = [dict(table) for _, table in tables]
    attributes = [_tensors(part) for _, part in parts]
    recurrent = [part for _, part in parts if isinstance(part, nn.RNNBase)]
    lists = [{n: vars(part)[n] for n in RECURRENT} for part in recurrent]
    try:
        for name, tensor in others.items():
            for table, key in own[name][1]:
                table[key] = tensor
        for part in recurrent:
            # it keeps its weights in a list too, and where the list does not fit its table it makes
            # another one, for which cuDNN copies the weights
            weights = [getattr(part, n, None) for n in part._flat_weights_names]
            refs = [None if w is None else weakref.ref(w) for w in weights]
            vars(part).update(_flat_weights=weights, _flat_weight_refs=refs)
        placed = [dict(table) for _, table in tables]

        def replaced() -> Names:
            return [
                f"{prefix}.{key}" if prefix else key
                for (prefix, table), put in zip(tables, placed, strict=True)
                for key in table.keys() | put.keys()
                if table.get(key) is not put.get(key)
            ]

        yield replaced
    finally:
        # whole tables: the body may have changed other entries than those that were put in
        for (_, table), own_entries in zip(tables, before, strict=True):
            table.clear()
            table.update(own_entries)
        for part, own_lists in zip(recurrent, lists, strict=True):
            vars(part).update(own_lists)
        # a hook that computes a weight leaves it as a plain attribute, with the graph of this call
        for (_, holder), plain in zip(parts, attributes, strict=True):
            for key in _tensors(holder).keys() - plain.keys():
                del vars(holder)[key]
            vars(holder).update(plain)


def _tensors(part: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that are plain attributes of a module."""
    return {key: value for key, value in vars(part).items() if isinstance(value, Tensor)}
