"""One hook object sees a training from its start to its end, and may stop it."""

import pytest

from quickstudy.learners import PrototypicalNetwork
from quickstudy.nets import MLP
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool
from quickstudy.training import TrainConfig, ValidationConfig, Watcher, train

CONFIG = TrainConfig(
    steps=6,
    n_way=3,
    k_shot=1,
    n_query=2,
    checkpoint_every=4,
    log_every=3,
    validation=ValidationConfig(n_way=3, n_query=2, episodes=4, every=2, watch_episodes=0),
)


def source(split: str) -> PoolSource:
    return PoolSource(gaussian_pool(6, 8, (4,), split=split))


def learner() -> PrototypicalNetwork:
    return PrototypicalNetwork(MLP((4,), (8,)))


class Diary(Watcher):
    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.entries = stop_at, []

    def on_start(self, step):
        self.entries.append(("start", step))

    def on_step(self, step, figures):
        self.entries.append(("step", step))

    def on_validation(self, step, reports):
        assert 0 <= reports["novel classes"].mean <= 1
        self.entries.append(("validation", step))
        return step == self.stop_at

    def on_checkpoint(self, step, path):
        assert path.is_file()
        self.entries.append(("checkpoint", step))

    def on_end(self):
        self.entries.append(("end", None))

    def steps(self, what):
        return [step for name, step in self.entries if name == what]


def test_everything_is_told_in_its_order(tmp_path):
    diary = Diary()
    train(
        learner(), source("train"), CONFIG, validation=source("val"), out=tmp_path, watchers=[diary]
    )
    assert diary.entries[0] == ("start", 0)
    assert diary.entries[-1] == ("end", None)
    assert diary.steps("step") == [1, 2, 3, 4, 5, 6]
    assert diary.steps("validation") == [2, 4, 6]
    assert diary.steps("checkpoint") == [4, 6]


def test_a_watcher_stops_a_run_and_it_can_be_resumed(tmp_path):
    other = Diary()
    stopped = train(
        learner(),
        source("train"),
        CONFIG,
        validation=source("val"),
        out=tmp_path,
        watchers=[Diary(stop_at=2), other],
    )
    assert (stopped.steps, stopped.stopped) == (2, "early")
    assert other.steps("validation") == [2]  # the second one was told too
    assert other.steps("checkpoint") == [2]
    assert (tmp_path / "model.safetensors").is_file()
    diary = Diary()
    done = train(
        learner(),
        source("train"),
        CONFIG,
        validation=source("val"),
        out=tmp_path,
        resume=True,
        watchers=[diary],
    )
    assert (done.steps, done.stopped) == (6, "done")
    assert diary.entries[0] == ("start", 2)


def test_the_end_is_told_after_an_error_too():
    class Failing(Diary):
        def on_step(self, step, figures):
            raise RuntimeError("mine")

    diary = Failing()
    with pytest.raises(RuntimeError, match="mine"):
        train(learner(), source("train"), CONFIG, watchers=[diary])
    assert diary.entries == [("start", 0), ("end", None)]
