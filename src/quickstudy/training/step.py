"""One meta-training step: the loss of a batch of tasks, and the outer optimiser."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.core import ConfigError, Episode
from quickstudy.core.devices import computes_bfloat16
from quickstudy.core.workers import Schedule, in_chunks
from quickstudy.learners.base import EmbeddingLearner, Learner, Roles
from quickstudy.training.config import TrainConfig
from quickstudy.training.roles import every_role

__all__ = [
    "Average",
    "batch_loss",
    "build_optimiser",
    "check_config",
    "chosen_schedule",
    "learning_rate",
    "meta_gradient",
]


def meta_gradient(
    learner: Learner, episode: Episode, config: TrainConfig, *, progress: float
) -> Tensor:
    """Put the meta-gradient into ``.grad`` and return the loss of each task.

    The tasks run in chunks, as the configuration or the learner's own schedule says; the gradients
    of the chunks are added in their order, so that rounding is the same every time.

    Args:
        learner: the learner to train.
        episode: ``T`` tasks.
        config: precision, roles, and tasks at once.
        progress: share of the meta-training that is done, in [0, 1].

    Returns:
        Losses ``[T]`` (``[T * turns]`` with ``roles="every"``), without a graph.
    """
    schedule = chosen_schedule(learner, episode, config)
    if schedule.tasks_at_once >= episode.n_tasks:
        losses = batch_loss(learner, episode, config, progress=progress)
        learner.zero_grad(set_to_none=True)
        losses.mean().backward()
        return losses.detach()

    def chunk_gradient(replica: Learner, tasks: slice) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        losses = batch_loss(replica, episode.tasks(tasks), config, progress=progress)
        # weighted by the chunk's share of the tasks: the sum over chunks is the mean over tasks
        share = len(range(*tasks.indices(episode.n_tasks))) / episode.n_tasks
        wanted = [p for p in replica.parameters() if p.requires_grad]
        return losses.detach(), torch.autograd.grad(
            losses.mean() * share, wanted, allow_unused=True
        )

    chunks = in_chunks(chunk_gradient, learner, episode.n_tasks, schedule)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    for at, parameter in enumerate(parameters):
        parts = [g for _, grads in chunks if (g := grads[at]) is not None]
        parameter.grad = None
        if parts:
            # in the parameter's own layout: a fused optimiser walks both along their memory
            parameter.grad = torch.empty_like(parameter).copy_(torch.stack(parts).sum(0))
    return torch.cat([losses for losses, _ in chunks])


def check_config(learner: Learner, config: TrainConfig) -> None:
    """Refuse settings that a learner cannot be trained with, before anything is written.

    Raises:
        ConfigError: if a setting would be ignored, or would change the result although it should
            not.
    """
    kind, at_once = type(learner).__name__, config.tasks_at_once or config.tasks_per_step
    if config.precision == "bfloat16" and not learner.low_precision:
        raise ConfigError(
            f"{kind} computes its inner loop in float32: in bfloat16 small steps round to zero. "
            "Set precision='float32'."
        )
    if config.roles == "every" and not isinstance(learner, EmbeddingLearner):
        raise ConfigError(
            f"roles='every' embeds an episode once for all its roles, and {kind} adapts the "
            "network to each support, whatever its norm. Set roles='fixed'."
        )
    if config.roles == "every" and learner.encoder.episodic:  # type: ignore[union-attr]
        raise ConfigError(
            "roles='every' needs embeddings that do not depend on the support, and norm='support' "
            "makes them so. Set roles='fixed', or norm='group' or 'batch'."
        )
    if config.roles == "every" and learner.order_sensitive and learner.label_sensitive:
        raise ConfigError(
            f"roles='every' sorts the support by class, and {kind} reads it in order: it would "
            "learn an order that no other task has. Set roles='fixed'."
        )
    _check_own_verbs(learner)
    missing = {"progress"} - signature(learner.training_loss).parameters.keys()
    if missing:
        raise ConfigError(
            f"the training_loss of {kind} takes no progress. Write it as training_loss(self, "
            "episode, *, progress, roles=None)."
        )
    if config.roles == "every" and "roles" not in signature(learner.training_loss).parameters:
        raise ConfigError(
            f"the training_loss of {kind} takes no roles, so roles='every' would be ignored. Give "
            "it the argument, or set roles='fixed'."
        )
    if at_once < config.tasks_per_step and not learner.independent_tasks:
        raise ConfigError(
            "tasks_at_once would change the gradient: batch norm sees all tasks of a step as one "
            "batch. Lower tasks_per_step, or build the encoder with norm='group'."
        )


def _check_own_verbs(learner: Learner) -> None:
    """Refuse a class that writes ``adapt`` or ``predict`` itself on top of one whose training loss
    computes both in its own way: something else would be trained than what answers."""
    if isinstance(learner, EmbeddingLearner):
        return  # its training loss asks whether they were written anew
    for made in type(learner).__mro__:
        if "training_loss" in vars(made):
            return
        own = sorted({"adapt", "predict"} & vars(made).keys())
        inherited = next(m for m in type(learner).__mro__ if "training_loss" in vars(m))
        if own and inherited is not Learner:
            raise ConfigError(
                f"{type(learner).__name__} writes {' and '.join(own)} itself, and the "
                f"training_loss of {inherited.__name__} does not call it, so something else would "
                "be trained than what answers. Write training_loss too: meta_loss(self, episode) "
                "is the loss of the answers."
            )


def chosen_schedule(learner: Learner, episode: Episode, config: TrainConfig) -> Schedule:
    """Return how many tasks of an episode run together, and on how many workers."""
    schedule = learner.schedule(episode)
    if config.tasks_at_once is None:
        return schedule
    return replace(schedule, tasks_at_once=config.tasks_at_once)


def batch_loss(
    learner: Learner, episode: Episode, config: TrainConfig, *, progress: float = 1.0
) -> Tensor:
    """Return the loss of each task ``[T]`` (``[T * turns]`` with ``roles="every"``).

    That is the learner's own :meth:`~quickstudy.learners.Learner.training_loss`, computed in the
    precision and with the roles of the configuration.

    Raises:
        ConfigError: see :func:`check_config`.
    """
    check_config(learner, config)
    device = episode.support.x.device
    bf16 = config.precision == "bfloat16" and computes_bfloat16(device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        if config.roles == "fixed":
            # without the argument: a learner's own training_loss need not take roles
            loss = learner.training_loss(episode, progress=progress)
        else:
            roles: Roles = partial(every_role, k_shot=config.spec.max_shot)
            loss = learner.training_loss(episode, progress=progress, roles=roles)
    _check_loss(learner, loss)
    return loss


def _check_loss(learner: Learner, loss: Any) -> None:
    """Refuse what a training loss of the user's own returns if it is not one number a task."""
    kind, wanted = type(learner).__name__, "one real number for each task, a tensor [T]"
    if not isinstance(loss, Tensor):
        got = f"a {type(loss).__name__}"
    elif loss.ndim != 1 or not loss.is_floating_point():
        got = f"{loss.dtype} {list(loss.shape)}"
    elif torch.is_grad_enabled() and not loss.requires_grad:
        got = "numbers that no parameter has a gradient of"
    else:
        return
    raise ConfigError(f"the training_loss of {kind} returned {got}; it returns {wanted}.")


def build_optimiser(learner: Learner, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the outer optimiser over the meta-parameters.

    Raises:
        ConfigError: if the learner has no parameters.
    """
    parameters = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        raise ConfigError(f"{type(learner).__name__} has no parameters to train.")
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=config.outer_lr,
            momentum=0.9,
            nesterov=True,
            weight_decay=config.weight_decay,
        )
    return torch.optim.AdamW(
        parameters, lr=config.outer_lr, weight_decay=config.weight_decay, fused=True
    )


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the outer learning rate of step ``step`` (0-based).

    It depends on nothing but the step, so that a resumed run needs no state of a scheduler.
    """
    warm = min(1.0, (step + 1) / (config.warmup + 1))
    if config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    elif config.schedule == "halving":
        factor = 0.5 ** (step // config.halve_every)
    else:
        factor = 1.0
    return config.outer_lr * warm * factor


class Average:
    """A running average of weights and buffers (Polyak and Juditsky 1992), warmed up.

    Args:
        target: the copy of the model that holds the average.
        decay: share of the old value in each update. The first updates use a smaller share, so that
            the average soon forgets the untrained weights.
    """

    def __init__(self, target: nn.Module, decay: float) -> None:
        self._target, self._decay = target, decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average with the weights after step ``step`` (1-based)."""
        decay = min(self._decay, step / (step + 10))
        for average, value in self._pairs(model):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    def _pairs(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self._target.state_dict().values(), model.state_dict().values(), strict=True)
