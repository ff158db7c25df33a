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
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import typer

from quickstudy.core import ConfigError, QuickstudyError, fault_of
from quickstudy.storage.outputs import Recogniser, check_output, check_output_folder

__all__ = [
    "FAILED",
    "emit",
    "emit_written",
    "guarded",
    "on_terminal",
    "say",
    "warnings_in_words",
    "writable",
    "writable_folder",
]

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

# what puts messages of the library into the words of the command line: that of the running command
_words: list[Callable[[str], str]] = [str]
_PACKAGE = Path(__file__).parents[1]
Write = Callable[[Path], object]


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


def emit_written(
    document: dict[str, Any], *, as_json: bool, text: str, page: Path | None, write: Write
) -> None:
    """Write a page, then print the result, whether or not the page could be written.

    Args:
        document: JSON-ready, without NaN; gets ``"page"``, the path, or ``None`` and
            ``"page_error"``.
        as_json: whether to print the document.
        text: what to print otherwise.
        page: the file; ``None`` = none is wanted.
        write: writes it.

    Raises:
        typer.Exit: with code 1, after the result was printed, if the page could not be written.
    """
    failure = None
    if page is not None:
        try:
            write(page)
            say(f"{page}: open it in a browser")
        except (QuickstudyError, OSError) as error:
            failure = str(error)
    document["page"] = None if failure else page and str(page)
    emit(document | ({"page_error": failure} if failure else {}), as_json=as_json, text=text)
    if failure:
        say(f"error: {failure}")
        raise typer.Exit(FAILED)


def on_terminal() -> bool:
    """Return whether somebody looks at standard error, so that a bar of progress makes sense."""
    return sys.stderr.isatty()


def say(text: str) -> None:
    """Print a line about what is being done, on standard error."""
    text = _words[-1](text)
    # the text may hold names of files, which need not be valid Unicode
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


def writable(
    path: Path,
    option: str,
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    ours: Recogniser | None = None,
) -> Path:
    """Return the path of a file to write, after checking it: call this before the work.

    Args:
        path: of the file.
        option: that the user gave it with, for errors: ``"--out"``.
        inputs: files and folders that the command reads.
        ours: recogniser of :mod:`quickstudy.storage.outputs` for an existing file that may be
            replaced, for example ``is_page``; ``None`` = no existing file may be.

    Raises:
        ConfigError: if it is an input, a folder, or a file that is not ours, or cannot be written.
    """
    return check_output(path, name=option, inputs=inputs, ours=ours)


def writable_folder(
    path: Path,
    option: str,
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    ours: Recogniser | None = None,
) -> Path:
    """Return the path of a folder to write into, after checking it as :func:`writable` does."""
    return check_output_folder(path, name=option, inputs=inputs, ours=ours)


def guarded(
    action: Callable[[], None],
    *,
    debug: bool,
    as_json: bool = False,
    words: Callable[[str], str] = str,
) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 misused, 130 interrupted.

    An error is printed as one sentence on standard error.

    Args:
        action: the command.
        debug: also print the traceback.
        as_json: also print ``{"error": {"type", "message"}}`` on standard output.
        words: puts the message of the library into the words of the command line.
    """
    _words.append(words)
    try:
        with _stopping_in_imports():
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
        message = words(message)
    finally:
        _words.pop()
    with _ignoring_ctrl_c() if code == INTERRUPTED else contextlib.nullcontext():
        if message:
            say(message if code == INTERRUPTED else f"error: {message}")
        if as_json:
            document = {"error": {"type": kind, "message": message}}
            with contextlib.suppress(OSError, QuickstudyError):
                emit(document, as_json=True, text="")
    return code


@contextlib.contextmanager
def warnings_in_words() -> Iterator[None]:
    """Print Quickstudy's own warnings as one line, and none of the libraries below it.

    What a library warns of is about its callers' code, which the user of a command did not write.
    """
    with warnings.catch_warnings():
        # only how they are shown changes: filters that make them errors, as in tests, go on
        warnings.showwarning = _show_warning
        yield


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del lineno, file, line
    if category is UserWarning and Path(filename).is_relative_to(_PACKAGE):
        say(f"warning: {message}")


@contextlib.contextmanager
def _stopping_in_imports() -> Iterator[None]:
    """Let Ctrl-C interrupt the command, or end the process where a module is being imported.

    Commands import what they need when they are called. An exception that is raised there can be
    lost: Python's import system ignores those of its callbacks, and libraries try alternatives. No
    work has been done by then that could be left half-written.
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is signal.SIG_IGN:
        yield  # started by nohup, say
        return
    # before a command begins the process has no handler, see quickstudy.__main__
    interrupt = usual if callable(usual) else signal.default_int_handler

    def stop(number: int, frame: FrameType | None) -> None:
        at = frame
        while at is not None:
            if at.f_code.co_filename.startswith("<frozen importlib"):
                os.write(2, b"stopped.\n")
                os._exit(INTERRUPTED)
            at = at.f_back
        interrupt(number, frame)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


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
