"""Pools: any labels in, sorted classes out, errors that name the culprit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.core import ConfigError, DataError, EpisodeSpec
from quickstudy.tasks import Pool, PoolSource
from quickstudy.testing import gaussian_pool


@given(st.lists(st.sampled_from([3, 7, "cat", ("a", 1), None]), min_size=1, max_size=30))
def test_rows_keep_their_labels_whatever_the_order(labels):
    pool = Pool.build(torch.arange(len(labels)).float()[:, None], labels, name="any")
    assert pool.n_classes == len(set(labels))
    assert pool.counts.sum() == len(labels)
    for x, y in zip(pool.x[:, 0].int().tolist(), pool.y.tolist(), strict=True):
        assert pool.class_names[y] == str(labels[x])
    # rows of a class keep the order they came in
    for c in range(pool.n_classes):
        rows = pool.x[pool.y == c, 0]
        assert torch.equal(rows, rows.sort().values)


def test_groups_follow_their_rows():
    pool = Pool.build(
        torch.arange(4.0)[:, None], ["b", "a", "b", "a"], name="g", groups=["x", "y", "y", "x"]
    )
    assert pool.x[:, 0].tolist() == [1, 3, 0, 2]
    assert pool.groups.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_name_row_and_class(value):
    x = torch.zeros(4, 2)
    x[1, 1] = value
    with pytest.raises(DataError, match=r"bad: row 2 \(class 'dog'\) has NaN or\s+infinite"):
        Pool.build(x, ["cat", "dog", "cat", "mouse"], name="bad")


@pytest.mark.parametrize(("x", "labels"), [(torch.zeros(0, 2), []), (torch.zeros(3, 2), ["a"])])
def test_missing_rows_or_labels_are_refused(x, labels):
    with pytest.raises(DataError, match=f"{len(x)} examples with {len(labels)} labels"):
        Pool.build(x, labels, name="empty")


@pytest.mark.parametrize(
    ("y", "names", "says"),
    [
        ([0, 1, 0], ("a", "b"), "sorted by class"),
        ([0, 0, 2], ("a", "b", "c"), "without empty classes"),
        ([0, 0, 1], ("a",), "do not belong together"),
        ([0, 0], ("a",), "do not belong together"),
    ],
)
def test_a_pool_that_is_not_sorted_is_refused(y, names, says):
    with pytest.raises(DataError, match=says):
        Pool(torch.zeros(3, 2), torch.tensor(y), names)


def test_selecting_classes_renumbers_them():
    pool = gaussian_pool(5, 3, (2,), groups_per_class=2)
    part = pool.select([4, 1, 4], split="val")
    assert part.class_names == ("class 001", "class 004")
    assert part.split == "val"
    assert torch.equal(part.x, torch.cat([pool.x[3:6], pool.x[12:15]]))
    assert part.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert (
        part.groups.tolist()
        == pool.groups[pool.y == 1].tolist() + pool.groups[pool.y == 4].tolist()
    )
    with pytest.raises(DataError, match="is empty or leaves"):
        pool.select([])


def test_rotations_are_new_classes():
    pool = Pool.build(
        torch.arange(12.0).view(3, 1, 2, 2), ["a", "b", "a"], name="r", groups=[1, 2, 3]
    )
    turned = pool.with_rotations()
    assert turned.n_classes == 8
    assert turned.class_names[:4] == ("a@0", "a@90", "a@180", "a@270")
    assert turned.counts.tolist() == [2] * 4 + [1] * 4
    for turn in range(4):
        expected = torch.rot90(pool.x[:2], turn, (2, 3))
        assert torch.equal(turned.x[turned.y == turn], expected)
        assert turned.groups[turned.y == turn].tolist() == pool.groups[:2].tolist()


def test_the_hash_sees_every_content():
    base = gaussian_pool(3, 4, (2,), groups_per_class=2)
    x, groups = base.x.clone(), base.groups.clone()
    x[0, 0] += 1
    groups[0] = 5
    renamed = Pool(base.x, base.y, ("x", "y", "z"), groups=base.groups)
    others = [base.with_x(x), Pool(base.x, base.y, base.class_names, groups=groups), renamed]
    assert base.sha256() == gaussian_pool(3, 4, (2,), groups_per_class=2).sha256()
    assert len({base.sha256(), *(o.sha256() for o in others)}) == 4


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.zeros((2, 3), np.float32), torch.tensor([0, 1]), "x needs a Tensor"),
        (torch.zeros(2, 3), np.array([0, 1]), "y needs a Tensor"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1]), "x must be uint8"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "y must be int64"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), "label -1; classes are numbered from 0"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "there are no rows"),
    ],
)
def test_wrong_types_are_named(x, y, says):
    with pytest.raises((ConfigError, DataError), match=says):
        Pool(x, y, ("a", "b"))


def test_double_precision_inputs_reach_the_learner_as_float32():
    pool = Pool(torch.rand(4, 3, dtype=torch.float64), torch.tensor([0, 0, 1, 1]), ("a", "b"))
    episode = PoolSource(pool).episodes(EpisodeSpec(2, 1, 1), [0], seed=0)
    assert episode.support.x.dtype == torch.float32
