"""What ``predict`` is given: images, folders of images, one table, or texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from quickstudy.core import ConfigError, DataError
from quickstudy.core.words import printable
from quickstudy.embedders.tables import TableEmbedder
from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.estimators.labels import Label, match_labels
from quickstudy.tasks.images import IMAGE_SUFFIXES
from quickstudy.tasks.labelled import LabelledFiles, read_inputs
from quickstudy.tasks.listing import folder_contents
from quickstudy.tasks.roles import Roles

__all__ = ["Given", "Wanted", "folder_labels", "inputs_of", "roles_of", "texts_of"]

Given = str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked about: paths of files and folders, or open files.

    Args:
        sources: in the order in which they were given.
    """

    sources: tuple[Path | Any, ...]

    def __bool__(self) -> bool:
        return bool(self.sources)

    def read(
        self,
        *,
        modality: str,
        label: str | None,
        say: Callable[[str], None],
        roles: Roles | None = None,
    ) -> LabelledFiles:
        """Return the inputs.

        Args:
            modality: of the task. If it is images, a list may hold anything: what is no image is
                found out when it is embedded, and costs no other its answer.
            label: name of the column of labels.
            say: called with notes about what is not read.
            roles: of a table's columns, as the task was learned from them.

        Raises:
            ConfigError: if they are of another kind than the task's, or not of one kind.
            DataError: if there is nothing to read.
        """
        pictures = modality == "image" and (
            len(self.sources) > 1 or _may_be_pictures(self.sources[0])
        )
        if not pictures or label is not None:
            if len(self.sources) > 1 and not all(isinstance(s, Path) for s in self.sources):
                raise ConfigError(
                    f"the task classifies {modality}s. Give one table, as a path or an open file."
                )
            read = read_inputs(self.sources, label=label, roles=roles)
            if read.note:
                say(f"note: {read.note}")
            return read
        x: list[Any] = []
        names: list[str] = []
        for number, source in enumerate(self.sources):
            if not isinstance(source, Path):
                x.append(source)
                given = getattr(source, "name", None)
                names.append(printable(given) if isinstance(given, str) else f"input {number}")
                continue
            files = [source]
            if _is_folder(source):
                contents = folder_contents(source)
                if note := contents.note(damaged=False):
                    say(f"note: {printable(source)}: {note}")
                files = [source / name for name in contents.by_ending]
            x += map(str, files)
            names += map(printable, files)
        if not x:
            only = printable(self.sources[0])
            where = f"{only}: there are no images in this folder"
            if len(self.sources) > 1:
                where = "there are no images in these folders"
            raise DataError(f"{where}. Check the path.")
        return LabelledFiles(x, None, "image", names)


def inputs_of(inputs: Any) -> Wanted:
    """Return what was given as inputs, one or several.

    Raises:
        ConfigError: if one is neither a path nor an open file.
    """
    if inputs is None:
        return Wanted(())
    several = isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes)
    given = list(inputs) if several else [inputs]
    for one in given:
        if not isinstance(one, str | os.PathLike) and not hasattr(one, "read"):
            raise ConfigError(
                f"inputs must be paths or open files; got {type(one).__name__}. Texts are given as "
                "texts=[...]."
            )
        if isinstance(one, str) and not one:
            raise ConfigError("an input is an empty path. Name a file or a folder.")
    return Wanted(tuple(Path(one) if isinstance(one, str | os.PathLike) else one for one in given))


def texts_of(texts: Any) -> list[str]:
    """Return what was given as texts, one or several.

    Raises:
        ConfigError: if it is something else.
    """
    if texts is None or isinstance(texts, str):
        return [] if texts is None else [texts]
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise ConfigError(f"texts must be a list of texts; got {type(texts).__name__}.")
    # what is no text inside the list is an input without an answer
    return list(texts)


def folder_labels(
    wanted: Wanted, read: LabelledFiles, classes: Sequence[Label]
) -> list[str | None] | None:
    """Return the right label of each image in folders that have the names of classes.

    Args:
        wanted: what was given.
        read: the images.
        classes: of the task, and its word for unknown.

    Returns:
        The name of the folder directly below the one that was given; ``None`` for images elsewhere.
        ``None`` instead of a list unless most of the images lie in folders named as classes.
    """
    folders = [s for s in wanted.sources if isinstance(s, Path) and _is_folder(s)]
    if read.kind != "image" or not folders:
        return None
    labels: list[str | None] = []
    for value in read.x:
        path = Path(value) if isinstance(value, str) else None
        inside = next((f for f in folders if path is not None and f in path.parents), None)
        below = path.relative_to(inside).parts if path is not None and inside is not None else ()
        labels.append(printable(below[0]) if len(below) > 1 else None)
    named_as_class = match_labels(labels, classes).columns >= 0
    return labels if 2 * int(named_as_class.sum()) > len(labels) else None


def roles_of(clf: FewShotClassifier) -> Roles | None:
    """Return what the columns were taken for when a task was learned, as far as that is known.

    A task that was not learned from a file knows its columns if they had names.
    """
    if clf.roles_ is not None:
        return clf.roles_
    embedder = clf.embedder_
    if isinstance(embedder, TableEmbedder) and embedder.named:
        return Roles("table", tuple(column.name for column in embedder.columns))
    return None


def _may_be_pictures(source: Path | Any) -> bool:
    """Return whether a single input is to be read as an image or a folder of them."""
    if not isinstance(source, Path) or _is_folder(source):
        return True
    return source.suffix.lower() in IMAGE_SUFFIXES or (not source.suffix and str(source) != "-")


def _is_folder(path: Path) -> bool:
    """Return whether this is a folder; a link that points to itself is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
