"""Which data a run has been exposed to: in training, in validation, in the choice of weights."""

from __future__ import annotations

from quickstudy.recipes.data import domain_split
from quickstudy.recipes.schema import Recipe
from quickstudy.tasks.catalogue import DATASETS, same_images
from quickstudy.tasks.datasets import DataPart

__all__ = ["chose_domain", "chosen_on", "trained_on"]


def trained_on(recipe: Recipe, judged: DataPart) -> bool:
    """Return whether a run was trained or validated on a class that it is to be judged on.

    Args:
        recipe: of the run.
        judged: the data set and part that it is to be judged on.
    """
    return any(
        DataPart(part.name, split, part.split_file).overlaps(judged)
        for part in recipe.data.parts
        if part.name in DATASETS
        for split in (part.train, part.validation)
    )


def chosen_on(recipe: Recipe, judged: DataPart) -> bool:
    """Return whether the weights of a run were chosen by their score on one of these classes."""
    judge = recipe.train.validation.choose_by
    return judge in DATASETS and DataPart(judge, domain_split(judge)).overlaps(judged)


def chose_domain(recipe: Recipe, name: str) -> bool:
    """Return whether the weights of a run were chosen by their score on images of this data set.

    If so, the data set is not a novel domain for the run, whichever classes were used.
    """
    return same_images(recipe.train.validation.choose_by, name)
