"""Each trap of meta-learning, built on purpose, and the check that catches it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.core import Episode, EpisodeSpec, Examples, generator
from quickstudy.learners import PrototypicalNetwork
from quickstudy.learners.base import Learner, meta_loss
from quickstudy.learners.metric import PrototypeHead
from quickstudy.nets import Encoder, NormContext, build_norm
from quickstudy.tasks import PoolSource
from quickstudy.testing import (
    LearnerConformance,
    check_meta_gradient,
    directional_derivatives,
    gaussian_pool,
)

# ---------------------------------------------------------------------- gradients


class LinearGradientLearner(Learner):
    """Gradient descent on linear regression: the smallest second-order learner."""

    def __init__(self, features=4, inner_lr=0.05, inner_steps=3):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, features, dtype=torch.float64))
        self.inner_lr, self.inner_steps = inner_lr, inner_steps

    def adapt(self, support, *, n_way):
        # where, not times: zero times the NaN of a padding row is NaN
        x = torch.where(support.mask[..., None], support.x, 0.0)
        y = torch.where(support.mask, support.y, 0.0)
        mask = support.mask.to(x.dtype)
        n = mask.sum(1, keepdim=True)
        w = self.weight.expand(x.shape[0], -1)  # [T, D]
        for _ in range(self.inner_steps):
            residual = ((x * w[:, None]).sum(2) - y) * mask  # [T, S]
            w = w - self.inner_lr * 2 / n * (residual[..., None] * x).sum(1)
        return {"weight": w}

    def predict(self, state, x):
        return (x * state["weight"][:, None]).sum(2, keepdim=True)  # [T, Q, 1]


class DeepcopyLearner(LinearGradientLearner):
    """The inner loop of many tutorials: a copy of the model and its own optimiser."""

    def adapt(self, support, *, n_way):
        adapted = []
        for t in range(support.x.shape[0]):
            model = copy.deepcopy(self)
            optimiser = torch.optim.SGD(model.parameters(), lr=self.inner_lr)
            for _ in range(self.inner_steps):
                optimiser.zero_grad()
                with torch.enable_grad():
                    loss = (support.x[t] @ model.weight - support.y[t])[support.mask[t]]
                    loss.square().mean().backward()
                optimiser.step()
            adapted.append(model.weight)
        return {"weight": torch.stack(adapted)}


class FirstOrderLearner(LinearGradientLearner):
    """The gradient reaches the initialisation, but the curvature is silently dropped."""

    def adapt(self, support, *, n_way):
        state = super().adapt(support, n_way=n_way)["weight"]
        return {"weight": self.weight + (state - self.weight).detach()}


class LinearSuite(LearnerConformance):
    regression = True
    kind = LinearGradientLearner

    def make_learner(self):
        return self.kind()

    def make_episode(self):
        x = torch.randn(3, 13, 4, generator=generator(5), dtype=torch.float64)
        y = torch.randn(3, 13, generator=generator(6), dtype=torch.float64)
        return Episode(Examples.full(x[:, :8], y[:, :8]), Examples.full(x[:, 8:], y[:, 8:]), 1)

    def make_source(self):
        raise NotImplementedError


LINEAR = [
    name
    for name in dir(LearnerConformance)
    # its inputs have no source
    if name.startswith("test_") and name != "test_evaluation_changes_nothing"
]


@pytest.mark.parametrize("name", LINEAR)
def test_the_honest_gradient_learner_conforms(name):
    getattr(LinearSuite(), name)()


def test_meta_gradient_of_linear_regression_has_its_closed_form():
    learner, episode = LinearGradientLearner(), LinearSuite().make_episode()
    meta_loss(learner, episode).mean().backward()
    expected = torch.zeros(4, dtype=torch.float64)
    for t in range(3):
        x, y = episode.support.x[t], episode.support.y[t]
        n, w = len(y), learner.weight.detach()
        step = torch.eye(4, dtype=torch.float64) - learner.inner_lr * (2 / n) * x.T @ x
        jacobian = torch.linalg.matrix_power(step, learner.inner_steps)
        for _ in range(learner.inner_steps):
            w = w - learner.inner_lr * (2 / n) * x.T @ (x @ w - y)
        xq, yq = episode.query.x[t], episode.query.y[t]
        expected += jacobian.T @ ((2 / len(yq)) * xq.T @ (xq @ w - yq)) / 3
    torch.testing.assert_close(learner.weight.grad, expected, rtol=0, atol=1e-10)


def test_deepcopy_inner_loop_is_caught():
    class Suite(LinearSuite):
        kind = DeepcopyLearner

    with pytest.raises(AssertionError, match="no meta-gradient"):
        Suite().test_meta_gradients_are_finite_and_not_zero()
    with pytest.raises((AssertionError, RuntimeError), match=r"meta-gradient|not have been used"):
        Suite().test_meta_gradient_is_the_central_difference()


def test_silently_first_order_is_caught():
    class Suite(LinearSuite):
        kind = FirstOrderLearner

    Suite().test_meta_gradients_are_finite_and_not_zero()  # looks fine ...
    with pytest.raises(AssertionError, match="central difference"):
        Suite().test_meta_gradient_is_the_central_difference()


class NormNet(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, bias=False)
        self.norm = build_norm(kind, 8, name="norm")

    def forward(self, x):
        context = NormContext(torch.zeros(len(x), dtype=torch.long), 1)
        return torch.tanh(self.norm(self.conv(x), context)).mean((1, 2, 3))


@pytest.mark.parametrize("kind", ["batch", "group", "support"])
def test_vmap_equals_loop_on_the_second_order_gradient(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = NormNet(kind).double()
    weights = {n: p.detach() for n, p in net.named_parameters()}
    xs, xq = torch.randn(2, 3, 10, 1, 8, 8, generator=generator(1), dtype=torch.float64)
    ys, yq = torch.randn(2, 3, 10, generator=generator(2), dtype=torch.float64)

    def loss(p, x, y):
        return (torch.func.functional_call(net, p, (x,)) - y).square().mean()

    def task(p, xs, ys, xq, yq):
        inner = torch.func.grad(loss)(p, xs, ys)
        return loss({n: p[n] - 0.5 * inner[n] for n in p}, xq, yq)

    def batched(p):
        return torch.vmap(task, in_dims=(None, 0, 0, 0, 0))(p, xs, ys, xq, yq).mean()

    def looped(p):
        return torch.stack([task(p, *t) for t in zip(xs, ys, xq, yq, strict=True)]).mean()

    torch.testing.assert_close(batched(weights), looped(weights), rtol=1e-12, atol=1e-12)
    got, expected = torch.func.grad(batched)(weights), torch.func.grad(looped)(weights)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-8, atol=1e-12, msg=name)


class KinkyEncoder(Encoder):
    """A ReLU whose kink lies within reach of the larger step, and is very steep."""

    episodic, out_features, in_shape = False, 4, (4,)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, dtype=torch.float64))

    def features(self, x, context):
        return x * (self.weight + 1e4 * F.relu(self.weight - 1 - 4e-7))


def test_a_difference_quotient_that_lies_is_not_believed():
    learner = PrototypicalNetwork(KinkyEncoder())
    episode = PoolSource(gaussian_pool(5, 12, (4,))).episodes(EpisodeSpec(3, 3, 3), [0], seed=0)
    episode = episode.to("cpu", torch.float64)
    weight = learner.encoder.weight
    direction = torch.full_like(weight, 0.5)
    exact = float(
        (torch.autograd.grad(meta_loss(learner, episode).mean(), weight)[0] * direction).sum()
    )
    lie, _ = directional_derivatives(
        lambda: meta_loss(learner, episode).mean(), weight, direction, (1e-5, 2e-6)
    )
    assert abs(lie - exact) > 10 * abs(exact)
    with pytest.raises(AssertionError, match="two step sizes disagree"):
        check_meta_gradient(learner, episode)
    check_meta_gradient(learner, episode, steps=(4e-7, 2e-7))  # below the kink the truth shows


# -------------------------------------------------------------------- what leaks into a prediction


class TorchNormEncoder(Encoder):
    """torch's own batch norm: moves its buffers and looks at the batch in training mode."""

    episodic, out_features, in_shape = False, 6, (6,)

    def __init__(self, always_batch=False):
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.always_batch = always_batch

    def features(self, x, context):
        z = self.linear(x)
        if self.always_batch:
            return torch.tanh(F.batch_norm(z, None, None, training=True))
        return torch.tanh(self.norm(z))


class Vectors(LearnerConformance):
    input_shape = (6,)
    meta_steps = 20


def suite(factory, **attributes):
    class Suite(Vectors):
        def make_learner(self):
            return factory()

    for name, value in attributes.items():
        setattr(Suite, name, value)
    return Suite()


def test_buffers_moved_by_adapt_are_caught():
    with pytest.raises(AssertionError, match="running_mean"):
        suite(
            lambda: PrototypicalNetwork(TorchNormEncoder())
        ).test_adapt_and_predict_change_nothing()


def test_batch_statistics_over_the_queries_are_caught():
    broken = suite(lambda: PrototypicalNetwork(TorchNormEncoder(always_batch=True)))
    with pytest.raises(AssertionError, match="one at a time"):
        broken.test_queries_are_judged_alone()
    with pytest.raises(AssertionError, match="tasks one at a time"):
        broken.test_batched_tasks_equal_single_tasks()


def test_an_undeclared_transductive_head_is_caught_and_a_declared_one_is_not():
    class Transductive(PrototypeHead):
        def predict(self, state, x):
            return super().predict(state, x - x.mean(1, keepdim=True))

    class Declared(Transductive):
        transductive = True

    with pytest.raises(AssertionError, match="one at a time"):
        suite(Transductive).test_queries_are_judged_alone()
    suite(Declared).test_queries_are_judged_alone()


class LabelBiasedHead(PrototypeHead):
    def predict(self, state, x):
        logits = super().predict(state, x)
        return logits + 0.01 * torch.arange(logits.shape[2], dtype=x.dtype)


def test_sensitivity_to_label_permutation_is_caught():
    with pytest.raises(AssertionError, match="renamed labels"):
        suite(LabelBiasedHead).test_permuting_labels_permutes_predictions()


def test_sensitivity_to_support_order_and_padding_is_caught():
    class Recency(PrototypeHead):
        def adapt(self, support, *, n_way):
            weight = torch.linspace(0.5, 1.5, support.y.shape[1], dtype=support.x.dtype)
            x = support.x * weight[None, :, None]
            return super().adapt(Examples(x, support.y, support.mask), n_way=n_way)

    class Maskless(PrototypeHead):
        def adapt(self, support, *, n_way):
            everything = Examples.full(support.x, support.y.clamp(min=0))
            return super().adapt(everything, n_way=n_way)

    with pytest.raises(AssertionError, match="shuffled support"):
        suite(Recency).test_support_order_does_not_matter()
    with pytest.raises(AssertionError, match="support padded"):
        suite(Maskless).test_padding_has_no_effect()
    with pytest.raises(AssertionError, match="probability > 0"):
        suite(Maskless).test_an_absent_class_has_probability_zero()


class UnsquaredHead(PrototypeHead):
    def predict(self, state, x):
        return -(-super().predict(state, x)).clamp(min=1e-12).sqrt()


def test_unsquared_distance_is_not_linear_in_the_query():
    x = torch.randn(1, 6, 4, generator=generator(0), dtype=torch.float64)
    support = Examples.full(x, torch.tensor([[0, 0, 1, 1, 2, 2]]))
    a, b = torch.randn(2, 1, 1, 4, generator=generator(1), dtype=torch.float64)

    def bend(head):
        state = head.adapt(support, n_way=3)
        logits = head.predict(state, torch.cat([a, (a + b) / 2, b], 1))
        margin = logits[..., :2] - logits[..., 2:]  # differences of logits
        return float((margin[:, 1] - (margin[:, 0] + margin[:, 2]) / 2).abs().max())

    assert bend(PrototypeHead()) < 1e-12
    assert bend(UnsquaredHead()) > 1e-3


# ------------------------------------------------------------------ what is kept, and what is not


class ForgetfulHead(PrototypeHead):
    """Whitens with a scale that was fitted once, but is no buffer."""

    def __init__(self):
        super().__init__()
        self.scale = 1.0

    def adapt(self, support, *, n_way):
        x = support.x / self.scale
        return super().adapt(Examples(x, support.y, support.mask), n_way=n_way)

    def predict(self, state, x):
        return super().predict(state, x / self.scale)


def test_fitted_state_that_is_not_in_the_checkpoint_is_caught():
    class Suite(Vectors):
        def make_learner(self):
            return ForgetfulHead()

        def prepare(self, learner):
            learner.scale = 3.0

    with pytest.raises(AssertionError, match="register a buffer"):
        Suite().test_weights_survive_saving()


def test_weights_changed_by_evaluation_are_caught():
    class Learning(PrototypeHead):
        def predict(self, state, x):
            with torch.no_grad():
                self.log_scale.add_(0.1)
            return super().predict(state, x)

    with pytest.raises(AssertionError, match="evaluate changed"):
        suite(lambda: Learning(learn_temperature=True)).test_evaluation_changes_nothing()


def test_an_answer_that_depends_on_history_is_caught():
    class Counting(PrototypeHead):
        history = 0

        def predict(self, state, x):
            type(self).history += 1
            return super().predict(state, x * (-1) ** type(self).history)

    with pytest.raises(AssertionError, match="twice"):
        suite(Counting, trainable=False).test_evaluation_changes_nothing()


def test_a_graph_kept_across_meta_steps_is_caught():
    class Totalling(PrototypeHead):
        total = 0.0

        def predict(self, state, x):
            logits = super().predict(state, x)
            self.total = self.total + logits[torch.isfinite(logits)].mean()
            return logits

    class Hoarding(PrototypeHead):
        def __init__(self, **options):
            super().__init__(**options)
            self.seen = []

        def adapt(self, support, *, n_way):
            self.seen.append(support.x.detach().mean())
            return super().adapt(support, n_way=n_way)

    with pytest.raises((AssertionError, RuntimeError), match="graph"):
        suite(lambda: Totalling(learn_temperature=True)).test_memory_is_flat()
    with pytest.raises(AssertionError, match="tensors more"):
        suite(lambda: Hoarding(learn_temperature=True)).test_memory_is_flat()
    with pytest.raises(AssertionError, match="seen"):
        suite(lambda: Hoarding(learn_temperature=True)).test_adapt_and_predict_change_nothing()


def test_a_state_without_the_task_axis_is_caught():
    class Scalar(PrototypeHead):
        def adapt(self, support, *, n_way):
            return super().adapt(support, n_way=n_way) | {"n_way": torch.tensor([n_way] * 2)}

    with pytest.raises(ValueError, match="leading task axis"):
        suite(Scalar, trainable=False).test_state_has_the_task_axis()
