"""What a recipe is: data, encoder, learner and training, typed and validated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quickstudy.core import ConfigError, nearest_names
from quickstudy.training import TrainConfig

__all__ = [
    "AlsoConfig",
    "DataConfig",
    "EncoderConfig",
    "GradientConfig",
    "JitterConfig",
    "MetricConfig",
    "PartConfig",
    "Recipe",
    "override",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JitterConfig(_Frozen):
    """Random affine maps of training images, see :class:`quickstudy.tasks.AffineJitter`."""

    degrees: float = Field(10.0, ge=0)
    scale: float = Field(0.12, ge=0, lt=1)
    shear: float = Field(0.15, ge=0)
    shift: float = Field(0.1, ge=0)
    flip: bool = False
    brightness: float = Field(0.0, ge=0, lt=1)


class PartConfig(_Frozen):
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


class AlsoConfig(PartConfig):
    """Another data set to train on.

    Args:
        weight: how many of its tasks are drawn for each one of the first data set.
    """

    weight: float = Field(1.0, gt=0, allow_inf_nan=False)


class DataConfig(PartConfig):
    """Which tasks to train on: of one data set, or of several, each task of one of them.

    Args:
        also: the other data sets; training and validation draw tasks of them too.
    """

    also: tuple[AlsoConfig, ...] = ()

    @property
    def parts(self) -> tuple[PartConfig, ...]:
        """What is trained on, data set by data set."""
        return (self, *self.also)

    def part(self, name: str) -> PartConfig | None:
        """Return what is trained on of a data set, or ``None`` if nothing is."""
        return next((part for part in self.parts if part.name == name), None)

    @property
    def names(self) -> str:
        """The data sets' names, joined by ``+``."""
        return "+".join(part.name for part in self.parts)

    @model_validator(mode="after")
    def _images(self) -> Self:
        names = [part.name for part in self.parts]
        if self.also and "sinusoid" in names:
            raise ValueError("sine waves are no images and cannot be mixed with others")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]} is named twice; give it once, with a weight")
        return self


class EncoderConfig(_Frozen):
    """Which network embeds the inputs.

    Args:
        kind: ``"conv4"``, ``"resnet12"`` or ``"mlp"``.
        image_size: side of the square input in pixels.
        in_channels: 1 for greyscale, 3 for colour.
        channels: width of Conv-4, or of each layer of the MLP.
        norm: ``"batch"``, ``"group"`` or ``"support"``.
        downsample: of Conv-4: ``"pool"`` or ``"stride"``.
        in_features: inputs of the MLP are vectors of so many numbers; ``None`` = images.
    """

    kind: Literal["conv4", "resnet12", "mlp"] = "conv4"
    image_size: int = Field(28, ge=8)
    in_channels: Literal[1, 3] = 1
    channels: int = Field(64, ge=1)
    norm: Literal["batch", "group", "support"] = "batch"
    downsample: Literal["pool", "stride"] = "pool"
    in_features: int | None = Field(None, ge=1)


class MetricConfig(_Frozen):
    """Which metric learner stands on the encoder.

    Args:
        kind: ``"protonet"`` or ``"matching"``.
        distance: of Prototypical Networks, ``"euclidean"`` or ``"cosine"``.
        temperature: ``None`` = the learner's own.
        learn_temperature: ``None`` = the learner's own.
        full_context: full-context embeddings of Matching Networks.
    """

    kind: Literal["protonet", "matching"] = "protonet"
    distance: Literal["euclidean", "cosine"] = "euclidean"
    temperature: float | None = Field(None, gt=0)
    learn_temperature: bool | None = None
    full_context: bool = False


class GradientConfig(_Frozen):
    """Which gradient-based learner adapts the encoder. ``None`` = the learner's own default.

    Args:
        kind: of the learner; see :mod:`quickstudy.learners.gradient`.
        head: ``"linear"``, ``"shared"`` or ``"prototype"``.
        inner_steps: gradient steps while meta-training.
        eval_steps: gradient steps afterwards; ``None`` = as many.
        inner_lr: inner learning rate, or where learned ones start.
        inner_clip: largest norm of a task's inner gradient; ``None`` = any.
        memory: ``"unrolled"`` or ``"flat"``.
        query_statistics: ``"support"`` (inductive) or ``"query"`` (transductive).
        engine: ``"auto"``, ``"batched"`` or ``"loop"``.
        rates: inner rates of ``maml`` and ``protomaml``: ``"fixed"``, ``"layer"``,
            ``"layer-step"``, ``"parameter"``.
        multi_step: of ``maml`` and ``protomaml``, see :class:`quickstudy.learners.MAML`.
        first_order_until: the same.
        temperature: of prototypes.
        optimiser: of Reptile's inner loop, ``"sgd"`` or ``"adam"``.
        minibatches: of Reptile.
        strength: of iMAML.
        solver_steps: of iMAML.
    """

    kind: Literal["maml", "fomaml", "metasgd", "anil", "protomaml", "reptile", "imaml"]
    head: Literal["linear", "shared", "prototype"] | None = None
    inner_steps: int | None = Field(None, ge=0)
    eval_steps: int | None = Field(None, ge=0)
    inner_lr: float | None = Field(None, gt=0)
    inner_clip: float | None = Field(None, gt=0)
    memory: Literal["unrolled", "flat"] | None = None
    query_statistics: Literal["support", "query"] = "support"
    engine: Literal["auto", "batched", "loop"] = "auto"
    rates: Literal["fixed", "layer", "layer-step", "parameter"] | None = None
    multi_step: float | None = Field(None, ge=0, le=1)
    first_order_until: float | None = Field(None, ge=0, le=1)
    temperature: float | None = Field(None, gt=0)
    optimiser: Literal["sgd", "adam"] | None = None
    minibatches: int | None = Field(None, ge=1)
    strength: float | None = Field(None, gt=0)
    solver_steps: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        for name, kinds in _ONLY_FOR.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise ValueError(
                    f"{name} is for {', '.join(kinds)}, not for {self.kind}. Leave it out"
                )
        return self


_PLUS = ("maml", "protomaml")
_ONLY_FOR = {
    "head": ("maml", "fomaml", "metasgd", "anil", "reptile", "imaml"),
    "rates": _PLUS,
    "multi_step": _PLUS,
    "first_order_until": _PLUS,
    "temperature": ("maml", "fomaml", "metasgd", "anil", "protomaml", "imaml"),
    "optimiser": ("reptile",),
    "minibatches": ("reptile",),
    "strength": ("imaml",),
    "solver_steps": ("imaml",),
}


class Recipe(_Frozen):
    """Everything that makes a run, written into it.

    Args:
        name: of the recipe.
        summary: one line for ``quickstudy train --list``.
        data: which tasks.
        encoder: which network.
        learner: which learner.
        train: how.
        start: name of the recipe whose encoder this one starts from; its run is expected beside
            this one, and made first if it is not there.
    """

    name: str
    summary: str = ""
    data: DataConfig
    encoder: EncoderConfig = EncoderConfig()
    learner: Annotated[MetricConfig | GradientConfig, Field(discriminator="kind")] = MetricConfig()
    train: TrainConfig = TrainConfig()
    start: str | None = None

    @property
    def transductive(self) -> bool:
        """Whether queries are normalised together in training."""
        return isinstance(self.learner, GradientConfig) and self.learner.query_statistics == "query"

    @property
    def n_way(self) -> int:
        """The largest number of classes in a task of training or validation."""
        return max(self.train.spec.max_way, self.train.validation.spec.max_way)


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Return the recipe with settings changed.

    Args:
        recipe: the start.
        settings: ``"key=value"``; the key is a path (``train.steps``) or its last part where that
            is unique (``steps``); the value is JSON, or a plain string.

    Raises:
        ConfigError: if a key is unknown or ambiguous, or a value is not allowed.
    """
    document = recipe.model_dump(mode="json")
    paths = _paths(document) + [
        f"data.{part}.{name}"
        for part in ("jitter", "class_jitter")
        for name in JitterConfig.model_fields
    ]
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign:
            raise ConfigError(f"settings are key=value; got {setting!r}.")
        found = [p for p in dict.fromkeys(paths) if p == key] or [
            p for p in dict.fromkeys(paths) if p.endswith("." + key)
        ]
        if len(found) != 1:
            what = "is ambiguous" if found else "does not exist"
            hint = (
                f" Write {' or '.join(f'{name}=...' for name in found)}."
                if found
                else " " + nearest_names(key, {p for q in paths for p in (q, q.split(".")[-1])})
            )
            raise ConfigError(f"setting {key!r} {what}.{hint}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        _set(document, found[0].split("."), value)
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_explained(error, document)) from error


def _explained(error: ValidationError, document: dict[str, Any]) -> str:
    """Return the first fault in the words of the settings."""
    # a name that does not exist explains the one that is missing
    found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = found[0]
    where: list[str] = []
    at: Any = document
    for part in first["loc"]:
        # the other parts name the branch of a union, which is no setting
        if isinstance(at, dict) and (part in at or first["type"] == "extra_forbidden"):
            where.append(str(part))
            at = at[str(part)]
        elif isinstance(at, list) and isinstance(part, int):
            where.append(str(part))
            at = at[part]
    what = first["msg"].removeprefix("Value error, ").rstrip(".")
    what = what.replace("a valid tuple", "a list, in brackets")
    what = what.replace("Extra inputs are not permitted", "there is no such setting")
    got = "" if isinstance(first["input"], dict) else f"; got {first['input']!r}"
    return f"setting {'.'.join(where)}: {what}{got}."


def _paths(document: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for name, value in document.items():
        paths.append(prefix + name)
        if isinstance(value, dict):
            paths += _paths(value, f"{prefix}{name}.")
    return paths


def _set(document: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        if document[name] is None:
            document[name] = {}
        document = document[name]
    document[path[-1]] = value
