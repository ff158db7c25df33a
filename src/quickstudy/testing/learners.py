"""The conformance suite of learners: tests that every learner passes, with declared exceptions."""

from __future__ import annotations

import gc

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from quickstudy.checks.snapshot import changed, snapshot
from quickstudy.core import Episode, EpisodeSpec, Examples, TaskError, TaskState, generator
from quickstudy.core.state import n_tasks, slice_tasks
from quickstudy.evaluation import evaluate
from quickstudy.learners.base import Learner
from quickstudy.tasks import PoolSource, SinusoidSource, TaskSource
from quickstudy.testing.fakes import gaussian_pool
from quickstudy.testing.gradients import check_meta_gradient
from quickstudy.training.config import TrainConfig
from quickstudy.training.step import batch_loss

__all__ = ["LearnerConformance", "snapshot"]

_JUNK_INPUT = 1e4  # large beside unit-variance inputs, and finite
_PADDING_JUNK = (_JUNK_INPUT, float("nan"), float("inf"), 1e30)


def _live_tensors() -> tuple[int, int]:
    """Return how many tensors are alive, and how many of them keep a graph.

    Between ``gc.freeze()`` and ``gc.unfreeze()`` only tensors made since the freeze are counted,
    which is fast.
    """
    gc.collect()
    tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
    return len(tensors), sum(tensor.grad_fn is not None for tensor in tensors)


class LearnerConformance:
    """Inherit it in a test module, name your class ``Test...``, and define :meth:`make_learner`.

    A learner that cannot pass a test declares so itself (``transductive``, ``order_sensitive``,
    ``label_sensitive``), or your class does by these attributes:

    * ``regression``: targets are real numbers; tests about labels are left out.
    * ``trainable``: whether the learner has meta-parameters.
    * ``zero_gradients``: names of parameters whose meta-gradient is zero by construction, such as a
      bias that cancels in squared distances. The suite tests that it *is* zero.
    * ``exact_gradient``: whether the training gradient is the derivative of the loss; first-order
      learners use another one on purpose.
    * ``input_shape``, ``n_way``, ``k_shot``: size of the default episode, whose classes are
      Gaussian clouds of unit variance. Use at least 8 support examples, so that batch statistics
      are well behaved.
    * ``meta_steps``: number of steps in the memory test.
    * ``tolerance``: of comparisons in float64 that are equal up to rounding.
    * ``difference_steps``: step sizes of the central differences; smaller ones cross fewer kinks.
    * ``device``: where all tests compute, ``"cpu"`` or for example ``"cuda"``; what you return is
      made on the CPU and moved there.

    Use a smooth network (tanh, not ReLU): at a kink a central difference is not the gradient.

    Example::

        from quickstudy.testing import LearnerConformance
        class TestFloor(LearnerConformance):
            trainable = False
            def make_learner(self):
                return NearestNeighbour()
        TestFloor().test_padding_has_no_effect()  # pytest runs this and all other tests
    """

    regression: bool = False
    trainable: bool = True
    zero_gradients: tuple[str, ...] = ()
    exact_gradient: bool = True
    input_shape: tuple[int, ...] = (1, 16, 16)
    n_way: int = 3
    k_shot: int = 3
    meta_steps: int = 200
    tolerance: float = 1e-9
    difference_steps: tuple[float, float] = (1e-5, 2e-6)
    device: str = "cpu"

    def make_learner(self) -> Learner:
        """Return a fresh, untrained learner."""
        raise NotImplementedError("define make_learner() in your test class")

    def make_source(self) -> TaskSource:
        """Return a source of episodes that fit the learner."""
        if self.regression:
            return SinusoidSource()
        return PoolSource(gaussian_pool(8, 12, self.input_shape))

    def make_spec(self) -> EpisodeSpec:
        """Return the size of the default episode."""
        return EpisodeSpec(1 if self.regression else self.n_way, self.k_shot, 3)

    def make_episode(self) -> Episode:
        """Return three tasks in float64."""
        return _cast(self.make_source().episodes(self.make_spec(), range(3), seed=0), torch.float64)

    def prepare(self, learner: Learner) -> None:
        """Make three meta-training steps, so that weights and buffers are not the initial ones.

        Override it if something else is fitted before deployment (a whitening, a memory, class
        statistics).

        Args:
            learner: fresh and in float64; it is changed in place.
        """
        parameters = [p for p in learner.parameters() if p.requires_grad]
        if not self.trainable or not parameters:
            return
        learner.train()
        optimiser = torch.optim.SGD(parameters, lr=1e-2)
        for _ in range(3):
            optimiser.zero_grad()
            loss = batch_loss(learner, self._episode(), TrainConfig()).mean()
            loss.backward()
            optimiser.step()

    # ------------------------------------------------------------------ what the suite works with

    def _fresh(self, seed: int) -> Learner:
        """Return an untrained learner in float64; torch's global generator is put back."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make_learner().double().to(self.device)

    def _episode(self) -> Episode:
        """Return the default episode on the suite's device."""
        return self.make_episode().to(self.device)

    def _ready(self) -> Learner:
        """Return a prepared learner in float64 and evaluation mode."""
        learner = self._fresh(0)
        self.prepare(learner)
        return learner.eval()

    @staticmethod
    @torch.no_grad()
    def _predict(learner: Learner, episode: Episode) -> Tensor:
        state = learner.adapt(episode.support, n_way=episode.n_way)
        return learner.predict(state, episode.query.x)

    def _assert_equal(self, got: Tensor, expected: Tensor, what: str) -> None:
        assert got.shape == expected.shape, (
            f"{what}: shape {tuple(got.shape)}, not {tuple(expected.shape)}"
        )
        close = torch.allclose(got, expected, rtol=self.tolerance, atol=self.tolerance)
        assert close, f"{what}: predictions differ by up to {_gap(got, expected):.3g}"

    # ------------------------------------------------------------------ shapes and state

    def test_shapes(self) -> None:
        """Logits are [T, Q, C], values [T, Q, 1], and finite where the class is present."""
        episode = self._episode()
        logits = self._predict(self._ready(), episode)
        expected = (*episode.query.y.shape, 1 if self.regression else episode.n_way)
        assert tuple(logits.shape) == expected, (
            f"predict gave {tuple(logits.shape)}, not {expected}"
        )
        assert bool(torch.isfinite(logits).all()), "predictions are not finite"

    def test_state_has_the_task_axis(self) -> None:
        """Every tensor of a state begins with axis T; a slice of it is the state of these tasks."""
        learner, episode = self._ready(), self._episode()
        with torch.no_grad():
            state = learner.adapt(episode.support, n_way=episode.n_way)
            together = learner.predict(state, episode.query.x)
            for name, value in state.items():
                assert isinstance(value, Tensor), f"state[{name!r}] is {type(value).__name__}"
            assert n_tasks(state) == episode.n_tasks, (
                f"the state's leading axis is {n_tasks(state)}, not T"
            )
            one = learner.predict(slice_tasks(state, slice(1, 2)), episode.query.x[1:2])
        self._assert_equal(one, together[1:2], "a sliced state")

    def test_state_survives_saving(self) -> None:
        """A state that was saved with safetensors and loaded predicts the same, bit for bit."""
        learner, episode = self._ready(), self._episode()
        with torch.no_grad():
            state = learner.adapt(episode.support, n_way=episode.n_way)
            read = load(save({n: v.contiguous() for n, v in state.items()}))
            loaded: TaskState = {n: v.to(self.device) for n, v in read.items()}
            for name, value in state.items():
                assert torch.equal(value, loaded[name]), f"state[{name!r}] changed in the file"
            before, after = (learner.predict(s, episode.query.x) for s in (state, loaded))
        assert torch.equal(before, after), "a saved and loaded state predicts something else"

    def test_weights_survive_saving(self) -> None:
        """A fresh learner predicts the same with the saved weights: nothing fitted is missing."""
        learner, episode = self._ready(), self._episode()
        weights = {n: v.contiguous().clone() for n, v in learner.state_dict().items()}
        other = self._fresh(1)
        other.load_state_dict(load(save(weights)) if weights else {})
        same = torch.equal(self._predict(other.eval(), episode), self._predict(learner, episode))
        assert same, (
            "a learner rebuilt from state_dict() predicts something else: register a buffer for "
            "whatever is fitted"
        )

    # ------------------------------------------------------------------ symmetries

    def test_batched_tasks_equal_single_tasks(self) -> None:
        """T tasks in one batch have the predictions of the tasks one by one."""
        learner, episode = self._ready(), self._episode()
        singles = [
            self._predict(learner, episode.tasks(slice(t, t + 1))) for t in range(episode.n_tasks)
        ]
        self._assert_equal(
            torch.cat(singles), self._predict(learner, episode), "tasks one at a time"
        )

    def test_support_order_does_not_matter(self) -> None:
        """Shuffling the support changes nothing, unless ``order_sensitive``."""
        learner, episode = self._ready(), self._episode()
        if learner.order_sensitive:
            return
        s = episode.support
        order = torch.randperm(s.y.shape[1], generator=generator(0, 1)).to(self.device)
        shuffled = Examples(s.x[:, order], s.y[:, order], s.mask[:, order])
        other = Episode(shuffled, episode.query, episode.n_way)
        self._assert_equal(
            self._predict(learner, other), self._predict(learner, episode), "shuffled support"
        )

    def test_permuting_labels_permutes_predictions(self) -> None:
        """Numbering the classes otherwise only reorders the columns of the predictions, unless
        ``label_sensitive``."""
        learner, episode = self._ready(), self._episode()
        if self.regression or learner.label_sensitive:
            return
        s = episode.support
        names = torch.arange(episode.n_way, device=self.device).roll(1)
        other = Episode(Examples(s.x, names[s.y], s.mask), episode.query, episode.n_way)
        self._assert_equal(
            self._predict(learner, other)[..., names],
            self._predict(learner, episode),
            "renamed labels",
        )

    def test_padding_has_no_effect(self) -> None:
        """Masked support examples change nothing, whatever they hold and wherever they are."""
        learner, episode = self._ready(), self._episode()
        wanted = self._predict(learner, episode)
        for junk in _PADDING_JUNK:
            padded = Episode(_pad(episode.support, junk), episode.query, episode.n_way)
            self._assert_equal(self._predict(learner, padded), wanted, f"support padded by {junk}")

    def test_padded_queries_do_not_count(self) -> None:
        """Masked queries change neither the loss nor the meta-gradient."""
        self._assert_padding_is_ignored("query")

    def test_padded_support_does_not_count_in_training(self) -> None:
        """Masked support examples change neither the loss nor the meta-gradient."""
        self._assert_padding_is_ignored("support")

    def _assert_padding_is_ignored(self, side: str) -> None:
        learner, episode = self._ready(), self._episode()
        parameters = [p for p in learner.parameters() if p.requires_grad]
        loss = learner.training_loss(episode, progress=1.0)
        slopes = self._slopes(loss, parameters)
        for junk in _PADDING_JUNK:
            sides = {"support": episode.support, "query": episode.query}
            sides[side] = _pad(sides[side], junk)
            padded = Episode(sides["support"], sides["query"], episode.n_way)
            other = learner.training_loss(padded, progress=1.0)
            self._assert_equal(other, loss, f"the loss with a {side} padded by {junk}")
            for a, b in zip(slopes, self._slopes(other, parameters), strict=True):
                if a is not None and b is not None:
                    what = f"the meta-gradient with a {side} padded by {junk}"
                    self._assert_equal(b, a, what)

    def _slopes(self, loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor | None]:
        if not self.trainable or not parameters:
            return []
        return list(torch.autograd.grad(loss.mean(), parameters, allow_unused=True))

    def test_queries_are_judged_alone(self) -> None:
        """Predictions are the same for one query at a time, and beside a query of junk, unless
        ``transductive``."""
        learner, episode = self._ready(), self._episode()
        if learner.transductive:
            return
        x = episode.query.x
        with torch.no_grad():
            state = learner.adapt(episode.support, n_way=episode.n_way)
            together = learner.predict(state, x)
            alone = torch.cat(
                [learner.predict(state, x[:, q : q + 1]) for q in range(x.shape[1])], 1
            )
            joined = learner.predict(
                state, torch.cat([x, torch.full_like(x[:, :1], _JUNK_INPUT)], 1)
            )
        self._assert_equal(alone, together, "queries one at a time")
        self._assert_equal(joined[:, :-1], together, "beside a junk query")

    def test_the_predictive_distribution_is_of_the_predictions(self) -> None:
        """What a learner says of targets has the mean that it predicts and a positive deviation,
        the same for tasks and queries alone and whatever stands in padding of the support."""
        learner, episode = self._ready(), self._episode()
        with torch.no_grad():
            self._assert_predictive(learner, episode)

    def _assert_predictive(self, learner: Learner, episode: Episode) -> None:
        x, every = episode.query.x, slice(None)
        state = learner.adapt(episode.support, n_way=episode.n_way)
        said = learner.predictive(state, x)
        if said is None:
            return
        assert self.regression, "a learner of classes has logits, and no Gaussian"
        self._assert_equal(said.mean, learner.predict(state, x)[..., 0], "the mean")
        assert bool((said.deviation > 0).all()), "a deviation is not above zero"
        padded = learner.adapt(_pad(episode.support, float("nan")), n_way=episode.n_way)
        ways = {
            "of a task alone": (slice_tasks(state, slice(1, 2)), slice(1, 2), every),
            "with a padded support": (padded, every, every),
        }
        if not learner.transductive:
            ways["of a query alone"] = (state, every, slice(0, 1))
        for name, (known, tasks, queries) in ways.items():
            other = learner.predictive(known, x[tasks][:, queries])
            assert other is not None, f"no predictive distribution {name}"
            wanted = said.deviation[tasks][:, queries]
            self._assert_equal(other.deviation, wanted, f"the deviation {name}")

    # ------------------------------------------------------------------ nothing changes

    def test_adapt_and_predict_change_nothing(self) -> None:
        """Parameters, buffers and attributes are the same before and after, in both modes."""
        learner, episode = self._ready(), self._episode()
        for training in (False, True):
            learner.train(training)
            before = snapshot(learner)
            learner.predict(learner.adapt(episode.support, n_way=episode.n_way), episode.query.x)
            touched = changed(before, snapshot(learner))
            assert not touched, f"adapt or predict changed {touched} (training={training})"

    def test_evaluation_changes_nothing(self) -> None:
        """Evaluating twice gives equal scores, and changes no bit of the learner."""
        learner = self._ready().float().train()
        before = snapshot(learner)
        reports = [
            evaluate(learner, self.make_source(), self.make_spec(), episodes=8) for _ in range(2)
        ]
        assert snapshot(learner) == before, "evaluate changed the learner"
        first, second = (report.scores.tolist() for report in reports)
        assert first == second, "evaluating twice gives different scores"

    def test_memory_is_flat(self) -> None:
        """After many meta-steps no graph is alive and no more tensors than after two."""
        if not self.trainable:
            return
        gc.collect()
        gc.freeze()  # older tensors of the process are not counted
        try:
            learner, episode = self._fresh(0).train(), self._episode()
            tensors = 0
            for step in range(self.meta_steps):
                batch_loss(learner, episode, TrainConfig()).mean().backward()
                learner.zero_grad()
                if step == 1:
                    tensors, _ = _live_tensors()
            later, graphs = _live_tensors()
        finally:
            gc.unfreeze()
        assert graphs == 0, (
            f"{graphs} tensors still hold a graph after the meta-step: detach what is kept"
        )
        assert later <= tensors, f"{later - tensors} tensors more after {self.meta_steps} steps"

    # ------------------------------------------------------------------ gradients

    def test_meta_gradients_are_finite_and_not_zero(self) -> None:
        """The loss reaches every parameter, except those declared in ``zero_gradients``."""
        if not self.trainable:
            return
        learner = self._fresh(0).train()
        learner.training_loss(self._episode(), progress=1.0).mean().backward()
        sizes = {}
        for name, parameter in learner.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{name} has no meta-gradient"
                sizes[name] = float(parameter.grad.abs().max())
        unknown = set(self.zero_gradients) - sizes.keys()
        assert not unknown, f"zero_gradients names {sorted(unknown)}, which are no parameters"
        floor = 1e-12 * max(sizes.values())  # rounding of a gradient that is zero on paper
        for name, size in sizes.items():
            assert size < float("inf"), f"the meta-gradient of {name} is not finite"
            if name in self.zero_gradients:
                assert size <= floor, f"{name} is declared to have no gradient, but has {size:.3g}"
            else:
                assert size > floor, f"the meta-gradient of {name} is zero"

    def test_meta_gradient_is_the_central_difference(self) -> None:
        """The meta-gradient is the derivative of the loss, in float64 and with two step sizes;
        unless ``exact_gradient`` is declared false."""
        if self.trainable and self.exact_gradient:
            learner = self._fresh(0).train()
            check_meta_gradient(learner, self._episode(), steps=self.difference_steps)

    # ------------------------------------------------------------------ values

    def test_dtype_and_device_are_kept(self) -> None:
        """Predictions have the dtype and the device of the inputs."""
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            for dtype in (torch.float32, torch.float64):
                learner = self._ready().to(device, dtype)
                episode = _cast(self._episode(), dtype).to(device)
                logits = self._predict(learner, episode)
                assert logits.dtype == dtype, f"{dtype} inputs gave {logits.dtype} predictions"
                assert logits.device.type == device, f"{device} inputs gave {logits.device}"

    def test_an_absent_class_has_probability_zero(self) -> None:
        """A class without support has probability exactly 0, and the others sum to 1."""
        if self.regression:
            return
        episode = self._episode()
        s, absent = episode.support, episode.n_way - 1
        mask = s.mask.clone()
        mask[0] &= s.y[0] != absent  # absent in the first task only
        probability = self._predict(
            self._ready(), Episode(Examples(s.x, s.y, mask), episode.query, episode.n_way)
        ).softmax(2)
        assert bool((probability[0, :, absent] == 0).all()), (
            "a class without support has probability > 0"
        )
        total = probability.sum(2)
        assert bool(torch.isfinite(probability).all()), "an absent class makes probabilities NaN"
        assert torch.allclose(total, torch.ones_like(total)), "probabilities do not sum to 1"
        assert bool((probability[1:] > 0).all()), (
            "a class that is absent in one task has probability 0 in another"
        )

    def test_labels_out_of_range_are_refused(self) -> None:
        """A support label outside ``[0, n_way)`` raises :class:`TaskError`."""
        if self.regression:
            return
        learner, episode = self._ready(), self._episode()
        s = episode.support
        for label in (-1, episode.n_way):
            y = s.y.clone()
            y[0, 0] = label
            refused = False
            try:
                learner.adapt(Examples(s.x, y, s.mask), n_way=episode.n_way)
            except TaskError:
                refused = True
            assert refused, f"label {label} of a {episode.n_way}-way task was accepted"


def _cast(episode: Episode, dtype: torch.dtype) -> Episode:
    """Return the episode with floating inputs and targets in ``dtype``."""

    def cast(side: Examples) -> Examples:
        y = side.y.to(dtype) if side.y.is_floating_point() else side.y
        return Examples(side.x.to(dtype), y, side.mask)

    return Episode(cast(episode.support), cast(episode.query), episode.n_way, episode.info)


def _pad(examples: Examples, junk: float) -> Examples:
    """Return the examples with two masked rows of junk in front, in the middle and at the end; the
    label of a masked row is junk too, or -100 where labels are whole numbers."""

    def widen(value: Tensor, junk: float) -> Tensor:
        extra = torch.full_like(value[:, :2], junk)
        half = value.shape[1] // 2
        return torch.cat([extra, value[:, :half], extra, value[:, half:], extra], 1)

    label = junk if examples.y.is_floating_point() else -100
    return Examples(widen(examples.x, junk), widen(examples.y, label), widen(examples.mask, 0))


def _gap(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two tensors where both are finite."""
    both = torch.isfinite(a) & torch.isfinite(b)
    return float((a - b)[both].abs().max()) if bool(both.any()) else float("nan")
