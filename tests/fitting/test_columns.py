"""Tables: heads for columns, their choice on held-out examples, and what becomes of them."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from quickstudy.core import generator
from quickstudy.estimators import FewShotClassifier, TaskPrior, fit_task
from quickstudy.estimators.version import TaskVersion
from quickstudy.fitting.columns import voter_weights
from quickstudy.fitting.heads import HEADS, VOTERS

NEW = ("lda", "extra-trees", "random-forest", "vote")


def line(classes, shots, seed=0, gap=5.0):
    """Return one column: classes at 0, 5, 10, ... with deviation 1."""
    y = torch.arange(classes).repeat_interleave(shots)
    return gap * y[:, None] + torch.randn(len(y), 1, generator=generator(seed)), y


def standardised(x, other):
    return (x - x.mean(0)) / x.std(0), (other - x.mean(0)) / x.std(0)


def right(task, z, y):
    return float((task.scores(z).argmax(1) == y).float().mean())


@pytest.mark.parametrize("head", ["auto", *(n for n in HEADS if n != "incontext")])
@pytest.mark.parametrize("classes", [3, 5])
def test_one_column_says_more_than_its_sign(head, classes):
    (x, y), (q, answers) = line(classes, 10), line(classes, 100, seed=1)
    z, q = standardised(x, q)
    task = fit_task(TaskPrior.for_columns(1), z, y, n_way=classes, head=head)
    # the five classes of a few gradient steps and of least squares lie in a row: they see the ends
    least = 0.95 if head not in ("gradient",) else 0.6
    assert right(task, q, answers) > least


@pytest.mark.parametrize("shots", [1, 2, 3])
def test_one_column_with_few_examples(shots):
    found = []
    for seed in range(4):
        (x, y), (q, answers) = line(3, shots, seed), line(3, 100, seed=9)
        z, q = standardised(x, q)
        found.append(right(fit_task(TaskPrior.for_columns(1), z, y, n_way=3), q, answers))
    assert sum(found) / len(found) > 0.85


def steps(size, seed):
    """Return a class that is found by thresholds: in a band of one column, above one of another."""
    g = generator(seed)
    z = torch.randn(size, 8, generator=g)
    return z, ((z[:, 0].abs() < 0.7) & (z[:, 1] > -0.5)).long()


def slopes(size, seed):
    """Return a class that lies on one side of a plane through all columns."""
    g = generator(seed)
    z = torch.randn(size, 8, generator=g)
    return z, (z.sum(1) > 0).long()


@pytest.mark.parametrize(("make", "trees_win"), [(steps, True), (slopes, False)])
def test_the_vote_follows_who_was_right(make, trees_win):
    (z, y), (q, answers) = make(80, 0), make(500, 1)
    task = fit_task(TaskPrior.for_columns(8), z, y, n_way=2)
    weights = voter_weights(task.head)
    assert task.head_name == "vote"
    assert tuple(weights) == VOTERS
    linear = max(weights["logistic"], weights["lda"])
    trees = max(weights["extra-trees"], weights["random-forest"])
    assert (trees > 3 * linear) if trees_win else (linear > 3 * trees)
    alone = {
        name: right(fit_task(TaskPrior.for_columns(8), z, y, n_way=2, head=name), q, answers)
        for name in VOTERS
    }
    assert right(task, q, answers) > max(alone.values()) - 0.05
    assert (alone["random-forest"] > alone["logistic"] + 0.1) == trees_win
    assert set(task.held_out_errors) == {*VOTERS, "vote"}


def test_with_one_example_each_the_vote_is_equal():
    z, y = slopes(6, 0)
    task = fit_task(TaskPrior.for_columns(8), z, torch.arange(6), n_way=6)
    assert list(voter_weights(task.head).values()) == pytest.approx([0.25] * 4)
    assert not voter_weights(fit_task(TaskPrior.for_columns(8), z, y, n_way=2, head="lda").head)


def test_the_strength_of_the_penalty_is_chosen():
    g = generator(2)
    y = torch.arange(60) % 2
    noise = torch.randn(60, 40, generator=g)  # nothing to learn: the strongest penalty is best
    weak = fit_task(TaskPrior.for_columns(40), noise, y, n_way=2, head="logistic")
    clear = noise.clone()
    clear[:, 0] += 12 * y - 6
    strong = fit_task(TaskPrior.for_columns(40), clear, y, n_way=2, head="logistic")
    assert float(weak.head.head.log_c.exp()) == pytest.approx(0.03)
    assert float(strong.head.head.log_c.exp()) > 1


@pytest.mark.parametrize("head", ["auto", "lda", "random-forest"])
def test_rare_classes_constants_copies_and_contradictions(head):
    z, y = slopes(40, 3)
    z = torch.cat([z, torch.ones(40, 1)], 1)
    q = torch.cat([slopes(5, 4)[0], torch.full((5, 1), -7.0)], 1)
    prior = TaskPrior.for_columns(9)
    one, three = y.clone(), y.clone()
    one[0], three[:3] = 2, 2
    for labels, rows in ((one, z), (three, z), (y, z[:1].expand(40, -1)), (y % 1, z)):
        n_way = int(labels.max()) + 1
        task = fit_task(prior, rows, labels, n_way=n_way, head=head)
        p = task.proba(q)
        assert bool(p.isfinite().all())
        torch.testing.assert_close(p.sum(1), torch.ones(5).double())
        assert task.sets(q).shape == (5, n_way)
    copies = fit_task(prior, z.repeat(3, 1), y.repeat(3), n_way=2, head=head)
    # an example is not judged by its own copies
    assert int(copies.evidence.judged.sum()) == 120
    assert float(copies.held_out_errors[copies.head_name].mean()) > 0.02


@pytest.mark.parametrize("head", NEW)
def test_new_heads_take_embeddings_too(head):
    g = generator(5)
    y = torch.arange(3).repeat(6)
    z = torch.randn(18, 32, generator=g) + 3 * torch.eye(3, 32)[y]
    task = fit_task(TaskPrior.plain(32), z, y, n_way=3, head=head)
    assert task.head_name == head
    assert right(task, z, y) > 0.9
    seen = task.head.seen(task.support, n_way=3).x
    torch.testing.assert_close(seen.norm(dim=2), torch.ones(1, 18))


def test_priors_of_columns_are_kept_and_older_ones_stay_what_they_were(tmp_path):
    for prior in (TaskPrior.for_columns(4), TaskPrior.plain(4)):
        document, tensors = prior.to_parts()
        assert ("columns" in document) == prior.columns
        again = TaskPrior.from_parts(json.loads(json.dumps(document)), tensors)
        z = torch.randn(3, 4, generator=generator(6))
        assert again.columns == prior.columns
        assert torch.equal(again.transform(z), prior.transform(z))
        assert torch.equal(prior.transform(z), z) == prior.columns
        assert again.resized(7).columns == prior.columns
        assert again.resized(7).metric.dim == 7
    with pytest.raises(ValueError, match="columns"):
        TaskPrior.from_parts(document | {"columns": "yes"}, tensors)


# ------------------------------------------------------------------- what users do with tables


ROWS = [[float(i % 7), "abc"[i % 3], 3.0, float(i % 2) * 4 + i / 20] for i in range(30)]
LABELS = ["even" if i % 2 == 0 else "odd" for i in range(30)]


@pytest.mark.parametrize("head", ["auto", "lda"])
def test_files_answer_alike_and_edits_are_undone(head, tmp_path):
    clf = FewShotClassifier("table", head=head).fit(ROWS, LABELS)
    before = clf.predict_proba(ROWS)
    assert clf.score(ROWS, LABELS) > 0.9
    clf.save(tmp_path / "a.task")
    again = FewShotClassifier.load(tmp_path / "a.task")
    np.testing.assert_array_equal(again.predict_proba(ROWS), before)
    np.testing.assert_array_equal(
        FewShotClassifier("table", head=head).fit(ROWS, LABELS).predict_proba(ROWS), before
    )
    clf.add_class("far", [[40.0, "d", 3.0, 90.0], [41.0, "d", 3.0, 91.0]])  # a new category too
    assert clf.predict([[40.5, "d", 3.0, 90.0]]).tolist() == ["far"]
    clf.remove_examples([0, 1])
    clf.undo()
    clf.undo()
    np.testing.assert_array_equal(clf.predict_proba(ROWS), before)


def test_the_unit_of_a_column_does_not_matter():
    x, y = slopes(30, 7)
    a = FewShotClassifier("table").fit(x.tolist(), y.numpy()).predict_proba(x.tolist())
    scaled = (x.double() * 1000 - 5).tolist()
    b = FewShotClassifier("table").fit(scaled, y.numpy()).predict_proba(scaled)
    np.testing.assert_allclose(a, b, atol=0.02)


def test_a_task_of_the_old_kind_stays_one_when_its_columns_change():
    clf = FewShotClassifier("table").fit(ROWS, LABELS)
    version = clf.version_
    old = TaskVersion.learn(
        version.support, version.embedder, TaskPrior.plain(version.embedder.dim), head="ridge"
    )
    after = old.add_class("far", [[40.0, "d", 3.0, 90.0]])
    assert after.embedder.dim == old.embedder.dim + 1
    assert not after.prior.columns
    assert version.add_class("far", [[40.0, "d", 3.0, 90.0]]).prior.columns


def test_distances_that_are_told_are_those_of_columns():
    x = [[0.0], [1.0], [4.0], [5.0]]
    clf = FewShotClassifier("table", head="lda").fit(x, list("aabb"))
    (why,) = clf.explain([[1.5]], n=2)
    deviation = float(np.std(x))
    assert [n.distance for n in why.supports] == pytest.approx([0.5 / deviation, 1.5 / deviation])


@pytest.mark.parametrize("head", ["auto", "ridge"])
def test_graphs_answer_as_the_task_does(head, tmp_path):
    clf = FewShotClassifier("table", head=head).fit(ROWS[:10], LABELS[:10])  # trees of few levels
    clf.export_onnx(tmp_path / "a.onnx", support_as_input=False)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    for rows in (ROWS, ROWS[:1]):
        (_, p) = session.run(None, {"query": clf.inputs(rows)})
        np.testing.assert_allclose(p, clf.predict_proba(rows), atol=1e-5)


def test_a_column_that_says_all_is_found_among_texts_and_constants():
    g = np.random.default_rng(0)
    rows = [["x", 1.0, "pqr"[i % 3], 5.0 * (i % 3) + g.normal()] for i in range(30)]
    new = [["x", 1.0, "pqr"[int(g.integers(3))], 5.0 * (i % 3) + g.normal()] for i in range(300)]
    numbers = np.array([[row[3]] for row in rows]), np.array([[row[3]] for row in new])
    y, answers = np.arange(30) % 3, np.arange(300) % 3
    # the category says the same in the examples and nothing afterwards: no head can know
    shuffled = [[a, b, "pqr"[int(g.integers(3))], d] for a, b, _, d in rows]
    there = LogisticRegression().fit(numbers[0], y).score(numbers[1], answers)
    assert FewShotClassifier("table").fit(shuffled, y).score(new, answers) > there - 0.03
