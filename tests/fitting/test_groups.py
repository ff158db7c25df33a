"""Auxiliary tasks in which no group stands on both sides."""

import numpy as np
import pytest
import torch

from quickstudy.core import ConfigError, TaskError
from quickstudy.estimators import learn_prior
from quickstudy.fitting.draws import AuxiliaryClasses

LABELS = np.repeat(np.arange(20), 30)
ROWS = np.arange(600)

LAYOUTS = {
    "two groups a class": ROWS // 15,
    "groups that straddle classes": ROWS // 20,
    "small groups that straddle classes": ROWS // 7,
    "every group in every class": ROWS % 6,
    "at random": np.random.default_rng(0).integers(0, 40, 600),
    "one large group a class, all else alone": np.where(ROWS % 30 < 20, LABELS, 100 + ROWS),
    "names": np.array([f"film {i}" for i in ROWS // 10]),
}


def drawn(groups, n_way, k_shot, **sizes):
    """Draw tasks whose embeddings are the numbers of the rows."""
    classes = AuxiliaryClasses(ROWS[:, None], LABELS, groups=groups)
    return classes.episodes(n_way, k_shot, seed=0, **{"tasks": 40, "n_query": 10, **sizes})


@pytest.mark.parametrize("strangers", [0, 20])
@pytest.mark.parametrize("k_shot", [1, 2, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_group_is_ever_on_both_sides(layout, k_shot, strangers):
    groups = LAYOUTS[layout]
    found = drawn(groups, 5, k_shot, n_strangers=strangers)
    for t in range(40):
        support, query = (
            side.x[t, :, 0].long() for side in (found.episode.support, found.episode.query)
        )
        apart = torch.cat([query, found.strangers[t, :, 0].long()])
        assert not set(groups[support]) & set(groups[apart])
        for side, each in ((support, k_shot), (query, 10)):
            labels = LABELS[side].tolist()
            assert labels == sorted(labels, key=labels.index)
            assert len(set(labels)) == 5
            assert len(set(side.tolist())) == 5 * each
        assert not set(LABELS[found.strangers[t, :, 0].long()]) & set(LABELS[support])


def test_a_class_takes_part_only_where_its_groups_can_be_divided():
    """Groups of 7, 7, 7, 7 and 2 rows: 20 query rows leave 10, which are 7 + 2 or less."""
    groups = 100 * LABELS + (ROWS % 30) // 7
    assert drawn(groups, 5, 9, n_query=20) is not None
    assert drawn(groups, 5, 10, n_query=20) is None
    assert drawn(groups, 5, 9, n_query=22) is None
    assert drawn(groups, 5, 2, n_query=28) is not None
    assert drawn(groups, 5, 3, n_query=28) is None
    # without groups the number of rows alone decides
    assert drawn(None, 5, 10, n_query=20) is not None
    assert drawn(None, 5, 10, n_query=21) is None


@pytest.mark.parametrize("groups", [LABELS, np.zeros(600)])
def test_groups_that_cannot_be_divided_are_refused_with_the_reason(groups):
    z = np.random.default_rng(0).normal(size=(600, 4))
    with pytest.raises(TaskError, match="groups cannot be divided"):
        learn_prior(z, LABELS, groups=groups, heads=("prototype",), ways=(2,), shots=(1,), tasks=4)


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"ways": (1,)}, "ways"),
        ({"ways": ()}, "ways"),
        ({"shots": (0,)}, "shots"),
        ({"shots": (1.5,)}, "shots"),
        ({"tasks": 0}, "tasks"),
        ({"seed": -1}, "seed"),
        ({"heads": ()}, "heads"),
        ({"heads": ("ridge", "forest")}, "forest"),
        ({"heads": "ridge"}, "heads"),
    ],
)
def test_sizes_and_heads_that_cannot_be_are_refused_by_name(bad, name):
    with pytest.raises(ConfigError, match=name):
        learn_prior(ROWS[:, None], LABELS, **bad)


@pytest.mark.parametrize(
    ("z", "what"),
    [
        ("embeddings", "numbers"),
        (ROWS, r"\[N, D\]; got \[600\]"),
        (np.where(ROWS[:, None] == 7, np.nan, 1.0), "row 7"),
        ([["a"]] * 600, "numbers"),
    ],
)
def test_embeddings_that_are_none_are_refused(z, what):
    with pytest.raises(TaskError, match=what):
        AuxiliaryClasses(z, LABELS)
