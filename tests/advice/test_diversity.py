"""Diversity: constructed mixtures of which it is known whether one embedding serves them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from quickstudy.advice.diversity import (
    REMEDIES,
    DiversityReport,
    domain_diversity,
    measure_diversity,
)
from quickstudy.core import ConfigError, EpisodeSpec, TaskError
from quickstudy.evaluation.statistics import Mean
from quickstudy.learners.heads import ClassMeanHead, LogisticHead
from quickstudy.tasks import Pool, PoolSource

SPEC = EpisodeSpec(5, 5, 10)


def domain(
    signal: slice, noise: slice, *, seed: int, classes: int = 24, shift: float = 0.0
) -> Pool:
    """Classes that differ along ``signal`` and vary along ``noise``, of 24 numbers."""
    generator = torch.Generator().manual_seed(seed)
    between, within = torch.full((24,), 0.05), torch.full((24,), 0.3)
    between[signal], within[noise] = 1.0, 3.0
    centres = between * torch.randn(classes, 1, 24, generator=generator)
    x = centres + within * torch.randn(classes, 20, 24, generator=generator) + shift
    y = torch.arange(classes).repeat_interleave(20)
    return Pool(x.flatten(0, 1), y, tuple(map(str, range(classes))), f"domain {seed}")


def measured(pools: dict[str, Pool], **more):
    sources = {name: PoolSource(pool) for name, pool in pools.items()}
    settings = {"rank": 6, "episodes": 100, **more}
    return measure_diversity(
        sources, SPEC, head=ClassMeanHead(), adapted=LogisticHead(c=10.0), **settings
    )


def test_domains_where_signal_and_noise_change_places_are_too_diverse():
    a, b = slice(0, 6), slice(6, 12)
    report = measured({"first": domain(a, b, seed=0), "second": domain(b, a, seed=1, shift=0.5)})
    assert report.too_diverse
    assert set(report.costly) == {"first", "second"}
    for name in report.domains:
        own, conditioned, _ = (report.gains[name][way] for way in REMEDIES)
        assert own.mean - own.ci95 > 0.05
        # the support tells its domain, so nobody has to
        assert report.recognised[name] > 0.95
        assert conditioned.mean > 0.9 * own.mean
    assert "too diverse" in str(report)
    assert report.to_dict()["best_remedy"] in REMEDIES


@pytest.mark.parametrize("seed", range(6))
def test_two_halves_of_one_domain_are_not(seed):
    pool = domain(slice(0, 6), slice(6, 12), seed=seed, classes=48)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(seed)).tolist()
    report = measured({"one": pool.select(order[:24]), "other": pool.select(order[24:])})
    assert not report.too_diverse, str(report)
    assert "enough" in str(report)


def test_domains_with_the_same_signal_share():
    a = slice(0, 6)
    report = measured(
        {"first": domain(a, slice(6, 12), seed=3), "second": domain(a, slice(12, 18), seed=4)}
    )
    assert not report.too_diverse, str(report)


def test_room_for_both_makes_them_share():
    """Not the signals' being different is the trouble, but that one embedding has no room."""
    report = measured(
        {
            "first": domain(slice(0, 6), slice(12, 18), seed=5),
            "second": domain(slice(6, 12), slice(12, 18), seed=6),
        },
        rank=12,
    )
    assert max(g[REMEDIES[0]].mean for g in report.gains.values()) < 0.03


def test_scores_are_those_of_the_same_tasks_every_time():
    pools = {
        "a": domain(slice(0, 6), slice(6, 12), seed=0),
        "b": domain(slice(6, 12), slice(0, 6), seed=1),
    }
    assert measured(pools).to_dict() == measured(pools).to_dict()


def test_domains_are_read_by_their_names():
    said: list[str] = []
    found = domain_diversity(["digits", "glyphs"], rank=4, episodes=4, say=said.append)
    assert found.domains == ("digits", "glyphs")
    assert said == ["digits: reading", "glyphs: reading"]
    assert found.text() == str(found)
    assert set(found.to_dict()["accuracy"]) == {"digits", "glyphs"}
    with pytest.raises(ConfigError, match="each once; got 'digits', 'digits'"):
        domain_diversity(["digits", "digits"])


def test_faults():
    pool = domain(slice(0, 6), slice(6, 12), seed=0)
    with pytest.raises(ConfigError, match="at least two"):
        measured({"a": pool})
    with pytest.raises(ConfigError, match="differ in size"):
        measured({"a": pool, "b": pool.with_x(pool.x[:, :5])})
    few = pool.select(range(8))
    with pytest.raises(TaskError, match="8 classes"):
        measured({"a": pool, "b": dataclasses.replace(few, name="few")})


def test_too_few_episodes_say_nothing():
    def report(ci95):
        rows = {way: Mean(0.0, ci95, 4, "episodes") for way in REMEDIES}
        return DiversityReport(
            ("a", "b"),
            4,
            {name: {"shared": Mean(0.5, 0.1, 4, "episodes")} for name in "ab"},
            dict.fromkeys("ab", rows),
            rows,
            {"a": 1.0, "b": 1.0},
        )

    assert "is enough" in str(report(0.01))
    assert report(0.01).undecided == ()
    assert "undecided after 4 episodes" in str(report(0.2))
    assert "is enough" not in str(report(0.2))
    assert report(0.2).to_dict()["untold"] == ["a", "b"]
    assert report(float("nan")).undecided == ("a", "b")
