"""``quickstudy check``."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from quickstudy.checks import (
    CheckReport,
    Finding,
    Outcome,
    Passed,
    Skipped,
    check_contents,
    check_differences,
    check_document,
    check_interval,
    check_learner,
    check_protocol,
    check_source,
)
from quickstudy.checks.page import check_page
from quickstudy.cli.output import emit, say, writable
from quickstudy.cli.protocol import KShot, is_folder, read_number
from quickstudy.core import ConfigError, DataError, EpisodeSpec, nearest_names
from quickstudy.learners import Learner
from quickstudy.learners.gradient import GradientLearner
from quickstudy.recipes import Recipe
from quickstudy.runs.exposure import chosen_on, trained_on
from quickstudy.runs.folder import load_run
from quickstudy.storage.files import write_atomically
from quickstudy.tasks import Pool, PoolSource, SinusoidSource, TaskSource
from quickstudy.tasks.datasets import DATASETS, DataPart, load_pool
from quickstudy.tasks.fit import fit_images
from quickstudy.tasks.folders import FolderReading, read_folder, split_folders

__all__ = ["check_command"]

_FOLDER_SIZE = 84
_ASKED = 40  # episodes that accuracies of learners are taken over, at most
_QUERIES = 5
_SHOWN, _MOST_NAMED = 5, 100  # files named in a sentence, and as evidence


@dataclass(frozen=True, slots=True)
class _Data:
    """The parts of a data set, and which of them episodes are drawn from."""

    parts: dict[str, Pool]
    tested: str
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reading: tuple[Outcome, ...] = ()


def check_command(
    target: Annotated[
        str,
        typer.Argument(
            help="A run folder, a named data set, a folder of class folders (or of train/, val/, "
            "test/ with such), module:attribute with a Learner or TaskSource of your own, or a "
            "JSON document of 'evaluate'."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="What to ask a learner about: a named data set or a folder."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the pictures.")] = None,
    n_way: Annotated[str, typer.Option("--n-way", help="Classes per task.")] = "5",
    k_shot: KShot = "1",
    episodes: Annotated[int, typer.Option(min=2, help="Episodes to look at.")] = 1000,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side in pixels of the images that your own learner takes."),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Of these images: 1 (grey) or 3 (colour).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Look for leaks and broken protocol in a learner or data: what is wrong, the evidence, the
    remedy.

    Exit status 0 if there is no fault (there may be notes), 1 if there is one.

    Example: quickstudy check my/pictures --html check.html

    Example: quickstudy check mypackage.models:build --data omniglot
    """
    way, shot = read_number(n_way, "--n-way"), read_number(k_shot, "--k-shot")
    if channels not in (None, 1, 3):
        raise ConfigError(f"--channels must be 1 or 3; got {channels}.")
    if html is not None:
        writable(html, "--html")
    asked = _Asked(EpisodeSpec(way, shot, _QUERIES), episodes, size, channels)
    reports = _reports(target, data, asked)
    report = CheckReport.join(target, reports)
    if html is not None:
        write_atomically(html, check_page(report).encode())
        say(f"page: {html}")
    document = {"command": "check", **report.to_dict(), "page": None if html is None else str(html)}
    emit(document, as_json=as_json, text=str(report))
    if not report.clean:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Asked:
    """How much is asked."""

    spec: EpisodeSpec
    episodes: int
    size: int | None = None
    channels: int | None = None

    def data(self, found: _Data) -> list[CheckReport]:
        """Check the examples, and the episodes of the part that is judged."""
        pool = found.parts[found.tested]
        reading = CheckReport(pool.name, found.reading)
        names = found.names.get(found.tested)
        return [reading, self.contents(found), *self.pool(pool, names)]

    def pool(self, pool: Pool, names: Sequence[str] | None = None) -> list[CheckReport]:
        """Check the episodes of a pool, without the classes that can be in none."""
        small = [i for i, n in enumerate(pool.counts) if n < 2]
        if not small:
            return [self.source(PoolSource(pool), names)]
        left = [i for i in range(pool.n_classes) if i not in small]
        shown = ", ".join(pool.class_names[i] for i in small[:_SHOWN])
        note = Finding(
            "small-classes",
            "fault" if len(left) < 2 else "note",
            f"{len(small)} class(es) have one example and can be in no task: {shown}"
            f"{' ...' if len(small) > _SHOWN else ''}.",
            {"classes": [pool.class_names[i] for i in small]},
            "Give each class two examples or more. Episodes were checked without these.",
        )
        reports = [CheckReport(pool.name, (note,))]
        if len(left) < 2:
            why = "fewer than two classes have two examples: no episode can be drawn"
            return [*reports, CheckReport(pool.name, (Skipped("episodes", why),))]
        if names is not None:
            kept = np.isin(pool.y.numpy(), left)
            names = [name for name, keep in zip(names, kept, strict=True) if keep]
        return [*reports, self.source(PoolSource(pool.select(left)), names)]

    def contents(self, found: _Data) -> CheckReport:
        """Check the examples."""
        return check_contents(
            found.parts,
            names=found.names,
            k_shot=self.spec.max_shot,
            progress=_progress(next(iter(found.parts.values())).name),
        )

    def source(self, source: TaskSource, names: Sequence[str] | None = None) -> CheckReport:
        """Check the episodes of a source."""
        name = f"{source.name} ({source.split})"
        spec = self.spec
        if isinstance(source, PoolSource):
            fitted = _fitting(spec, source.pool)
            if fitted is None:
                reason = f"a class of {name} has one example: no episode can be drawn"
                return CheckReport(name, (Skipped("episodes", reason),))
            spec = fitted
        return check_source(
            source, spec, episodes=self.episodes, names=names, progress=_progress(name)
        )

    def learner(
        self, learner: Learner, source: TaskSource, spec: EpisodeSpec, name: str
    ) -> list[CheckReport]:
        """Check a learner, and the interval that is printed beside its score."""
        if isinstance(source, PoolSource) and (small := _fitting(spec, source.pool)) is not None:
            spec = small
        found = check_learner(
            learner,
            source,
            spec,
            episodes=min(self.episodes, _ASKED),
            target=name,
            progress=_progress(name),
        )
        start = time.perf_counter()
        outcome = check_interval()
        return [found, CheckReport(name, (outcome,), time.perf_counter() - start)]


def _progress(name: str) -> Callable[[str], None]:
    return lambda what: say(f"{name}: {what} ...")


def _fitting(spec: EpisodeSpec, pool: Pool) -> EpisodeSpec | None:
    """Return the specification, made smaller if the data has too few classes or examples."""
    fewest = int(pool.counts.min())
    if fewest < 2 or pool.n_classes < 2:
        return None
    way = spec.n_way if spec.max_way <= pool.n_classes else pool.n_classes
    shot = spec.k_shot if spec.max_shot < fewest else max(1, fewest // 2)
    most = shot if isinstance(shot, int) else shot[1]
    fitted = EpisodeSpec(way, shot, max(1, min(spec.n_query, fewest - most)))
    if fitted != spec:
        say(f"{pool.name} ({pool.split}) is small: {fitted} tasks with {fitted.n_query} queries.")
    return fitted


def _reports(target: str, data: str | None, asked: _Asked) -> list[CheckReport]:
    """Find out what the target is, and check it."""
    path = Path(target)
    if path.suffix == ".json":
        return [_document(path)]
    if (path / "recipe.json").is_file():
        return _run(path, data, asked)
    if ":" in target and not path.exists():
        return _own(target, data, asked)
    if data is not None:
        raise ConfigError(f"--data is for learners; {target} is data itself. Leave it out.")
    return asked.data(_data(target))


def _document(path: Path) -> CheckReport:
    start = time.perf_counter()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        several = isinstance(document, dict) and isinstance(document.get("results"), list)
        outcomes = [
            outcome
            for one in (document["results"] if several else [document])
            for outcome in (check_document(one), *check_protocol(one))
        ]
        if several:
            outcomes.append(check_differences(document))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be checked: {error}") from error
    return CheckReport(str(path), tuple(outcomes), time.perf_counter() - start)


# ------------------------------------------------------------------ data


def _data(data: str, size: int = _FOLDER_SIZE, channels: int = 3) -> _Data:
    """Return all splits of a named data set or of a folder."""
    if data in DATASETS and not is_folder(data):
        return _named(data)
    if not Path(data).is_dir():
        if "/" in data or data.startswith("."):
            raise DataError(f"{data}: there is no such folder. Check the path.")
        raise ConfigError(
            f"there is no data set or folder {data!r}. {nearest_names(data, DATASETS)}"
        )
    root = Path(data)
    split = split_folders(root)
    # by their own names: 'Train' and 'TRAIN' are shown as they are written
    folders = {folder.name: folder for folder in split.values()} if split else {"all": root}
    pools, names, reading = {}, {}, list[Outcome]()
    for part, folder in folders.items():
        read = read_folder(folder, size=size, channels=channels, name=root.name, split=part)
        prefix = folder.relative_to(root).as_posix()
        start = "" if prefix == "." else f"{prefix}/"
        pools[part], names[part] = read.pool, tuple(start + file for file in read.files)
        reading += _reading(read, start)
    if not reading:
        rows = sum(len(pool.y) for pool in pools.values())
        reading.append(Passed("readable", f"{rows:,} images, all that is in the class folders"))
    return _Data(pools, list(pools)[-1], names, tuple(reading))


def _reading(read: FolderReading, start: str) -> list[Outcome]:
    """Return what of a folder is not among the examples."""
    found: list[Outcome] = []
    for check, severity, files, what, remedy in (
        (
            "readable",
            "fault",
            read.unreadable,
            "image(s) cannot be read",
            "Replace or remove them.",
        ),
        (
            "files-passed-over",
            "note",
            read.passed_over,
            "file(s) are no image in a class folder, and were passed over",
            "Remove them, save them as PNG or JPEG, or put them into a class folder.",
        ),
        (
            "empty-classes",
            "note",
            read.empty,
            "folder(s) hold no image, and are no class",
            "Add images, or remove the folder.",
        ),
    ):
        if files:
            shown = ", ".join(start + file for file in files[:_SHOWN])
            more = " ..." if len(files) > _SHOWN else ""
            found.append(
                Finding(
                    check,
                    severity,  # type: ignore[arg-type]
                    f"{len(files):,} {what}: {shown}{more}.",
                    {"files": [start + file for file in files[:_MOST_NAMED]], "count": len(files)},
                    remedy,
                )
            )
    return found


def _named(name: str, split_file: str | None = None, size: int | None = None) -> _Data:
    splits = [s for s in DATASETS[name].splits if s != "all"]
    pools = {}
    for split in splits:
        say(f"{name}: reading {split} ...")
        pools[split] = load_pool(name, split=split, split_file=split_file, size=size)
    return _Data(pools, splits[-1])


# ------------------------------------------------------------------ runs


def _run(folder: Path, data: str | None, asked: _Asked) -> list[CheckReport]:
    """Check the data of a run, and its learner as it is judged: inductively."""
    run = load_run(folder)
    recipe, learner = run.recipe, run.learner
    validation = recipe.train.validation
    spec = EpisodeSpec(validation.n_way, validation.k_shot, min(_QUERIES, validation.n_query))
    if isinstance(learner, GradientLearner):
        learner = learner.judged(query_statistics="support", eval_steps=None)
    if recipe.data.name == "sinusoid":
        source = SinusoidSource("test")
        sine = _Asked(spec, asked.episodes)
        return [sine.source(source), *sine.learner(learner, source, spec, str(folder))]
    encoder = recipe.encoder
    reports = []
    for name in (data,) if data is not None else tuple(part.name for part in recipe.data.parts):
        own = None if is_folder(name) else recipe.data.part(name)
        split_file = None if own is None else own.split_file
        found = (
            _named(name, split_file, encoder.image_size)
            if own is not None
            else _data(name, encoder.image_size, encoder.in_channels)
        )
        tested = fit_images(
            found.parts[found.tested], channels=encoder.in_channels, size=encoder.image_size
        )
        groups = recipe.data.group_aware if own is None else own.group_aware
        title = str(folder) if len(recipe.data.parts) == 1 else f"{folder} on {name}"
        if name in DATASETS and not is_folder(name):
            judged = DataPart(name, found.tested, split_file)
            reports.append(CheckReport(title, (_seen(recipe, judged),)))
        reports += asked.data(found)
        reports += asked.learner(learner, PoolSource(tested, groups), spec, title)
    return reports


def _seen(recipe: Recipe, judged: DataPart) -> Outcome:
    """Return whether the run has seen the classes that it is judged on."""
    check, what = "classes-seen", f"{judged.name} ({judged.split})"
    if trained_on(recipe, judged):
        parts = [f"{p.name} ({p.train}, {p.validation})" for p in recipe.data.parts]
        return Finding(
            check,
            "fault",
            f"The run was trained or validated on classes of {what}: a score on them says nothing "
            "about new classes.",
            {"judged": judged._asdict(), "trained": parts},
            "Train on a part that shares no class with the one that is judged.",
        )
    if chosen_on(recipe, judged):
        return Finding(
            check,
            "note",
            f"The weights of the run were chosen by their score on classes of {what}: the domain "
            "is not new to it.",
            {"judged": judged._asdict(), "chosen_by": recipe.train.validation.choose_by},
            "Judge it on another domain.",
        )
    return Passed(check, f"the run was not trained, validated or chosen on classes of {what}")


# ------------------------------------------------------------------ a user's own


def _own(target: str, data: str | None, asked: _Asked) -> list[CheckReport]:
    """Check what ``module:attribute`` names: a learner or a source, or what makes one."""
    thing = _imported(target)
    if isinstance(thing, Learner):
        if data is None:
            raise ConfigError(f"{target} is a learner: name data to ask it about, with --data.")
        size, channels = asked.size or _FOLDER_SIZE, asked.channels or 3
        pool = _data(data, size, channels).parts
        tested = list(pool.values())[-1]
        if asked.size is not None or asked.channels is not None:
            own = tuple(tested.x.shape[1:])
            tested = fit_images(
                tested, channels=asked.channels or own[0], size=asked.size or own[1]
            )
        return asked.learner(thing, PoolSource(tested), asked.spec, target)
    if not isinstance(thing, TaskSource):
        what = type(thing).__name__
        raise ConfigError(
            f"{target} is {'nothing (None)' if thing is None else f'of type {what}'}; it must be a "
            "Learner, a TaskSource, or a function without arguments that returns one."
        )
    if data is not None:
        raise ConfigError(f"--data is for learners; {target} is a source of tasks. Leave it out.")
    if isinstance(thing, PoolSource):
        return [asked.contents(_Data({thing.split: thing.pool}, thing.split)), asked.source(thing)]
    return [asked.source(thing)]


def _imported(target: str) -> Any:
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute or "/" in module_name or module_name.endswith(".py"):
        raise ConfigError(
            f"{target!r} is not module:attribute. Write the module as 'import' does, for example "
            "mypackage.models:build."
        )
    if "" not in sys.path:
        sys.path.insert(0, "")  # as 'python -m' does: the user's module lies here
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{module_name} cannot be imported ({error}). Run from the folder that holds it, or "
            "install it."
        ) from error
    except (Exception, SystemExit) as error:
        raise _theirs(module_name, "was imported", error) from error
    if not hasattr(module, attribute):
        known = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(f"{module_name} has no {attribute!r}. {nearest_names(attribute, known)}")
    thing = getattr(module, attribute)
    ready = isinstance(thing, Learner) or (
        isinstance(thing, TaskSource) and not inspect.isclass(thing)
    )
    if ready or not callable(thing):
        return thing
    try:
        inspect.signature(thing).bind()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{target} cannot be called without arguments ({error}). Name a function that takes "
            "none."
        ) from error
    try:
        return thing()
    except (Exception, SystemExit) as error:
        raise _theirs(target, "was called", error) from error


def _theirs(what: str, when: str, error: BaseException) -> ConfigError:
    """Say that the user's own code failed, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f", {frames[-1].filename} line {frames[-1].lineno}" if frames else ""
    return ConfigError(f"{what} failed when it {when}: {type(error).__name__}: {error}{where}.")
