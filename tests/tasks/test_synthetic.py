"""Made-up tables: each mechanism does what it says, and a table is the same for ever."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.tree import DecisionTreeClassifier

from quickstudy.core import ConfigError, EpisodeSpec, TaskError, keys, uniforms
from quickstudy.tasks import SyntheticTables, TaskSource
from quickstudy.tasks.synthetic import (
    ColumnForms,
    Draws,
    LinearGaussian,
    MissingAtRandom,
    MissingByColumn,
    MissingByValue,
    MissingValues,
    RandomGraph,
    RuleTarget,
    TableMaker,
    TreeTarget,
)
from quickstudy.tasks.synthetic.classes import classes_by_cuts, classes_by_scores, split_rows
from quickstudy.tasks.synthetic.graphs import GRAPH_ACTIVATIONS
from quickstudy.testing import SourceConformance

# of the first four tables of seed 0
GOLDEN_LABELS, GOLDEN_COLUMNS = "a514e9a5650a143a", [2, 12, 2, 10]
SPEC = EpisodeSpec((2, 5), (2, 20), 6)
PLAIN = TableMaker(forms=ColumnForms(coded=0.0), missing=MissingValues(tables=0.0))


def draws(count: int, seed: int = 0) -> Draws:
    return Draws(torch.from_numpy(keys(seed, np.arange(count)).view(np.int64)))


class TestSyntheticTables(SourceConformance):
    """Without codes, of which two rows may be equal, and without missing values."""

    episodes = 100

    def make_source(self) -> TaskSource:
        return SyntheticTables(columns=6, maker=PLAIN)

    def make_spec(self) -> EpisodeSpec:
        return SPEC


def test_a_table_does_not_depend_on_its_batch_with_codes_and_missing_values():
    source, ids = SyntheticTables(columns=(2, 40)), list(range(40))
    together = source.episodes(SPEC, ids, seed=3)
    for i in ids:
        alone = source.episodes(SPEC, [i], seed=3)
        wide = int(alone.info["columns"])
        for a, b in ((together.support, alone.support), (together.query, alone.query)):
            assert torch.equal(a.x[i, :, :wide].nan_to_num(9e9), b.x[0].nan_to_num(9e9))
            # columns of wider tables have no value in any row
            assert a.x[i, :, wide:][a.mask[i]].isnan().all()
            assert torch.equal(a.y[i], b.y[0])
            assert torch.equal(a.mask[i], b.mask[0])


def test_a_table_is_the_same_for_ever():
    episode = SyntheticTables(columns=(2, 12)).episodes(SPEC, [0, 1, 2, 3], seed=0)
    labels = hashlib.sha256(episode.support.y.numpy().tobytes()).hexdigest()
    assert labels[:16] == GOLDEN_LABELS
    assert episode.info["columns"].tolist() == GOLDEN_COLUMNS


def test_draws_are_those_of_the_projects_hash_and_do_not_depend_on_the_shape():
    made = draws(2000)
    u = made.uniform(3, 7)
    assert torch.equal(u[5:6, :4], Draws(made.key[5:6]).uniform(3, 4))
    assert abs(float(u.mean()) - 0.5) < 0.01
    assert 0 <= float(u.min()) <= float(u.max()) < 1
    z = made.normal(4, 5, 3)
    assert abs(float(z.mean())) < 0.03
    assert abs(float(z.std()) - 1) < 0.02
    # two decisions, two rows and two columns are independent of each other
    for a, b in (
        (z[:, 0, 0], z[:, 0, 1]),
        (z[:, 0, 0], z[:, 1, 0]),
        (u[:, 0], made.uniform(5, 1)[:, 0]),
    ):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.1
    assert set(made.whole(6, 3, below=4).unique().tolist()) == {0, 1, 2, 3}
    # the finaliser is the one of quickstudy.core.seeding
    from quickstudy.core.seeding import _mix as reference
    from quickstudy.tasks.synthetic.draws import _mix as ours

    words = keys(1, np.arange(50))
    assert np.array_equal(
        ours(torch.from_numpy(words.view(np.int64))).numpy().view(np.uint64), reference(words)
    )


def test_graph_activations_are_standardised_at_a_normal_input():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=400_000)).float()
    for name, activation, mean, deviation in GRAPH_ACTIVATIONS:
        made = (activation(z) - mean) / deviation
        assert abs(float(made.mean())) < 0.01, name
        assert abs(float(made.std()) - 1) < 0.02, name


@pytest.mark.parametrize("mechanism", [RandomGraph(), TreeTarget(), RuleTarget(), LinearGaussian()])
def test_columns_tell_the_class_and_no_row_depends_on_another(mechanism):
    made = draws(30)
    x, scores = mechanism.draw(made, rows=200, columns=6, classes=3)
    assert x.shape == (30, 200, 6)
    assert scores.shape == (30, 200, 3)
    assert x.isfinite().all()
    few, _ = mechanism.draw(made, rows=9, columns=6, classes=3)
    assert torch.equal(few, x[:, :9])
    y = classes_by_scores(made, scores, torch.full((30, 3), 50))[:, :150].numpy()
    right = [
        DecisionTreeClassifier(max_depth=6, random_state=0)
        .fit(a[:100], b[:100])
        .score(a[100:150], b[100:])
        for a, b in zip(x.numpy(), y, strict=True)
    ]
    assert np.mean(right) > 0.4  # of three classes


def test_gaussian_classes_suit_linear_discriminants():
    y = draws(20).whole(1, 300, below=3)
    x, _ = LinearGaussian().draw(draws(20), rows=300, columns=5, classes=3, labels=y)
    linear, tree = [], []
    for a, b in zip(x.numpy(), y.numpy(), strict=True):
        for kept, model in (
            (linear, LinearDiscriminantAnalysis()),
            (tree, DecisionTreeClassifier(random_state=0)),
        ):
            kept.append(model.fit(a[:150], b[:150]).score(a[150:], b[150:]))
    assert np.mean(linear) > np.mean(tree) + 0.02


def test_classes_have_their_sizes():
    made, sizes = draws(50), torch.tensor([[3, 0, 7, 2]] * 50)
    sizes[25:] = torch.tensor([5, 5, 1, 1])
    scores = torch.randn(50, 12, 4)
    for y in (classes_by_scores(made, scores, sizes), classes_by_cuts(made, scores[..., 0], sizes)):
        counts = torch.stack([torch.bincount(row, minlength=5) for row in y])
        assert torch.equal(counts[:, :4], sizes)
    # rows beyond the sizes are padding
    y = classes_by_cuts(made, torch.randn(50, 20), sizes)
    assert (y[:, 12:] == 4).all()
    shots = torch.minimum(sizes, torch.tensor(1))
    (rows, mask), (others, more) = split_rows(made, y, shots, sizes - shots, (4, 10))
    for t in range(50):
        kept = rows[t][mask[t]]
        assert sorted(y[t][kept].tolist()) == [c for c in range(4) if sizes[t, c]]
        assert not set(kept.tolist()) & set(others[t][more[t]].tolist())


def test_codes_are_levels_of_the_column():
    x = torch.randn(40, 300, 3)
    made = ColumnForms(coded=50.0).apply(draws(40), x)
    for t in range(40):
        for f in range(3):
            levels = made[t, :, f].unique()
            if len(levels) > 10:
                continue  # the share of a table may be near 0
            assert torch.equal(levels, levels.round())
            # a level is one interval of the numbers
            order = made[t, :, f][x[t, :, f].argsort()]
            assert int((order[1:] != order[:-1]).sum()) == len(levels) - 1


def test_missing_values_by_three_mechanisms():
    x, share = torch.randn(200, 100, 4), torch.full((200, 4), 0.25)
    made = draws(200)
    at_random = MissingAtRandom().where(made, x, share)
    assert abs(float(at_random.float().mean()) - 0.25) < 0.01
    high = x > 0
    gaps = {}
    for name, mechanism in (
        ("random", MissingAtRandom()),
        ("value", MissingByValue()),
        ("column", MissingByColumn()),
    ):
        gone = mechanism.where(made, x, share)
        by_own = (gone & high).sum(1) / high.sum(1) - (gone & ~high).sum(1) / (~high).sum(1)
        gaps[name] = float(by_own.abs().mean())
        assert abs(float(gone.float().mean()) - 0.25) < 0.02
    assert gaps["value"] > 0.35
    assert gaps["random"] < 0.12
    assert gaps["column"] < gaps["value"]
    hit = (
        MissingValues(tables=0.3)
        .apply(draws(500), torch.randn(500, 30, 5))
        .isnan()
        .flatten(1)
        .any(1)
    )
    assert abs(float(hit.float().mean()) - 0.3) < 0.06


def test_sizes_follow_the_specification():
    episode = SyntheticTables(columns=(3, 9)).episodes(
        EpisodeSpec((2, 8), (2, 30), 4), range(400), seed=0
    )
    ways = (
        torch.nn.functional.one_hot(episode.support.y, 8) * episode.support.mask[..., None]
    ).sum(1)
    way = (ways > 0).sum(1)
    assert 0.45 < float((way == 2).float().mean()) < 0.65
    even = torch.tensor([len(set(row[row > 0].tolist())) == 1 for row in ways])
    assert 0.4 < float(even.float().mean()) < 0.65
    assert set(episode.info["mechanism"].tolist()) == {0, 1, 2, 3}
    assert int(episode.info["columns"].min()) == 3
    assert int(episode.info["columns"].max()) == 9


def test_refusals():
    with pytest.raises(TaskError, match="split"):
        SyntheticTables("all")
    with pytest.raises(ConfigError, match="columns"):
        SyntheticTables(columns=(5, 2))
    with pytest.raises(ConfigError, match="uneven"):
        SyntheticTables(uneven=2.0)
    with pytest.raises(TaskError, match="two classes"):
        SyntheticTables().episodes(EpisodeSpec(1, 5), [0], seed=0)
    with pytest.raises(TaskError, match="empty"):
        SyntheticTables().episodes(SPEC, [], seed=0)


def test_splits_seeds_and_tables_differ():
    def first(split: str, seed: int, task: int) -> float:
        return float(
            SyntheticTables(split, columns=4, maker=PLAIN)
            .episodes(SPEC, [task], seed=seed)
            .support.x[0, 0, 0]
        )

    found = {
        first(s, seed, task) for s in ("train", "val", "test") for seed in (0, 1) for task in (0, 1)
    }
    assert len(found) == 12
    assert uniforms(0, 1).shape == ()
