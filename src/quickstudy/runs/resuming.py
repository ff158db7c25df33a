"""Going on with a run: its recipe, what may be changed, and is there anything left to do?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from quickstudy.core import CheckpointError, ConfigError
from quickstudy.core.words import quiet
from quickstudy.recipes import Recipe
from quickstudy.runs.code import code_of, remember_code
from quickstudy.runs.folder import RECIPE, manifest, read_recipe, save_recipe
from quickstudy.training import CHECKPOINT, Watcher
from quickstudy.training.fingerprint import changes, fingerprint
from quickstudy.training.loop import MAY_CHANGE
from quickstudy.training.step import learning_rate

__all__ = ["Recorder", "check_resume", "recipe_to_resume"]


def recipe_to_resume(recipe: Recipe | None, folder: Path) -> Recipe:
    """Return the recipe of the run to resume, which may have other settings than ``recipe``.

    Args:
        recipe: whose run is expected there; ``None`` = any.
        folder: of the run.

    Raises:
        CheckpointError: if there is no run, or one of another recipe.
    """
    saved = folder / RECIPE
    if not saved.exists():
        raise CheckpointError(
            f"{saved} is missing: there is no run to resume in {folder}. Name the folder of the "
            "run, or begin one without resuming."
        )
    kept = read_recipe(folder, learners=() if recipe is None else (type(recipe.learner),))
    if recipe is not None and kept.name != recipe.name:
        raise CheckpointError(f"{folder} holds a run of {kept.name!r}, not of {recipe.name!r}.")
    return kept


def check_resume(before: Recipe, now: Recipe, folder: Path, say: Callable[[str], None]) -> None:
    """Refuse settings that would be written down though nothing is trained with them.

    Args:
        before: the recipe in the run.
        now: the recipe with the settings that were asked for.
        folder: of the run.
        say: called with what other steps do to the learning rate.

    Raises:
        ConfigError: if there is nothing left to train and settings are changed, or fewer steps are
            asked for than are done.
    """
    done = _steps_done(folder)
    differ = changes(*(fingerprint(one.train, manifest(one, {})) for one in (before, now)))
    # what must not change at all is refused when the checkpoint is read, with its name
    if done is None or not differ or not differ.keys() <= MAY_CHANGE:
        return
    step, early = done
    if now.train.steps < step:
        raise ConfigError(
            f"{folder} has done {step} steps, and train.steps={now.train.steps} is fewer. Set it "
            "higher, or begin another run."
        )
    waits = now.train.validation.patience
    if step >= now.train.steps or (waits is not None and early >= waits):
        more = (
            f"train.steps above {step}"
            if step >= now.train.steps
            else "train.validation.patience higher or to null"
        )
        raise ConfigError(
            f"{folder} is finished: no step is left to train with these settings, so they would "
            f"say of its weights what is not true. Set {more} to go on."
        )
    if now.train.steps != before.train.steps:
        was = learning_rate(before.train, min(step, before.train.steps - 1))
        next_ = learning_rate(now.train, step)
        say(
            f"note: {now.train.steps} steps instead of {before.train.steps}: outer_lr goes on "
            f"({now.train.schedule}) as if that had been planned, with {next_:.3g} after "
            f"{was:.3g}. The weights will differ from those of one run of that length."
        )


def _steps_done(folder: Path) -> tuple[int, int] | None:
    """Return the steps done and the validations since the best one, or ``None`` if there is no
    checkpoint. Whether the file is sound is seen when it is loaded."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return _progress((file.metadata() or {})["quickstudy"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}). Train again into another folder."
        ) from error


def _progress(text: str) -> tuple[int, int]:
    progress: Any = json.loads(text)["progress"]
    return int(progress["step"]), int(progress["worse"])


class Recorder(Watcher):
    """Writes the recipe into the run: when it begins, or when a resumed one has trained with it.

    A resumed run keeps its old settings until a checkpoint holds weights that were trained with
    the new ones.

    Args:
        folder: of the run.
        recipe: to write.
        facts: about the data.
        resumed: whether there is a checkpoint of the run already.
        warn: called with what differs from what was asked for.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        facts: dict[str, str],
        *,
        resumed: bool,
        warn: Callable[[str], None] = quiet,
    ) -> None:
        self.folder, self.recipe, self.facts, self.warn = folder, recipe, facts, warn
        self.steps, self.kept = 0, 0
        self._resumed, self._stepped = resumed, False

    def on_start(self, step: int) -> None:
        """Write the recipe of a run that begins."""
        self.steps = self.kept = step
        if not self._resumed:
            self._write()
        remember_code(code_of(self.recipe))

    def on_warning(self, text: str) -> None:
        """Pass on what differs from what was asked for."""
        self.warn(text)

    def on_step(self, step: int, figures: object) -> None:
        """Remember that something was trained."""
        del figures
        self.steps, self._stepped = step, True

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Write the settings that the weights of the checkpoint were trained with."""
        del path
        self.kept = step
        self._write()

    def on_end(self) -> None:
        """Write them also if training was stopped, which makes a checkpoint too."""
        if self._stepped:
            self._write()

    def _write(self) -> None:
        save_recipe(self.folder, self.recipe, self.facts)
