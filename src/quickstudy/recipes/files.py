"""Data of one's own in a recipe: how it is read, and which of its classes are for what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.recipes.base import Frozen
from quickstudy.recipes.encoders import EncoderConfig
from quickstudy.tasks import Pool
from quickstudy.tasks.fit import fit_inputs
from quickstudy.tasks.own import OwnData, draw_parts, is_own, own_path, read_own

__all__ = ["FilesConfig", "data_document", "divided", "own_data", "own_pool"]


class FilesConfig(Frozen):
    """How data of one's own is read and divided.

    Args:
        label: column of the labels of a table; ``None`` = found by its usual names.
        column: column of the embeddings of a Parquet file; ``None`` = its only column of lists.
        draw: divide all classes anew, whatever parts the data names.
        draw_seed: names the draw of the classes of each part.
        parts: classes of each part. Training writes them down, so that everything that reads the
            run knows which classes it has not seen.

    Example::

        data = ImageData(name="/home/me/photos", files=FilesConfig(draw_seed=1))
        recipe = override(get_recipe("cifar-fs-protonet"), ["data=/home/me/photos", "draw_seed=1"])
        print(recipe.data.files.draw_seed)
    """

    label: str | None = Field(None, min_length=1)
    column: str | None = Field(None, min_length=1)
    draw: bool = False
    draw_seed: int = 0
    parts: dict[str, tuple[str, ...]] | None = None


@checked
def own_data(name: str, files: FilesConfig, encoder: EncoderConfig) -> OwnData:
    """Read data of one's own, its images in the encoder's size and channels.

    Args:
        name: path of the data.
        files: how it is read.
        encoder: images are brought to its size and channels.

    Raises:
        DataError: if it cannot be read.
    """
    return read_own(
        name,
        size=encoder.image_size,
        channels=encoder.in_channels,
        label=files.label,
        column=files.column,
    )


@checked
def own_pool(name: str, split: str, files: FilesConfig, encoder: EncoderConfig) -> Pool:
    """Return a part of data of one's own, fitted to an encoder.

    Args:
        name: path of the data.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        files: how it is read, and its parts.
        encoder: the network that it is for.

    Raises:
        ConfigError: if the data has no such part.
        DataError: if it cannot be read, or does not fit the encoder.
    """
    found = own_data(name, files, encoder)
    pool = fit_inputs(
        found.pool,
        channels=encoder.in_channels,
        size=encoder.image_size,
        features=encoder.in_features,
    )
    if split == "all":
        return pool
    parts = divided(found, files)
    if split not in parts:
        raise ConfigError(
            f"{name} has no part {split!r}. It has {', '.join(parts) or 'none'}; 'all' is all of "
            "them."
        )
    return OwnData(pool).select(parts[split], split=split)


@checked
def divided(found: OwnData, files: FilesConfig) -> dict[str, tuple[str, ...]]:
    """Return the classes of each part: those that are written down, or else those that the data
    names, or else drawn ones."""
    if files.parts is not None:
        return dict(files.parts)
    named = {} if files.draw else found.classes()
    names = found.pool.class_names
    return draw_parts(named, names, seed=files.draw_seed, name=found.pool.name)


@checked
def data_document(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the document of a recipe's data with other data in it, and the same augmentation.

    Args:
        document: of the data.
        name: a named data set, or the path of data of one's own.

    Raises:
        DataError: if the path is a link to itself.
    """
    own = is_own(name)
    return {
        **document,
        "name": own_path(name) if own else name,
        "split_file": None,
        "train": "train",
        "validation": "val",
        "classes": None,
        "group_aware": False,
        "also": [],
        "files": {} if own else None,
    }
