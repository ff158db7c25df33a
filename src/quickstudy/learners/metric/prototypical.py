"""Prototypical Networks (Snell, Swersky and Zemel 2017)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, Examples, TaskState, check_state
from quickstudy.learners.base import EmbeddingLearner, LeavesOneOut
from quickstudy.nets import Encoder

__all__ = [
    "PrototypeHead",
    "PrototypicalNetwork",
    "check_distance",
    "class_weights",
    "set_temperature",
    "squared_distance",
]


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


def check_distance(distance: str) -> None:
    """Raise :class:`ConfigError` if a distance is neither ``"euclidean"`` nor ``"cosine"``."""
    if distance not in ("euclidean", "cosine"):
        raise ConfigError(f"distance must be 'euclidean' or 'cosine'; got {distance!r}.")


def set_temperature(module: nn.Module, temperature: float, *, learn: bool) -> None:
    """Give a module ``log_scale``, the logarithm of one over its temperature.

    Args:
        module: gets a parameter, or a buffer if it is not learned.
        temperature: positive.
        learn: whether meta-training adjusts it.

    Raises:
        ConfigError: if the temperature is not positive.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature must be positive; got {temperature}.")
    # in logs, so that it stays positive; float32 like any parameter
    log_scale = torch.tensor(-math.log(temperature))
    if learn:
        module.register_parameter("log_scale", nn.Parameter(log_scale))
    else:
        module.register_buffer("log_scale", log_scale)


class PrototypeHead(LeavesOneOut):
    """A class is the mean of its support embeddings; a query belongs to the nearest mean.

    *Difference from the paper*: with ``shrinkage``, the mean of ``n`` examples is drawn towards the
    mean of the task's prototypes as if ``shrinkage`` more examples lay there: ``(n c + s m) / (n +
    s)``. That is the posterior mean under a Gaussian prior around ``m`` (Efron and Morris 1977,
    "Stein's paradox in statistics"); it matters where the shots are uneven. 0 is the paper's.

    Args:
        distance: ``"euclidean"`` (squared, as in the paper) or ``"cosine"``.
        temperature: logits are ``-distance / temperature``; 1 for squared distances, 0.1 for
            cosines if not given.
        learn_temperature: whether meta-training adjusts the temperature.
        shrinkage: weight of the mean prototype, in examples, at least 0.

    Raises:
        ConfigError: if the distance is unknown, the temperature not positive or the shrinkage
            negative.
    """

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
        if not shrinkage >= 0:
            raise ConfigError(f"shrinkage must be at least 0; got {shrinkage}.")
        self.distance = distance
        self.shrinkage = shrinkage

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``prototypes`` ``[T, C, D]`` (equation 1) and ``present`` bool ``[T, C]``."""
        support.check_labels(n_way)
        members, present = class_weights(support.y, support.mask, n_way)
        prototypes = self._means(self._inputs(support.x), members)
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
            logits = -squared_distance(x, prototypes)
        logits = logits * self.log_scale.exp().to(logits.dtype)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)

    def leave_one_out(self, support: Examples, *, n_way: int) -> Tensor:
        """Without example ``i`` only its own mean moves, and with shrinkage the centre with it."""
        support.check_labels(n_way)
        z = self._inputs(support.x).masked_fill(~support.mask[..., None], 0)
        members, present = class_weights(support.y, support.mask, n_way)
        means, n = self._means(z, members), members.sum(1, dtype=z.dtype)  # [T, C, D], [T, C]
        own = support.y.clamp(0, n_way - 1)[..., None]  # [T, S, 1]
        mine = means.gather(1, own.expand(-1, -1, z.shape[2]))  # [T, S, D]
        left = n.gather(1, own[..., 0])[..., None] - 1  # [T, S, 1]: examples left in its class
        without = torch.where(left > 0, mine + (mine - z) / left.clamp(min=1), 0.0)
        # what stands where the class's prototype stood, for each example: [T, S, C]
        is_own = F.one_hot(own[..., 0], n_way).bool()
        gone = is_own & (left <= 0)
        kept = n[:, None] - is_own.to(n.dtype)  # [T, S, C]
        share = kept / (kept + self.shrinkage).clamp(min=torch.finfo(n.dtype).tiny)
        classes = (present[:, None] & ~gone).sum(2, keepdim=True, dtype=n.dtype)
        total = torch.where(present[..., None], means, 0.0).sum(1, keepdim=True)
        centre = (total - mine + without) / classes.clamp(min=1)  # [T, S, D]

        def products(a: Tensor) -> Tensor:
            """Return the products of one vector per example with the means it sees: [T, S, C]."""
            own_product = (a * without).sum(2, keepdim=True)
            return torch.where(is_own, own_product, a @ means.transpose(1, 2))

        squares = torch.where(
            is_own, without.square().sum(2, keepdim=True), means.square().sum(2)[:, None]
        )
        z_p = share * products(z) + (1 - share) * (z * centre).sum(2, keepdim=True)
        p_p = share.square() * squares + 2 * share * (1 - share) * products(centre)
        p_p = p_p + (1 - share).square() * centre.square().sum(2, keepdim=True)
        if self.distance == "cosine":
            # z has length 1 already; F.normalize's own floor
            logits = z_p / p_p.clamp(min=0).sqrt().clamp(min=1e-12)
        else:
            logits = 2 * z_p - p_p - z.square().sum(2, keepdim=True)
        logits = logits * self.log_scale.exp().to(logits.dtype)
        return logits.masked_fill(~present[:, None] | gone, -torch.inf)

    def _inputs(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=2) if self.distance == "cosine" else x

    @staticmethod
    def _means(z: Tensor, members: Tensor) -> Tensor:
        weights = members.to(z.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1)  # [T, S, C]
        return weights.transpose(1, 2) @ z  # [T, C, S] @ [T, S, D] -> [T, C, D]


def _mean_of_present(prototypes: Tensor, present: Tensor) -> Tensor:
    """Return the mean of the prototypes that there are, ``[T, C, D] -> [T, 1, D]``."""
    weights = present.to(prototypes.dtype)[..., None]
    return (prototypes * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)


class PrototypicalNetwork(EmbeddingLearner):
    """An encoder with a prototype head.

    Snell, Swersky and Zemel (2017), "Prototypical Networks for Few-shot Learning", section 2.

    Args:
        encoder: inputs to embeddings.
        distance: ``"euclidean"`` (squared) or ``"cosine"``.
        temperature: see :class:`PrototypeHead`.
        learn_temperature: whether meta-training adjusts the temperature.
        shrinkage: see :class:`PrototypeHead`.
    """

    def __init__(
        self,
        encoder: Encoder,
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
