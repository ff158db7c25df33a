"""The suite: which checks are run on data, on a source of tasks, on a learner, on a document."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quickstudy.checks.contents import check_contents
from quickstudy.checks.findings import CheckReport, Finding, Outcome, Passed, Skipped
from quickstudy.checks.intervals import (
    check_differences,
    check_document,
    check_interval,
    check_protocol,
)
from quickstudy.checks.learners import check_learner
from quickstudy.checks.sources import check_source
from quickstudy.core import ConfigError, DataError, EpisodeSpec, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.core.words import quiet
from quickstudy.learners.base import Learner
from quickstudy.tasks import Pool, PoolSource, TaskSource
from quickstudy.tasks.datasets import DATASETS, load_pool
from quickstudy.tasks.folders import FolderReading, is_folder, read_folder, split_folders
from quickstudy.tasks.own import is_own, read_own

__all__ = ["CheckedData", "Suite", "check_file", "read_data", "read_named"]

_FOLDER_SIZE = 84  # side in pixels of images of a folder
_MOST_LEARNER_EPISODES = 40  # that a learner is evaluated on
_NAMED_IN_SENTENCE, _NAMED_AS_EVIDENCE = 5, 100  # files or classes of one finding


@checked
@dataclass(frozen=True, slots=True)
class CheckedData:
    """The splits of a data set, and the one whose episodes are checked.

    Args:
        parts: pools by the name of the split.
        tested: the split whose episodes are checked.
        names: names of the examples of each split, for reports.
        reading: what was found while the data was read.

    Example::

        from quickstudy.checks.suite import CheckedData, Suite
        data = CheckedData({"all": load_pool("digits")}, tested="all")
        for report in Suite(EpisodeSpec(5, 1), episodes=60).data(data):
            print(report.text())
    """

    parts: dict[str, Pool]
    tested: str
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reading: tuple[Outcome, ...] = ()


@checked
@dataclass(frozen=True, slots=True)
class Suite:
    """All checks with one size of task and one number of episodes.

    Args:
        spec: way, shot and queries of the episodes.
        episodes: how many are looked at.
        say: called with a line about each step.

    Example::

        from quickstudy.checks.suite import Suite
        reports = Suite(EpisodeSpec(5, 1), episodes=60).pool(load_pool("digits"))
        print(reports[0].text())
        all(report.clean for report in reports)
    """

    spec: EpisodeSpec
    episodes: int = 1000
    say: Callable[[str], None] = quiet

    def data(self, found: CheckedData) -> list[CheckReport]:
        """Check the examples of all splits, and the episodes of the tested one."""
        pool = found.parts[found.tested]
        reading = CheckReport(pool.name, found.reading)
        names = found.names.get(found.tested)
        return [reading, self.contents(found), *self.pool(pool, names)]

    def pool(self, pool: Pool, names: Sequence[str] | None = None) -> list[CheckReport]:
        """Check the episodes of a pool, without the classes of one example."""
        small = [i for i, n in enumerate(pool.counts) if n < 2]
        if not small:
            return [self.source(PoolSource(pool), names)]
        large = [i for i in range(pool.n_classes) if i not in small]
        shown = ", ".join(pool.class_names[i] for i in small[:_NAMED_IN_SENTENCE])
        note = Finding(
            "small-classes",
            "fault" if len(large) < 2 else "note",
            f"{len(small)} class(es) have one example, too few for support and query: {shown}"
            f"{' ...' if len(small) > _NAMED_IN_SENTENCE else ''}.",
            {"classes": [pool.class_names[i] for i in small]},
            "Give each class two examples or more. Episodes were checked without these classes.",
        )
        reports = [CheckReport(pool.name, (note,))]
        if len(large) < 2:
            why = "fewer than two classes have two examples: no episode can be drawn"
            return [*reports, CheckReport(pool.name, (Skipped("episodes", why),))]
        if names is not None:
            kept = np.isin(pool.y.numpy(), large)
            names = [name for name, keep in zip(names, kept, strict=True) if keep]
        return [*reports, self.source(PoolSource(pool.select(large)), names)]

    def contents(self, found: CheckedData) -> CheckReport:
        """Check the examples of all splits."""
        return check_contents(
            found.parts,
            names=found.names,
            k_shot=self.spec.max_shot,
            progress=self._progress(next(iter(found.parts.values())).name),
        )

    def source(self, source: TaskSource, names: Sequence[str] | None = None) -> CheckReport:
        """Check the episodes of a source."""
        name = f"{source.name} ({source.split})"
        spec = self.spec
        if isinstance(source, PoolSource):
            fitted = self._fitted_spec(spec, source.pool)
            if fitted is None:
                reason = f"a class of {name} has one example: no episode can be drawn"
                return CheckReport(name, (Skipped("episodes", reason),))
            spec = fitted
        return check_source(
            source, spec, episodes=self.episodes, names=names, progress=self._progress(name)
        )

    def learner(
        self, learner: Learner, source: TaskSource, spec: EpisodeSpec, name: str
    ) -> list[CheckReport]:
        """Check a learner, and the interval that is printed beside its score."""
        if (
            isinstance(source, PoolSource)
            and (small := self._fitted_spec(spec, source.pool)) is not None
        ):
            spec = small
        found = check_learner(
            learner,
            source,
            spec,
            episodes=min(self.episodes, _MOST_LEARNER_EPISODES),
            target=name,
            progress=self._progress(name),
        )
        start = time.perf_counter()
        outcome = check_interval()
        return [found, CheckReport(name, (outcome,), time.perf_counter() - start)]

    def _progress(self, name: str) -> Callable[[str], None]:
        return lambda what: self.say(f"{name}: {what} ...")

    def _fitted_spec(self, spec: EpisodeSpec, pool: Pool) -> EpisodeSpec | None:
        """Return the specification, made smaller if the data has too few classes or examples;
        ``None`` if no episode can be drawn at all."""
        fewest = int(pool.counts.min())
        if fewest < 2 or pool.n_classes < 2:
            return None
        way = spec.n_way if spec.max_way <= pool.n_classes else pool.n_classes
        shot = spec.k_shot if spec.max_shot < fewest else max(1, fewest // 2)
        most = shot if isinstance(shot, int) else shot[1]
        fitted = EpisodeSpec(way, shot, max(1, min(spec.n_query, fewest - most)))
        if fitted != spec:
            self.say(
                f"{pool.name} ({pool.split}) is too small for {spec} tasks; checking {fitted} "
                f"tasks with {fitted.n_query} queries per class."
            )
        return fitted


def check_file(path: Path) -> CheckReport:
    """Check a JSON document of ``evaluate`` or ``compare``: do its numbers follow from its scores?

    Args:
        path: what ``evaluate --json`` printed, or ``comparison.json`` of ``compare``.

    Raises:
        DataError: if it cannot be read.
    """
    start = time.perf_counter()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        several = isinstance(document, dict) and isinstance(document.get("results"), list)
        documents = document["results"] if several else [document]
        if not all(isinstance(one, dict) for one in documents):
            raise DataError(
                f"{path} is no document of 'quickstudy evaluate --json' or 'compare --json': it "
                "holds other values. Name the file that was printed."
            )
        outcomes = [
            outcome for one in documents for outcome in (check_document(one), *check_protocol(one))
        ]
        if several:
            outcomes.append(check_differences(document))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file. Check the path.") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path} cannot be checked: {reason.rstrip('.')}.") from error
    return CheckReport(str(path), tuple(outcomes), time.perf_counter() - start)


def read_data(
    data: str,
    *,
    size: int = _FOLDER_SIZE,
    channels: int = 3,
    say: Callable[[str], None] = quiet,
) -> CheckedData:
    """Return all splits of a named data set or of a folder, and what of it cannot be read.

    Args:
        data: a named data set, a folder of class folders, or a folder of ``train/``, ``test/`` with
            class folders in them.
        size: side in pixels to which images of a folder are resized.
        channels: of these images, 1 (grey) or 3 (colour).
        say: called with a line about each step.

    Raises:
        ConfigError: if there is no such data set.
        DataError: if there is no such folder.
    """
    if data in DATASETS and not is_folder(data):
        return read_named(data, say=say)
    if Path(data).is_file() and is_own(data):
        own = read_own(data, size=size, channels=channels)
        pools = own.by_part()
        return CheckedData(pools, list(pools)[-1])
    if not Path(data).is_dir():
        if "/" in data or data.startswith("."):
            raise DataError(f"{data}: there is no such folder. Check the path.")
        raise ConfigError(
            f"there is no data set or folder {data!r}. {nearest_names(data, DATASETS)}"
        )
    root = Path(data)
    split = split_folders(root)
    # by the folder's own name, which may be 'Train' or 'TRAIN'
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
    return CheckedData(pools, list(pools)[-1], names, tuple(reading))


def _reading(read: FolderReading, start: str) -> list[Outcome]:
    """Return findings on what of a folder is not among the examples.

    Args:
        read: the folder.
        start: how names of its files begin in reports: ``""`` or ``"train/"``.
    """
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
            "file(s) were passed over, because they are no image in a class folder",
            "Remove them, save them as PNG or JPEG, or put them into a class folder.",
        ),
        (
            "empty-classes",
            "note",
            read.empty,
            "folder(s) hold no image and were not read as a class",
            "Add images, or remove the folder.",
        ),
    ):
        if files:
            shown = ", ".join(start + file for file in files[:_NAMED_IN_SENTENCE])
            more = " ..." if len(files) > _NAMED_IN_SENTENCE else ""
            told = f"{len(files):,} {what}: {shown}{more}."
            if check == "files-passed-over":
                told = read.passed_over_note
            found.append(
                Finding(
                    check,
                    severity,  # type: ignore[arg-type]
                    told,
                    {
                        "files": [start + file for file in files[:_NAMED_AS_EVIDENCE]],
                        "count": len(files),
                    },
                    remedy,
                )
            )
    return found


def read_named(
    name: str,
    split_file: str | None = None,
    *,
    size: int | None = None,
    say: Callable[[str], None] = quiet,
) -> CheckedData:
    """Return all splits of a named data set.

    Args:
        name: of the data set.
        split_file: which published split; ``None`` = its first.
        size: side in pixels; ``None`` = the data set's own.
        say: called with a line about each step.
    """
    splits = [s for s in DATASETS[name].splits if s != "all"]
    pools = {}
    for split in splits:
        say(f"{name}: reading {split} ...")
        pools[split] = load_pool(name, split=split, split_file=split_file, size=size)
    return CheckedData(pools, splits[-1])
