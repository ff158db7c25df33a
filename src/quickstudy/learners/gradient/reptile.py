"""Reptile: move the start towards where training on a task ends."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from quickstudy.core import ConfigError, Episode, Examples
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Roles
from quickstudy.learners.gradient.base import GradientLearner, Task
from quickstudy.learners.gradient.inner import Params, check_finite, clipped
from quickstudy.learners.gradient.options import InnerLoop, StartOptions
from quickstudy.learners.gradient.prepared import leaves_inference_mode, plain_episode

__all__ = ["Reptile"]

_ADAM_BETA2, _ADAM_EPS = 0.999, 1e-8  # the defaults of Adam (Kingma and Ba 2015)


class Reptile(GradientLearner):
    """Trains on a task for a few steps; how far the parameters moved is the meta-gradient.

    Nichol, Achiam and Schulman (2018), "On First-Order Meta-Learning Algorithms", algorithm 2:
    ``theta - phi`` is the gradient that the outer optimiser gets; with plain SGD and learning rate
    1 that is the paper's batched version with step size 1. With one inner step it is joint
    training. Support and query of a training episode are joined: Reptile needs no query.

    *Difference from the paper*: the state of the inner Adam is fresh for each task; minibatches
    hold equally many examples of each class.

    Args:
        net: as in :class:`~quickstudy.learners.gradient.base.GradientLearner`.
        optimiser: of the inner loop: ``"sgd"``, or ``"adam"`` without momentum (beta1 = 0), as the
            paper takes for images.
        minibatches: number of minibatches that a training task is cut into; the inner steps use
            them in turn. 1 = every step sees all examples, as it does where a task cannot be cut
            into parts with equally many examples of each class.
        **options: as in :class:`~quickstudy.learners.gradient.base.GradientLearner`, without
            ``temperature``: there are no prototypes.

    Raises:
        ConfigError: if settings do not fit.

    Example::

        learner = Reptile(Conv4(norm="support"), optimiser="adam")
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        loss = learner.training_loss(episode, progress=0.0)  # [1]
        loss.mean().backward()
    """

    default_inner = InnerLoop(steps=5, lr=0.01)

    @checked
    def __init__(
        self,
        net: nn.Module,
        *,
        optimiser: Literal["sgd", "adam"] = "sgd",
        minibatches: int = 1,
        **options: Unpack[StartOptions],
    ) -> None:
        if "temperature" in options:
            raise TypeError("Reptile takes no temperature: it has no prototypes.")
        super().__init__(net, **options)
        if optimiser not in ("sgd", "adam"):
            raise ConfigError(f"optimiser must be 'sgd' or 'adam'; got {optimiser!r}.")
        if minibatches < 1:
            raise ConfigError(f"minibatches must be at least 1; got {minibatches}.")
        if options.get("head") == "prototype":
            raise ConfigError(
                "Reptile moves the start of the head, and head='prototype' has none. Take 'linear' "
                "or 'shared'."
            )
        if self.inner.memory == "flat":
            raise ConfigError(
                "Reptile keeps no graph of its inner steps, so memory='flat' would change nothing. "
                "Leave memory out."
            )
        self._adam, self._minibatches = optimiser == "adam", minibatches

    def descend(self, task: Task, *, steps: int) -> list[Params]:
        """Return the parameters after plain training on the support."""
        return [self._train([task], steps)[0]]

    @torch.no_grad()
    def _train(self, parts: list[Task], steps: int) -> tuple[Params, Tensor]:
        """Train on the parts in turn; return the parameters and the last step's loss ``[T]``."""
        params = {n: v.detach() for n, v in self.start(parts[0]).items()}
        square = {n: torch.zeros_like(v) for n, v in params.items()} if self._adam else {}
        losses = [parts[0].support.x.new_zeros(len(parts[0].support.y))]
        for k in range(steps):
            task = parts[k % len(parts)]
            leaves = {n: v.requires_grad_() for n, v in params.items()}
            with torch.enable_grad():
                loss = self.support_loss(leaves, (task.support.x,), k, task=task)
                found = torch.autograd.grad(
                    loss.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
                )
            losses.append(loss.detach())
            if self.inner.clip is not None:
                found = clipped(found, self.inner.clip)
            params = {}
            for (name, value), g in zip(leaves.items(), found, strict=True):
                if self._adam:
                    # beta1 = 0: g over the root of the bias-corrected mean of its squares
                    square[name] = torch.lerp(g.square(), square[name], _ADAM_BETA2)
                    size = (square[name] / (1 - _ADAM_BETA2 ** (k + 1))).sqrt() + _ADAM_EPS
                    g = g / size
                params[name] = value.detach() - self.inner.lr * g
        if steps:
            check_finite(losses[1:])
        return params, losses[-1]

    def training_loss(
        self, episode: Episode, *, progress: float, roles: Roles | None = None
    ) -> Tensor:
        """Return each task's last training loss, with ``theta - phi`` as its gradient."""
        if torch.is_inference_mode_enabled():
            with leaves_inference_mode():
                return self.training_loss(plain_episode(episode), progress=progress, roles=roles)
        episode = episode if roles is None else roles(episode)
        with torch.autocast(episode.support.x.device.type, enabled=False):
            joint = _join(episode.support, episode.query)
            parts = [self.prepare(p, episode.n_way) for p in _cut(joint, self._minibatches)]
            after, value = self._train(parts, self.steps)
            # <theta, constant theta - phi>: its gradient by theta is theta - phi
            product = torch.stack(
                [
                    (v * (v.detach() - after[n])).reshape(len(v), -1).sum(1)
                    for n, v in self.start(parts[0]).items()
                ]
            ).sum(0)
        # the value of the loss, with the gradient of the product
        return value + (product - product.detach())


def _join(a: Examples, b: Examples) -> Examples:
    """Concatenate the examples of each task."""
    return Examples(
        torch.cat([a.x, b.x], 1), torch.cat([a.y, b.y], 1), torch.cat([a.mask, b.mask], 1)
    )


def _cut(examples: Examples, parts: int) -> list[Examples]:
    """Cut tasks into parts with equally many examples of each class; return one part, all of it,
    where that is impossible."""
    n = examples.y.shape[1]
    if parts == 1 or n % parts or not bool(examples.mask.all()):
        return [examples]
    if examples.y.is_floating_point():
        rank = torch.arange(n, device=examples.y.device).expand_as(examples.y)
    else:
        same = examples.y[:, :, None] == examples.y[:, None]  # [T, N, N]
        rank = same.tril(-1).sum(2)  # [T, N]: how many examples of its class stand before it
    # example r of a class goes to part r mod parts
    order = torch.argsort(rank % parts, dim=1, stable=True)
    size = torch.bincount((rank % parts).flatten(), minlength=parts)
    if bool((size != size[0]).any()) or bool(((rank % parts) == 0).sum(1).ne(n // parts).any()):
        return [examples]
    task = torch.arange(len(order), device=order.device)[:, None]
    cut = []
    for rows in order.split(n // parts, dim=1):
        x, y = examples.x[task, rows], examples.y[task, rows]
        cut.append(Examples(x, y, torch.ones_like(examples.mask[:, : n // parts])))
    return cut
