"""A run that starts from the encoder of another run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from quickstudy.core import CheckpointError
from quickstudy.learners import Learner
from quickstudy.recipes.build import encoder_of
from quickstudy.recipes.encoders import EncoderConfig
from quickstudy.recipes.schema import Recipe
from quickstudy.runs.folder import load_run
from quickstudy.storage.tensors import load_weights

__all__ = ["check_start", "load_start"]


def check_start(recipe: Recipe, theirs: Recipe, folder: Path) -> None:
    """Refuse to start from a run of another recipe, encoder or split.

    Args:
        recipe: of the learner that is to start.
        theirs: recipe of the run to start from.
        folder: of that run.

    Raises:
        CheckpointError: if something differs but the norm and the data set; the error says what.
            A data set that both use must be split alike, or the start may have been trained on
            classes that are tested here.
    """
    # name of a setting -> (theirs, ours)
    pairs: dict[str, tuple[Any, Any]] = {"name": (theirs.name, recipe.start or theirs.name)}
    for part in EncoderConfig.model_fields.keys() - {"norm"}:
        pairs[f"encoder.{part}"] = (getattr(theirs.encoder, part), getattr(recipe.encoder, part))
    for their in theirs.data.parts:
        for ours in recipe.data.parts:
            if their.name != ours.name:
                continue
            for part in ("split_file", "train"):
                pairs[f"data.{part}"] = (getattr(their, part), getattr(ours, part))
            if ours.files is not None and their.files is not None:
                pairs["data.files.parts"] = (their.files.parts, ours.files.parts)
    differ = [f"{n} is {a!r}, not {b!r}" for n, (a, b) in sorted(pairs.items()) if a != b]
    if differ:
        raise CheckpointError(
            f"{recipe.name} cannot start from {folder}: {'; '.join(differ)}. Train {recipe.start} "
            f"with these settings into another folder (out=ELSEWHERE/{recipe.start}) and name an "
            "out= beside it, or set start=null."
        )


def load_start(learner: Learner, recipe: Recipe, folder: Path) -> dict[str, str]:
    """Give a learner the encoder weights of a finished run.

    Running averages of batch norm are copied if the learner uses such averages too.

    Args:
        learner: the learner whose encoder gets the weights, in place.
        recipe: of the learner.
        folder: of the run to start from.

    Returns:
        Facts about the start, for the manifest: a hash of the weights.

    Raises:
        CheckpointError: if there is no finished run, or it does not fit; see :func:`check_start`.
    """
    run = load_run(folder)
    check_start(recipe, run.recipe, folder)
    wanted = encoder_of(learner).state_dict()
    weights = {
        name: value
        for name, value in encoder_of(run.learner).state_dict().items()
        if name in wanted or not name.rsplit(".", 1)[-1].startswith("running_")
    }
    load_weights(encoder_of(learner), weights, where=str(folder))
    hasher = hashlib.sha256()
    for name in sorted(weights):
        hasher.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return {"start": hasher.hexdigest()}
