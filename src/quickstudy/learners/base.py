"""The contract of every learner: ``adapt(support) -> state``, ``predict(state, x) -> logits``."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, Episode, Examples, TaskError, TaskState, slice_tasks
from quickstudy.core.arguments import checked
from quickstudy.core.workers import Schedule
from quickstudy.learners.predictive import Gaussian
from quickstudy.nets import BatchNorm, Encoder, as_encoder

__all__ = [
    "EmbeddingLearner",
    "Family",
    "Learner",
    "Roles",
    "check_queries",
    "mean_loss",
    "meta_loss",
    "predict_queries",
    "query_logits",
]

_STATISTICS_PREFIX = "encoder."

Family = Literal["metric", "gradient", "memory", "in-context", "baseline", "other"]
"""How a learner learns a task, as tables show it: by distances, by gradient steps, by reading the
support into a memory, by attending to it, or (a baseline) without any meta-learning."""

Roles = Callable[[Episode], Episode]
"""Lets other examples of an episode be its support, see :func:`quickstudy.training.every_role`."""


class Learner(nn.Module, ABC):
    """A module that learns tasks. It holds meta-parameters only: what it learns of a task is in the
    state that ``adapt`` returns, and neither ``adapt`` nor ``predict`` changes ``self``.

    Example::

        learner = PrototypicalNetwork(Conv4())
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
    """

    family: Family = "other"
    """Printed beside every number in a comparison."""

    transductive: bool = False
    """True only if ``predict`` looks at the other queries; printed beside every number."""

    order_sensitive: bool = False
    """True only if the order of the support examples changes the state."""

    label_sensitive: bool = False
    """True only if renaming the labels changes more than the names of the predictions."""

    independent_tasks: bool = True
    """Whether no task's loss depends on another task: then training may split a batch of tasks."""

    low_precision: bool = True
    """Whether meta-training may run in bfloat16."""

    built_with: Mapping[str, Any]
    """The arguments that the learner was built with, by name; the network is one of them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the arguments, so that the learner can be saved and built again."""
        made = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(made, *args, **kwargs)
        except (TypeError, ValueError):  # __init__ says what is wrong with them
            return made
        names = list(bound.signature.parameters.values())[1:]
        given = {p.name: bound.arguments[p.name] for p in names if p.name in bound.arguments}
        for more in [p.name for p in names if p.kind is p.VAR_KEYWORD and p.name in given]:
            given |= given.pop(more)
        # past nn.Module, which would take the network for a layer of its own
        object.__setattr__(made, "built_with", given)
        return made

    divergence_advice: str = ""
    """What to change, beside the outer settings, if the training loss stops being finite."""

    @abstractmethod
    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Learn ``T`` tasks from their support sets.

        Args:
            support: examples ``[T, S, ...]``; padding and absent classes are allowed.
            n_way: number of classes ``C``; 1 for regression.

        Returns:
            What was learned, every tensor with the leading axis ``T``.

        Raises:
            TaskError: if a label lies outside ``[0, n_way)``.
        """

    @abstractmethod
    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logits of queries, each judged on its own unless ``transductive``.

        Args:
            state: what :meth:`adapt` returned for these ``T`` tasks.
            x: queries ``[T, Q, ...]``.

        Returns:
            Logits ``[T, Q, C]``, minus infinity for classes without support; for regression, values
            ``[T, Q, 1]``.
        """

    def predictive(self, state: TaskState, x: Tensor) -> Gaussian | None:  # noqa: ARG002
        """Return what the learner says of the targets of queries, in regression.

        Args:
            state: what :meth:`adapt` returned for these ``T`` tasks.
            x: queries ``[T, Q, ...]``.

        Returns:
            A Gaussian whose mean is what :meth:`predict` returns, or ``None`` if the learner gives
            no standard deviation. Then :func:`quickstudy.evaluation.predictive` estimates one.
        """
        return None

    def schedule(self, episode: Episode) -> Schedule:
        """Return how many tasks of an episode to run at once: all, unless a family overrides it."""
        return Schedule(episode.n_tasks)

    def training_loss(
        self,
        episode: Episode,
        *,
        progress: float,  # noqa: ARG002
        roles: Roles | None = None,
    ) -> Tensor:
        """Return what meta-training minimises, one number for each task ``[T]``.

        Training minimises this function, and :func:`quickstudy.testing.check_meta_gradient`
        certifies its gradient. A learner with another loss, or with further terms, overrides it.

        Args:
            episode: ``T`` tasks.
            progress: share of the meta-training that is done, from 0 to 1.
            roles: exchanges support and query examples before the loss is taken; it may return more
                than ``T`` tasks. ``None`` = as they were drawn.

        Raises:
            TaskError: if a query is of a class without support: no learner can give it a
                probability above zero, so its loss would be infinite.
        """
        episode = episode if roles is None else roles(episode)
        check_queries(episode)
        return meta_loss(self, episode)

    # -------------------------------------------------- other ways to judge the same weights

    def inductive(self) -> Self:
        """Return a learner on the same weights that judges each query alone: this one, or a twin of
        it where this one judges all queries together."""
        return self

    def transductive_twin(self) -> Self | None:
        """Return a twin on the same weights that judges all queries together, or ``None`` if the
        learner has no such mode."""
        return None

    def inner_steps_at_test(self) -> int | None:
        """Gradient steps on a support set, outside training; ``None`` = no inner loop."""
        return None

    def with_inner_steps(self, steps: int) -> Self:
        """Return a twin on the same weights that takes ``steps`` inner steps outside training.

        Raises:
            ConfigError: if the learner has no inner loop.
        """
        raise ConfigError(
            f"{type(self).__name__} has no inner loop; got inner steps={steps}. Leave it out."
        )


@checked
class EmbeddingLearner(Learner):
    """A learner made of an encoder and a head that learns from embeddings.

    The head is a learner itself, on inputs ``[T, N, D]``. This is what lets evaluation embed a pool
    once and score thousands of episodes on cached embeddings, and lets the service change a head
    without touching the encoder.

    Args:
        encoder: inputs to embeddings; another module becomes a
            :class:`~quickstudy.nets.ModuleEncoder`.
        head: learns tasks from embeddings.

    Example::

        learner = EmbeddingLearner(Conv4(), RidgeHead())
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        embedded = learner.embed_episode(episode)
        embedded.query.x  # [1, 75, 64]
        logits = learner.predict(learner.adapt(episode.support, n_way=5), episode.query.x)
    """

    def __init__(self, encoder: Encoder | nn.Module, head: Learner) -> None:
        super().__init__()
        self.encoder = as_encoder(encoder)
        self.head = head
        # what a class of the user's own declares is kept
        own = type(self)
        self.family = head.family if own.family == "other" else own.family
        self.transductive = own.transductive or head.transductive
        self.order_sensitive = own.order_sensitive or head.order_sensitive
        self.label_sensitive = own.label_sensitive or head.label_sensitive
        self.independent_tasks = own.independent_tasks and not any(
            isinstance(m, BatchNorm | nn.modules.batchnorm._BatchNorm) for m in encoder.modules()
        )
        self._tracks = False

    @property
    def embeds_once(self) -> bool:
        """Whether an example has one embedding in all tasks, and the head alone makes the answers
        of it: then examples may be embedded once, and the head be asked instead of the learner.

        Not with an encoder that uses the statistics of the support, nor in a class of your own that
        writes ``adapt`` or ``predict`` itself.
        """
        return not self.encoder.episodic and self._answers_by_head()

    def _answers_by_head(self) -> bool:
        return all(
            # also where one was put on the object: that is no method, so it has no __func__
            getattr(getattr(self, name), "__func__", None) is getattr(EmbeddingLearner, name)
            for name in ("adapt", "predict", "predictive", "_encode")
        )

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Embed the support set and let the head learn from it."""
        support.check_labels(n_way)
        z, stats = self._encode(support.x, support.mask)  # [T, S, ...] -> [T, S, D]
        with torch.autocast(z.device.type, enabled=False):
            state = self.head.adapt(Examples(z, support.y, support.mask), n_way=n_way)
        return state | {_STATISTICS_PREFIX + name: value for name, value in stats.items()}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Embed the queries, normalised with the support's statistics if the state holds any, and
        return the head's logits."""
        rest, z = self._embedded_queries(state, x)
        with torch.autocast(z.device.type, enabled=False):
            return self.head.predict(rest, z)

    def predictive(self, state: TaskState, x: Tensor) -> Gaussian | None:
        """Embed the queries and return what the head says; ``None`` in a class of your own that
        writes ``adapt`` or ``predict`` itself, whose answers are not the head's."""
        if not self._answers_by_head():
            return None
        rest, z = self._embedded_queries(state, x)
        with torch.autocast(z.device.type, enabled=False):
            return self.head.predictive(rest, z)

    def _embedded_queries(self, state: TaskState, x: Tensor) -> tuple[TaskState, Tensor]:
        """Return the head's part of a state, and embedded queries ``[T, Q, ...] -> [T, Q, D]``."""
        stats = {
            n.removeprefix(_STATISTICS_PREFIX): v
            for n, v in state.items()
            if n.startswith(_STATISTICS_PREFIX)
        }
        z, _ = self._encode(x, stats=stats or None)
        return {n: v for n, v in state.items() if not n.startswith(_STATISTICS_PREFIX)}, z

    def embed_episode(self, episode: Episode, *, track: bool = False) -> Episode:
        """Return the episode with embeddings as inputs; support and query are encoded together.

        In training mode both are one batch for batch norm, as in Snell et al.'s code. An episodic
        encoder needs the support first, so this does not suit it.

        Args:
            episode: ``T`` tasks.
            track: update the encoder's running statistics.
        """
        s, q = episode.support, episode.query
        x = torch.cat([s.x, q.x], 1)  # [T, S+Q, ...]
        z, _ = self._encode(x, torch.cat([s.mask, q.mask], 1), track=track)
        zs, zq = z.split([s.x.shape[1], q.x.shape[1]], dim=1)
        return Episode(
            Examples(zs, s.y, s.mask), Examples(zq, q.y, q.mask), episode.n_way, episode.info
        )

    def training_loss(
        self, episode: Episode, *, progress: float, roles: Roles | None = None
    ) -> Tensor:
        """Return the head's training loss on embeddings; support and query are embedded in one
        pass, and examples change their roles afterwards, so that each is embedded once.

        The head computes in float32 also where the encoder runs in bfloat16. An encoder that uses
        the statistics of the support embeds each side on its own, as in ``adapt`` and ``predict``;
        so does a class that writes one of these itself, as the loss is that of its own answers.
        """
        if not self.embeds_once:
            self._tracks = not self.encoder.episodic
            try:
                return super().training_loss(episode, progress=progress, roles=roles)
            finally:
                self._tracks = False
        embedded = self.embed_episode(episode, track=True)
        with torch.autocast(embedded.support.x.device.type, enabled=False):
            return self.head.training_loss(embedded, progress=progress, roles=roles)

    def _encode(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        stats: TaskState | None = None,
        *,
        track: bool = False,
    ) -> tuple[Tensor, TaskState]:
        """Return embeddings in float32 or better, also where the encoder ran in bfloat16: heads and
        losses need the precision."""
        z, found = self.encoder.encode(x, mask, stats, track=track or self._tracks)
        return z.to(torch.promote_types(z.dtype, torch.float32)), found


def check_queries(episode: Episode) -> None:
    """Refuse an episode that has queries of a class without support.

    Raises:
        TaskError: naming the task, the query and the class.
    """
    support, query = episode.support, episode.query
    if episode.regression or support.y.is_floating_point():
        return
    own = query.y[..., None] == torch.arange(episode.n_way, device=query.y.device)  # [T, Q, C]
    shown = support.y[..., None] == torch.arange(episode.n_way, device=support.y.device)
    present = (shown & support.mask[..., None]).any(1)  # [T, C]
    lost = query.mask & ~(own & present[:, None]).any(2)
    if bool(lost.any()):
        t, q = lost.nonzero()[0].tolist()
        raise TaskError(
            f"query {q} of task {t} (of {episode.n_tasks}) is of class {int(query.y[t, q])}, which "
            f"has no support in that task (n_way={episode.n_way}). Mask the query, or give the "
            "class a support example."
        )


@checked
def meta_loss(learner: Learner, episode: Episode) -> Tensor:
    """Return the loss of each task after adapting to it, ``[T]``.

    Mean cross-entropy over the task's queries (nats), or mean squared error for regression. Padding
    does not count.
    """
    return mean_loss(query_logits(learner, episode), episode.query)


def query_logits(learner: Learner, episode: Episode, state: TaskState | None = None) -> Tensor:
    """Return the logits of an episode's queries ``[T, Q, C]``, after learning its support.

    Args:
        learner: any learner.
        episode: ``T`` tasks.
        state: what the learner learned of the support; ``None`` = it learns it now.

    Raises:
        TaskError: if the learner returns something else.
    """
    if state is None:
        state = learner.adapt(episode.support, n_way=episode.n_way)
    output = predict_queries(learner, state, episode.query)
    wanted = [*episode.query.y.shape, episode.n_way]
    shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if shape != wanted:
        what = "values [T, Q, 1]" if episode.regression else "logits [T, Q, C]"
        raise TaskError(
            f"{type(learner).__name__}.predict returned {shape}, and these {episode.n_tasks} tasks "
            f"need {what} = {wanted}. Return a row for each query and a column for each class."
        )
    return output


def predict_queries(learner: Learner, state: TaskState, query: Examples) -> Tensor:
    """Return the logits ``[T, Q, C]`` of padded queries, zero where there is padding.

    A transductive learner looks at all the queries it is given, so it gets those of one task at a
    time, without padding.
    """
    if bool(query.mask.all()):
        return learner.predict(state, query.x)
    if not learner.transductive:
        # padding may hold anything, and zero times NaN would bring it into the gradient
        wide = query.mask.view(*query.mask.shape, *(1,) * (query.x.ndim - 2))
        return learner.predict(state, query.x.masked_fill(~wide, 0))
    rows = [
        learner.predict(slice_tasks(state, slice(t, t + 1)), query.x[t : t + 1, query.mask[t]])[0]
        for t in range(len(query.y))
    ]
    logits = torch.cat(rows)  # [all queries, C]
    return logits.new_zeros(*query.mask.shape, logits.shape[1]).index_put((query.mask,), logits)


def mean_loss(output: Tensor, examples: Examples) -> Tensor:
    """Return the mean loss of each task's examples, ``[T, N, C]`` or ``[T, N, 1] -> [T]``.

    Cross-entropy in nats, or squared error if the targets are real numbers. Padding does not count.
    """
    # padding may hold anything: NaN, or the label of an absent class, whose logit is minus
    # infinity. The mask times that would be NaN, in the loss or its gradient: it is taken out first
    output = output.masked_fill(~examples.mask[..., None], 0.0)
    y = examples.y.masked_fill(~examples.mask, 0)
    if y.is_floating_point():
        loss = (output[..., 0] - y).square()  # [T, N]
    else:
        loss = F.cross_entropy(output.flatten(0, 1), y.flatten(), reduction="none")
        loss = loss.view_as(examples.y)
    return (loss * examples.mask).sum(1) / examples.mask.sum(1).clamp(min=1)
