"""What is compared: runs, and the plain baselines on pixels or on a run's features."""

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
from quickstudy.tasks import PoolSource

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
    """A learner by where it comes from.

    Args:
        name: in tables.
        kind: a run itself, or a baseline.
        run: folder of the run; of a baseline, the one whose features (or image size) it uses.
        family: of the learner, see :data:`quickstudy.learners.base.Family`.
        fingerprint: sha256 of what decides its answers.
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
        ConfigError: if nothing is to be compared, or a baseline is unknown.
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
    for name, folder in zip(names, runs, strict=True):
        loaded = _run(folder.resolve())
        if loaded.recipe.data.regression:
            raise ConfigError(
                f"{folder} was trained on sine waves, which is regression: compare is for classes. "
                "Leave it out."
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
    source = (features or runs[0]).resolve()
    if baselines:
        _run(source)  # says what is wrong with it
    of = source.name
    for kind in BASELINES:
        if kind in baselines:
            title = BASELINES[kind] + ("" if kind == "pixels" else f" of {of}")
            found.append(
                Contestant(title, kind, source, "baseline", _fingerprint(source, kind))  # type: ignore[arg-type]
            )
    return found


def learner_of(contestant: Contestant) -> Learner:
    """Return the learner, to be judged inductively."""
    run = _run(contestant.run)
    if contestant.kind == "pixels":
        return NearestNeighbour()
    if contestant.kind != "run":
        return EmbeddingLearner(encoder_of(run.learner), _HEADS[contestant.kind]()).eval()
    return run.learner.inductive()


def source_for(contestant: Contestant, tasks: TaskList) -> PoolSource:
    """Return the tasks of a list with images as the contestant's encoder takes them."""
    encoder = read_recipe(contestant.run).encoder
    return tasks.source(size=encoder.image_size, channels=encoder.in_channels)


_NOT_LEARNED: Any = {"summary": True, "train": {"seed", "log_every", "checkpoint_every"}}


def seed_groups(given: Sequence[Contestant]) -> dict[str, list[str]]:
    """Return the runs that differ in nothing but their seed, by the name of their recipe.

    How often a run writes its log changes no weight and is no difference.
    """
    groups: dict[tuple[str, str], dict[int, str]] = {}
    for one in given:
        if one.kind == "run":
            recipe = read_recipe(one.run)
            key = recipe.name, recipe.model_dump_json(exclude=_NOT_LEARNED)
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
