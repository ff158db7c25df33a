"""Priors on synthetic classes whose truth is known."""

import json
import math

import numpy as np
import pytest
import torch

from quickstudy.core import CheckpointError, ConfigError, TaskError, generator
from quickstudy.estimators import TaskPrior, fit_task, learn_prior
from quickstudy.fitting.calibration import fit_level
from quickstudy.fitting.draws import AuxiliaryClasses
from quickstudy.fitting.evidence import (
    gather_evidence,
    held_out_features,
    log_loss,
    own_temperature,
)
from quickstudy.fitting.heads import HEADS, nearest_size, preferred_unless_beaten
from quickstudy.fitting.space import Metric, MetricSettings, mean_and_within
from quickstudy.fitting.surfaces import Surface, fit_surface, pinball, size_features
from quickstudy.fitting.task import held_out_quantile
from quickstudy.learners.heads import PrototypeHead, held_out_logits

DIM = 12


def world(n_classes, rows, *, seed, apart=1.0):
    """Gaussian classes around an offset, with more noise in the first three directions."""
    g = generator(seed)
    means = apart * torch.randn(n_classes, DIM, generator=g) + 2
    noise = torch.ones(DIM)
    noise[:3] = 3
    y = torch.arange(n_classes).repeat_interleave(rows)
    z = means[y] + 1.2 * noise * torch.randn(len(y), DIM, generator=g)
    return z, y


@pytest.fixture(scope="module")
def prior():
    z, y = world(40, 40, seed=0)
    return learn_prior(
        z.numpy(),
        y.numpy(),
        heads=("prototype", "ridge", "logistic"),
        ways=(3, 5, 10),
        shots=(1, 2, 5),
        tasks=60,
    )


@pytest.fixture(scope="module")
def tasks():
    """200 tasks of new classes: 5 ways, 5 shots, 20 queries of each class."""
    z, y = world(60, 60, seed=1)
    return AuxiliaryClasses(z, y).episodes(5, 5, tasks=200, seed=3, n_query=20, n_strangers=50)


def task_of(tasks, t, shots=5):
    rows = torch.arange(25).view(5, 5)[:, :shots].flatten()
    support, query = tasks.episode.support, tasks.episode.query
    return support.x[t, rows], support.y[t, rows], query.x[t], query.y[t]


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


# --------------------------------------------------------------------------------- surfaces


def test_a_surface_finds_a_linear_truth():
    x = torch.randn(400, 3, generator=generator(0)).double()
    y = 2 + x @ torch.tensor([1.0, -0.5, 0.0]).double()
    surface = fit_surface(x, lambda v: (v - y).square().mean(), ridge=0.0)
    inside = (x - x.mean(0)).abs().amax(1) < 2.5
    torch.testing.assert_close(surface(x)[inside], y[inside], atol=0.05, rtol=0.05)


def test_a_surface_survives_slopes_that_are_no_numbers():
    """As of a temperature that overflows: what was best until then is kept."""
    x = torch.randn(200, 2, generator=generator(0)).double()
    wanted = 1 + 0.3 * x[:, 0]

    def loss(v):
        overflow = torch.where(v > 2.2, torch.exp(800 * v), 0.0) * 0
        return (v - wanted).square().mean() * 1e3 + overflow.mean()

    for start in (-2.0, 0.0, 2.0):
        surface = fit_surface(x, loss, start=start)
        assert bool(surface.weight.isfinite().all())
    surface = fit_surface(x, loss, start=-2.0)
    assert float((surface(x) - wanted).square().mean()) < 1e-3


def test_a_surface_is_not_followed_outside_what_was_seen():
    surface = Surface(
        torch.zeros(1).double(), torch.ones(1).double(), torch.tensor([1.0, 0.0]).double()
    )
    assert float(surface(torch.tensor([[100.0]]))) == 3.0
    far = size_features(torch.tensor([1000.0]), torch.tensor([5000.0]), most_ways=80)
    edge = size_features(torch.tensor([20.0]), torch.tensor([80.0]), most_ways=80)
    torch.testing.assert_close(far, edge)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_pinball_minimum_is_the_quantile(level):
    x = torch.randn(20_000, generator=generator(1)).double()
    grid = torch.linspace(-3, 3, 601).double()
    best = min(grid, key=lambda v: float(pinball(x - v, level).mean()))
    assert float(best) == pytest.approx(float(x.quantile(level)), abs=0.05)


def test_predicted_quantiles_cover_on_average_though_tasks_differ():
    """Exponential scores whose scale depends on a feature, and noise that no feature tells."""
    g = generator(5)

    def draw(n):
        feature = torch.rand(n, 1, generator=g).double()
        scale = (2 * feature + 0.3 * torch.randn(n, 1, generator=g)).exp()
        return feature, scale * -torch.rand(n, 200, generator=g).double().log()

    features, scores = draw(600)
    surface = fit_level([features], [scores.log()], 0.9)
    new, seen = draw(2000)
    coverage = (seen.log() <= surface(new)[:, None]).double().mean()
    assert float(coverage) == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize("n", [9, 10, 25, 100])
def test_held_out_quantiles_cover_exchangeable_scores(n):
    scores = torch.rand(20_000, n + 1, generator=generator(n)).double()
    covered = [row[-1] <= held_out_quantile(row[:-1], 0.9) for row in scores]
    rank = min(math.ceil((n + 1) * 0.9), n + 1)
    assert float(np.mean(covered)) == pytest.approx(rank / (n + 1), abs=0.01)
    assert held_out_quantile(torch.rand(3), 0.9) == math.inf


# ------------------------------------------------------------------------------ on new classes


def test_what_is_said_of_new_tasks_holds_on_average(prior, tasks):
    right, sure, covered, accepted, missed, inside = [], [], [], [], [], []
    for t in range(200):
        z, y, q, answer = task_of(tasks, t)
        fitted = fit_task(prior, z, y, n_way=5)
        p = fitted.proba(q)
        hit = (p.argmax(1) == answer).double()
        right.append(float(hit.mean()))
        sure.append(float(p.amax(1).mean()))
        covered.append(
            float(fitted.sets(q, coverage=0.9)[torch.arange(100), answer].double().mean())
        )
        accepted.append(float(fitted.accepts(q).double().mean()))
        expected = fitted.expected_accuracy()
        missed.append(abs(expected.mean - right[-1]))
        inside.append(expected.low <= right[-1] <= expected.high)
    assert np.mean(sure) == pytest.approx(np.mean(right), abs=0.04)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)
    assert np.mean(accepted) == pytest.approx(0.95, abs=0.03)
    assert np.mean(missed) < 0.08
    assert 0.8 <= np.mean(inside) <= 0.98


def test_one_shot_tasks_have_sets_too(prior, tasks):
    covered, sizes = [], []
    for t in range(150):
        z, y, q, answer = task_of(tasks, t, shots=1)
        found = fit_task(prior, z, y, n_way=5).sets(q, coverage=0.9)
        covered.append(float(found[torch.arange(100), answer].double().mean()))
        sizes.append(float(found.sum(1).double().mean()))
    assert np.mean(covered) == pytest.approx(0.9, abs=0.04)
    assert np.mean(sizes) < 5
    plain = fit_task(TaskPrior.plain(DIM), z, y, n_way=5)
    assert bool(plain.sets(q).all())


def test_sets_grow_with_coverage(prior, tasks):
    z, y, q, _ = task_of(tasks, 0)
    fitted = fit_task(prior, z, y, n_way=5)
    small, large = (fitted.sets(q, coverage=c) for c in (0.6, 0.99))
    assert bool((small <= large).all())
    assert int(small.sum()) < int(large.sum())
    assert fitted.novelty_threshold(0.5) < fitted.novelty_threshold(0.99)


def test_strangers_are_told_better_than_by_chance(prior, tasks):
    better = []
    for t in range(40):
        z, y, q, _ = task_of(tasks, t)
        fitted = fit_task(prior, z, y, n_way=5)
        known, others = fitted.novelty(q), fitted.novelty(tasks.strangers[t])
        better.append(float((others[:, None] > known[None]).double().mean()))
    assert np.mean(better) > 0.6


def test_a_flipped_label_is_suspected():
    z, y = world(30, 30, seed=6, apart=3.0)
    prior = TaskPrior.plain(DIM)
    support = AuxiliaryClasses(z, y).episodes(5, 5, tasks=40, seed=1).episode.support
    hits = []
    for t in range(40):
        labels = support.y[t].clone()
        labels[7] = 4
        order, score, _ = fit_task(prior, support.x[t], labels, n_way=5).suspects()
        hits.append(7 in order[:2].tolist())
        assert bool((score.diff() <= 0).all())
    assert np.mean(hits) > 0.9


def test_auto_is_no_worse_than_the_best_fixed_head(prior, tasks):
    scores = {name: [] for name in ("auto", "prototype", "ridge", "logistic")}
    for t in range(60):
        z, y, q, answer = task_of(tasks, t)
        for name, values in scores.items():
            fitted = fit_task(prior, z, y, n_way=5, head=name)
            values.append(100 * float((fitted.logits(q).argmax(1) == answer).double().mean()))
    fixed = [np.mean(v) for n, v in scores.items() if n != "auto"]
    assert np.mean(scores["auto"]) >= max(fixed) - 1


def test_the_rule_of_two_standard_errors():
    noise = torch.randn(50, generator=generator(0)).double()
    base = 1 + 0.1 * noise
    assert preferred_unless_beaten({"a": base, "b": base + 0.01 * noise}, "a") == "a"
    assert preferred_unless_beaten({"a": base, "b": base - 0.5, "c": base - 0.2}, "a") == "b"
    errors = torch.zeros(25).double()
    errors[:3] = 1
    fewer = torch.zeros(25).double()
    assert preferred_unless_beaten({"a": errors, "b": fewer}, "a") == "a"  # may be chance
    errors[:8] = 1
    assert preferred_unless_beaten({"a": errors, "b": fewer}, "a") == "b"
    assert preferred_unless_beaten({"a": base[:1], "b": base[:1] - 1}, "a") == "a"
    sizes = [(5, 1), (5, 5), (75, 5)]
    assert nearest_size(6, 4, sizes) == (5, 5)
    assert nearest_size(40, 4, sizes) == (75, 5)
    assert nearest_size(2, 1, sizes) == (5, 1)


# ---------------------------------------------------------------------------------- files


def test_a_saved_prior_says_the_same(prior, tasks, tmp_path):
    prior.save(tmp_path / "mine")
    loaded = TaskPrior.load(tmp_path / "mine")
    z, y, q, _ = task_of(tasks, 0)
    a, b = (fit_task(p, z, y, n_way=5) for p in (prior, loaded))
    assert a.head_name == b.head_name
    assert torch.equal(a.proba(q), b.proba(q))
    assert torch.equal(a.novelty(q), b.novelty(q))
    assert a.expected_accuracy() == b.expected_accuracy()
    assert torch.equal(a.sets(q, coverage=0.83), b.sets(q, coverage=0.83))
    assert loaded.about == prior.about


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
    assert one.heads["prototype"].to_dict() == two.heads["prototype"].to_dict()


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


def test_evidence_of_a_hand_made_task():
    # no two examples of a class are copies: those would be one
    x = torch.eye(4)[None, [0, 0, 1, 1, 2]].double() * torch.tensor([1, 2, 1, 2, 1])[:, None]
    y = torch.tensor([[0, 0, 1, 1, 2]])
    from quickstudy.core import Examples

    support = Examples.full(x, y)
    held_out = held_out_logits(PrototypeHead(), support, n_way=4)
    found = gather_evidence(support, held_out, n_way=4, most_ways=80)
    shots = 3 / (1 / 2 + 1 / 2 + 1)
    expected = size_features(torch.tensor([shots]), torch.tensor([3.0]), most_ways=80)
    torch.testing.assert_close(found.size[0, :5], expected[0].double())
    assert float(found.size[0, 5]) == 0  # the nearest other prototype is orthogonal
    assert found.judged.tolist() == [[True, True, True, True, False]]
    assert bool(found.enough)
    told, _ = held_out_features(found)
    assert bool(told.isfinite().all())
    loss = log_loss(held_out[:, :1], y[:, :1], torch.tensor([2.0]))
    # its class is (2, 0, 0) without it, the others are (0, 1.5, 0) and (0, 0, 1)
    logits = torch.tensor([-1.0, -3.25, -2.0]) / 2
    assert float(loss) == pytest.approx(-float(logits.log_softmax(0)[0]), rel=1e-6)


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
