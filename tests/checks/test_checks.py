"""The leak and protocol suite: every planted fault is found, and nothing else."""

from __future__ import annotations

import dataclasses
import io
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from quickstudy.checks import (
    Finding,
    Passed,
    check_contents,
    check_differences,
    check_document,
    check_interval,
    check_learner,
    check_protocol,
    check_source,
)
from quickstudy.core import EpisodeSpec
from quickstudy.evaluation import evaluate
from quickstudy.evaluation.statistics import paired_p_value
from quickstudy.learners import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    EmbeddingLearner,
    MetaSGD,
    NearestNeighbour,
    ProtoMAML,
    Reptile,
)
from quickstudy.learners.heads import (
    ClassMeanHead,
    FineTunedHead,
    LogisticHead,
    NeighbourHead,
    RidgeHead,
)
from quickstudy.learners.metric import MatchingNetwork, PrototypicalNetwork
from quickstudy.nets import MLP, Conv4
from quickstudy.tasks import Pool, PoolSource, SinusoidSource
from quickstudy.tasks.datasets import load_pool
from quickstudy.testing import PositionLearner, gaussian_pool

SPEC = EpisodeSpec(4, 2, 3)


def vectors(**more) -> PoolSource:
    return PoolSource(gaussian_pool(12, 12, (6,), **more))


def names(report) -> set[str]:
    return {finding.check for finding in report.faults}


def net():
    torch.manual_seed(0)
    return MLP((6,), (8, 8))


# ------------------------------------------------------------------ learners

HONEST = {
    "nearest neighbour": NearestNeighbour,
    "prototypical": lambda: PrototypicalNetwork(net()),
    "matching": lambda: MatchingNetwork(net()),
    "matching, full context": lambda: MatchingNetwork(net(), full_context=True),
    "ridge": lambda: EmbeddingLearner(net(), RidgeHead()),
    "logistic": lambda: EmbeddingLearner(net(), LogisticHead()),
    "fine-tuned": lambda: EmbeddingLearner(net(), FineTunedHead(steps=10)),
    "cosine head": lambda: EmbeddingLearner(net(), FineTunedHead(cosine=True, steps=10)),
    "class means": lambda: EmbeddingLearner(net(), ClassMeanHead()),
    "neighbours": lambda: EmbeddingLearner(net(), NeighbourHead()),
    "MAML": lambda: MAML(net(), n_way=4),
    "FOMAML": lambda: FOMAML(net(), n_way=4),
    "Meta-SGD": lambda: MetaSGD(net(), n_way=4),
    "ANIL": lambda: ANIL(net(), n_way=4),
    "Reptile": lambda: Reptile(net(), n_way=4),
    "Proto-MAML": lambda: ProtoMAML(net()),
    "iMAML": lambda: IMAML(net(), n_way=4),
    "position, declared": PositionLearner,
}


@pytest.mark.parametrize("name", HONEST)
def test_no_false_alarm_on_our_learners(name):
    report = check_learner(HONEST[name](), vectors(), SPEC, episodes=8)
    if name == "position, declared":
        assert "query-position" in names(report)  # it declares that it looks at other queries
        return
    assert report.clean, str(report)
    assert len(report.passed) >= 7


@pytest.mark.parametrize("norm", ["batch", "group", "support"])
def test_no_false_alarm_on_networks_of_images(norm):
    torch.manual_seed(0)
    source = PoolSource(gaussian_pool(8, 9, (1, 16, 16), separation=0.3))
    learner = PrototypicalNetwork(Conv4(image_size=16, channels=4, norm=norm))
    assert check_learner(learner, source, SPEC, episodes=4).clean


class QueryStatistics(NearestNeighbour):
    """Centres the queries on themselves, and does not say so."""

    def predict(self, state, x):
        return super().predict(state, x - x.mean(1, keepdim=True))


class Positions(NearestNeighbour):
    """Knows that queries come in the order of their classes."""

    def predict(self, state, x):
        ways = int(state["n_way"][0])
        label = torch.arange(x.shape[1]) * ways // x.shape[1]
        return F.one_hot(label, ways).to(x).expand(len(x), -1, -1)


class LabelOrder(NearestNeighbour):
    """Likes the first label better."""

    def predict(self, state, x):
        logits = super().predict(state, x)
        return logits + 3.0 * torch.arange(logits.shape[2], 0, -1)


class SupportOrder(NearestNeighbour):
    """Believes the last example more."""

    def adapt(self, support, *, n_way):
        weight = torch.linspace(0.5, 1.5, support.x.shape[1])[:, None]
        return super().adapt(dataclasses.replace(support, x=support.x * weight), n_way=n_way)


class Counting(NearestNeighbour):
    """Its evaluation changes a buffer, as running averages of batch norm do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))

    def adapt(self, support, *, n_way):
        self.seen.lerp_(support.x.float().mean((0, 1)), 0.1)
        return super().adapt(support, n_way=n_way)


class Hidden(NearestNeighbour):
    """Keeps what it learned outside of the state: the next task has it too."""

    def __init__(self):
        super().__init__()
        self.centre = None

    def adapt(self, support, *, n_way):
        self.centre = support.x.mean(1, keepdim=True) + (0 if self.centre is None else 5)
        return super().adapt(support, n_way=n_way)

    def predict(self, state, x):
        return super().predict(state, x + self.centre.mean(0, keepdim=True).to(x))


class Together(NearestNeighbour):
    """Tasks of a batch share a scale."""

    def adapt(self, support, *, n_way):
        shift = support.x.mean((0, 1), keepdim=True)
        return super().adapt(dataclasses.replace(support, x=support.x - shift), n_way=n_way)


class Random(NearestNeighbour):
    """Dropout that nobody turned off."""

    def predict(self, state, x):
        return super().predict(state, F.dropout(x, 0.5, training=True))


class Diverged(NearestNeighbour):
    def predict(self, state, x):
        return super().predict(state, x) * torch.nan


class BatchNormOfQueries(EmbeddingLearner):
    """torch's own batch norm in training mode: the trap of the field."""

    def predict(self, state, x):
        norm = nn.BatchNorm1d(x.shape[2], affine=False, track_running_stats=False).to(x)
        return super().predict(state, norm(x.flatten(0, 1)).view_as(x))


PLANTED = {
    QueryStatistics: "query-statistics",
    Positions: "query-position",
    LabelOrder: "label-order",
    SupportOrder: "support-order",
    Counting: "evaluation-changes-model",
    Hidden: "task-independence",
    Together: "task-independence",
    Random: "repeatable",
    Diverged: "finite",
}


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.__name__)
def test_every_planted_fault_of_a_learner_is_found(kind):
    report = check_learner(kind(), vectors(), SPEC, episodes=8)
    assert PLANTED[kind] in names(report), str(report)
    finding = next(f for f in report.faults if f.check == PLANTED[kind])
    assert finding.remedy
    assert finding.evidence


def test_batch_norm_over_the_queries_is_found():
    learner = BatchNormOfQueries(net(), NearestNeighbour())
    report = check_learner(learner, vectors(), SPEC, episodes=8)
    assert "query-statistics" in names(report), str(report)


@pytest.mark.parametrize("kind", [QueryStatistics, SupportOrder, LabelOrder])
def test_what_is_declared_is_no_fault(kind):
    learner = kind()
    learner.transductive = kind is QueryStatistics
    learner.order_sensitive = kind is SupportOrder
    learner.label_sensitive = kind is LabelOrder
    assert PLANTED[kind] not in names(check_learner(learner, vectors(), SPEC, episodes=8))


# ------------------------------------------------------------------ examples and episodes


def pictures(seed=0, classes=6, each=8, split="all") -> Pool:
    x = torch.randint(0, 256, (classes * each, 1, 24, 24), generator=_generator(seed))
    y = torch.arange(classes).repeat_interleave(each)
    prefix = "" if split == "all" else split
    return Pool(
        x.to(torch.uint8), y, tuple(f"{prefix}{c}" for c in range(classes)), "pictures", split
    )


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def test_clean_data_is_clean():
    report = check_contents(
        {"train": pictures(0, split="train"), "test": pictures(1, split="test")}
    )
    assert not report.findings, str(report)
    assert check_source(PoolSource(pictures()), SPEC, episodes=100).clean


def test_one_picture_under_two_labels():
    pool = pictures()
    pool.x[40] = pool.x[3]
    report = check_contents({"all": pool}, names={"all": [f"{i}.png" for i in range(48)]})
    (finding,) = report.faults
    assert finding.check == "identical-images"
    assert torch.equal(finding.pairs[0].first, finding.pairs[0].second)
    assert "3.png" in "".join(finding.pairs[0].captions)
    assert "40.png" in "".join(finding.pairs[0].captions)


def test_copies_within_a_class_reach_the_episodes():
    pool = pictures(classes=4, each=6)
    pool.x[:6] = pool.x[0]
    report = check_contents({"all": pool})
    assert "duplicate-images" in {f.check for f in report.findings}
    report = check_source(PoolSource(pool), EpisodeSpec(4, 1, 3), episodes=100)
    assert "shared-content" in names(report), str(report)


@pytest.mark.parametrize("k_shot", [1, 2, 4])
def test_the_share_of_easy_queries_is_what_episodes_show(k_shot):
    pool = pictures(classes=6, each=12)
    pool.x[0:5] = pool.x[0]  # five copies, one class
    pool.x[24:26] = pool.x[24]  # two, another
    report = check_contents({"all": pool}, k_shot=k_shot)
    (finding,) = [f for f in report.findings if f.check == "duplicate-images"]
    stated = finding.evidence["easy_queries"]
    source, spec = PoolSource(pool), EpisodeSpec(6, k_shot, 5)
    shown = check_source(source, spec, episodes=300)
    (shared,) = [f for f in shown.findings if f.check == "shared-content"]
    assert shared.evidence["easy_queries"] == pytest.approx(stated, rel=0.12)


def test_copies_are_counted_in_every_class_that_holds_them():
    pool = pictures(classes=4, each=6)
    pool.x[1] = pool.x[0]
    pool.x[6:8] = pool.x[0]  # the same picture, twice more under another label
    report = check_contents({"all": pool})
    found = {f.check: f for f in report.findings}
    assert found["duplicate-images"].evidence["pairs"] == 2
    assert found["identical-images"].evidence["different_labels"] == 2


def compressed(x: torch.Tensor, quality: int = 92) -> torch.Tensor:
    """Return the picture after a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(x.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


def smooth_pictures(seed: int, split: str = "all") -> Pool:
    draw = np.random.default_rng(seed)
    x = torch.from_numpy(draw.integers(0, 256, (40, 3, 6, 6)).astype(np.float32))
    x = F.interpolate(x, (48, 48), mode="bicubic").clamp(0, 255).to(torch.uint8)
    return Pool.build(x, [f"class {i // 8}" for i in range(40)], name="smooth", split=split)


def test_compressed_copies_are_found_wherever_they_stand():
    clean = smooth_pictures(0)
    assert not check_contents({"all": clean}).findings
    # in its own class: queries become easy, and it may be a film: a note with the share
    x = clean.x.clone()
    x[1], x[2] = compressed(x[0]), compressed(x[0], quality=85)
    (note,) = check_contents({"all": clean.with_x(x)}, k_shot=1).findings
    assert (note.check, note.severity) == ("near-copies", "note")
    assert note.evidence["easy_queries"] == pytest.approx(3 / 8 * 2 / 7 / 5)
    # under another label: one of the two is wrong
    x = clean.x.clone()
    x[9] = compressed(x[0])
    (fault,) = check_contents({"all": clean.with_x(x)}).findings
    assert (fault.check, fault.severity) == ("near-duplicates", "fault")
    # in the other split, under the same name
    test = smooth_pictures(1, "test")
    y = test.x.clone()
    y[3] = compressed(clean.x[2])
    found = check_contents({"train": clean, "test": test.with_x(y)}).findings
    assert [f.check for f in found] == ["near-duplicates", "class-in-two-splits"]
    assert found[0].severity == "fault"


def test_a_document_that_spoils_its_own_number():
    document = {"accuracy": {"mean": 0.5, "ci95": 0.1}, "scores": [0.4, 0.6]}
    assert [f.check for f in check_protocol(document)] == ["protocol"]
    assert check_protocol(document | {"protocol": {"trained_on": False}}) == []
    (fault,) = check_protocol(document | {"protocol": {"trained_on": True}})
    assert fault.severity == "fault"
    (fault,) = check_protocol(document | {"protocol": {"n_way": 5}, "calibration_error": 3})
    assert "3 is no calibration error" in fault.summary


def test_paired_differences_are_computed_again():
    results = [
        {"tasks": "t", "learner": name, "scores": scores}
        for name, scores in (("a", [0.5, 0.6, 0.9]), ("b", [0.4, 0.6, 0.6]))
    ]
    gap = np.array([0.1, 0.0, 0.3])
    pair = {"tasks": "t", "first": "a", "second": "b", "mean": gap.mean()}
    right = pair | {"p": paired_p_value(gap)}
    assert isinstance(check_differences({"results": results, "paired": [right]}), Passed)
    for wrong in (right | {"mean": 0.2}, right | {"p": 1e-9}):
        finding = check_differences({"results": results, "paired": [wrong]})
        assert isinstance(finding, Finding)
        assert finding.severity == "fault"


def test_a_learner_without_numbers_passes_nothing():
    class Nothing(NearestNeighbour):
        def predict(self, state, x):
            return super().predict(state, x) * float("nan")

    report = check_learner(
        Nothing(), PoolSource(gaussian_pool(8, 12, (6,))), EpisodeSpec(4, 2, 3), episodes=4
    )
    assert [f.check for f in report.faults] == ["finite"]
    assert not report.passed
    assert len(report.skipped) == 7


def test_an_accuracy_lies_between_0_and_1():
    document = {"accuracy": {"mean": 7.5, "ci95": 0.1}, "protocol": {"episodes": 2}}
    assert "7.5 is no accuracy" in str(check_document(document))
    document = {"accuracy": {"mean": 0.5, "ci95": 0.1}, "scores": [-0.5, 1.5]}
    assert "no accuracy" in str(check_document(document))


def test_a_changed_copy_across_splits():
    train, test = pictures(0, split="train"), pictures(1, split="test")
    smooth = F.avg_pool2d(train.x.float(), 5, 1, 2)  # noise has no near copies: pictures do
    train = train.with_x(smooth.to(torch.uint8))
    shift = F.avg_pool2d(test.x.float(), 5, 1, 2)
    shift[7] = (smooth[11] * 0.9 + 12).clamp(0, 255)  # another contrast and brightness
    test = test.with_x(shift.to(torch.uint8))
    report = check_contents({"train": train, "test": test})
    (finding,) = report.faults
    assert finding.check == "near-duplicates"
    assert finding.evidence["cosine"][0] > 0.99


def test_a_class_in_two_splits():
    train, test = pictures(0, split="train"), pictures(1, split="test")
    other = dataclasses.replace(test, class_names=("train2", *test.class_names[1:]))
    assert names(check_contents({"train": train, "test": other})) == {"class-in-two-splits"}


def test_groups_on_both_sides():
    """Frames of one film are nearly one picture."""
    generator = _generator(0)
    films = torch.randn(6 * 4, 1, 1, 8, 8, generator=generator)
    frames = films + 0.15 * torch.randn(24, 5, 1, 8, 8, generator=generator)
    x = (128 + 40 * F.interpolate(frames.flatten(0, 1), 24)).clamp(0, 255).to(torch.uint8)
    y = torch.arange(6).repeat_interleave(20)
    track = torch.arange(24).repeat_interleave(5)
    pool = Pool(x, y, tuple("abcdef"), "films", "all", track)
    report = check_source(PoolSource(pool), SPEC, episodes=200)
    assert names(report) == {"shared-groups"}, str(report)
    assert check_source(PoolSource(pool, group_aware=True), SPEC, episodes=200).clean
    # groups that say nothing about the picture are no leak
    shuffled = dataclasses.replace(pool, groups=track[torch.randperm(120, generator=generator)])
    assert check_source(PoolSource(shuffled), SPEC, episodes=200).clean


class Source:
    """A user's own source, with a fault."""

    name, split = "own", "test"

    def __init__(self, fault):
        self.fault, self.inner, self.calls = fault, vectors(), 0

    def episodes(self, spec, task_ids, *, seed):
        self.calls += 1
        if self.fault == "not named":
            return self.inner.episodes(spec, task_ids, seed=seed + self.calls)
        episode = self.inner.episodes(spec, task_ids, seed=seed)
        info, s, q = {}, episode.support, episode.query
        if self.fault == "query from support":
            x = q.x.clone()
            for t in range(len(x)):
                for label in range(spec.n_way):
                    at = (q.y[t] == label).nonzero()[0]
                    x[t, at] = s.x[t, (s.y[t] == label).nonzero()[0]]
            q = dataclasses.replace(q, x=x)
        if self.fault == "query by position":
            order = q.y.sort(dim=1, stable=True).indices
            wide = order[..., None].expand_as(q.x)
            q = dataclasses.replace(q, x=q.x.gather(1, wide), y=q.y.gather(1, order))
        if self.fault == "not finite":
            x = q.x.clone()
            x[0, 0] = torch.nan
            q = dataclasses.replace(q, x=x)
        return dataclasses.replace(episode, support=s, query=q, info=info)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("not named", "episode-names"),
        ("query from support", "shared-content"),
        ("query by position", "position-tells-label"),
        ("not finite", "labels"),
    ],
)
def test_every_planted_fault_of_a_source_is_found(fault, check):
    report = check_source(Source(fault), SPEC, episodes=150)
    assert check in names(report) | {f.check for f in report.findings}, str(report)
    assert check_source(Source("none"), SPEC, episodes=150).clean


def test_labels_that_are_the_classes_in_order():
    class Sorted(Source):
        def episodes(self, spec, task_ids, *, seed):
            episode = self.inner.episodes(spec, task_ids, seed=seed)
            order = episode.info["classes"].argsort(1)  # label = rank of the class
            rank = order.argsort(1)
            s, q = episode.support, episode.query
            return dataclasses.replace(
                episode,
                support=dataclasses.replace(s, y=rank.gather(1, s.y)),
                query=dataclasses.replace(q, y=rank.gather(1, q.y)),
                info={"classes": episode.info["classes"].gather(1, order)},
            )

    report = check_source(Sorted("none"), SPEC, episodes=300)
    assert "class-tells-label" in {f.check for f in report.findings}, str(report)


def test_other_kinds_of_sources_are_clean():
    assert check_source(SinusoidSource("test"), EpisodeSpec(1, 5, 10), episodes=50).clean
    assert check_source(vectors(groups_per_class=4), SPEC, episodes=100).clean


# ------------------------------------------------------------------ intervals


def test_intervals_by_simulation():
    assert not isinstance(check_interval(simulations=600), Finding)
    over_queries = check_interval(
        lambda right: 1.96 * float(np.sqrt(right.mean() * (1 - right.mean()) / right.size)),
        simulations=600,
    )
    assert isinstance(over_queries, Finding)
    assert "too narrow" in over_queries.summary
    deviation = check_interval(lambda right: 2 * float(right.mean(1).std()), simulations=600)
    assert isinstance(deviation, Finding)
    assert "too wide" in deviation.summary


def test_a_documents_interval_is_computed_again():
    report = evaluate(NearestNeighbour(), vectors(), SPEC, episodes=30)
    assert not isinstance(check_document(report), Finding)
    document = {**report.to_dict(), "scores": report.scores.tolist()}
    document["accuracy"] = {**document["accuracy"], "ci95": document["accuracy"]["ci95"] / 2}
    assert isinstance(check_document(document), Finding)


# ------------------------------------------------------------------ real data

TRUE = {
    "omniglot": set(),
    "cifar-fs": {"identical-images"},
    "gtsrb": {"shared-groups"},
    "quickdraw": set(),
    "digits": set(),
}


@pytest.mark.parametrize("data", TRUE)
def test_what_is_known_of_real_data_is_found_and_nothing_else(data):
    if data != "digits" and not os.environ.get("QUICKSTUDY_DATA"):
        pytest.skip("set QUICKSTUDY_DATA: this test reads real data")
    splits = ("train", "val", "test")
    splits = splits if data in ("omniglot", "cifar-fs") else ("test",)
    pools = {split: load_pool(data, split=split) for split in splits}
    found = names(check_contents(pools))
    found |= names(check_source(PoolSource(pools["test"]), EpisodeSpec(5, 1, 5), episodes=300))
    assert found == TRUE[data]


def test_the_share_of_queries_with_a_twin_in_the_support_is_counted():
    x = gaussian_pool(4, 6, (2,)).x.clone()
    x[6] = x[0]  # a twin in another class
    pool = Pool(x, torch.arange(4).repeat_interleave(6), ("a", "b", "c", "d"))
    report = check_source(PoolSource(pool), EpisodeSpec(4, 2, 4), episodes=300)
    (found,) = report.findings
    assert found.check == "shared-content"
    # all rows are used; the twins are apart with probability 2 * 1/3 * 2/3, one query of 16 then
    assert abs(found.evidence["easy_queries"] * 16 - 4 / 9) < 4 * (20 / 81 / 300) ** 0.5
    assert check_source(PoolSource(gaussian_pool(4, 6, (2,))), EpisodeSpec(4, 2, 4)).clean


def test_the_closest_pair_decides_how_grave_near_duplicates_are():
    """Of three splits the last two hold nearly the same picture; those before are merely alike."""
    draw = torch.Generator().manual_seed(0)
    base = torch.rand(1, 1, 28, 28, generator=draw)

    def pool(split: str, noise: float) -> Pool:
        x = torch.rand(6, 1, 28, 28, generator=draw)
        x[0] = (base + noise * torch.randn(1, 1, 28, 28, generator=draw)).clamp(0, 1)[0]
        pixels = (255 * x).to(torch.uint8)
        return Pool(pixels, torch.arange(2).repeat_interleave(3), ("a", "b"), "drawings", split)

    parts = {"train": pool("train", 0.02), "val": pool("val", 0.0), "test": pool("test", 0.001)}
    report = check_contents(parts)
    (found,) = [f for f in report.findings if f.check == "near-duplicates"]
    cosines = found.evidence["cosine"]
    assert cosines == sorted(cosines, reverse=True)
    assert f"{max(cosines):.4f}" in found.summary
