"""Priors on synthetic classes whose truth is known: learned, saved, and given faulty tasks."""

import json

import numpy as np
import pytest
import torch
from gaussian_classes import DIM, task_of, world

from quickstudy.core import CheckpointError, ConfigError, TaskError, generator
from quickstudy.estimators import TaskPrior, fit_task, learn_prior
from quickstudy.fitting.draws import AuxiliaryClasses
from quickstudy.fitting.evidence import own_temperature
from quickstudy.fitting.heads import HEADS
from quickstudy.fitting.space import Metric, MetricSettings, mean_and_within

# --------------------------------------------------------------------------------- the metric


def test_covariances_are_those_of_the_definition():
    z, y = world(4, 7, seed=2)
    z = z.double()
    mean, within = mean_and_within(z, y)
    means = torch.stack([z[y == c].mean(0) for c in range(4)])
    torch.testing.assert_close(mean, means.mean(0))
    expected = sum(torch.cov(z[y == c].T, correction=0) for c in range(4)) / 4
    torch.testing.assert_close(within, expected)


def test_whitening_makes_the_within_class_covariance_spherical():
    z, y = world(30, 200, seed=3)
    metric = Metric.fit(z, y, MetricSettings(shrinkage=0.0))
    _, within = mean_and_within(metric(z).double(), y)
    values = torch.linalg.eigvalsh(within)
    assert float(values.max() / values.min()) == pytest.approx(1, abs=1e-3)
    _, before = mean_and_within(torch.nn.functional.normalize(z, dim=1).double(), y)
    # in the unit of the inputs
    assert float(values.mean()) == pytest.approx(float(before.trace()) / DIM, rel=1e-3)


def test_only_the_loudest_directions_are_whitened():
    z, y = world(30, 100, seed=4)
    metric = Metric.fit(z, y, MetricSettings(shrinkage=0.1, rank=4))
    assert metric.dim == DIM
    _, before = mean_and_within(torch.nn.functional.normalize(z, dim=1).double(), y)
    values, vectors = torch.linalg.eigh(before)
    _, after = mean_and_within(metric(z).double(), y)
    kept = vectors.T @ after @ vectors
    torch.testing.assert_close(kept.diagonal()[:-4], values[:-4], rtol=1e-3, atol=1e-9)
    assert bool((kept.diagonal()[-4:] < values[-4:]).all())


def test_a_prior_learns_that_the_loud_directions_are_noise(prior):
    assert prior.metric.settings.shrinkage < 1


@pytest.mark.parametrize(
    "bad", [{"power": 0}, {"power": 1.5}, {"shrinkage": -0.1}, {"shrinkage": 2}, {"rank": 0}]
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match="got"):
        MetricSettings(**bad)


def test_a_metric_of_one_class_is_refused():
    with pytest.raises(TaskError, match="two classes"):
        Metric.fit(torch.ones(3, 4), torch.zeros(3).long(), MetricSettings())


# ---------------------------------------------------------------------------------- files


def test_a_saved_prior_says_the_same(prior, tasks, tmp_path):
    prior.save(tmp_path / "mine")
    loaded = TaskPrior.load(tmp_path / "mine")
    for shots in (1, 5):
        task = task_of(tasks, 0, shots)
        a, b = (fit_task(p, task.z, task.y, n_way=5) for p in (prior, loaded))
        q = task.query
        assert (a.head_name, a.familiar) == (b.head_name, b.familiar)
        assert torch.equal(a.proba(q), b.proba(q))
        assert torch.equal(a.novelty(q), b.novelty(q))
        assert a.novelty_threshold(0.83) == b.novelty_threshold(0.83)
        assert a.expected_accuracy() == b.expected_accuracy()
        assert torch.equal(a.sets(q, coverage=0.83), b.sets(q, coverage=0.83))
    assert loaded.to_parts()[0] == prior.to_parts()[0]


def test_a_prior_of_columns_is_one_when_it_is_read_again(tmp_path):
    TaskPrior.for_columns(3).save(tmp_path / "table")
    loaded = TaskPrior.load(tmp_path / "table")
    assert loaded.columns
    z = torch.tensor([[3.0, 4.0, 0.0]])
    assert loaded.transform(z).tolist() == z.tolist()  # not of length one
    assert loaded.resized(5).columns
    assert not TaskPrior.plain(3).resized(5).columns


FAULTS = {
    "quantiles that fall": lambda d: d["heads"]["ridge"].update(held_out=[2.0, 1.0]),
    "quantiles without end": lambda d: d["open_set"].update(held_out=[1.0, float("inf")]),
    "a table that is none": lambda d: d["heads"]["ridge"]["far"].update(accuracy=[[5, 0.5, 1]]),
    "ways that fall": lambda d: d["heads"]["ridge"]["far"].update(low=[[5, 0.5], [2, 0.6]]),
    "one threshold": lambda d: d["open_set"].update(far={"0.9": [[5, 1.0]]}),
    "a level of two": lambda d: d["open_set"]["far"].update({"2": [[5, 1.0]]}),
    "no heads": lambda d: d.pop("heads"),
    "a head without tables": lambda d: d["heads"]["ridge"].pop("far"),
    "a source too many": lambda d: d["known"].update(
        more={"mean": [[2, 1]], "deviation": [[2, 1]]}
    ),
    "columns of a word": lambda d: d.update(columns="yes"),
    "no sources": lambda d: d.pop("known"),
}


@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS)
def test_numbers_that_are_no_prior_are_refused(change, prior, tmp_path):
    prior.save(tmp_path / "mine")
    path = tmp_path / "mine.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="Learn it again"):
        TaskPrior.load(tmp_path / "mine")


def test_damaged_missing_and_newer_files_are_refused(prior, tmp_path):
    with pytest.raises(CheckpointError, match="no prior"):
        TaskPrior.load(tmp_path / "none")
    prior.save(tmp_path / "mine")
    path = tmp_path / "mine.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        TaskPrior.load(tmp_path / "mine")
    path.write_text(json.dumps(document)[:-50])
    with pytest.raises(CheckpointError):
        TaskPrior.load(tmp_path / "mine")
    path.write_text(json.dumps(document))
    tensors = tmp_path / "mine.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-4])
    with pytest.raises(CheckpointError):
        TaskPrior.load(tmp_path / "mine")


def test_learning_is_a_function_of_the_seed():
    z, y = world(12, 30, seed=7)
    one, two = (
        learn_prior(z, y, heads=("prototype",), ways=(3,), shots=(1, 3), tasks=10, seed=s)
        for s in (4, 4)
    )
    assert one.to_parts()[0] == two.to_parts()[0]


# --------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("make", [lambda p: p, lambda p: TaskPrior.plain(DIM)])
@pytest.mark.parametrize("head", ["auto", *HEADS])
def test_faulty_supports_degrade_and_do_not_break(prior, make, head):
    one = make(prior)
    x = torch.randn(6, DIM, generator=generator(9))
    q = torch.randn(4, DIM, generator=generator(10))
    cases = {
        "one class": (x, torch.zeros(6).long(), 1),
        "one example": (x[:1], torch.zeros(1).long(), 1),
        "one example of two classes": (x[:1], torch.zeros(1).long(), 2),
        "identical": (x[:1].expand(6, -1), torch.arange(6) % 2, 2),
        "contradictory": (x[[0, 0, 1, 1]], torch.tensor([0, 1, 0, 1]), 2),
        "uneven": (x, torch.tensor([0, 0, 0, 0, 1, 2]), 3),
        "zeros": (torch.zeros(4, DIM), torch.tensor([0, 0, 1, 1]), 2),
    }
    for what, (z, y, n_way) in cases.items():
        fitted = fit_task(one, z, y, n_way=n_way, head=head)
        p = fitted.proba(q)
        assert bool(p.isfinite().all()), what
        torch.testing.assert_close(p.sum(1), torch.ones(4).double())
        assert bool(fitted.novelty(q).isfinite().all()), what
        assert fitted.sets(q).shape == (4, n_way), what
        assert fitted.accepts(q).shape == (4,), what
        expected = fitted.expected_accuracy()
        assert 0 <= expected.low <= expected.high <= 1, what
        order, *_ = fitted.suspects()
        assert sorted(order.tolist()) == list(range(len(y))), what


def test_wrong_input_is_named(prior):
    z, y = torch.randn(6, DIM), torch.arange(6) % 2
    with pytest.raises(TaskError, match="NaN"):
        fit_task(prior, z.masked_fill(torch.eye(6, DIM).bool(), torch.nan), y, n_way=2)
    with pytest.raises(TaskError, match="features"):
        fit_task(prior, z[:, :5], y, n_way=2)
    with pytest.raises(TaskError, match="at least one example"):
        fit_task(prior, z[:0], y[:0], n_way=2)
    with pytest.raises(TaskError, match="labels"):
        fit_task(prior, z, y + 1, n_way=2)
    with pytest.raises(ConfigError, match="Did you mean 'ridge'"):
        fit_task(prior, z, y, n_way=2, head="rigde")
    fitted = fit_task(prior, z, y, n_way=2)
    for bad in (0.0, 1.0):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            fitted.sets(z, coverage=bad)
        with pytest.raises(ConfigError, match="between 0 and 1"):
            fitted.accepts(z, accept=bad)
    with pytest.raises(ConfigError):
        TaskPrior.plain(0)


def test_too_few_classes_are_refused():
    z, y = world(2, 30, seed=8)
    with pytest.raises(TaskError, match="Give"):
        learn_prior(z, y, heads=("prototype",), tasks=5)
    with pytest.raises(TaskError, match="labels must be"):
        AuxiliaryClasses(z, y[:-1])


def test_groups_stay_on_one_side():
    z, y = world(6, 20, seed=11)
    groups = torch.arange(120) // 4
    z = torch.cat([groups[:, None].float(), z], 1)
    drawn = AuxiliaryClasses(z, y, groups=groups).episodes(3, 1, tasks=20, seed=0, n_query=8)
    for t in range(20):
        s, q = (side.x[t, :, 0].tolist() for side in (drawn.episode.support, drawn.episode.query))
        assert not set(s) & set(q)


def test_golden_auxiliary_episodes_of_seed_0():
    """The draws of a seed never change: published priors were learned from them."""
    rows = np.arange(24)  # each row's embedding is its own number
    classes = AuxiliaryClasses(rows[:, None], rows // 6, groups=rows // 2)
    drawn = classes.episodes(2, 2, tasks=2, seed=0, n_query=2, n_strangers=3)
    support, query = drawn.episode.support, drawn.episode.query
    assert support.x[..., 0].tolist() == [[15, 17, 18, 19], [14, 15, 19, 21]]
    assert query.x[..., 0].tolist() == [[12, 13, 20, 21], [12, 17, 22, 23]]
    assert support.y.tolist() == query.y.tolist() == [[0, 0, 1, 1]] * 2
    assert drawn.strangers[..., 0].tolist() == [[4, 0, 10], [6, 7, 4]]


def test_a_tasks_own_temperature_is_that_of_its_logits():
    """Whatever their unit; rows that are not judged, and classes without support, do not count."""
    g = generator(0)
    true = 2 * torch.randn(3, 800, 4, generator=g).double()
    y = torch.distributions.Categorical(logits=true)
    torch.manual_seed(0)
    y = y.sample()
    judged = torch.ones(3, 800, dtype=torch.bool)
    units = torch.tensor([0.02, 1.0, 50.0]).double()
    logits = true * units[:, None, None]
    own = own_temperature(logits, y, judged)
    torch.testing.assert_close(own, units, rtol=0.15, atol=0)
    judged[:, 700:] = False
    wrong = torch.cat([logits[:, :700], -logits[:, 700:]], 1)
    wider = torch.cat([wrong, torch.full((3, 800, 1), -torch.inf).double()], 2)
    torch.testing.assert_close(own_temperature(wider, y, judged), units, rtol=0.2, atol=0)
    nothing = own_temperature(logits, y, torch.zeros_like(judged))
    assert bool(nothing.isfinite().all())


def test_a_metric_is_chosen_for_a_source_to_come():
    """What whitening learns from one source holds for it alone: to another it does harm."""
    rng = np.random.default_rng(0)
    blocks = []
    for s in range(3):
        # a source's classes differ along axes where those of the next vary; most they vary along
        # axes of their own, which no other source tells
        between, within = np.full(24, 0.1), np.full(24, 0.3)
        between[4 * s : 4 * s + 4] = 0.8
        within[4 * ((s + 1) % 3) : 4 * ((s + 1) % 3) + 4] = 0.8
        within[12 + 4 * s : 16 + 4 * s] = 1.5
        x = (rng.normal(size=(20, 24)) * between)[:, None]
        x = x + rng.normal(size=(20, 30, 24)) * within
        blocks.append(x.reshape(-1, 24))
    z = np.concatenate(blocks)
    labels = np.tile(np.repeat(np.arange(20), 30), 3)
    source = np.repeat(np.arange(3), 600)
    sizes = {"ways": (5,), "shots": (1, 5), "tasks": 10, "heads": ("prototype",)}
    pooled = learn_prior(z, source * 20 + labels, **sizes)
    told = learn_prior(z, labels, sources=source, **sizes)
    assert pooled.metric.settings.shrinkage < 1
    assert told.metric.settings.shrinkage == 1


def test_every_source_is_held_out_once():
    classes = AuxiliaryClasses(
        np.zeros((12, 2)), np.arange(12), sources=np.repeat(["a", "b", "c"], 4)
    )
    folds = classes.folds(0)
    assert len(folds) == 3
    for train, held in folds:
        assert sorted([*train, *held]) == list(range(12))
        assert len(np.unique(classes.source_of[held])) == 1
        assert not set(classes.source_of[held]) & set(classes.source_of[train])
    one = AuxiliaryClasses(np.zeros((12, 2)), np.arange(12)).folds(0)
    assert [len(held) for _, held in one] == [6, 6]
