"""Watchers: objects that follow a training and may stop it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from quickstudy.core.arguments import checked
from quickstudy.evaluation import Report

__all__ = ["ProgressBar", "Watcher", "Watchers"]


class Watcher:
    """Base class of objects whose methods are called during a training.

    Each method does nothing unless it is overridden. A watcher must not change the learner. An
    error that it raises ends the training.

    Example::

        class StopAt90(Watcher):
            def on_validation(self, step, reports):
                return reports["novel classes"].mean > 0.9

        train(learner, source, config, validation=validation, watchers=[StopAt90()])
    """

    def on_start(self, step: int) -> None:
        """Called when settings, data and folder were accepted, before the first step.

        Args:
            step: outer steps done before; above 0 in a run that is resumed.
        """

    def on_step(self, step: int, figures: Mapping[str, str]) -> None:
        """Called after each outer step.

        Args:
            step: outer steps done.
            figures: the latest loss and scores, formatted for people.
        """

    def on_validation(self, step: int, reports: Mapping[str, Report]) -> bool:
        """Called after each validation of the averaged weights.

        Args:
            step: outer steps done.
            reports: the score on each list of tasks, by its name; the validation classes are
                ``"novel classes"``.

        Returns:
            Whether training is to stop here. It then ends as with ``patience``: the best weights
            are kept, and the run can be resumed.
        """
        del step, reports
        return False

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Called after each checkpoint, when everything that a resumed run needs is on disk.

        Args:
            step: outer steps done.
            path: of the checkpoint.
        """

    def on_warning(self, text: str) -> None:
        """Called with a sentence when something differs from what was asked for."""

    def on_end(self) -> None:
        """Called at the end of training, also after an error."""


@checked
class ProgressBar(Watcher):
    """A bar with rate and time left on standard error, and warnings as lines.

    Args:
        steps: outer steps in all.

    Example::

        bar = ProgressBar(config.steps)
        train(learner, source, config, validation=validation, watchers=[bar])
        train(learner, source, config, validation=validation, progress=True)  # the same
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._bar: tqdm[Any] | None = None

    def on_start(self, step: int) -> None:
        """Show the bar."""
        self._bar = tqdm(
            total=self._steps,
            initial=step,
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
            smoothing=0.05,
            mininterval=0.1 if sys.stderr.isatty() else 30,  # a log file wants a line now and then
        )

    def on_step(self, step: int, figures: Mapping[str, str]) -> None:
        """Move the bar on."""
        del step
        if self._bar is not None:
            self._bar.set_postfix(figures, refresh=False)
            self._bar.update()

    def on_warning(self, text: str) -> None:
        """Print the warning."""
        print(text, file=sys.stderr)

    def on_end(self) -> None:
        """Close the bar; it stays on the screen."""
        if self._bar is not None:
            self._bar.close()


class Watchers:
    """Calls several watchers, in their order."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    @contextmanager
    def started(self, step: int) -> Iterator[None]:
        """Call ``on_start`` at the beginning and ``on_end`` at the end, also after an error."""
        try:
            for one in self._watchers:
                one.on_start(step)
            yield
        finally:
            for one in self._watchers:
                one.on_end()

    def on_step(self, step: int, figures: Mapping[str, str]) -> None:
        """Call each watcher's ``on_step``."""
        for one in self._watchers:
            one.on_step(step, figures)

    def on_validation(self, step: int, reports: Mapping[str, Report]) -> bool:
        """Call each watcher's ``on_validation``; return whether any of them wants to stop."""
        # all of them are called first, even if the first one wants to stop
        wishes = [one.on_validation(step, reports) for one in self._watchers]
        return any(wishes)

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Call each watcher's ``on_checkpoint``."""
        for one in self._watchers:
            one.on_checkpoint(step, path)

    def on_warning(self, text: str) -> None:
        """Call each watcher's ``on_warning``."""
        for one in self._watchers:
            one.on_warning(text)
