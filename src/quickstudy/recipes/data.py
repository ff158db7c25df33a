"""The data of a recipe: a union of kinds of data, each of which makes its own sources of tasks."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from quickstudy.core import ConfigError, uniforms
from quickstudy.core.arguments import checked
from quickstudy.recipes.base import FamilyMember, Frozen
from quickstudy.recipes.encoders import EncoderConfig
from quickstudy.recipes.files import FilesConfig, own_pool
from quickstudy.recipes.jitter import JitterConfig
from quickstudy.tasks import (
    AugmentedSource,
    GaussianProcessSource,
    MixtureSource,
    Pool,
    PoolSource,
    SinusoidSource,
    TaskSource,
)
from quickstudy.tasks.catalogue import same_images
from quickstudy.tasks.datasets import DATASETS, load_pool
from quickstudy.tasks.fit import fit_images
from quickstudy.tasks.own import is_own, own_path

__all__ = [
    "AlsoConfig",
    "Data",
    "GaussianProcessData",
    "ImageData",
    "JitterConfig",
    "PartConfig",
    "SinusoidData",
    "Sources",
    "TaskData",
    "domain_split",
    "generated_data",
]

# names the random stream that draws classes; no sampler uses this number for one of its streams
_CLASS_DRAW_STREAM = 110


class Sources(NamedTuple):
    """What a recipe trains and validates on, and hashes of this data.

    A run can be resumed only if the hashes are the same.

    Args:
        train: tasks of training.
        validation: tasks of validation.
        facts: sha256 of each data set by what it is used for; empty if there is no data.

    Example::

        from quickstudy.recipes import get_recipe, sources
        train, validation, facts = sources(get_recipe("sinusoid-maml"))
        episode = train.episodes(EpisodeSpec(1, 10, 10), [0], seed=0)
        episode.support.x  # [1, 10, 1]
    """

    train: TaskSource
    validation: TaskSource
    facts: dict[str, str]


class PartConfig(Frozen):
    """Which tasks of one data set to train on.

    Args:
        name: a named data set, or the path of data of one's own.
        split_file: which published split, for data sets with several; ``None`` = the first.
        train: split to train on.
        classes: number of classes to train on, drawn with ``train.seed``; ``None`` = all.
        validation: split to validate on.
        rotations: count each class turned by 90, 180 and 270 degrees as three further classes, in
            training and validation.
        group_aware: never put one group (drawer, track) into support and query of a task.
        jitter: augmentation of training images, drawn for each image; ``None`` = none.
        class_jitter: augmentation drawn for each class of a task, the same for all its images;
            ``None`` = none. It needs ``jitter``.
        files: how data of one's own is read and divided; ``None`` for a named data set.

    Example::

        part = PartConfig(name="digits", train="all", validation="all", classes=6)
        train, validation = part.pools(EncoderConfig(), seed=0)
        source = part.training_source(train)
        train.n_classes, validation.n_classes
    """

    name: str
    split_file: str | None = None
    train: str = "train"
    classes: int | None = Field(None, ge=2)
    validation: str = "val"
    rotations: bool = False
    group_aware: bool = False
    jitter: JitterConfig | None = None
    class_jitter: JitterConfig | None = None
    files: FilesConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _find_files(cls, value: object) -> object:
        """Take the path of data of one's own for what it is, and make it absolute."""
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            return value
        name, files = value["name"], value.get("files")
        known = name in DATASETS or name in _GENERATED
        if files is None and (known or not is_own(name)):
            return value
        if known:
            raise ValueError(f"files are for data of one's own, and {name} is a named data set")
        return {**value, "name": own_path(name), "files": {} if files is None else files}

    @model_serializer(mode="wrap")
    def _without_files(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``files`` out of the documents of named data sets, as in those of older runs."""
        return {n: v for n, v in handler(self).items() if n != "files" or v is not None}

    def pools(self, encoder: EncoderConfig, *, seed: int) -> tuple[Pool, Pool]:
        """Return the images of training and validation in the encoder's size and channels.

        Raises:
            ConfigError: if ``classes`` is more than there are.
        """
        train = self._drawn_classes(self.pool(self.train, encoder), seed)
        judged = self.pool(self.validation, encoder)
        if self.rotations:
            return train.with_rotations(), judged.with_rotations()
        return train, judged

    def training_source(self, pool: Pool) -> TaskSource:
        """Return the tasks of a pool, with the augmentation."""
        source = PoolSource(pool, self.group_aware)
        if self.jitter is None:
            return source
        by_class = None if self.class_jitter is None else self.class_jitter.build()
        return AugmentedSource(source, self.jitter.build(), by_class)

    def pool(self, split: str, encoder: EncoderConfig) -> Pool:
        """Return the examples of a split, as the encoder takes them, without rotations.

        Raises:
            ConfigError: if there is no such split.
            DataError: if the data cannot be read, or does not fit the encoder.
        """
        size = encoder.image_size
        if self.files is not None:
            return own_pool(self.name, split, self.files, encoder)
        pool = load_pool(self.name, split=split, split_file=self.split_file, size=size)
        return fit_images(pool, channels=encoder.in_channels, size=size)

    def _drawn_classes(self, pool: Pool, seed: int) -> Pool:
        """Return the pool with :attr:`classes` of its classes, drawn with a seed."""
        if self.classes is None:
            return pool
        if self.classes > pool.n_classes:
            raise ConfigError(
                f"data.classes is {self.classes}, and {pool.name} ({pool.split}) has "
                f"{pool.n_classes}. Lower it, or set it to null for all."
            )
        # the first ones of a random order: more classes with the same seed include the fewer
        order = np.argsort(
            uniforms(seed, _CLASS_DRAW_STREAM, np.arange(pool.n_classes)), kind="stable"
        )
        return pool.select(order[: self.classes].tolist())


class AlsoConfig(PartConfig):
    """Another data set to train on.

    Args:
        weight: number of its tasks for each task of the first data set, on average.

    Example::

        more = AlsoConfig(name="digits", train="all", validation="all", weight=0.5)
        data = ImageData(name="omniglot", split_file="vinyals", also=(more,))
        print(data.names, [part.name for part in data.parts])
    """

    weight: float = Field(1.0, gt=0, allow_inf_nan=False)


class TaskData(ABC):
    """What every kind of data has; :data:`Data` is the union of all kinds.

    Args:
        name: of the data set, or of the formula that makes the tasks.
        train: split to train on.
        validation: split to validate on.
    """

    regression: ClassVar[bool]
    """Whether targets are real numbers instead of classes."""

    if TYPE_CHECKING:  # not when it runs: pydantic would put these before all other settings
        name: str
        train: str
        validation: str

    @property
    def parts(self) -> tuple[PartConfig, ...]:
        """The data sets of images to train on; empty for other kinds of data."""
        return ()

    def part(self, name: str) -> PartConfig | None:
        """Return the settings of a data set of images, or ``None`` if it is not trained on."""
        return next((part for part in self.parts if part.name == name), None)

    @property
    def names(self) -> str:
        """The data sets' names, joined by ``+``."""
        return self.name

    @property
    def options(self) -> list[str]:
        """Options of ``quickstudy evaluate`` that give tasks like those of validation."""
        return [f"--data {shlex.quote(self.name)}"]

    @abstractmethod
    def sources(self, encoder: EncoderConfig, *, seed: int) -> Sources:
        """Return the tasks of training and validation.

        Args:
            encoder: images are brought to its size and channels.
            seed: of random draws from the data, such as of some of its classes.
        """

    @abstractmethod
    def domains(
        self, names: Sequence[str], encoder: EncoderConfig
    ) -> tuple[dict[str, TaskSource], dict[str, str]]:
        """Return data sets whose accuracy is followed in training, by name, and their hashes.

        Args:
            names: data sets of other images than those trained on.
            encoder: images are brought to its size and channels.

        Raises:
            ConfigError: if one is unknown, or holds images that are trained on.
        """

    def _refuse_domain(self, name: str) -> ConfigError:
        return ConfigError(
            f"{name} is no novel domain for a recipe that trains on {self.names}. Name data sets "
            "of other images in validation.domains."
        )


class ImageData(PartConfig, TaskData):
    """Images of one data set, or of several; all classes of a task are of one data set.

    Args:
        also: further data sets; training and validation draw tasks of them too.

    Example::

        data = ImageData(name="digits", train="all", validation="all", rotations=True)
        train, validation, facts = data.sources(EncoderConfig(), seed=0)
        episode = train.episodes(EpisodeSpec(5, 1), [0], seed=0)
        print(data.options, facts["training data"])
    """

    regression: ClassVar[bool] = False

    also: tuple[AlsoConfig, ...] = ()

    @property
    def parts(self) -> tuple[PartConfig, ...]:
        """The settings of each data set."""
        return (self, *self.also)

    @property
    def names(self) -> str:
        """The data sets' names, joined by ``+``."""
        return "+".join(part.name for part in self.parts)

    @property
    def options(self) -> list[str]:
        """Options of ``quickstudy evaluate`` that give tasks like those of validation."""
        options = super().options
        options += ["--rotations"] if self.rotations else []
        return options + (["--groups"] if self.group_aware else [])

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [part.name for part in self.parts]
        if odd := [name for name in names if name in _GENERATED]:
            raise ValueError(_GENERATED[odd[0]].no_images)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]} is named twice; give it once, with a weight")
        return self

    def sources(self, encoder: EncoderConfig, *, seed: int) -> Sources:
        """Return the tasks of training and validation."""
        for one, other in combinations(self.parts, 2):
            if same_images(one.name, other.name):
                raise ConfigError(
                    f"{other.name} holds the images of {one.name} in other splits: a training "
                    "class of one may be a test class of the other. Leave one out of data.also."
                )
        train: list[TaskSource] = []
        validation: list[TaskSource] = []
        facts: dict[str, str] = {}
        for part in self.parts:
            pool, judged = part.pools(encoder, seed=seed)
            train.append(part.training_source(pool))
            validation.append(PoolSource(judged, part.group_aware))
            of = "" if part is self else f" of {part.name}"
            facts[f"training data{of}"] = pool.sha256()
            facts[f"validation data{of}"] = judged.sha256()
        if not self.also:
            return Sources(train[0], validation[0], facts)
        weights = [1.0, *(other.weight for other in self.also)]
        mixed, judges = (MixtureSource(p, weights, name=self.names) for p in (train, validation))
        return Sources(mixed, judges, facts)

    def domains(
        self, names: Sequence[str], encoder: EncoderConfig
    ) -> tuple[dict[str, TaskSource], dict[str, str]]:
        """Return other data sets, in the encoder's size and channels, and their hashes.

        A data set with a split "val" gives its validation classes, another one all its classes.
        """
        found: dict[str, TaskSource] = {}
        facts: dict[str, str] = {}
        for name in names:
            if any(same_images(name, part.name) for part in self.parts):
                raise self._refuse_domain(name)
            pool = load_pool(name, split=domain_split(name))
            pool = fit_images(pool, channels=encoder.in_channels, size=encoder.image_size)
            found[name] = PoolSource(pool)
            facts[f"domain {name}"] = pool.sha256()
        return found, facts


# with lists, as documents hold them, in place of tuples
_IMAGE_SETTINGS = {
    name: [] if field.default == () else field.default
    for name, field in ImageData.model_fields.items()
    if name != "files"
}


class _GeneratedData(FamilyMember, TaskData):
    """Tasks of regression that a formula makes; they need no files."""

    regression: ClassVar[bool] = True
    no_images: ClassVar[str]
    family_settings: ClassVar[Mapping[str, Any]] = _IMAGE_SETTINGS

    @model_validator(mode="before")
    @classmethod
    def _refuse_others(cls, value: object) -> object:
        if isinstance(value, Mapping) and value.get("also"):
            raise ValueError(cls.no_images)
        return value

    @staticmethod
    @abstractmethod
    def source(split: str) -> TaskSource:
        """Return the tasks of a split."""

    def sources(self, encoder: EncoderConfig, *, seed: int) -> Sources:
        """Return the tasks of training and validation; they depend on neither argument."""
        del encoder, seed
        return Sources(self.source(self.train), self.source(self.validation), {})

    def domains(
        self, names: Sequence[str], encoder: EncoderConfig
    ) -> tuple[dict[str, TaskSource], dict[str, str]]:
        """Return nothing, and refuse any name: no other data set has tasks of this kind."""
        del encoder
        if names:
            raise self._refuse_domain(names[0])
        return {}, {}


class SinusoidData(_GeneratedData):
    """Regression on sine waves, which needs no files, see :class:`quickstudy.tasks.SinusoidSource`.

    Example::

        encoder = EncoderConfig(kind="mlp", in_features=1, channels=40)
        train, validation, facts = SinusoidData().sources(encoder, seed=0)
        episode = train.episodes(EpisodeSpec(1, 10, 10), [0], seed=0)
        episode.support.x  # [1, 10, 1]
    """

    no_images: ClassVar[str] = "sine waves are no images and cannot be mixed with others"

    name: Literal["sinusoid"] = "sinusoid"
    train: str = "train"
    validation: str = "val"

    @staticmethod
    def source(split: str) -> TaskSource:
        """Return the tasks of a split."""
        return SinusoidSource(split)


class GaussianProcessData(_GeneratedData):
    """Regression on functions drawn from Gaussian processes, which needs no files.

    See :class:`quickstudy.tasks.GaussianProcessSource`.

    Example::

        from quickstudy.recipes import GaussianProcessData
        encoder = EncoderConfig(kind="mlp", in_features=1, channels=40)
        train, validation, facts = GaussianProcessData().sources(encoder, seed=0)
        episode = train.episodes(EpisodeSpec(1, 10, 10), [0], seed=0)
        episode.support.x  # [1, 10, 1]
    """

    no_images: ClassVar[str] = "functions are no images and cannot be mixed with others"

    name: Literal["gaussian-process"] = "gaussian-process"
    train: str = "train"
    validation: str = "val"

    @staticmethod
    def source(split: str) -> TaskSource:
        """Return the tasks of a split."""
        return GaussianProcessSource(split)


_GENERATED: dict[str, type[_GeneratedData]] = {
    "sinusoid": SinusoidData,
    "gaussian-process": GaussianProcessData,
}


def generated_data(name: str) -> type[_GeneratedData] | None:
    """Return the kind of data of this name whose tasks are made by a formula, or ``None``."""
    return _GENERATED.get(name)


def _kind(value: Any) -> str:
    """Return the tag of the kind of data: only its name tells the kinds apart."""
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    return name if name in _GENERATED else "images"


Data = Annotated[
    Annotated[ImageData, Tag("images")]
    | Annotated[SinusoidData, Tag("sinusoid")]
    | Annotated[GaussianProcessData, Tag("gaussian-process")],
    Discriminator(_kind),
]
"""Every kind of data that a recipe can train on."""


@checked
def domain_split(name: str) -> str:
    """Return the split of a data set that is followed as a domain: its validation classes, or all
    classes if it has no such split."""
    info = DATASETS.get(name)
    return "val" if info is not None and "val" in info.splits else "all"
