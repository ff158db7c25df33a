"""What a newcomer may give a gradient learner that cannot be right: refused, with the remedy."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.core import (
    ConfigError,
    DivergenceError,
    Episode,
    EpisodeSpec,
    Examples,
    TaskError,
)
from quickstudy.evaluation import evaluate
from quickstudy.learners import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    InnerLoop,
    MetaSGD,
    NearestNeighbour,
    ProtoMAML,
    PrototypicalNetwork,
    Reptile,
    meta_loss,
)
from quickstudy.nets import MLP, Conv4
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool
from quickstudy.training import TrainConfig, train
from quickstudy.training.step import batch_loss, meta_gradient

LEARNERS = [MAML, FOMAML, MetaSGD, ANIL, ProtoMAML, Reptile, IMAML]


def episode(shape=(6,), tasks=3, *, way=3):
    spec = EpisodeSpec(way, 3, 3)
    return PoolSource(gaussian_pool(8, 12, shape)).episodes(spec, range(tasks), seed=0)


def net(width=3):
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, width))


def features(kind=MAML, **options):
    ways = {} if kind is ProtoMAML else {"n_way": 3}
    return kind(MLP((6,), (7, 5), activation=nn.Tanh), **ways, **options)


# ---------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("width", [2, 5])
def test_a_last_layer_of_another_width_than_the_task_is_refused(width, steps):
    learner, batch = MAML(net(width), head=None, inner=InnerLoop(steps=steps)), episode()
    with pytest.raises(ConfigError, match=f"is {width} wide and the task has n_way=3.*head="):
        meta_loss(learner, batch)
    y = torch.zeros(3, 9)
    values = Episode(*(Examples.full(s.x, y) for s in (batch.support, batch.query)), 1)
    with pytest.raises(ConfigError, match=f"is {width} wide and the task has n_way=1"):
        meta_loss(learner, values)


class Returning(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Linear(6, 3), change

    def forward(self, x):
        return self.change(self.layer(x))


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: (z, z), "returns a tuple.*Wrap it"),
        (lambda z: {"logits": z}, "returns a dict"),
        (lambda z: z.sum(1), r"made \[9\] of a task's \[9, 6\]; it should make \[9, D\]"),
        (lambda z: z[..., None], "Flatten it"),
        (lambda z: z[:1], "a row of numbers for each example"),
        (lambda z: z.sum(), "a row of numbers for each example"),
    ],
)
def test_an_output_that_is_not_a_row_for_each_example_is_refused(engine, change, message):
    for learner in (
        MAML(Returning(change), head=None, engine=engine),
        IMAML(Returning(change), head=None),
    ):
        with pytest.raises(ConfigError, match=message):
            learner.adapt(episode().support, n_way=3)


def test_a_head_of_another_width_than_the_features_is_refused():
    for kind in (MAML, ANIL, ProtoMAML):
        with pytest.raises(ConfigError, match=r"gives 3 features.*Give features=3"):
            kind(net(), features=4).adapt(episode().support, n_way=3)


def test_an_encoder_gets_inputs_of_its_shape():
    learner = MAML(Conv4(image_size=16, channels=4, norm="support"), n_way=3)
    with pytest.raises(ConfigError, match=r"built for inputs of shape \[1, 16, 16\]"):
        learner.adapt(episode((1, 28, 28)).support, n_way=3)


def test_a_module_without_anything_to_learn_is_refused():
    with pytest.raises(ConfigError, match="no parameter that requires gradients"):
        MAML(nn.Flatten(), head=None)
    with pytest.raises(ConfigError, match="Unfreeze some, or give it a head"):
        Reptile(net().requires_grad_(False), head=None)
    # a head alone is enough
    learner = MAML(nn.Flatten(), n_way=3, features=6)
    assert learner.adapt(episode().support, n_way=3).keys() > {"head.weight"}


def test_a_lazy_module_is_refused_until_it_knows_its_shape():
    lazy = nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.Linear(5, 3))
    with pytest.raises(ConfigError, match=r"0 \(LazyLinear\) does not know its shape.*Call the"):
        MAML(lazy, head=None)
    lazy(torch.zeros(2, 6))
    assert MAML(lazy, head=None).adapt(episode().support, n_way=3)


class Leaky(nn.Module):
    def forward(self, x):
        return F.rrelu(x, training=self.training)


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize(
    "draw",
    [
        lambda z: z + torch.randn(z.shape),
        lambda z: z + torch.rand_like(z),
        lambda z: z * torch.bernoulli(torch.full_like(z, 0.5)),
        lambda z: z + torch.empty_like(z).uniform_(),
        lambda z: z + torch.randn(z.shape, generator=torch.Generator().manual_seed(0)),
        lambda z: z[torch.randperm(len(z))],
        lambda z: F.gumbel_softmax(z, dim=1),
        lambda z: F.fractional_max_pool2d(z[:, None, None], 1, output_size=(1, 3))[:, 0, 0],
        Leaky(),
        nn.RReLU(),
    ],
)
def test_a_module_that_draws_is_refused(engine, draw):
    learner = MAML(Returning(draw), head=None, engine=engine)
    for tasks in (1, 3):
        with pytest.raises(ConfigError, match="draws random numbers, and an inner loop must"):
            learner.adapt(episode(tasks=tasks).support, n_way=3)


def test_a_leaky_activation_that_draws_in_training_alone_may_be_used_afterwards():
    learner = MAML(Returning(nn.RReLU()), head=None).eval()
    first, again = (learner.adapt(episode().support, n_way=3) for _ in range(2))
    assert all(torch.equal(v, again[n]) for n, v in first.items())


# -------------------------------------------------------------------------------------- data


@pytest.mark.parametrize("kind", LEARNERS)
def test_whole_labels_of_any_width_are_the_same_labels(kind):
    learner, batch = features(kind).eval(), episode()
    for dtype in (torch.int32, torch.uint8, torch.int16):
        s, q = (Examples.full(e.x, e.y.to(dtype)) for e in (batch.support, batch.query))
        assert s.y.dtype == torch.int64
        other = Episode(s, q, 3)
        loss, same = (learner.training_loss(e, progress=1.0) for e in (batch, other))
        assert torch.equal(loss, same)


@pytest.mark.parametrize("kind", LEARNERS)
def test_inputs_that_the_network_does_not_compute_in_are_refused(kind):
    learner, batch = features(kind), episode()
    state = learner.adapt(batch.support, n_way=3)
    for dtype in (torch.float64, torch.uint8, torch.bool):
        x = batch.support.x.to(dtype)
        with pytest.raises(TaskError, match=rf"are {dtype}, the network computes in .*x\.to\("):
            learner.adapt(Examples.full(x, batch.support.y), n_way=3)
        with pytest.raises(TaskError, match=f"are {dtype}"):
            learner.predict(state, x)
    # tokens stay whole
    tokens = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(18, 3))
    x = torch.randint(4, (3, 9, 6), generator=torch.Generator().manual_seed(0))
    assert MAML(tokens, head=None).adapt(Examples.full(x, batch.support.y), n_way=3)


@pytest.mark.parametrize("make", [*(lambda k=k: features(k) for k in LEARNERS), NearestNeighbour])
def test_no_tasks_and_tasks_without_support_are_refused(make):
    learner, batch = make(), episode()
    none = Episode(batch.support.tasks(slice(0)), batch.query.tasks(slice(0)), 3)
    mask = batch.support.mask.clone()
    mask[1] = False
    hidden = Examples(batch.support.x, batch.support.y, mask)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            with pytest.raises(TaskError, match=r"there are no tasks.*Give at least one"):
                learner.adapt(none.support, n_way=3)
            with pytest.raises(TaskError, match=r"task 1 \(of 3\) has no support.*Leave the task"):
                learner.adapt(hidden, n_way=3)
    if not isinstance(learner, NearestNeighbour):
        with pytest.raises(TaskError, match="there are no tasks"):
            meta_gradient(learner, none, TrainConfig(), progress=0.0)


# ------------------------------------------------------------------------------------ states


def test_the_state_of_another_learner_is_refused_with_what_it_holds():
    batch = episode()
    prototypes = PrototypicalNetwork(MLP((6,), (7, 5)))
    learners = [
        features(),
        features(ANIL),
        MAML(net(), head=None),
        MAML(net(), features=3),
        prototypes,
        NearestNeighbour(),
    ]
    states = [m.adapt(batch.support, n_way=3) for m in learners]
    for i, learner in enumerate(learners):
        for j, state in enumerate(states):
            if i == j:
                assert learner.predict(state, batch.query.x).shape == (3, 9, 3)
                continue
            with pytest.raises(TaskError, match="cannot predict from a state of another learner"):
                learner.predict(state, batch.query.x)
    with pytest.raises(TaskError, match=r"MAML cannot.*lacks net\..*holds prototypes \[T, 3, 5\]"):
        learners[0].predict(states[4], batch.query.x)
    with pytest.raises(TaskError, match="the state holds 3 tasks, the queries belong to 2"):
        learners[0].predict(states[0], batch.query.x[:2])


# ------------------------------------------------------------------------- padded queries


class Junk(PoolSource):
    """A source whose padding holds large numbers."""

    def episodes(self, spec, task_ids, *, seed):
        batch = super().episodes(spec, task_ids, seed=seed)
        for side in (batch.support, batch.query):
            side.x[~side.mask] = 1e4
        return batch


@pytest.mark.parametrize("kind", LEARNERS)
def test_padding_does_not_enter_the_statistics_of_the_queries(kind):
    options = {} if kind is ProtoMAML else {"n_way": 4}
    torch.manual_seed(0)
    encoder = Conv4(image_size=16, channels=4, norm="support")
    learner = kind(encoder, query_statistics="query", inner=InnerLoop(steps=1, lr=0.1), **options)
    pool, spec = gaussian_pool(8, 12, (1, 16, 16)), EpisodeSpec((2, 4), (1, 4), 3)
    plain, junk = (evaluate(learner, s(pool), spec, episodes=12) for s in (PoolSource, Junk))
    assert plain.scores.tolist() == junk.scores.tolist()
    batch = PoolSource(pool).episodes(spec, range(6), seed=0)
    assert not bool(batch.query.mask.all())
    if kind is Reptile:  # trains on support and query as one
        return
    together = learner.training_loss(batch, progress=1.0)
    for t in range(6):
        one = batch.tasks(slice(t, t + 1))
        s, q = (
            Examples.full(e.x[:, e.mask[0]], e.y[:, e.mask[0]]) for e in (one.support, one.query)
        )
        alone = learner.training_loss(Episode(s, q, 4), progress=1.0)
        assert torch.allclose(alone[0], together[t], rtol=1e-4)


# ---------------------------------------------------------------------------------- training


def test_what_would_be_ignored_in_training_is_refused_before_a_folder_is_made(tmp_path):
    source, out = PoolSource(gaussian_pool(8, 12, (6,), split="train")), tmp_path / "run"
    for kind in LEARNERS:
        for setting, message in (
            ({"precision": "bfloat16"}, f"{kind.__name__} computes its inner loop in float32"),
            ({"roles": "every"}, f"{kind.__name__} adapts the network to each support"),
        ):
            config = TrainConfig(steps=1, n_way=3, n_query=3, **setting)
            with pytest.raises(ConfigError, match=message):
                train(features(kind), source, config, out=out)
            with pytest.raises(ConfigError, match=message):
                batch_loss(features(kind), episode(), config)
    assert not out.exists()


@pytest.mark.parametrize("steps", [1, 3])
def test_a_training_that_diverges_names_both_learning_rates(steps):
    source = PoolSource(gaussian_pool(8, 12, (6,), split="train"))
    config = TrainConfig(steps=2, n_way=3, n_query=3)
    learner = features(inner=InnerLoop(steps=steps, lr=1e30))
    with pytest.raises(DivergenceError, match=r"Lower inner_lr.*Lower outer_lr"):
        train(learner, source, config)
    metric = PrototypicalNetwork(MLP((6,), (7, 5)))
    with torch.no_grad():
        metric.encoder.layers[0].weight.fill_(float("nan"))
    with pytest.raises(DivergenceError, match="Lower outer_lr") as error:
        train(metric, source, config)
    assert "inner" not in str(error.value)
