"""The settings and facts that must not change when a run is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from quickstudy.training.config import TrainConfig

__all__ = ["changes", "fingerprint"]

# settings that older runs do not name, with the value that those runs were trained with
_ADDED_SETTINGS = {
    "recipe.data.also": "[]",
    "recipe.data.classes": "null",
    "train.validation.choose_by": '"novel classes"',
    "train.validation.domains": "[]",
    "train.validation.watch_episodes": "100",
}


def fingerprint(config: TrainConfig, manifest: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the settings that must not change, by dotted name, each value as JSON."""
    return _flat({"train": config.model_dump(mode="json"), **(manifest or {})})


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return a sentence for each setting that differs between two fingerprints, by its name."""
    old, new = _ADDED_SETTINGS | dict(before), _ADDED_SETTINGS | dict(now)
    return {
        name: f"{name}: {before.get(name, 'nothing')} in the run, {now.get(name)} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return ``{"a.b": "1"}`` for ``{"a": {"b": 1}}``."""
    flat: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value)
    return flat
