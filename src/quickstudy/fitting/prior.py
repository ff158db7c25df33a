"""Priors: what auxiliary tasks teach about other tasks with the same encoder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from quickstudy.core import CheckpointError
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_positive, check_size
from quickstudy.fitting.familiar import KnownSource
from quickstudy.fitting.first_format import from_first_format
from quickstudy.fitting.heads import (
    CANDIDATES,
    HEADS,
    Settings,
    build_head,
    nearest_size,
    usual_settings,
)
from quickstudy.fitting.one_shot import ByWays, Levels, OneShot, levels_from, levels_to
from quickstudy.fitting.space import Metric, MetricSettings
from quickstudy.learners.heads import CentredHead
from quickstudy.storage.files import write_atomically
from quickstudy.storage.outputs import refuse_foreign

__all__ = ["LEVELS", "HeadPrior", "OpenSetPrior", "TaskPrior"]

LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Coverages of prediction sets, and shares of known queries to accept, that have thresholds."""

# of the JSON file; a higher number in a file means that a newer version wrote it. The first format
# had surfaces of a task's size and of its held-out statistics
_FORMAT = 2
# examples per class from which a metric that was learned on other kinds of data is left out
_SHOTS_WITHOUT_METRIC = 8.0


@dataclass(frozen=True, slots=True)
class HeadPrior:
    """Settings of one head, and what it may say of a task, learned from auxiliary tasks.

    Args:
        settings: hyperparameters of the head by ways and shots; a prior that is learned now has one
            entry, for all sizes.
        expected: mean accuracy on auxiliary tasks by ways and shots: it decides which head is
            preferred for a size.
        far: what is said of one example per class where the task resembles no source: thresholds
            and intervals hold in every one of the sources.
        near: the same by source, for tasks that resemble it.
        held_out: quantiles of ``-log p`` of the right class, over queries of tasks in which
            examples could be held out; empty = unknown.
    """

    settings: Mapping[tuple[int, int], Settings]
    expected: Mapping[tuple[int, int], float]
    far: OneShot
    near: Mapping[str, OneShot] = field(default_factory=dict)
    held_out: tuple[float, ...] = ()

    def at_one_shot(self, source: str | None, ways: float) -> OneShot:
        """Return what is said of a task of this size that resembles this source (``None`` = none).

        A source that has never shown so many classes says nothing of them.
        """
        near = None if source is None else self.near.get(source)
        return near if near is not None and near.accuracy.reaches(ways) else self.far

    def to_dict(self) -> dict[str, Any]:
        """Return the prior as JSON-ready numbers."""
        return {
            "settings": {f"{n}x{k}": dict(v) for (n, k), v in self.settings.items()},
            "expected": {f"{n}x{k}": v for (n, k), v in self.expected.items()},
            "far": self.far.to_dict(),
            "near": {name: one.to_dict() for name, one in self.near.items()},
            "held_out": list(self.held_out),
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> HeadPrior:
        """Return the prior of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: if it is none.
        """
        return cls(
            settings={size_of(key): v for key, v in value["settings"].items()},
            expected={size_of(key): float(v) for key, v in value["expected"].items()},
            far=OneShot.from_dict(value["far"]),
            near={name: OneShot.from_dict(one) for name, one in value["near"].items()},
            held_out=_quantiles(value["held_out"]),
        )


@dataclass(frozen=True, slots=True)
class OpenSetPrior:
    """When a query counts as a stranger: as belonging to no class of its task.

    All numbers are distances in units of the task's own, see
    :class:`~quickstudy.fitting.novelty.Neighbourhood`.

    Args:
        far: with one example per class, by share of known queries to accept, the largest accepted
            distance where the task resembles no source.
        near: the same by source, for tasks that resemble it.
        held_out: quantiles of the distances of known queries in tasks in which examples could be
            held out; empty = unknown.
    """

    far: Levels
    near: Mapping[str, Levels] = field(default_factory=dict)
    held_out: tuple[float, ...] = ()

    def at_one_shot(self, source: str | None, ways: float) -> Levels:
        """Return the limits of a task of this size that resembles this source (``None`` = none)."""
        near = None if source is None else self.near.get(source)
        return near if near and min(near.items())[1].reaches(ways) else self.far

    def to_dict(self) -> dict[str, Any]:
        """Return the prior as JSON-ready numbers."""
        return {
            "far": levels_to(self.far),
            "near": {name: levels_to(one) for name, one in self.near.items()},
            "held_out": list(self.held_out),
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> OpenSetPrior:
        """Return the prior of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: if it is none.
        """
        near = {name: levels_from(one) for name, one in value["near"].items()}
        return cls(levels_from(value["far"]), near, _quantiles(value["held_out"]))


@dataclass(frozen=True, slots=True)
class TaskPrior:
    """A metric, settings, thresholds and expectations, learned from auxiliary tasks.

    :func:`~quickstudy.fitting.learn.learn_prior` makes one from auxiliary tasks, :meth:`plain` one
    where there are none.

    Args:
        metric: the space in which examples are compared.
        centre_prior: see :class:`~quickstudy.learners.heads.CentredHead`.
        heads: what was learned of each head, by name; empty if nothing was learned.
        open_set: what was learned of strangers; ``None`` if nothing was.
        known: the sources of the auxiliary tasks, by which a familiar task is recognised.
        about: where it was learned (sources, classes, seed), for people to read.
        columns: whether embeddings are columns of a table and no directions: then their lengths
            count, and heads for columns are chosen from.

    Example::

        prior = TaskPrior.plain(64)
        prior.learned  # False
        head = prior.head("ridge", ways=5, shots=1)
        prior.save("prior")  # prior.json and prior.safetensors
        prior = TaskPrior.load("prior")
    """

    metric: Metric
    centre_prior: float = 2.0
    heads: Mapping[str, HeadPrior] = field(default_factory=dict)
    open_set: OpenSetPrior | None = None
    known: tuple[KnownSource, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    columns: bool = False

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

    @classmethod
    @checked
    def for_columns(cls, dim: int) -> TaskPrior:
        """Return the prior of standardised columns of a table, about which nothing was learned.

        Args:
            dim: number of columns.

        Raises:
            ConfigError: if ``dim`` is below 1.
        """
        check_size(dim=dim)
        return cls(Metric.plain(dim, unit=False), columns=True)

    def resized(self, dim: int) -> TaskPrior:
        """Return the prior about which nothing was learned for embeddings of another width."""
        return self.for_columns(dim) if self.columns else self.plain(dim)

    def for_task(self, familiar: str | None, shots: float) -> TaskPrior:
        """Return the prior with the space that serves a task.

        A learned metric stands for what differs within classes of other tasks. On data sets that it
        never saw it gained 1.2 points of accuracy at two examples per class, nothing at five, and
        lost 0.7 at ten, where examples of the task itself say more: there it is left out, unless
        the task resembles a source.

        Args:
            familiar: name of the source that the task resembles; ``None`` = none.
            shots: examples per class, harmonic mean.
        """
        if familiar is not None or shots < _SHOTS_WITHOUT_METRIC or self.metric.settings.plain:
            return self
        # settings, and which head is best, were learned in the metric
        heads = {
            name: replace(
                head, settings=dict.fromkeys(head.settings, usual_settings(name)), expected={}
            )
            for name, head in self.heads.items()
            if name in HEADS
        }
        plain = self.plain(self.metric.dim)
        return replace(self, metric=plain.metric, centre_prior=plain.centre_prior, heads=heads)

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
            settings = usual_settings(name, columns=self.columns)
        return self.build(name, settings)

    def build(self, name: str, settings: Settings) -> CentredHead:
        """Return a head with these settings, see :func:`~quickstudy.fitting.heads.build_head`."""
        return build_head(
            name,
            settings,
            dim=self.metric.dim,
            centre_prior=self.centre_prior,
            columns=self.columns,
            fingerprint=self.about.get("fingerprint"),
        )

    def preferred(self, ways: float, shots: float, *, among: tuple[str, ...] = CANDIDATES) -> str:
        """Return the head with the greatest expected accuracy on a task of this size.

        Args:
            ways: number of classes.
            shots: examples per class.
            among: the heads to choose from.
        """
        known = {name: self.heads[name].expected for name in among if name in self.heads}
        if not known or not all(known.values()):
            return "logistic" if "logistic" in among else "prototype"
        sizes = set.intersection(*(set(one) for one in known.values()))
        size = nearest_size(ways, shots, sorted(sizes))
        return max(known, key=lambda name: known[name][size])

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
            "heads": {name: head.to_dict() for name, head in self.heads.items()},
            "open_set": None if self.open_set is None else self.open_set.to_dict(),
            "known": {
                one.name: {"mean": one.mean.to_list(), "deviation": one.deviation.to_list()}
                for one in self.known
            },
            "about": dict(self.about),
        }
        if self.columns:
            document["columns"] = True
        tensors = {"mean": self.metric.mean}
        if self.metric.directions is not None and self.metric.factors is not None:
            tensors |= {"directions": self.metric.directions, "factors": self.metric.factors}
        if self.known:
            tensors["centres"] = torch.stack([one.centre for one in self.known])
        return document, tensors

    @classmethod
    def from_parts(cls, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TaskPrior:
        """Return the prior of :meth:`to_parts`.

        Raises:
            KeyError, TypeError, ValueError: if the document or the tensors are not a prior's.
        """
        if document["format"] > _FORMAT:
            raise ValueError(f"format {document['format']}, this version reads {_FORMAT}")
        if document["format"] < _FORMAT:
            document = from_first_format(document)
        columns = document.get("columns", False)
        if not isinstance(columns, bool):
            raise ValueError(f"columns is {str(columns)[:60]!r}, not true or false")
        settings = MetricSettings(**document["metric"], unit=not columns)
        open_set = document["open_set"]
        return cls(
            Metric(settings, tensors["mean"], tensors.get("directions"), tensors.get("factors")),
            float(document["centre_prior"]),
            {n: HeadPrior.from_dict(v) for n, v in document["heads"].items()},
            None if open_set is None else OpenSetPrior.from_dict(open_set),
            _known(document["known"], tensors.get("centres")),
            document["about"],
            columns,
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


def size_of(key: str) -> tuple[int, int]:
    """Return ``(5, 1)`` for ``"5x1"``."""
    ways, shots = key.split("x")
    return int(ways), int(shots)


def _quantiles(values: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if not all(math.isfinite(value) for value in found) or list(found) != sorted(found):
        raise ValueError("quantiles are finite and ascending")
    return found


def _known(facts: Mapping[str, Any], centres: Tensor | None) -> tuple[KnownSource, ...]:
    if len(facts) != (0 if centres is None else len(centres)):
        raise ValueError(f"the prior has {len(facts)} sources and other centres")
    table = ByWays.from_list
    return tuple(
        KnownSource(name, centre, table(one["mean"]), table(one["deviation"]))
        for (name, one), centre in zip(
            facts.items(), () if centres is None else centres, strict=True
        )
    )


def _is_prior(path: str | Path) -> bool:
    document = json.loads(_with(path, ".json").read_text(encoding="utf-8"))
    return isinstance(document, dict) and {"metric", "heads", "format"} <= document.keys()


def _with(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    return path.with_name(path.name + suffix)  # with_suffix would cut "v1.2" to "v1"
