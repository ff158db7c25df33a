"""What a user has on disk becomes examples, or an error that names the row."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from quickstudy.cli.rows import write_columns
from quickstudy.core import ConfigError, DataError
from quickstudy.estimators import FewShotClassifier
from quickstudy.tasks.labelled import read_examples, read_inputs
from quickstudy.tasks.roles import Roles


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (200, 10, 10)).save(path)
    return path


def test_class_folders(tmp_path: Path):
    for name in ("zebra/1.png", "okapi/b.png", "okapi/deep/a.jpg"):
        picture(tmp_path / name)
    (tmp_path / "okapi" / "notes.txt").write_text("not an image")
    read = read_examples(tmp_path)
    assert read.kind == "image"
    assert read.y == ["okapi", "okapi", "zebra"]
    assert [Path(p).name for p in read.x] == ["b.png", "a.jpg", "1.png"]


def test_images_outside_of_a_class_folder_are_told_and_alone_an_error(tmp_path: Path):
    picture(tmp_path / "loose.png")
    with pytest.raises(DataError, match=r"loose\.png lies outside"):
        read_examples(tmp_path)
    picture(tmp_path / "okapi" / "1.png")
    read = read_examples(tmp_path)
    assert len(read.x) == 1
    assert read.note == "1 file was not read: 1 .png (in no class folder: loose.png)."
    picture(tmp_path / "two" / "okapi" / "1.png")
    (tmp_path / "two" / "zebra").mkdir()
    with pytest.raises(DataError, match="zebra: there are no images in this class"):
        read_examples(tmp_path / "two")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        read_examples(tmp_path / "empty")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_of_texts(tmp_path: Path, ending: str):
    rows = [{"text": "pay, my\n bill", "label": "bill"}, {"text": "Karte weg 😀", "label": "card"}]
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        path.write_text('text,label\n"pay, my\n bill",bill\nKarte weg 😀,card\n')
    elif ending == "tsv":
        path.write_text('text\tlabel\n"pay, my\n bill"\tbill\nKarte weg 😀\tcard\n')
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    read = read_examples(path)
    assert read.kind == "text"
    assert read.x == [row["text"] for row in rows]
    assert read.y == ["bill", "card"]
    # as an editor counts: a cell of two lines takes two
    first, second = {"jsonl": (1, 2), "parquet": (0, 1)}.get(ending, (2, 4))
    unit = "row" if ending == "parquet" else "line"
    assert read.names == [f"t.{ending}, {unit} {first}", f"t.{ending}, {unit} {second}"]


def test_paths_in_a_table_are_relative_to_it(tmp_path: Path):
    picture(tmp_path / "pictures" / "1.png")
    (tmp_path / "list.csv").write_text("path,label\npictures/1.png,okapi\n")
    read = read_examples(tmp_path / "list.csv")
    assert read.kind == "image"
    assert read.x == [str(tmp_path / "pictures" / "1.png")]


def test_images_as_the_hub_stores_them(tmp_path: Path):
    data = picture(tmp_path / "1.png").read_bytes()
    rows = [{"image": {"bytes": data, "path": "1.png"}, "label": 3}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "i.parquet")
    read = read_examples(tmp_path / "i.parquet")
    assert read.x == [data]
    assert read.y == [3]


def test_numbers_are_a_table(tmp_path: Path):
    (tmp_path / "n.csv").write_text("a,b,target\n1,2.5,x\n3,4.5,y\n")
    read = read_examples(tmp_path / "n.csv")
    assert read.kind == "table"
    assert read.x.values() == {"a": [1, 3], "b": [2.5, 4.5]}
    assert read.table.columns["b"] == ["2.5", "4.5"]
    assert read.table.lines == [2, 3]
    assert read.y == ["x", "y"]


def test_columns_are_known_by_their_names(tmp_path: Path):
    """In whatever order a later table has them; a missing one is named; words are categories."""
    rows = "".join(
        f"{i % 2 * 5 + i / 9},{i % 3},{'red' if i % 2 else 'blue'},{i}\n" for i in range(12)
    )
    (tmp_path / "a.csv").write_text("size,noise,colour,\n" + rows)
    y = ["low", "high"] * 6
    clf = FewShotClassifier("table").fit(read_inputs([tmp_path / "a.csv"]).x, y)
    assert [c.name for c in clf.embedder_.columns] == ["size", "noise", "colour"]
    turned = [",".join(line.split(",")[::-1][1:]) for line in rows.splitlines()]
    (tmp_path / "b.csv").write_text("colour,noise,size\n" + "\n".join(turned))
    assert clf.predict(read_inputs([tmp_path / "b.csv"]).x).tolist() == y
    (tmp_path / "c.csv").write_text("colour,noise,length\n" + "\n".join(turned))
    with pytest.raises(DataError, match="'size'"):
        clf.predict(read_inputs([tmp_path / "c.csv"]).x)
    (tmp_path / "d.csv").write_text("size,noise,colour\n1,,red\n")
    roles = Roles("table", ("size", "noise", "colour"))
    with pytest.raises(DataError, match=r"d\.csv, line 2, column 'noise': the value is missing"):
        clf.predict(read_inputs([tmp_path / "d.csv"], roles=roles).x)


def test_labels_and_texts_are_as_they_are_written(tmp_path: Path):
    (tmp_path / "a.csv").write_text("text,label\n12,007\n13,7\n14,1.0\n")
    read = read_examples(tmp_path / "a.csv")
    assert read.y == ["007", "7", "1.0"]
    assert read.x == ["12", "13", "14"]


def test_faults_are_named(tmp_path: Path):
    (tmp_path / "a.csv").write_text("a,b,target\nblue,red,x\n")
    with pytest.raises(DataError, match="it has 'a', 'b'"):
        read_examples(tmp_path / "a.csv")
    (tmp_path / "g.csv").write_text("text,label\nhello,a\nagain,\n")
    with pytest.raises(DataError, match="line 3: there is no label"):
        read_examples(tmp_path / "g.csv")
    (tmp_path / "b.csv").write_text("text\nhello\n")
    with pytest.raises(ConfigError, match="Name the column of labels"):
        read_examples(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("text,label\nhello,a\n")
    with pytest.raises(ConfigError, match=r"'lable'.*'label'"):
        read_examples(tmp_path / "c.csv", label="lable")
    (tmp_path / "d.csv").write_text("text,label\n")
    with pytest.raises(DataError, match="no rows"):
        read_examples(tmp_path / "d.csv")
    with pytest.raises(DataError, match="no such file"):
        read_examples(tmp_path / "none.csv")
    (tmp_path / "e.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_examples(tmp_path / "e.parquet")
    (tmp_path / "f.csv").write_text("path,label\n,a\n")
    with pytest.raises(DataError, match="line 2: the path in 'path' is empty"):
        read_examples(tmp_path / "f.csv")
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for read in (read_examples, lambda path, label: read_inputs([path], label=label)):
        with pytest.raises(ConfigError, match="'kind' names a column"):
            read(tmp_path / "photos", label="kind")
    with pytest.raises(ConfigError, match="alone"):
        read_inputs([tmp_path / "a.csv", tmp_path / "b.csv"])
    with pytest.raises(ConfigError, match="at least one"):
        read_inputs([])


def write_rows(path: Path, rows: list[dict]) -> None:
    write_columns(path, {name: [row[name] for row in rows] for name in rows[0]})


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_only_the_training_rows_are_learned_from(tmp_path, ending):
    parts = ["Train", "test", "training", "VAL", "train "]
    rows = [
        {"a": float(i), "b": 2.0 * i, "label": "xy"[i % 2], "Split": part}
        for i, part in enumerate(parts)
    ]
    path = tmp_path / f"rows.{ending}"
    write_rows(path, rows)
    read = read_examples(path)
    assert read.x.column_names == ["a", "b"]
    assert read.x.values()["a"] == [0.0, 2.0, 4.0]
    assert read.y == ["x", "x", "x"]
    unit, first = {"csv": ("line", 2), "jsonl": ("line", 1), "parquet": ("row", 0)}[ending]
    assert read.names == [f"rows.{ending}, {unit} {first + i}" for i in (0, 2, 4)]
    assert "3 rows 'train' were read, and none of the other 2" in read.note
    # to classify, every row counts, and the column is no input either
    assert len(read_inputs([path]).names) == 5
    assert read_inputs([path]).x.column_names == ["a", "b"]


@pytest.mark.parametrize("parts", [["test", "val"], ["a", "b"], [1, 2]])
def test_a_split_without_rows_to_learn_from_is_an_error(tmp_path, parts):
    rows = [{"text": f"word {i}", "label": "x", "split": parts[i % 2]} for i in range(6)]
    write_rows(tmp_path / "t.jsonl", rows)
    with pytest.raises(DataError, match="no row is 'train'"):
        read_examples(tmp_path / "t.jsonl")


def test_a_table_of_one_part_is_read_whole_and_says_so(tmp_path):
    rows = [{"text": f"word {i}", "label": "x", "split": "test"} for i in range(6)]
    write_rows(tmp_path / "t.jsonl", rows)
    read = read_examples(tmp_path / "t.jsonl")
    assert len(read.x) == 6
    assert "Every row is 'test'" in read.note


def test_of_folders_train_and_test_the_first_is_read(tmp_path):
    for part, classes in (("Train", "ab"), ("test", "cd")):
        for name in classes:
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            Image.new("L", (8, 8)).save(folder / "0.png")
    read = read_examples(tmp_path)
    assert read.y == ["a", "b"]
    assert "Train was read, and not test/" in read.note
    (tmp_path / "Train").rename(tmp_path / "val")
    with pytest.raises(DataError, match="not one folder train/"):
        read_examples(tmp_path)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_cell_may_be_a_long_document(tmp_path, ending):
    rows = [{"text": "word " * 400_000, "label": name} for name in "xy"]
    write_rows(tmp_path / f"long.{ending}", rows)
    assert [len(text) for text in read_examples(tmp_path / f"long.{ending}").x] == [2_000_000] * 2


def test_other_tables_are_named_with_those_that_are_read(tmp_path):
    (tmp_path / "book.ods").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"\.ods is not read. Save the table as one of \.csv"):
        read_examples(tmp_path / "book.ods")
