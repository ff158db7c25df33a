"""Parquet files as the Hugging Face Hub stores images, and what can be wrong with them."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from quickstudy.core import DataError
from quickstudy.tasks.parquet import pool_from_parquet


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (4, 4), value).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, labels: list[object], **columns: list[object]) -> Path:
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(len(labels))]
    pq.write_table(pa.table({"image": images, "label": labels, **columns}), path)
    return path


def test_struct_of_bytes_and_text_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "pets.parquet", ["7", "3", "cat", "3"])
    pool = pool_from_parquet(path, size=4, channels=1)
    assert pool.name == "pets"
    assert pool.class_names == ("3", "7", "cat")
    assert pool.x[:, 0, 0, 0].tolist() == [1, 3, 0, 2]


def test_plain_binary_and_whole_numbers(tmp_path: Path) -> None:
    table = pa.table({"image": [png(1), png(2)], "label": pa.array([5, 2], pa.int16())})
    pq.write_table(table, tmp_path / "a.parquet")
    pool = pool_from_parquet(tmp_path / "a.parquet", size=4, channels=1)
    assert pool.class_names == ("2", "5")
    assert pool.x[:, 0, 0, 0].tolist() == [2, 1]


def test_class_label_names(tmp_path: Path) -> None:
    features = {"label": {"names": ["apple", "pear"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for labels in ([1, 0], [1, 2]):
        table = pa.table({"image": [png(1), png(2)], "label": labels})
        path = tmp_path / f"{labels[1]}.parquet"
        pq.write_table(table.replace_schema_metadata(metadata), path)
    pool = pool_from_parquet(tmp_path / "0.parquet", size=4, channels=1)
    assert pool.class_names == ("apple", "pear")
    assert pool.x[:, 0, 0, 0].tolist() == [2, 1]
    with pytest.raises(DataError, match="label 2 has no name"):
        pool_from_parquet(tmp_path / "2.parquet", size=4)


def test_where_and_groups(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.parquet",
        ["a", "a", "b", "b", "c"],
        split=["train", "train", "train", "train", "test"],
        track=[0, 1, 0, 0, 0],
    )
    where = {"split": "train"}
    pool = pool_from_parquet(path, size=4, group=("label", "track"), where=where)
    assert pool.class_names == ("a", "b")
    assert pool.groups is not None
    assert pool.groups.tolist() == [0, 1, 2, 2]
    shared = pool_from_parquet(path, size=4, group="track").groups
    assert shared is not None
    assert shared.tolist() == [0, 1, 0, 0, 0]


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", ["a", "b"], split=["train", "val"])
    with pytest.raises(DataError, match=r"no column 'lable'.*'label'"):
        pool_from_parquet(path, label="lable")
    with pytest.raises(DataError, match=r"no column 'picture'"):
        pool_from_parquet(path, image="picture")
    with pytest.raises(DataError, match=r"split = 'tain'.*'train'"):
        pool_from_parquet(path, where={"split": "tain"})
    with pytest.raises(DataError, match="no such file"):
        pool_from_parquet(tmp_path / "gone.parquet")
    with pytest.raises(DataError, match="row 1: the label is empty"):
        pool_from_parquet(write(tmp_path / "n.parquet", ["a", None]))


def test_damaged_files(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", ["a", "b"])
    data = path.read_bytes()
    for broken in (b"", b"PAR1 not really", data[: len(data) // 2], data[4:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"t\.parquet.*Parquet"):
            pool_from_parquet(path)


def test_damaged_or_missing_image_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    images = [
        {"bytes": png(1), "path": ""},
        {"bytes": b"?", "path": ""},
        {"bytes": png(3), "path": ""},
    ]
    pq.write_table(pa.table({"image": images, "label": ["a", "b", "c"]}), path)
    with pytest.raises(DataError, match="row 1"):
        pool_from_parquet(path, size=4)
    assert pool_from_parquet(path, size=4, on_error="skip").class_names == ("a", "c")
    images[1] = {"bytes": None, "path": "b.png"}
    pq.write_table(pa.table({"image": images, "label": ["a", "b", "c"]}), path)
    with pytest.raises(DataError, match=r"row 1: the image is NoneType"):
        pool_from_parquet(path, size=4)
