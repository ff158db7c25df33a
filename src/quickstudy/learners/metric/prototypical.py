"""Prototypical Networks (Snell, Swersky and Zemel 2017)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, Examples, TaskState, check_state
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_at_least, check_positive
from quickstudy.learners.base import EmbeddingLearner, Family, Learner
from quickstudy.learners.classes import (
    class_means,
    class_weights,
    squared_distance,
    without_padding,
)
from quickstudy.nets import Encoder

__all__ = [
    "PrototypeHead",
    "PrototypicalNetwork",
    "check_distance",
    "set_temperature",
]


# entries of one task's one-hot labels, examples times classes: above this they are mostly zeros,
# and the means are summed class by class instead of by a matrix product
_LARGEST_ONE_HOT = 50_000


@checked
def check_distance(distance: str) -> None:
    """Raise :class:`ConfigError` if a distance is neither ``"euclidean"`` nor ``"cosine"``."""
    if distance not in ("euclidean", "cosine"):
        raise ConfigError(f"distance must be 'euclidean' or 'cosine'; got {distance!r}.")


@checked
def set_temperature(module: nn.Module, temperature: float, *, learn: bool) -> None:
    """Give a module ``log_scale``, the logarithm of one over its temperature.

    Args:
        module: gets a parameter, or a buffer if it is not learned.
        temperature: logits are divided by it; positive.
        learn: whether meta-training adjusts it.

    Raises:
        ConfigError: if the temperature is not positive.
    """
    check_positive(temperature=temperature)
    # the logarithm, so that the temperature stays positive; float32 like any parameter
    log_scale = torch.tensor(-math.log(temperature))
    if learn:
        module.register_parameter("log_scale", nn.Parameter(log_scale))
    else:
        module.register_buffer("log_scale", log_scale)


@checked
class PrototypeHead(Learner):
    """A class is the mean of its support embeddings; a query belongs to the nearest mean.

    *Difference from the paper*: ``shrinkage`` shrinks the mean of ``n`` examples towards the mean
    of the task's prototypes, as if ``shrinkage`` more examples lay there: ``(n c + s m) / (n +
    s)``. That is the posterior mean under a Gaussian prior around ``m`` (Efron and Morris 1977,
    "Stein's paradox in statistics"); it matters where the shots are uneven. 0 is the paper's.

    Args:
        distance: ``"euclidean"`` (squared, as in the paper) or ``"cosine"``.
        temperature: logits are ``-distance / temperature``; 1 for squared distances, 0.1 for
            cosines if not given.
        learn_temperature: whether meta-training adjusts the temperature.
        shrinkage: how many examples the mean prototype counts for, at least 0.

    Raises:
        ConfigError: if the distance is unknown, the temperature not positive or the shrinkage
            negative.

    Example::

        head = PrototypeHead(distance="cosine")
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "metric"

    log_scale: Tensor

    def __init__(
        self,
        *,
        distance: str = "euclidean",
        temperature: float | None = None,
        learn_temperature: bool = False,
        shrinkage: float = 0.0,
    ) -> None:
        super().__init__()
        check_distance(distance)
        if temperature is None:
            temperature = 1.0 if distance == "euclidean" else 0.1
        set_temperature(self, temperature, learn=learn_temperature)
        check_at_least(0, shrinkage=shrinkage)
        self.distance = distance
        self.shrinkage = shrinkage

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``prototypes`` ``[T, C, D]`` (equation 1) and ``present`` bool ``[T, C]``."""
        support.check_labels(n_way)
        support = without_padding(support)
        members, present = class_weights(support.y, support.mask, n_way)
        z = self._inputs(support.x)
        if members[0].numel() > _LARGEST_ONE_HOT:
            prototypes = class_means(z, support.y, support.mask, n_way)
        else:
            prototypes = self._means(z, members)
        if self.shrinkage:
            n = members.sum(1, dtype=prototypes.dtype)[..., None]  # [T, C, 1]
            centre = _mean_of_present(prototypes, present)  # [T, 1, D]
            prototypes = torch.lerp(centre, prototypes, n / (n + self.shrinkage))
        return {"prototypes": prototypes, "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return ``-distance / temperature`` ``[T, Q, C]`` (equation 2)."""
        shapes = {"prototypes": (None, x.shape[-1]), "present": (None,)}
        check_state(state, shapes, learner=type(self).__name__, tasks=len(x), more=True)
        prototypes = state["prototypes"]
        if self.distance == "cosine":
            logits = F.normalize(x, dim=2) @ F.normalize(prototypes, dim=2).transpose(1, 2)
        else:
            # squared distance: keeps the classifier linear in the embedding (section 2.4)
            logits = -squared_distance(x, prototypes, state["present"])
        logits = logits * self.log_scale.exp().to(logits.dtype)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)

    def _inputs(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=2) if self.distance == "cosine" else x

    @staticmethod
    def _means(z: Tensor, members: Tensor) -> Tensor:
        weights = members.to(z.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1)  # [T, S, C]
        return weights.transpose(1, 2) @ z  # [T, C, S] @ [T, S, D] -> [T, C, D]


def _mean_of_present(prototypes: Tensor, present: Tensor) -> Tensor:
    """Return the mean prototype of the classes with support, ``[T, C, D] -> [T, 1, D]``."""
    weights = present.to(prototypes.dtype)[..., None]
    return (prototypes * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)


@checked
class PrototypicalNetwork(EmbeddingLearner):
    """An encoder with a prototype head.

    Snell, Swersky and Zemel (2017), "Prototypical Networks for Few-shot Learning", section 2.

    Args:
        encoder: inputs to embeddings; another module becomes a
            :class:`~quickstudy.nets.ModuleEncoder`.
        distance: ``"euclidean"`` (squared) or ``"cosine"``.
        temperature: see :class:`PrototypeHead`.
        learn_temperature: whether meta-training adjusts the temperature.
        shrinkage: see :class:`PrototypeHead`.

    Example::

        learner = PrototypicalNetwork(Conv4())
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module,
        *,
        distance: str = "euclidean",
        temperature: float | None = None,
        learn_temperature: bool = False,
        shrinkage: float = 0.0,
    ) -> None:
        head = PrototypeHead(
            distance=distance,
            temperature=temperature,
            learn_temperature=learn_temperature,
            shrinkage=shrinkage,
        )
        super().__init__(encoder, head)
