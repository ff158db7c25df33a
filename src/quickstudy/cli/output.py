"""What every command shares: one JSON document on stdout, words on stderr, errors without
tracebacks."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

from quickstudy.core import ConfigError, QuickstudyError

__all__ = ["MISUSED", "emit", "guarded", "say"]

FAILED, MISUSED = 1, 2


def emit(document: dict[str, Any], *, as_json: bool, text: str) -> None:
    """Print the result: the JSON document for machines, or the text for people."""
    print(json.dumps(document, ensure_ascii=False) if as_json else text)


def say(text: str) -> None:
    """Tell a person what is going on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def guarded(action: Callable[[], None], *, debug: bool) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 misused.

    Errors become one sentence on standard error; the traceback is shown with ``--debug``.
    """
    try:
        action()
    except QuickstudyError as error:
        if debug:
            traceback.print_exc()
        say(f"error: {error}")
        return MISUSED if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        say("stopped.")
        return FAILED
    except BrokenPipeError:
        # the reader of our output has gone, for example 'head'
        sys.stderr.close()
        return FAILED
    except MemoryError:
        say("error: out of memory. Use fewer episodes, a smaller image size or tasks_per_step.")
        return FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        say(
            f"error: {type(error).__name__}: {error}. This is a fault of Quickstudy's; "
            "run again with --debug before the command and report what it shows."
        )
        return FAILED
    return 0
