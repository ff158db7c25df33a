"""Certificates of the meta-gradient: closed forms with default arguments, every layer type, both
engines, both kinds of memory."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.core import ConfigError, Episode, EpisodeSpec, Examples, generator
from quickstudy.learners import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    InnerLoop,
    MetaSGD,
    ProtoMAML,
    Reptile,
    meta_loss,
)
from quickstudy.learners.gradient import TaskModule, descend
from quickstudy.nets import Conv4, ResNet12
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool

T, S, Q, D = 3, 7, 5, 4
F64 = torch.float64


def normal(*shape: int, stream: int, dtype: torch.dtype = F64) -> torch.Tensor:
    return torch.randn(shape, generator=generator(0, stream), dtype=dtype)


def regression(stream: int = 0) -> Episode:
    """Three tasks of linear regression."""
    sides = (S, 1), (Q, 5)
    return Episode(
        *(
            Examples.full(normal(T, n, D, stream=stream + s), normal(T, n, stream=stream + s + 1))
            for n, s in sides
        ),
        1,
    )


def linear_net() -> nn.Module:
    net = nn.Linear(D, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(normal(1, D, stream=90))
    return net


def pieces(episode: Episode, w: torch.Tensor, lr: float, steps: int):
    """Return each task's w after plain gradient descent, its Hessian, and the query's gradient."""
    x, y = episode.support.x, episode.support.y
    hessian = 2 / x.shape[1] * x.transpose(1, 2) @ x  # [T, D, D]
    after = w.expand(len(x), -1)
    for _ in range(steps):
        slope = (hessian @ after[..., None])[..., 0] - 2 / x.shape[1] * (
            x.transpose(1, 2) @ y[..., None]
        )[..., 0]
        after = after - lr * slope
    xq, yq = episode.query.x, episode.query.y
    error = (xq @ after[..., None])[..., 0] - yq
    query = 2 / xq.shape[1] * (xq.transpose(1, 2) @ error[..., None])[..., 0]
    return after, hessian, query


WHERE = {"device": "cpu"}


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(
                not torch.cuda.is_available(), reason="no CUDA device on this machine"
            ),
        ),
    ]
)
def on_each_device(request, monkeypatch):
    monkeypatch.setitem(WHERE, "device", request.param)


def gradient_of(learner, episode) -> dict[str, torch.Tensor]:
    """Return the meta-gradient, computed on the device of the test."""
    learner.to(WHERE["device"])
    loss = learner.train().training_loss(episode.to(WHERE["device"]), progress=1.0).mean()
    names, values = zip(*learner.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, values)
    learner.to("cpu")
    return {name: gradient.cpu() for name, gradient in zip(names, found, strict=True)}


# ---------------------------------------------------------------------------- closed forms


@pytest.mark.usefixtures("on_each_device")
def test_maml_on_linear_regression():
    learner, episode = MAML(linear_net(), head=None), regression()
    lr, steps = learner.inner.lr, learner.inner.steps
    _, hessian, query = pieces(episode, normal(D, stream=90), lr, steps)
    jacobian = torch.linalg.matrix_power(torch.eye(D, dtype=F64) - lr * hessian, steps)
    expected = (jacobian.transpose(1, 2) @ query[..., None])[..., 0].mean(0)
    got = gradient_of(learner, episode)["net.weight"][0]
    assert torch.allclose(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("memory", ["flat", "unrolled"])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.usefixtures("on_each_device")
def test_maml_on_linear_regression_with_more_steps(memory, steps):
    loop = InnerLoop(steps=steps, lr=0.05, memory=memory)
    learner, episode = MAML(linear_net(), head=None, inner=loop), regression()
    _, hessian, query = pieces(episode, normal(D, stream=90), 0.05, steps)
    jacobian = torch.linalg.matrix_power(torch.eye(D, dtype=F64) - 0.05 * hessian, steps)
    expected = (jacobian.transpose(1, 2) @ query[..., None])[..., 0].mean(0)
    got = gradient_of(learner, episode)["net.weight"][0]
    assert torch.allclose(got, expected, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("on_each_device")
def test_fomaml_on_linear_regression_is_the_gradient_at_the_adapted_parameters():
    learner, episode = FOMAML(linear_net(), head=None), regression()
    _, _, query = pieces(episode, normal(D, stream=90), learner.inner.lr, learner.inner.steps)
    got = gradient_of(learner, episode)["net.weight"][0]
    assert torch.allclose(got, query.mean(0), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("on_each_device")
def test_meta_sgd_on_linear_regression():
    learner, episode = MetaSGD(linear_net(), head=None).double(), regression()
    # the rate as it is: 0.4 in float32, widened
    w, lr = normal(D, stream=90), float(learner.rates["net/weight"].detach()[0, 0, 0])
    after, hessian, query = pieces(episode, w, lr, 1)
    found = gradient_of(learner, episode)
    jacobian = torch.eye(D, dtype=F64) - lr * hessian
    expected = (jacobian.transpose(1, 2) @ query[..., None])[..., 0].mean(0)
    assert torch.allclose(found["net.weight"][0], expected, rtol=0, atol=1e-10)
    slope = (w - after) / lr  # [T, D]
    assert torch.allclose(found["rates.net/weight"][0, 0], -(query * slope).mean(0), atol=1e-10)


@pytest.mark.usefixtures("on_each_device")
def test_anil_on_linear_regression():
    """The head is adapted, with a bias: regression on inputs with a column of ones."""
    learner, episode = ANIL(nn.Identity(), n_way=1, features=D).double(), regression()

    def ones(side):
        return Examples.full(torch.cat([side.x, torch.ones(T, side.x.shape[1], 1)], 2), side.y)

    wide = Episode(ones(episode.support), ones(episode.query), 1)
    start = torch.cat([learner.head.weight[0], learner.head.bias]).detach()
    lr, steps = learner.inner.lr, learner.inner.steps
    _, hessian, query = pieces(wide, start, lr, steps)
    jacobian = torch.linalg.matrix_power(torch.eye(D + 1, dtype=F64) - lr * hessian, steps)
    expected = (jacobian.transpose(1, 2) @ query[..., None])[..., 0].mean(0)
    found = gradient_of(learner, episode)
    got = torch.cat([found["head.weight"][0], found["head.bias"]])
    assert torch.allclose(got, expected, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("on_each_device")
def test_imaml_on_linear_regression_is_the_derivative_of_the_minimum():
    # the implicit gradient holds at the minimum: unlike the others, it needs enough steps
    strength = 2.0
    loop = InnerLoop(steps=3000, lr=0.05)
    learner = IMAML(linear_net(), head=None, inner=loop, strength=strength, solver_steps=D)
    episode = regression()
    w = normal(D, stream=90)
    x, y = episode.support.x, episode.support.y
    hessian = 2 / S * x.transpose(1, 2) @ x
    inverse = torch.linalg.inv(hessian + strength * torch.eye(D, dtype=F64))
    right = 2 / S * (x.transpose(1, 2) @ y[..., None])[..., 0] + strength * w
    minimum = (inverse @ right[..., None])[..., 0]
    state = learner.eval().adapt(episode.support, n_way=1)
    assert torch.allclose(state["net.weight"][:, 0], minimum, rtol=0, atol=1e-10)
    xq, yq = episode.query.x, episode.query.y
    error = (xq @ minimum[..., None])[..., 0] - yq
    query = 2 / Q * (xq.transpose(1, 2) @ error[..., None])[..., 0]
    expected = (strength * inverse @ query[..., None])[..., 0].mean(0)
    got = gradient_of(learner, episode)["net.weight"][0]
    assert torch.allclose(got, expected, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("on_each_device")
def test_imaml_with_default_arguments_is_the_implicit_formula_where_the_loop_ended():
    learner, episode = IMAML(linear_net(), head=None), regression()
    phi = learner.adapt(episode.support, n_way=1)["net.weight"][:, 0].detach()
    x = episode.support.x
    hessian = 2 / S * x.transpose(1, 2) @ x
    xq, yq = episode.query.x, episode.query.y
    error = (xq @ phi[..., None])[..., 0] - yq
    query = 2 / Q * (xq.transpose(1, 2) @ error[..., None])[..., 0]
    system = torch.eye(D, dtype=F64) + hessian / 2.0
    # five steps of conjugate gradients solve a system of four unknowns
    expected = torch.linalg.solve(system, query).mean(0)
    got = gradient_of(learner, episode)["net.weight"][0]
    assert torch.allclose(got, expected, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("on_each_device")
def test_one_step_of_reptile_is_joint_training():
    episode = regression()
    learner = Reptile(linear_net(), head=None, inner=InnerLoop(steps=1, lr=0.03))
    x = torch.cat([episode.support.x, episode.query.x], 1)
    y = torch.cat([episode.support.y, episode.query.y], 1)
    w = learner.net.weight
    joint = (F.linear(x, w)[..., 0] - y).square().mean(1).mean()
    (expected,) = torch.autograd.grad(joint, w)
    got = gradient_of(learner, episode)["net.weight"]
    assert torch.allclose(got, 0.03 * expected, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("on_each_device")
def test_reptile_goes_from_the_start_to_where_plain_training_ends():
    episode = regression()
    learner = Reptile(linear_net(), head=None)
    x = torch.cat([episode.support.x, episode.query.x], 1)
    y = torch.cat([episode.support.y, episode.query.y], 1)
    joint = Episode(Examples.full(x, y), episode.query, 1)
    w = normal(D, stream=90)
    after, _, _ = pieces(joint, w, learner.inner.lr, learner.inner.steps)
    got = gradient_of(learner, episode)["net.weight"][0]
    assert torch.allclose(got, w - after.mean(0), rtol=0, atol=1e-10)


def test_reptile_minibatches_are_balanced_and_cover_the_task():
    from quickstudy.learners.gradient.reptile import _cut

    y = torch.tensor([[0, 1, 2, 0, 0, 1, 2, 1, 2, 0, 1, 2]])
    x = torch.arange(12.0)[None, :, None]
    parts = _cut(Examples.full(x, y), 4)
    assert [sorted(p.y[0].tolist()) for p in parts] == [[0, 1, 2]] * 4
    assert sorted(torch.cat([p.x[0, :, 0] for p in parts]).tolist()) == list(range(12))
    uneven = Examples.full(x, torch.tensor([[0] * 8 + [1] * 2 + [2] * 2]))
    assert len(_cut(uneven, 4)) == 1


# ------------------------------------------------------------------- first and second order


def classification(shape=(6,), *, way=3, shot=3) -> Episode:
    pool = gaussian_pool(8, 12, shape)
    episode = PoolSource(pool).episodes(EpisodeSpec(way, shot, 3), range(T), seed=0)
    return episode.to("cpu", F64)


def tanh_net(inputs=6, outputs=5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 7), nn.Tanh(), nn.Linear(7, outputs)).double()


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.flatten() for g in gradients.values()])


@pytest.mark.usefixtures("on_each_device")
def test_first_order_is_visibly_different_where_the_loss_bends():
    episode, found = classification(), {}
    for learner in (MAML, FOMAML):
        torch.manual_seed(1)
        made = learner(tanh_net(), n_way=3, features=5, inner=InnerLoop(steps=3)).double()
        found[learner] = flat(gradient_of(made, episode))
    assert float((found[MAML] - found[FOMAML]).norm() / found[MAML].norm()) > 0.05


def test_first_order_is_second_order_where_the_hessian_vanishes():
    """A support loss that is linear in the parameters, and a query loss that is not."""

    def loss(params, context, step):
        return (params["w"] * context[0]).sum(1)

    found = []
    for order in ("first", "second"):
        for memory in ("flat", "unrolled"):
            w = normal(D, stream=1).requires_grad_()
            (after,) = descend(
                loss,
                {"w": w.expand(T, D)},
                {"w": torch.full((1,), 0.3, dtype=F64)},
                steps=3,
                context=(normal(T, D, stream=2),),
                order=order,
                memory=memory,
            )
            found += torch.autograd.grad(torch.tanh(after["w"]).sum(), w)
    assert all(torch.equal(found[0], other) for other in found[1:])


# ------------------------------------------------------------- engines, layers, memory


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer = kind(3, 5, batch_first=True)
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.layer(x)[0][:, -1])


class SmallTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.layer = nn.TransformerEncoderLayer(
            8, 2, 16, dropout=0.0, batch_first=True, activation="gelu"
        )
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.layer(self.first(x)).mean(1))


IMAGE, SEQUENCE = (2, 8, 8), (4, 3)
LAYERS = {
    "linear": lambda: (
        nn.Sequential(nn.Flatten(), nn.Linear(128, 6), nn.Tanh(), nn.Linear(6, 3)),
        IMAGE,
    ),
    "batch norm, pooling, groups": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 4, 3, 2, 1, groups=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.BatchNorm1d(16, affine=False, track_running_stats=False),
            nn.Linear(16, 3),
        ),
        IMAGE,
    ),
    "named padding": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding="same"), nn.Tanh(), nn.Flatten(), nn.Linear(256, 3)
        ),
        IMAGE,
    ),
    "reflected padding, dilation": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=2, dilation=2, padding_mode="reflect"),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        ),
        IMAGE,
    ),
    "group norm": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3)
        ),
        IMAGE,
    ),
    "layer and instance norm": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.InstanceNorm2d(4, affine=True),
            nn.Tanh(),
            nn.LayerNorm([4, 6, 6]),
            nn.Flatten(),
            nn.Linear(144, 3),
        ),
        IMAGE,
    ),
    "transposed convolution": lambda: (
        nn.Sequential(
            nn.ConvTranspose2d(2, 4, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(100, 3)
        ),
        IMAGE,
    ),
    "convolution in one dimension": lambda: (
        nn.Sequential(
            nn.Flatten(2),
            nn.Conv1d(2, 4, 3),
            nn.BatchNorm1d(4, track_running_stats=False),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(248, 3),
        ),
        IMAGE,
    ),
    "LSTM": lambda: (Recurrent(nn.LSTM), SEQUENCE),
    "GRU": lambda: (Recurrent(nn.GRU), SEQUENCE),
    "transformer": lambda: (SmallTransformer(), SEQUENCE),
}


def layer_gradient(net, shape, engine, memory, order):
    learner = MAML(
        net,
        head=None,
        inner=InnerLoop(steps=2, lr=0.1, memory=memory),
        engine=engine,
        order=order,
    ).double()
    return flat(gradient_of(learner, classification(shape)))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.usefixtures("on_each_device")
def test_batched_over_tasks_equals_one_by_one_for_every_layer(layer, order):
    torch.manual_seed(0)
    net, shape = LAYERS[layer]()
    expected = layer_gradient(net, shape, "loop", "unrolled", order)
    for engine, memory in itertools.product(("auto", "loop"), ("flat", "unrolled")):
        got = layer_gradient(net, shape, engine, memory, order)
        assert float((got - expected).norm() / expected.norm()) < 1e-10, (engine, memory)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Conv4(image_size=16, channels=4, norm="support"),
        lambda: Conv4(image_size=16, channels=16, norm="group", downsample="stride"),
        lambda: ResNet12(in_channels=1, image_size=16, widths=(4, 4, 4, 4), norm="support"),
    ],
)
@pytest.mark.usefixtures("on_each_device")
def test_our_encoders_batched_over_tasks_equal_one_by_one(make):
    episode, found = classification((1, 16, 16)), {}
    for engine, memory in itertools.product(("batched", "loop"), ("flat", "unrolled")):
        torch.manual_seed(0)
        learner = ProtoMAML(make(), inner=InnerLoop(steps=2, lr=0.1, memory=memory), engine=engine)
        found[engine, memory] = flat(gradient_of(learner.double(), episode))
    expected = found["loop", "unrolled"]
    for got in found.values():
        assert float((got - expected).norm() / expected.norm()) < 1e-10


def test_an_lstm_runs_one_by_one_and_says_why():
    module = TaskModule(Recurrent(nn.LSTM))
    params = {n: p.expand(2, *p.shape) for n, p in module.module.named_parameters()}
    module(params, torch.randn(2, 5, *SEQUENCE))
    assert "lstm" in module.why_loop
    with pytest.raises(ConfigError, match="Set engine='loop'"):
        TaskModule(Recurrent(nn.LSTM), "batched")(params, torch.randn(2, 5, *SEQUENCE))


@pytest.mark.usefixtures("on_each_device")
def test_second_order_is_right_in_float32_too():
    """Where native kernels exist for float32 alone, as for recurrent layers."""
    for layer in ("LSTM", "batch norm, pooling, groups"):
        torch.manual_seed(0)
        net, shape = LAYERS[layer]()
        expected = layer_gradient(net, shape, "loop", "unrolled", "second")
        loop = InnerLoop(steps=2, lr=0.1, memory="flat")
        learner = MAML(net, head=None, inner=loop).float()
        got = flat(gradient_of(learner, classification(shape).to("cpu", torch.float32)))
        assert float((got - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize(
    "make",
    [
        lambda loop: MAML(Conv4(image_size=16, channels=4, norm="support"), n_way=3, inner=loop),
        lambda loop: MAML(
            Conv4(image_size=16, channels=4, norm="support"),
            head="shared",
            rates="layer-step",
            inner=loop,
        ),
        lambda loop: ProtoMAML(Conv4(image_size=16, channels=4, norm="support"), inner=loop),
        lambda loop: MetaSGD(Conv4(image_size=16, channels=4, norm="support"), inner=loop),
        lambda loop: ANIL(Conv4(image_size=16, channels=4, norm="support"), inner=loop),
    ],
)
@pytest.mark.usefixtures("on_each_device")
def test_flat_memory_gives_the_unrolled_gradient(make):
    episode, found = classification((1, 16, 16)), []
    for memory in ("flat", "unrolled"):
        torch.manual_seed(0)
        learner = make(InnerLoop(steps=5, lr=0.1, clip=1.0, memory=memory)).double()
        found.append(flat(gradient_of(learner, episode)))
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 1e-10


@pytest.mark.usefixtures("on_each_device")
def test_learned_rates_get_their_gradient():
    """Also beyond the closed form: the difference quotient of each rate."""
    torch.manual_seed(0)
    learner = MAML(
        tanh_net(), n_way=3, features=5, rates="layer-step", inner=InnerLoop(steps=3, memory="flat")
    ).double()
    episode = classification()
    found = gradient_of(learner, episode)
    checked = 0
    for name, rate in learner.rates.named_parameters():
        for k in range(3):
            with torch.no_grad():
                high, low = rate.clone(), rate.clone()
                high[k] += 1e-5
                low[k] -= 1e-5
                before = rate.clone()
                rate.copy_(high)
                up = meta_loss(learner, episode).mean()
                rate.copy_(low)
                down = meta_loss(learner, episode).mean()
                rate.copy_(before)
            slope = float(up - down) / 2e-5
            assert slope == pytest.approx(float(found[f"rates.{name}"][k]), rel=1e-5, abs=1e-8)
            checked += 1
    assert checked == 18
