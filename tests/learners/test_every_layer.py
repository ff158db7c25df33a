"""Every layer of ``torch.nn`` in a gradient learner, against MAML written out in plain PyTorch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from every_layer import CASES, LEFT_OUT, Case
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.core import ConfigError, Episode, Examples, generator
from quickstudy.learners import MAML, InnerLoop

T, N, STEPS, LR = 3, 6, 1, 0.3


class Around(nn.Module):
    """A network with a layer in the middle; what comes before and after it adapts too."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.written_out = case, False
        self.layer = case.make()
        self.first = nn.Linear(6, math.prod(case.shape)).double()
        self.last = nn.Linear(1, 3).double()
        if not case.refused:
            with torch.no_grad():
                self.last = nn.Linear(self.middle(inputs(case)[0, :2]).shape[1], 3).double()

    def middle(self, x: Tensor) -> Tensor:
        z = x if self.case.tokens else self.first(x).view(len(x), *self.case.shape)
        if self.written_out and self.case.plain is not None:
            out = self.case.plain(self.layer, z)
        else:
            out = self.layer(z) if self.case.call is None else self.case.call(self.layer, z)
        return out.reshape(len(x), -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.middle(x)))


def inputs(case: Case, stream: int = 0) -> Tensor:
    if case.tokens:
        return torch.randint(case.tokens, (T, N, *case.shape), generator=generator(1, stream))
    return torch.randn(T, N, 6, generator=generator(1, stream), dtype=torch.float64)


def episode(case: Case) -> Episode:
    y = (torch.arange(N) % 3).expand(T, N)
    return Episode(*(Examples.full(inputs(case, s), y) for s in (0, 1)), 3)


def network(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return Around(case)


def plain_maml(net: nn.Module, batch: Episode) -> tuple[Tensor, list[Tensor]]:
    """Return the query losses and their meta-gradient; task by task, written from the paper."""
    own = dict(net.named_parameters())
    losses = []
    for t in range(T):
        params = own
        for _ in range(STEPS):
            out = torch.func.functional_call(net, params, (batch.support.x[t],))
            slopes = torch.autograd.grad(
                F.cross_entropy(out, batch.support.y[t]),
                list(params.values()),
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            params = {n: p - LR * g for (n, p), g in zip(params.items(), slopes, strict=True)}
        out = torch.func.functional_call(net, params, (batch.query.x[t],))
        losses.append(F.cross_entropy(out, batch.query.y[t]))
    found = torch.stack(losses)
    return found.detach(), gradient(found, net)


def gradient(losses: Tensor, net: nn.Module) -> list[Tensor]:
    return list(
        torch.autograd.grad(
            losses.sum(), list(net.parameters()), allow_unused=True, materialize_grads=True
        )
    )


def learner(net: nn.Module, engine: str) -> MAML:
    loop = InnerLoop(steps=STEPS, lr=LR)
    return MAML(net, head=None, n_way=3, engine=engine, inner=loop, query_statistics="query")


@contextmanager
def written_out(net: nn.Module) -> Iterator[None]:
    """Let a network compute in plain operations, which all have second derivatives."""
    net.written_out = True
    with sdpa_kernel(SDPBackend.MATH):
        yield
    net.written_out = False


LOOPED = {
    *("Bilinear", "GRU", "GRUCell", "GaussianNLLLoss", "KLDivLoss", "LSTM", "LSTMCell"),
    *("MarginRankingLoss", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "RNN", "RNNCell"),
    *("SoftMarginLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss", "Upsample"),
}
"""Layers that vmap has no rule for, with some of their settings; they run task by task."""


@pytest.mark.parametrize("case", [c for c in CASES if not c.refused], ids=str)
def test_a_layer_adapts_as_in_plain_pytorch(case):
    net, batch = network(case), episode(case)
    with written_out(net):
        wanted, slopes = plain_maml(net, batch)
    own = dict(net.named_parameters())
    before = {name: value.detach().clone() for name, value in own.items()}
    engines = ["auto"]
    for engine in engines:
        made = learner(net, engine)
        losses = made.training_loss(batch, progress=1.0)
        assert torch.allclose(losses, wanted, rtol=0, atol=1e-10), engine
        for name, got, slope in zip(own, gradient(losses, net), slopes, strict=True):
            assert torch.allclose(got, slope, rtol=0, atol=1e-10), (engine, name)
        if made.tasks.why_loop:
            assert case.name in LOOPED, made.tasks.why_loop
        elif engine == "auto":
            engines.append("loop")  # "auto" ran batched
    for name, value in net.named_parameters():
        assert value is own[name]
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("case", [c for c in CASES if c.refused], ids=str)
def test_a_layer_that_cannot_be_right_is_refused(case):
    net, batch = network(case), episode(case)
    before = {
        name: value.detach().clone()
        for name, value in net.named_parameters()
        if not torch.nn.parameter.is_lazy(value)
    }
    for engine in ("auto", "loop"):
        with pytest.raises(ConfigError, match=case.refused):
            learner(net, engine).training_loss(batch, progress=1.0)
    for name, value in before.items():
        assert torch.equal(net.get_parameter(name), value)


def test_every_layer_of_pytorch_has_a_case():
    layers = {
        name
        for name, kind in vars(nn).items()
        if isinstance(kind, type) and issubclass(kind, nn.Module)
    }
    known = {case.name for case in CASES} | LEFT_OUT.keys()
    assert not layers - known, "add a case to every_layer.py, or a reason to LEFT_OUT"
    assert not known - layers


STATEFUL = {"training", "running_mean", "max_norm", "padding_idx", "scale_grad_by_freq", "sparse"}
FUNCTIONS = {
    *("alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"),
    *("batch_norm", "embedding", "embedding_bag", "instance_norm", "rrelu"),
    "multi_head_attention_forward",
}


def test_every_function_that_keeps_or_draws_is_behind_a_layer_with_a_case():
    found = {
        name
        for name, function in vars(F).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and STATEFUL & inspect.signature(function).parameters.keys()
        and function.__module__ == "torch.nn.functional"
    }
    # named by hand, so that a new one is thought about
    assert found == FUNCTIONS
