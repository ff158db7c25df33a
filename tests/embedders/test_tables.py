"""Tables: scaled by the support set, categories apart, every fault with row and column."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from quickstudy.core import ConfigError, DataError
from quickstudy.embedders.tables import TableEmbedder
from quickstudy.estimators import get_embedder

FRAME = pd.DataFrame(
    {
        "height": [1.0, 2.0, 3.0],
        "legs": [2, 4, 4],
        "tame": [True, False, True],
        "skin": pd.Categorical(["fur", "scales", "fur"]),
        "name": ["a", "b", "c"],
    }
)


def fitted(X) -> TableEmbedder:
    table = get_embedder("table")
    return table.fit(table.read(X))


def test_kinds_of_columns():
    table = fitted(FRAME)
    kinds = {c.name: c.categories for c in table.columns}
    assert kinds == {
        "height": None,
        "legs": None,
        "tame": None,
        "skin": ("fur", "scales"),
        "name": ("a", "b", "c"),
    }
    z = table.embed(table.read(FRAME))
    assert z.shape == (3, table.dim) == (3, 8)
    np.testing.assert_allclose(z[:, :3].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(z[:, :3].std(0), 1, rtol=1e-6)
    np.testing.assert_array_equal(z[:, 3:5], [[1, 0], [0, 1], [1, 0]])


def test_an_array_and_a_frame_of_its_numbers_agree():
    array = np.random.default_rng(0).normal(5, 3, (6, 4))
    frame = pd.DataFrame(array, columns=list("abcd"))
    lists, mixed = array.tolist(), array.astype(object)
    a, *others = (fitted(X) for X in (array, frame, lists, mixed))
    for other in others:
        np.testing.assert_allclose(
            other.embed(other.read(array)), a.embed(a.read(array)), rtol=1e-6, atol=1e-6
        )


def test_columns_are_found_by_name():
    table = fitted(FRAME)
    z = table.embed(table.read(FRAME))
    turned = FRAME[FRAME.columns[::-1]]
    np.testing.assert_array_equal(table.embed(table.read(turned)), z)
    with pytest.raises(DataError, match=r"lacks the column.*'legs'"):
        table.read(FRAME.rename(columns={"legs": "feet"}))
    # an array has no names: by position
    np.testing.assert_array_equal(table.embed(table.read(FRAME.to_numpy())), z)


def test_a_category_never_seen_is_nowhere():
    table = fitted(FRAME[["skin"]])
    z = table.embed(table.read(pd.DataFrame({"skin": ["feathers"]})))
    np.testing.assert_array_equal(z, [[0, 0]])


def test_constant_columns_and_huge_values_stay_finite():
    table = fitted(np.array([[3.3, 1e300, 0.0]] * 7))
    z = table.embed(table.read(np.array([[3.3, -1e300, 1.0], [1e308, 0, 0]])))
    assert np.isfinite(z).all()
    assert z[0, 0] == pytest.approx(0, abs=1e-6)
    assert fitted([[1.0]]).dim == 1


def test_it_is_made_again_from_its_configuration():
    table = fitted(FRAME)
    config = json.loads(json.dumps(table.config()))
    again = get_embedder(config)
    assert again.fingerprint == table.fingerprint != fitted(FRAME[:2]).fingerprint
    np.testing.assert_array_equal(again.embed(again.read(FRAME)), table.embed(table.read(FRAME)))
    config["columns"][0]["mean"] = 9
    with pytest.raises(DataError, match="is not what it was"):
        get_embedder(config)
    del config["columns"][0]["mean"]
    with pytest.raises(DataError, match="damaged"):
        get_embedder(config)


def test_previews_show_the_first_columns():
    table = get_embedder("table")
    (item, *_) = table.read(FRAME)
    assert table.preview(item) == "height=1, legs=2, tame=true, skin=fur, name=a"


@pytest.mark.parametrize(
    ("X", "says"),
    [
        (np.array([[1.0, 2], [3, np.nan]]), r"row 1, column 'x1'.*NaN"),
        (np.array([[1.0, np.inf]]), r"row 0, column 'x1'.*inf"),
        ([[1, "a"], [2, None]], r"row 1, column 'x1'.*NaN"),
        (pd.DataFrame({"a": [1, None]}, index=["p", "q"]), r"row 1 \(q\), column 'a'"),
        (pd.DataFrame({"a": ["x", None]}), r"row 1, column 'a'"),
        (pd.DataFrame({"a": pd.array([1, pd.NA], dtype="Int64")}), r"row 1, column 'a'"),
        (np.array([[{}, 1]], dtype=object), "dict is no number"),
        (np.zeros(3), "Reshape your data"),
        (np.zeros((0, 3)), "0 sample"),
        (np.zeros((3, 0)), "0 feature"),
        (np.zeros((2, 2), complex), "Complex data"),
        ([[1, 2], [3]], "different numbers of columns|no number and no category"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are called 'a'"),
    ],
)
def test_faults_name_row_and_column(X, says):
    with pytest.raises(DataError, match=says):
        get_embedder("table").read(X)


def test_other_columns_than_the_support_set_s():
    table = fitted([[0, 0, 0], [1, 1, 1]])
    with pytest.raises(DataError, match=r"4 features.* expecting 3 features"):
        table.read(np.zeros((1, 4)))
    with pytest.raises(DataError, match="row 0, column 'x1': 'red' is not a number"):
        table.embed(table.read([[1, "red", 2]]))
    loose = get_embedder("table")
    with pytest.raises(DataError, match="expecting 1 features"):
        loose.fit(loose.read([[1.0]]) + loose.read([[1.0, 2.0]]))
    with pytest.raises(ConfigError, match="fit"):
        loose.embed(loose.read([[1.0]]))
    with pytest.raises(DataError, match="no rows"):
        loose.fit([])


def test_dates_are_numbers_of_days():
    days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-11"])
    frame = pd.DataFrame({"when": days, "kind": ["a", "b", "a"]})
    embedder = TableEmbedder()
    fitted = embedder.fit(embedder.read(frame))
    assert fitted.columns[0].categories is None
    assert fitted.columns[0].mean == pytest.approx(19723 + 11 / 3)
    table = pa.Table.from_pandas(frame)
    same = embedder.fit(embedder.read(table))
    assert same.columns == fitted.columns
    alone = frame[["when"]]
    assert embedder.fit(embedder.read(alone)).columns == fitted.columns[:1]
    with pytest.raises(DataError, match=r"row 1.*'when'.*missing"):
        embedder.read(frame.assign(when=[days[0], pd.NaT, days[1]]))


@pytest.mark.parametrize("other", [0.5, "a"])
def test_all_missing_values_are_counted(other):
    rows = [[0.0, other], [np.nan, other], [1.0, None], [np.nan, other]]
    with pytest.raises(DataError, match=r"row 1, column 'x0'.* 3 are missing in all, in 2 columns"):
        TableEmbedder().read(pa.table({"x0": [r[0] for r in rows], "x1": [r[1] for r in rows]}))
