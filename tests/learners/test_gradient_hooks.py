"""Networks whose weights are computed (parametrizations, hooks), that have hooks, or draw."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from quickstudy.core import ConfigError, Episode, Examples, generator
from quickstudy.learners import ANIL, FOMAML, IMAML, MAML, InnerLoop, MetaSGD, ProtoMAML, Reptile
from quickstudy.testing import check_meta_gradient, snapshot

LEARNERS = [MAML, FOMAML, MetaSGD, ANIL, ProtoMAML, Reptile, IMAML]


def normal(*shape, stream=0):
    return torch.randn(shape, generator=generator(4, stream), dtype=torch.float64)


def episode(tasks=3):
    y = torch.arange(2).repeat(4).expand(tasks, -1).contiguous()
    return Episode(*(Examples.full(normal(tasks, 8, 4, stream=s), y) for s in (1, 2)), 2)


def net(change=None):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    if change is not None:
        change(layers)
    return layers


def learner_of(kind, made, **options):
    ways = {} if kind is ProtoMAML else {"n_way": 2}
    loop = InnerLoop(steps=2, lr=0.1)
    return kind(made, features=4, inner=loop, **ways, **options).double()


def weight_norm(layers):
    parametrizations.weight_norm(layers[0])


def weight_norm_of_all(layers):
    parametrizations.weight_norm(layers[0], dim=None)


def weight_norm_of_columns(layers):
    parametrizations.weight_norm(layers[0], dim=1)


def orthogonal(layers):
    parametrizations.orthogonal(layers[0], orthogonal_map="cayley")


def shared_parametrization(layers):
    parametrizations.weight_norm(layers[0])
    layers.append(layers[0])


def old_weight_norm(layers):
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(layers[0])


def spectral_norm(layers):
    parametrizations.spectral_norm(layers[0])


def old_spectral_norm(layers):
    nn.utils.spectral_norm(layers[0])


def hook(layers):
    layers[0].register_forward_hook(lambda _, __, out: 2 * out)


def pre_hook(layers):
    layers[2].register_forward_pre_hook(lambda module, args: (args[0] @ module.weight,))


COMPUTED = [
    weight_norm,
    weight_norm_of_all,
    weight_norm_of_columns,
    orthogonal,
    shared_parametrization,
    hook,
    pre_hook,
]


@pytest.mark.parametrize("change", COMPUTED)
@pytest.mark.parametrize("kind", LEARNERS)
def test_computed_weights_and_hooks_are_the_same_in_both_engines(kind, change):
    batch, answers = episode(), []
    for engine in ("auto", "loop"):
        learner = learner_of(kind, net(change), engine=engine)
        before = snapshot(learner)
        losses = learner.training_loss(batch, progress=1.0)
        losses.sum().backward()
        with torch.no_grad():
            state = learner.adapt(batch.support, n_way=2)
            answer = learner.predict(state, batch.query.x)
        grads = [p.grad for p in learner.parameters() if p.grad is not None]
        answers.append([losses.detach(), answer, *grads])
        assert snapshot(learner) == before
    assert len(answers[0]) > 3
    for a, b in zip(*answers, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-10)


class Scaled(nn.Module):
    """Holds a parameter that is a single number, without an axis."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("kind", LEARNERS)
def test_a_parameter_may_be_a_single_number(kind, clip):
    batch, found = episode(), []
    for engine in ("auto", "loop"):
        learner = learner_of(kind, net(lambda layers: layers.append(Scaled())), engine=engine)
        learner.inner = InnerLoop(steps=2, lr=0.1, clip=clip)
        losses = learner.double().training_loss(batch, progress=1.0)
        losses.sum().backward()
        found.append([losses.detach(), *(p.grad for p in learner.parameters())])
    for a, b in zip(*found, strict=True):
        assert (a is None and b is None) or torch.allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("change", COMPUTED)
def test_the_meta_gradient_through_computed_weights_is_the_central_difference(change):
    check_meta_gradient(learner_of(MAML, net(change)), episode())


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize("change", [spectral_norm, old_spectral_norm, old_weight_norm])
def test_weights_computed_into_the_module_are_refused(change, engine):
    learner = learner_of(MAML, net(change), engine=engine)
    before = snapshot(learner)
    with pytest.raises(ConfigError, match=r"changes .*when it is called|in place"):
        learner.training_loss(episode(), progress=1.0)
    assert snapshot(learner) == before


@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_random_numbers_are_refused(engine):
    for layer in (nn.Dropout(0.5), nn.Dropout1d(0.1), nn.AlphaDropout(0.2)):
        with pytest.raises(ConfigError, match="Set its dropout to 0"):
            learner_of(MAML, net(lambda layers, layer=layer: layers.append(layer)))
    off = learner_of(MAML, net(lambda layers: layers.append(nn.Dropout(0.0))), engine=engine)
    plain = learner_of(MAML, net(), engine=engine)
    torch.manual_seed(1)
    assert torch.equal(*(m.training_loss(episode(), progress=1.0) for m in (off, plain)))
    drawn = learner_of(
        MAML,
        net(lambda layers: layers[0].register_forward_hook(lambda _, __, z: z + torch.randn(()))),
        engine=engine,
    )
    with pytest.raises(ConfigError, match="random"):
        drawn.training_loss(episode(), progress=1.0)


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize("kind", LEARNERS)
def test_a_hook_that_raises_leaves_the_learner_as_it_was(kind, engine):
    def fails(*_):
        raise ZeroDivisionError("in a hook")

    made = net(weight_norm)
    learner = learner_of(kind, made, engine=engine)
    batch = episode()
    learner.adapt(batch.support, n_way=2)
    before, own = snapshot(learner), dict(learner.named_parameters())
    handle = made[2].register_forward_hook(fails)
    with pytest.raises(ZeroDivisionError, match="in a hook"):
        learner.training_loss(batch, progress=1.0)
    handle.remove()
    assert snapshot(learner) == before
    assert all(p is own[name] for name, p in learner.named_parameters())
    assert torch.isfinite(learner.training_loss(batch, progress=1.0)).all()
