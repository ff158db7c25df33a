"""Meta-training: it learns, it is deterministic, and it survives being killed."""

import errno
import itertools
import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from quickstudy.core import (
    CheckpointError,
    ConfigError,
    EpisodeSpec,
    QuickstudyError,
    TaskError,
    generator,
)
from quickstudy.core.devices import choose_device
from quickstudy.learners import NearestNeighbour, PrototypicalNetwork, meta_loss
from quickstudy.learners.metric import PrototypeHead
from quickstudy.nets import MLP, Conv4
from quickstudy.storage.tensors import load_tensors, load_weights, save_tensors
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool
from quickstudy.training import TrainConfig, ValidationConfig, every_role, train
from quickstudy.training.logs import read_log
from quickstudy.training.step import Average, batch_loss, build_optimiser, learning_rate

CONFIG = TrainConfig(
    steps=12,
    n_way=4,
    n_query=3,
    outer_lr=1e-2,
    warmup=2,
    checkpoint_every=5,
    log_every=2,
    validation=ValidationConfig(n_way=4, n_query=3, episodes=6, every=4),
)


def learner(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PrototypicalNetwork(MLP((6,), (8, 5), activation=nn.Tanh), learn_temperature=True)


def source(split="train"):
    return PoolSource(gaussian_pool(8, 10, (6,), split=split, seed=len(split)))


class Faulty:
    """A source that fails at one step, as a machine would."""

    name, split = "faulty", "train"

    def __init__(self, at):
        self.inner, self.at = source(), at

    def episodes(self, spec, task_ids, *, seed):
        if task_ids[0] == self.at:
            raise OSError("the machine went away")
        return self.inner.episodes(spec, task_ids, seed=seed)


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return all(torch.equal(a[n], b[n]) for n in a)


def lines_without_rates(lines):
    return [{k: v for k, v in line.items() if k != "episodes_per_second"} for line in lines]


# ---------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"roles": "every", "optimiser": "sgd"},
        {"tasks_per_step": 3, "schedule": "constant", "clip_norm": 1.0, "weight_decay": 1e-3},
    ],
)
def test_the_loss_falls_on_unseen_tasks(change):
    pool = gaussian_pool(20, 10, (6,), separation=0.3)
    noisy = torch.cat([pool.x, 3 * torch.randn(200, 6, generator=generator(0))], 1)
    data, model = PoolSource(pool.with_x(noisy)), learner()
    model.encoder = MLP((12,), (16, 8), activation=nn.Tanh)
    episode = data.episodes(EpisodeSpec(4, 1, 3), range(1000, 1200), seed=5)
    config = CONFIG.model_copy(update={"steps": 60, "ema_decay": 0.0, **change})
    with torch.no_grad():
        before = float(meta_loss(model, episode).mean())
    result = train(model, data, config, device="cpu")
    with torch.no_grad():
        after = float(meta_loss(model, episode).mean())
    assert after < before - 0.05
    assert result.steps == 60
    assert result.stopped == "done"
    assert not model.training
    assert 0 <= result.sampling_share <= 1


def test_a_seed_decides_everything():
    models = [learner(), learner(), learner()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)  # the global generator must not matter
        results = [
            train(m, source(), CONFIG.model_copy(update={"seed": s}), device="cpu")
            for m, s in zip(models, (1, 1, 2), strict=True)
        ]
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])
    assert lines_without_rates(results[0].log) == lines_without_rates(results[1].log)


@pytest.mark.parametrize("norm", ["batch", "group", "support"])
def test_bfloat16_trains_and_heads_compute_in_float32(norm):
    seen = []

    class Spy(PrototypeHead):
        def predict(self, state, x):
            logits = super().predict(state, x)
            seen.append((x.dtype, logits.dtype))
            return logits

    model = PrototypicalNetwork(Conv4(image_size=16, channels=8, norm=norm))
    model.head = Spy()
    data = PoolSource(gaussian_pool(6, 6, (1, 16, 16)))
    config = CONFIG.model_copy(update={"precision": "bfloat16", "steps": 2, "n_way": 3})
    result = train(model, data, config, device="cpu")
    assert all(math.isfinite(line["loss"]) for line in result.log)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert set(seen) == {(torch.float32, torch.float32)}


def test_a_diverging_run_is_stopped():
    class Exploding(PrototypeHead):
        def predict(self, state, x):
            return super().predict(state, x) * float("inf")

    model = learner()
    model.head = Exploding()
    with pytest.raises(QuickstudyError, match=r"diverged at step 1: the loss is (nan|inf)"):
        train(model, source(), CONFIG, device="cpu")


def test_running_statistics_are_tracked_by_training_alone():
    model = PrototypicalNetwork(Conv4(image_size=16, channels=8))
    data = PoolSource(gaussian_pool(6, 6, (1, 16, 16)))
    train(model, data, CONFIG.model_copy(update={"steps": 2, "n_way": 3}), device="cpu")
    assert not torch.equal(model.encoder.norms[0].running_mean, torch.zeros(8))


# ---------------------------------------------------------------------- schedules and averages


def test_learning_rates_are_a_function_of_the_step():
    def rates(**change):
        config = TrainConfig(steps=100, outer_lr=1.0, **change)
        return [learning_rate(config, s) for s in range(100)]

    assert rates(warmup=0, schedule="constant") == [1.0] * 100
    assert rates(warmup=4, schedule="constant")[:6] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    halved = rates(warmup=0, schedule="halving", halve_every=30)
    assert [halved[s] for s in (0, 29, 30, 59, 60, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.125]
    cosine = rates(warmup=0)
    assert cosine[0] == 1.0
    assert cosine[50] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(cosine))
    assert 0 < cosine[-1] < 1e-3


def test_the_average_by_hand():
    model, target = nn.Linear(1, 1), nn.Linear(1, 1)
    target.load_state_dict(model.state_dict())
    average, expected = Average(target, 0.3), model.weight.detach().clone()
    for step in range(1, 9):
        with torch.no_grad():
            model.weight.add_(step)
        average.update(model, step)
        decay = min(0.3, step / (step + 10))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(target.weight, expected)
    latest = Average(target, 0.0)
    latest.update(model, 9)
    assert torch.equal(target.weight, model.weight)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ConfigError, match="NearestNeighbour has no parameters"):
        build_optimiser(NearestNeighbour(), CONFIG)
    with pytest.raises(ConfigError, match="device 'abacus'"):
        choose_device("abacus")


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"outer_lr": 0}, {"ema_decay": 1.0}, {"roles": "any"}, {"stepz": 3}]
)
def test_settings_are_validated(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        TrainConfig(**bad)


# ---------------------------------------------------------------------- roles


@pytest.mark.parametrize(("k_shot", "n_query"), [(1, 3), (2, 4), (2, 3)])
def test_every_role_is_the_brute_force_loop(k_shot, n_query):
    episode = source().episodes(EpisodeSpec(3, k_shot, n_query), range(2), seed=0)
    turned = every_role(episode, k_shot=k_shot)
    per_class = k_shot + n_query
    turns = per_class // k_shot
    assert turned.n_tasks == 2 * turns
    for t in range(2):
        x = torch.cat([episode.support.x[t], episode.query.x[t]])
        y = torch.cat([episode.support.y[t], episode.query.y[t]])
        for turn in range(turns):
            s, q = (
                getattr(turned, side).tasks(slice(t * turns + turn, t * turns + turn + 1))
                for side in ("support", "query")
            )
            for c in range(3):
                mine = x[y == c]
                chosen = mine[turn * k_shot : (turn + 1) * k_shot]
                rest = torch.cat([mine[: turn * k_shot], mine[(turn + 1) * k_shot :]])
                assert torch.equal(s.x[0][s.y[0] == c], chosen)
                assert torch.equal(q.x[0][q.y[0] == c], rest)


def test_the_loss_of_every_role_is_the_mean_over_all_roles():
    model, episode = learner(), source().episodes(EpisodeSpec(3, 1, 2), [0], seed=0)
    config = CONFIG.model_copy(update={"roles": "every"})
    loss = batch_loss(model, episode, config)
    expected = torch.cat(
        [meta_loss(model, every_role(episode, k_shot=1).tasks(slice(i, i + 1))) for i in range(3)]
    )
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    "spec", [EpisodeSpec((2, 4), 1, 3), EpisodeSpec(3, (1, 3), 3), EpisodeSpec(3, 3, 3)]
)
def test_roles_need_balanced_episodes(spec):
    episode = source().episodes(spec, range(6), seed=0)
    with pytest.raises(TaskError, match=r"same number of\s+examples"):
        every_role(episode, k_shot=6 if spec.max_shot == 3 and not spec.variable else 1)


def test_roles_need_a_common_encoder_pass():
    model = PrototypicalNetwork(Conv4(image_size=16, channels=8, norm="support"))
    episode = PoolSource(gaussian_pool(6, 6, (1, 16, 16))).episodes(
        EpisodeSpec(3, 1, 2), [0], seed=0
    )
    with pytest.raises(ConfigError, match="roles='fixed'"):
        batch_loss(model, episode, CONFIG.model_copy(update={"roles": "every"}))


# ---------------------------------------------------------------------- validation


def test_the_best_weights_are_kept():
    model = learner()
    result = train(model, source(), CONFIG, validation=source("val"), device="cpu")
    scores = {line["step"]: line["validation"] for line in result.log if "validation" in line}
    assert list(scores) == [4, 8, 12]
    assert result.best_validation == max(scores.values())
    assert scores[result.best_step] == result.best_validation


def test_patience_stops_early():
    v = ValidationConfig(n_way=4, n_query=3, episodes=4, every=1, patience=3)
    config = CONFIG.model_copy(update={"steps": 500, "validation": v, "outer_lr": 1e-9})
    result = train(learner(), source(), config, validation=source("val"), device="cpu")
    assert result.stopped == "early"
    assert result.steps == result.best_step + 3


# ---------------------------------------------------------------------- interruption


@pytest.mark.parametrize("at", [0, 5, 9, 11])
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_a_resumed_run_is_the_unbroken_run_bit_for_bit(tmp_path, at, optimiser):
    config = CONFIG.model_copy(update={"optimiser": optimiser})
    whole, broken = learner(), learner()
    straight = train(whole, source(), config, validation=source("val"), out=tmp_path / "a")
    with pytest.raises(OSError, match="went away"):
        train(broken, Faulty(at), config, validation=source("val"), out=tmp_path / "b")
    resumed = learner(seed=7)  # other weights: everything must come from the checkpoint
    if at < config.checkpoint_every:
        resumed = learner()
    result = train(
        resumed, source(), config, validation=source("val"), out=tmp_path / "b", resume=True
    )
    assert same_weights(whole, resumed)
    assert result.best_step == straight.best_step
    logs = [lines_without_rates(read_log(tmp_path / run / "log.jsonl")) for run in "ab"]
    assert logs[0] == logs[1]
    models = [load_tensors(tmp_path / run / "model.safetensors")[0] for run in "ab"]
    assert all(torch.equal(models[0][n], models[1][n]) for n in models[0])


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first, second = learner(), learner(seed=3)
    train(first, source(), CONFIG, out=tmp_path)
    lines = (tmp_path / "log.jsonl").read_text()
    result = train(second, source(), CONFIG, out=tmp_path, resume=True)
    assert result.steps == CONFIG.steps
    assert same_weights(first, second)
    assert (tmp_path / "log.jsonl").read_text() == lines


def test_a_run_is_not_overwritten_or_changed(tmp_path):
    train(learner(), source(), CONFIG, out=tmp_path, manifest={"data": "abc"})
    with pytest.raises(CheckpointError, match="already holds a run"):
        train(learner(), source(), CONFIG, out=tmp_path, manifest={"data": "abc"})
    for config, data, says in [
        (
            CONFIG.model_copy(update={"warmup": 7}),
            "abc",
            r"train\.warmup: .* in the run, 7 now",
        ),
        (CONFIG, "xyz", 'data: "abc" in the run, "xyz" now'),
        (
            CONFIG.model_copy(update={"seed": 9}),
            "xyz",
            r'data: "abc" .*; train\.seed: 0 in the run, 9 now',
        ),
    ]:
        with pytest.raises(CheckpointError, match=says):
            train(learner(), source(), config, out=tmp_path, manifest={"data": data}, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_trained_model_without_a_checkpoint_is_not_written_over(tmp_path, resume):
    train(learner(), source(), CONFIG, out=tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="without a checkpoint"):
        train(learner(), source(), CONFIG, out=tmp_path, resume=resume)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    train(learner(), source(), CONFIG, out=tmp_path)
    for name in ("checkpoint.safetensors", "model.safetensors"):
        data = bytearray((tmp_path / name).read_bytes())
        data[-40] ^= 1
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"{name} is damaged .*checksum"):
            load_tensors(tmp_path / name)


def test_a_damaged_log_does_not_stop_a_run_from_being_resumed(tmp_path):
    train(learner(), source(), CONFIG, out=tmp_path)
    log = tmp_path / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"\xb4\xff{\n[1]\n{}\n" + lines[1])
    assert read_log(log) == [json.loads(line) for line in lines[:2]]
    train(learner(), source(), CONFIG, out=tmp_path, resume=True)
    log.unlink()
    log.mkdir()
    with pytest.raises(CheckpointError, match=r"log\.jsonl"):
        train(learner(), source(), CONFIG, out=tmp_path, resume=True)


def test_resuming_with_other_threads_says_so(tmp_path, capsys):
    threads = torch.get_num_threads()
    train(learner(), source(), CONFIG, out=tmp_path)
    torch.set_num_threads(threads + 1)
    try:
        train(learner(), source(), CONFIG, out=tmp_path, resume=True, progress=True)
    finally:
        torch.set_num_threads(threads)
    assert f"with {threads + 1} threads, begun with {threads}" in capsys.readouterr().err


def test_a_checkpoint_of_another_net_is_refused(tmp_path):
    train(learner(), source(), CONFIG, out=tmp_path)
    other = PrototypicalNetwork(MLP((6,), (9, 5)), learn_temperature=True)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        train(other, source(), CONFIG, out=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(other, {}, where="here")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged or was not written by"):
        train(learner(), source(), CONFIG, out=tmp_path, resume=True)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_tensors(tmp_path / "none.safetensors")


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    whole = learner()
    train(whole, source(), CONFIG, out=tmp_path / "whole")
    syncs, fsync = itertools.count(), os.fsync

    def full(handle):
        # the new log and the first checkpoint are synced twice each (file and folder)
        if next(syncs) >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"No space left.*before is intact"):
            train(learner(), source(), CONFIG, out=out)
    assert not list(out.glob("*.tmp"))
    _, meta = load_tensors(out / "checkpoint.safetensors")
    assert meta["progress"]["step"] == 5
    resumed = learner()
    train(resumed, source(), CONFIG, out=out, resume=True)
    assert same_weights(whole, resumed)


def test_a_real_write_error_keeps_the_old_file(tmp_path):
    path, small = tmp_path / "c.safetensors", {"a": torch.zeros(10)}
    save_tensors(path, small, {})
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(CheckpointError, match=r"4\.0 MB.*intact"):
            save_tensors(path, {"a": torch.zeros(1_000_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert torch.equal(load_tensors(path)[0]["a"], small["a"])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_log_line_cut_short_is_dropped(tmp_path):
    train(learner(), source(), CONFIG, out=tmp_path)
    text = (tmp_path / "log.jsonl").read_text()
    (tmp_path / "log.jsonl").write_text(text + '{"step": 14, "lo')
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [2, 4, 6, 8, 10, 12]


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(int(sys.argv[3]))
import test_training as t

class Slow:
    name, split, inner = "slow", "train", t.source()
    def episodes(self, spec, task_ids, *, seed):
        time.sleep(0.02)
        return self.inner.episodes(spec, task_ids, seed=seed)

try:
    t.train(t.learner(), Slow(), t.LONG, out=Path(sys.argv[1]))
except KeyboardInterrupt as stop:
    print("interrupted at", stop.step)
"""
LONG = CONFIG.model_copy(update={"steps": 200, "checkpoint_every": 10})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_is_resumed_bit_for_bit(tmp_path, number):
    here = os.path.dirname(__file__)  # noqa: PTH120
    threads = str(torch.get_num_threads())
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "run"), here, threads],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    while not checkpoint.exists() and child.poll() is None:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    child.send_signal(number)
    said, complaint = child.communicate()
    if number == signal.SIGKILL:
        assert child.returncode == -signal.SIGKILL, complaint
    else:
        assert child.returncode == 0, complaint
        assert said.startswith("interrupted at")
        assert "stopping after this step" in complaint
    _, meta = load_tensors(checkpoint)
    assert 0 < meta["progress"]["step"] < LONG.steps
    whole, resumed = learner(), learner(seed=9)
    train(whole, source(), LONG)
    train(resumed, source(), LONG, out=tmp_path / "run", resume=True)
    assert same_weights(whole, resumed)
    steps = [line["step"] for line in read_log(tmp_path / "run" / "log.jsonl")]
    assert steps == list(range(2, LONG.steps + 1, 2))


# ---------------------------------------------------------------------- logs


def test_tensorboard_files_are_written(tmp_path):
    pytest.importorskip("tensorboard")
    train(learner(), source(), CONFIG, out=tmp_path, tensorboard=True)
    files = list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert files
    assert sum(file.stat().st_size for file in files) > 500


def test_log_lines_hold_the_loss_the_rate_and_the_validation(tmp_path):
    result = train(learner(), source(), CONFIG, validation=source("val"), out=tmp_path)
    assert read_log(tmp_path / "log.jsonl") == result.log
    losses = [line for line in result.log if "loss" in line]
    assert [line["step"] for line in losses] == [2, 4, 6, 8, 10, 12]
    assert losses[0]["lr"] == learning_rate(CONFIG, 1)
    assert all(set(line) == {"step", "loss", "lr", "episodes_per_second"} for line in losses)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(learner(), source(), CONFIG, tensorboard=True).log
    assert not list(tmp_path.iterdir())


def test_two_threads_give_the_same_gradient_every_time():
    """The gradient of indexing is summed by whichever thread comes first; none may be left."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = PrototypicalNetwork(Conv4()).train()
        config = TrainConfig(n_way=60, n_query=5, roles="every")
        data = PoolSource(gaussian_pool(60, 6, (1, 28, 28)))
        episode = data.episodes(config.spec, [0], seed=0)
        parameters = list(model.parameters())

        def gradient():
            return torch.autograd.grad(batch_loss(model, episode, config).mean(), parameters)

        first = gradient()
        for _ in range(15):
            assert all(torch.equal(a, b) for a, b in zip(first, gradient(), strict=True))
    finally:
        torch.set_num_threads(threads)


def test_training_asks_for_deterministic_kernels_and_leaves_the_setting_alone():
    seen = []

    class Spy(PrototypeHead):
        def predict(self, state, x):
            seen.append(torch.are_deterministic_algorithms_enabled())
            return super().predict(state, x)

    model = learner()
    model.head = Spy()
    train(model, source(), CONFIG, device="cpu")
    assert seen
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


def test_bfloat16_is_computed_where_the_processor_can(monkeypatch):
    import quickstudy.training.step as step

    source = PoolSource(gaussian_pool(8, 9, (1, 16, 16)))
    episode = source.episodes(EpisodeSpec(5, 1, 2), [0], seed=0)
    config = TrainConfig(steps=1, n_way=5, n_query=2, precision="bfloat16")
    plain = config.model_copy(update={"precision": "float32"})
    losses = {}
    for able in (True, False):
        monkeypatch.setattr(step, "computes_bfloat16", lambda _, able=able: able)
        torch.manual_seed(0)
        learner = PrototypicalNetwork(Conv4(image_size=16, channels=4))
        losses[able] = step.batch_loss(learner, episode, config).detach()
        torch.manual_seed(0)
        learner = PrototypicalNetwork(Conv4(image_size=16, channels=4))
        exact = step.batch_loss(learner, episode, plain).detach()
    assert not torch.equal(losses[True], exact)
    assert torch.equal(losses[False], exact)
