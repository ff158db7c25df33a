"""Comparisons: the same episodes, Holm's correction, ranks, drops, costs."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from scipy import stats

from quickstudy.comparing import compare_learners
from quickstudy.comparing.page import Account, comparison_markdown, comparison_page
from quickstudy.comparing.result import Cell, Comparison
from quickstudy.core import ConfigError, EpisodeSpec, ProtocolError
from quickstudy.evaluation import Mean, evaluate, measure_cost
from quickstudy.evaluation.statistics import holm, paired_p_value
from quickstudy.learners import FOMAML, MAML, EmbeddingLearner, NearestNeighbour
from quickstudy.learners.heads import FineTunedHead, LogisticHead, RidgeHead
from quickstudy.learners.metric import PrototypicalNetwork
from quickstudy.nets import MLP
from quickstudy.tasks import PoolSource
from quickstudy.tasks.sinusoid import SinusoidSource
from quickstudy.testing import ConstantLearner, OracleLearner, gaussian_pool

SPEC = EpisodeSpec(5, 2, 6)


class Blind(NearestNeighbour):
    """Sees one number that says nothing: a guess."""

    def adapt(self, support, *, n_way):
        x = support.x[..., 1:2] * 1e3 % 1
        return super().adapt(dataclasses.replace(support, x=x), n_way=n_way)

    def predict(self, state, x):
        return super().predict(state, x[..., 1:2] * 1e3 % 1)


def source(name: str = "blobs", seed: int = 0, *, told: bool = False) -> PoolSource:
    return PoolSource(gaussian_pool(shape=(6,), tell_class=told, seed=seed, name=name))


def cells(role="novel classes", tasks="blobs", seed=0, told=True):
    made = source(tasks, seed, told=told)
    learners = {
        "oracle": OracleLearner(),
        "constant": ConstantLearner(),
        "blind": Blind(),
        "neighbour": NearestNeighbour(),
    }
    return [
        Cell(name, tasks, role, evaluate(learner, made, SPEC, episodes=100, name=name))
        for name, learner in learners.items()
    ]


FAMILIES = dict.fromkeys(("oracle", "constant", "blind", "neighbour"), "baseline")


def test_known_learners_have_known_rows():
    found = Comparison(cells(), FAMILIES)
    assert found.cell("oracle", "blobs").report.mean == 1.0
    for name in ("constant", "blind"):
        report = found.cell(name, "blobs").report
        assert abs(report.mean - 0.2) < 2 * report.ci95 + 1e-6
    best, equal = found.best("blobs")
    assert best == "oracle"
    assert not {"constant", "blind"} & set(equal)
    both = next(d for d in found.paired if {d.first, d.second} == {"constant", "blind"})
    assert both.p_holm > 0.05
    assert len(found.paired) == 6


def test_holm_is_the_step_down_of_1979():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    # Holm (1979): 4 x .005, 3 x .01, 2 x .03, then 1 x .04 is raised to what came before
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).max() <= 1


def test_holm_keeps_the_family_error_below_five_per_cent():
    rng = np.random.default_rng(0)
    plain = corrected = 0
    for _ in range(400):
        scores = rng.normal(size=(6, 50))
        gaps = [scores[i] - scores[j] for i in range(6) for j in range(i)]
        raw = np.array([paired_p_value(g) for g in gaps])
        plain += bool((raw < 0.05).any())
        corrected += bool((holm(raw) < 0.05).any())
    assert corrected / 400 < 0.07
    assert plain / 400 > 0.2  # what the correction is for


def test_paired_p_values_are_scipys_and_defined_at_the_edges():
    gap = np.random.default_rng(1).normal(0.1, 1, 80)
    assert paired_p_value(gap) == pytest.approx(stats.ttest_1samp(gap, 0).pvalue)
    assert paired_p_value(np.zeros(5)) == 1
    assert paired_p_value(np.array([0.3])) == 1
    assert paired_p_value(np.full(5, 0.2)) == 0
    assert paired_p_value(np.full(2, 0.2)) == 0


def test_roles_ranks_and_the_drop():
    made = [
        *cells("trained distribution", "trained", 0),
        *cells("novel domain", "one", 1),
        *cells("novel domain", "other", 2),
    ]
    found = Comparison(made, FAMILIES)
    rows = {row.learner: row for row in found.approaches}
    assert rows["oracle"].rank == 1
    assert rows["oracle"].drop == Mean(0.0, 0.0, 2, "lists")
    near = rows["neighbour"]
    reports = [found.cell("neighbour", t).report for t in ("trained", "one", "other")]
    assert near.drop.mean == pytest.approx(
        reports[0].mean - (reports[1].mean + reports[2].mean) / 2
    )
    expected = math.hypot(reports[0].ci95, math.hypot(reports[1].ci95, reports[2].ci95) / 2)
    assert near.drop.ci95 == pytest.approx(expected)
    assert sum(row.rank for row in rows.values()) == pytest.approx(1 + 2 + 3 + 4)


def test_novel_domains_are_the_same_ones_for_all():
    made = [*cells("novel domain", "one", 1), *cells("novel domain", "other", 2)]
    last = made[-1]
    assert last.tasks == "other"
    # one learner was chosen by the second domain: it counts for none
    made[-1] = dataclasses.replace(last, role="choosing domain")
    found = Comparison(made, FAMILIES)
    assert found.novel_to_all == ("one",)
    for row in found.approaches:
        assert row.accuracy["novel domain"].mean == found.cell(row.learner, "one").report.mean


def test_other_episodes_are_refused():
    made = cells()
    other = evaluate(NearestNeighbour(), source(told=True), SPEC, episodes=100, seed=1)
    with pytest.raises(ProtocolError, match="episodes_sha256"):
        Comparison([*made[:3], dataclasses.replace(made[3], report=other)], FAMILIES)
    with pytest.raises(ProtocolError, match="missing or there twice"):
        Comparison([*made, made[0]], FAMILIES)


def test_seeds_are_summed_up_over_seeds():
    found = Comparison(
        cells(), FAMILIES, seeds={"guessing": ["constant", "blind"], "alone": ["oracle"]}
    )
    ((group, tasks, mean),) = found.over_seeds
    means = [found.cell(name, "blobs").report.mean for name in ("constant", "blind")]
    assert (group, tasks) == ("guessing", "blobs")
    assert (mean.n, mean.over) == (2, "seeds")
    assert found.to_dict()["over_seeds"][0]["seeds"] == 2
    assert mean.mean == pytest.approx(np.mean(means))
    half = stats.t.ppf(0.975, 1) * np.std(means, ddof=1) / np.sqrt(2)
    assert mean.ci95 == pytest.approx(half)


def test_the_hardest_tasks_come_first():
    found = Comparison(cells(), FAMILIES)
    hard = found.hardest("blobs", n=100)
    means = [mean for _, mean in hard]
    assert means == sorted(means)
    assert sorted(i for i, _ in hard) == list(range(100))


NETS = {
    "prototypes": (lambda: PrototypicalNetwork(MLP((6,), (8, 8))), False),
    "ridge": (lambda: EmbeddingLearner(MLP((6,), (8, 8)), RidgeHead()), False),
    "logistic": (lambda: EmbeddingLearner(MLP((6,), (8, 8)), LogisticHead()), False),
    "neighbour": (NearestNeighbour, False),
    "fine-tuned": (lambda: EmbeddingLearner(MLP((6,), (8, 8)), FineTunedHead()), True),
    "MAML": (lambda: MAML(MLP((6,), (8, 8)), n_way=5), True),
    "FOMAML": (lambda: FOMAML(MLP((6,), (8, 8)), n_way=5), True),
}


@pytest.mark.parametrize("name", NETS)
def test_what_adapting_needs_is_measured(name):
    make, differentiates = NETS[name]
    learner = make()
    before = {n: value.clone() for n, value in learner.state_dict().items()}
    episode = source().episodes(SPEC, [0], seed=0)
    cost = measure_cost(learner, episode)
    assert cost.needs_gradients is differentiates
    assert cost.adapt_seconds > 0
    assert cost.query_seconds > 0
    state = learner.eval().adapt(episode.support, n_way=5)
    assert cost.state_bytes == sum(v.numel() * v.element_size() for v in state.values())
    assert cost.parameters == sum(p.numel() for p in learner.parameters())
    assert all(torch.equal(value, before[n]) for n, value in learner.state_dict().items())


def test_memory_of_a_task_is_seen():
    class Greedy(NearestNeighbour):
        def adapt(self, support, *, n_way):
            torch.ones(30_000_000).sum()  # 120 MB
            return super().adapt(support, n_way=n_way)

    episode = source().episodes(SPEC, [0], seed=0)
    modest, greedy = (measure_cost(m(), episode).peak_bytes for m in (NearestNeighbour, Greedy))
    if modest is None or greedy is None:
        pytest.skip("this system does not tell the peak of a process")
    assert greedy - modest > 100_000_000


# ------------------------------------------------------------------ errors: the smallest is best


class Offset(NearestNeighbour):
    """Answers sine waves with their true mean, zero, and an offset."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def predict(self, state, x):
        return torch.full((*x.shape[:2], 1), self.offset)


OFFSETS = {"far": 6.0, "near": 0.1, "middle": 3.0, "same": 0.1}


@pytest.fixture(scope="module")
def waves():
    learners = {name: Offset(offset) for name, offset in OFFSETS.items()}
    return compare_learners(
        learners, {"waves": SinusoidSource("test")}, EpisodeSpec(1, 5, 10), episodes=60, costs=False
    )


def test_the_best_has_the_smallest_error(waves):
    found = waves.comparison
    means = {name: found.cell(name, "waves").report.mean for name in OFFSETS}
    best, equal = found.best("waves")
    assert means[best] == min(means.values())
    assert (best, equal) == ("near", ("same",))
    ranks = {row.learner: row.rank for row in found.approaches}
    assert ranks == {"near": 1.5, "same": 1.5, "middle": 3, "far": 4}
    assert not found.to_dict()["metric"]["higher_is_better"]


def test_the_hardest_episode_has_the_largest_error(waves):
    hard = waves.comparison.hardest("waves", n=60)
    errors = [mean for _, mean in hard]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > errors[-1]


def test_a_drop_of_errors_is_what_they_grow_by():
    spec = EpisodeSpec(1, 5, 10)
    reports = [
        evaluate(Offset(offset), SinusoidSource("test"), spec, episodes=20, name="one")
        for offset in (0.1, 4.0)
    ]
    made = [
        Cell("one", role, role, report)
        for role, report in zip(("trained distribution", "novel domain"), reports, strict=True)
    ]
    (row,) = Comparison(made, {"one": "baseline"}).approaches
    assert row.drop.mean == pytest.approx(reports[1].mean - reports[0].mean)
    assert row.drop.mean > 10


def test_texts_of_errors_have_no_per_cent(waves):
    account = Account("a call", ["a machine"], 1.0)
    lines = waves.text().splitlines()
    assert "waves: mean squared error, 95 % CI over 60 episodes" in lines[0]
    order = [line.split()[-1] for line in lines[1:5]]
    assert order == ["near", "same", "middle", "far"]
    assert lines[1].startswith(" *")
    assert lines[2].startswith(" =")
    markdown = comparison_markdown(waves.comparison, account, title="waves")
    page = comparison_page(waves.comparison, account, title="waves")
    for text in ("\n".join(lines), markdown, page):
        assert "new classes" not in text.partition("What each approach")[0]
        assert "points" not in text
        assert "fixed classes" not in text
        # only the share of targets in intervals is a share
        rest = re.sub(r"\b(95|5) %|hold [\d.]+ ± [\d.]+ %", "", text)
        assert not re.search(r"\d %(?! CI| interval|\))", rest)
    assert "near is best" in page
    assert "the smallest" in markdown


def test_likelihood_and_intervals_of_every_learner_are_told(waves):
    account = Account("a call", ["a machine"], 1.0)
    found = {c.learner: c.report.likelihood for c in waves.comparison.cells}
    assert all(one.estimated for one in found.values())
    pages = (
        comparison_markdown(waves.comparison, account, title="waves"),
        comparison_page(waves.comparison, account, title="waves"),
    )
    for name, one in found.items():
        assert f"{name}: {one}" in waves.text()
        for text in pages:
            assert one.mean_nll.plain() in text
            assert one.mean_coverage.cell() in text
    documents = waves.comparison.to_dict()["results"]
    assert [d["nll"]["mean"] for d in documents] == [one.mean_nll.mean for one in found.values()]


def test_classes_and_errors_are_not_compared(waves):
    made = [*waves.comparison.cells, *(dataclasses.replace(c, learner="near") for c in cells()[:1])]
    alone = [c for c in made if c.learner == "near"]
    with pytest.raises(ProtocolError, match="one metric; got accuracy and mse"):
        Comparison(alone, {"near": "baseline"})


def test_what_is_not_there_is_said():
    found = Comparison(cells(), FAMILIES)
    with pytest.raises(ConfigError, match=r"no list of tasks 'blob'.*Did you mean 'blobs'"):
        found.best("blob")
    with pytest.raises(ConfigError, match="no learner 'oracl'"):
        found.cell("oracl", "blobs")
    with pytest.raises(ConfigError, match="n must be at least 0"):
        found.hardest("blobs", n=-1)
    assert found.hardest("blobs", n=0) == []
    with pytest.raises(ConfigError, match="at least one cell"):
        Comparison([], {})
    with pytest.raises(ConfigError, match="no family for 'oracle'"):
        Comparison(cells(), {})
    with pytest.raises(ConfigError, match="at least one learner"):
        compare_learners({}, {"waves": SinusoidSource("test")}, SPEC)


def test_own_learners_are_compared_as_they_are():
    compared = compare_learners(
        {"own": Blind(), "neighbour": NearestNeighbour()}, {"blobs": source()}, SPEC, episodes=40
    )
    assert compared.comparison.best("blobs")[0] == "neighbour"
    assert compared.out is None
    row = compared.comparison.approaches[0]
    assert row.cost.needs_gradients is False
    assert "blobs: %, 95 % CI over 40 episodes" in compared.text()


def test_one_episode_has_no_interval_and_two_have_none_that_says_something():
    for episodes in (1, 2):
        compared = compare_learners(
            {"constant": ConstantLearner(), "blind": Blind(), "neighbour": NearestNeighbour()},
            {"blobs": source()},
            EpisodeSpec(2, 1, 1),
            episodes=episodes,
            costs=False,
        )
        account = Account("a call", [], 1.0)
        for text in (
            compared.text(),
            comparison_markdown(compared.comparison, account, title="few"),
            comparison_page(compared.comparison, account, title="few"),
        ):
            assert "nan" not in text
            assert "over 1 episodes" not in text
            halves = [float(half) for half in re.findall(r"± (\d+\.\d+)", text)]
            assert all(half <= 100 for half in halves), halves
        assert ("one episode, which has no interval" in compared.text()) == (episodes == 1)
