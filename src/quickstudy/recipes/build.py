"""From a recipe to objects, from a run folder back to a learner."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch

from quickstudy.core import CheckpointError, ConfigError, generator, uniforms
from quickstudy.learners import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    Learner,
    MatchingNetwork,
    MetaSGD,
    ProtoMAML,
    PrototypicalNetwork,
    Reptile,
)
from quickstudy.learners.gradient import GradientLearner
from quickstudy.nets import MLP, Conv4, Encoder, ResNet12
from quickstudy.recipes.schema import (
    EncoderConfig,
    GradientConfig,
    MetricConfig,
    PartConfig,
    Recipe,
)
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
    "build_encoder",
    "build_learner",
    "domain_split",
    "domains",
    "encoder_of",
    "sources",
]

_CLASSES = 110  # one number per independent random decision, beside those of the samplers


def build_encoder(config: EncoderConfig) -> Encoder:
    """Return the network of a configuration, with fresh weights."""
    c = config
    if c.kind == "conv4":
        return Conv4(
            in_channels=c.in_channels,
            image_size=c.image_size,
            channels=c.channels,
            norm=c.norm,
            downsample=c.downsample,
        )
    if c.kind == "resnet12":
        return ResNet12(in_channels=c.in_channels, image_size=c.image_size, norm=c.norm)
    image = (c.in_channels, c.image_size, c.image_size)
    shape = image if c.in_features is None else (c.in_features,)
    return MLP(shape, (c.channels, c.channels), last_activation=c.in_features is not None)


_GRADIENT: dict[str, type[GradientLearner]] = {
    "maml": MAML,
    "fomaml": FOMAML,
    "metasgd": MetaSGD,
    "anil": ANIL,
    "protomaml": ProtoMAML,
    "reptile": Reptile,
    "imaml": IMAML,
}


def build_learner(
    encoder: EncoderConfig, learner: MetricConfig | GradientConfig, *, seed: int, n_way: int = 5
) -> Learner:
    """Return the learner of a configuration; its weights depend on the seed alone.

    Args:
        encoder: the network.
        learner: what stands on it, or adapts it.
        seed: of the weights.
        n_way: classes of a head that has a start for each; see :attr:`Recipe.n_way`.
    """
    state = torch.get_rng_state()
    # layers draw their weights from the global generator: lend it ours, and give it back
    torch.set_rng_state(generator(seed, 0).get_state())
    try:
        net = build_encoder(encoder)
        if isinstance(learner, GradientConfig):
            return _gradient_learner(net, learner, n_way)
        return _metric_learner(net, learner)
    finally:
        torch.set_rng_state(state)


def _metric_learner(net: Encoder, config: MetricConfig) -> Learner:
    chosen = _given(config, "temperature", "learn_temperature")
    if config.kind == "matching":
        return MatchingNetwork(net, full_context=config.full_context, **chosen)
    return PrototypicalNetwork(net, distance=config.distance, **chosen)


def _gradient_learner(net: Encoder, config: GradientConfig, n_way: int) -> GradientLearner:
    own = {
        name
        for name in GradientConfig.model_fields
        if not name.startswith(("inner_", "eval_")) and name not in ("kind", "memory")
    }
    chosen = _given(config, *own)
    given: dict[str, Any] = {
        "steps": config.inner_steps,
        "eval_steps": config.eval_steps,
        "lr": config.inner_lr,
        "clip": config.inner_clip,
        "memory": config.memory,
    }
    kind = _GRADIENT[config.kind]
    loop = {name: value for name, value in given.items() if value is not None}
    chosen["inner"] = replace(kind.default_inner, **loop)
    if config.kind != "protomaml":
        chosen["n_way"] = n_way
    return kind(net, **chosen)


def _given(config: MetricConfig | GradientConfig, *names: str) -> dict[str, Any]:
    """Return the settings that are not left to the learner."""
    return {name: v for name in names if (v := getattr(config, name)) is not None}


def sources(recipe: Recipe) -> tuple[TaskSource, TaskSource, dict[str, str]]:
    """Return the training source, the validation source and facts about the data.

    The facts are hashes of what is trained on; a run is resumed only on the same.
    """
    data = recipe.data
    if data.name == "sinusoid":
        return SinusoidSource(data.train), SinusoidSource(data.validation), {}
    for one, other in combinations(data.parts, 2):
        if same_images(one.name, other.name):
            raise ConfigError(
                f"{other.name} holds the images of {one.name}, split in another way: what one "
                "trains on the other may test on. Leave one of them out of data.also."
            )
    train: list[TaskSource] = []
    validation: list[TaskSource] = []
    facts: dict[str, str] = {}
    for part in data.parts:
        pool, judged = _training_images(part, recipe), _images(part, part.validation, recipe)
        if part.rotations:
            pool, judged = pool.with_rotations(), judged.with_rotations()
        train.append(_training_source(part, pool))
        validation.append(PoolSource(judged, part.group_aware))
        of = "" if part is data else f" of {part.name}"
        facts[f"training data{of}"] = pool.sha256()
        facts[f"validation data{of}"] = judged.sha256()
    if not data.also:
        return train[0], validation[0], facts
    weights = [1.0, *(other.weight for other in data.also)]
    mixed, judges = (MixtureSource(p, weights, name=data.names) for p in (train, validation))
    return mixed, judges, facts


def _images(part: PartConfig, split: str, recipe: Recipe) -> Pool:
    """Return a part of a data set as the encoder takes it."""
    size, channels = recipe.encoder.image_size, recipe.encoder.in_channels
    pool = load_pool(part.name, split=split, split_file=part.split_file, size=size)
    return fit_images(pool, channels=channels, size=size)


def _training_images(part: PartConfig, recipe: Recipe) -> Pool:
    return _few(_images(part, part.train, recipe), part.classes, recipe.train.seed)


def _training_source(part: PartConfig, pool: Pool) -> TaskSource:
    """Return the tasks of a pool, with the augmentation of the part."""
    source = PoolSource(pool, part.group_aware)
    if part.jitter is None:
        return source
    by_class = part.class_jitter
    return AugmentedSource(
        source,
        AffineJitter(**part.jitter.model_dump()),
        None if by_class is None else AffineJitter(**by_class.model_dump()),
    )


def _few(pool: Pool, classes: int | None, seed: int) -> Pool:
    """Return the pool of so many classes, drawn by a seed; ``None`` = all."""
    if classes is None:
        return pool
    if classes > pool.n_classes:
        raise ConfigError(
            f"data.classes is {classes}, and {pool.name} ({pool.split}) has {pool.n_classes}. "
            "Lower it, or set it to null for all."
        )
    order = np.argsort(uniforms(seed, _CLASSES, np.arange(pool.n_classes)), kind="stable")
    return pool.select(order[:classes].tolist())


def domains(recipe: Recipe) -> tuple[dict[str, TaskSource], dict[str, str]]:
    """Return the domains that are followed in training, by name, and facts about their data.

    Images are made to fit the encoder. A data set that is published with parts gives its validation
    classes, another one all of its classes.

    Raises:
        ConfigError: if a domain is unknown, or holds the images that are trained on.
    """
    data, encoder, found, facts = recipe.data, recipe.encoder, {}, {}
    for name in recipe.train.validation.domains:
        if data.name == "sinusoid" or any(same_images(name, part.name) for part in data.parts):
            raise ConfigError(
                f"{name} is no novel domain for a recipe that trains on {data.names}: name data "
                "sets of other images in validation.domains."
            )
        pool = load_pool(name, split=domain_split(name))
        pool = fit_images(pool, channels=encoder.in_channels, size=encoder.image_size)
        found[name] = PoolSource(pool)
        facts[f"domain {name}"] = pool.sha256()
    return dict(found), facts


def domain_split(name: str) -> str:
    """Return the part of a data set that is followed as a domain: never its test classes, where it
    tells them apart."""
    info = DATASETS.get(name)
    return "val" if info is not None and "val" in info.splits else "all"


def encoder_of(learner: Learner) -> Encoder:
    """Return the encoder inside a learner that was built from a recipe."""
    encoders = [m for m in learner.modules() if isinstance(m, Encoder)]
    if not encoders:
        raise CheckpointError(f"{type(learner).__name__} has no encoder to start from.")
    return encoders[0]
