"""What every command prints: the result on stdout, progress on stderr, errors without
tracebacks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from quickstudy.core import ConfigError, QuickstudyError, fault_of

__all__ = ["emit", "guarded", "say", "writable"]

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def emit(document: dict[str, Any], *, as_json: bool, text: str) -> None:
    """Print the result on standard output: the JSON document for machines, or the text for people.

    Args:
        document: JSON-ready, without NaN.
        as_json: whether to print the document.
        text: what to print otherwise.

    Raises:
        QuickstudyError: if standard output cannot be written.
    """
    # allow_nan=False: JSON has no NaN, and a document that only Python reads is worse than an error
    line = json.dumps(document, ensure_ascii=False, allow_nan=False) if as_json else text
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _abandon(sys.stdout)
        raise QuickstudyError(f"cannot write to standard output: {error.strerror}.") from error


def say(text: str) -> None:
    """Print a line about what is being done, on standard error."""
    # the text may hold names of files, which need not be valid Unicode
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


def writable(path: Path, option: str) -> Path:
    """Return the path, after checking that a file can be written there: before hours of work.

    Args:
        path: of the file.
        option: that the user gave it with, for errors.

    Raises:
        ConfigError: if it is a folder, or its folder cannot be written to.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; name a file in it.")
    # the nearest folder that exists: the others will be made
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        why = "cannot be written to" if nearest.is_dir() else "is a file, not a folder"
        raise ConfigError(f"{option} {path}: {nearest} {why}. Name another place.")
    return path


def guarded(action: Callable[[], None], *, debug: bool, as_json: bool = False) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 misused, 130 interrupted.

    An error is printed as one sentence on standard error.

    Args:
        action: the command.
        debug: also print the traceback.
        as_json: also print ``{"error": {"type", "message"}}`` on standard output.
    """
    try:
        action()
        return 0
    except BrokenPipeError:
        # the program that reads our output has ended, for example 'head'
        _abandon(sys.stdout)
        return FAILED
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        kind, message, code = _explain(error)
    with _ignoring_ctrl_c() if code == INTERRUPTED else contextlib.nullcontext():
        if message:
            say(message if code == INTERRUPTED else f"error: {message}")
        if as_json:
            document = {"error": {"type": kind, "message": message}}
            with contextlib.suppress(OSError, QuickstudyError):
                emit(document, as_json=True, text="")
    return code


@contextlib.contextmanager
def _ignoring_ctrl_c() -> Iterator[None]:
    """Ignore further Ctrl-C, so that the message is printed whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _explain(error: BaseException) -> tuple[str, str, int]:
    """Return the kind of an error, a message for people, and the exit code."""
    kind = type(error).__name__
    if isinstance(error, QuickstudyError):
        return kind, str(error), MISUSED if isinstance(error, ConfigError) else FAILED
    if callable(format_message := getattr(error, "format_message", None)):
        # a wrong option or argument: an error of Typer, whose class is not public
        context = getattr(error, "ctx", None)
        command = "quickstudy" if context is None else context.command_path
        text = str(format_message())
        if kind == "NoArgsIsHelpError":  # Typer has printed the help
            return kind, "", MISUSED
        end = "" if text.endswith(("?", ".")) else "."
        return kind, f"{text}{end} See '{command} --help'.", MISUSED
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return "KeyboardInterrupt", str(error) or "stopped.", INTERRUPTED
    if isinstance(error, MemoryError):
        advice = "Use fewer episodes, a smaller image size or fewer tasks_per_step."
        return kind, f"out of memory. {advice}", FAILED
    message = f"{kind}: {error}."
    if fault_of(error) == "ours":
        message += (
            " This is a fault of Quickstudy's; run again with --debug and report what it shows."
        )
    return kind, message, FAILED


def _abandon(stream: Any) -> None:
    """Redirect a stream that cannot be written to the null device.

    Otherwise Python would try to flush it at exit, and print another error.
    """
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
