"""``quickstudy cache`` and ``quickstudy cache clear``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from quickstudy.cli.help import CommandGroup
from quickstudy.cli.output import emit
from quickstudy.cli.protocol import AsJson
from quickstudy.core import ConfigError

__all__ = ["cache_app"]

cache_app = typer.Typer(
    help="What is kept to be faster: where it lies, how large it is, and how to delete it.",
    cls=CommandGroup,
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cache_app.callback()
def cache_command(context: typer.Context, as_json: AsJson = False) -> None:
    """Show where the cache lies and what it holds.

    Example: quickstudy cache
    """
    if context.invoked_subcommand is not None:
        return
    from quickstudy.storage.cached import cache_parts
    from quickstudy.storage.places import cache_home

    parts, folder = cache_parts(), cache_home()
    lines = [f"{folder}{'' if folder.exists() else ' (nothing there yet)'}"]
    for part in parts:
        number = f"{part.entries:,} {'embeddings' if part.kind == 'embeddings' else 'files'}"
        lines.append(f"  {part.kind:<11}{_megabytes(part.n_bytes):>12}  {number}: {part.meaning}")
    lines.append("'quickstudy cache clear' deletes all but the last line.")
    document = {
        "command": "cache",
        "folder": str(folder),
        "bytes": sum(part.n_bytes for part in parts),
        "parts": [part.to_dict() for part in parts],
    }
    emit(document, as_json=as_json, text="\n".join(lines))


@cache_app.command("clear")
def clear_command(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(help="embeddings, images or checksums; by default all three."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what can be made again; data sets stay.

    Example: quickstudy cache clear --yes
    """
    from quickstudy.storage.cached import CACHE_KINDS, cache_parts, clear_cache
    from quickstudy.storage.places import cache_home

    chosen = kinds or list(CACHE_KINDS)
    size = sum(part.n_bytes for part in cache_parts() if part.kind in chosen)
    if not yes and size and set(chosen) <= set(CACHE_KINDS):
        if as_json or not sys.stdin.isatty():
            raise ConfigError(
                f"this would delete {_megabytes(size)} in {cache_home()}. Add --yes to do it."
            )
        what = f"Delete {' and '.join(chosen)} ({_megabytes(size)}) in {cache_home()}?"
        typer.confirm(what, abort=True, err=True)
    freed = clear_cache(chosen)
    emit(
        {"command": "cache clear", "folder": str(cache_home()), "kinds": chosen, "bytes": freed},
        as_json=as_json,
        text=f"{cache_home()}: deleted {_megabytes(freed)}",
    )


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
