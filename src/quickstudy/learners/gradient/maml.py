"""Model-agnostic meta-learning (MAML) and its variants: FOMAML, Meta-SGD, ANIL and Proto-MAML."""

from __future__ import annotations

from functools import partial
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from quickstudy.core import ConfigError, Episode
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Roles, check_queries, mean_loss, predict_queries
from quickstudy.learners.gradient.base import GradientLearner, Task, blank_padding
from quickstudy.learners.gradient.inner import Params, descend
from quickstudy.learners.gradient.options import GradientOptions, InnerLoop, NetOptions
from quickstudy.learners.gradient.prepared import leaves_inference_mode, plain_episode
from quickstudy.learners.gradient.starts import BIAS, WEIGHT

__all__ = ["ANIL", "FOMAML", "MAML", "MetaSGD", "ProtoMAML"]

Rates = Literal["fixed", "layer", "layer-step", "parameter"]


class MAML(GradientLearner):
    """The start is learned so that a few gradient steps on a support set suffice.

    Finn, Abbeel and Levine (2017), "Model-Agnostic Meta-Learning", algorithm 2. The meta-gradient
    is exact: it goes through the inner steps. Options from Antoniou, Edwards and Storkey (2019),
    "How to train your MAML" (MAML++): learned rates (section 4, LSLR), ``multi_step`` (MSL) and
    ``first_order_until`` (DA).

    *Difference from the paper*: queries are normalised with the support's statistics
    (``query_statistics="support"``), so predictions are inductive; the papers' transductive mode is
    ``"query"``. The parameters of batch norm are adapted like all others.

    Args:
        net: as in :class:`~quickstudy.learners.gradient.base.GradientLearner`.
        order: ``"second"``, or ``"first"``: the Hessians are left out (FOMAML, section 5.2).
        rates: inner learning rates: ``"fixed"``, or learned: one for each parameter tensor
            (``"layer"``), for each tensor and step (``"layer-step"``), or for each number
            (``"parameter"``, as in Meta-SGD).
        adapted: ``"all"``, or ``"head"``: the network does not adapt (ANIL).
        multi_step: up to this share of the meta-training, the query losses after all inner steps
            count; the weights of the early ones fall to zero.
        first_order_until: up to this share of the meta-training, Hessians are left out.
        **options: as in :class:`~quickstudy.learners.gradient.base.GradientLearner`.

    Raises:
        ConfigError: if settings do not fit.

    Example::

        learner = MAML(Conv4(norm="support"), inner=InnerLoop(steps=5, lr=0.1))
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        loss = learner.training_loss(episode, progress=0.0)  # [1]
        loss.mean().backward()
        state = learner.adapt(episode.support, n_way=5)
    """

    @checked
    def __init__(
        self,
        net: nn.Module,
        *,
        order: Literal["second", "first"] = "second",
        rates: Rates = "fixed",
        adapted: Literal["all", "head"] = "all",
        multi_step: float = 0.0,
        first_order_until: float = 0.0,
        **options: Unpack[GradientOptions],
    ) -> None:
        super().__init__(net, **options)
        for name, value, known in (
            ("order", order, ("second", "first")),
            ("rates", rates, ("fixed", "layer", "layer-step", "parameter")),
            ("adapted", adapted, ("all", "head")),
        ):
            if value not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
        for name, share in (("multi_step", multi_step), ("first_order_until", first_order_until)):
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} is a share from 0 to 1; got {share}.")
        if order == "first" and first_order_until > 0:
            raise ConfigError(
                f"order='first' leaves the Hessians out all along, so first_order_until="
                f"{first_order_until} would change nothing. Leave it out, or set order='second'."
            )
        if adapted == "head":
            if self.head is None:
                raise ConfigError("adapted='head' needs a head: give head='linear' or another.")
            self.adapted_names = ()
        self._order: Literal["second", "first"] = order
        self._adapted = adapted
        self._multi_step, self._first_order_until = multi_step, first_order_until
        self._rates = rates
        self.rates = nn.ParameterDict()
        if rates != "fixed":
            self._make_rates()

    def _make_rates(self) -> None:
        """Add a learned rate ``[1 or steps, ...]`` for each adapted tensor."""
        shapes = {n: tuple(p.shape) for n, p in self.adapted_parameters().items()}
        if self.head is not None:
            shapes |= self.head.rate_shapes()
        rows = max(1, self.inner.steps) if self._rates == "layer-step" else 1
        for name, shape in shapes.items():
            one = shape if self._rates == "parameter" else ()
            value = torch.full((rows, *one), float(self.inner.lr))
            # a ParameterDict allows no dots in its keys
            self.rates[name.replace(".", "/")] = nn.Parameter(value)

    def _inner_rates(self, params: Params, task: Task, steps: int) -> Params:
        """Return the rates ``{name: [1 or K, ...]}`` of the adapted parameters."""
        if self._rates == "fixed":
            like = next(iter(params.values()))
            rate = torch.full((1,), self.inner.lr, dtype=like.dtype, device=like.device)
            return dict.fromkeys(params, rate)
        found: Params = {}
        for name in params:
            rate = self.rates[name.replace(".", "/")]
            # a linear head has rates for its largest number of classes; this task may have fewer
            if name in (WEIGHT, BIAS) and self._rates == "parameter" and rate.shape[1] > 1:
                rate = rate[:, : task.n_way]
            if len(rate) > 1:
                # steps beyond those of meta-training use the last rate
                rate = rate[torch.arange(steps, device=rate.device).clamp(max=len(rate) - 1)]
            found[name] = rate
        return found

    def descend(self, task: Task, *, steps: int) -> list[Params]:
        """Return the adapted parameters."""
        return self._descend(task, steps=steps, order=self._order)

    def _descend(
        self,
        task: Task,
        *,
        steps: int,
        order: Literal["second", "first"],
        every_step: bool = False,
    ) -> list[Params]:
        inner = self.inner
        if self._adapted == "head":
            # the network does not adapt: it runs once, before the steps
            z, _ = self.features({}, task.support.x, task.mask)
            params = self.head_start(task, z)
            context, loss = (z,), partial(self._head_loss, task=task)
        else:
            params = self.start(task)
            context, loss = (task.support.x,), partial(self.support_loss, task=task)
        return descend(
            loss,
            params,
            self._inner_rates(params, task, steps),
            steps=steps,
            context=context,
            order=order,
            memory=inner.memory,
            every_step=every_step,
            clip=inner.clip,
        )

    def _head_loss(
        self, params: Params, context: tuple[Tensor, ...], step: int, *, task: Task
    ) -> Tensor:
        del step
        output = self.output(params, context[0], task.n_way)
        return self.loss(output, task.support, task.present)

    def training_loss(
        self, episode: Episode, *, progress: float, roles: Roles | None = None
    ) -> Tensor:
        """Return the query loss after the inner loop, or with ``multi_step`` after every step."""
        if torch.is_inference_mode_enabled():
            with leaves_inference_mode():
                return self.training_loss(plain_episode(episode), progress=progress, roles=roles)
        episode = episode if roles is None else roles(episode)
        check_queries(episode)
        first_order = progress < self._first_order_until
        task = self.prepare(episode.support, episode.n_way)
        query = blank_padding(episode.query)
        every_step = self.inner.steps > 1 and progress < self._multi_step
        with torch.autocast(episode.support.x.device.type, enabled=False):
            path = self._descend(
                task,
                steps=self.steps,
                order="first" if first_order else self._order,
                every_step=every_step,
            )
            # the statistics that normalise the queries depend on the parameters, so on the step
            states = [self.finish(task, p) for p in path]
            losses = [mean_loss(predict_queries(self, s, query), query) for s in states]
        if not every_step:
            return losses[-1]
        weights = self._step_weights(len(losses), progress / self._multi_step)
        return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum(0)

    @staticmethod
    def _step_weights(steps: int, progress: float) -> list[float]:
        """Return the weight of each step's loss: equal at progress 0, the last step alone at 1."""
        early = (1 - progress) / steps
        return [early] * (steps - 1) + [1 - early * (steps - 1)]


@checked
class FOMAML(MAML):
    """First-order MAML: the gradient at the adapted parameters serves as the meta-gradient.

    Finn et al. (2017), section 5.2; Nichol et al. (2018), "On First-Order Meta-Learning
    Algorithms", section 2. It equals MAML where the support loss has no curvature.

    Args:
        net: as in :class:`MAML`.
        **options: as in :class:`~quickstudy.learners.gradient.base.GradientLearner`.

    Example::

        learner = FOMAML(Conv4(norm="support"))
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
    """

    def __init__(self, net: nn.Module, **options: Unpack[GradientOptions]) -> None:
        super().__init__(net, order="first", **options)


@checked
class MetaSGD(MAML):
    """MAML that also learns an inner learning rate for each single parameter; one inner step.

    Li, Zhou, Chen and Li (2017), "Meta-SGD", algorithm 1.

    *Difference from the paper*: the rates start at ``inner.lr``, not at random in [0.005, 0.1].

    Args:
        net: as in :class:`MAML`.
        **options: as in :class:`~quickstudy.learners.gradient.base.GradientLearner`.

    Example::

        learner = MetaSGD(Conv4(norm="support"), inner=InnerLoop(lr=0.1))
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
    """

    def __init__(self, net: nn.Module, **options: Unpack[GradientOptions]) -> None:
        super().__init__(net, rates="parameter", **options)


@checked
class ANIL(MAML):
    """MAML with "almost no inner loop": only the head adapts to a task, the network does not.

    Raghu, Raghu, Bengio and Vinyals (2020), "Rapid Learning or Feature Reuse?", section 5. The
    network runs once for a support set, so an inner step costs next to nothing.

    Args:
        net: as in :class:`MAML`.
        **options: as in :class:`~quickstudy.learners.gradient.base.GradientLearner`.

    Example::

        learner = ANIL(Conv4(norm="support"))
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
    """

    default_inner = InnerLoop(steps=5, lr=0.1)

    def __init__(self, net: nn.Module, **options: Unpack[GradientOptions]) -> None:
        super().__init__(net, adapted="head", **options)


class ProtoMAML(MAML):
    """MAML whose head starts as the Prototypical Network of the support, with learned rates.

    Triantafillou et al. (2020), "Meta-Dataset", section 3.3. It fits any number of classes and does
    not depend on label order.

    *Difference from the paper*: the meta-gradient is of second order; the rates of each layer and
    step and the temperature of the prototypes are learned.

    Args:
        net: as in :class:`MAML`.
        temperature: logits of the prototypes are divided by it; the value at the start.
        order: as in :class:`MAML`.
        rates: as in :class:`MAML`.
        multi_step: as in :class:`MAML`.
        first_order_until: as in :class:`MAML`.
        **options: as in :class:`~quickstudy.learners.gradient.base.GradientLearner`, without
            ``head`` and ``n_way``: its head is made from the support.

    Example::

        learner = ProtoMAML(Conv4(norm="support"))
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        state = learner.adapt(episode.support, n_way=5)
        logits = learner.predict(state, episode.query.x)  # [1, 75, 5]
    """

    default_inner = InnerLoop(steps=3, lr=0.1)

    @checked
    def __init__(
        self,
        net: nn.Module,
        *,
        temperature: float = 1.0,
        order: Literal["second", "first"] = "second",
        rates: Rates = "layer-step",
        multi_step: float = 0.0,
        first_order_until: float = 0.0,
        **options: Unpack[NetOptions],
    ) -> None:
        for name in ("head", "n_way"):
            if name in options:
                raise TypeError(f"ProtoMAML takes no {name}: its head is made from the support.")
        super().__init__(
            net,
            head="prototype",
            temperature=temperature,
            order=order,
            rates=rates,
            multi_step=multi_step,
            first_order_until=first_order_until,
            **options,
        )
