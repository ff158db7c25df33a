"""Builds the objects that a recipe describes: learner, sources, domains."""

from __future__ import annotations

import torch

from quickstudy.core import CheckpointError, generator
from quickstudy.learners.base import Learner
from quickstudy.nets import Encoder
from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.data import Sources
from quickstudy.recipes.encoders import EncoderConfig, build_encoder
from quickstudy.recipes.schema import Recipe
from quickstudy.tasks import TaskSource

__all__ = ["build_learner", "domains", "encoder_of", "sources"]


def build_learner(
    encoder: EncoderConfig, learner: LearnerConfig, *, seed: int, n_way: int = 5
) -> Learner:
    """Return the learner of a configuration; its weights depend on the seed alone.

    Args:
        encoder: the network.
        learner: the learner that uses or adapts it.
        seed: of the weights.
        n_way: largest number of classes in a task, for a head with initial weights for each class;
            see :attr:`Recipe.n_way`.
    """
    state = torch.get_rng_state()
    # layers draw their weights from the global generator: seed it, and put it back afterwards
    torch.set_rng_state(generator(seed, 0).get_state())
    try:
        return learner.build(build_encoder(encoder), n_way=n_way)
    finally:
        torch.set_rng_state(state)


def sources(recipe: Recipe) -> Sources:
    """Return the training source, the validation source and facts about the data."""
    return recipe.data.sources(recipe.encoder, seed=recipe.train.seed)


def domains(recipe: Recipe) -> tuple[dict[str, TaskSource], dict[str, str]]:
    """Return the domains that are followed in training, by name, and facts about their data.

    Raises:
        ConfigError: if a domain is unknown, or holds the images that are trained on.
    """
    return recipe.data.domains(recipe.train.validation.domains, recipe.encoder)


def encoder_of(learner: Learner) -> Encoder:
    """Return the encoder inside a learner that was built from a recipe.

    Raises:
        CheckpointError: if the learner has none.
    """
    encoders = [m for m in learner.modules() if isinstance(m, Encoder)]
    if not encoders:
        raise CheckpointError(f"{type(learner).__name__} has no encoder to start from.")
    return encoders[0]
