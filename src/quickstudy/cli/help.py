"""Help that fits the terminal: whole sentences, no wider than it is."""

from __future__ import annotations

import shutil
from typing import Any

from typer.core import TyperGroup

__all__ = ["CommandGroup", "help_width"]

_WIDEST, _NARROWEST = 80, 30  # columns: of longer lines the eye loses the next


class CommandGroup(TyperGroup):
    """A group whose help says in whole what each command does, where others cut it off."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with the first paragraph of its help."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, " ".join((command.help or "").split("\n\n")[0].split()))
            for name, command in found
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def help_width() -> int:
    """Return the number of columns that help is written in."""
    return max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))
