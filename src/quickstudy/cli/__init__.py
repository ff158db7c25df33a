"""The command line: parses, calls, prints."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from io import TextIOWrapper
from typing import Annotated

import typer

from quickstudy import __version__
from quickstudy.cli.advise import advise_command
from quickstudy.cli.cache import cache_app
from quickstudy.cli.check import check_command
from quickstudy.cli.compare import compare_command
from quickstudy.cli.data import data_app
from quickstudy.cli.demo import demo_command
from quickstudy.cli.diversity import diversity_command
from quickstudy.cli.edit import (
    add_command,
    correct_command,
    relabel_command,
    remove_command,
    rename_command,
    undo_command,
)
from quickstudy.cli.episodes import episodes_app
from quickstudy.cli.evaluate import evaluate_command
from quickstudy.cli.fit import fit_command
from quickstudy.cli.help import CommandGroup, help_width
from quickstudy.cli.output import guarded, warnings_in_words
from quickstudy.cli.predict import predict_command
from quickstudy.cli.show import export_command, show_command
from quickstudy.cli.train import train_command
from quickstudy.cli.words import in_options

__all__ = ["app", "main"]

app = typer.Typer(
    name="quickstudy",
    help="Meta-learning: learn from many tasks, master a new one from a handful of examples.",
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode=None,  # boxes cut words off on a narrow terminal
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("check")(check_command)
app.command("advise")(advise_command)
app.command("compare")(compare_command)
app.command("diversity")(diversity_command)
app.command("fit")(fit_command)
app.command("predict")(predict_command)
app.command("add")(add_command)
app.command("remove")(remove_command)
app.command("relabel")(relabel_command)
app.command("rename")(rename_command)
app.command("correct")(correct_command)
app.command("undo")(undo_command)
app.command("show")(show_command)
app.command("export")(export_command)
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")
app.add_typer(episodes_app, name="episodes")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"quickstudy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Meta-learning: learn from many tasks, master a new one from a handful of examples."""
    del debug, version  # read by main and by the callback


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 misused, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    # taken out here, so that --debug may also stand after the command
    given = [argument for argument in given if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal can show a plus-minus sign
    code = 0
    command = typer.main.get_command(app)

    def run() -> None:
        nonlocal code
        if "_QUICKSTUDY_COMPLETE" in os.environ:  # the shell asks for completions
            app(given, prog_name="quickstudy")
        # not app(): it prints errors in boxes, and ends at Ctrl-C without our message
        try:
            width = help_width()
            with (
                nullcontext() if debug else warnings_in_words(),
                command.make_context("quickstudy", given, terminal_width=width) as context,
            ):
                command.invoke(context)
        except typer.Exit as done:
            code = done.exit_code

    def words(text: str) -> str:
        return in_options(text, command, given)

    failure = guarded(run, debug=debug, as_json="--json" in given, words=words)
    sys.exit(failure or code)
