"""Forests, discriminant analysis and votes against scikit-learn and their formulas."""

import math
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from quickstudy.core import ConfigError, Examples, generator, slice_tasks
from quickstudy.learners.heads import (
    CentredHead,
    ClassMeanHead,
    DiscriminantHead,
    ForestHead,
    LogisticHead,
    PrototypeHead,
    VoteHead,
    held_out_logits,
)

FORESTS = {"extra-trees": ExtraTreesClassifier, "random-forest": RandomForestClassifier}


def rows(size, dim, ways, seed=0):
    """Labelled rows with ties, a constant column and one of zeros and ones, and queries."""
    g = generator(seed)
    y = torch.randint(0, ways, (size,), generator=g)
    y[:ways] = torch.arange(ways)

    def inputs(n, classes):
        x = (torch.randn(n, dim, generator=g) + classes[:, None]).round(decimals=1)
        if dim > 2:
            x[:, 1], x[:, 2] = 3.0, (x[:, 2] > 0).float()
        return x

    return inputs(size, y), y, inputs(60, torch.randint(0, ways, (60,), generator=g))


def adapted(head, x, y, ways):
    return head.adapt(Examples.full(x[None], y[None]), n_way=ways)


@pytest.mark.parametrize("kind", FORESTS)
@pytest.mark.parametrize(("size", "dim", "ways"), [(7, 1, 2), (40, 5, 3), (90, 12, 6)])
def test_a_forest_answers_as_scikit_learn_does(kind, size, dim, ways):
    x, y, q = rows(size, dim, ways)
    head = ForestHead(kind, trees=15, seed=3)
    state = adapted(head, x, y, ways)
    order = np.lexsort((y.numpy(), *x.numpy().T[::-1]))
    forest = FORESTS[kind](15, random_state=3).fit(x.numpy()[order], y.numpy()[order])
    # also on the support, whose values lie as near to thresholds as can be
    for of in (q, x):
        shares = head.shares(state, of[None])[0]
        np.testing.assert_allclose(shares, forest.predict_proba(of.numpy()), atol=1e-6)
    logits = head.predict(state, q[None])[0]
    assert bool(logits.isfinite().all())
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(60))
    counted = (head.shares(state, q[None])[0] * 15 + 1 / ways) / 16
    torch.testing.assert_close(logits.exp(), counted)


@pytest.mark.parametrize("kind", FORESTS)
def test_thresholds_between_neighbouring_numbers_part_them(kind):
    # halfway between two neighbouring float32 numbers lies no float32 number: rounded to the
    # nearest, the threshold would be one of them, and part the other way
    low = torch.tensor([1.0, 3.0, 1.0000001, 2.5, -7.1, 1e-30, 16777216.0])
    high = torch.nextafter(low, torch.tensor(torch.inf))
    for a, b in zip(low, high, strict=True):
        x, y = torch.stack([a, b]).repeat(8)[:, None], torch.tensor([0, 1]).repeat(8)
        head = ForestHead(kind, trees=10)
        state = adapted(head, x, y, 2)
        forest = FORESTS[kind](10, random_state=0).fit(x[y.argsort(stable=True)], y.sort().values)
        shares = head.shares(state, torch.stack([a, b])[None, :, None])[0]
        wanted = forest.predict_proba(torch.stack([a, b])[:, None].numpy())
        np.testing.assert_allclose(shares, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", FORESTS)
def test_a_forest_is_the_same_in_any_order_and_batch(kind):
    x, y, q = rows(30, 4, 3)
    head = ForestHead(kind, trees=8)
    alone = head.predict(adapted(head, x, y, 3), q[None])
    mixed = torch.randperm(30, generator=generator(1))
    torch.testing.assert_close(head.predict(adapted(head, x[mixed], y[mixed], 3), q[None]), alone)
    # a smaller task beside it, without class 1, with padding of any content
    keep = y != 1
    other = torch.where(keep[:, None], x, torch.nan)
    both = Examples(
        torch.stack([x, other]), torch.stack([y, y]), torch.stack([torch.ones_like(keep), keep])
    )
    state = head.adapt(both, n_way=3)
    found = head.predict(state, q.expand(2, -1, -1))
    torch.testing.assert_close(found[:1], alone)
    fewer = head.predict(adapted(head, x[keep], y[keep], 3), q[None])
    torch.testing.assert_close(found[1:], fewer)
    assert bool((found[1, :, 1] == -torch.inf).all())
    torch.testing.assert_close(
        head.predict(slice_tasks(state, slice(1, 2)), q[None]), fewer, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    "head",
    [
        ForestHead("random-forest", trees=5),
        DiscriminantHead(),
        VoteHead({"a": LogisticHead(), "b": ForestHead(trees=5)}),
        CentredHead(PrototypeHead(), lengths="task"),
    ],
    ids=lambda head: type(head).__name__,
)
def test_states_are_tensors_that_answer_alike_after_saving(head):
    x, y, q = rows(20, 3, 3)
    state = adapted(head, x, y, 3)
    again = load(save({name: value.contiguous() for name, value in state.items()}))
    assert torch.equal(head.predict(again, q[None]), head.predict(state, q[None]))


@pytest.mark.parametrize("kind", FORESTS)
def test_trees_find_steps_and_interactions(kind):
    g = generator(4)
    x, q = torch.rand(80, 6, generator=g) - 0.5, torch.rand(400, 6, generator=g) - 0.5

    def label(z):  # a chessboard of two columns: no linear rule is better than guessing
        return ((z[:, 0] > 0) ^ (z[:, 3] > 0)).long()

    def right(head):
        logits = head.predict(adapted(head, x[:, [0, 3]], label(x), 2), q[None][..., [0, 3]])
        return float((logits[0].argmax(1) == label(q)).float().mean())

    assert right(ForestHead(kind)) > 0.85 > 0.65 > right(LogisticHead())


def test_forests_refuse_what_they_cannot_be():
    with pytest.raises(ConfigError, match="Did you mean 'extra-trees'"):
        ForestHead("extra-tree")
    with pytest.raises(ConfigError, match="trees"):
        ForestHead(trees=0)


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("size", "dim"), [(40, 5), (9, 12)])
def test_discriminant_analysis_is_that_of_scikit_learn(shrinkage, size, dim):
    x, y, q = rows(size, dim, 3)
    head = DiscriminantHead(shrinkage=shrinkage)
    logits = head.predict(adapted(head, x, y, 3), q[None])[0].double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y)
    # the covariance is divided by n - C here, by n there: so is all but the log shares of classes
    log_shares = torch.bincount(y).double().log() - math.log(size)
    wanted = torch.from_numpy(there.decision_function(q)) - log_shares
    wanted = wanted * (size - 3) / size + log_shares
    torch.testing.assert_close(
        logits.log_softmax(1), wanted.log_softmax(1), rtol=1e-3, atol=2e-3 * size
    )
    balanced = DiscriminantHead(shrinkage=shrinkage, balanced=True)
    even = balanced.predict(adapted(balanced, x, y, 3), q[None])[0].double()
    torch.testing.assert_close(even + log_shares, logits, rtol=1e-4, atol=1e-3)


def test_discriminant_analysis_without_two_examples_of_a_class():
    x = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 9.0]])
    head = DiscriminantHead()
    q = torch.tensor([[[0.5, 0.2], [3.0, 1.0], [1.0, 8.0]]])
    logits = head.predict(adapted(head, x, torch.arange(3), 4), q)
    assert logits[0].argmax(1).tolist() == [0, 1, 2]
    assert bool((logits[..., 3] == -torch.inf).all())
    # one example of five is a fifth, whatever stands beside it
    y = torch.tensor([0, 0, 0, 0, 1])
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [5.0, 5.0]])
    even = DiscriminantHead(balanced=True)
    gap = head.predict(adapted(head, x, y, 2), q) - even.predict(adapted(even, x, y, 2), q)
    shares = torch.tensor([0.8, 0.2]).log().expand(1, 3, 2)
    torch.testing.assert_close(gap, shares, rtol=1e-4, atol=1e-5)
    same = head.predict(adapted(head, torch.ones(4, 2), torch.tensor([0, 0, 1, 1]), 2), q)
    torch.testing.assert_close(same.softmax(2), torch.full((1, 3, 2), 0.5))


@pytest.mark.parametrize("shrinkage", [0.0, -0.1, 1.1, math.nan])
def test_shrinkage_out_of_range(shrinkage):
    with pytest.raises(ConfigError, match="shrinkage"):
        DiscriminantHead(shrinkage=shrinkage)


def test_a_vote_is_the_weighted_mean_of_probabilities():
    x, y, q = rows(25, 3, 3)
    members = {"one": LogisticHead(), "two": DiscriminantHead(), "three": ForestHead(trees=9)}
    vote = VoteHead(members, weights=[1.0, 2.0, 5.0], temperatures=[2.0, 0.5, 1.0])
    p = vote.predict(adapted(vote, x, y, 4), q[None]).exp()
    parts = [head.predict(adapted(head, x, y, 4), q[None]) for head in members.values()]
    wanted = (parts[0] / 2).softmax(2) + 2 * (parts[1] / 0.5).softmax(2) + 5 * parts[2].softmax(2)
    torch.testing.assert_close(p, wanted / 8)
    assert bool((p[..., 3] == 0).all())  # no example
    assert bool(p[..., :3].log().isfinite().all())


@pytest.mark.parametrize(
    "wrong", [{"weights": [1.0]}, {"temperatures": [1.0, 0.0]}, {"weights": [1.0, -1.0]}]
)
def test_votes_refuse_what_does_not_fit(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        VoteHead({"a": LogisticHead(), "b": DiscriminantHead()}, **wrong)
    with pytest.raises(ConfigError, match="members"):
        VoteHead({})


@pytest.mark.parametrize("lengths", ["unit", "task", "raw"])
def test_lengths(lengths):
    x, y, q = rows(12, 4, 2, seed=5)
    head = CentredHead(PrototypeHead(), prior=1.0, lengths=lengths)
    support = Examples.full(x[None], y[None])
    state, seen = head.adapt(support, n_way=2), head.seen(support, n_way=2)
    squares = seen.x.square().sum(2)
    if lengths == "unit":
        torch.testing.assert_close(squares, torch.ones(1, 12))
    elif lengths == "task":
        torch.testing.assert_close(squares.mean(), torch.tensor(1.0))
        assert squares.std() > 0.1
    else:
        torch.testing.assert_close(seen.x, x - state["centre"])
    torch.testing.assert_close(head.placed(state, x[None]), seen.x)
    inner = head.head.adapt(seen, n_way=2)
    wanted = head.head.predict(inner, head.placed(state, q[None]))
    torch.testing.assert_close(head.predict(state, q[None]), wanted)
    with pytest.raises(ConfigError, match="lengths"):
        CentredHead(PrototypeHead(), lengths="rows")


def test_examples_that_are_all_zero_have_a_scale():
    head = CentredHead(PrototypeHead(), lengths="task")
    state = adapted(head, torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]), 2)
    assert bool(head.predict(state, torch.ones(1, 2, 3)).isfinite().all())


def test_class_means_by_squared_distance():
    x, y, q = rows(12, 4, 3)
    by_class, all_at_once = ClassMeanHead(distance="euclidean"), PrototypeHead()
    found = by_class.predict(adapted(by_class, x, y, 3), q[None])
    wanted = all_at_once.predict(adapted(all_at_once, x, y, 3), q[None])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    keep = y != 2
    fewer = by_class.predict(adapted(by_class, x[keep], y[keep], 2), q[None])
    assert torch.equal(fewer, found[..., :2])


@pytest.mark.parametrize("head", [ForestHead(trees=6), DiscriminantHead()], ids=["trees", "lda"])
def test_held_out_logits_are_those_of_a_head_that_saw_less(head):
    x, y, _ = rows(18, 3, 3)
    x = x + torch.arange(18)[:, None] / 1000  # copies would be left out together
    found = held_out_logits(head, Examples.full(x[None], y[None]), n_way=3)[0]
    for row in range(0, 18, 5):
        rest = torch.arange(18) != row
        alone = head.predict(adapted(head, x[rest], y[rest], 3), x[row][None, None])
        torch.testing.assert_close(found[row], alone[0, 0])
