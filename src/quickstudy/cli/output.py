"""What every command shares: one JSON document on stdout, words on stderr, errors without
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
    """Print the result: the JSON document for machines, or the text for people.

    Raises:
        QuickstudyError: if standard output cannot be written.
    """
    # allow_nan: a document that only Python can read would be worse than an error
    line = json.dumps(document, ensure_ascii=False, allow_nan=False) if as_json else text
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _abandon(sys.stdout)
        raise QuickstudyError(f"cannot write to standard output: {error.strerror}.") from error


def say(text: str) -> None:
    """Tell a person what is going on, on standard error."""
    # file names need not be text
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


def writable(path: Path, option: str) -> Path:
    """Return a path that a file can be written to, asked before the work and not after it.

    Raises:
        ConfigError: if it is a folder, or no folder can be there.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; name a file in it.")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "cannot be written to" if there.is_dir() else "is a file, not a folder"
        raise ConfigError(f"{option} {path}: {there} {why}. Name another place.")
    return path


def guarded(action: Callable[[], None], *, debug: bool, as_json: bool = False) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 misused, 130 interrupted.

    Errors become one sentence on standard error, and with ``--json`` a document ``{"error":
    {"type", "message"}}`` on standard output as well; the traceback is shown with ``--debug``.
    """
    try:
        action()
        return 0
    except BrokenPipeError:
        # the reader of our output has gone, for example 'head'
        _abandon(sys.stdout)
        return FAILED
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        kind, message, code = _explain(error)
    with _patience() if code == INTERRUPTED else contextlib.nullcontext():
        if message:
            say(message if code == INTERRUPTED else f"error: {message}")
        if as_json:
            document = {"error": {"type": kind, "message": message}}
            with contextlib.suppress(OSError, QuickstudyError):
                emit(document, as_json=True, text="")
    return code


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Let no further Ctrl-C cut off what is being said."""
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
        # a misused option or argument: Typer's own error, whose class is not public
        context = getattr(error, "ctx", None)
        command = "quickstudy" if context is None else context.command_path
        text = str(format_message())
        if kind == "NoArgsIsHelpError":  # the help has been shown
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
    """Point a stream that cannot be written to nowhere, or Python complains on its way out."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
