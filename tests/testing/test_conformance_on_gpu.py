"""The conformance suites of this library's learners, on a GPU where there is one."""

from __future__ import annotations

import pytest
import test_conformance as cpu
import torch

from quickstudy.testing import ConstantLearner, LearnerConformance, SourceConformance

HAS_GPU = torch.cuda.is_available()
SUITES = sorted(
    (
        kind
        for kind in vars(cpu).values()
        if isinstance(kind, type)
        and issubclass(kind, LearnerConformance)
        and kind.make_learner is not LearnerConformance.make_learner
    ),
    key=lambda kind: kind.__name__,
)


def methods(suite):
    return [getattr(suite, name) for name in dir(suite) if name.startswith("test_")]


@pytest.mark.skipif(not HAS_GPU, reason="no CUDA device on this machine")
@pytest.mark.parametrize("kind", SUITES)
def test_a_learner_conforms_on_a_gpu(kind):
    suite = type(kind.__name__, (kind,), {"device": "cuda", "meta_steps": min(kind.meta_steps, 20)})
    for test in methods(suite()):
        test()


@pytest.mark.skipif(not HAS_GPU, reason="no CUDA device on this machine")
def test_a_source_may_make_its_episodes_on_a_gpu():
    class Suite(SourceConformance):
        fresh_process = False
        episodes = 100

        def make_source(self):
            return Moved(cpu.TestPoolSource().make_source(), "cuda")

        def make_spec(self):
            return cpu.TestPoolSource().make_spec()

    for test in methods(Suite()):
        test()


class Moved:
    def __init__(self, source, device):
        self.source, self.device = source, device
        self.name, self.split = source.name, source.split

    def episodes(self, spec, ids, *, seed):
        return self.source.episodes(spec, ids, seed=seed).to(self.device)


class Placed(LearnerConformance):
    device = "meta"
    trainable = False

    def make_learner(self):
        return ConstantLearner()


def test_the_suite_computes_on_the_device_it_is_given():
    suite = Placed()
    assert suite._episode().support.x.device.type == "meta"
    learner = suite._fresh(0)
    assert all(v.device.type == "meta" for v in [*learner.parameters(), *learner.buffers()])
    assert len(SUITES) > 30
