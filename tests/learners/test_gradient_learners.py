"""Gradient learners in use: what is refused, what is said, memory, schedules, deployment."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import weakref

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from quickstudy.core import (
    ConfigError,
    DivergenceError,
    Episode,
    EpisodeSpec,
    Examples,
)
from quickstudy.core.workers import Schedule, in_chunks
from quickstudy.evaluation import compare, evaluate
from quickstudy.learners import (
    ANIL,
    IMAML,
    MAML,
    InnerLoop,
    MetaSGD,
    ProtoMAML,
    PrototypicalNetwork,
    Reptile,
    meta_loss,
)
from quickstudy.learners.gradient import without_running_statistics
from quickstudy.nets import Conv4
from quickstudy.tasks import PoolSource, SinusoidSource
from quickstudy.testing import gaussian_pool, snapshot
from quickstudy.training import TrainConfig, ValidationConfig, train
from quickstudy.training.step import meta_gradient

IMAGE = (1, 16, 16)


def source(shape=IMAGE, split="train"):
    return PoolSource(gaussian_pool(8, 12, shape, split=split))


def episode(shape=IMAGE, tasks=3, *, way=3, shot=3, dtype=torch.float64):
    batch = source(shape).episodes(EpisodeSpec(way, shot, 3), range(tasks), seed=0)
    return batch.to("cpu", dtype)


def conv(norm="support", **options):
    torch.manual_seed(0)
    return Conv4(image_size=16, channels=4, norm=norm, **options)


def gradients(learner, batch, config):
    losses = meta_gradient(learner.train(), batch, config, progress=1.0)
    return losses, {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}


# -------------------------------------------------------------------------------- refusals


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        self.last = self.layer(x)
        return self.last


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return nn.functional.dropout(self.layer(x), 0.5)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), "track_running_stats=False"),
        (conv("batch"), "norm='support'"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), "Set its dropout to 0"),
        (nn.LSTM(3, 3, 2, dropout=0.2), "Set its dropout to 0"),
        (nn.MultiheadAttention(4, 2, dropout=0.1), "Set its dropout to 0"),
    ],
)
def test_a_module_that_cannot_be_right_is_refused_with_the_remedy(net, message):
    with pytest.raises(ConfigError, match=message):
        MAML(net, head=None)


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Counting, "changes calls"),
        (Remembering, "changes last"),
        (Random, "draws random numbers"),
    ],
)
def test_a_module_that_keeps_state_or_draws_is_refused_when_it_runs(engine, make, message):
    net = make()
    learner = MAML(net, head=None, engine=engine)
    batch = episode((6,), dtype=torch.float32)
    before = {n: b.clone() for n, b in net.named_buffers()}
    with pytest.raises(ConfigError, match=message):
        learner.adapt(batch.support, n_way=3)
    assert all(torch.equal(b, before[n]) for n, b in net.named_buffers())


def test_running_statistics_can_be_taken_off():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(392, 3))
    learner = MAML(without_running_statistics(net), head=None)
    batch = episode(dtype=torch.float32)
    state = learner.adapt(batch.support, n_way=3)
    assert learner.predict(state, batch.query.x).shape == (3, 9, 3)
    assert {"norm.norm0.mean", "norm.norm0.scale"} < state.keys()


def test_settings_that_do_not_fit_are_named():
    for arguments, message in [
        ({"head": None, "adapted": "head"}, "needs a head"),
        ({"rates": "many"}, "rates needs"),
        ({"order": "third"}, "order needs"),
        ({"multi_step": 2.0}, "share from 0 to 1"),
        ({"query_statistics": "all"}, "query_statistics needs"),
        ({"engine": "steam"}, "engine needs"),
        ({"head": "round"}, "head needs"),
    ]:
        with pytest.raises(ConfigError, match=message):
            MAML(conv(), **arguments)
    with pytest.raises(ConfigError, match="Give features="):
        MAML(nn.Flatten())
    with pytest.raises(ConfigError, match="head was made for 5 classes; the task has 8"):
        MAML(conv()).adapt(episode(way=8, shot=1, dtype=torch.float32).support, n_way=8)
    with pytest.raises(ConfigError, match="'linear' or 'shared'"):
        Reptile(conv(), head="prototype")
    for bad in ({"steps": -1}, {"lr": 0.0}, {"clip": 0.0}, {"memory": "none"}):
        with pytest.raises(ConfigError):
            InnerLoop(**bad)


# ------------------------------------------------------------------------------- stability


def test_a_diverging_inner_loop_says_which_task_and_step_and_what_to_change():
    net = nn.Sequential(nn.Linear(1, 5), nn.Linear(5, 1))
    batch = SinusoidSource().episodes(EpisodeSpec(1, 10, 5), range(4), seed=0)
    learner = MAML(net, head=None, inner=InnerLoop(steps=20, lr=50.0))
    with pytest.raises(DivergenceError, match=r"task \d \(of 4\).*inner step \d+ \(of 20\)") as e:
        learner.adapt(batch.support, n_way=1)
    assert "Lower inner_lr" in str(e.value)
    with torch.no_grad(), pytest.raises(DivergenceError):
        learner.adapt(batch.support, n_way=1)
    with pytest.raises(DivergenceError):
        IMAML(net, head=None, inner=InnerLoop(steps=20, lr=50.0)).adapt(batch.support, n_way=1)
    with pytest.raises(DivergenceError):
        Reptile(net, head=None, inner=InnerLoop(steps=20, lr=50.0)).adapt(batch.support, n_way=1)
    held = MAML(net, head=None, inner=InnerLoop(steps=20, lr=0.01, clip=1.0))
    state = held.adapt(batch.support, n_way=1)
    assert all(bool(torch.isfinite(v).all()) for v in state.values())


def test_inputs_that_are_not_finite_are_told_from_divergence():
    learner, batch = MAML(conv(), n_way=3), episode(dtype=torch.float32)
    x = batch.support.x.clone()
    x[1, 0] = float("nan")
    with pytest.raises(DivergenceError, match=r"task 1 .*before the first step: check the inputs"):
        learner.adapt(Examples.full(x, batch.support.y), n_way=3)


def test_clipping_holds_the_norm_of_each_task():
    learner, batch = MAML(conv(), n_way=3, inner=InnerLoop(lr=1.0, clip=1e-3)), episode()
    learner.double()
    start = {"net." + n: p for n, p in learner.net.named_parameters()}
    start |= {"head.weight": learner.head.weight, "head.bias": learner.head.bias}
    state = learner.adapt(batch.support, n_way=3)
    moved = torch.stack([(state[n] - p).flatten(1).square().sum(1) for n, p in start.items()]).sum(
        0
    )
    assert torch.allclose(moved.sqrt(), torch.full((3,), 1e-3, dtype=torch.float64))


class Poisoned(PoolSource):
    """A source whose episodes from some step on hold NaN."""

    def episodes(self, spec, task_ids, *, seed):
        batch = super().episodes(spec, task_ids, seed=seed)
        if min(task_ids) >= 6:
            batch.query.x.fill_(float("nan"))
        return batch


def test_a_run_that_meets_nan_stops_with_a_checkpoint_from_before(tmp_path):
    config = TrainConfig(
        steps=5, tasks_per_step=2, n_way=3, k_shot=3, n_query=3, checkpoint_every=100
    )
    learner = MAML(conv(), n_way=3, inner=InnerLoop(lr=0.1))
    with pytest.raises(DivergenceError, match=f"diverged at step 4.*{tmp_path.name} holds the run"):
        train(learner, Poisoned(source().pool), config, out=tmp_path)
    assert all(bool(torch.isfinite(p).all()) for p in learner.parameters())
    assert not (tmp_path / "model.safetensors").exists()
    # the data mended, the run goes on to what it would have been
    resumed = MAML(conv(), n_way=3, inner=InnerLoop(lr=0.1))
    train(resumed, source(), config, out=tmp_path, resume=True)
    never = MAML(conv(), n_way=3, inner=InnerLoop(lr=0.1))
    train(never, source(), config)
    for a, b in zip(resumed.parameters(), never.parameters(), strict=True):
        assert torch.equal(a, b)


def test_derivative_order_annealing_and_multi_step_loss_follow_the_progress():
    batch = episode()

    def gradient(progress, **options):
        learner = MAML(conv(), n_way=3, inner=InnerLoop(steps=3, lr=0.1), **options).double()
        loss = learner.training_loss(batch, progress=progress).mean()
        return torch.autograd.grad(loss, learner.net.parameters())[0]

    first, second = gradient(0.5, order="first"), gradient(0.5)
    assert not torch.allclose(first, second)
    assert torch.equal(gradient(0.2, first_order_until=0.3), first)
    assert torch.equal(gradient(0.5, first_order_until=0.3), second)
    assert not torch.allclose(gradient(0.0, multi_step=1.0), second)
    assert torch.allclose(gradient(1.0, multi_step=1.0), second)
    assert MAML._step_weights(4, 0.0) == [0.25] * 4
    assert MAML._step_weights(4, 1.0) == [0, 0, 0, 1]


def test_frozen_parameters_are_not_adapted_and_the_others_are_on_a_frozen_copy_too():
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    net[0].requires_grad_(False)
    batch = episode((6,), dtype=torch.float32)
    for kind in (MAML, MetaSGD, IMAML, Reptile):
        learner = kind(net, head=None)
        state = learner.adapt(batch.support, n_way=3)
        assert {"net.2.weight", "net.2.bias", "present"} == state.keys()
        # what validation works on
        frozen = copy.deepcopy(learner).requires_grad_(False)
        again = frozen.adapt(batch.support, n_way=3)
        assert all(torch.equal(v, again[n]) for n, v in state.items())


# ------------------------------------------------------------------------ memory, schedules


class Peak(TorchDispatchMode):
    """Counts the bytes of living tensors that are made while it is on."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self._seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)

        def gone():
            self.now -= size
            self._seen.discard(key)

        weakref.finalize(storage, gone)


def peak(memory, steps):
    learner = MAML(
        conv(downsample="stride"),
        n_way=3,
        inner=InnerLoop(steps=steps, lr=0.01, memory=memory),
        query_statistics="query",
    )
    # many examples: activations count, not parameters
    batch = source().episodes(EpisodeSpec(3, 6, 6), range(6), seed=0)
    with Peak() as seen:
        meta_loss(learner, batch).mean().backward()
    return seen.most


def test_peak_memory_is_flat_in_the_inner_steps():
    assert peak("flat", 20) < 1.2 * peak("flat", 1)
    assert peak("unrolled", 20) > 5 * peak("unrolled", 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MAML(conv(), n_way=3, inner=InnerLoop(steps=2, lr=0.1)),
        lambda: MetaSGD(conv(), n_way=3),
        lambda: ANIL(conv(), n_way=3),
        lambda: ProtoMAML(conv()),
        lambda: Reptile(conv(), n_way=3),
        lambda: PrototypicalNetwork(conv("group")),
        lambda: PrototypicalNetwork(conv("support")),
    ],
)
def test_accumulated_batches_have_the_same_gradient(make):
    batch, found = episode(tasks=5), []
    for at_once in (None, 1, 2, 5):
        learner = make().double()
        config = TrainConfig(tasks_per_step=5, tasks_at_once=at_once, roles="fixed")
        found.append(gradients(learner, batch, config))
    for losses, grads in found[1:]:
        assert torch.allclose(losses, found[0][0], rtol=1e-10, atol=1e-12)
        for name, value in grads.items():
            assert torch.allclose(value, found[0][1][name], rtol=1e-8, atol=1e-11), name


def test_a_batch_norm_over_all_tasks_is_not_accumulated():
    learner = PrototypicalNetwork(conv("batch")).double()
    config = TrainConfig(tasks_per_step=3, tasks_at_once=1)
    with pytest.raises(ConfigError, match="tasks_at_once would change the gradient"):
        meta_gradient(learner, episode(), config, progress=0.0)


def test_training_in_chunks_ends_with_the_weights_of_training_at_once():
    """Optimiser included: a fused one walks gradients along the parameters' own memory."""

    def trained(at_once):
        learner = MAML(conv(), n_way=3, inner=InnerLoop(lr=0.1)).double()
        config = TrainConfig(
            steps=4, tasks_per_step=4, tasks_at_once=at_once, n_way=3, k_shot=3, n_query=3
        )
        train(learner, Doubled(source().pool), config)
        return learner

    for a, b in zip(trained(4).parameters(), trained(1).parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9)


class Doubled(PoolSource):
    def episodes(self, spec, task_ids, *, seed):
        return super().episodes(spec, task_ids, seed=seed).to("cpu", torch.float64)


def test_threads_compute_what_one_thread_computes():
    before = torch.get_num_threads()
    learner = MAML(Conv4(norm="support", downsample="stride"), n_way=5).train()
    pool = gaussian_pool(8, 12, (1, 28, 28))
    batch = PoolSource(pool).episodes(EpisodeSpec(5, 1, 3), range(6), seed=0)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            schedule = learner.schedule(batch)
            assert schedule.workers == threads
            assert ("threads" in str(schedule)) == (threads == 2)
            found.append(gradients(learner, batch, TrainConfig(tasks_per_step=6))[1])
            again = gradients(learner, batch, TrainConfig(tasks_per_step=6))[1]
            assert all(torch.equal(v, again[n]) for n, v in found[-1].items())
    finally:
        torch.set_num_threads(before)
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], rtol=1e-3, atol=1e-6), name


def test_an_error_in_a_thread_reaches_the_caller_and_gradients_stay_off():
    module = nn.Linear(2, 2)

    def action(replica, tasks):
        assert replica is not module
        assert replica.weight is module.weight
        assert not torch.is_grad_enabled()
        if tasks.start == 2:
            raise ValueError("task 2")
        return tasks.start

    with torch.no_grad():
        with pytest.raises(ValueError, match="task 2"):
            in_chunks(action, module, 4, Schedule(1, 2))
        assert in_chunks(action, module, 2, Schedule(1, 2)) == [0, 1]


def test_the_schedule_says_which_engine():
    batch = episode(dtype=torch.float32)
    assert "batched" in str(MAML(conv()).schedule(batch))
    assert "one by one" in str(MAML(conv(), engine="loop").schedule(batch))
    # images so large that one task fills a core's cache run with native kernels
    large = Episode(
        Examples.full(torch.zeros(4, 20, 3, 168, 168), torch.zeros(4, 20, dtype=torch.int64)),
        Examples.full(torch.zeros(4, 20, 3, 168, 168), torch.zeros(4, 20, dtype=torch.int64)),
        5,
    )
    schedule = MAML(Conv4(in_channels=3, image_size=168, norm="support")).schedule(large)
    assert schedule.tasks_at_once == 1
    assert "native" in str(schedule)


# ------------------------------------------------------------------ labels and transduction


def spread_over_labels(learner, batch):
    """Return how much the accuracy of the queries moves when labels are renamed."""
    scores = []
    for turn in range(3):
        names = torch.arange(3).roll(turn)
        support = Examples(batch.support.x, names[batch.support.y], batch.support.mask)
        with torch.no_grad():
            state = learner.adapt(support, n_way=3)
            logits = learner.predict(state, batch.query.x)[..., names]
        scores.append(logits.softmax(2))
    return max(float((s - scores[0]).abs().max()) for s in scores)


def test_only_a_linear_head_depends_on_how_classes_are_numbered():
    batch = episode()
    linear = MAML(conv(), n_way=3).double().eval()
    assert linear.label_sensitive
    assert spread_over_labels(linear, batch) > 1e-3
    for learner in (MAML(conv(), head="shared"), ProtoMAML(conv())):
        assert not learner.label_sensitive
        assert spread_over_labels(learner.double().eval(), batch) < 1e-9


def test_equivariant_heads_fit_any_number_of_classes():
    learner = ProtoMAML(conv(), inner=InnerLoop(steps=1, lr=0.1)).eval()
    for way in (2, 8):
        batch = episode(way=way, dtype=torch.float32)
        with torch.no_grad():
            state = learner.adapt(batch.support, n_way=way)
        assert learner.predict(state, batch.query.x).shape[-1] == way


def test_transduction_is_declared_named_and_its_gain_is_a_paired_difference():
    learner = MAML(conv(), n_way=3).eval()
    with_queries = learner.judged(query_statistics="query")
    assert not learner.transductive
    assert with_queries.transductive
    assert next(with_queries.parameters()) is next(learner.parameters())
    batch = episode(dtype=torch.float32)
    with torch.no_grad():
        state = with_queries.adapt(batch.support, n_way=3)
        alone = with_queries.predict(state, batch.query.x[:, :1])
        together = with_queries.predict(state, batch.query.x)[:, :1]
    assert not torch.allclose(alone, together)
    spec = EpisodeSpec(3, 1, 3)
    reports = [evaluate(m, source(split="val"), spec, episodes=20) for m in (with_queries, learner)]
    assert "[transductive]" in str(reports[0])
    gain = compare(*reports, across=("transductive",))
    assert gain.mean == pytest.approx(reports[0].mean - reports[1].mean)
    # without batch norm there is nothing to be transductive about
    assert not MAML(conv("group"), query_statistics="query").transductive


def test_batch_norm_that_only_queries_meet_is_refused():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(6, track_running_stats=False)
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(self.norm(x) if len(x) == 2 else x)

    learner, batch = MAML(Odd(), head=None), episode((6,), dtype=torch.float32)
    state = learner.adapt(batch.support, n_way=3)
    with pytest.raises(ConfigError, match="was not for the support"):
        learner.predict(state, batch.query.x[:, :2])


# ------------------------------------------------------------------------------ deployment

SCRIPT = """
import json, sys, torch
from safetensors.torch import load_file
from quickstudy.learners import MAML, InnerLoop
from quickstudy.nets import Conv4
torch.set_num_threads(1)
learner = MAML(Conv4(image_size=16, channels=4, norm="support"), n_way=3, inner=InnerLoop(steps=3))
learner.load_state_dict(load_file(sys.argv[1]))
learner.eval()
with torch.no_grad():
    logits = learner.predict(load_file(sys.argv[2]), load_file(sys.argv[3])["x"])
print(json.dumps([v.hex() for v in logits.flatten().tolist()]))
"""


def test_an_adapted_task_predicts_the_same_in_a_new_process(tmp_path):
    learner, batch = MAML(conv(), n_way=3, inner=InnerLoop(steps=3)).eval(), episode()
    batch = batch.to("cpu", torch.float32)
    before = snapshot(learner)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            state = learner.adapt(batch.support, n_way=3)
            logits = learner.predict(state, batch.query.x)
    finally:
        torch.set_num_threads(threads)
    assert snapshot(learner) == before
    assert all(v.grad_fn is None and not v.requires_grad for v in state.values())
    files = [str(tmp_path / f"{n}.safetensors") for n in ("weights", "state", "x")]
    weights = {n: v.contiguous() for n, v in learner.state_dict().items()}
    for name, tensors in zip(files, (weights, state, {"x": batch.query.x}), strict=True):
        save_file(tensors, name)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *files], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [v.hex() for v in logits.flatten().tolist()]


def test_adapting_without_gradients_builds_no_graph_and_gives_the_same_state():
    learner, batch = MAML(conv(), n_way=3, inner=InnerLoop(steps=3)).double(), episode()
    for memory in ("flat", "unrolled"):
        learner.inner = InnerLoop(steps=3, memory=memory)
        graph = learner.adapt(batch.support, n_way=3)
        with torch.no_grad():
            plain = learner.adapt(batch.support, n_way=3)
        for name, value in plain.items():
            assert value.grad_fn is None
            assert torch.allclose(value.double(), graph[name].double(), rtol=1e-9, atol=1e-12)


def test_the_baseline_of_sine_waves_trains_without_an_inner_loop():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 20), nn.ReLU(), nn.Linear(20, 1))
    learner = MAML(net, head=None, inner=InnerLoop(steps=0, eval_steps=10, lr=0.01))
    config = TrainConfig(
        steps=30, tasks_per_step=10, n_way=1, k_shot=10, n_query=10,
        validation=ValidationConfig(n_way=1, k_shot=10),
    )  # fmt: skip
    train(learner, SinusoidSource(), config)
    assert learner.eval().steps == 10
    spec = EpisodeSpec(1, 10, 50)
    scores = [
        evaluate(learner.judged(eval_steps=s), SinusoidSource("val"), spec, episodes=50).mean
        for s in (0, 10)
    ]
    assert scores[1] < scores[0]
