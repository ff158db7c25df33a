"""What stands in padding matters to no answer, no loss and no gradient, in any learner or head."""

import math

import pytest
import torch
from torch import nn

from quickstudy.core import Episode, Examples, TaskError, generator
from quickstudy.learners import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    EmbeddingLearner,
    InContextTransformer,
    MetaSGD,
    NearestNeighbour,
    ProtoMAML,
    Reptile,
    meta_loss,
)
from quickstudy.learners.heads import (
    CentredHead,
    ClassMeanHead,
    DiscriminantHead,
    FineTunedHead,
    ForestHead,
    GradientHead,
    InContextHead,
    LogisticHead,
    NeighbourHead,
    PrototypeHead,
    RidgeHead,
    VoteHead,
    held_out_logits,
)
from quickstudy.learners.metric import MatchingHead, MatchingNetwork, PrototypicalNetwork
from quickstudy.nets import MLP

WIDTH, WAYS = 5, 3


def encoder():
    return MLP((WIDTH,), (6, 4), activation=nn.Tanh)


def trained(learner):
    """Return an in-context learner whose transformer says something, as it starts silent."""
    nn.init.normal_(getattr(learner, "head", learner).to_logit.weight)
    return learner


HEADS = {
    "prototype": PrototypeHead,
    "prototype, cosine": lambda: PrototypeHead(distance="cosine", learn_temperature=True),
    "prototype, shrunk": lambda: PrototypeHead(shrinkage=0.8),
    "matching": lambda: MatchingHead(WIDTH),
    "matching, full context": lambda: MatchingHead(WIDTH, full_context=True),
    "class means": ClassMeanHead,
    "neighbours": NeighbourHead,
    "two neighbours, cosine": lambda: NeighbourHead(neighbours=2, distance="cosine"),
    "ridge": RidgeHead,
    "ridge, kernel": lambda: RidgeHead(kernel_width=2.0, learn=True),
    "logistic": LogisticHead,
    "logistic, kernel": lambda: LogisticHead(kernel_width=2.0, balanced=True),
    "fine-tuned": lambda: FineTunedHead(steps=5),
    "fine-tuned, cosine": lambda: FineTunedHead(cosine=True, steps=5),
    "gradient": lambda: GradientHead(WIDTH, steps=2, lr=0.01),
    "centred": lambda: CentredHead(RidgeHead(), prior=1.0),
    "centred, one scale": lambda: CentredHead(RidgeHead(), prior=1.0, lengths="task"),
    "discriminant analysis": DiscriminantHead,
    "extra trees": lambda: ForestHead(trees=4),
    "random forest": lambda: ForestHead("random-forest", trees=4),
    "vote": lambda: VoteHead({"a": LogisticHead(), "b": ForestHead(trees=4)}),
    "in-context": lambda: trained(InContextHead(WIDTH, width=8)),
    "in-context, by relations": lambda: trained(InContextHead(width=8)),
    "floor": NearestNeighbour,
}
NETWORKS = {
    "prototypical": lambda: PrototypicalNetwork(encoder()),
    "in-context": lambda: trained(InContextTransformer(encoder(), width=8)),
    "matching": lambda: MatchingNetwork(encoder()),
    "matching, full context": lambda: MatchingNetwork(encoder(), full_context=True),
    "ridge on an encoder": lambda: EmbeddingLearner(encoder(), RidgeHead(learn=True)),
    "plain module": lambda: PrototypicalNetwork(nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh())),
    "maml": lambda: MAML(encoder(), n_way=WAYS),
    "fomaml": lambda: FOMAML(encoder(), n_way=WAYS),
    "metasgd": lambda: MetaSGD(encoder(), n_way=WAYS),
    "anil": lambda: ANIL(encoder(), n_way=WAYS),
    "protomaml": lambda: ProtoMAML(encoder()),
    "reptile": lambda: Reptile(encoder(), n_way=WAYS),
    "imaml": lambda: IMAML(encoder(), n_way=WAYS),
}
EVERY = {f"head: {n}": m for n, m in HEADS.items()} | NETWORKS


def made(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EVERY[name]().double()


def episode(filling=0.0, label=0):
    """Two tasks, the second without class 2 and with less of everything; what padding holds."""
    g = generator(0)
    y = torch.tensor([[0, 1, 2, 0, 1, 2, 0], [1, 0, 1, label, 0, label, label]])
    mask = torch.tensor([[True] * 7, [True, True, True, False, True, False, False]])
    x = torch.randn(2, 7, WIDTH, generator=g, dtype=torch.float64) + y.clamp(0, 2)[..., None]
    query_y = torch.tensor([[0, 1, 2, 1], [0, label, 1, label]])
    query_mask = torch.tensor([[True] * 4, [True, False, True, False]])
    query_x = torch.randn(2, 4, WIDTH, generator=g, dtype=torch.float64)
    x[~mask], query_x[~query_mask] = filling, filling
    return Episode(Examples(x, y, mask), Examples(query_x, query_y, query_mask), WAYS)


FILLINGS = [(math.nan, -100), (math.inf, 2), (-math.inf, 99), (1e300, -1)]


def answers(learner, of):
    """Return logits, losses and gradients: of the parameters and of the real inputs."""
    of.support.x.requires_grad_()
    of.query.x.requires_grad_()
    logits = learner.predict(learner.adapt(of.support, n_way=WAYS), of.query.x)
    found = {"logits": logits[of.query.mask]}
    for name, losses in (
        ("meta_loss", meta_loss(learner, of)),
        ("training_loss", learner.training_loss(of, progress=0.5)),
    ):
        found[name] = losses
        wanted = [p for p in learner.parameters() if p.requires_grad]
        wanted += [of.support.x, of.query.x]
        if not losses.requires_grad:
            continue
        grads = torch.autograd.grad(losses.sum(), wanted, allow_unused=True)
        *own, support, query = (
            torch.zeros_like(p) if g is None else g for g, p in zip(grads, wanted, strict=True)
        )
        for i, g in enumerate(own):
            found[f"{name}, gradient {i}"] = g
        found[f"{name}, support"] = support[of.support.mask]
        found[f"{name}, query"] = query[of.query.mask]
        assert (support[~of.support.mask] == 0).all()
        assert (query[~of.query.mask] == 0).all()
    return {name: value.detach() for name, value in found.items()}


@pytest.mark.parametrize("filling", FILLINGS, ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_padding_matters_nowhere(name, filling):
    learner = made(name)
    plain = answers(learner, episode())
    filled = answers(learner, episode(*filling))
    assert plain.keys() == filled.keys()
    for what, value in plain.items():
        assert not value.isnan().any(), what
        torch.testing.assert_close(filled[what], value, rtol=1e-9, atol=1e-12, msg=what)


@pytest.mark.parametrize("filling", FILLINGS, ids=str)
@pytest.mark.parametrize("head", ["prototype", "ridge", "logistic, kernel", "neighbours", "vote"])
def test_padding_matters_to_no_held_out_logit(head, filling):
    learner, plain, filled = made(f"head: {head}"), episode(), episode(*filling)
    found = [
        held_out_logits(learner, e.support, n_way=WAYS, folds=2)[e.support.mask]
        for e in (plain, filled)
    ]
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("filling", [math.nan, math.inf, 1e300])
def test_padding_matters_nowhere_in_regression(filling):
    def sines(value):
        g = generator(1)
        x = torch.rand(2, 6, 1, generator=g, dtype=torch.float64)
        mask = torch.tensor([[True] * 6, [True, True, False, True, False, False]])
        y = x[..., 0].sin()
        x, y = x.clone(), y.clone()
        x[~mask], y[~mask] = value, value
        return Episode(Examples(x, y, mask), Examples(x.clone(), y.clone(), mask), 1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = MAML(MLP((1,), (8,), activation=nn.Tanh), n_way=1).double()
    found = []
    for value in (0.0, filling):
        losses = learner.training_loss(sines(value), progress=0.5)
        found.append([losses, *torch.autograd.grad(losses.sum(), [*learner.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-12)
    floor = NearestNeighbour()
    a, b = (
        floor.predict(floor.adapt(e.support, n_way=1), e.query.x) for e in map(sines, (0, filling))
    )
    mask = sines(0).query.mask
    assert torch.equal(a[mask], b[mask])


@pytest.mark.parametrize("name", EVERY)
def test_a_query_of_a_class_without_support_has_a_finite_loss_or_is_refused(name):
    learner, of = made(name), episode()
    y, mask = of.query.y.clone(), of.query.mask.clone()
    y[1, 3], mask[1, 3] = 2, True
    lost = Episode(of.support, Examples(of.query.x, y, mask), WAYS)
    if name == "reptile":  # learns from support and query together: the class has an example
        assert learner.training_loss(lost, progress=0.5).isfinite().all()
        return
    with pytest.raises(TaskError, match=r"query 3 of task 1 \(of 2\) is of class 2"):
        learner.training_loss(lost, progress=0.5)
    assert learner.training_loss(of, progress=0.5).isfinite().all()
