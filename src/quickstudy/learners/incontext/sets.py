"""A transformer that reads a set of labelled embeddings once and then answers any query."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, Examples, TaskState, check_state
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_positive, check_size
from quickstudy.learners.base import EmbeddingLearner, Family, Learner
from quickstudy.learners.classes import (
    class_means,
    class_weights,
    squared_distance,
    without_padding,
)
from quickstudy.nets import Encoder, as_encoder
from quickstudy.nets.transformer import Members, PairBlock

__all__ = ["InContextHead", "InContextTransformer"]

Distance = Literal["cosine", "euclidean"]

# numbers of the largest intermediate tensor that are held at once: 2^24 float32 numbers are 67 MB
_NUMBERS_AT_ONCE = 1 << 24
_RELATIONS = 8  # numbers that relate a query to a support example
_FACTS = 5  # numbers that a token of a pair is made of, beside learned tokens
_UNIT = 10.0  # nearness is divided by it before a layer reads it: a cosine of 1 is 10 at first
_FIRST_WEIGHT = 1e-3  # deviation of the weights of the correction at first
_TOKEN_FLOOR = 1e-12  # of a mean square, so that an embedding of zeros has the token of zeros
_USUAL_TEMPERATURE = {"cosine": 0.1, "euclidean": 1.0}


@checked
class InContextHead(Learner):
    """A transformer over a support set of embeddings, meta-trained to classify in one pass.

    The idea of reading a support set as context is of Mishra et al. (2018), "A simple neural
    attentive meta-learner", and Fifty et al. (2024), "Context-aware meta-learning" (CAML), on
    frozen embeddings. *Difference from the papers*, where support and query are one sequence:

    * A class has no name and no random vector. There is one token for each pair of a query and a
      class, made of the query and the mean of the class, and all classes share all weights. So the
      order of the examples changes nothing beyond rounding, and renaming classes exactly renames
      the answers. The cost grows with queries times classes.
    * Support examples do not attend to each other. What :meth:`adapt` keeps of an example depends
      on it alone, or is a sum over a class. So :meth:`extend` adds examples without reading the
      earlier ones again, and gives what :meth:`adapt` gives of all of them, up to rounding. The
      price: no example's token knows the task. Only the pairs do, which read the members of their
      class and compare themselves with each other in each layer, when a query is asked.
    * Queries do not see each other, and read a cache: CAML repeats the support for each query.
    * The transformer is a correction of the nearest class mean, and starts at zero: before any
      training the answers are those of a :class:`~quickstudy.learners.metric.PrototypeHead`.

    ``logit(q, c) = s * nearness(q, m_c) + w' pair_L(q, c)``, and ``pair_0`` is made of the products
    and squared differences of the tokens of ``q`` and ``m_c``.

    With ``features`` a support example has a learned token, a key and a value in each layer: the
    transformer may learn what matters in embeddings of one width, and needs many training classes
    for it. Without, it reads only how near examples are to each other. Then any width will do, an
    orthogonal map of the embeddings changes nothing, and the directions of the training classes
    cannot be memorised; this is what serves tasks of other kinds of data (docs/incontext.md).

    Args:
        features: numbers in an embedding, ``D``; ``None`` = any, and only their nearness is read.
        width: numbers in a token, ``W``.
        layers: number of :class:`~quickstudy.nets.transformer.PairBlock` layers, ``L``.
        heads: heads of attention in each.
        distance: nearness to the class mean is the ``"cosine"``, or minus the squared
            ``"euclidean"`` distance.
        temperature: nearness is divided by it at the start; it is learned. ``None`` = 0.1 for
            cosines, 1 for distances.
        dropout: see :class:`~quickstudy.nets.transformer.PairBlock`.

    Raises:
        ConfigError: if a size is not usable, or the temperature not positive.

    Example::

        head = InContextHead(64, width=32)
        support = Examples.full(torch.randn(1, 10, 64), torch.arange(5).repeat(2)[None])
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.randn(1, 75, 64))  # [1, 75, 5]
        more = Examples.full(torch.randn(1, 2, 64), torch.tensor([[0, 3]]))
        logits = head.predict(head.extend(state, more), torch.randn(1, 75, 64))
    """

    family: Family = "in-context"

    def __init__(
        self,
        features: int | None = None,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        distance: Distance = "cosine",
        temperature: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_size(layers=layers)
        if distance not in _USUAL_TEMPERATURE:
            raise ConfigError(f"distance must be 'cosine' or 'euclidean'; got {distance!r}.")
        temperature = _USUAL_TEMPERATURE[distance] if temperature is None else temperature
        check_positive(temperature=temperature)
        self.features, self.width, self.distance = features, width, distance
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.blocks = nn.ModuleList(
            PairBlock(
                width,
                heads=heads,
                relations=_RELATIONS,
                hidden=2 * width,
                cached=features is not None,
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self.to_relation = nn.Linear(2, _RELATIONS)
        if features is not None:
            check_size(features=features)
            self.to_token = nn.Linear(features, width, bias=False)
        self.to_pair = nn.Linear(_FACTS + (0 if features is None else 2 * width), width)
        # without biases: all classes would share them, so they would cancel
        self.last_norm = nn.LayerNorm(width, bias=False)
        self.to_logit = nn.Linear(width, 1, bias=False)
        # nearly silent: with zeros no gradient would reach the layers below in the first step
        nn.init.normal_(self.to_logit.weight, std=_FIRST_WEIGHT)

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Read the support set once.

        Returns:
            The ``examples`` ``[T, S, D]``, their ``labels`` ``[T, S]`` and which are ``kept``, bool
            ``[T, S]``; of each class the number of its examples ``counts`` ``[T, C]`` and their
            mean ``means`` ``[T, C, D]``. With ``features`` also ``keys`` and ``values`` ``[T, L, S,
            W]`` of the examples and the mean token of each class ``tokens`` ``[T, C, W]``.
        """
        support.check_labels(n_way)
        self._check_width(support.x)
        return self._read(support, n_way)

    def _read(self, support: Examples, n_way: int) -> TaskState:
        """Return the state of a support set; a task without examples is one of empty classes."""
        support = without_padding(support)
        members, _ = class_weights(support.y, support.mask, n_way)
        y, mask, placed = support.y, support.mask, self._placed(support.x)
        state = {
            "examples": placed,
            "labels": y,
            "kept": mask,
            "counts": members.sum(1).to(placed.dtype),
            "means": class_means(placed, y, mask, n_way),
        }
        if self.features is None:
            return state
        tokens = self._tokens(support.x)
        cached = [block.cache(tokens) for block in self._layers()]
        return state | {
            "keys": torch.stack([keys for keys, _ in cached], 1),
            "values": torch.stack([values for _, values in cached], 1),
            "tokens": class_means(tokens, y, mask, n_way),
        }

    @checked
    def extend(self, state: TaskState, more: Examples, *, n_way: int | None = None) -> TaskState:
        """Return the state after further examples, without reading the earlier ones again.

        It equals what :meth:`adapt` returns of all examples, up to rounding.

        Args:
            state: what :meth:`adapt` or this function returned for these ``T`` tasks.
            more: examples ``[T, S', D]``; padding is allowed.
            n_way: number of classes from now on, if there are new ones; ``None`` = as many as
                before.

        Raises:
            TaskError: if the tasks are not as many, or a label lies outside ``[0, n_way)``.
            ConfigError: if classes would be lost.
        """
        self._check_state(state, len(more.y))
        before = state["counts"].shape[1]
        n_way = before if n_way is None else n_way
        check_size(n_way=n_way)
        if n_way < before:
            raise ConfigError(
                f"the state holds {before} classes; n_way={n_way} would lose some. Adapt afresh."
            )
        self._check_width(more.x)
        some = more.mask.any(1)  # a task may get no further example
        if bool(some.any()):
            Examples(more.x[some], more.y[some], more.mask[some]).check_labels(n_way)
        added = self._read(more, n_way)
        room = (0, 0, 0, n_way - before)
        old: TaskState = {n: F.pad(state[n], room) for n in ("means", "tokens") if n in added}
        counts = F.pad(state["counts"], room[2:])
        total = counts + added["counts"]
        # share of the new examples: the mean of both is old + share * (new - old)
        share = (added["counts"] / total.clamp(min=1))[..., None]
        joined: TaskState = {n: torch.lerp(old[n], added[n], share) for n in old}
        # the axis of the support, behind tasks and, of keys and values, layers
        axes = {"examples": 1, "labels": 1, "kept": 1, "keys": 2, "values": 2}
        sets = {n: torch.cat([state[n], added[n]], axes[n]) for n in added if n in axes}
        return {**sets, **joined, "counts": total}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logits ``[T, Q, C]``, minus infinity for classes without support."""
        self._check_width(x)
        self._check_state(state, len(x))
        classes, size = state["counts"].shape[1], state["labels"].shape[1]
        # a graph for another runtime cannot depend on the number of queries
        if torch.compiler.is_exporting() or not x.numel():
            return self._answer(state, x)
        one_query = 4 * len(x) * max(classes, size) * self.width
        at_once = max(1, _NUMBERS_AT_ONCE // one_query)
        return torch.cat([self._answer(state, part) for part in x.split(at_once, dim=1)], 1)

    # ------------------------------------------------------------------------------- inside

    def _answer(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logits of queries that are few enough to be answered at once."""
        present, placed = state["counts"] > 0, self._placed(x)
        near = self._nearness(placed, state["means"], present)  # [T, Q, C]
        between = self._nearness(state["means"], state["means"], present)  # [T, C, C]
        # nearness is read relative to the mean over classes: what all have in common says nothing
        middle = _mean_of(near, present[:, None])  # [T, Q, 1]
        to_members = self._nearness(placed, state["examples"], state["kept"]) - middle  # [T, Q, S]
        own = near.gather(2, state["labels"][:, None].expand_as(to_members)) - middle
        relations = F.gelu(self.to_relation(torch.stack([to_members, own], 3) / _UNIT))
        pairs = self._pairs(x, state, near - middle, between)
        between = (between / _UNIT)[..., None]
        for number, block in enumerate(self._layers()):
            members = self._members(state, number)
            pairs = block(pairs, members, relations, between, present)
        logits: Tensor = near + self.to_logit(self.last_norm(pairs))[..., 0]
        return logits.masked_fill(~present[:, None], -torch.inf)

    def _layers(self) -> Iterator[PairBlock]:
        for block in self.blocks:
            assert isinstance(block, PairBlock)
            yield block

    def _members(self, state: TaskState, layer: int) -> Members:
        """Return the support as one layer reads it."""
        if self.features is None:
            return Members(state["labels"], state["kept"])
        keys, values = state["keys"][:, layer], state["values"][:, layer]
        return Members(state["labels"], state["kept"], keys, values)

    def _pairs(self, x: Tensor, state: TaskState, near: Tensor, between: Tensor) -> Tensor:
        """Return the first tokens of pairs ``[T, Q, C, W]``.

        Args:
            x: queries ``[T, Q, D]``.
            state: of their tasks.
            near: nearness to the classes, relative to its mean ``[T, Q, C]``.
            between: nearness of the classes to each other ``[T, C, C]``.
        """
        present = state["counts"] > 0
        classes = between.shape[1]
        others = present[:, None] & ~torch.eye(classes, dtype=torch.bool, device=near.device)
        facts = torch.stack(
            [
                state["counts"].log1p(),
                between.diagonal(dim1=1, dim2=2) / _UNIT,  # how alike the members are, for cosines
                _mean_of(between, others)[..., 0] / _UNIT,  # how near the other classes are
                present.sum(1, keepdim=True).to(near.dtype).log1p().expand(-1, classes),
            ],
            2,
        )[:, None].expand(-1, near.shape[1], -1, -1)  # [T, Q, C, 4]
        parts = [near[..., None] / _UNIT, facts]
        if self.features is not None:
            query, means = self._tokens(x)[:, :, None], state["tokens"][:, None]
            parts += [query * means, (query - means).square()]
        token: Tensor = self.to_pair(torch.cat(parts, 3))
        return token

    def _nearness(self, a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
        """Return how near points ``[T, N, D]`` are to others ``[T, M, D]``, over the temperature
        ``[T, N, M]``.

        For cosines the length of ``a`` counts: it tells how alike the members of a class are.
        """
        scale = self.log_scale.exp().to(a.dtype)
        if self.distance == "cosine":
            return a @ F.normalize(b, dim=2).transpose(1, 2) * scale
        return -squared_distance(a, b, valid) * scale

    def _placed(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=2) if self.distance == "cosine" else x

    def _tokens(self, x: Tensor) -> Tensor:
        """Return the tokens of embeddings of any length ``[T, N, D] -> [T, N, W]``."""
        size = x.square().mean(2, keepdim=True).add(_TOKEN_FLOOR).sqrt()
        token: Tensor = self.to_token(x / size)
        return token

    def _check_width(self, x: Tensor) -> None:
        if self.features is not None and x.shape[-1] != self.features:
            raise ConfigError(
                f"this head was built for embeddings of {self.features} numbers; got "
                f"{x.shape[-1]}. Build it with features={x.shape[-1]}, or use its own encoder."
            )

    def _check_state(self, state: TaskState, tasks: int) -> None:
        shapes: dict[str, tuple[int | None, ...]] = {
            "examples": (None, self.features),
            "labels": (None,),
            "kept": (None,),
            "counts": (None,),
            "means": (None, self.features),
        }
        if self.features is not None:
            cached = (len(self.blocks), None, self.width)
            shapes |= {"keys": cached, "values": cached, "tokens": (None, self.width)}
        check_state(state, shapes, learner=type(self).__name__, tasks=tasks, more=True)


def _mean_of(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over the last axis of what is valid, zero where nothing is ``[..., 1]``."""
    kept = values.masked_fill(~valid, 0).sum(-1, keepdim=True)
    mean: Tensor = kept / valid.sum(-1, keepdim=True).clamp(min=1)
    return mean


@checked
class InContextTransformer(EmbeddingLearner):
    """An encoder and a transformer over its embeddings, trained together: from images, or from
    whatever the encoder takes.

    Args:
        encoder: inputs to embeddings; another module becomes a
            :class:`~quickstudy.nets.ModuleEncoder`.
        width: see :class:`InContextHead`.
        layers: see :class:`InContextHead`.
        heads: see :class:`InContextHead`.
        distance: see :class:`InContextHead`.
        temperature: see :class:`InContextHead`.
        dropout: see :class:`InContextHead`.

    Example::

        learner = InContextTransformer(Conv4(), width=32)
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
        state = learner.extend(state, episode.query.tasks(slice(0, 1)))  # 75 more examples
    """

    head: InContextHead

    def __init__(
        self,
        encoder: Encoder | nn.Module,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        distance: Distance = "euclidean",
        temperature: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        encoder = as_encoder(encoder)
        head = InContextHead(
            encoder.out_features,
            width=width,
            layers=layers,
            heads=heads,
            distance=distance,
            temperature=temperature,
            dropout=dropout,
        )
        super().__init__(encoder, head)

    @checked
    def extend(self, state: TaskState, more: Examples, *, n_way: int | None = None) -> TaskState:
        """Return the state after further examples, see :meth:`InContextHead.extend`.

        Args:
            state: what :meth:`adapt` or this function returned for these ``T`` tasks.
            more: examples ``[T, S', ...]``; padding is allowed.
            n_way: number of classes from now on; ``None`` = as many as before.

        Raises:
            TaskError: if the tasks are not as many, or a label lies outside ``[0, n_way)``.
            ConfigError: if classes would be lost, or the encoder normalises with the support's
                statistics: every further example would change the embeddings of the earlier ones.
        """
        if self.encoder.episodic:
            raise ConfigError(
                f"{type(self.encoder).__name__} normalises with the statistics of the support, and "
                "more examples would change those. Adapt to all examples afresh, or build the "
                "encoder with norm='batch' or norm='group'."
            )
        z, _ = self._encode(more.x, more.mask)
        with torch.autocast(z.device.type, enabled=False):
            return self.head.extend(state, Examples(z, more.y, more.mask), n_way=n_way)
