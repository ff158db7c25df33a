"""Episodes: shapes are checked, padding is kept, sizes are validated."""

import pytest
import torch

from quickstudy.core import ConfigError, Episode, EpisodeSpec, Examples, TaskError
from quickstudy.core.state import n_tasks, slice_tasks


def examples(tasks=2, n=3):
    return Examples.full(torch.zeros(tasks, n, 4), torch.arange(n).expand(tasks, n))


def test_full_examples_have_no_padding():
    assert examples().mask.all()


@pytest.mark.parametrize(
    ("x", "y", "mask"),
    [((2, 3, 4), (2, 2), (2, 2)), ((2, 3, 4), (2, 3), (2, 2)), ((3,), (3,), (3,))],
)
def test_shapes_that_disagree_are_refused(x, y, mask):
    with pytest.raises(TaskError, match="Add the task axis"):
        Examples(torch.zeros(x), torch.zeros(y).long(), torch.ones(mask).bool())


def test_a_mask_must_be_boolean():
    with pytest.raises(TaskError, match=r"float32.*mask\.bool"):
        Examples(torch.zeros(1, 2, 3), torch.zeros(1, 2).long(), torch.ones(1, 2))


def test_trimmed_leaves_out_what_is_padding_in_all_tasks():
    mask = torch.tensor([[True, False, False, False], [True, False, True, False]])
    given = Examples(torch.rand(2, 4, 3), torch.zeros(2, 4, dtype=torch.int64), mask)
    short = given.trimmed()
    assert short.x.shape == (2, 3, 3)
    assert torch.equal(short.mask, mask[:, :3])
    assert torch.equal(short.x, given.x[:, :3])
    assert given.tasks(slice(0, 1)).trimmed().y.shape == (1, 1)
    full = given.tasks(slice(1, 2)).trimmed()
    assert full.trimmed() is full


def test_labels_are_checked_but_padding_and_targets_are_not():
    x = torch.zeros(1, 3, 2)
    padded = Examples(x, torch.tensor([[0, 1, 9]]), torch.tensor([[True, True, False]]))
    padded.check_labels(2)
    with pytest.raises(TaskError, match=r"\[0, 1\); got 0 to 1"):
        padded.check_labels(1)
    Examples.full(x, torch.tensor([[-5.0, 0.3, 70.0]])).check_labels(1)


def test_moving_keeps_labels_and_casts_floating_inputs():
    side = examples().to("cpu", torch.float64)
    assert side.x.dtype == torch.float64
    assert side.y.dtype == torch.int64
    whole = Examples.full(torch.zeros(1, 2, 3, dtype=torch.uint8), torch.zeros(1, 2).long())
    assert whole.to("cpu", torch.float64).x.dtype == torch.uint8


def test_support_and_query_need_the_same_tasks():
    with pytest.raises(TaskError, match="2 tasks, query has 3"):
        Episode(examples(2), examples(3), 3)


def test_slices_of_tasks_take_info_along():
    episode = Episode(examples(4), examples(4, 5), 5, {"classes": torch.arange(20).view(4, 5)})
    part = episode.tasks(slice(1, 3))
    assert part.n_tasks == 2
    assert part.info["classes"].tolist() == [[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
    assert not part.regression


@pytest.mark.parametrize("bad", [0, -1, (3, 2), (0, 4), 1.5, "5"])
def test_sizes_are_validated(bad):
    with pytest.raises(ConfigError, match="k_shot must be a whole number"):
        EpisodeSpec(5, bad)


def test_ranges_know_their_ends_and_their_text():
    spec = EpisodeSpec((3, 8), (1, 5))
    assert (spec.variable, spec.max_way, spec.max_shot) == (True, 8, 5)
    assert str(spec) == "3-8-way 1-5-shot"
    assert str(EpisodeSpec(5, 1)) == "5-way 1-shot"
    assert not EpisodeSpec(5, 1).variable


def test_states_are_sliced_by_task_and_must_agree():
    state = {"a": torch.arange(6).view(3, 2), "b": torch.arange(3)}
    assert n_tasks(state) == 3
    assert slice_tasks(state, slice(1, 2))["a"].tolist() == [[2, 3]]
    for bad in (
        {"a": torch.zeros(3), "b": torch.zeros(2)},
        {},
        {"a": torch.zeros(()), "b": state["b"]},
    ):
        with pytest.raises(TaskError, match="leading task axis"):
            n_tasks(bad)
