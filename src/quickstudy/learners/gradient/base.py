"""What all gradient-based learners share: a network, a head, and an inner loop over both."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self

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
from quickstudy.core.arguments import checked
from quickstudy.core.workers import Schedule, in_chunks, replica
from quickstudy.learners.base import Family, Learner, mean_loss
from quickstudy.learners.gradient.alone import judges_alone
from quickstudy.learners.gradient.options import InnerLoop
from quickstudy.learners.gradient.prepared import (
    Features,
    Task,
    blank_padding,
    is_known,
    leaves_inference_mode,
    plain_examples,
    plain_tensors,
)
from quickstudy.learners.gradient.starts import BIAS, WEIGHT, Head, build_head, logits
from quickstudy.learners.gradient.taskwise import Engine, Params, TaskModule
from quickstudy.nets import Encoder, SupportNorm

__all__ = ["GradientLearner", "Task", "blank_padding"]

_NET_PREFIX, _PRESENT_KEY, _NORM_PREFIX = "net.", "present", "norm."
# All sizes are in input numbers: examples times the numbers of one example. A chunk of this size
# keeps its activations near a cache of some megabytes
_CHUNK_SIZE, _CHUNK_TASKS = 1 << 19, 8
# without an outer graph, a task of this size fills the kernels by itself; run alone, it also needs
# no padding to the size of others
_SIZE_TO_RUN_ALONE = 1 << 15
# a batch of tasks smaller than this runs faster on one thread
_SIZE_WORTH_THREADS = 1 << 15
# of one call without a graph: a Conv-4 then has some hundred megabytes of activations
_PREDICTION_SIZE = 1 << 19


class GradientLearner(Learner):
    """A network that is adapted to each task by gradient descent on the support loss.

    Args:
        net: any module that maps a batch ``[N, ...]`` to features ``[N, D]`` or, with
            ``head=None``, to logits or values ``[N, C]``. Batch norm must not have running
            statistics (``norm="support"`` in our encoders): while a task is learned, its support is
            the batch. Parameters that are frozen now (``requires_grad`` off) are not adapted.
        head: ``"linear"`` (a start for each class, as in MAML), ``"shared"`` (one for all),
            ``"prototype"`` (made from the support), or ``None``: the net's own last layer is it.
        n_way: largest number of classes of a ``"linear"`` head; 1 for regression.
        features: width ``D`` of the features; our encoders know it.
        temperature: logits of a ``"prototype"`` head are divided by it; ``None`` = 1. The other
            heads have none.
        inner: how a task is learned.
        query_statistics: which batch statistics normalise a query. ``"support"``: those of its
            task's support set, so that it is judged alone. ``"query"``: those of all queries
            together, as in the papers: transductive.
        engine: see :class:`~quickstudy.learners.gradient.taskwise.TaskModule`.

    Raises:
        ConfigError: if the module cannot be right in an inner loop, or settings do not fit.

    Example::

        learner = MAML(nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU()), features=32)
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        state["net.1.weight"]  # [1, 32, 784]
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
    """

    family: Family = "gradient"

    default_inner = InnerLoop()
    """How a task is learned if ``inner`` is not given."""

    low_precision = False
    divergence_advice = "Lower inner_lr or set inner_clip in a new run, if the inner loop did it."

    @checked
    def __init__(
        self,
        net: nn.Module,
        *,
        head: Literal["linear", "shared", "prototype"] | None = "linear",
        n_way: int = 5,
        features: int | None = None,
        temperature: float | None = None,
        inner: InnerLoop | None = None,
        query_statistics: Literal["support", "query"] = "support",
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        if query_statistics not in ("support", "query"):
            raise ConfigError(
                f"query_statistics must be 'support' or 'query'; got {query_statistics!r}."
            )
        if temperature is not None and head != "prototype":
            raise ConfigError(
                f"temperature={temperature} divides the logits of prototypes, and head={head!r} "
                "has none. Leave it out, or give head='prototype'."
            )
        self.net: nn.Module = Features(net) if isinstance(net, Encoder) else net
        self.head: Head | None = None
        self._width: int | None = None
        if head is not None:
            width = features or getattr(net, "out_features", None)
            if not isinstance(width, int):
                raise ConfigError(
                    f"{type(net).__name__} does not say how many features it has. Give features=, "
                    "or head=None if its own last layer is the classifier."
                )
            self.head, self._width = build_head(head, width, n_way, temperature or 1.0), width
        # recorded here: evaluation works on a copy in which no parameter requires gradients
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
        self._has_norm_layers = any(
            isinstance(m, (SupportNorm, nn.modules.batchnorm._BatchNorm)) for m in net.modules()
        )

    @property
    def normed(self) -> bool:
        """Whether the network uses statistics of its batch."""
        return self._has_norm_layers or self.tasks.normalises or self.tasks.alone is False

    @property
    def transductive(self) -> bool:  # type: ignore[override]
        """Whether ``predict`` looks at the other queries.

        A network of the user's own may call batch norm as a function, which shows when it runs;
        until then it counts as one that does.
        """
        if self.query_statistics == "support":
            return False
        return self.normed or (self.tasks.alone is None and not is_known(self.net))

    # ------------------------------------------------------------------------ the contract

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Descend on the support loss; the state holds the adapted parameters, the statistics of
        the support and which classes it has."""
        support.check_labels(n_way)
        if torch.is_inference_mode_enabled():
            with leaves_inference_mode():
                return self.adapt(plain_examples(support), n_way=n_way)
        self._look_at(support)
        if torch.is_grad_enabled():
            return self._adapt(support, n_way)
        # twice, as the sizes count support and query of an episode
        numbers = 2 * math.prod(support.x.shape[1:])
        schedule = self._schedule(len(support.y), numbers, alone_from=_SIZE_TO_RUN_ALONE)
        parts = in_chunks(
            lambda learner, tasks: learner._adapt(support.tasks(tasks).trimmed(), n_way),
            self,
            len(support.y),
            schedule,
        )
        # contiguous, as a state read from a file is: kernels of another layout round differently
        return {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Run the adapted network on the queries."""
        if torch.is_inference_mode_enabled():
            with leaves_inference_mode():
                plain = {name: plain_tensors(v) for name, v in state.items()}
                return self.predict(plain, plain_tensors(x))
        self._check_state(state, x)
        if torch.is_grad_enabled():
            return self._predict(state, x)
        # without a graph, queries that are judged alone are judged in pieces, to save memory
        width = max(1, _PREDICTION_SIZE // max(1, math.prod(x.shape[2:])))
        schedule = self._schedule(len(x), math.prod(x.shape[1:]), alone_from=_SIZE_TO_RUN_ALONE)
        at_once = max(1, min(_CHUNK_TASKS, width // max(1, x.shape[1])))
        at_once = min(at_once, schedule.tasks_at_once)
        schedule = replace(schedule, tasks_at_once=at_once)
        piece = x.shape[1] if self.transductive else width

        def predict_chunk(learner: GradientLearner, tasks: slice) -> Tensor:
            # copies, contiguous and aligned: a state read from a file must round in the same way
            mine = {
                name: torch.empty(v.shape, dtype=v.dtype, device=v.device).copy_(v)
                for name, v in slice_tasks(state, tasks).items()
            }
            parts = x[tasks].split(piece, dim=1)
            return torch.cat([learner._predict(mine, part) for part in parts], 1)

        return torch.cat(in_chunks(predict_chunk, self, len(x), schedule))

    def schedule(self, episode: Episode) -> Schedule:
        """Return how the tasks of an episode are best run on the learner's device."""
        self._look_at(episode.support)
        numbers = sum(math.prod(s.x.shape[1:]) for s in (episode.support, episode.query))
        return self._schedule(episode.n_tasks, numbers)

    def _schedule(self, tasks: int, numbers: int, *, alone_from: int = _CHUNK_SIZE) -> Schedule:
        """Return how many tasks to run at once, on how many threads, by which engine.

        Args:
            tasks: how many tasks there are.
            numbers: input numbers of each task.
            alone_from: a task of this many input numbers or more runs by itself.
        """
        parameter = next(self.parameters(), None)
        cpu = parameter is None or parameter.device.type == "cpu"
        workers = torch.get_num_threads() if cpu else 1
        if not cpu or tasks * numbers < _SIZE_WORTH_THREADS:
            at_once, workers = tasks, 1
        else:
            at_once = max(1, min(_CHUNK_TASKS, _CHUNK_SIZE // max(1, numbers)))
            at_once = 1 if numbers >= alone_from else at_once
            at_once = min(at_once, -(-tasks // workers))  # so that every thread has work
        engine = self.tasks.engine if self.tasks.engine != "auto" else "batched"
        if (self.tasks.engine == "auto" and at_once == 1) or self.tasks.why_loop:
            engine = "loop"
        described = {
            "batched": "batched: one programme for all of them",
            "loop": "one by one with native kernels",
        }
        return Schedule(at_once, workers, described[engine] + f", {self.inner.memory} memory")

    def judged(
        self,
        *,
        query_statistics: Literal["support", "query"] | None = None,
        eval_steps: int | None = None,
    ) -> Self:
        """Return a twin on the same weights with other settings for judging tasks.

        Args:
            query_statistics: see the class; ``None`` = unchanged.
            eval_steps: inner steps outside training; ``None`` = unchanged.
        """
        other = replica(self)
        if query_statistics is not None:
            other.query_statistics = query_statistics
        if eval_steps is not None:
            other.inner = replace(self.inner, eval_steps=eval_steps)
        return other

    def inductive(self) -> Self:
        """Return a twin on the same weights that normalises queries like the support."""
        return self.judged(query_statistics="support")

    def transductive_twin(self) -> Self | None:
        """Return a twin on the same weights that normalises queries with the statistics of all of
        them, as in the papers; ``None`` if the network has no batch norm."""
        return self.judged(query_statistics="query") if self.normed else None

    def inner_steps_at_test(self) -> int | None:
        """Inner steps outside training."""
        return self.inner.steps if self.inner.eval_steps is None else self.inner.eval_steps

    def with_inner_steps(self, steps: int) -> Self:
        """Return a twin on the same weights that takes ``steps`` inner steps outside training."""
        return self.judged(eval_steps=steps)

    # ------------------------------------------------------------------- for the subclasses

    @abstractmethod
    def descend(self, task: Task, *, steps: int) -> list[Params]:
        """Return the parameters of each task after the inner loop, as a list of one.

        Args:
            task: the support of the tasks.
            steps: number of gradient steps.
        """

    @property
    def steps(self) -> int:
        """Inner steps in this mode, training or evaluation."""
        if self.training or self.inner.eval_steps is None:
            return self.inner.steps
        return self.inner.eval_steps

    def adapted_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the network that adapt to a task, named as in the state."""
        mine = dict(self.net.named_parameters())
        return {_NET_PREFIX + name: mine[name] for name in self.adapted_names}

    def start(self, task: Task) -> Params:
        """Return the parameters before the first step ``{name: [T, ...]}``.

        Those of the network are expanded views, so a gradient by them reaches the meta-parameters.
        """
        tasks = len(task.support.y)
        params = {n: p.expand(tasks, *p.shape) for n, p in self.adapted_parameters().items()}
        z = None
        if self.head is not None and self.head.needs_features:
            z, _ = self.features(params, task.support.x, task.mask)
        return params | self.head_start(task, z)

    def head_start(self, task: Task, z: Tensor | None) -> Params:
        """Return the parameters of the head before the first step.

        Args:
            task: the support of the tasks.
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
        """Return the network's outputs ``[T, N, ...] -> [T, N, D]``, and with ``keep`` the
        statistics that normalised them; arguments as in ``taskwise.TaskModule``."""
        self._check_input(x)
        net = {
            n.removeprefix(_NET_PREFIX): v for n, v in params.items() if n.startswith(_NET_PREFIX)
        }
        z, found = self.tasks(net, x, mask=mask, statistics=statistics, keep=keep)
        self._check_features(z, x)
        return z, found

    def output(self, params: Params, z: Tensor, n_way: int) -> Tensor:
        """Return the head's logits of the network's outputs: ``[T, N, D] -> [T, N, C]``."""
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
        """Return each task's mean loss on its support ``[T]``; ``context`` holds the inputs."""
        del step
        z, _ = self.features(params, context[0], task.mask)
        return self.loss(self.output(params, z, task.n_way), task.support, task.present)

    @staticmethod
    def loss(output: Tensor, examples: Examples, present: Tensor | None) -> Tensor:
        """Return the mean loss of each task ``[T]``; absent classes have probability 0."""
        if present is not None and not bool(present.all()):
            output = output.masked_fill(~present[:, None], -torch.inf)
        return mean_loss(output, examples)

    def prepare(self, support: Examples, n_way: int) -> Task:
        """Check the support and return it as a :class:`Task`."""
        support.check_labels(n_way)
        support = plain_examples(support)
        self._check_input(support.x)
        self._look_at(support)
        mask = None if bool(support.mask.all()) else support.mask
        support = blank_padding(support)
        present = None
        if not support.y.is_floating_point():
            members = F.one_hot(support.y.clamp(0, n_way - 1), n_way).bool()
            present = (members & support.mask[..., None]).any(1)
        return Task(support, n_way, mask, present)

    def finish(self, task: Task, params: Params) -> TaskState:
        """Return the state: parameters, statistics of the support, and the present classes."""
        state = dict(params)
        if self.normed and self.query_statistics == "support":
            _, found = self.features(params, task.support.x, task.mask, keep=True)
            state |= {_NORM_PREFIX + name: value for name, value in found.items()}
        if task.present is not None:
            state[_PRESENT_KEY] = task.present
        return state

    def _adapt(self, support: Examples, n_way: int) -> TaskState:
        task = self.prepare(support, n_way)
        # never in bfloat16: differences between steps would drown in its rounding
        with torch.autocast(support.x.device.type, enabled=False):
            return self.finish(task, self.descend(task, steps=self.steps)[-1])

    def _predict(self, state: TaskState, x: Tensor) -> Tensor:
        self._check_input(x)
        given = None
        if self.query_statistics == "support":
            given = {
                n.removeprefix(_NORM_PREFIX): v
                for n, v in state.items()
                if n.startswith(_NORM_PREFIX)
            }
        with torch.autocast(x.device.type, enabled=False):
            z, _ = self.features(state, x, statistics=given)
            present = state.get(_PRESENT_KEY)
            output = self.output(state, z, 1 if present is None else present.shape[1])
        if present is None or bool(present.all()):
            return output
        return output.masked_fill(~present[:, None], -torch.inf)

    # ------------------------------------------------------------------------- what is refused

    def _check_state(self, state: TaskState, x: Tensor) -> None:
        """Refuse the state of another learner, by the adapted parameters: statistics and present
        classes differ between tasks."""
        shapes: dict[str, tuple[int | None, ...]] = {
            name: tuple(p.shape) for name, p in self.adapted_parameters().items()
        }
        if self.head is not None:
            shapes |= {WEIGHT: (None, self._width), BIAS: (None,)}
        own = {
            n: v for n, v in state.items() if n != _PRESENT_KEY and not n.startswith(_NORM_PREFIX)
        }
        check_state(own, shapes, learner=type(self).__name__, tasks=len(x))

    def _look_at(self, support: Examples) -> None:
        """Find out, at the first support set, whether the network judges examples alone.

        Raises:
            ConfigError: if it does not, and queries should be judged alone.
        """
        if self.tasks.alone is None and len(support.y):
            support = plain_examples(support)
            self._check_input(support.x)
            with torch.autocast(support.x.device.type, enabled=False), leaves_inference_mode():
                self.tasks.alone = judges_alone(self.tasks, support)
        if self.tasks.alone is False and self.query_statistics == "support":
            raise ConfigError(
                f"{type(self.net).__name__} answers otherwise for the same example beside others: "
                "it takes a mean, or something like it, over the batch, so a query would not be "
                "judged alone. Use batch norm without running statistics, whose statistics are "
                "followed, or query_statistics='query'."
            )

    def _check_input(self, x: Tensor) -> None:
        """Refuse inputs of a type that the network does not compute in, or on another device; whole
        numbers may be tokens."""
        parameter = next(self.parameters())
        wanted = parameter.dtype
        if x.device != parameter.device:
            raise TaskError(
                f"the inputs are on {x.device}, the learner is on {parameter.device}. Move one of "
                f"them: episode.to({str(parameter.device)!r}) or learner.to({str(x.device)!r})."
            )
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
