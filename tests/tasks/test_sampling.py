"""Which rows make an episode: golden lists, Meta-Dataset's bounds, groups, and errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.core import EpisodeSpec, TaskError
from quickstudy.core.rows import EpisodeIndex, EpisodeRows, split_by_groups
from quickstudy.tasks import Pool, sample_index
from quickstudy.testing import gaussian_pool


def pool_of(counts, groups=None):
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    names = tuple(f"c{c}" for c in range(len(counts)))
    return Pool(torch.zeros(len(y), 1), y, names, "sized", "train", groups)


def test_golden_episodes_of_seed_0():
    pool = gaussian_pool(6, 7, (2,), groups_per_class=3)
    index = sample_index(pool, EpisodeSpec(3, 1, 2), [0], seed=0)
    assert index.classes.tolist() == [[0, 3, 1]]
    assert index.support.tolist() == [[4, 13, 27]]
    assert index.support_y.tolist() == [[0, 2, 1]]
    assert index.query.tolist() == [[1, 3, 26, 10, 12, 22]]
    assert index.query_y.tolist() == [[0, 0, 1, 2, 2, 1]]
    index = sample_index(pool, EpisodeSpec((2, 4), (1, 3), 2), [0], seed=0)
    assert index.classes.tolist() == [[0, 3, 1, -1]]
    assert index.support.tolist() == [[12, 4, 13, 27]]
    assert index.query.tolist() == [[1, 3, 26, 7, 10, 22]]
    index = sample_index(pool, EpisodeSpec(3, 1, 2), [0], seed=0, group_aware=True)
    assert index.support.tolist() == [[3, 11, 22]]
    assert index.query.tolist() == [[1, 4, 27, 12, 13, 26]]


def check(pool, index):
    """What holds for every index: rows of the right class, no row twice."""
    y = pool.y.numpy()
    for t in range(len(index.classes)):
        rows = np.concatenate([index.support[t], index.query[t]])
        labels = np.concatenate([index.support_y[t], index.query_y[t]])
        assert ((rows >= 0) == (labels >= 0)).all()
        kept = rows[rows >= 0]
        assert len(np.unique(kept)) == len(kept)
        assert (index.classes[t][labels[rows >= 0]] == y[kept]).all()
        classes = index.classes[t][index.classes[t] >= 0]
        assert len(np.unique(classes)) == len(classes)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(4, 12), min_size=2, max_size=8),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(-5, 5),
    st.data(),
)
def test_fixed_episodes_of_any_shape(counts, k_shot, n_query, seed, data):
    pool, n_way = pool_of(counts), data.draw(st.integers(2, len(counts)))
    index = sample_index(pool, EpisodeSpec(n_way, k_shot, n_query), [3, 0, 3], seed=seed)
    assert index.support.shape == (3, n_way * k_shot)
    assert index.query.shape == (3, n_way * n_query)
    check(pool, index)
    assert np.array_equal(index.support[0], index.support[2])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(2, 60), min_size=5, max_size=9),
    st.integers(1, 30),
    st.integers(1, 10),
    st.integers(0, 9),
)
def test_variable_episodes_stay_inside_their_bounds(counts, high_shot, n_query, seed):
    pool, spec = pool_of(counts), EpisodeSpec((2, 5), (1, high_shot), n_query)
    index = sample_index(pool, spec, range(4), seed=seed)
    check(pool, index)
    assert index.classes.shape == (4, 5)
    for t in range(4):
        classes = index.classes[t][index.classes[t] >= 0]
        assert 2 <= len(classes) <= 5
        sizes = pool.counts[classes]
        shots = np.bincount(index.support_y[t][index.support[t] >= 0], minlength=len(classes))
        queries = np.bincount(index.query_y[t][index.query[t] >= 0], minlength=len(classes))
        assert (queries == min(n_query, (sizes // 2).min())).all()  # equation 1, balanced
        assert shots.min() >= 1
        assert shots.max() <= high_shot
        assert (shots + queries <= sizes).all()
        assert shots.sum() <= 500


def test_variable_episodes_use_their_range():
    pool, spec = pool_of([200] * 30), EpisodeSpec((5, 25), (1, 100), 10)
    index = sample_index(pool, spec, range(200), seed=0)
    ways = (index.classes >= 0).sum(1)
    sizes = (index.support >= 0).sum(1)
    assert set(ways) == set(range(5, 26))
    assert sizes.max() <= 500
    assert sizes.max() > 400  # the cap binds
    assert (sizes < 2 * ways).any()  # and few-shot tasks are among them
    shots = np.bincount(index.support_y[0][index.support[0] >= 0])
    assert len(set(shots.tolist())) > 1  # imbalanced


@pytest.mark.parametrize("spec", [EpisodeSpec((2, 3), 5, 15), EpisodeSpec(3, (5, 8), 15)])
def test_the_lowest_shot_of_a_spec_is_kept_in_small_classes(spec):
    # six rows: at least 5 for the support, so only one is left for the query
    index = sample_index(pool_of([6] * 4), spec, range(20), seed=0)
    for t in range(20):
        shots = np.bincount(index.support_y[t][index.support[t] >= 0])
        assert (shots == 5).all()


def test_a_way_range_with_a_fixed_shot():
    index = sample_index(pool_of([9] * 6), EpisodeSpec((2, 4), 2, 3), range(30), seed=0)
    for t in range(30):
        assert set(np.bincount(index.support_y[t][index.support[t] >= 0])) == {2}
        assert set(np.bincount(index.query_y[t][index.query[t] >= 0])) == {3}


def test_chunks_of_tasks_do_not_change_episodes(monkeypatch):
    pool, spec = gaussian_pool(9, 8, (2,)), EpisodeSpec(4, 2, 3)
    whole = sample_index(pool, spec, range(50), seed=1)
    monkeypatch.setattr("quickstudy.tasks.sampling._KEYS_AT_ONCE", 100)
    pieces = sample_index(pool, spec, range(50), seed=1)
    assert np.array_equal(whole.support, pieces.support)
    assert np.array_equal(whole.query, pieces.query)


@pytest.mark.parametrize("nested", [True, False])
def test_groups_never_stand_on_both_sides(nested):
    """Nested groups (tracks) belong to one class; shared ones (drawers) appear in all of them."""
    row = torch.arange(12).repeat(6)
    groups = row % 4 + (torch.arange(6).repeat_interleave(12) * 4 if nested else 0)
    pool = pool_of([12] * 6, groups)
    index = sample_index(pool, EpisodeSpec(3, 2, 3), range(100), seed=0, group_aware=True)
    check(pool, index)
    assert (index.support >= 0).all()
    assert (index.query >= 0).all()
    for s, q in zip(groups.numpy()[index.support], groups.numpy()[index.query], strict=True):
        assert not np.isin(s, q).any()
    assert len(np.unique(groups.numpy()[index.support])) > 3  # not always the same groups


def test_every_row_and_every_class_is_used():
    pool = pool_of([7] * 6)
    index = sample_index(pool, EpisodeSpec(3, 1, 2), range(400), seed=0)
    for rows in (index.support, index.query):
        seen = np.bincount(rows.ravel(), minlength=42)
        mean = seen.mean()
        assert np.abs(seen - mean).max() < 5 * np.sqrt(mean)


@pytest.mark.parametrize(
    ("pool", "spec", "options", "says"),
    [
        (pool_of([9]), EpisodeSpec(2, 1, 1), {}, r"has 1 class\(es\); 2-way.*Lower n_way"),
        (
            pool_of([20, 4, 20]),
            EpisodeSpec(2, 5, 15),
            {},
            r"class 'c1' of sized has 4 examples; k_shot=5 \+ n_query=15 needs 20",
        ),
        (pool_of([9] * 3), EpisodeSpec(2, 1, 1), {"group_aware": True}, "no groups"),
        (
            pool_of([9] * 3, torch.arange(27)),
            EpisodeSpec((2, 3), 1, 1),
            {"group_aware": True},
            "fixed way and shot",
        ),
        (
            pool_of([9] * 3, torch.arange(3).repeat_interleave(9)),
            EpisodeSpec(2, 1, 1),
            {"group_aware": True},
            "the 1 groups of class .* cannot be split",
        ),
    ],
)
def test_errors_name_the_class_and_the_way_out(pool, spec, options, says):
    with pytest.raises(TaskError, match=says):
        sample_index(pool, spec, [0], seed=0, **options)


def test_no_task_ids_are_refused():
    with pytest.raises(TaskError, match="no task ids"):
        sample_index(pool_of([9] * 3), EpisodeSpec(2, 1, 1), [], seed=0)


@pytest.mark.parametrize("n_way", [1, (1, 4)])
def test_a_task_with_one_class_is_refused(n_way):
    with pytest.raises(TaskError, match="at least 2"):
        sample_index(pool_of([5] * 4), EpisodeSpec(n_way, 1, 1), [0], seed=0)


def test_too_few_examples_says_what_helps():
    with pytest.raises(TaskError, match=r"Lower k_shot\.$"):
        sample_index(pool_of([5, 5]), EpisodeSpec(2, 9, 1), [0], seed=0)
    with pytest.raises(TaskError, match="Lower k_shot or n_query or drop the class"):
        sample_index(pool_of([5, 9]), EpisodeSpec(2, 1, 6), [0], seed=0)


# ---------------------------------------------------------------- what all samplers share


def test_rows_of_classes_become_labelled_episodes_and_are_padded():
    uneven = EpisodeRows.from_classes(
        [7, 4], [np.array([70, 71]), np.array([40])], [np.array([72]), np.array([41, 42])]
    )
    assert uneven.support.tolist() == [70, 71, 40]
    assert uneven.support_y.tolist() == [0, 0, 1]
    assert uneven.query.tolist() == [72, 41, 42]
    assert uneven.query_y.tolist() == [0, 1, 1]
    small = EpisodeRows.from_classes([4], [np.array([40])], [np.array([41])])
    both = EpisodeIndex.stack([uneven, small], n_way=3)
    assert both.support.tolist() == [[70, 71, 40], [40, -1, -1]]
    assert both.query_y.tolist() == [[0, 1, 1], [0, -1, -1]]
    assert both.classes.tolist() == [[7, 4, -1], [4, -1, -1]]


def test_a_class_is_split_by_groups_in_its_order():
    rows, groups = np.array([5, 3, 8, 1, 9]), np.array([2, 1, 2, 3, 2])
    support, rest = split_by_groups(rows, groups, [2], 2)
    assert support.tolist() == [5, 8]  # row 9 is of the same group and is not used
    assert rest.tolist() == [3, 1]
    support, rest = split_by_groups(rows, groups, [], 2)
    assert (support.tolist(), rest.tolist()) == ([], [5, 3, 8, 1, 9])
