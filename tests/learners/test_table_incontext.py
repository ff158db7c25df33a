"""The in-context classifier of tables: what may not matter does not, and weights load."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine

from quickstudy.core import CheckpointError, Examples, TaskError, generator
from quickstudy.learners import Learner
from quickstudy.learners.incontext import TableInContext, load_table_learner
from quickstudy.learners.incontext.table_weights import TABLE_WEIGHTS
from quickstudy.nets.table_transformer import TableTransformer
from quickstudy.storage.tensors import load_tensors, save_tensors
from quickstudy.testing import LearnerConformance

SMALL = {"width": 16, "depth": 2, "heads": 2, "hidden": 16, "thinking": 2}


class TestTableInContext(LearnerConformance):
    input_shape = (5,)
    # the names that unused numbers of classes have change nothing
    tolerance = 1e-8

    def make_learner(self) -> Learner:
        made = TableInContext(TableTransformer(**SMALL))
        for parameter in made.parameters():  # the last matrix of each part starts at zero
            if not parameter.any():
                parameter.data.normal_(std=0.1)
        return made


@pytest.fixture
def learner() -> TableInContext:
    torch.manual_seed(0)
    made = TableInContext(TableTransformer(**SMALL))
    for parameter in made.parameters():  # the last matrices start at zero
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made.double().eval()


def support(rows: int = 12, columns: int = 4) -> Examples:
    x = torch.randn(1, rows, columns, dtype=torch.float64, generator=generator(0))
    return Examples.full(x, torch.arange(rows)[None] % 3)


def test_columns_may_be_stretched_and_shifted(learner):
    known, x = support(), torch.randn(1, 7, 4, dtype=torch.float64, generator=generator(1))
    before = learner.predict(learner.adapt(known, n_way=3), x)
    scale, shift = torch.tensor([3.0, 1e-3, 1e4, 2.0]), torch.tensor([0.0, 5.0, -1e3, 1.0])
    other = Examples.full(known.x * scale + shift, known.y)
    after = learner.predict(learner.adapt(other, n_way=3), x * scale + shift)
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)


def test_a_column_without_values_is_no_column(learner):
    known, x = support(), torch.randn(1, 7, 4, dtype=torch.float64, generator=generator(1))
    gone = torch.full((1, 12, 3), torch.nan, dtype=torch.float64)
    # behind a full group of three columns, so that the groups stay as they were
    at = torch.cat([known.x[..., :3], gone, known.x[..., 3:]], 2)
    asked = torch.cat([x[..., :3], torch.full((1, 7, 3), 5.0, dtype=torch.float64), x[..., 3:]], 2)
    before = learner.predict(learner.adapt(known, n_way=3), x)
    after = learner.predict(learner.adapt(Examples.full(at, known.y), n_way=3), asked)
    torch.testing.assert_close(before, after)


def test_missing_infinite_and_huge_cells_give_finite_answers(learner):
    known = support()
    known.x[0, 0, 0], known.x[0, 1, 1], known.x[0, :, 2] = torch.nan, 1e30, 7.0
    x = torch.tensor([[[torch.nan] * 4, [1e30] * 4, [torch.inf, 7.0, -torch.inf, 0.0]]])
    logits = learner.predict(learner.adapt(known, n_way=3), x.double())
    assert logits.isfinite().all()
    # a probability of each class, which sum to 1
    torch.testing.assert_close(logits.exp().sum(2), torch.ones(1, 3).double(), atol=1e-5, rtol=0)


def test_a_cell_is_its_value_its_place_and_whether_it_is_missing(learner):
    known = torch.tensor([[[1.0], [2.0], [2.0], [5.0], [torch.nan]]], dtype=torch.float64)
    ordered = known.transpose(1, 2).nan_to_num(torch.inf).sort(2).values
    x = torch.tensor([[[2.0], [torch.nan], [9.0]]], dtype=torch.float64)
    found = learner.network.cell_features(x, ordered, torch.tensor([[4]]))[0, :, 0]
    mean, deviation = 2.5, torch.tensor([1.0, 2.0, 2.0, 5.0]).double().std(correction=0)
    z = (9.0 - mean) / deviation
    drawn_in = 4 + torch.log1p(z - 4) if z > 4 else z
    wanted = torch.tensor(
        [
            [float((2.0 - mean) / deviation), 0.0, 0.0],  # as many below as above
            [0.0, 0.0, 1.0],
            [float(drawn_in), 1.7, 0.0],
        ]
    ).double()
    torch.testing.assert_close(found, wanted)


def test_refusals(learner):
    with pytest.raises(TaskError, match="at most 10 classes"):
        learner.adapt(support(), n_way=11)
    with pytest.raises(TaskError, match=r"\[T, N, F\]"):
        learner.adapt(Examples.full(torch.rand(1, 3, 2, 2), torch.zeros(1, 3).long()), n_way=2)


def test_the_weights_of_the_package_beat_guessing_and_fit_their_size():
    learner = load_table_learner()
    assert TABLE_WEIGHTS.stat().st_size < 9e6
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = torch.from_numpy(x[order]).float()[None], torch.from_numpy(y[order])[None]
    state = learner.adapt(Examples.full(x[:, :30], y[:, :30]), n_way=3)
    answers = learner.predict(state, x[:, 30:]).argmax(2)
    assert float((answers == y[:, 30:]).float().mean()) > 0.9


def test_weights_of_another_version_are_refused(tmp_path):
    tensors, about = load_tensors(TABLE_WEIGHTS)
    save_tensors(tmp_path / "new.safetensors", tensors, {**about, "version": 99})
    with pytest.raises(CheckpointError, match="version 99"):
        load_table_learner(tmp_path / "new.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(TABLE_WEIGHTS.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_table_learner(tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_table_learner(tmp_path / "none.safetensors")
