"""The base of every configuration: frozen, validated on construction, with errors in our words."""

from __future__ import annotations

import types
import typing
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from quickstudy.core.errors import ConfigError, nearest_names

__all__ = ["Settings"]

# the largest seed of a generator, and more than anything that can be counted
_TOO_LARGE = 2**63
# members of a union, which pydantic names like settings
_BRANCHES = ("int", "float", "str", "bool", "tuple[int,int]")
_WORDS = {
    "a valid integer": "a whole number",
    "a valid boolean": "True or False",
    "a valid string": "a text",
    "a valid tuple": "a list, in brackets",
    "a valid dictionary or instance of": "a",
    "a valid ": "a ",
}


class Settings(BaseModel):
    """A configuration: it cannot be changed, and refuses unknown settings and numbers that are
    none.

    ``True`` is no number, infinity and NaN are no settings, and NumPy's numbers become Python's,
    because a configuration is written into a document.

    Raises:
        ConfigError: on construction, naming the setting and what was given.
        ValidationError: of pydantic, where a document is validated.

    Example::

        from quickstudy.core.settings import Settings

        class Sampling(Settings):
            episodes: int = 600

        try:
            Sampling(episodes=2.5)
        except QuickstudyError as error:
            print(error)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **data: Any) -> None:
        if not type(self).__pydantic_complete__:
            # pydantic looks for names it did not know yet (a class defined in a function, or by
            # exec) in the frame that constructs, which this __init__ would hide from it
            type(self).model_rebuild(raise_errors=False, _parent_namespace_depth=3)
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise ConfigError(_explained(type(self), error)) from error

    # pydantic calls an __init__ of ours where a configuration lies in another one too, and would
    # then lose the path to the setting; this mark makes it validate directly, as without ours
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @field_validator("*", mode="before")
    @classmethod
    def _only_numbers(cls, value: object, info: ValidationInfo) -> object:
        """Make Python's numbers of NumPy's, and refuse truth values where a number is wanted."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, int) and abs(value) >= _TOO_LARGE:
            raise ValueError(f"a number below 2^63 is wanted; got {value}")
        if isinstance(value, tuple | list):
            value = type(value)(v.item() if isinstance(v, np.generic) else v for v in value)
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and _takes(wanted, int, float) and not _takes(wanted, bool):
            raise ValueError(f"a number is wanted, not a truth value; got {value}")
        return value


def _takes(annotation: Any, *kinds: type) -> bool:
    """Return whether a type, or a member of a union, is one of these."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_takes(one, *kinds) for one in typing.get_args(annotation))
    return annotation in kinds


def _explained(kind: type[BaseModel], error: ValidationError) -> str:
    """Return the first fault as a sentence that names the setting."""
    # an unknown name explains why another one is missing, so it comes first
    first = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")[0]
    where = [str(part) for part in first["loc"] if isinstance(part, str) and part not in _BRANCHES]
    name = ".".join([kind.__name__, *where])
    if first["type"] == "extra_forbidden":
        return f"{name}: there is no such setting. {nearest_names(where[0], kind.model_fields)}"
    if first["type"] == "value_error":  # a sentence of our own, which says what was given
        return f"{name}: {first['msg'].removeprefix('Value error, ').rstrip('.')}."
    if first["type"] == "missing":
        return f"{name} is missing. Give it."
    limits = first.get("ctx", {})
    what = {
        "greater_than_equal": f"must be at least {limits.get('ge')}",
        "greater_than": f"must be above {limits.get('gt')}",
        "less_than_equal": f"must be at most {limits.get('le')}",
        "less_than": f"must be below {limits.get('lt')}",
        "finite_number": "must be finite",
    }.get(first["type"])
    if what is None:
        what = first["msg"].replace("Input should be", "must be", 1).split(", unable to")[0]
        for theirs, ours in _WORDS.items():
            what = what.replace(theirs, ours)
    return f"{name} {what}; got {first['input']!r}."
