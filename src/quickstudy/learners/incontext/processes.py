"""Neural processes: regression by reading the support, with a standard deviation for each answer.

Conditional neural processes (Garnelo et al. 2018) and the deterministic path of attentive neural
processes (Kim et al. 2019).
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, Episode, Examples, TaskError, TaskState, check_state
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_at_least, check_positive, check_size
from quickstudy.learners.base import EmbeddingLearner, Family, Learner, Roles
from quickstudy.learners.classes import without_padding
from quickstudy.learners.incontext.attention import AttentionBlock, MultiheadAttention
from quickstudy.learners.predictive import Gaussian
from quickstudy.nets import Encoder, as_encoder

__all__ = [
    "AttentiveNeuralProcess",
    "AttentiveProcessHead",
    "ConditionalNeuralProcess",
    "ConditionalProcessHead",
]

_FLOOR = 0.01


class _ProcessHead(Learner):
    """What both heads share: pairs in, a Gaussian for each query out, its likelihood as the loss.

    Args:
        features: width ``D`` of an embedded input.
        width: of all hidden layers.
        depth: number of layers that read a pair, and of layers that answer a query.
        floor: smallest standard deviation of an answer, in the unit of the targets.
    """

    family: Family = "in-context"

    def __init__(self, features: int, *, width: int, depth: int, floor: float) -> None:
        super().__init__()
        check_size(features=features, width=width)
        check_at_least(1, depth=depth)
        check_positive(floor=floor)
        self.features, self.width, self.floor = features, width, floor
        self.pair = _layers([features + 1, *[width] * depth])
        self.answer = _layers([features + width, *[width] * (depth - 1), 2])

    @abstractmethod
    def _read(self, state: TaskState, x: Tensor) -> Tensor:
        """Return what the state tells about each query, ``[T, Q, D] -> [T, Q, width]``."""

    def _pairs(self, support: Examples, n_way: int) -> tuple[Examples, Tensor]:
        """Return the support without padding, and what each pair says ``[T, S, width]``.

        Raises:
            TaskError: if the labels are classes.
            ConfigError: if the inputs are not ``features`` numbers each.
        """
        support.check_labels(n_way)
        if not support.y.is_floating_point():
            raise TaskError(
                f"{type(self).__name__} is for regression, and the labels are {support.y.dtype}. "
                "Give real numbers as y, or take a learner of classes."
            )
        if support.x.shape[2:] != (self.features,):
            raise ConfigError(
                f"the head was made for inputs of features={self.features} numbers; got "
                f"{list(support.x.shape[2:])}. Give features= their number."
            )
        support = without_padding(support)
        return support, self.pair(torch.cat([support.x, support.y[..., None]], 2))

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the means ``[T, Q, 1]``."""
        return self.predictive(state, x).mean[..., None]

    def predictive(self, state: TaskState, x: Tensor) -> Gaussian:
        """Return mean and standard deviation of each query's target."""
        mean, raw = self.answer(torch.cat([x, self._read(state, x)], 2)).unbind(2)
        # without a floor the likelihood of targets without noise has no bound: the deviation at a
        # query that is answered exactly would go to zero, and the gradient to infinity
        return Gaussian(mean, self.floor + F.softplus(raw))

    def training_loss(
        self,
        episode: Episode,
        *,
        progress: float,  # noqa: ARG002
        roles: Roles | None = None,
    ) -> Tensor:
        """Return the mean negative log-likelihood of each task's queries, in nats ``[T]``."""
        episode = episode if roles is None else roles(episode)
        query = without_padding(episode.query)
        state = self.adapt(episode.support, n_way=episode.n_way)
        # a masked target is zero, and so is the weight of its density
        loss = -self.predictive(state, query.x).log_density(query.y) * query.mask
        return loss.sum(1) / query.mask.sum(1).clamp(min=1)


@checked
class ConditionalProcessHead(_ProcessHead):
    """The support is summed up by the mean of what its pairs say; a query is answered from that.

    ``r = mean_i h(x_i, y_i)``, then ``mean, deviation = g(x, r)`` (Garnelo et al. 2018, equations 2
    to 4).

    Args:
        features: width ``D`` of an embedded input.
        width: of all hidden layers.
        depth: number of layers of ``h``, and of ``g``.
        floor: smallest standard deviation of an answer, in the unit of the targets.

    Raises:
        ConfigError: if a number is out of range.

    Example::

        from quickstudy.learners.incontext import ConditionalProcessHead

        head = ConditionalProcessHead(1)
        support = Examples.full(torch.rand(2, 10, 1), torch.rand(2, 10))
        said = head.predictive(head.adapt(support, n_way=1), torch.rand(2, 5, 1))
        said.mean, said.deviation  # each [2, 5]
    """

    def __init__(
        self, features: int, *, width: int = 128, depth: int = 3, floor: float = _FLOOR
    ) -> None:
        super().__init__(features, width=width, depth=depth, floor=floor)

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``summary`` ``[T, width]``, the mean of what the pairs say."""
        support, said = self._pairs(support, n_way)
        real = support.mask[..., None]
        return {"summary": (said * real).sum(1) / real.sum(1)}

    def _read(self, state: TaskState, x: Tensor) -> Tensor:
        shapes = {"summary": (self.width,)}
        check_state(state, shapes, learner=type(self).__name__, tasks=len(x), more=True)
        return state["summary"][:, None].expand(-1, x.shape[1], -1)


@checked
class AttentiveProcessHead(_ProcessHead):
    """Each query reads the pairs that matter to it, by attention.

    The pairs read one another by self-attention, and a query reads them by cross-attention, whose
    keys are their inputs (Kim et al. 2019, section 3 and figure 2).

    *Difference from the paper*: the deterministic path alone, without the latent variable, so an
    answer is one Gaussian and its likelihood is exact. Blocks of self-attention are normalised as
    in pre-norm transformers (Xiong et al. 2020), which the paper leaves open.

    Args:
        features: width ``D`` of an embedded input.
        width: of all hidden layers, keys and values.
        depth: number of layers that read a pair, and of layers that answer a query.
        heads: number of heads of each attention, a divisor of ``width``.
        blocks: number of blocks of self-attention among the pairs; 0 = none.
        floor: smallest standard deviation of an answer, in the unit of the targets.

    Raises:
        ConfigError: if a number is out of range or ``heads`` does not divide ``width``.

    Example::

        from quickstudy.learners.incontext import AttentiveProcessHead

        head = AttentiveProcessHead(1)
        support = Examples.full(torch.rand(2, 10, 1), torch.rand(2, 10))
        said = head.predictive(head.adapt(support, n_way=1), torch.rand(2, 5, 1))
        low, high = said.interval(0.9)  # each [2, 5]
    """

    def __init__(
        self,
        features: int,
        *,
        width: int = 128,
        depth: int = 3,
        heads: int = 8,
        blocks: int = 2,
        floor: float = _FLOOR,
    ) -> None:
        super().__init__(features, width=width, depth=depth, floor=floor)
        check_at_least(0, blocks=blocks)
        self.blocks = nn.ModuleList([AttentionBlock(width, heads=heads) for _ in range(blocks)])
        self.reading = MultiheadAttention(features, features, width, width=width, heads=heads)

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``keys`` and ``values`` ``[T, S, width]``, and ``mask`` bool ``[T, S]``."""
        support, said = self._pairs(support, n_way)
        for block in self.blocks:
            said = block(said, support.mask)
        keys, values = self.reading.cache(support.x, said)
        return {"keys": keys, "values": values, "mask": support.mask}

    def _read(self, state: TaskState, x: Tensor) -> Tensor:
        shapes = {"keys": (None, self.width), "values": (None, self.width), "mask": (None,)}
        check_state(state, shapes, learner=type(self).__name__, tasks=len(x), more=True)
        read: Tensor = self.reading(x, state["keys"], state["values"], state["mask"])
        return read


class _Process(EmbeddingLearner):
    """An encoder of inputs with the head of a neural process."""

    def __init__(self, encoder: Encoder, head: Learner) -> None:
        if encoder.episodic:
            raise ConfigError(
                f"{type(self).__name__} reads one input at a time, and norm='support' makes it "
                "depend on the others. Build the encoder with norm='group'."
            )
        super().__init__(encoder, head)


@checked
class ConditionalNeuralProcess(_Process):
    """A conditional neural process: reads a support set, answers with mean and deviation.

    Garnelo et al. (2018), "Conditional Neural Processes", section 2.2. It adapts in one forward
    pass, and the order of the support does not matter.

    *Difference from the paper*: inputs go through an encoder first, so that they may be anything
    that an encoder takes; with :class:`~quickstudy.nets.Identity` it is the paper's. The smallest
    deviation is ``floor``, and 0.1 in the authors' code.

    Args:
        encoder: embeds inputs; another module becomes a :class:`~quickstudy.nets.ModuleEncoder`.
        width: of all hidden layers.
        depth: number of layers that read a pair, and of layers that answer a query.
        floor: smallest standard deviation of an answer, in the unit of the targets: below the noise
            of the targets, or a little below the smallest error that matters.

    Raises:
        ConfigError: if a number is out of range, or the encoder normalises by the support.

    Example::

        from quickstudy.nets import Identity

        learner = ConditionalNeuralProcess(Identity((1,)))
        episode = SinusoidSource("train").episodes(EpisodeSpec(1, 10), [0, 1], seed=0)
        state = learner.adapt(episode.support, n_way=1)
        said = learner.predictive(state, episode.query.x)
        said.mean, said.deviation  # each [2, 15]
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module,
        *,
        width: int = 128,
        depth: int = 3,
        floor: float = _FLOOR,
    ) -> None:
        encoder = as_encoder(encoder)
        features = encoder.out_features
        head = ConditionalProcessHead(features, width=width, depth=depth, floor=floor)
        super().__init__(encoder, head)


@checked
class AttentiveNeuralProcess(_Process):
    """An attentive neural process: each query reads the support by attention.

    Kim et al. (2019), "Attentive Neural Processes", section 3: the deterministic path. It fits the
    points of the support more closely than :class:`ConditionalNeuralProcess`, whose summary is the
    same for all queries.

    *Difference from the paper*: see :class:`~quickstudy.learners.incontext.AttentiveProcessHead`.

    Args:
        encoder: embeds inputs; another module becomes a :class:`~quickstudy.nets.ModuleEncoder`.
        width: of all hidden layers, keys and values.
        depth: number of layers that read a pair, and of layers that answer a query.
        heads: number of heads of each attention, a divisor of ``width``.
        blocks: number of blocks of self-attention among the pairs; 0 = none.
        floor: smallest standard deviation of an answer, in the unit of the targets.

    Raises:
        ConfigError: if a number is out of range, ``heads`` does not divide ``width``, or the
            encoder normalises by the support.

    Example::

        from quickstudy.nets import MLP

        learner = AttentiveNeuralProcess(MLP((1,), (64, 64), last_activation=True), width=64)
        episode = SinusoidSource("train").episodes(EpisodeSpec(1, 10), [0, 1], seed=0)
        state = learner.adapt(episode.support, n_way=1)
        low, high = learner.predictive(state, episode.query.x).interval(0.9)  # each [2, 15]
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module,
        *,
        width: int = 128,
        depth: int = 3,
        heads: int = 8,
        blocks: int = 2,
        floor: float = _FLOOR,
    ) -> None:
        encoder = as_encoder(encoder)
        head = AttentiveProcessHead(
            encoder.out_features,
            width=width,
            depth=depth,
            heads=heads,
            blocks=blocks,
            floor=floor,
        )
        super().__init__(encoder, head)


def _layers(sizes: list[int]) -> nn.Sequential:
    """Return linear layers with a smooth activation between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.GELU()]
    return nn.Sequential(*layers[:-1])
