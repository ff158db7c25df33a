"""Runs on data of one's own: which classes are for what, and do the tasks of a recipe fit them?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quickstudy.checks.contents import row_digests
from quickstudy.checks.suite import CheckedData
from quickstudy.core import CheckpointError, ConfigError, DataError, EpisodeSpec
from quickstudy.core.words import quiet
from quickstudy.recipes.data import PartConfig
from quickstudy.recipes.files import FilesConfig, divided, own_data, own_pool
from quickstudy.recipes.schema import Recipe
from quickstudy.runs.folder import read_facts
from quickstudy.tasks import Pool
from quickstudy.tasks.fit import fit_inputs
from quickstudy.tasks.own import OwnData, own_path

__all__ = [
    "ARRAYS",
    "OwnPart",
    "forget_arrays",
    "known_part",
    "own_part",
    "own_parts",
    "prepared",
    "save_arrays",
]

ARRAYS = "data.npz"
"""The file in a run folder that holds the arrays it was trained on, if it was given arrays."""


def prepared(recipe: Recipe, *, say: Callable[[str], None] = quiet) -> Recipe:
    """Return the recipe with the classes of each part of one's own data written down.

    A recipe for vectors also gets their length. Other recipes are returned as they are.

    Args:
        recipe: of the run.
        say: called with what was left out of the data, and how it was divided.

    Raises:
        ConfigError: if the tasks of the recipe do not fit the data; says what to set.
        DataError: if the data cannot be read, or a class is in two parts.
    """
    own = [part for part in recipe.data.parts if part.files is not None]
    if not own:
        return recipe
    document = recipe.model_dump(mode="json")
    for place, part in enumerate(recipe.data.parts):
        if part.files is None:
            continue
        found = own_data(part.name, part.files, recipe.encoder)
        at = document["data"] if place == 0 else document["data"]["also"][place - 1]
        document["encoder"]["in_features"] = _vector_length(recipe, part.name, found)
        if part.files.parts is None:
            for note in found.notes:
                say(f"note: {note}")
            parts = divided(found, part.files)
            at["files"]["parts"] = {name: list(classes) for name, classes in parts.items()}
            named = found.parts is not None and not part.files.draw
            sizes = ", ".join(f"{len(classes)} {name}" for name, classes in parts.items())
            how = "as the data names them" if named else f"drawn with seed {part.files.draw_seed}"
            say(f"{part.name}: {sizes} classes, {how}.")
            _tell_copies(found, parts, say)
    made = recipe.model_validate({**document, "learner": recipe.learner, "train": recipe.train})
    _check_sizes(made)
    return made


def _vector_length(recipe: Recipe, name: str, found: OwnData) -> int | None:
    """Return the setting ``encoder.in_features`` for the data.

    Raises:
        ConfigError: if the encoder takes inputs of another kind.
    """
    encoder, shape = recipe.encoder, list(found.pool.x.shape[1:])
    if len(shape) > 1:
        takes_both = encoder.kind in ("mlp", "pixels")
        if takes_both and recipe.data.part(name) and encoder.in_features is not None:
            return None  # it takes the pixels
        return encoder.in_features
    if encoder.kind not in ("mlp", "pixels"):
        raise ConfigError(
            f"{name} holds vectors of {shape[0]} numbers, and the encoder of {recipe.name} is "
            f"{encoder.kind}, for images. Train the recipe vectors-protonet, or set "
            "encoder.kind=mlp."
        )
    return shape[0]


def _check_sizes(recipe: Recipe) -> None:
    """Refuse tasks that need more classes or examples than one's own data has, with all settings
    that have to change."""
    faults, remedies = list[str](), list[str]()
    for part in recipe.data.parts:
        if part.files is None:
            continue
        turns = 4 if part.rotations else 1
        sides = (
            ("train", part.train, recipe.train.spec),
            ("train.validation", part.validation, recipe.train.validation.spec),
        )
        for setting, split, spec in sides:
            pool = own_pool(part.name, split, part.files, recipe.encoder)
            classes = (
                pool.n_classes if part.classes is None or split != part.train else part.classes
            )
            if spec.max_way > turns * classes:
                faults.append(
                    f"{split} has {turns * classes} classes, and {setting}.n_way is {spec.n_way}"
                )
                remedies.append(f"{setting}.n_way={turns * classes}")
            _check_examples(pool, setting, split, spec, faults, remedies)
    if faults:
        raise ConfigError(
            f"{recipe.data.names} is too small for the tasks of {recipe.name}: "
            f"{'; '.join(faults)}. Set {' '.join(remedies)} or less."
        )


def _check_examples(
    pool: Pool,
    setting: str,
    split: str,
    spec: EpisodeSpec,
    faults: list[str],
    remedies: list[str],
) -> None:
    """Note if the smallest class has fewer examples than a task takes of it."""
    counts = pool.counts
    fewest = int(counts.min())
    if fewest >= spec.max_shot + spec.n_query:
        return
    smallest = pool.class_names[int(counts.argmin())]
    if fewest < 2:
        raise DataError(
            f"{pool.name}: class {smallest!r} of {split} has one example; support and query need "
            "two. Add examples, or take the class out."
        )
    faults.append(
        f"class {smallest!r} of {split} has {fewest} examples, and {setting}.k_shot + "
        f"{setting}.n_query is {spec.max_shot + spec.n_query}"
    )
    if fewest > spec.max_shot:
        remedies.append(f"{setting}.n_query={fewest - spec.max_shot}")
    else:
        remedies += [f"{setting}.k_shot=1", f"{setting}.n_query={fewest - 1}"]


def _tell_copies(
    found: OwnData, parts: dict[str, tuple[str, ...]], say: Callable[[str], None]
) -> None:
    """Say if the same example is in two parts, under classes of different names."""
    place = {name: i for i, name in enumerate(found.pool.class_names)}
    digests = np.array(row_digests(found.pool.x), dtype=object)
    of_class = found.pool.y.numpy()
    seen = {
        part: set(digests[np.isin(of_class, [place[name] for name in names if name in place])])
        for part, names in parts.items()
    }
    held_out = set().union(*(seen[part] for part in seen if part != "train"))
    if both := len(seen.get("train", set()) & held_out):
        say(
            f"warning: {both:,} examples of the training classes are in held-out classes too, "
            f"under another name. 'quickstudy check {found.pool.name}' shows them."
        )


class OwnPart(NamedTuple):
    """A part of one's own data that a run is judged on.

    Args:
        pool: its examples, as the encoder takes them.
        trained_on: whether the run was trained or validated on some of its classes.
        part: the settings of the recipe for this data; ``None`` if the run never saw it.
        notes: sentences on what was left out when it was read.
    """

    pool: Pool
    trained_on: bool
    part: PartConfig | None
    notes: tuple[str, ...] = ()


def own_part(
    recipe: Recipe, data: str, split: str | None, *, folder: Path | None = None
) -> OwnPart:
    """Return the classes of one's own data that a run is to be judged on.

    If the run was trained on this data, they are the classes that its recipe keeps for the test.
    Otherwise they are the test part that the data names, or all of it.

    Args:
        recipe: of the run.
        data: path of the data.
        split: the part; ``None`` = as above.
        folder: of the run; with it data that was moved elsewhere is known again by its contents.

    Raises:
        ConfigError: if there is no such part.
        DataError: if the data cannot be read, or does not fit the encoder.
    """
    known = known_part(recipe, data, folder=folder)
    if known is not None and known.files is not None:
        chosen = split or "test"
        pool = own_pool(own_path(data), chosen, known.files, recipe.encoder)
        mine = set(pool.class_names)
        parts = known.files.parts or {}
        seen = any(
            s == "all" or mine & set(parts.get(s, ())) for s in (known.train, known.validation)
        )
        notes = own_data(own_path(data), known.files, recipe.encoder).notes
        return OwnPart(pool, seen, known, notes)
    files, encoder = FilesConfig(), recipe.encoder
    found = own_data(data, files, encoder)
    if found.parts is None or split == "all" or (split is None and "test" not in found.parts):
        if split not in (None, "all"):
            raise ConfigError(f"{data} names no parts, so it has no {split!r}. Leave split out.")
        return OwnPart(own_pool(data, "all", files, encoder), False, None, found.notes)
    wanted, named = split or "test", found.classes()
    if wanted not in named:
        raise ConfigError(f"{data} has no part {wanted!r}. It has {', '.join(named)}.")
    fitted = fit_inputs(
        found.select(named[wanted], split=wanted),
        channels=encoder.in_channels,
        size=encoder.image_size,
        features=encoder.in_features,
    )
    return OwnPart(fitted, False, None, found.notes)


def known_part(recipe: Recipe, data: str, *, folder: Path | None = None) -> PartConfig | None:
    """Return the settings of a recipe for one's own data, found by its path or its contents.

    Args:
        recipe: of the run.
        data: path of the data.
        folder: of the run, whose facts hold hashes of the training data.
    """
    path = own_path(data)
    own = [part for part in recipe.data.parts if part.files is not None]
    if same := [part for part in own if part.name == path]:
        return same[0]
    try:
        hashes = {} if folder is None else read_facts(folder)
    except CheckpointError:
        return None
    for place, part in enumerate(own):
        fact = f"training data of {part.name}" if place or part is not recipe.data.parts[0] else ""
        expected = hashes.get(fact or "training data")
        if expected is None or part.files is None or part.classes is not None:
            continue
        try:
            moved = own_pool(path, part.train, part.files, recipe.encoder)
        except (ConfigError, DataError):
            continue
        if (moved.with_rotations() if part.rotations else moved).sha256() == expected:
            return part
    return None


def own_parts(recipe: Recipe, data: str, part: PartConfig) -> CheckedData:
    """Return the parts of one's own data, as a run knows them, to be checked.

    Args:
        recipe: of the run.
        data: path of the data.
        part: the settings of the recipe for it.
    """
    files = part.files or FilesConfig()
    names = list(files.parts or {})
    pools = {name: own_pool(own_path(data), name, files, recipe.encoder) for name in names}
    return CheckedData(pools, names[-1])


def save_arrays(pool: Pool, folder: Path) -> str:
    """Write arrays that were given in memory into the run, and return the path of the file.

    So everything that reads the run can read its data.
    """
    # imported here: few runs are given arrays
    import io

    from quickstudy.storage.files import write_atomically

    names: Any = np.array(pool.class_names)
    buffer = io.BytesIO()
    np.savez(buffer, X=pool.x.numpy(), y=names[pool.y.numpy()])
    write_atomically(folder / ARRAYS, buffer.getvalue())
    return os.fspath(folder / ARRAYS)


def forget_arrays(folder: Path) -> None:
    """Take the arrays away again from a folder in which no run has begun."""
    (folder / ARRAYS).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds something else
        folder.rmdir()
