"""Lists of tasks on which runs are compared.

Their classes are ones that all of the runs were trained on, or that none of them has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from quickstudy.comparing.result import Role
from quickstudy.core import ConfigError, EpisodeSpec, TaskError
from quickstudy.recipes.data import PartConfig, TaskData, generated_data
from quickstudy.recipes.schema import Recipe
from quickstudy.runs.exposure import chose_domain
from quickstudy.tasks import Pool, PoolSource, TaskSource
from quickstudy.tasks.catalogue import DATASETS, same_images
from quickstudy.tasks.datasets import dataset_status, load_pool
from quickstudy.tasks.fit import fit_images
from quickstudy.tasks.own import is_own, own_path, read_own

__all__ = ["DOMAINS", "TaskList", "available_domains", "role_of", "task_lists"]

DOMAINS = (
    "omniglot",
    "miniimagenet",
    "cifar-fs",
    "quickdraw",
    "gtsrb",
    "dtd",
    "fashion-mnist",
    "mnist",
    "digits",
)
"""The domains of the cross-domain suite, in the manner of Meta-Dataset (Triantafillou 2020)."""

_TRAINED, _NOVEL = "trained", "novel"


@dataclass(frozen=True, slots=True)
class TaskList:
    """A list of episodes that learners with different image sizes can share.

    Args:
        name: its name in tables.
        data: named data set or folder of class folders.
        split: ``"trained"``, ``"novel"``, or the part of the data set.
        classes: names of the classes, before rotation; empty = all of the part.
        rotations: each class turned by 90, 180 and 270 degrees counts as a further class.
        group_aware: no track has examples in both the support and the query of an episode.
        spec: way, shot, queries.
        episodes: number of episodes.
        seed: names the episodes.
        columns: of labels and of embeddings in a table of one's own; ``None`` = found.
    """

    name: str
    data: str
    split: str
    classes: tuple[str, ...]
    rotations: bool
    group_aware: bool
    spec: EpisodeSpec
    episodes: int
    seed: int
    columns: tuple[str | None, str | None] = (None, None)

    def source(self, *, size: int, channels: int) -> TaskSource:
        """Return the source of the episodes, with images of the given size.

        Args:
            size: side of an image in pixels; nothing to tasks that a formula makes.
            channels: 1 or 3.
        """
        if (generated := generated_data(self.data)) is not None:
            return generated.source(self.split)
        pool = _images(self.data, self.split, size, channels, self.columns)
        if self.classes:
            wanted = set(self.classes)
            chosen = [i for i, name in enumerate(pool.class_names) if name in wanted]
            pool = pool.select(chosen, split=self.split)
        if pool.x.ndim > 2:  # vectors stay as they are
            pool = fit_images(pool, channels=channels, size=size)
        return PoolSource(pool.with_rotations() if self.rotations else pool, self.group_aware)


@lru_cache(maxsize=2)
def _images(
    data: str,
    split: str,
    size: int,
    channels: int,
    columns: tuple[str | None, str | None] = (None, None),
) -> Pool:
    if is_own(data):
        label, column = columns
        found = read_own(data, size=size, channels=channels, label=label, column=column)
        named = found.classes() if split == "test" else {}
        return found.select(named["test"], split=split) if named else found.pool
    return load_pool(data, split="all" if split in (_TRAINED, _NOVEL) else split, size=size)


def available_domains() -> tuple[str, ...]:
    """Return the domains of the suite whose data is on this machine."""
    return tuple(name for name in DOMAINS if dataset_status(name).state in ("found", "built-in"))


def role_of(tasks: TaskList, recipe: Recipe) -> Role:
    """Return how a list of tasks relates to the training of a run of this recipe."""
    if generated_data(tasks.data) is not None:  # new tasks of the very distribution
        return "trained distribution" if recipe.data.name == tasks.data else "novel domain"
    if any(same_images(tasks.data, part.name) for part in recipe.data.parts):
        return "trained distribution" if tasks.split == _TRAINED else "novel classes"
    return "choosing domain" if chose_domain(recipe, tasks.data) else "novel domain"


def task_lists(
    trained: Sequence[TaskData],
    data: Sequence[str],
    specs: Sequence[EpisodeSpec],
    *,
    episodes: int,
    seed: int,
    with_trained: bool = True,
    rotations: bool | None = None,
) -> tuple[list[TaskList], list[str]]:
    """Return the lists on which runs are compared, and remarks on lists that had to be changed.

    A data set that runs were trained on gives two lists: the classes that all of these runs were
    trained on (without augmentation), and those that no run was trained, validated or chosen on.
    Other data sets give their test part. Where there are too few classes for a task, the list is
    left out.

    Args:
        trained: the training data of each run.
        data: named data sets or folders of class folders.
        specs: way, shot and queries. A range of ways is cut at the number of classes. Where a track
            must not have examples in both support and query, a range becomes its geometric middle.
        episodes: number of episodes of each list.
        seed: names the episodes.
        with_trained: whether training classes are scored at all.
        rotations: whether turned classes count as further classes; ``None`` = as in the training of
            the runs.

    Returns:
        The lists, and a sentence for each one that was left out or made smaller.

    Raises:
        ConfigError: if a data set is named twice or unknown, or ``episodes`` is below 1.
        TaskError: if no list is left.
    """
    if episodes < 1:
        raise ConfigError(f"episodes must be at least 1; got {episodes}.")
    if len(set(data)) < len(data):
        raise ConfigError(f"a data set is named twice: {', '.join(data)}. Name each once.")
    found: list[TaskList] = []
    remarks: list[str] = []
    _check_kinds(trained, data)
    for given in data:
        if generated_data(given) is not None:
            found += [
                TaskList(
                    _title(given, "test", spec),
                    given,
                    "test",
                    (),
                    False,
                    False,
                    spec,
                    episodes,
                    seed,
                )
                for spec in specs
            ]
            continue
        # the recipe of a run names data of one's own by its absolute path
        name = own_path(given) if is_own(given) else given
        own = [part for config in trained for part in config.parts if same_images(part.name, name)]
        turned = any(config.rotations for config in own) if rotations is None else rotations
        parts: list[tuple[str, tuple[str, ...], int]] = []
        files = next((config.files for config in own if config.files is not None), None)
        columns = (None, None) if files is None else (files.label, files.column)
        if own:
            parts = _seen_and_unseen(name, own, turned)
            parts = parts if with_trained else parts[1:]
        elif is_own(name):
            split = "test" if "test" in read_own(name, size=28, channels=1).classes() else "all"
            parts = [(split, (), _images(name, split, 28, 1).n_classes)]
        else:
            pool = load_pool(name, split="test")
            parts = [("test", (), pool.n_classes * (4 if turned else 1))]
        apart = "track" in DATASETS[name].group if name in DATASETS else False
        for split, classes, n_classes in parts:
            for spec in specs:
                fewest = spec.n_way if isinstance(spec.n_way, int) else spec.n_way[0]
                if n_classes < fewest:
                    remarks.append(_too_few(name, split, n_classes, fewest))
                    continue
                capped = _capped(spec, n_classes)
                if apart:
                    capped = EpisodeSpec(
                        _middle(capped.n_way), _middle(capped.k_shot), capped.n_query
                    )
                title = _title(name, split, capped)
                if capped != spec:
                    why = "its tracks must not stand on both sides" if apart else "it is small"
                    remarks.append(f"{title}, not {_size(spec)}: {why}.")
                found.append(
                    TaskList(
                        *(title, name, split, classes, turned, apart, capped, episodes, seed),
                        columns=columns,
                    )
                )
    if not found:
        raise TaskError(" ".join(remarks))
    return found, list(dict.fromkeys(remarks))


def _check_kinds(trained: Sequence[TaskData], data: Sequence[str]) -> None:
    """Refuse classes for runs of regression, and the other way round."""
    regression = any(config.regression for config in trained)
    for name in data:
        generated = generated_data(name)
        if (generated is not None and generated.regression) != regression:
            if not trained:
                raise ConfigError(f"{name} is regression and has no classes. Name other data.")
            what = "regression" if regression else "classes"
            raise ConfigError(
                f"these runs were trained on {what} and cannot be compared on {name}, which is "
                f"{'of classes' if regression else 'regression'}. Name data of their kind"
                f"{': sinusoid or gaussian-process' if regression else ''}."
            )


def _too_few(name: str, split: str, n_classes: int, fewest: int) -> str:
    kinds = {
        _TRAINED: "that all runs on it have trained on",
        _NOVEL: "that no run has trained or validated on",
    }
    remedy = "Take fewer classes for a task" if n_classes > 1 else "Name another data set"
    if split == _NOVEL:
        remedy += ", or leave out the runs that were trained on most of it"
    part = {_TRAINED: "trained classes", _NOVEL: "novel classes"}.get(split, "all classes")
    return (
        f"{name}, {part}: left out. It has {n_classes} classes {kinds.get(split, 'there')}, too "
        f"few for tasks of {fewest}. {remedy}."
    )


def _seen_and_unseen(
    name: str, own: Sequence[PartConfig], turned: bool
) -> list[tuple[str, tuple[str, ...], int]]:
    """Return the classes that all runs were trained on, and those that none has seen.

    Each entry is the name of the part, its classes, and their number with turned ones.
    """
    of_own = next((config.files for config in own if config.files is not None), None)
    every = set(
        load_pool(name, split="all").class_names
        if of_own is None
        else read_own(
            name, size=28, channels=1, label=of_own.label, column=of_own.column
        ).pool.class_names
    )
    shared, seen = set(every), set()
    for config in own:
        train, val = (
            every
            if config.files is not None and part == "all"
            else set((config.files.parts or {}).get(part, ()))
            if config.files is not None
            else set(load_pool(config.name, split=part, split_file=config.split_file).class_names)
            for part in (config.train, config.validation)
        )
        shared &= train
        seen |= train | val
    times = 4 if turned else 1
    return [
        (split, tuple(sorted(classes)), times * len(classes))
        for split, classes in ((_TRAINED, shared), (_NOVEL, every - seen))
    ]


def _capped(spec: EpisodeSpec, n_classes: int) -> EpisodeSpec:
    """Return the specification with no more ways than there are classes."""
    low, high = spec.n_way if isinstance(spec.n_way, tuple) else (spec.n_way, spec.n_way)
    if high <= n_classes:
        return spec
    return EpisodeSpec((low, n_classes) if low < n_classes else low, spec.k_shot, spec.n_query)


def _middle(number: int | tuple[int, int]) -> int:
    """Return the geometric middle of a range, rounded; a single number is its own."""
    return number if isinstance(number, int) else round((number[0] * number[1]) ** 0.5)


def _size(spec: EpisodeSpec) -> str:
    def text(number: int | tuple[int, int]) -> str:
        return f"{number[0]} to {number[1]}" if isinstance(number, tuple) else str(number)

    return f"{text(spec.n_way)}-way {text(spec.k_shot)}-shot"


def _title(name: str, split: str, spec: EpisodeSpec) -> str:
    words = {_TRAINED: "trained classes", _NOVEL: "novel classes"}
    part = "" if split == "all" else f" {words.get(split, split)}"
    short = Path(name).name if is_own(name) else name
    return f"{short}{part}, {_size(spec)}"
