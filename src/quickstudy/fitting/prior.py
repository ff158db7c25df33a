"""Priors: what auxiliary tasks teach about other tasks with the same encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from quickstudy.core import CheckpointError
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_positive, check_size
from quickstudy.fitting.heads import CANDIDATES, HEADS, Settings, build_head, nearest_size
from quickstudy.fitting.space import Metric, MetricSettings
from quickstudy.fitting.surfaces import Surface
from quickstudy.learners.heads import CentredHead
from quickstudy.storage.files import write_atomically
from quickstudy.storage.outputs import refuse_foreign

__all__ = ["LEVELS", "HeadPrior", "OpenSetPrior", "TaskPrior"]

LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Coverages of prediction sets, and shares of known queries to accept, that have thresholds."""

# of the JSON file; a higher number in a file means that a newer version wrote it
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class HeadPrior:
    """Settings and calibration of one head, learned from auxiliary tasks.

    Every number has two surfaces. The inputs of the first are size features of the task, those of
    the second also its held-out statistics (see :mod:`~quickstudy.fitting.evidence`).

    Args:
        settings: hyperparameters of the head by ways and shots.
        temperature: log temperature; the second surface is added to the log temperature that fits
            the task's own held-out examples.
        accuracy: logit of the accuracy on queries; the first surface also decides which head is
            preferred for a size.
        spread: 5 % and 95 % quantiles of the error of that logit, observed minus predicted.
        sets: by coverage, the largest ``-log p`` with which a class is in the prediction set.
    """

    settings: Mapping[tuple[int, int], Settings]
    temperature: tuple[Surface, Surface]
    accuracy: tuple[Surface, Surface]
    spread: tuple[tuple[float, float], tuple[float, float]]
    sets: tuple[Mapping[float, Surface], Mapping[float, Surface]]

    def to_dict(self) -> dict[str, Any]:
        """Return the prior as JSON-ready numbers."""
        return {
            "settings": {f"{n}x{k}": dict(v) for (n, k), v in self.settings.items()},
            "temperature": [s.to_dict() for s in self.temperature],
            "accuracy": [s.to_dict() for s in self.accuracy],
            "spread": [list(pair) for pair in self.spread],
            "sets": [{str(q): s.to_dict() for q, s in one.items()} for one in self.sets],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> HeadPrior:
        """Return the prior of :meth:`to_dict`."""
        surface = Surface.from_dict
        first, second = ({float(q): surface(s) for q, s in one.items()} for one in value["sets"])
        return cls(
            settings={_size(key): v for key, v in value["settings"].items()},
            temperature=(surface(value["temperature"][0]), surface(value["temperature"][1])),
            accuracy=(surface(value["accuracy"][0]), surface(value["accuracy"][1])),
            spread=(tuple(value["spread"][0]), tuple(value["spread"][1])),
            sets=(first, second),
        )


@dataclass(frozen=True, slots=True)
class OpenSetPrior:
    """When a query counts as a stranger: as belonging to no class of its task.

    Args:
        score: log odds of being a stranger; its inputs are the four distances of
            :func:`~quickstudy.fitting.novelty.distances` and the size features of the task.
        thresholds: by share of known queries to accept, the largest accepted score; its inputs are
            the size features.
    """

    score: Surface
    thresholds: Mapping[float, Surface]

    def to_dict(self) -> dict[str, Any]:
        """Return the prior as JSON-ready numbers."""
        return {
            "score": self.score.to_dict(),
            "thresholds": {str(q): s.to_dict() for q, s in self.thresholds.items()},
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> OpenSetPrior:
        """Return the prior of :meth:`to_dict`."""
        thresholds = {float(q): Surface.from_dict(s) for q, s in value["thresholds"].items()}
        return cls(Surface.from_dict(value["score"]), thresholds)


@dataclass(frozen=True, slots=True)
class TaskPrior:
    """A metric, calibrations, thresholds and expectations, learned from auxiliary tasks.

    :func:`~quickstudy.fitting.learn.learn_prior` makes one from auxiliary tasks, :meth:`plain` one
    where there are none.

    Args:
        metric: the space in which examples are compared.
        centre_prior: see :class:`~quickstudy.learners.heads.CentredHead`.
        most_ways: classes in the largest auxiliary task.
        heads: what was learned of each head, by name; empty if nothing was learned.
        open_set: what was learned of strangers; ``None`` if nothing was.
        about: where it was learned (sources, classes, seed), for people to read.

    Example::

        prior = TaskPrior.plain(64)
        prior.learned  # False
        head = prior.head("ridge", ways=5, shots=1)
        prior.save("prior")  # prior.json and prior.safetensors
        prior = TaskPrior.load("prior")
    """

    metric: Metric
    centre_prior: float = 2.0
    most_ways: float = 100.0
    heads: Mapping[str, HeadPrior] = field(default_factory=dict)
    open_set: OpenSetPrior | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    @checked
    def plain(cls, dim: int) -> TaskPrior:
        """Return the prior of an encoder without auxiliary tasks.

        Examples are compared by cosines, and all calibration comes from a task's own support.

        Args:
            dim: features of an embedding.

        Raises:
            ConfigError: if ``dim`` is below 1.
        """
        check_size(dim=dim)
        return cls(Metric.plain(dim))

    @property
    def learned(self) -> bool:
        """Whether there were auxiliary tasks."""
        return bool(self.heads)

    def transform(self, z: Tensor) -> Tensor:
        """Return embeddings in the learned metric ``[..., D] -> [..., D]``.

        Raises:
            TaskError: if the width is another, or a number is not finite.
        """
        return self.metric(z)

    @checked
    def head(self, name: str, *, ways: float, shots: float) -> CentredHead:
        """Return a head with the settings learned for tasks of the nearest size.

        Args:
            name: one of :data:`~quickstudy.fitting.heads.HEADS`.
            ways: number of classes.
            shots: examples per class.

        Raises:
            ConfigError: if there is no such head.
        """
        check_positive(ways=ways, shots=shots)
        settings: Settings = {}
        if name in self.heads:
            known = self.heads[name].settings
            settings = known[nearest_size(ways, shots, sorted(known))]
        elif name in HEADS:
            settings = HEADS[name][len(HEADS[name]) // 2]
        return build_head(name, settings, dim=self.metric.dim, centre_prior=self.centre_prior)

    def preferred(self, size: Tensor, *, among: tuple[str, ...] = CANDIDATES) -> str:
        """Return the head with the greatest expected accuracy on a task of this size.

        Args:
            size: size features of one task ``[1, F]``.
            among: the heads to choose from.
        """
        known = [name for name in among if name in self.heads]
        if not known:
            return "logistic" if "logistic" in among else "prototype"
        return max(known, key=lambda name: float(self.heads[name].accuracy[0](size)))

    def to_parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the prior as JSON-ready numbers and tensors."""
        settings = self.metric.settings
        document = {
            "format": _FORMAT,
            "metric": {
                "power": settings.power,
                "shrinkage": settings.shrinkage,
                "rank": settings.rank,
            },
            "centre_prior": self.centre_prior,
            "most_ways": self.most_ways,
            "heads": {name: head.to_dict() for name, head in self.heads.items()},
            "open_set": None if self.open_set is None else self.open_set.to_dict(),
            "about": dict(self.about),
        }
        tensors = {"mean": self.metric.mean}
        if self.metric.directions is not None and self.metric.factors is not None:
            tensors |= {"directions": self.metric.directions, "factors": self.metric.factors}
        return document, tensors

    @classmethod
    def from_parts(cls, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TaskPrior:
        """Return the prior of :meth:`to_parts`.

        Raises:
            KeyError, TypeError, ValueError: if the document or the tensors are not a prior's.
        """
        if document["format"] > _FORMAT:
            raise ValueError(f"format {document['format']}, this version reads {_FORMAT}")
        settings = MetricSettings(**document["metric"])
        open_set = document["open_set"]
        return cls(
            Metric(settings, tensors["mean"], tensors.get("directions"), tensors.get("factors")),
            float(document["centre_prior"]),
            float(document["most_ways"]),
            {n: HeadPrior.from_dict(v) for n, v in document["heads"].items()},
            None if open_set is None else OpenSetPrior.from_dict(open_set),
            document["about"],
        )

    @checked
    def save(self, path: str | Path) -> None:
        """Write ``PATH.json`` and ``PATH.safetensors``.

        Raises:
            ConfigError: if other files of these names, that are no prior, are there.
            CheckpointError: if they cannot be written.
        """
        for ending in (".safetensors", ".json"):
            refuse_foreign(_with(path, ending), name="the prior", ours=lambda _: _is_prior(path))
        document, tensors = self.to_parts()
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        write_atomically(_with(path, ".safetensors"), save(tensors))
        write_atomically(_with(path, ".json"), text.encode())

    @classmethod
    @checked
    def load(cls, path: str | Path) -> TaskPrior:
        """Return the prior that :meth:`save` wrote.

        Raises:
            CheckpointError: if a file is missing, damaged or of a newer format.
        """
        try:
            document = json.loads(_with(path, ".json").read_text(encoding="utf-8"))
            tensors = load(_with(path, ".safetensors").read_bytes())
            return cls.from_parts(document, tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is no prior that this version can read ({error}). Learn it again with "
                "learn_prior, or update Quickstudy."
            ) from error


def _size(key: str) -> tuple[int, int]:
    """Return ``(5, 1)`` for ``"5x1"``."""
    ways, shots = key.split("x")
    return int(ways), int(shots)


def _is_prior(path: str | Path) -> bool:
    document = json.loads(_with(path, ".json").read_text(encoding="utf-8"))
    return isinstance(document, dict) and {"metric", "heads", "format"} <= document.keys()


def _with(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    return path.with_name(path.name + suffix)  # with_suffix would cut "v1.2" to "v1"
