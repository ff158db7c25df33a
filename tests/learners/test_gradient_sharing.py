"""Networks that hold a part twice, change something in place, or look at the whole batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.core import ConfigError, Episode, Examples, TaskError, generator
from quickstudy.learners import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    InnerLoop,
    MetaSGD,
    ProtoMAML,
    Reptile,
)
from quickstudy.testing import check_meta_gradient, snapshot

LEARNERS = [MAML, FOMAML, MetaSGD, ANIL, ProtoMAML, Reptile, IMAML]


def normal(*shape, stream=0):
    return torch.randn(shape, generator=generator(3, stream), dtype=torch.float64)


def episode(tasks=3):
    y = torch.arange(2).repeat(4).expand(tasks, -1).contiguous()
    return Episode(*(Examples.full(normal(tasks, 8, 4, stream=s), y) for s in (1, 2)), 2)


# ------------------------------------------------------------------------ one part, two names


class Sharing(nn.Module):
    """Returns the layers' output; the layers are registered a second time."""

    def __init__(self, *layers, again):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.again = again(self.layers)

    def forward(self, x):
        return self.layers(x)


def repeated():
    layer = nn.Linear(4, 4)
    return nn.Sequential(*nn.ModuleList([layer] * 3), nn.Tanh())


def activation():
    act = nn.PReLU()
    return nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 4))


def registered_twice():
    return Sharing(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4), again=lambda m: nn.Sequential(m))


def part_registered_twice():
    return Sharing(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4), again=lambda m: m[0])


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(nn.Linear(2, 4), nn.Tanh())
        self.right = self.left

    def forward(self, x):
        return self.left(x[:, :2]) - self.right(x[:, 2:])


class Tied(nn.Module):
    """One parameter and one buffer, each in two modules."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.a.register_buffer("shift", torch.full((4,), 0.1))
        self.b.register_buffer("shift", self.a.shift)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x) + self.a.shift)) + self.b.shift


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.GRU(2, 4, batch_first=True)
        self.two = self.one

    def forward(self, x):
        return self.one(x.view(-1, 2, 2))[0][:, -1] + self.two(x.view(-1, 2, 2))[0][:, 0]


NETS = [repeated, activation, registered_twice, part_registered_twice, Siamese, Tied, Recurrent]


def build(kind, make, **options):
    torch.manual_seed(0)
    ways = {} if kind is ProtoMAML else {"n_way": 2}
    loop = InnerLoop(steps=2, lr=0.1)
    return kind(make().double(), features=4, inner=loop, **ways, **options).double()


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("kind", LEARNERS)
def test_a_part_under_two_names_stays_the_learners_own(make, kind):
    batch, answers = episode(), []
    for engine in ("auto", "loop"):
        learner = build(kind, make, engine=engine)
        own, before = dict(learner.named_parameters()), snapshot(learner)
        with torch.no_grad():
            states = [learner.adapt(batch.support, n_way=2) for _ in range(2)]
            one = learner.adapt(batch.support.tasks(slice(0, 1)), n_way=2)
        for name, value in states[0].items():
            assert torch.equal(value, states[1][name])
            assert torch.allclose(value[:1], one[name], rtol=0, atol=1e-12)
        for _ in range(2):
            learner.training_loss(batch, progress=1.0).sum().backward()
        answers.append([p.grad.clone() for p in learner.parameters() if p.grad is not None])
        assert snapshot(learner) == before
        assert all(p is own[name] for name, p in learner.named_parameters())
    for a, b in zip(*answers, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [m for m in NETS if m is not activation])
def test_the_meta_gradient_through_a_shared_part_is_the_central_difference(make):
    check_meta_gradient(build(MAML, make), episode())


class Failing(Tied):
    def forward(self, x):
        out = super().forward(x)
        if len(x) == 8:
            raise KeyError("in the middle")
        return out


@pytest.mark.parametrize("engine", ["batched", "loop"])
def test_an_error_in_the_network_leaves_the_learner_as_it_was(engine):
    learner = build(MAML, Failing, engine=engine)
    own, before = dict(learner.named_parameters()), snapshot(learner)
    with pytest.raises(KeyError, match="in the middle"):
        learner.adapt(episode().support, n_way=2)
    assert snapshot(learner) == before
    assert all(p is own[name] for name, p in learner.named_parameters())


# ----------------------------------------------------------------------- changes in place


class Changing(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Linear(4, 4), change
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        x = self.change(self, x)
        return self.layer(x)


def clamped(net, x):
    with torch.no_grad():
        net.layer.weight.clamp_(-0.1, 0.1)
    return x


def data_clamped(net, x):
    net.layer.weight.data.clamp_(-0.1, 0.1)
    return x


def row_set(net, x):
    with torch.no_grad():
        net.layer.weight[0] = 0.0
    return x


def written_out_to(net, x):
    with torch.no_grad():
        torch.neg(net.layer.bias, out=net.layer.bias)
    return x


def normalised(net, x):
    with torch.no_grad():
        F.normalize(net.layer.weight, out=net.layer.weight)
    return x


def counted_anew(net, x):
    net.count = net.count + 1
    return x


def parameter_anew(net, x):
    net.layer.bias = nn.Parameter(torch.ones_like(x[0]))
    return x


def new_buffer(net, x):
    net.register_buffer("last", torch.zeros(()))
    return x


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize(
    "change",
    [
        clamped,
        data_clamped,
        row_set,
        written_out_to,
        normalised,
        counted_anew,
        parameter_anew,
        new_buffer,
        lambda net, x: x.mul_(2),
        lambda net, x: F.relu(x, inplace=True),
        lambda net, x: x.__iadd__(1.0),
    ],
)
def test_what_changes_a_parameter_or_the_input_is_refused_before_it_does(change, engine, steps):
    for kind in (MAML, IMAML):
        learner = kind(Changing(change).double(), n_way=2, features=4, engine=engine).double()
        learner.inner = InnerLoop(steps=steps)
        batch, before = episode(), snapshot(learner)
        x = batch.support.x.clone()
        with pytest.raises(ConfigError, match=r"in place|changes .* when it is called"):
            learner.adapt(batch.support, n_way=2)
        assert snapshot(learner) == before
        assert torch.equal(batch.support.x, x)


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_an_activation_in_place_on_the_input_works_and_leaves_the_input(engine):
    answers = []
    for inplace in (False, True):
        learner = build(
            MAML, lambda inplace=inplace: nn.Sequential(nn.ELU(inplace=inplace), nn.Linear(4, 4)),
            engine=engine,
        )  # fmt: skip
        batch = episode()
        x = batch.support.x.clone()
        answers.append(learner.training_loss(batch, progress=1.0))
        assert torch.equal(batch.support.x, x)
    assert torch.equal(*answers)


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.weights = [self.layer.weight]

    def forward(self, x):
        return x @ self.weights[0]


def test_parameters_in_a_plain_list_are_refused():
    with pytest.raises(ConfigError, match=r"weights, a plain list.*nn\.ParameterList"):
        MAML(Hidden(), n_way=2, features=4)
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        compiled = torch.jit.script(nn.Linear(4, 4))
    with pytest.raises(ConfigError, match="compiled by TorchScript"):
        MAML(compiled, n_way=2, features=4)


class HiddenLayers(nn.Module):
    """Keeps layers in a plain list; registers them under other names too, or not."""

    def __init__(self, *, registered: bool):
        super().__init__()
        self.blocks = [nn.Linear(4, 4), nn.Tanh()]
        if registered:
            self.first = self.blocks[0]

    def forward(self, x):
        return self.blocks[1](self.blocks[0](x))


def test_layers_in_a_plain_list_are_refused_unless_they_are_registered_as_well():
    with pytest.raises(ConfigError, match=r"blocks, a plain list.*nn\.ModuleList"):
        MAML(HiddenLayers(registered=False), n_way=2, features=4)
    learner = MAML(HiddenLayers(registered=True), n_way=2, features=4)
    assert any(name.endswith("first.weight") for name, _ in learner.named_parameters())


# ------------------------------------------------------------------- statistics of the batch


class ByHand(nn.Module):
    def __init__(self, normalise):
        super().__init__()
        self.first, self.last, self.normalise = nn.Linear(4, 4), nn.Linear(4, 2), normalise

    def forward(self, x):
        return self.last(torch.tanh(self.normalise(self.first(x))))


def functional(z):
    return F.batch_norm(z, None, None, training=True)


def lower(z):
    return torch.batch_norm(z, None, None, None, None, True, 0.1, 1e-5, True)


def centred(z):
    return z - z.mean(0)


def attended(z):
    return F.scaled_dot_product_attention(z[None], z[None], z[None])[0]


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize("normalise", [functional, lower])
def test_batch_norm_called_as_a_function_is_followed_like_a_layer(normalise, engine, tasks):
    batch, answers = episode(tasks), []
    for make in (
        lambda: normalise,
        lambda: nn.BatchNorm1d(4, affine=False, track_running_stats=False),
    ):
        torch.manual_seed(0)
        learner = MAML(ByHand(make()).double(), head=None, n_way=2, engine=engine)
        assert not learner.transductive
        with torch.no_grad():
            state = learner.adapt(batch.support, n_way=2)
            together = learner.predict(state, batch.query.x)
            alone = torch.cat(
                [learner.predict(state, batch.query.x[:, q : q + 1]) for q in range(8)], 1
            )
        assert torch.allclose(alone, together, rtol=0, atol=1e-12)
        answers.append(together)
        # a state of no steps needs the statistics too
        still = learner.with_inner_steps(0).eval()
        first = still.predict(still.adapt(batch.support, n_way=2), batch.query.x[:, :1])
        assert torch.isfinite(first).all()
    assert torch.allclose(*answers, rtol=0, atol=1e-12)


def test_a_network_that_may_look_around_is_declared_so():
    batch = episode()
    learner = MAML(ByHand(functional).double(), head=None, n_way=2, query_statistics="query")
    assert learner.transductive
    learner.adapt(batch.support, n_way=2)
    assert learner.transductive
    assert not learner.inductive().transductive
    twin = learner.inductive().transductive_twin()
    assert twin is not None
    assert twin.transductive
    # a network of PyTorch's layers has none to call
    plain = MAML(nn.Linear(4, 2), head=None, n_way=2, query_statistics="query")
    assert not plain.transductive
    own = MAML(ByHand(torch.tanh).double(), head=None, n_way=2, query_statistics="query")
    assert own.transductive  # nobody knows yet
    own.adapt(batch.support, n_way=2)
    assert not own.transductive


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize("normalise", [centred, attended])
def test_a_mean_over_the_batch_taken_by_hand_is_refused(kind, normalise, engine):
    batch = episode()
    ways = {} if kind is ProtoMAML else {"n_way": 2}
    learner = kind(ByHand(normalise).double(), features=2, engine=engine, **ways).double()
    for call in (
        lambda: learner.adapt(batch.support, n_way=2),
        lambda: learner.training_loss(batch, progress=1.0),
    ):
        with pytest.raises(ConfigError, match="would not be judged alone"):
            call()
    around = kind(ByHand(normalise).double(), features=2, query_statistics="query", **ways).double()
    assert around.adapt(batch.support, n_way=2)
    assert around.transductive


# ---------------------------------------------------------------------- modes and arguments


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("make", [Tied, Recurrent])
def test_inference_mode_gives_the_answers_of_no_grad(kind, make):
    learner, batch = build(kind, make).eval(), episode()
    with torch.no_grad():
        state = learner.adapt(batch.support, n_way=2)
        wanted = learner.predict(state, batch.query.x)
    with torch.inference_mode():
        copied = Examples.full(batch.support.x * 1, batch.support.y * 1)  # inference tensors
        found = [learner.adapt(s, n_way=2) for s in (batch.support, copied)]
        answers = [learner.predict(s, batch.query.x * 1) for s in found]
        loss = learner.training_loss(batch, progress=1.0)
    assert torch.allclose(loss, learner.training_loss(batch, progress=1.0), rtol=0, atol=1e-12)
    assert all(torch.equal(a, wanted) for a in answers)
    assert not answers[0].is_inference()
    assert torch.equal(learner.adapt(copied, n_way=2)["present"], state["present"])
    learner.training_loss(Episode(copied, batch.query, 2), progress=1.0).sum().backward()


@pytest.mark.parametrize("kind", LEARNERS)
def test_whole_numbers_of_numpy_are_ways(kind):
    learner, batch = build(kind, Tied).eval(), episode()
    state = learner.adapt(batch.support, n_way=np.int64(2))
    assert torch.equal(
        learner.predict(state, batch.query.x),
        learner.predict(learner.adapt(batch.support, n_way=2), batch.query.x),
    )


def test_inputs_on_another_device_are_named():
    learner, batch = build(MAML, Tied), episode().to("meta")
    with pytest.raises(TaskError, match=r"inputs are on meta, the learner is on cpu.*\.to\("):
        learner.predict(learner.adapt(episode().support, n_way=2), batch.query.x)


@pytest.mark.parametrize(
    "options",
    [{"lr": None}, {"lr": "0.1"}, {"lr": float("nan")}, {"lr": float("inf")}, {"steps": 1.5},
     {"steps": True}, {"clip": "1"}, {"memory": None}, {"eval_steps": 0.5}],
)  # fmt: skip
def test_a_wrong_inner_loop_is_named(options):
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        InnerLoop(**options)


def test_a_copy_of_a_learner_is_its_own():
    learner, batch = build(MAML, Siamese), episode()
    other = copy.deepcopy(learner)
    for parameter in other.parameters():
        parameter.data.zero_()
    assert learner.adapt(batch.support, n_way=2)["net.left.0.weight"].abs().max() > 0
