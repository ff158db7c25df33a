"""Prototypical Networks (Snell, Swersky and Zemel 2017)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, Examples, TaskState, check_state
from quickstudy.learners.base import EmbeddingLearner, Learner
from quickstudy.nets import Encoder

__all__ = ["PrototypeHead", "PrototypicalNetwork", "class_weights", "squared_distance"]


def class_weights(y: Tensor, mask: Tensor, n_way: int) -> tuple[Tensor, Tensor]:
    """Return one-hot labels without padding, and which classes have support.

    Args:
        y: labels ``[T, S]``.
        mask: ``[T, S]``, ``False`` = padding.
        n_way: number of classes ``C``.

    Returns:
        Weights bool ``[T, S, C]`` and presence bool ``[T, C]``.
    """
    members = (y[..., None] == torch.arange(n_way, device=y.device)) & mask[..., None]  # [T, S, C]
    return members, members.any(1)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return squared Euclidean distances of ``[T, Q, D]`` and ``[T, C, D]`` as ``[T, Q, C]``."""
    cross = a @ b.transpose(1, 2)
    return a.square().sum(2)[..., None] + b.square().sum(2)[:, None] - 2 * cross


class PrototypeHead(Learner):
    """A class is the mean of its support embeddings; a query belongs to the nearest mean.

    Args:
        distance: ``"euclidean"`` (squared, as in the paper) or ``"cosine"``.
        temperature: logits are ``-distance / temperature``; 1 for squared distances, 0.1 for
            cosines if not given.
        learn_temperature: whether meta-training adjusts the temperature.

    Raises:
        ConfigError: if the distance is unknown or the temperature not positive.
    """

    def __init__(
        self,
        *,
        distance: str = "euclidean",
        temperature: float | None = None,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        if distance not in ("euclidean", "cosine"):
            raise ConfigError(f"distance must be 'euclidean' or 'cosine'; got {distance!r}.")
        start = (
            temperature if temperature is not None else (1.0 if distance == "euclidean" else 0.1)
        )
        if not start > 0:
            raise ConfigError(f"temperature must be positive; got {start}.")
        self.distance = distance
        # in logs, so that it stays positive; float32 like any parameter
        log_scale = torch.tensor(-math.log(start))
        if learn_temperature:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``prototypes`` ``[T, C, D]`` (equation 1) and ``present`` bool ``[T, C]``."""
        support.check_labels(n_way)
        members, present = class_weights(support.y, support.mask, n_way)
        z = F.normalize(support.x, dim=2) if self.distance == "cosine" else support.x
        weights = members.to(z.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1)  # [T, S, C]
        prototypes = weights.transpose(1, 2) @ z  # [T, C, S] @ [T, S, D] -> [T, C, D]
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
            logits = -squared_distance(x, prototypes)
        logits = logits * self.log_scale.exp().to(logits.dtype)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)


class PrototypicalNetwork(EmbeddingLearner):
    """An encoder with a prototype head.

    Snell, Swersky and Zemel (2017), "Prototypical Networks for Few-shot Learning", section 2.

    Args:
        encoder: inputs to embeddings.
        distance: ``"euclidean"`` (squared) or ``"cosine"``.
        temperature: see :class:`PrototypeHead`.
        learn_temperature: whether meta-training adjusts the temperature.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        distance: str = "euclidean",
        temperature: float | None = None,
        learn_temperature: bool = False,
    ) -> None:
        head = PrototypeHead(
            distance=distance, temperature=temperature, learn_temperature=learn_temperature
        )
        super().__init__(encoder, head)
