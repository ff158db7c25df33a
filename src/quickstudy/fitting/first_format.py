"""Priors of the first format, as task files of earlier versions hold them.

They described a task by surfaces: ``value = w . clamp((f - mean) / deviation, -3, 3) + constant``,
whose inputs were its size, how near its classes lie, and statistics of its held-out examples. Of
those, what they said of one example per class is kept, and which head they preferred; with more
examples a task now judges itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["from_first_format"]

_WAYS = (2, 5, 10, 20, 40, 75)
_SHOTS = (1, 2, 3, 5, 10)
_MOST_SHOTS = 20.0
# accepts all but the rarest distances: the first format measured them in another way
_RATIOS = {0.5: 1.0, 0.9: 1.5, 0.98: 2.0}
# the same as evenly spaced quantiles: without any, a task of fewer than 19 examples that refused
# strangers before would refuse nothing
_HELD_OUT = np.interp((np.arange(20) + 0.5) / 20, [0, *_RATIOS], [0, *_RATIOS.values()]).tolist()


def from_first_format(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a prior in the present format.

    Args:
        document: as it was read.

    Raises:
        KeyError, TypeError, ValueError: if it is not one of the first format.
    """
    most = float(document["most_ways"])
    if not (math.isfinite(most) and most >= 1):
        raise ValueError(f"most_ways is {most}")
    heads = {name: _head(value, most) for name, value in document["heads"].items()}
    open_set = None
    if document["open_set"] is not None:
        far = {str(q): [[2, ratio], [75, ratio]] for q, ratio in _RATIOS.items()}
        open_set = {"far": far, "near": {}, "held_out": _HELD_OUT}
    kept = {key: document[key] for key in ("metric", "centre_prior", "about")}
    return kept | {"format": 2, "heads": heads, "open_set": open_set, "known": {}}


def _head(value: Mapping[str, Any], most: float) -> dict[str, Any]:
    """Return what was learned of one head."""

    def by_ways(surface: Mapping[str, Any]) -> list[list[float]]:
        return [[n, _value(surface, n, 1, most)] for n in _WAYS]

    logit = by_ways(value["accuracy"][0])
    low, high = (float(by) for by in value["spread"][0])
    expected = {
        f"{n}x{k}": _sigmoid(_value(value["accuracy"][0], n, k, most))
        for n in _WAYS
        for k in _SHOTS
    }
    far = {
        "log_temperature": by_ways(value["temperature"][0]),
        "accuracy": [[n, _sigmoid(v)] for n, v in logit],
        "low": [[n, _sigmoid(v + low)] for n, v in logit],
        "high": [[n, _sigmoid(v + high)] for n, v in logit],
        "sets": {q: by_ways(surface) for q, surface in value["sets"][0].items()},
    }
    return {
        "settings": value["settings"],
        "expected": expected,
        "far": far,
        "near": {},
        "held_out": [],
    }


def _value(surface: Mapping[str, Any], ways: int, shots: int, most: float) -> float:
    """Return a surface at a size of tasks whose classes lie as near as was usual."""
    centre, scale, weight = (
        np.asarray(surface[part], dtype=np.float64) for part in ("centre", "scale", "weight")
    )
    if centre.shape != (6,) or scale.shape != (6,) or weight.shape != (7,):
        raise ValueError("a surface of the prior does not take 6 numbers")
    if not all(np.isfinite(part).all() for part in (centre, scale, weight)) or (scale <= 0).any():
        raise ValueError("a surface of the prior is not finite")
    k, c = math.log(min(shots, _MOST_SHOTS)), math.log(min(float(ways), most))
    features = np.array([k, c, k * k, c * c, k * c, centre[5]])
    return float(np.clip((features - centre) / scale, -3, 3) @ weight[:-1] + weight[-1])


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-min(max(x, -50.0), 50.0)))
