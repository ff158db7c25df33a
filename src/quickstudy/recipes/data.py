"""The data of a recipe: a union of kinds, each of which makes its own sources of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from quickstudy.core import ConfigError, uniforms
from quickstudy.recipes.base import FamilyMember, Frozen
from quickstudy.recipes.encoders import EncoderConfig
from quickstudy.tasks import (
    AffineJitter,
    AugmentedSource,
    MixtureSource,
    Pool,
    PoolSource,
    SinusoidSource,
    TaskSource,
)
from quickstudy.tasks.catalogue import same_images
from quickstudy.tasks.datasets import DATASETS, load_pool
from quickstudy.tasks.fit import fit_images

__all__ = [
    "AlsoConfig",
    "Data",
    "ImageData",
    "JitterConfig",
    "PartConfig",
    "SinusoidData",
    "Sources",
    "TaskData",
    "domain_split",
    "generated_data",
]

_CLASSES = 110  # one number per independent random decision, beside those of the samplers


class Sources(NamedTuple):
    """What a recipe trains and validates on, and facts about it.

    A run is resumed only where the facts, hashes of the data, are the same.
    """

    train: TaskSource
    validation: TaskSource
    facts: dict[str, str]


class JitterConfig(Frozen):
    """Random affine maps of training images, see :class:`quickstudy.tasks.AffineJitter`."""

    degrees: float = Field(10.0, ge=0)
    scale: float = Field(0.12, ge=0, lt=1)
    shear: float = Field(0.15, ge=0)
    shift: float = Field(0.1, ge=0)
    flip: bool = False
    brightness: float = Field(0.0, ge=0, lt=1)

    def build(self) -> AffineJitter:
        """Return the augmentation."""
        return AffineJitter(**self.model_dump())


class PartConfig(FamilyMember):
    """Which tasks of one data set to train on.

    Args:
        name: a named data set.
        split_file: which published split, for data sets with several.
        train: part to train on.
        classes: train on so many classes of it, drawn with ``train.seed``; ``None`` = all.
        validation: part to validate on.
        rotations: turned classes are new classes, in training and validation.
        group_aware: keep drawers or tracks apart between support and query.
        jitter: augmentation of training images; ``None`` = none.
        class_jitter: the same map for all images of a class in a task; ``None`` = none.
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

    def pools(self, encoder: EncoderConfig, *, seed: int) -> tuple[Pool, Pool]:
        """Return the images of training and validation as the encoder takes them.

        Raises:
            ConfigError: if ``classes`` is more than there are.
        """
        train = self._few(self._images(self.train, encoder), seed)
        judged = self._images(self.validation, encoder)
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

    def _images(self, split: str, encoder: EncoderConfig) -> Pool:
        size = encoder.image_size
        pool = load_pool(self.name, split=split, split_file=self.split_file, size=size)
        return fit_images(pool, channels=encoder.in_channels, size=size)

    def _few(self, pool: Pool, seed: int) -> Pool:
        """Return the pool of so many classes as are wanted, drawn by a seed."""
        if self.classes is None:
            return pool
        if self.classes > pool.n_classes:
            raise ConfigError(
                f"data.classes is {self.classes}, and {pool.name} ({pool.split}) has "
                f"{pool.n_classes}. Lower it, or set it to null for all."
            )
        order = np.argsort(uniforms(seed, _CLASSES, np.arange(pool.n_classes)), kind="stable")
        return pool.select(order[: self.classes].tolist())


class AlsoConfig(PartConfig):
    """Another data set to train on.

    Args:
        weight: how many of its tasks are drawn for each one of the first data set.
    """

    weight: float = Field(1.0, gt=0, allow_inf_nan=False)


class TaskData(ABC):
    """What every kind of data answers; the kinds are joined in the union :data:`Data`."""

    regression: ClassVar[bool]
    """Whether targets are real numbers instead of classes."""

    name: str
    train: str
    validation: str

    @property
    def parts(self) -> tuple[PartConfig, ...]:
        """The data sets of images that are trained on; none for other kinds of data."""
        return ()

    def part(self, name: str) -> PartConfig | None:
        """Return what is trained on of a data set of images, or ``None`` if nothing is."""
        return next((part for part in self.parts if part.name == name), None)

    @property
    def names(self) -> str:
        """The data sets' names, joined by ``+``."""
        return self.name

    @property
    def options(self) -> list[str]:
        """The options of ``quickstudy evaluate`` for tasks like those of validation."""
        return [f"--data {self.name}"]

    @abstractmethod
    def sources(self, encoder: EncoderConfig, *, seed: int) -> Sources:
        """Return the tasks of training and validation.

        Args:
            encoder: inputs are made to fit it.
            seed: of what is drawn from the data, such as a few of its classes.
        """

    @abstractmethod
    def domains(
        self, names: Sequence[str], encoder: EncoderConfig
    ) -> tuple[dict[str, TaskSource], dict[str, str]]:
        """Return other data sets that are followed in training, by name, and facts about them.

        Raises:
            ConfigError: if one is unknown, or is no novel domain.
        """

    def _refuse_domain(self, name: str) -> ConfigError:
        return ConfigError(
            f"{name} is no novel domain for a recipe that trains on {self.names}: name data "
            "sets of other images in validation.domains."
        )


class ImageData(PartConfig, TaskData):
    """Images: of one data set, or of several, each task of one of them.

    Args:
        also: the other data sets; training and validation draw tasks of them too.
    """

    regression: ClassVar[bool] = False

    also: tuple[AlsoConfig, ...] = ()

    @property
    def parts(self) -> tuple[PartConfig, ...]:
        """What is trained on, data set by data set."""
        return (self, *self.also)

    @property
    def names(self) -> str:
        """The data sets' names, joined by ``+``."""
        return "+".join(part.name for part in self.parts)

    @property
    def options(self) -> list[str]:
        """The options of ``quickstudy evaluate`` for tasks like those of validation."""
        words = super().options
        words += ["--rotations"] if self.rotations else []
        return words + (["--groups"] if self.group_aware else [])

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
                    f"{other.name} holds the images of {one.name}, split in another way: what one "
                    "trains on the other may test on. Leave one of them out of data.also."
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
        """Return other data sets, whose images are made to fit the encoder.

        A data set that is published with parts gives its validation classes, another one all of
        its classes.
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


# as they stand in a document, where a tuple is a list
_IMAGE_SETTINGS = {
    name: [] if field.default == () else field.default
    for name, field in ImageData.model_fields.items()
}


class SinusoidData(FamilyMember, TaskData):
    """Sine waves, see :class:`quickstudy.tasks.SinusoidSource`: regression without data."""

    regression: ClassVar[bool] = True
    no_images: ClassVar[str] = "sine waves are no images and cannot be mixed with others"
    family_settings: ClassVar[Mapping[str, Any]] = _IMAGE_SETTINGS

    name: Literal["sinusoid"] = "sinusoid"
    train: str = "train"
    validation: str = "val"

    @model_validator(mode="before")
    @classmethod
    def _refuse_others(cls, value: object) -> object:
        if isinstance(value, Mapping) and value.get("also"):
            raise ValueError(cls.no_images)
        return value

    def sources(self, encoder: EncoderConfig, *, seed: int) -> Sources:
        """Return the tasks of training and validation; they depend on nothing."""
        del encoder, seed
        return Sources(self.source(self.train), self.source(self.validation), {})

    @staticmethod
    def source(split: str) -> TaskSource:
        """Return the tasks of a part."""
        return SinusoidSource(split)

    def domains(
        self, names: Sequence[str], encoder: EncoderConfig
    ) -> tuple[dict[str, TaskSource], dict[str, str]]:
        """Refuse: nothing else has tasks of this kind."""
        del encoder
        if names:
            raise self._refuse_domain(names[0])
        return {}, {}


_GENERATED = {"sinusoid": SinusoidData}


def generated_data(name: str) -> type[SinusoidData] | None:
    """Return the kind of data whose tasks are made by a formula, or ``None`` if ``name`` is no such
    kind."""
    return _GENERATED.get(name)


def _kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    return name if name in _GENERATED else "images"


Data = Annotated[
    Annotated[ImageData, Tag("images")] | Annotated[SinusoidData, Tag("sinusoid")],
    Discriminator(_kind),
]
"""Every kind of data that a recipe can train on."""


def domain_split(name: str) -> str:
    """Return the part of a data set that is followed as a domain: never its test classes, where it
    tells them apart."""
    info = DATASETS.get(name)
    return "val" if info is not None and "val" in info.splits else "all"
