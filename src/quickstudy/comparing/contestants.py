"""The contestants of a comparison: runs, and plain baselines on pixels or on a run's features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from quickstudy.comparing.tasklists import TaskList
from quickstudy.core import ConfigError
from quickstudy.learners import EmbeddingLearner, Learner, NearestNeighbour
from quickstudy.learners.heads import FineTunedHead, LogisticHead
from quickstudy.recipes.build import encoder_of
from quickstudy.runs.folder import Run, load_run, read_recipe
from quickstudy.tasks import TaskSource

__all__ = ["BASELINES", "Contestant", "contestants", "learner_of", "seed_groups", "source_for"]

Kind = Literal["run", "pixels", "neighbour", "logistic", "fine-tuned", "baseline++"]

_HEADS: dict[str, Callable[[], Learner]] = {
    "neighbour": NearestNeighbour,
    "logistic": LogisticHead,
    "fine-tuned": FineTunedHead,
    "baseline++": lambda: FineTunedHead(cosine=True),
}
BASELINES: dict[str, str] = {
    "pixels": "pixel nearest neighbour",
    "neighbour": "nearest neighbour on features",
    "logistic": "logistic regression on features",
    "fine-tuned": "fine-tuned head (Baseline)",
    "baseline++": "cosine head (Baseline++)",
}
"""The plain baselines and their names in tables."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A learner of a comparison, named by the run that it is loaded from.

    Args:
        name: its name in tables.
        kind: ``"run"`` for the run's own learner, or the kind of a baseline.
        run: folder of the run; of a baseline, the one whose features (or image size) it uses.
        family: of the learner, see :data:`quickstudy.learners.base.Family`.
        fingerprint: sha256 of everything that its answers depend on.
    """

    name: str
    kind: Kind
    run: Path
    family: str
    fingerprint: str


def contestants(
    runs: Sequence[Path],
    *,
    baselines: Sequence[str] = tuple(BASELINES),
    features: Path | None = None,
) -> list[Contestant]:
    """Return the runs and the baselines.

    Args:
        runs: folders that ``quickstudy train`` wrote.
        baselines: names from :data:`BASELINES`.
        features: the run whose encoder embeds for the baselines; the first one if not given.

    Raises:
        ConfigError: if there is no run or no such baseline, runs of regression and of
            classification are mixed, or two runs hold the same weights.
        CheckpointError: if a run cannot be read.
    """
    if not runs:
        raise ConfigError("name at least one run to compare.")
    if unknown := [name for name in baselines if name not in BASELINES]:
        raise ConfigError(f"there is no baseline {unknown[0]!r}. There are {', '.join(BASELINES)}.")
    names = [folder.resolve().name for folder in runs]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in runs]
    found: list[Contestant] = []
    known: dict[str, Path] = {}
    kinds: dict[bool, Path] = {}  # whether of regression, and the first such run
    for name, folder in zip(names, runs, strict=True):
        loaded = _run(folder.resolve())
        kinds.setdefault(loaded.recipe.data.regression, folder)
        if len(kinds) > 1:
            raise ConfigError(
                f"{kinds[True]} was trained on a regression and {kinds[False]} on classes: their "
                "scores are not of one kind. Compare them apart."
            )
        weights = _digest(folder / "model.safetensors")
        if weights in known:
            raise ConfigError(
                f"{known[weights]} and {folder} hold the same weights: it is one run, and would be "
                "compared with itself. Name it once."
            )
        known[weights] = folder
        family = loaded.learner.family
        found.append(Contestant(name, "run", folder.resolve(), family, _fingerprint(folder, "run")))
    if baselines and True in kinds:
        raise ConfigError(
            f"the baseline {baselines[0]!r} is for classes, and {kinds[True]} is a regression. "
            "Leave the baselines out."
        )
    source = (features or runs[0]).resolve()
    if baselines:
        _run(source)  # raises if it cannot be read
    for kind in BASELINES:
        if kind in baselines:
            title = BASELINES[kind] + ("" if kind == "pixels" else f" of {source.name}")
            found.append(
                Contestant(title, kind, source, "baseline", _fingerprint(source, kind))  # type: ignore[arg-type]
            )
    return found


def learner_of(contestant: Contestant) -> Learner:
    """Return a contestant's learner, which judges each query on its own."""
    run = _run(contestant.run)
    if contestant.kind == "pixels":
        return NearestNeighbour()
    if contestant.kind != "run":
        return EmbeddingLearner(encoder_of(run.learner), _HEADS[contestant.kind]()).eval()
    return run.learner.inductive()


def source_for(contestant: Contestant, tasks: TaskList) -> TaskSource:
    """Return the tasks of a list, with images of the size that the contestant's encoder takes."""
    encoder = read_recipe(contestant.run).encoder
    return tasks.source(size=encoder.image_size, channels=encoder.in_channels)


# settings in which runs may differ and still count as repetitions of one another
_IGNORED_SETTINGS: Any = {"summary": True, "train": {"seed", "log_every", "checkpoint_every"}}


def seed_groups(given: Sequence[Contestant]) -> dict[str, list[str]]:
    """Return the names of runs that differ only in their seed, by the name of their recipe.

    Settings that change no weight, such as how often a log line is written, may differ too.
    """
    groups: dict[tuple[str, str], dict[int, str]] = {}
    for one in given:
        if one.kind == "run":
            recipe = read_recipe(one.run)
            key = recipe.name, recipe.model_dump_json(exclude=_IGNORED_SETTINGS)
            groups.setdefault(key, {}).setdefault(recipe.train.seed, one.name)
    return {name: list(names.values()) for (name, _), names in groups.items() if len(names) > 1}


@lru_cache(maxsize=4)
def _run(folder: Path) -> Run:
    return load_run(folder)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _fingerprint(folder: Path, kind: str) -> str:
    digest = hashlib.sha256(kind.encode())
    for name in ("model.safetensors", "recipe.json"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
