"""The data of the demonstration: Omniglot if it can be had, otherwise glyphs drawn from fonts."""

from __future__ import annotations

import http.client
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

from quickstudy.core import DataError
from quickstudy.core.arguments import checked
from quickstudy.recipes import ImageData, Recipe, get_recipe, sources
from quickstudy.tasks import AugmentedSource, PoolSource, TaskSource
from quickstudy.tasks.catalogue import DATASETS
from quickstudy.tasks.datasets import dataset_status, get_dataset, load_pool

__all__ = ["DemoData", "find_data"]

Say = Callable[[str], None]

# about 100 seconds on two cores; a fixed number of steps, not of seconds, so that two runs give the
# same scores
_STEPS = {"omniglot-protonet": 1500, "glyphs-protonet": 1400}
_MOST_SECONDS_TO_ANSWER = 5.0  # of the site that has Omniglot


@dataclass(frozen=True, slots=True)
class DemoData:
    """The recipe and the data of a demonstration.

    Args:
        recipe: encoder, learner and training, with the demonstration's number of steps.
        trained_on: the training data in plain words, for example ``"Omniglot"``.
        train: training episodes.
        train_classes: number of classes that these come from.
        validation: episodes of other classes, which decide which weights are kept.
        unseen: test classes of the same kind.
        unseen_what: the test classes in plain words, for example ``"unseen Omniglot characters"``.
        digits: real handwritten digits.
        facts: hashes of the training data, kept with the run.
    """

    recipe: Recipe
    trained_on: str
    train: TaskSource
    train_classes: int
    validation: PoolSource
    unseen: PoolSource
    unseen_what: str
    digits: PoolSource
    facts: dict[str, str] = field(default_factory=dict)


@checked
def find_data(say: Say) -> DemoData:
    """Return Omniglot if it is found or can be downloaded, rendered glyphs otherwise.

    Args:
        say: is called with sentences that name the data and the reason.

    Raises:
        DataError: if ``QUICKSTUDY_DATA`` is set to something that is not a folder.
    """
    if _omniglot_is_there(say):
        try:
            data = _load("omniglot-protonet")
        except DataError as error:
            say(f"Omniglot cannot be used: {error}")
        else:
            say(f"Meta-training on Omniglot: {data.train_classes:,} classes of handwriting.")
            return data
    say("Meta-training on characters drawn from fonts (the first time, drawing takes a moment).")
    return _load("glyphs-protonet")


def _omniglot_is_there(say: Say) -> bool:
    """Return whether Omniglot is there or could be downloaded; without a network, in seconds."""
    status = dataset_status("omniglot")
    if status.state == "downloadable":
        if not _answers(DATASETS["omniglot"].remote[0].url, _MOST_SECONDS_TO_ANSWER):
            say("Omniglot is not on this machine and its site cannot be reached.")
            return False
        say("Downloading Omniglot (15 MB, once).")
        try:
            status = get_dataset("omniglot")
        except DataError as error:
            say(f"Omniglot cannot be downloaded: {error}")
            return False
    elif status.state == "missing":
        say("Omniglot is not on this machine.")
    return status.state == "found"


def _answers(url: str, seconds: float) -> bool:
    """Return whether an address answers within a time limit that also covers the name look-up."""
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(
                url, method="HEAD", headers={"User-Agent": "quickstudy"}
            )
            with urllib.request.urlopen(request, timeout=seconds):
                answered.set()
        except (OSError, ValueError, http.client.HTTPException):
            return

    # in a thread of its own: a socket's timeout does not limit the look-up of its name
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()


def _load(name: str) -> DemoData:
    """Return the data of a recipe, with the recipe shortened for the demonstration."""
    recipe = get_recipe(name)
    steps = _STEPS[name]
    recipe = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"steps": steps, "log_every": 10})}
    )
    train, validation, facts = sources(recipe)
    data, size = recipe.data, recipe.encoder.image_size
    assert isinstance(data, ImageData)
    unseen = load_pool(data.name, split="test", split_file=data.split_file, size=size)
    drawn = train.source if isinstance(train, AugmentedSource) else train
    # true of both recipes of the demonstration
    assert isinstance(drawn, PoolSource)
    assert isinstance(validation, PoolSource)
    omniglot = data.name == "omniglot"
    return DemoData(
        recipe=recipe,
        trained_on="Omniglot" if omniglot else "characters drawn from fonts",
        train=train,
        train_classes=drawn.pool.n_classes,
        validation=validation,
        unseen=PoolSource(unseen),
        unseen_what="unseen Omniglot characters" if omniglot else "unseen drawn characters",
        digits=PoolSource(load_pool("digits", split="test", size=size)),
        facts=facts,
    )
