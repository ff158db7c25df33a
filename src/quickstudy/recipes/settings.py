"""Every setting of a recipe with its value, the values it may have, and its meaning.

The meaning is what the docstring of the setting's class says under ``Args``: it is written once.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from quickstudy.core.arguments import checked
from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.kinds import LEARNERS
from quickstudy.recipes.schema import Recipe

__all__ = ["Setting", "settings_of", "settings_text"]

_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a recipe.

    Args:
        path: how it is named, as in ``train.steps``.
        value: what it is set to, JSON-ready.
        allowed: which values it may have, in words.
        meaning: what it does.

    Example::

        from quickstudy.recipes.settings import settings_of

        for setting in settings_of(get_recipe("glyphs-protonet")):
            print(setting.path, setting.value, setting.allowed, setting.meaning)
    """

    path: str
    value: Any
    allowed: str
    meaning: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


@checked
def settings_of(recipe: Recipe) -> list[Setting]:
    """Return every setting of a recipe, in the order in which a run writes them down."""
    return list(_settings(recipe, ""))


@checked
def settings_text(settings: Sequence[Setting], *, width: int = 80) -> str:
    """Return the settings for people, at most ``width`` characters wide."""
    lines = []
    for one in settings:
        value = json.dumps(one.value, ensure_ascii=False)
        shown = textwrap.shorten(value, width - len(one.path) - 3, placeholder=" ...")
        lines.append(f"{one.path} = {shown}")
        for text in (f"({one.allowed})", one.meaning):
            lines += textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def meanings(config: type[BaseModel]) -> dict[str, str]:
    """Return what the docstrings of a configuration and its bases say of each setting."""
    found: dict[str, str] = {}
    for cls in config.__mro__:
        if not (isinstance(cls, type) and cls.__dict__.get("__doc__")):
            continue
        for name, text in _arguments(inspect.cleandoc(cls.__doc__ or "")).items():
            found.setdefault(name, text)
    for name, field in config.model_fields.items():
        if field.description:
            found[name] = field.description
    # "Args: seed: of the weights" reads on from the name
    return {n: f"{n} {text}" if text.startswith("of ") else text for n, text in found.items()}


def _settings(config: BaseModel, prefix: str) -> Iterator[Setting]:
    meaning = meanings(type(config))
    if isinstance(config, LearnerConfig):
        # a setting that several learners of a family have is explained by one of them
        family = [one for one in LEARNERS.values() if one.family == config.family]
        for other in family:
            meaning = meanings(other) | meaning
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if name == "files" and value is None:
            continue  # a named data set has no such settings
        path, text = prefix + name, meaning.get(name, "")
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{path}.")
            continue
        yield Setting(path, _plain(value), _allowed(field), text)
        # settings below one that is null can be set too
        for below in _models(field.annotation) if value is None else ():
            of = meanings(below)
            for inner, inner_field in below.model_fields.items():
                yield Setting(f"{path}.{inner}", None, _allowed(inner_field), of.get(inner, ""))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return value


def _models(annotation: Any) -> list[type[BaseModel]]:
    parts = typing.get_args(annotation) or (annotation,)
    return [p for p in parts if inspect.isclass(p) and issubclass(p, BaseModel)]


def _allowed(field: FieldInfo) -> str:
    """Return the values that a setting may have, in words."""
    words = _type_words(field.annotation)
    bounds = [
        f"{word} {json.dumps(bound)}"
        for rule in field.metadata
        for name, word in _BOUNDS.items()
        if (bound := getattr(rule, name, None)) is not None
    ]
    return ", ".join([words, *bounds])


def _type_words(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Literal:
        return " or ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_type_words, inner)))
    if origin is tuple and Ellipsis not in inner:
        return f"[{', '.join(map(_type_words, inner))}]"
    if origin in (tuple, list):
        return f"list of {_type_words(inner[0])}"
    if origin is not None and inspect.isclass(origin) and issubclass(origin, (dict, Mapping)):
        return "settings by name"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "settings"
    return _NAMES.get(annotation, str(getattr(annotation, "__name__", annotation)))


def _arguments(doc: str) -> dict[str, str]:
    """Return the entries under ``Args:`` of a docstring by name, without markup."""
    match = re.search(r"^Args:\n((?:[ ].*\n?|\n)+)", doc, re.MULTILINE)
    if match is None:
        return {}
    found: dict[str, str] = {}
    entries = re.split(r"^ {4}(?=\w+: )", match.group(1), flags=re.MULTILINE)
    for entry in entries:
        name, colon, text = entry.partition(": ")
        if colon and name.isidentifier():
            plain = re.sub(r":\w+:`~?([^`]*)`|``([^`]*)``", r"\1\2", " ".join(text.split()))
            found[name] = re.sub(r"\bNone\b", "null", plain.strip())
    return found
