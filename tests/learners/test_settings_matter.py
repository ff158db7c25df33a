"""Each setting of each learner changes an answer, or is refused: none is accepted and ignored."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest
import torch
from torch import nn

from quickstudy import learners
from quickstudy.core import Episode, EpisodeSpec, Examples, QuickstudyError
from quickstudy.learners import gradient, heads, incontext, metric
from quickstudy.learners.base import EmbeddingLearner, Learner
from quickstudy.learners.gradient.options import GradientOptions, NetOptions, StartOptions
from quickstudy.nets import MLP, Conv4
from quickstudy.nets.table_transformer import TableTransformer
from quickstudy.recipes import LEARNERS
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool

LOOP = gradient.InnerLoop


def vectors() -> Episode:
    batch = PoolSource(gaussian_pool(8, 12, (6,))).episodes(EpisodeSpec(3, 3, 3), range(2), seed=0)
    support = batch.support
    mask = support.mask.clone()
    mask[0, support.y[0].argmin()] = False  # classes of uneven size
    uneven = Episode(Examples(support.x, support.y, mask), batch.query, 3)
    return uneven.to("cpu", torch.float64)


def net() -> MLP:
    return MLP((6,), (7, 6), activation=nn.Tanh, last_activation=True)


def normed() -> Conv4:
    return Conv4(in_channels=1, image_size=16, channels=4, norm="support")


GRADIENT = {
    "features": [({}, {"features": 9})],  # refused: the net has 6
    "inner": [
        ({}, {"inner": LOOP(steps=3, lr=0.1)}),
        ({}, {"inner": LOOP(steps=2, lr=0.2)}),
        ({}, {"inner": LOOP(steps=2, lr=0.1, eval_steps=4)}),
        ({}, {"inner": LOOP(steps=2, lr=0.1, clip=0.01)}),
        ({}, {"inner": LOOP(steps=2, lr=0.1, memory="flat")}),
    ],
    "query_statistics": [({"net": normed}, {"net": normed, "query_statistics": "query"})],
    "engine": [({}, {"engine": "loop"})],
}
PROCESS = {
    "width": [({}, {"width": 8})],
    "depth": [({}, {"depth": 2})],
    "floor": [({}, {"floor": 0.5})],
}
ATTENTIVE = PROCESS | {"heads": [({}, {"heads": 4})], "blocks": [({}, {"blocks": 0})]}
REGRESSION = ("NeuralProcess", "ProcessHead")
START = GRADIENT | {"head": [({}, {"head": "shared"})], "n_way": [({}, {"n_way": 2})]}
PROTOTYPES = START | {
    "temperature": [
        ({}, {"temperature": 2.0}),
        ({"head": "prototype"}, {"head": "prototype", "temperature": 2.0}),
        ({"head": "shared"}, {"head": "shared", "temperature": 2.0}),
        ({}, {"temperature": 1.0}),
    ]
}
STEPS = {
    "order": [({}, {"order": "first"})],
    "rates": [
        ({}, {"rates": "layer"}),
        ({}, {"rates": "layer-step"}),
        ({}, {"rates": "parameter"}),
    ],
    "multi_step": [({}, {"multi_step": 0.9})],
    "first_order_until": [
        ({}, {"first_order_until": 0.9}),
        ({"order": "first"}, {"order": "first", "first_order_until": 0.9}),
    ],
}
TEMPERATURE = {
    "temperature": [({}, {"temperature": 3.0})],
    "learn_temperature": [
        ({"learn_temperature": False}, {"learn_temperature": True}),
    ],
}
IN_CONTEXT = {
    "width": [({}, {"width": 16})],
    "layers": [({}, {"layers": 1})],
    "heads": [({}, {"heads": 2})],
    "temperature": [({}, {"temperature": 3.0})],
    "dropout": [({}, {"dropout": 0.5})],
}
MEMORY = {
    "n_way": [({}, {"n_way": 4})],
    "hidden_size": [({}, {"hidden_size": 9})],
    "protocol": [({}, {"protocol": "episode"})],
}
MACHINE = MEMORY | {
    "slots": [({}, {"slots": 9})],
    "width": [({}, {"width": 5})],
    "heads": [({}, {"heads": 2})],
    "decay": [({"slots": 5}, {"slots": 5, "decay": 0.1})],
    "key_strength": [({}, {"key_strength": True})],
}
CONVOLUTIONS = {
    "n_way": [({}, {"n_way": 4})],
    "length": [({}, {"length": 40})],
    "filters": [({}, {"filters": 16})],
}
SHRINKING = {"distance": [({}, {"distance": "cosine"})], "shrinkage": [({}, {"shrinkage": 0.5})]}

CHANGES: dict[str, dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]] = {
    "MAML": PROTOTYPES | STEPS | {"adapted": [({}, {"adapted": "head"})]},
    "FOMAML": PROTOTYPES,
    "MetaSGD": PROTOTYPES,
    "ANIL": PROTOTYPES,
    "ProtoMAML": GRADIENT
    | STEPS
    | {"temperature": TEMPERATURE["temperature"]}
    | {"rates": [({}, {"rates": "fixed"}), ({}, {"rates": "layer"})]},
    "Reptile": START
    | {"optimiser": [({}, {"optimiser": "adam"})]}
    | {"minibatches": [({"full": True}, {"full": True, "minibatches": 2})]},
    "IMAML": PROTOTYPES
    | {"strength": [({}, {"strength": 0.5})], "solver_steps": [({}, {"solver_steps": 1})]},
    "PrototypicalNetwork": TEMPERATURE | SHRINKING,
    "PrototypeHead": TEMPERATURE | SHRINKING,
    "MatchingNetwork": TEMPERATURE | {"full_context": [({}, {"full_context": True})]},
    "MatchingHead": TEMPERATURE
    | {
        "full_context": [({}, {"full_context": True})],
        "features": [({"full_context": True}, {"full_context": True, "features": 4})],
    },
    "CentredHead": {
        "head": [({}, {"head": heads.RidgeHead(balanced=False)})],
        "prior": [({}, {"prior": 2.0})],
        "lengths": [({}, {"lengths": "task"}), ({}, {"lengths": "raw"})],
    },
    "ClassMeanHead": TEMPERATURE | {"distance": [({}, {"distance": "euclidean"})]},
    "DiscriminantHead": {
        "shrinkage": [({}, {"shrinkage": 0.9})],
        "balanced": [({}, {"balanced": True})],
    },
    "ForestHead": {
        "kind": [({}, {"kind": "random-forest"})],
        "trees": [({}, {"trees": 7})],
        "seed": [({}, {"seed": 1})],
    },
    "VoteHead": {
        "members": [({}, {"members": {"a": heads.RidgeHead()}})],
        "weights": [({}, {"weights": [1.0, 3.0]})],
        "temperatures": [({}, {"temperatures": [1.0, 3.0]})],
    },
    "FineTunedHead": {
        "cosine": [({}, {"cosine": True})],
        "steps": [({}, {"steps": 5})],
        "lr": [({}, {"lr": 0.1})],
        "momentum": [({}, {"momentum": 0.1})],
        "scale": [({"cosine": True}, {"cosine": True, "scale": 3.0}), ({}, {"scale": 3.0})],
    },
    "GradientHead": {
        "features": [({}, {"features": 4})],
        "steps": [({}, {"steps": 3})],
        "lr": [({}, {"lr": 0.2})],
        "temperature": [({}, {"temperature": 3.0})],
    },
    "LogisticHead": {
        "c": [({}, {"c": 0.1})],
        "temperature": [({}, {"temperature": 3.0})],
        "balanced": [({}, {"balanced": True})],
        "kernel_width": [({}, {"kernel_width": 2.0})],
        "tolerance": [({"tolerance": 0.1}, {"tolerance": 1e-8})],
    },
    "NeighbourHead": TEMPERATURE
    | {"neighbours": [({}, {"neighbours": 2})], "distance": [({}, {"distance": "cosine"})]},
    "RidgeHead": {
        "penalty": [({}, {"penalty": 9.0})],
        "scale": [({}, {"scale": 3.0})],
        "balanced": [({}, {"balanced": False})],
        "kernel_width": [({}, {"kernel_width": 2.0})],
        "learn": [({}, {"learn": True})],
    },
    "InContextTransformer": IN_CONTEXT | {"distance": [({}, {"distance": "cosine"})]},
    "InContextHead": IN_CONTEXT
    | {"distance": [({}, {"distance": "euclidean"})], "features": [({}, {"features": 6})]},
    "NearestNeighbour": {},
    "LSTMLearner": MEMORY,
    "MANN": MACHINE,
    "SNAIL": CONVOLUTIONS,
    "TableInContext": {"network": [({}, {"network": TableTransformer(width=20, depth=2)})]},
    "ConditionalNeuralProcess": PROCESS,
    "AttentiveNeuralProcess": ATTENTIVE,
    "ConditionalProcessHead": PROCESS | {"features": [({}, {"features": 5})]},
    "AttentiveProcessHead": ATTENTIVE | {"features": [({}, {"features": 5})]},
}
"""By learner and setting: pairs of settings; the second must act otherwise than the first."""


def kinds() -> dict[str, type[Learner]]:
    """Return every learner that can be built, by name."""
    found = {}
    for room in (learners, heads, metric, gradient, incontext):
        for name, kind in vars(room).items():
            if (
                isinstance(kind, type)
                and issubclass(kind, Learner)
                and not inspect.isabstract(kind)
            ):
                found[name] = kind
    del found["EmbeddingLearner"]  # its parts are its settings
    return found


KINDS = kinds()
OPTIONS = {"ProtoMAML": NetOptions, "Reptile": StartOptions}


def settings(kind: type[Learner]) -> set[str]:
    """Return the names of a learner's settings, from its signature."""
    names = set()
    for parameter in inspect.signature(kind.__init__).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            if parameter.name == "options":
                names |= get_type_hints(OPTIONS.get(kind.__name__, GradientOptions)).keys()
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            names.add(parameter.name)
    return names - {"self", "net", "encoder"}


def make(name: str, options: dict[str, Any]) -> Learner:
    kind, options = KINDS[name], dict(options)
    torch.manual_seed(0)
    if issubclass(kind, gradient.GradientLearner) and name != "GradientHead":
        options = {"inner": LOOP(steps=2, lr=0.1)} | options
        if name != "ProtoMAML":
            options = {"n_way": 3} | options
        return kind(options.pop("net", net)(), **options).double()
    if name in ("MANN", "SNAIL", "LSTMLearner"):
        options = {"n_way": 3} | options
    if issubclass(kind, EmbeddingLearner):
        return kind(net(), **options).double()
    if name == "CentredHead":
        options = {"head": heads.RidgeHead()} | options
    if name == "VoteHead":
        options = {"members": {"a": heads.RidgeHead(), "b": heads.LogisticHead()}} | options
    if name in ("MatchingHead", "GradientHead") or name.endswith("ProcessHead"):
        options = {"features": 6} | options
    return kind(**options).double()


def behaviour(name: str, options: dict[str, Any]) -> list[Any]:
    """Return what a learner does: its answers, loss, meta-gradient, and how it computes."""
    options = dict(options)
    batch = vectors()
    if options.pop("full", False):
        batch = PoolSource(gaussian_pool(8, 12, (6,))).episodes(
            EpisodeSpec(3, 3, 3), range(2), seed=0
        ).to("cpu", torch.float64)  # fmt: skip
    if options.get("net") is normed:
        batch = PoolSource(gaussian_pool(8, 12, (1, 16, 16))).episodes(
            EpisodeSpec(3, 3, 3), range(2), seed=0
        ).to("cpu", torch.float64)  # fmt: skip
    if name.endswith(REGRESSION):
        s, q = batch.support, batch.query
        s, q = (Examples(e.x, e.x.sum(2), e.mask) for e in (s, q))
        batch = Episode(s, q, 1)
    learner = make(name, options)
    found: list[Any] = [str(learner.schedule(batch))]
    loss = learner.training_loss(batch, progress=0.5)
    found.append(loss.detach())
    parameters = dict(learner.named_parameters())
    found.append(sorted(parameters))
    if loss.requires_grad:
        slopes = torch.autograd.grad(loss.sum(), list(parameters.values()), allow_unused=True)
        found += slopes
    learner.eval()
    with torch.no_grad():
        state = learner.adapt(batch.support, n_way=batch.n_way)
        found.append(learner.predict(state, batch.query.x))
    return found


def same(a: list[Any], b: list[Any]) -> bool:
    def equal(x: Any, y: Any) -> bool:
        tensors = isinstance(x, torch.Tensor), isinstance(y, torch.Tensor)
        return torch.equal(x, y) if all(tensors) else not any(tensors) and x == y

    return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))


CASES = [(name, setting) for name, changes in CHANGES.items() for setting in changes]


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_each_setting_acts_or_is_refused(name, setting):
    for before, after in CHANGES[name][setting]:
        base = behaviour(name, before)
        try:
            found = behaviour(name, after)
        except (QuickstudyError, TypeError) as error:
            assert setting in str(error)  # noqa: PT017
            continue
        assert not same(base, found), f"{name}({after}) acts like {name}({before})"


def test_the_comparison_itself_repeats():
    for name in CHANGES:
        assert same(behaviour(name, {}), behaviour(name, {})), name


def test_every_setting_of_every_learner_is_changed_above():
    assert KINDS.keys() == CHANGES.keys()
    for name, kind in KINDS.items():
        wanted = settings(kind)
        assert wanted == CHANGES[name].keys(), name
    loop = set(inspect.signature(LOOP.__init__).parameters) - {"self"}
    assert loop == {"steps", "lr", "eval_steps", "clip", "memory"}  # all under "inner"


@pytest.mark.parametrize("kind", sorted(LEARNERS))
def test_every_setting_of_a_recipe_reaches_a_setting_of_its_learner(kind):
    config = LEARNERS[kind]
    inner = {"inner_steps", "eval_steps", "inner_lr", "inner_clip", "memory"}
    built = getattr(config, "learner", None) or {
        "protonet": learners.PrototypicalNetwork,
        "matching": learners.MatchingNetwork,
        "cnp": learners.ConditionalNeuralProcess,
        "anp": learners.AttentiveNeuralProcess,
        "incontext": learners.InContextTransformer,
    }.get(kind)
    if built is None:
        pytest.skip("no learner of ours")
    own = {n for n in config.model_fields if n != "kind"}
    assert own - inner <= settings(built)
