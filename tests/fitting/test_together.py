"""Examples that belong together (frames of one film) are held out together."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from test_novelty import by_hand

from quickstudy.core import ConfigError, Examples, TaskError, generator
from quickstudy.estimators import FewShotClassifier
from quickstudy.estimators.file_edits import add_files
from quickstudy.estimators.files import fit_files
from quickstudy.fitting import TaskPrior, fit_task
from quickstudy.fitting.novelty import Neighbourhood
from quickstudy.learners.heads import PrototypeHead, held_out_logits, held_out_together


def joined(links: list[list[int]]) -> list[int]:
    """Return for each position the first one that it is linked to, over any number of links."""
    first = list(range(len(links[0])))
    while True:
        before = list(first)
        for numbers in links:
            for i, a in enumerate(numbers):
                for j, b in enumerate(numbers):
                    if a == b:
                        first[i] = first[j] = min(first[i], first[j])
        if before == first:
            return first


@pytest.mark.parametrize("seed", range(8))
def test_groups_and_copies_are_joined(seed: int) -> None:
    g = generator(seed)
    rows = torch.randint(7, (2, 14), generator=g)
    y = torch.randint(2, (2, 14), generator=g)
    groups = torch.randint(9, (2, 14), generator=g)
    support = Examples.full(rows[..., None].float(), y)
    found = held_out_together(support, groups)
    for t in range(2):
        copies = (rows[t] * 2 + y[t]).tolist()  # of one label
        assert found[t].tolist() == joined([copies, groups[t].tolist()])
        assert held_out_together(support)[t].tolist() == joined([copies])


@pytest.mark.parametrize("folds", [None, 2, 5])
def test_no_member_of_its_group_speaks_for_a_held_out_example(folds: int | None) -> None:
    """What the other members are must not change an answer at all."""
    z = torch.randn(1, 18, 4, generator=generator(1)).double()
    y = torch.arange(3).repeat_interleave(6)[None]
    groups = torch.tensor([[0, 0, 1, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9, 10, 10, 0, 11]])
    how = {"n_way": 3, "folds": folds, "groups": groups}
    before = held_out_logits(PrototypeHead(), Examples.full(z, y), **how)
    for i in range(18):
        members = (groups[0] == groups[0, i]) & (torch.arange(18) != i)
        moved = z.clone()
        moved[0, members] += 50
        after = held_out_logits(PrototypeHead(), Examples.full(moved, y), **how)
        torch.testing.assert_close(after[0, i], before[0, i])


@pytest.mark.parametrize("columns", [False, True])
def test_distances_to_its_own_group_do_not_count(columns: bool) -> None:
    z = 3 + torch.randn(9, 5, generator=generator(2))
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    groups = torch.tensor([0, 0, 1, 2, 3, 3, 3, 4, 5])
    near = Neighbourhood.of(z, y, columns=columns, groups=groups)
    # class 1 is one group: it is not judged
    judged = [0, 1, 2, 3, 7, 8]
    expected = []
    for i in judged:
        keep = [j for j in range(9) if j == i or groups[j] != groups[i]]
        expected.append(by_hand(z[keep], y[keep], keep.index(i), columns)[0])
    assert near.own.tolist() == pytest.approx(expected, rel=1e-4)


def films(seed: int, frames: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Three classes of two films each, whose frames are all but alike; and the true accuracy."""
    g = generator(seed)
    means = torch.randn(3, 8, generator=g)
    y = torch.arange(3).repeat_interleave(2 * frames)
    groups = torch.arange(6).repeat_interleave(frames)
    scene = means.repeat_interleave(2, 0) + 2 * torch.randn(6, 8, generator=g)
    z = scene[groups] + 0.05 * torch.randn(len(y), 8, generator=g)
    new = means.repeat_interleave(200, 0) + 2 * torch.randn(600, 8, generator=g)
    task = fit_task(TaskPrior.plain(8), z, y, n_way=3, head="prototype")
    right = task.logits(new).argmax(1) == torch.arange(3).repeat_interleave(200)
    return z, y, groups, float(right.double().mean())


def test_films_that_are_told_are_not_taken_for_evidence() -> None:
    blind, told, true = [], [], []
    for seed in range(20):
        z, y, groups, accuracy = films(seed)
        for said, given in ((blind, None), (told, groups)):
            task = fit_task(TaskPrior.plain(8), z, y, n_way=3, head="prototype", groups=given)
            said.append(task.expected_accuracy())
        true.append(accuracy)
    assert np.mean([e.mean for e in blind]) > np.mean(true) + 0.2
    assert abs(np.mean([e.mean for e in told]) - np.mean(true)) < 0.1
    held = [e.low <= a <= e.high for e, a in zip(told, true, strict=True)]
    assert np.mean(held) >= 0.8


def test_a_class_of_one_film_is_not_judged_and_never_ruled_out() -> None:
    z, y, groups, _ = films(0)
    groups = torch.where(y == 0, 0, groups)
    task = fit_task(TaskPrior.plain(8), z, y, n_way=3, groups=groups)
    assert task.alone.tolist() == [True, False, False]
    assert bool(task.sets(100 * torch.randn(20, 8))[:, 0].all())
    assert "of 1 of the 3 classes nothing is known" in task.expected_accuracy().method
    whole = fit_task(TaskPrior.plain(8), z, y, n_way=3, groups=y)
    assert not whole.enough_held_out
    assert math.isinf(whole.novelty_threshold())


def test_groups_stay_with_their_examples(tmp_path) -> None:
    z, y, groups, _ = films(3)
    labels = [f"class {c}" for c in y.tolist()]
    clf = FewShotClassifier("array").fit(z.numpy(), labels, groups=groups.numpy())
    said = clf.estimate_accuracy()
    alone = FewShotClassifier("array").fit(z.numpy(), labels).estimate_accuracy()
    assert said.mean < alone.mean
    clf.save(tmp_path / "films.task")
    loaded = FewShotClassifier.load(tmp_path / "films.task")
    assert loaded.estimate_accuracy() == said
    # one more frame of a film that is there is held out with it; another film of that class is not
    more = z[:1].numpy() + 0.01
    loaded.add_examples(more, labels[:1], groups=[0])
    assert loaded.fitted_task.groups.tolist()[-1] == loaded.fitted_task.groups.tolist()[0]
    loaded.undo()
    assert loaded.estimate_accuracy() == said
    loaded.add_class("new", z[:2].numpy() + 9, groups=["x", "x"])
    assert loaded.fitted_task.alone.tolist() == [False, False, False, True]
    loaded.remove_class("new")
    assert loaded.estimate_accuracy() == said


@pytest.mark.parametrize(
    ("groups", "word"),
    [
        ([1] * 5, "5 groups"),
        ("film", "must be a list"),
        (7, "must be a list"),
        ([None] * 36, "row 0 has no group"),
        ([1.0] * 35 + [math.nan], "row 35 has no group"),
        (["a"] * 35 + [""], "row 35 has no group"),
    ],
)
def test_groups_that_do_not_fit_are_named(groups, word: str) -> None:
    z, y, *_ = films(4)
    with pytest.raises(TaskError, match=word):
        FewShotClassifier("array").fit(z.numpy(), y.numpy(), groups=groups)
    with pytest.raises(TaskError):
        fit_task(TaskPrior.plain(8), z, y, n_way=3, groups=torch.arange(5))


def test_a_table_names_its_films_in_a_column(tmp_path) -> None:
    z, y, groups, _ = films(5)
    frame = pd.DataFrame(z.numpy(), columns=[f"n{i}" for i in range(8)])
    frame["film"] = [f"f{g}" for g in groups.tolist()]
    frame["kind"] = [f"class {c}" for c in y.tolist()]
    frame.to_csv(tmp_path / "films.csv", index=False)
    fit = {"label": "kind", "head": "logistic"}
    told = fit_files(tmp_path / "films.csv", tmp_path / "t.task", group="film", **fit)
    frame.drop(columns="film").to_csv(tmp_path / "blind.csv", index=False)
    blind = fit_files(tmp_path / "blind.csv", tmp_path / "b.task", **fit)
    assert told.expected.mean < blind.expected.mean
    assert "for new groups in film" in told.text()
    frame[:2].assign(film="f0").to_csv(tmp_path / "more.csv", index=False)
    add_files(tmp_path / "t.task", [str(tmp_path / "more.csv")], group="film")
    groups_now = FewShotClassifier.load(tmp_path / "t.task").fitted_task.groups.tolist()
    assert groups_now[-2:] == [groups_now[0]] * 2
    edited = add_files(tmp_path / "t.task", [str(tmp_path / "blind.csv")])
    assert "each a group of its own" in edited.edit.what
    json.dumps(told.to_dict())


def test_a_group_is_one_however_its_name_is_written() -> None:
    z, y, groups, _ = films(6)
    labels = [f"class {c}" for c in y.tolist()]
    spelled = [groups.numpy(), groups.double().numpy(), [f" {g} " for g in groups.tolist()]]
    said = [
        FewShotClassifier("array").fit(z.numpy(), labels, groups=one).fitted_task.groups.tolist()
        for one in (*spelled, [[str, float, int][i % 3](g) for i, g in enumerate(groups.tolist())])
    ]
    assert all(one == groups.tolist() for one in said)


@pytest.mark.parametrize(
    "groups",
    [
        {str(i): i for i in range(36)},
        np.zeros((36, 2)),
        [object()] * 36,
        [math.inf] * 36,
        [[1]] * 36,
    ],
)
def test_what_cannot_name_a_group_is_refused(groups) -> None:
    z, y, *_ = films(6)
    with pytest.raises(TaskError, match="group"):
        FewShotClassifier("array").fit(z.numpy(), y.numpy(), groups=groups)


def test_a_column_cannot_be_groups_and_labels(tmp_path) -> None:
    frame = pd.DataFrame({"n": range(8), "kind": ["a", "b"] * 4, "text": ["x y", "z w"] * 4})
    for group, column in (("kind", None), ("text", "text")):
        with pytest.raises(ConfigError, match="cannot tell what belongs together"):
            fit_files(frame, tmp_path / "t.task", label="kind", column=column, group=group)
