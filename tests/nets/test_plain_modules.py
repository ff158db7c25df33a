"""Any PyTorch module as an encoder, in the same three lines for every family of learners."""

import copy

import pytest
import torch
from torch import nn

from quickstudy.core import ConfigError, EpisodeSpec, Examples, generator
from quickstudy.evaluation import evaluate
from quickstudy.learners import (
    MAML,
    EmbeddingLearner,
    MatchingNetwork,
    ProtoMAML,
    PrototypicalNetwork,
)
from quickstudy.learners.heads import RidgeHead
from quickstudy.nets import Conv4, ModuleEncoder, as_encoder
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool
from quickstudy.training import TrainConfig, ValidationConfig, train


class Backbone(nn.Module):
    """Like a model of timm or torchvision: convolutions, batch norm, features [N, D, 1, 1]."""

    num_features = 8

    def __init__(self):
        super().__init__()
        norm = nn.BatchNorm2d(8)
        # one layer in two places, as where weights are shared
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 8, 1), norm)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.pool(self.body(x))


class Returns(nn.Module):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, x):
        return self.made(x)


def images(*shape, seed=0):
    return torch.randn(*shape, 1, 6, 6, generator=generator(seed))


def support():
    return Examples.full(images(2, 6), torch.arange(3).repeat(2).expand(2, -1))


FAMILIES = {
    "prototypical": PrototypicalNetwork,
    "matching": MatchingNetwork,
    "full context": lambda net: MatchingNetwork(net, full_context=True),
    "ridge": lambda net: EmbeddingLearner(net, RidgeHead()),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_module_with_batch_norm_keeps_the_contract(family):
    learner = FAMILIES[family](Backbone())
    for step in range(3):  # running averages of something
        learner.encoder.encode(images(2, 9, seed=step) * 3 + 1, track=True)
    x = images(2, 5, seed=7)
    for training in (True, False):
        learner.train(training)
        before = copy.deepcopy(learner.state_dict())
        with torch.no_grad():
            state = learner.adapt(support(), n_way=3)
            together = learner.predict(state, x)
        after = learner.state_dict()
        assert all(torch.equal(after[n], v) for n, v in before.items())
        assert after.keys() == before.keys()
    # in evaluation the running averages normalise: each query is judged alone
    alone = torch.cat([learner.predict(state, x[:, i : i + 1]) for i in range(5)], 1)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not learner.transductive
    assert not learner.independent_tasks


def test_only_tracking_changes_running_averages_as_in_our_own_layers():
    net = Backbone()
    encoder, norm = as_encoder(net), net.body[1]
    start = norm.running_mean.clone()
    encoder.encode(images(1, 4))
    assert torch.equal(norm.running_mean, start)
    assert int(norm.num_batches_tracked) == 0
    encoder.encode(images(1, 4), track=True)
    assert not torch.equal(norm.running_mean, start)
    assert int(norm.num_batches_tracked) == 2  # it stands in two places
    z, _ = encoder.encode(images(1, 4))
    z.square().sum().backward()  # buffers that are put back spoil no gradient
    assert norm.weight.grad.isfinite().all()


def test_a_plain_module_is_trained_and_evaluated_like_an_encoder():
    pool = gaussian_pool(8, 12, (1, 6, 6))
    source = PoolSource(pool)
    net = Backbone()
    learner = PrototypicalNetwork(net)
    config = TrainConfig(
        steps=3,
        n_way=3,
        n_query=2,
        validation=ValidationConfig(n_way=3, n_query=2, episodes=2, every=3),
    )
    start = net.body[1].running_mean.clone()
    train(learner, source, config, validation=source)
    assert not torch.equal(net.body[1].running_mean, start)
    assert 0 <= evaluate(learner, source, EpisodeSpec(3, 1, 2), episodes=4).mean <= 1


@pytest.mark.parametrize("family", [MAML, ProtoMAML])
def test_gradient_learners_take_the_same_module(family):
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh())
    options = {"n_way": 3} if family is MAML else {}
    for given in (net, ModuleEncoder(net, features=8)):
        learner = family(given, features=8, **options)
        state = learner.adapt(support(), n_way=3)
        assert learner.predict(state, images(2, 5)).shape == (2, 5, 3)


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (lambda x: (x.flatten(1), x), "returns a tuple"),
        (lambda x: {"features": x.flatten(1)}, "returns a dict"),
        (lambda x: None, "returns a NoneType"),
        (lambda x: x.flatten(1).sum(1), r"\[12\]"),
        (lambda x: x.flatten(1).T, r"\[36, 12\]"),
        (lambda x: x.flatten(1).long(), "int64"),
    ],
)
def test_outputs_that_are_no_embeddings_are_refused(made, what):
    with pytest.raises(ConfigError, match=what):
        PrototypicalNetwork(Returns(made)).adapt(support(), n_way=3)


@pytest.mark.parametrize("shape", [(8,), (8, 1, 1), (8, 2, 3)])
def test_feature_maps_are_flattened(shape):
    z, _ = ModuleEncoder(Returns(lambda x: x.new_ones(len(x), *shape))).encode(images(2, 5))
    assert z.shape == (2, 5, torch.Size(shape).numel())


@pytest.mark.parametrize(
    "made",
    [
        lambda x: x.flatten(1) - x.flatten(1).mean(0),
        lambda x: nn.functional.batch_norm(x, None, None, training=True).flatten(1),
        lambda x: nn.functional.dropout(x, 0.5, training=True).flatten(1),
    ],
)
def test_a_module_that_looks_at_the_batch_is_refused_in_evaluation(made):
    learner = PrototypicalNetwork(Returns(made)).eval()
    with pytest.raises(ConfigError, match="when it is alone"):
        learner.adapt(support(), n_way=3)


class Counts(nn.Module):
    """Answers otherwise at each call, by less than kernels may round."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.flatten(1) * (1 + self.calls / 1000)


class Follows(nn.Module):
    """Moves an average of its own in evaluation too, by less than kernels may round."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(36))

    def forward(self, x):
        x = x.flatten(1)
        self.mean.lerp_(x.detach().mean(0), 1e-6)
        return x - self.mean


@pytest.mark.parametrize(
    ("net", "what"),
    [
        # of one example the deviation is NaN, and is no number to compare with
        (Returns(lambda x: x.flatten(1) / x.flatten(1).std(0)), "when it is alone"),
        (Counts(), "when it is asked again"),
        (Follows(), "changes mean in evaluation"),
        (Returns(lambda x: x.clamp_(0, 1).flatten(1)), "changes its input in place"),
        (Returns(lambda x: x.view(len(x), -1).mul_(1.0)), "changes its input in place"),
    ],
)
@pytest.mark.filterwarnings("ignore:std")
def test_a_module_with_a_memory_is_refused_in_evaluation(net, what):
    learner, given = PrototypicalNetwork(net).eval(), support()
    with pytest.raises(ConfigError, match=what):
        learner.adapt(given, n_way=3)


@pytest.mark.parametrize("keep", [list, tuple, lambda parts: dict(enumerate(parts))])
def test_layers_that_pytorch_does_not_see_are_refused(keep):
    net = Returns(lambda x: x.flatten(1))
    net.blocks = keep([nn.Linear(36, 4)])
    with pytest.raises(ConfigError, match=f"blocks, a plain {type(net.blocks).__name__}"):
        ModuleEncoder(net)
    net.inside = net.blocks[0]  # known under another name: it is trained and saved
    ModuleEncoder(net)


def test_a_table_that_a_module_makes_for_a_shape_is_no_memory():
    class Positions(nn.Module):
        table = None

        def forward(self, x):
            if self.table is None or len(self.table) != len(x):
                self.table = torch.arange(36.0).expand(len(x), -1)
            return x.flatten(1) + self.table

    PrototypicalNetwork(Positions()).eval().adapt(support(), n_way=3)


@pytest.mark.parametrize(
    ("net", "what"),
    [
        (nn.BatchNorm2d(1, track_running_stats=False), "running averages"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), "shape yet"),
        (nn.Linear, "class Linear"),
        ("resnet18", "resnet18"),
        (None, "None"),
    ],
)
def test_what_can_be_no_encoder_is_refused(net, what):
    with pytest.raises(ConfigError, match=what):
        ModuleEncoder(net)


def test_a_width_that_nobody_knows_is_asked_for():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    with pytest.raises(ConfigError, match="features="):
        MatchingNetwork(net, full_context=True)
    assert MatchingNetwork(net).adapt(support(), n_way=3)["support"].shape == (2, 6, 4)
    wide = ModuleEncoder(net, features=5)
    with pytest.raises(ConfigError, match="returns 4 features, and 5"):
        wide.encode(images(1, 2))
    conv = Conv4(image_size=16)
    assert as_encoder(conv) is conv
