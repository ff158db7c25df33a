"""What watches a training: one hook object for everything that wants to see or stop it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from quickstudy.evaluation import Report

__all__ = ["ProgressBar", "Watcher", "Watchers"]


class Watcher:
    """Is told what happens in a training; override what you want to know. Does nothing itself.

    A watcher changes nothing on the learner. An error it raises ends the training.

    Example::

        class StopAt90(Watcher):
            def on_validation(self, step, reports):
                return reports["novel classes"].mean > 0.9

        train(learner, source, config, validation=validation, watchers=[StopAt90()])
    """

    def on_start(self, step: int) -> None:
        """Settings, data and folder were accepted; nothing was trained yet in this part.

        Args:
            step: outer steps that were done before, in a run that is resumed.
        """

    def on_step(self, step: int, figures: Mapping[str, str]) -> None:
        """An outer step is done.

        Args:
            step: outer steps done.
            figures: the latest loss and scores, as words for people.
        """

    def on_validation(self, step: int, reports: Mapping[str, Report]) -> bool:
        """The averaged weights were scored.

        Args:
            step: outer steps done.
            reports: of each list that is followed, by its name; the validation classes are
                ``"novel classes"``.

        Returns:
            Whether training is to stop here. It then ends as with ``patience``: the best weights
            are kept, and the run can be resumed.
        """
        del step, reports
        return False

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Everything that a resumed run needs was written.

        Args:
            step: outer steps done.
            path: of the checkpoint.
        """

    def on_warning(self, text: str) -> None:
        """Something is not as asked for, in a sentence."""

    def on_end(self) -> None:
        """Training ends, for whatever reason."""


class ProgressBar(Watcher):
    """A bar with rate and time left on standard error, and warnings as lines.

    Args:
        steps: outer steps in all.
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
        """Print it."""
        print(text, file=sys.stderr)

    def on_end(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


class Watchers:
    """Several watchers as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    @contextmanager
    def started(self, step: int) -> Iterator[None]:
        """Tell that training begins, and at last that it ends."""
        try:
            for one in self._watchers:
                one.on_start(step)
            yield
        finally:
            for one in self._watchers:
                one.on_end()

    def on_step(self, step: int, figures: Mapping[str, str]) -> None:
        """Tell that a step is done."""
        for one in self._watchers:
            one.on_step(step, figures)

    def on_validation(self, step: int, reports: Mapping[str, Report]) -> bool:
        """Tell the scores; returns whether any of them wants to stop."""
        # all of them are told, whatever the first one wants
        wishes = [one.on_validation(step, reports) for one in self._watchers]
        return any(wishes)

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Tell that everything was saved."""
        for one in self._watchers:
            one.on_checkpoint(step, path)

    def on_warning(self, text: str) -> None:
        """Tell a warning."""
        for one in self._watchers:
            one.on_warning(text)
