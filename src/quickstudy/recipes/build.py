"""Builds the objects that a recipe describes: learner, sources, domains."""

from __future__ import annotations

import torch

from quickstudy.core import CheckpointError, ConfigError, QuickstudyError, generator
from quickstudy.core.arguments import checked
from quickstudy.core.imports import own_code_failed
from quickstudy.learners.base import Learner
from quickstudy.nets import Encoder
from quickstudy.recipes.base import LearnerConfig
from quickstudy.recipes.data import Sources
from quickstudy.recipes.encoders import EncoderConfig, build_encoder
from quickstudy.recipes.schema import Recipe
from quickstudy.tasks import TaskSource

__all__ = ["build_learner", "domains", "encoder_of", "sources"]


@checked
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
        return _built(learner, build_encoder(encoder), n_way)
    finally:
        torch.set_rng_state(state)


def _built(config: LearnerConfig, net: Encoder, n_way: int) -> Learner:
    """Build the learner; what goes wrong in a user's own ``build`` is said to be theirs."""
    if type(config).__module__.startswith("quickstudy."):
        return config.build(net, n_way=n_way)
    what = f"{type(config).__name__}.build"
    try:
        made = config.build(net, n_way=n_way)
    except (QuickstudyError, NotImplementedError) as error:
        raise ConfigError(f"{what}: {str(error).rstrip('.')}. Mend it.") from error
    except Exception as error:
        raise own_code_failed(what, "was called with the encoder and n_way", error) from error
    if not isinstance(made, Learner):
        raise ConfigError(
            f"{what} returned {type(made).__name__}; it must return a quickstudy.learners.Learner."
        )
    return made


@checked
def sources(recipe: Recipe) -> Sources:
    """Return the training source, the validation source and facts about the data."""
    return recipe.data.sources(recipe.encoder, seed=recipe.train.seed)


@checked
def domains(recipe: Recipe) -> tuple[dict[str, TaskSource], dict[str, str]]:
    """Return the domains that are followed in training, by name, and facts about their data.

    Raises:
        ConfigError: if a domain is unknown, or holds the images that are trained on.
    """
    return recipe.data.domains(recipe.train.validation.domains, recipe.encoder)


@checked
def encoder_of(learner: Learner) -> Encoder:
    """Return the encoder inside a learner that was built from a recipe.

    Raises:
        CheckpointError: if the learner has none.
    """
    encoders = [m for m in learner.modules() if isinstance(m, Encoder)]
    if not encoders:
        raise CheckpointError(f"{type(learner).__name__} has no encoder to start from.")
    return encoders[0]
