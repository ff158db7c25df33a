"""What each column is taken for: one rule, whatever the columns are called."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quickstudy.core import ConfigError, DataError
from quickstudy.tables import read_table
from quickstudy.tasks.labelled import read_examples, read_inputs
from quickstudy.tasks.roles import LABEL_COLUMNS, Roles, find_label, find_roles

N = 12
SPECIAL = [
    "y",
    "target",
    "class",
    "category",
    "intent",
    "text",
    "title",
    "content",
    "question",
    "path",
    "image",
    "file",
    "height",
]


def columns(**more: Any) -> dict[str, list[Any]]:
    draw = random.Random(0)
    found = {"x": [round(draw.gauss(0, 1), 3) for _ in range(N)], **more}
    return {**found, "label": ["ab"[i % 2] for i in range(N)]}


def roles_of(cells: dict[str, list[Any]], **kwargs: Any) -> Roles:
    return find_roles(read_table(cells), **{"label": "label", **kwargs})


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl", "memory"])
@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("values", ["numbers", "categories"])
def test_a_feature_is_an_input_whatever_its_name(name, values, form, tmp_path):
    feature = [float(i % 3) if values == "numbers" else "pqr"[i % 3] for i in range(N)]
    cells = columns(**{name: feature})
    table = pa.table(cells)
    path: Any = tmp_path / f"t.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "memory":
        path = cells
    else:
        frame = table.to_pandas()
        if form == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_json(path, orient="records", lines=True)
    read = read_examples(path)
    assert read.kind == "table"
    assert read.roles is not None
    assert (read.roles.label, read.roles.inputs) == ("label", ("x", name))
    assert read.x.names == ("x", name)
    # asked about later, the column has the role it was learned in
    later = read_inputs([path], roles=read.roles)
    assert (later.x.names, later.y) == (("x", name), read.y)
    cells.pop("label")
    alone = read_inputs([cells], roles=read.roles)
    assert (alone.x.names, alone.y) == (("x", name), None)


@pytest.mark.parametrize("first", LABEL_COLUMNS)
def test_the_first_usual_name_is_the_label_and_others_are_inputs(first):
    names = LABEL_COLUMNS[LABEL_COLUMNS.index(first) :]
    table = read_table({name: [f"{name}{i % 2}" for i in range(N)] for name in names[::-1]})
    assert find_label(table, None) == first
    if len(names) > 1:
        roles = find_roles(table, label=first)
        assert set(roles.inputs) == set(names) - {first}
        assert f"label: column '{first}'" in roles.text()


def test_the_label_that_is_named_comes_first():
    cells = columns(y=list(range(N)))
    assert find_label(read_table(cells), "y") == "y"
    assert find_label(read_table(cells), "Y") == "y"
    assert find_label(read_table({"Label": ["a"], "b": [1]}), None) == "Label"
    assert find_label(read_table({"a": [1]}), None) is None
    with pytest.raises(ConfigError, match=r"no column 'lable'.*'label'"):
        find_label(read_table(cells), "lable")


SENTENCES = [f"some words about number {i}" for i in range(N)]


@pytest.mark.parametrize(
    ("cells", "kind", "inputs", "left_out"),
    [
        ({"text": SENTENCES}, "text", ("text",), ()),
        ({"review": SENTENCES}, "text", ("review",), ()),
        ({"review": SENTENCES, "id": list(range(N))}, "text", ("review",), ("id",)),
        ({"text": SENTENCES, "likes": [3.5] * N}, "text", ("text",), ("likes",)),
        ({"review": SENTENCES, "likes": [3.5] * N}, "table", ("likes",), ("review",)),
        ({"title": ["Mr", "Mrs"] * 6, "age": [1.5] * N}, "table", ("title", "age"), ()),
        ({"title": ["Mr", "Mrs"] * 6, "sex": ["m", "f"] * 6}, "table", ("title", "sex"), ()),
        ({"title": SENTENCES, "sex": ["m", "f"] * 6}, "text", ("title",), ("sex",)),
        ({"text": ["hi", "yo"] * 6}, "text", ("text",), ()),
        ({"text": list(range(N))}, "text", ("text",), ()),
        ({"name": [f"n{i}" for i in range(N)]}, "text", ("name",), ()),
        ({"colour": ["red", "blue"] * 6}, "table", ("colour",), ()),
        ({"path": ["a.jpg"] * N, "width": [3] * N}, "image", ("path",), ("width",)),
        ({"img": [{"bytes": b"1", "path": None}] * N}, "image", ("img",), ()),
        ({"customer": [f"c{i}" for i in range(N)], "a": [1.5] * N}, "table", ("a",), ("customer",)),
        ({"customer_id": list(range(N)), "a": [1.5] * N}, "table", ("a",), ("customer_id",)),
        ({"a": list(range(N))}, "table", ("a",), ()),
        ({"": list(range(N)), "a": [1.5] * N}, "table", ("a",), ("",)),
        ({"Unnamed: 0": list(range(N)), "a": [1.5] * N}, "table", ("a",), ("Unnamed: 0",)),
        ({"empty": [None] * N, "a": [1.5] * N}, "table", ("a",), ("empty",)),
        ({"list": [[1]] * N, "a": [1.5] * N}, "table", ("a",), ("list",)),
        ({"split": ["train"] * N, "a": [1.5] * N}, "table", ("a",), ("split",)),
    ],
)
def test_the_rule(cells, kind, inputs, left_out):
    roles = roles_of({**cells, "label": ["ab"[i % 2] for i in range(N)]})
    assert (roles.kind, roles.inputs) == (kind, inputs)
    assert tuple(name for name, _ in roles.left_out) == left_out
    for name in (*inputs, *left_out):
        assert (name or "(no name)") in roles.text()


def test_a_column_that_is_named_is_the_input():
    cells = columns(review=SENTENCES)
    assert roles_of(cells).kind == "table"
    assert roles_of(cells, column="review").kind == "text"
    assert roles_of({**cells, "text": SENTENCES}, column="review").inputs == ("review",)
    with pytest.raises(ConfigError, match="column of labels"):
        roles_of(cells, column="label")
    with pytest.raises(ConfigError, match="no column 'reviews'"):
        roles_of(cells, column="reviews")


def test_two_columns_of_texts_are_a_question():
    cells = {"subject": SENTENCES, "body": SENTENCES[::-1], "label": ["a", "b"] * 6}
    with pytest.raises(DataError, match="Say which column is the input"):
        roles_of(cells)
    assert roles_of(cells, column="body").inputs == ("body",)


def test_one_example_of_each_class_keeps_words_that_never_repeat():
    n = 8
    cells = {
        "size": [1.5] * n,
        "hue": [f"h{i}" for i in range(n)],
        "label": [f"c{i}" for i in range(n)],
    }
    assert roles_of(cells).inputs == ("size", "hue")


def test_a_group_is_no_input():
    assert roles_of(columns(herd=[1, 2] * 6), group="herd").inputs == ("x",)


def test_what_is_said():
    n = 60
    cells = {
        **{name: [1.5 * i for i in range(n)] for name in "abcd"},
        "colour": [("red", "blue", "green")[i % 3] for i in range(n)],
        "when": ["2024-01-01"] * n,
        "id": [f"k{i}" for i in range(n)],
        "species": ["ab"[i % 2] for i in range(n)],
    }
    assert find_roles(read_table(cells), label="species").text() == (
        "label: column 'species'; inputs: 4 numbers (a, b, c, d), 1 category (colour: 3 values), "
        "1 date (when); left out: id (60 different values in 60 rows)"
    )


def test_roles_are_kept():
    roles = roles_of(columns(colour=["red", "blue"] * 6))
    assert Roles.from_dict(roles.to_dict()).inputs == roles.inputs
    for broken in (
        {},
        {"kind": "table", "inputs": "x"},
        {"kind": "sound", "inputs": ["x"]},
        {"kind": "table", "inputs": []},
        {"kind": "table", "inputs": ["x"], "label": 1},
        {"kind": "table", "inputs": ["x"], "label": "x"},
    ):
        with pytest.raises(ConfigError):
            Roles.from_dict(broken)


def test_labels_that_are_not_there(tmp_path):
    rows = columns()
    for missing in (None, "", " ", float("nan")):
        with pytest.raises(DataError, match="row 3: there is no label in 'label'"):
            read_examples({**rows, "label": ["a"] * 3 + [missing] + ["b"] * 8})
    with pytest.raises(DataError, match="row 0: the label in 'label' is a list"):
        read_examples({**rows, "label": [["a", "b"]] * N})
    roles = read_examples(rows).roles
    # a table to be filled in: no labels, no accuracy
    assert read_inputs([{**rows, "label": [None] * N}], roles=roles).y is None
    partly = read_inputs([{**rows, "label": ["a"] * 3 + [None] * 9}], roles=roles)
    assert partly.y == ["a"] * 3 + [None] * 9
    assert "9 of 12 rows have no label" in partly.note


def test_text_columns_by_another_name_are_found():
    roles = read_examples({"review": SENTENCES, "label": ["a", "b"] * 6}).roles
    assert read_inputs([{"comment": SENTENCES}], roles=roles).x == SENTENCES
    with pytest.raises(DataError, match="lacks the column 'review'"):
        read_inputs([{"a": [1.5, 2.5]}], roles=roles)
