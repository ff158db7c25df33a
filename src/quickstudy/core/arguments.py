"""Refuses arguments of other types than those annotated, in our words, before the call runs.

Every public function and class carries :func:`checked`. So a wrong type is met at the door, where
its name is known, and not three calls further in as an ``AttributeError`` of something else.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

from quickstudy.core.errors import ConfigError

__all__ = ["accepts", "checked", "in_words"]

F = TypeVar("F", bound=Callable[..., Any])

_MOST_CHARACTERS_SHOWN = 40  # of a value that is quoted
_MOST_ITEMS_CHECKED = 1000  # of a list: a longer one is checked at its beginning

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "True or False",
    bytes: "bytes",
    types.NoneType: "None",
    Any: "anything",
}
_PLURALS = {
    "a whole number": "whole numbers",
    "a number": "numbers",
    "a text": "texts",
    "a path": "paths",
    "a text or a path": "texts or paths",
    "True or False": "truth values",
}


def checked(function: F) -> F:
    """Return the function or class with its arguments checked against their annotations.

    What is checked: numbers (also numpy's), texts, truth values, paths, ``Literal``, ``None``,
    classes, callables, unions, and lists, tuples and mappings of these. Every other annotation
    accepts everything. Nothing is converted.

    Args:
        function: to decorate; of a class, its ``__init__`` is.

    Returns:
        A function of the same signature; the class itself.

    Raises:
        ConfigError: when it is called with an argument of another type: names the argument, what
            it needs and what was given.

    Example::

        from quickstudy.core.arguments import checked

        @checked
        def half(number: int) -> float:
            return number / 2

        try:
            half("3")
        except QuickstudyError as error:
            print(error)
    """
    if isinstance(function, type):
        kind: Any = function
        kind.__init__ = _checked_call(kind.__init__, kind.__name__, kind.__module__)
        return function
    name = function.__qualname__.removesuffix(".__init__")
    return typing.cast(F, _checked_call(function, name, function.__module__))


def _checked_call(function: Callable[..., Any], name: str, module: str) -> Callable[..., Any]:
    signature = inspect.signature(function)
    # resolved at the first call: while a module is imported, its later names do not exist yet
    hints = functools.cache(lambda: _hints(signature, sys.modules[module].__dict__))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python names what is missing or unknown
        for parameter, hint in hints():
            if parameter in bound.arguments and not accepts(hint, bound.arguments[parameter]):
                raise ConfigError(
                    f"{name}: {parameter} needs {in_words(hint)}; got "
                    f"{_described(bound.arguments[parameter])}."
                )
        return function(*args, **kwargs)

    call.__dict__["checked"] = True
    return call


def _hints(signature: inspect.Signature, names: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the parameters whose annotations say something, with these."""
    found = []
    for parameter in signature.parameters.values():
        hint = parameter.annotation
        if isinstance(hint, str):
            try:
                hint = eval(hint, names)  # the package's own source, not a user's
            except (NameError, AttributeError, TypeError):
                continue  # a name that only the type checker imports
        if hint is inspect.Parameter.empty or hint is Any:
            continue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            hint = typing.cast(Any, tuple)[hint, ...]
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            hint = typing.cast(Any, dict)[str, hint]
        found.append((parameter.name, hint))
    return found


def accepts(hint: Any, value: Any) -> bool:
    """Return whether a value has the type of an annotation.

    Args:
        hint: the annotation, resolved: no text.
        value: any object.
    """
    hint = getattr(hint, "__value__", hint)  # "type X = ..."
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return accepts(inner[0], value)
    if origin in (typing.Union, types.UnionType):
        return any(accepts(one, value) for one in inner)
    if origin is typing.Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is not None:
        return _accepts_parts(origin, inner, value)
    if hint is None:
        return value is None
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    if hint in (int, float):
        # True is a whole number for Python, and a slip for people
        kind = Integral if hint is int else Real
        return isinstance(value, kind) and not isinstance(value, bool)
    if hint is Any or not isinstance(hint, type):
        return True
    if getattr(hint, "_is_protocol", False) and not getattr(hint, "_is_runtime_protocol", False):
        return True
    if issubclass(hint, os.PathLike):  # a Path where a path is meant: any other kind does as well
        return isinstance(value, os.PathLike)
    return isinstance(value, hint)


def _accepts_parts(origin: Any, inner: tuple[Any, ...], value: Any) -> bool:
    """Return whether a value is a container of these parts."""
    if origin is collections.abc.Callable:
        return callable(value)
    if origin is type:
        return isinstance(value, type)
    if not isinstance(origin, type):
        return True
    if not isinstance(value, origin):
        return False
    if isinstance(value, Mapping) and len(inner) == 2:
        return all(accepts(inner[0], k) and accepts(inner[1], v) for k, v in value.items())
    if isinstance(value, tuple) and inner and inner[-1] is not Ellipsis and origin is tuple:
        return len(value) == len(inner) and all(map(accepts, inner, value))
    if isinstance(value, str | bytes) and origin is not type(value):
        # one text is a sequence of texts for Python, and a forgotten pair of brackets for people
        return False
    if isinstance(value, Sequence | set | frozenset) and inner:
        some = list(value)[:_MOST_ITEMS_CHECKED]
        return all(accepts(inner[0], one) for one in some)
    return True


def in_words(hint: Any) -> str:
    """Return an annotation for people: ``"a whole number or None"``."""
    hint = getattr(hint, "__value__", hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return in_words(inner[0])
    if origin in (typing.Union, types.UnionType):
        return _listed(list(dict.fromkeys(in_words(one) for one in inner)))
    if origin is typing.Literal:
        return _listed([repr(one) for one in inner])
    if hint in _WORDS:
        return _WORDS[hint]
    if hint is None:
        return "None"
    if origin is not None and isinstance(origin, type):
        return _container_in_words(origin, inner)
    if isinstance(hint, type):
        if issubclass(hint, os.PathLike):
            return "a path"
        return f"{'an' if hint.__name__[:1] in 'AEIOU' else 'a'} {hint.__name__}"
    return str(hint)


def _container_in_words(origin: Any, inner: tuple[Any, ...]) -> str:
    if origin is collections.abc.Callable:
        return "a function"
    if origin is type:
        return "a class"
    if issubclass(origin, os.PathLike):
        return "a path"
    if issubclass(origin, Mapping):
        return "a dict"
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return f"{len(inner)} values in a tuple"
    if not issubclass(origin, Iterable) or not inner or origin is np.ndarray:
        return f"{'an array' if origin is np.ndarray else f'a {origin.__name__}'}"
    kind = "tuple" if origin is tuple else "set" if issubclass(origin, set | frozenset) else "list"
    part = in_words(inner[0])
    return f"a {kind}" if part == "anything" else f"a {kind} of {_PLURALS.get(part, part)}"


def _listed(parts: list[str]) -> str:
    """Return ``"a, b or c"``, ``None`` last."""
    parts = [part for part in parts if part != "None"] + [part for part in parts if part == "None"]
    return " or ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _described(value: object) -> str:
    """Return a short value with its type, or the type alone."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    if isinstance(value, str | bytes | int | float | bool | np.generic | list | tuple | dict):
        text = repr(value)
        most = _MOST_CHARACTERS_SHOWN
        return f"{text if len(text) <= most else text[:most] + '...'} ({kind})"
    return "None" if value is None else f"{'an' if kind[:1] in 'AEIOUaeiou' else 'a'} {kind}"
