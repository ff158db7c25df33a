"""A learner that was built in Python, described so that it can be built again from a document."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

import quickstudy.learners
from quickstudy.core import ConfigError
from quickstudy.learners.base import Learner
from quickstudy.nets import Encoder
from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.encoders import EncoderConfig, build_encoder
from quickstudy.recipes.metric import MatchingConfig

__all__ = ["SavedConfig", "describe_encoder", "describe_learner", "same_structure"]


class SavedConfig(LearnerConfig):
    """One of our learners with the arguments that it was built with in Python.

    Args:
        kind: ``"saved"``.
        learner: name of its class in :mod:`quickstudy.learners`.
        arguments: of its constructor, beside the network.

    Example::

        from quickstudy.recipes.saved import SavedConfig

        config = SavedConfig(learner="PrototypicalNetwork", arguments={"distance": "cosine"})
        learner = build_learner(EncoderConfig(), config, seed=0)
    """

    kind: Literal["saved"] = "saved"
    learner: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    def build(self, net: Encoder | nn.Module, *, n_way: int) -> Learner:
        """Return the learner; how many classes it takes is one of its arguments.

        Raises:
            ConfigError: if there is no such learner, or it does not take these arguments.
        """
        del n_way
        made: Any = self._class()
        try:
            learner: Learner = made(net, **_decoded(self.arguments))
            return learner
        except TypeError as error:
            raise ConfigError(f"{self.learner} does not take these arguments: {error}.") from error

    def _class(self) -> Any:
        found: Any = getattr(quickstudy.learners, self.learner, None)
        known = self.learner in quickstudy.learners.__all__ and inspect.isclass(found)
        if not known or not issubclass(found, Learner) or inspect.isabstract(found):
            raise ConfigError(f"there is no learner {self.learner!r} in quickstudy.learners.")
        return found

    @property
    def cosine(self) -> bool:
        """Whether embeddings are compared by cosine, so that their lengths do not matter."""
        by_cosine = self.arguments.get("distance") == "cosine"
        return by_cosine or self.learner == "MatchingNetwork"

    @property
    def format(self) -> int:
        """Of the runs of this learner."""
        context = self.learner == "MatchingNetwork" and bool(self.arguments.get("full_context"))
        return MatchingConfig(full_context=context).format

    @property
    def transductive(self) -> bool:
        """Whether training normalises the queries of a task by their own statistics."""
        return self.arguments.get("query_statistics") == "query"

    @property
    def adapts_encoder(self) -> bool:  # type: ignore[override]
        """Whether each task adapts the encoder."""
        return str(self._class().family) == "gradient"


def describe_learner(learner: Learner) -> SavedConfig:
    """Return the class and arguments of one of our learners.

    Raises:
        ConfigError: if it is of another class, or has an argument that JSON cannot hold.
    """
    name = type(learner).__name__
    if getattr(quickstudy.learners, name, None) is not type(learner):
        raise ConfigError(
            f"{name} is a learner of your own: a document cannot build it. Give its LearnerConfig "
            "(config=), which names the file that it is written in."
        )
    arguments = {
        argument: _encoded(value, f"{name}: {argument}")
        for argument, value in learner.built_with.items()
        if not isinstance(value, nn.Module)
    }
    return SavedConfig(learner=name, arguments=arguments)


def describe_encoder(encoder: nn.Module) -> EncoderConfig | None:
    """Return the configuration that builds an encoder of this structure, or ``None``."""
    kinds = {"Conv4": "conv4", "ResNet12": "resnet12", "MLP": "mlp", "Identity": "pixels"}
    kind = kinds.get(type(encoder).__name__)
    if kind is None or not isinstance(encoder, Encoder):
        return None
    shape = tuple(encoder.in_shape)
    images = len(shape) == 3 and shape[0] in (1, 3) and shape[1] == shape[2]
    if kind == "pixels" and not images and len(shape) != 1:
        return None
    size: dict[str, Any] = {"in_channels": shape[0], "image_size": shape[1]} if images else {}
    if kind in ("mlp", "pixels"):
        size["in_features"] = shape[0] if len(shape) == 1 else None
    if kind == "mlp":
        size["standardise"] = getattr(encoder, "standardise", False)
    weights = [value for value in encoder.state_dict().values() if value.ndim > 1]
    channels = len(weights[0]) if weights else 1
    state = torch.get_rng_state()
    try:
        for norm in ("batch", "group", "support"):
            for downsample in ("pool", "stride"):
                settings = {"kind": kind, "channels": channels, "norm": norm}
                try:
                    config = EncoderConfig.model_validate(
                        {**settings, "downsample": downsample, **size}
                    )
                    if same_structure(build_encoder(config), encoder):
                        return config
                except ValueError:  # no configuration of ours is like it
                    continue
    finally:
        torch.set_rng_state(state)
    return None


def same_structure(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two modules have the same layers, weights of the same shapes, and settings."""
    if repr(one) != repr(other):
        return False
    mine, theirs = one.state_dict(), other.state_dict()
    if {n: v.shape for n, v in mine.items()} != {n: v.shape for n, v in theirs.items()}:
        return False
    pairs = zip(one.modules(), other.modules(), strict=True)
    return all(_settings(a) == _settings(b) for a, b in pairs)


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return the plain attributes of a module that say how it computes."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in ("training", "built_with")
        and (isinstance(value, (int, float, str, bool, type(None))) or is_dataclass(value))
    }


def _encoded(value: Any, what: str) -> Any:
    """Return a value that JSON holds."""
    if isinstance(value, (str, bool, type(None))):
        return value
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_encoded(one, what) for one in value]
    name = type(value).__name__
    if is_dataclass(value) and getattr(quickstudy.learners, name, None) is type(value):
        inside = {f.name: _encoded(getattr(value, f.name), what) for f in fields(value)}
        return {"class": name, "arguments": inside}
    raise ConfigError(f"{what} is of type {name}, which a document cannot hold.")


def _decoded(value: Any) -> Any:
    """Return the value that :func:`_encoded` wrote down."""
    if isinstance(value, list):
        return tuple(_decoded(one) for one in value)
    if not isinstance(value, Mapping):
        return value
    if value.keys() != {"class", "arguments"}:
        return {name: _decoded(one) for name, one in value.items()}
    name, inside = value["class"], value["arguments"]
    made = getattr(quickstudy.learners, str(name), None)
    if str(name) not in quickstudy.learners.__all__ or not is_dataclass(made):
        raise ConfigError(f"there is no {name!r} in quickstudy.learners.")
    if not inspect.isclass(made) or not isinstance(inside, Mapping):
        raise ConfigError(f"{name} does not take {inside!r}.")
    return made(**{key: _decoded(one) for key, one in inside.items()})
