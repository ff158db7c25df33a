"""What a GPU needs, as far as a machine without one can tell; and on one where there is one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from quickstudy.core import EpisodeSpec
from quickstudy.core.workers import Schedule
from quickstudy.learners import ANIL, FOMAML, IMAML, MAML, InnerLoop, MetaSGD, ProtoMAML, Reptile
from quickstudy.learners.gradient import without_running_statistics
from quickstudy.nets import Conv4
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool

LEARNERS = [MAML, FOMAML, MetaSGD, ANIL, ProtoMAML, Reptile, IMAML]


def episode():
    batch = PoolSource(gaussian_pool(8, 12, (1, 16, 16))).episodes(
        EpisodeSpec(3, 3, 3), range(3), seed=0
    )
    return batch.to("cpu", torch.float64)


def build(kind, affine=True, **options):
    torch.manual_seed(0)
    net = Conv4(image_size=16, channels=4, norm="support", activation="tanh")
    if not affine:
        net = without_running_statistics(
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten())
        )
        options["features"] = 784
    ways = {} if kind is ProtoMAML else {"n_way": 3}
    loop = InnerLoop(steps=2, lr=0.01)
    return kind(net, inner=loop, **ways, **options).double()


class BatchNormCalls(TorchDispatchMode):
    """Notes how the kernels of batch norm are called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if "batch_norm" in name:
            names = [a.name for a in func._schema.arguments]
            self.calls.append((name, dict(zip(names, args, strict=False)) | (kwargs or {})))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("engine", ["batched", "loop"])
@pytest.mark.parametrize("kind", LEARNERS)
def test_the_kernels_of_batch_norm_get_a_weight_and_an_eps(kind, engine, affine):
    learner, batch = build(kind, affine, engine=engine), episode()
    with BatchNormCalls() as seen:
        learner.training_loss(batch, progress=1.0).sum().backward()
        state = learner.adapt(batch.support, n_way=3)
        learner.predict(state, batch.query.x)
    assert {name for name, _ in seen.calls} >= {"aten::native_batch_norm"}
    for name, given in seen.calls:
        # on a GPU the derivative fails without a weight, and cuDNN refuses a smaller eps
        if "backward" in name:
            assert isinstance(given["weight"], torch.Tensor)
        assert given["eps"] >= 1e-5


def test_the_schedule_is_that_of_the_device_the_learner_is_on(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    learner, batch = build(MAML), episode()
    big = PoolSource(gaussian_pool(8, 12, (1, 16, 16))).episodes(
        EpisodeSpec(5, 5, 5), range(32), seed=0
    )
    learner.adapt(batch.support, n_way=3)  # looked at, so that "meta" needs no numbers
    assert learner.schedule(big).workers == 16
    assert learner.to("meta").schedule(big) == Schedule(
        32, 1, "batched: one programme for all of them, unrolled memory"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", LEARNERS)
def test_a_gpu_gives_the_losses_of_the_cpu(kind, affine):
    losses = []
    for device in ("cpu", "cuda"):
        learner, batch = build(kind, affine).to(device), episode().to(device)
        loss = learner.training_loss(batch, progress=1.0)
        loss.sum().backward()
        state = learner.adapt(batch.support, n_way=3)
        assert learner.predict(state, batch.query.x).device.type == device
        losses.append(loss.detach().cpu())
    assert torch.allclose(*losses, rtol=1e-6, atol=1e-9)
