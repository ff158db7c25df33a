"""Neural processes against plain loops over examples, heads and tasks, written from the papers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from quickstudy.core import ConfigError, Episode, EpisodeSpec, Examples, TaskError
from quickstudy.learners import AttentiveNeuralProcess, ConditionalNeuralProcess
from quickstudy.learners.base import EmbeddingLearner
from quickstudy.learners.incontext import (
    AttentiveProcessHead,
    ConditionalProcessHead,
    MultiheadAttention,
)
from quickstudy.nets import MLP, Conv4, Identity
from quickstudy.runs import load_learner, save_learner
from quickstudy.tasks import SinusoidSource


def net():
    return MLP((1,), (6, 5), activation=nn.Tanh, last_activation=True)


KINDS = {
    "cnp": lambda: ConditionalNeuralProcess(net(), width=8, depth=2, floor=0.05),
    "anp": lambda: AttentiveNeuralProcess(net(), width=8, depth=2, heads=2, blocks=2, floor=0.05),
    "anp, no blocks": lambda: AttentiveNeuralProcess(net(), width=8, heads=4, blocks=0),
}


def made(name: str) -> EmbeddingLearner:
    torch.manual_seed(1)
    learner = KINDS[name]().double().eval()
    with torch.no_grad():  # norms are the identity at first, and biases small
        for parameter in learner.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return learner


def episode(shots=(2, 6)) -> Episode:
    drawn = SinusoidSource("val").episodes(EpisodeSpec(1, shots, 4), range(5), seed=0)
    sides = (Examples(s.x.double(), s.y.double(), s.mask) for s in (drawn.support, drawn.query))
    return Episode(*sides, 1)


# ------------------------------------------------------------------ references


def linear(layer: nn.Linear, v: list[float]) -> list[float]:
    bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
    rows = layer.weight.tolist()
    return [
        sum(w * x for w, x in zip(r, v, strict=True)) + b for r, b in zip(rows, bias, strict=True)
    ]


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def layers(stack: nn.Sequential, v: list[float]) -> list[float]:
    for layer in stack:
        v = linear(layer, v) if isinstance(layer, nn.Linear) else [gelu(x) for x in v]
    return v


def norm(layer: nn.LayerNorm, v: list[float]) -> list[float]:
    mean = sum(v) / len(v)
    spread = math.sqrt(sum((x - mean) ** 2 for x in v) / len(v) + layer.eps)
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [(x - mean) / spread * w + b for x, w, b in zip(v, weight, bias, strict=True)]


def attend(layer: MultiheadAttention, query, keys, values) -> list[float]:
    """Vaswani et al. (2017), section 3.2.2, one query."""
    q, ks, vs = (
        linear(layer.query, query),
        [linear(layer.key, k) for k in keys],
        [linear(layer.value, v) for v in values],
    )
    size = len(q) // layer.heads
    joined: list[float] = []
    for head in range(layer.heads):
        part = slice(head * size, (head + 1) * size)
        scores = [
            sum(a * b for a, b in zip(q[part], k[part], strict=True)) / math.sqrt(size) for k in ks
        ]
        weights = [math.exp(s - max(scores)) for s in scores]
        total = sum(weights)
        joined += [
            sum(w / total * v[part][d] for w, v in zip(weights, vs, strict=True))
            for d in range(size)
        ]
    return linear(layer.out, joined)


def answered(learner, points, query: float) -> tuple[float, float]:
    """Return mean and deviation of one query, given points (x, y)."""
    head = learner.head

    def embed(x: float) -> list[float]:
        return learner.encoder.encode(torch.tensor([[[x]]]).double())[0][0, 0].tolist()

    said = [layers(head.pair, [*embed(x), y]) for x, y in points]
    if isinstance(head, ConditionalProcessHead):
        read = [sum(v) / len(said) for v in zip(*said, strict=True)]
    else:
        for block in head.blocks:
            y = [norm(block.before_attention, v) for v in said]
            moved = [
                [a + b for a, b in zip(v, attend(block.attention, own, y, y), strict=True)]
                for v, own in zip(said, y, strict=True)
            ]
            said = [
                [
                    a + b
                    for a, b in zip(
                        v,
                        linear(
                            block.outer,
                            [gelu(x) for x in linear(block.inner, norm(block.before_layer, v))],
                        ),
                        strict=True,
                    )
                ]
                for v in moved
            ]
        read = attend(head.reading, embed(query), [embed(x) for x, _ in points], said)
    mean, raw = layers(head.answer, [*embed(query), *read])
    return mean, head.floor + math.log1p(math.exp(raw))


# ------------------------------------------------------------------ tests


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_answers_are_those_of_a_plain_loop(name):
    learner, tasks = made(name), episode()
    state = learner.adapt(tasks.support, n_way=1)
    said = learner.predictive(state, tasks.query.x)
    assert torch.equal(learner.predict(state, tasks.query.x)[..., 0], said.mean)
    for t in range(tasks.n_tasks):
        real = tasks.support.mask[t]
        x, y = tasks.support.x[t, real, 0].tolist(), tasks.support.y[t, real].tolist()
        for q, query in enumerate(tasks.query.x[t, :, 0].tolist()):
            wanted = answered(learner, list(zip(x, y, strict=True)), query)
            got = float(said.mean[t, q]), float(said.deviation[t, q])
            assert got == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_the_negative_log_likelihood(name):
    learner, tasks = made(name), episode()
    mask = tasks.query.mask.clone()
    mask[0, 1:] = False
    x = tasks.query.x.masked_fill(~mask[..., None], math.nan)
    y = tasks.query.y.masked_fill(~mask, math.nan)
    loss = learner.training_loss(Episode(tasks.support, Examples(x, y, mask), 1), progress=0.5)
    with torch.no_grad():
        said = learner.predictive(learner.adapt(tasks.support, n_way=1), tasks.query.x)
    for t, value in enumerate(loss.tolist()):
        terms = [
            0.5 * ((float(tasks.query.y[t, q]) - m) / s) ** 2 + math.log(s * math.sqrt(2 * math.pi))
            for q, (m, s) in enumerate(
                zip(said.mean[t].tolist(), said.deviation[t].tolist(), strict=True)
            )
            if mask[t, q]
        ]
        assert value == pytest.approx(sum(terms) / len(terms), rel=1e-10)
    loss.mean().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters())


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_order_and_padding_change_nothing(name):
    learner, tasks = made(name), episode(shots=6)
    s = tasks.support
    wanted = learner.predictive(learner.adapt(s, n_way=1), tasks.query.x)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    gap = torch.full_like(s.y[:, :1], math.nan)
    others = {
        "order": Examples(s.x[:, order], s.y[:, order], s.mask[:, order]),
        "padding": Examples(
            torch.cat([gap[..., None], s.x[:, :2], gap[..., None], s.x[:, 2:]], 1),
            torch.cat([gap, s.y[:, :2], gap, s.y[:, 2:]], 1),
            torch.cat([gap == 0, s.mask[:, :2], gap == 0, s.mask[:, 2:]], 1),
        ),
    }
    for support in others.values():
        said = learner.predictive(learner.adapt(support, n_way=1), tasks.query.x)
        torch.testing.assert_close(said.mean, wanted.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(said.deviation, wanted.deviation, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_the_deviation_has_a_floor(name):
    learner, tasks = made(name), episode()
    learner.head.answer[-1].bias[1] = -1e3  # softplus of it is zero
    said = learner.predictive(learner.adapt(tasks.support, n_way=1), tasks.query.x)
    assert float(said.deviation.min()) == pytest.approx(learner.head.floor)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_a_saved_learner_says_the_same(name, tmp_path):
    learner, tasks = made(name).float(), episode().to("cpu", torch.float32)
    tasks = Episode(
        Examples(tasks.support.x, tasks.support.y.float(), tasks.support.mask), tasks.query, 1
    )
    save_learner(learner, tmp_path / "saved")
    other = load_learner(tmp_path / "saved", encoder=net())
    said, again = (
        one.predictive(one.adapt(tasks.support, n_way=1), tasks.query.x) for one in (learner, other)
    )
    assert torch.equal(said.mean, again.mean)
    assert torch.equal(said.deviation, again.deviation)


def test_a_few_steps_of_training_lower_the_loss():
    torch.manual_seed(0)
    learner = AttentiveNeuralProcess(net(), width=16, heads=2, blocks=1)
    source, spec = SinusoidSource("train"), EpisodeSpec(1, 8, 10)
    optimiser = torch.optim.Adam(learner.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        ids = range(16 * step, 16 * step + 16)
        loss = learner.training_loss(source.episodes(spec, ids, seed=0), progress=0.0).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.3


@pytest.mark.parametrize("name", KINDS)
def test_classes_and_states_of_others_are_refused(name):
    learner, tasks = made(name), episode()
    s = tasks.support
    with pytest.raises(TaskError, match="is for regression"):
        learner.adapt(Examples(s.x, torch.zeros_like(s.y).long(), s.mask), n_way=1)
    state = made("cnp" if name != "cnp" else "anp").adapt(s, n_way=1)
    with pytest.raises(TaskError, match="another learner"):
        learner.predict(state, tasks.query.x)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="multiple of heads"):
        AttentiveProcessHead(3, width=10, heads=4)
    for setting in ({"floor": 0.0}, {"floor": math.nan}, {"depth": 0}, {"width": 0}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            ConditionalProcessHead(3, **setting)
    with pytest.raises(ConfigError, match="norm='support'"):
        ConditionalNeuralProcess(Conv4(norm="support"))


def test_a_class_of_ones_own_that_answers_itself_does_not_speak_for_the_head():
    class Own(ConditionalNeuralProcess):
        def predict(self, state, x):
            return 2 * super().predict(state, x)

    learner, tasks = Own(Identity((1,))).double(), episode()
    state = learner.adapt(tasks.support, n_way=1)
    assert learner.predictive(state, tasks.query.x) is None
