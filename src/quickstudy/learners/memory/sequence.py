"""What the recurrent learners share: a sequence of examples, each label told one step late."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, Episode, Examples, TaskError, TaskState, check_state
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size
from quickstudy.core.state import n_tasks
from quickstudy.learners.base import Family, Roles, mean_loss
from quickstudy.learners.classes import class_weights
from quickstudy.learners.streams import StreamLearner, StreamProtocol, back_in_place, in_order

__all__ = ["SequenceHead", "check_ways", "refuse_roles"]

# a query runs on a copy of its task's state: this many copies are in memory together
_STATES_AT_ONCE = 1024


def check_ways(made_for: int, n_way: int, learner: str) -> None:
    """Refuse tasks with more classes than a learner has labels for.

    Raises:
        TaskError: naming both numbers.
    """
    if n_way > made_for:
        raise TaskError(
            f"this {learner} was made for {made_for} classes, which it reads as one-hot labels; "
            f"the task has {n_way}. Train with a larger n_way, or give tasks fewer classes."
        )


def refuse_roles(roles: Roles | None, learner: str) -> None:
    """Refuse to exchange support and query of a learner that reads the support in order.

    Raises:
        ConfigError: if they are to be exchanged.
    """
    if roles is not None:
        raise ConfigError(
            f"roles='every' sorts the support by class, and {learner} reads it in order: it would "
            "learn an order that no other task has. Set roles='fixed'."
        )


@checked
class SequenceHead(StreamLearner):
    """A recurrent network that reads embeddings and labels, each label one step late.

    At step ``t`` its input is the embedding ``x_t`` and the one-hot label ``y_{t-1}``; its output
    are the logits of ``y_t`` (Santoro et al. 2016, section 2). The support of an N-way K-shot task
    is read the same way: the state is that of the network after the last example, with this
    example's label, which each query brings along. Every query is answered from a copy of the
    state, so no query sees another.

    Subclasses define :meth:`read`, :meth:`answer` and :attr:`shapes`.

    Args:
        features: width ``D`` of an embedding.
        n_way: largest number of classes, the width of a one-hot label.
        protocol: what meta-training minimises: ``"stream"``, the loss of every example of the
            support, or ``"episode"``, the loss of the queries.

    Raises:
        ConfigError: if a number is out of range or the protocol is unknown.

    Example::

        head = LSTMHead(64, n_way=5, protocol="episode")
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "memory"
    order_sensitive = True
    label_sensitive = True

    def __init__(self, features: int, *, n_way: int, protocol: StreamProtocol = "stream") -> None:
        super().__init__()
        check_size(features=features, n_way=n_way)
        self.features, self.n_way, self.protocol = features, n_way, protocol

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the network's state, without the task axis."""

    @abstractmethod
    def read(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, TaskState]:
        """Return the logits of all steps and the state after the last one.

        Args:
            inputs: embeddings and late labels ``[T, S, D + n_way]``.
            mask: which steps count, bool ``[T, S]``; each task's are its first ones.

        Returns:
            Logits ``[T, S, n_way]`` and the state of each task after its own last step.
        """

    @abstractmethod
    def answer(self, state: TaskState, inputs: Tensor) -> Tensor:
        """Return the logits ``[B, n_way]`` of one more step from ``B`` states, ``inputs`` ``[B, D +
        n_way]``."""

    # ------------------------------------------------------------------ the two protocols

    def stream_logits(self, stream: Examples, *, n_way: int) -> Tensor:
        """Return the answers of ``T`` streams ``[T, S, C]``, each given before its label."""
        ordered, places, inputs = self._inputs(stream, n_way)
        logits, _ = self.read(inputs, ordered.mask)
        return back_in_place(logits[..., :n_way], places)

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the network's state after the support, ``label`` ``[T, n_way]`` (the last one,
        not yet read) and ``present`` bool ``[T, C]``."""
        ordered, _, inputs = self._inputs(support, n_way)
        _, state = self.read(inputs, ordered.mask)
        last = ordered.mask.sum(1, keepdim=True) - 1  # [T, 1]
        label = F.one_hot(ordered.y.gather(1, last)[:, 0], self.n_way).to(inputs.dtype)
        _, present = class_weights(ordered.y, ordered.mask, n_way)
        return state | {"label": label, "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logits ``[T, Q, C]``, each query answered from a copy of the state."""
        self._check_width(x)
        shapes: dict[str, tuple[int | None, ...]] = {
            **self.shapes,
            "label": (self.n_way,),
            "present": (None,),
        }
        check_state(state, shapes, learner=type(self).__name__, tasks=len(x), more=True)
        tasks, queries = x.shape[:2]
        label = state["label"][:, None].expand(-1, queries, -1)
        inputs = torch.cat([x, label.to(x.dtype)], 2)  # [T, Q, D + n_way]
        step = max(1, _STATES_AT_ONCE // tasks)
        parts = [
            self._answers({name: state[name] for name in self.shapes}, piece)
            for piece in inputs.split(step, dim=1)
        ]
        logits = torch.cat(parts, 1) if parts else x.new_zeros(tasks, 0, self.n_way)
        present = state["present"]
        return logits[..., : present.shape[1]].masked_fill(~present[:, None], -torch.inf)

    def _answers(self, state: TaskState, inputs: Tensor) -> Tensor:
        """Return the logits of a piece of the queries, ``[T, q, D + n_way] -> [T, q, n_way]``."""
        q = inputs.shape[1]
        copies = {name: value.repeat_interleave(q, 0) for name, value in state.items()}
        answers = self.answer(copies, inputs.flatten(0, 1))  # [T * q, n_way]
        return answers.view(n_tasks(state), q, self.n_way)

    def training_loss(
        self, episode: Episode, *, progress: float, roles: Roles | None = None
    ) -> Tensor:
        """Return the loss of each task ``[T]``: that of all examples of the support, read as a
        stream, or that of the queries, as ``protocol`` says.

        Raises:
            ConfigError: if support and query are to be exchanged.
        """
        refuse_roles(roles, type(self).__name__)
        if self.protocol == "episode":
            return super().training_loss(episode, progress=progress)
        stream = episode.support
        return mean_loss(self.stream_logits(stream, n_way=episode.n_way), stream)

    # ------------------------------------------------------------------ inputs

    def _inputs(self, examples: Examples, n_way: int) -> tuple[Examples, Tensor, Tensor]:
        """Return the examples without gaps, their places, and the network's inputs
        ``[T, S, D + n_way]``."""
        examples.check_labels(n_way)
        check_ways(self.n_way, n_way, type(self).__name__)
        self._check_width(examples.x)
        if examples.y.is_floating_point():
            raise TaskError(
                f"{type(self).__name__} learns classes; the labels are real numbers. Use y.long()."
            )
        ordered, places = in_order(examples)
        labels = F.one_hot(ordered.y, self.n_way).to(ordered.x.dtype)  # [T, S, n_way]
        late = F.pad(labels, (0, 0, 1, 0))[:, :-1]  # the first step knows no label
        return ordered, places, torch.cat([ordered.x, late], 2)

    def _check_width(self, x: Tensor) -> None:
        if x.ndim != 3 or x.shape[2] != self.features:
            raise ConfigError(
                f"{type(self).__name__} was made for embeddings of features={self.features} "
                f"numbers, [T, N, {self.features}]; got {list(x.shape)}."
            )
