"""Errors of the library in the words of the command line: ``k_shot=`` is ``--k-shot`` there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["in_options"]

# an argument as errors name it: "n_way=", "n_way=5", "domains=True"; and "n_way", as no other word
# has an underscore
_ARGUMENT = re.compile(
    r"(?<![\w.'\"])(?<!-s )"
    r"(?:([a-z][a-z_]*)=(True\b|[\w./<>-]*\w)?|([a-z]+_[a-z_]+)\b(?![=(]|\.\w))"
)


def in_options(text: str, group: Any, given: Sequence[str]) -> str:
    """Return a text whose arguments of the command that was called are named as its options.

    Args:
        text: the message of an error.
        group: the command line, or a group of it.
        given: the words of the call.
    """
    command = group
    for word in given:
        if not hasattr(command, "commands"):
            break
        command = command.commands.get(word, command)
    options: dict[str, str] = {}
    for parameter in command.params:
        if longest := max((o for o in parameter.opts if o.startswith("--")), key=len, default=None):
            options[str(parameter.name)] = longest
            options[longest.removeprefix("--").replace("-", "_")] = longest

    def option(match: re.Match[str]) -> str:
        name, value = match[1] or match[3], match[2]
        if name not in options:
            return match.group()
        return options[name] if value in (None, "True") else f"{options[name]} {value}"

    return _ARGUMENT.sub(option, text)
