"""What all gradient-based learners share: a network, a head, an inner loop over both."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import (
    ConfigError,
    Episode,
    Examples,
    TaskError,
    TaskState,
    check_state,
    slice_tasks,
)
from quickstudy.core.workers import Schedule, in_chunks, replica
from quickstudy.learners.base import Family, Learner, mean_loss
from quickstudy.learners.gradient.starts import BIAS, WEIGHT, Head, build_head, logits
from quickstudy.learners.gradient.taskwise import Engine, Params, TaskModule
from quickstudy.nets import Encoder, NormContext, SupportNorm

__all__ = [
    "GradientLearner",
    "GradientOptions",
    "InnerLoop",
    "NetOptions",
    "StartOptions",
    "Task",
    "blank_padding",
]

_NET, _PRESENT, _NORM = "net.", "present", "norm."
# chunks of about this many input numbers keep their activations near a cache of some megabytes
_NUMBERS_AT_ONCE, _TASKS_AT_ONCE = 1 << 19, 8
# without an outer graph a task of so many input numbers fills the kernels; alone it has no padding
_NUMBERS_ALONE = 1 << 15
# below this, threads cost more than they bring
_WORTH_THREADS = 1 << 15
# numbers of one call without a graph: some hundred megabytes of activations in a Conv-4
_NUMBERS_WITHOUT_GRAPH = 1 << 19


@dataclass(frozen=True, slots=True)
class InnerLoop:
    """How a task is learned.

    Args:
        steps: gradient steps while meta-training.
        eval_steps: gradient steps afterwards; ``None`` = as many.
        lr: inner learning rate, or where learned ones start.
        clip: largest norm of a task's inner gradient; ``None`` = any.
        memory: ``"unrolled"`` keeps the graph of every step: fastest. ``"flat"`` keeps that of one
            step and computes the others again: as much memory for 20 steps as for 1.

    Raises:
        ConfigError: if a number is out of range.
    """

    steps: int = 1
    eval_steps: int | None = None
    lr: float = 0.4
    clip: float | None = None
    memory: Literal["unrolled", "flat"] = "unrolled"

    def __post_init__(self) -> None:
        for name in ("steps", "eval_steps"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} must be at least 0; got {value}.")
        if not self.lr > 0:
            raise ConfigError(
                f"lr, the inner learning rate, must be greater than 0; got {self.lr}."
            )
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"clip must be greater than 0, or None; got {self.clip}.")
        if self.memory not in ("flat", "unrolled"):
            raise ConfigError(f"memory must be 'flat' or 'unrolled'; got {self.memory!r}.")


def blank_padding(examples: Examples) -> Examples:
    """Return the examples with zeros for padding, which may hold anything: NaN, and any label."""
    if bool(examples.mask.all()):
        return examples
    wide = examples.mask.view(*examples.mask.shape, *(1,) * (examples.x.ndim - 2))
    return Examples(
        examples.x.masked_fill(~wide, 0), examples.y.masked_fill(~examples.mask, 0), examples.mask
    )


@dataclass(frozen=True, slots=True)
class Task:
    """The support of ``T`` tasks as the inner loop wants it.

    Args:
        support: examples ``[T, S, ...]``.
        n_way: classes.
        mask: the support's mask, or ``None`` if there is no padding.
        present: bool ``[T, C]``: which classes have support; ``None`` for regression.
    """

    support: Examples
    n_way: int
    mask: Tensor | None
    present: Tensor | None


class _Features(nn.Module):
    """An encoder as a plain module that sees one task."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        self.encoder.check(x)
        return self.encoder.features(x, NormContext(None, 1))


class NetOptions(TypedDict, total=False):
    """The arguments of :class:`GradientLearner` that have nothing to do with its head."""

    features: int | None
    inner: InnerLoop | None
    query_statistics: Literal["support", "query"]
    engine: Engine


class StartOptions(NetOptions, total=False):
    """Those of a learner whose head has a learned start."""

    head: Literal["linear", "shared", "prototype"] | None
    n_way: int


class GradientOptions(StartOptions, total=False):
    """All arguments of :class:`GradientLearner`."""

    temperature: float


class GradientLearner(Learner):
    """A network that is adapted to each task by gradient descent on the support loss.

    Args:
        net: any module that maps a batch ``[N, ...]`` to features ``[N, D]`` or, with
            ``head=None``, to logits or values ``[N, C]``. Batch norm must not have running
            statistics (``norm="support"`` in our encoders): while a task is learned, its support is
            the batch. Parameters that are frozen now (``requires_grad`` off) are not adapted.
        head: ``"linear"`` (a start for each class, as in MAML), ``"shared"`` (one for all),
            ``"prototype"`` (made from the support), or ``None``: the net's own last layer.
        n_way: largest number of classes of a ``"linear"`` head; 1 for regression.
        features: ``D``; may be left out for our encoders.
        temperature: of a ``"prototype"`` head.
        inner: how a task is learned.
        query_statistics: with which batch statistics a query is normalised. ``"support"``: those of
            its task's support set, so it is judged alone. ``"query"``: those of all queries
            together, as in the papers: transductive.
        engine: see :class:`~quickstudy.learners.gradient.taskwise.TaskModule`.

    Raises:
        ConfigError: if the module cannot be right in an inner loop, or settings do not fit.
    """

    family: Family = "gradient"

    default_inner = InnerLoop()
    """How a task is learned if ``inner`` is not given."""

    low_precision = False
    divergence_advice = "Lower inner_lr or set inner_clip in a new run, if the inner loop did it."

    def __init__(
        self,
        net: nn.Module,
        *,
        head: Literal["linear", "shared", "prototype"] | None = "linear",
        n_way: int = 5,
        features: int | None = None,
        temperature: float = 1.0,
        inner: InnerLoop | None = None,
        query_statistics: Literal["support", "query"] = "support",
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        if query_statistics not in ("support", "query"):
            raise ConfigError(
                f"query_statistics must be 'support' or 'query'; got {query_statistics!r}."
            )
        self.net: nn.Module = _Features(net) if isinstance(net, Encoder) else net
        self.head: Head | None = None
        self._width: int | None = None
        if head is not None:
            width = features or getattr(net, "out_features", None)
            if not isinstance(width, int):
                raise ConfigError(
                    f"{type(net).__name__} does not say how many features it has. Give features=, "
                    "or head=None if its own last layer is the classifier."
                )
            self.head, self._width = build_head(head, width, n_way, temperature), width
        # now, not later: evaluation works on a copy in which nothing requires gradients
        self.adapted_names = tuple(n for n, p in self.net.named_parameters() if p.requires_grad)
        if self.head is None and not self.adapted_names:
            raise ConfigError(
                f"{type(net).__name__} has no parameter that requires gradients, so nothing could "
                "learn a task. Unfreeze some, or give it a head."
            )
        self.inner = inner or self.default_inner
        self.query_statistics = query_statistics
        self.tasks = TaskModule(self.net, engine)
        self.label_sensitive = not getattr(self.head, "permutation_equivariant", False)
        normed = any(
            isinstance(m, (SupportNorm, nn.modules.batchnorm._BatchNorm)) for m in net.modules()
        )
        self.normed = normed
        self.transductive = normed and query_statistics == "query"

    # ------------------------------------------------------------------------ the contract

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Descend on the support loss; the state holds what was adapted, and the statistics."""
        support.check_labels(n_way)
        if torch.is_grad_enabled():
            return self._adapt(support, n_way)
        numbers = 2 * math.prod(support.x.shape[1:])
        schedule = self._schedule(len(support.y), numbers, most=_NUMBERS_ALONE)
        parts = in_chunks(
            lambda learner, tasks: learner._adapt(support.tasks(tasks).trimmed(), n_way),
            self,
            len(support.y),
            schedule,
        )
        # in one layout, so that a saved state takes the same kernels to the last bit
        return {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Run the adapted network on the queries."""
        self._check_state(state, x)
        if torch.is_grad_enabled():
            return self._predict(state, x)
        # without a graph, queries that are judged alone need not be judged at once
        width = max(1, _NUMBERS_WITHOUT_GRAPH // max(1, math.prod(x.shape[2:])))
        schedule = self._schedule(len(x), math.prod(x.shape[1:]), most=_NUMBERS_ALONE)
        at_once = max(1, min(_TASKS_AT_ONCE, width // max(1, x.shape[1])))
        at_once = min(at_once, schedule.tasks_at_once)
        schedule = replace(schedule, tasks_at_once=at_once)
        piece = x.shape[1] if self.transductive else width

        def some(learner: GradientLearner, tasks: slice) -> Tensor:
            # copies in one layout, aligned: a state read from a file takes the same kernels
            mine = {
                name: torch.empty(v.shape, dtype=v.dtype, device=v.device).copy_(v)
                for name, v in slice_tasks(state, tasks).items()
            }
            parts = x[tasks].split(piece, dim=1)
            return torch.cat([learner._predict(mine, part) for part in parts], 1)

        return torch.cat(in_chunks(some, self, len(x), schedule))

    def schedule(self, episode: Episode) -> Schedule:
        """Return how the tasks of an episode are best run on the learner's device."""
        numbers = sum(math.prod(s.x.shape[1:]) for s in (episode.support, episode.query))
        return self._schedule(episode.n_tasks, numbers)

    def _schedule(self, tasks: int, numbers: int, *, most: int = _NUMBERS_AT_ONCE) -> Schedule:
        """Return the schedule for tasks with so many input numbers each; with ``most`` or more a
        task runs alone."""
        parameter = next(self.parameters(), None)
        cpu = parameter is None or parameter.device.type == "cpu"
        workers = torch.get_num_threads() if cpu else 1
        if not cpu or tasks * numbers < _WORTH_THREADS:
            at_once, workers = tasks, 1
        else:
            at_once = max(1, min(_TASKS_AT_ONCE, _NUMBERS_AT_ONCE // max(1, numbers)))
            at_once = 1 if numbers >= most else at_once
            at_once = min(at_once, -(-tasks // workers))
        engine = self.tasks.engine if self.tasks.engine != "auto" else "batched"
        if (self.tasks.engine == "auto" and at_once == 1) or self.tasks.why_loop:
            engine = "loop"
        words = {
            "batched": "batched: one programme for all of them",
            "loop": "one by one with native kernels",
        }
        return Schedule(at_once, workers, words[engine] + f", {self.inner.memory} memory")

    def judged(
        self,
        *,
        query_statistics: Literal["support", "query"] | None = None,
        eval_steps: int | None = None,
    ) -> Self:
        """Return the same learner, on the same weights, that is judged in another way.

        Args:
            query_statistics: see the class; ``None`` = as it is.
            eval_steps: inner steps outside training; ``None`` = as it is.
        """
        other = replica(self)
        if query_statistics is not None:
            other.query_statistics = query_statistics
            other.transductive = self.normed and query_statistics == "query"
        if eval_steps is not None:
            other.inner = replace(self.inner, eval_steps=eval_steps)
        return other

    def inductive(self) -> Self:
        """Return the same learner, whose queries are normalised with the support's statistics."""
        return self.judged(query_statistics="support")

    def transductive_twin(self) -> Self | None:
        """Return the same learner, whose queries are normalised with the statistics of all of them,
        as in the papers; ``None`` if the network has no batch norm."""
        return self.judged(query_statistics="query") if self.normed else None

    def inner_steps_at_test(self) -> int | None:
        """Inner steps outside training."""
        return self.inner.steps if self.inner.eval_steps is None else self.inner.eval_steps

    def with_inner_steps(self, steps: int) -> Self:
        """Return the same learner with so many inner steps outside training."""
        return self.judged(eval_steps=steps)

    # ------------------------------------------------------------------- for the subclasses

    @abstractmethod
    def descend(self, task: Task, *, steps: int) -> list[Params]:
        """Return the parameters of each task after the inner loop, as a list of one.

        Args:
            task: what is learned.
            steps: how many steps.
        """

    @property
    def steps(self) -> int:
        """Inner steps in this mode, training or evaluation."""
        if self.training or self.inner.eval_steps is None:
            return self.inner.steps
        return self.inner.eval_steps

    def adapted_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the network that a task changes, as its state names them."""
        mine = dict(self.net.named_parameters())
        return {_NET + name: mine[name] for name in self.adapted_names}

    def start(self, task: Task) -> Params:
        """Return the parameters before the first step ``{name: [T, ...]}``, as views."""
        tasks = len(task.support.y)
        params = {n: p.expand(tasks, *p.shape) for n, p in self.adapted_parameters().items()}
        z = None
        if self.head is not None and self.head.needs_features:
            z, _ = self.features(params, task.support.x, task.mask)
        return params | self.head_start(task, z)

    def head_start(self, task: Task, z: Tensor | None) -> Params:
        """Return the parameters of the head before the first step.

        Args:
            task: what is learned.
            z: the support's features ``[T, S, D]``, if the head needs them.
        """
        if self.head is None:
            return {}
        features = None if z is None else replace(task.support, x=z)
        return self.head.start(len(task.support.y), task.n_way, features)

    def features(
        self,
        params: Params,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        statistics: TaskState | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, TaskState]:
        """Run the network alone: ``[T, N, ...] -> [T, N, D]``."""
        self._check_dtype(x)
        net = {n.removeprefix(_NET): v for n, v in params.items() if n.startswith(_NET)}
        z, found = self.tasks(net, x, mask=mask, statistics=statistics, keep=keep)
        self._check_features(z, x)
        return z, found

    def output(self, params: Params, z: Tensor, n_way: int) -> Tensor:
        """Run the head on what the network gave: ``[T, N, D] -> [T, N, C]``."""
        if self.head is not None:
            return logits(params, z)
        if z.shape[2] != n_way:
            raise ConfigError(
                f"the network's last layer is {z.shape[2]} wide and the task has n_way={n_way} (1 "
                "in regression). With head=None they must be the same: change the layer or the "
                "task, or drop the layer and give head='shared', which fits any number."
            )
        return z

    def support_loss(
        self, params: Params, context: Sequence[Tensor], step: int, *, task: Task
    ) -> Tensor:
        """Return each task's mean loss on its support ``[T]``; ``context`` is its inputs."""
        del step
        z, _ = self.features(params, context[0], task.mask)
        return self.loss(self.output(params, z, task.n_way), task.support, task.present)

    @staticmethod
    def loss(output: Tensor, examples: Examples, present: Tensor | None) -> Tensor:
        """Return the mean loss of each task ``[T]``; absent classes get no probability."""
        if present is not None and not bool(present.all()):
            output = output.masked_fill(~present[:, None], -torch.inf)
        return mean_loss(output, examples)

    def prepare(self, support: Examples, n_way: int) -> Task:
        """Check the support and return it as a :class:`Task`."""
        support.check_labels(n_way)
        mask = None if bool(support.mask.all()) else support.mask
        support = blank_padding(support)
        present = None
        if not support.y.is_floating_point():
            members = F.one_hot(support.y.clamp(0, n_way - 1), n_way).bool()
            present = (members & support.mask[..., None]).any(1)
        return Task(support, n_way, mask, present)

    def finish(self, task: Task, params: Params) -> TaskState:
        """Return the state: parameters, statistics of the support, and which classes there are."""
        state = dict(params)
        if self.normed and self.query_statistics == "support":
            _, found = self.features(params, task.support.x, task.mask, keep=True)
            state |= {_NORM + name: value for name, value in found.items()}
        if task.present is not None:
            state[_PRESENT] = task.present
        return state

    def _adapt(self, support: Examples, n_way: int) -> TaskState:
        task = self.prepare(support, n_way)
        with torch.autocast(support.x.device.type, enabled=False):
            return self.finish(task, self.descend(task, steps=self.steps)[-1])

    def _predict(self, state: TaskState, x: Tensor) -> Tensor:
        given = None
        if self.query_statistics == "support" and self.normed:
            given = {n.removeprefix(_NORM): v for n, v in state.items() if n.startswith(_NORM)}
        with torch.autocast(x.device.type, enabled=False):
            z, _ = self.features(state, x, statistics=given)
            present = state.get(_PRESENT)
            output = self.output(state, z, 1 if present is None else present.shape[1])
        if present is None or bool(present.all()):
            return output
        return output.masked_fill(~present[:, None], -torch.inf)

    # ------------------------------------------------------------------------- what is refused

    def _check_state(self, state: TaskState, x: Tensor) -> None:
        """Refuse the state of another learner; statistics and classes depend on the tasks."""
        shapes: dict[str, tuple[int | None, ...]] = {
            name: tuple(p.shape) for name, p in self.adapted_parameters().items()
        }
        if self.head is not None:
            shapes |= {WEIGHT: (None, self._width), BIAS: (None,)}
        own = {n: v for n, v in state.items() if n != _PRESENT and not n.startswith(_NORM)}
        check_state(own, shapes, learner=type(self).__name__, tasks=len(x))

    def _check_dtype(self, x: Tensor) -> None:
        """Refuse numbers the network does not compute in; whole ones may be tokens."""
        wanted = next(self.parameters()).dtype
        if x.dtype not in (wanted, torch.int32, torch.int64):
            raise TaskError(
                f"the inputs are {x.dtype}, the network computes in {wanted}. Convert them as the "
                f"training data was: x.to({wanted}), and divide by 255 what was uint8."
            )

    def _check_features(self, z: Tensor, x: Tensor) -> None:
        """Refuse outputs that are not a row of numbers for each example."""
        if z.ndim != 3 or z.shape[:2] != x.shape[:2]:
            raise ConfigError(
                f"the network made {list(z.shape[1:])} of a task's {list(x.shape[1:])}; it should "
                f"make [{x.shape[1]}, D], a row of numbers for each example. Flatten it, or put "
                "the axis back."
            )
        if self._width not in (None, z.shape[2]):
            raise ConfigError(
                f"the network gives {z.shape[2]} features and the head was made for {self._width}. "
                f"Give features={z.shape[2]}."
            )
