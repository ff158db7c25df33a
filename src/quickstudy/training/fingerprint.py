"""What must not change between a run and its resumption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from quickstudy.training.config import TrainConfig

__all__ = ["changes", "fingerprint"]

# settings that are younger than runs which may be resumed, and what these were trained with
_SINCE = {
    "recipe.data.also": "[]",
    "recipe.data.classes": "null",
    "train.validation.choose_by": '"novel classes"',
    "train.validation.domains": "[]",
    "train.validation.watch_episodes": "100",
}


def fingerprint(config: TrainConfig, manifest: Mapping[str, Any] | None) -> dict[str, str]:
    """Name what must not change, each value as JSON."""
    return _flat({"train": config.model_dump(mode="json"), **(manifest or {})})


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return what differs between two fingerprints, in words, by its name."""
    old, new = _SINCE | dict(before), _SINCE | dict(now)
    return {
        name: f"{name}: {before.get(name, 'nothing')} in the run, {now.get(name)} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value)
    return flat
