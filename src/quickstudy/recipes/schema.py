"""Recipes as typed, validated objects: data, encoder, learner and training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import SerializeAsAny, ValidationError, field_validator

from quickstudy.core import ConfigError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.recipes.base import Frozen, LearnerConfig
from quickstudy.recipes.data import Data, JitterConfig
from quickstudy.recipes.encoders import EncoderConfig
from quickstudy.recipes.files import FilesConfig, data_document
from quickstudy.recipes.kinds import check_setting, learner_config
from quickstudy.recipes.metric import ProtoNetConfig
from quickstudy.training import TrainConfig

__all__ = ["Recipe", "override", "parse_recipe"]


class Recipe(Frozen):
    """Everything that determines a run; it is saved with the run.

    Args:
        name: of the recipe.
        summary: one line for ``quickstudy train --list``.
        data: which tasks to train and validate on.
        encoder: which network embeds the inputs.
        learner: which learner is trained.
        train: how it is trained.
        start: name of another recipe whose trained encoder this one starts from. The run of that
            recipe is looked for in the folder next to this run's, and trained first if it is not
            there.

    Example::

        recipe = get_recipe("glyphs-protonet")
        small = override(recipe, ["steps=100", "learner.temperature=2"])
        learner = build_learner(small.encoder, small.learner, seed=small.train.seed)
        print(small.name, small.train.steps, small.learner.kind)
    """

    name: str
    summary: str = ""
    data: Data
    encoder: EncoderConfig = EncoderConfig()
    learner: SerializeAsAny[LearnerConfig] = ProtoNetConfig()
    train: TrainConfig = TrainConfig()
    start: str | None = None

    @field_validator("learner", mode="before")
    @classmethod
    def _choose_learner(cls, value: object) -> object:
        return learner_config(value) if isinstance(value, Mapping) else value

    @property
    def transductive(self) -> bool:
        """Whether training normalises the queries of a task by their own statistics."""
        return self.learner.transductive

    @property
    def n_way(self) -> int:
        """The largest number of classes in a task of training or validation."""
        return max(self.train.spec.max_way, self.train.validation.spec.max_way)


@checked
def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Return the recipe with some settings changed.

    Args:
        recipe: it stays as it is.
        settings: each ``"key=value"``. The key is a path (``train.steps``), or the last part of one
            where only one path ends so (``steps``). The value is JSON, or else plain text. The key
            ``data`` takes a named data set, or a path of data of one's own, and keeps the
            augmentation.

    Raises:
        ConfigError: if a key is unknown or ambiguous, or a value is not allowed.
    """
    document = recipe.model_dump(mode="json")
    # a jitter that is null in the document has settings too
    paths = _paths(document) + [
        f"data.{part}.{name}"
        for part in ("jitter", "class_jitter")
        for name in JitterConfig.model_fields
    ]
    paths += [f"data.files.{name}" for name in FilesConfig.model_fields]
    paths += [f"encoder.{name}" for name in EncoderConfig.model_fields]
    changed: list[str] = []
    # other data comes first: it would take back what is set of it
    for setting in sorted(settings, key=lambda one: not str(one).startswith("data=")):
        if not isinstance(setting, str):
            raise ConfigError(f"settings are texts 'key=value'; got {setting!r}.")
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
        if found[0] == "data" and not isinstance(value, dict):
            value = data_document(document["data"], text)
        _set(document, found[0].split("."), value)
        changed.append(found[0])
    try:
        made = _parsed(document, also=(type(recipe.learner),))
    except ConfigError as error:
        raise ConfigError(f"setting learner.kind: {error}") from error
    except ValidationError as error:
        whole = error.title == Recipe.__name__
        # the learner is validated by itself, so its errors do not begin with "learner"
        at, where = (document, []) if whole else (document["learner"], ["learner"])
        raise ConfigError(_explained(error, at, where)) from error
    for path in changed:
        if path.startswith("learner."):
            check_setting(made.learner, path.split(".")[1])
    return made


@checked
def parse_recipe(
    document: Mapping[str, Any], *, also: Sequence[type[LearnerConfig]] = ()
) -> Recipe:
    """Return the recipe that a document describes.

    Args:
        document: as :meth:`Recipe.model_dump` returns it.
        also: kinds of learner that no installed package declares.

    Raises:
        ConfigError: if there is no such learner, a setting is unknown or its value not allowed.
    """
    try:
        return _parsed(document, also=also)
    except ValidationError as error:
        whole = error.title == Recipe.__name__
        at = document if whole else document.get("learner", {})
        raise ConfigError(_explained(error, dict(at), [] if whole else ["learner"])) from error


def _parsed(document: Mapping[str, Any], *, also: Sequence[type[LearnerConfig]]) -> Recipe:
    """Return the recipe; wrong settings raise pydantic's error, which says where they are."""
    learner = document.get("learner")
    if isinstance(learner, Mapping):
        document = {**document, "learner": learner_config(learner, also=also)}
    return Recipe.model_validate(document)


def _explained(error: ValidationError, document: dict[str, Any], path: list[str]) -> str:
    """Return the first fault as a sentence that names the setting.

    Args:
        error: what pydantic raised.
        document: that was validated.
        path: where the document lies in the recipe: ``[]``, or ``["learner"]``.
    """
    # first of all a name that does not exist: it explains why another one is missing
    found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = found[0]
    where = list(path)
    at: Any = document
    for part in first["loc"]:
        # pydantic also names the branch of a union, which is no setting
        if isinstance(at, dict) and part in at:
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
    """Return the paths of all settings, joined by dots."""
    paths = []
    for name, value in document.items():
        paths.append(prefix + name)
        if isinstance(value, dict):
            paths += _paths(value, f"{prefix}{name}.")
    return paths


def _set(document: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Change one setting of a document in place."""
    for name in path[:-1]:
        if document.get(name) is None:
            document[name] = {}
        document = document[name]
        if not isinstance(document, dict):
            raise ConfigError(
                f"setting {'.'.join(path)}: {name} was set to {document!r} before, which has no "
                "settings. Set one of them."
            )
    document[path[-1]] = value
