"""Class folders and CSV tables, as people have them on their disks."""

from pathlib import Path

import pytest
from PIL import Image

from quickstudy.core import DataError
from quickstudy.tasks.folders import pool_from_csv, pool_from_folder


def put(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 6), value).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for i, animal in enumerate(("cat", "dog")):
        for shot in range(3):
            put(root / animal / f"{shot}.PNG", 100 * i + shot)
    return root


def test_classes_rows_and_name(folder: Path) -> None:
    pool = pool_from_folder(folder, size=6, channels=1)
    assert pool.name == "pets"
    assert pool.class_names == ("cat", "dog")
    assert pool.x[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert pool_from_folder(folder, size=6, channels=1, invert=True).x[0, 0, 0, 0] == 255


def test_nested_and_unusual_names(tmp_path: Path) -> None:
    put(tmp_path / "Greek" / "α 1" / "a.png")
    put(tmp_path / "Greek" / "β" / "b.png")
    put(tmp_path / "Latin" / '#1, "x"' / "c.png")
    pool = pool_from_folder(tmp_path, size=6, channels=3)
    assert set(pool.class_names) == {"Greek/α 1", "Greek/β", 'Latin/#1, "x"'}


def test_litter_is_ignored(folder: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._0.png", ".hidden.png"):
        (folder / "cat" / name).write_bytes(b"litter")
    (folder / ".git").mkdir()
    put(folder / ".git" / "x.png")
    put(folder / "__MACOSX" / "x.png")
    assert pool_from_folder(folder, size=6).counts.tolist() == [3, 3]


def test_link_loops_end(folder: Path) -> None:
    (folder / "cat" / "again").symlink_to(folder, target_is_directory=True)
    (folder / "dog" / "root").symlink_to("/", target_is_directory=True)
    (folder / "dog" / "broken.png").symlink_to(folder / "nowhere.png")
    assert pool_from_folder(folder, size=6).counts.tolist() == [3, 3]


def test_min_per_class_leaves_small_classes_out(folder: Path) -> None:
    put(folder / "koala" / "0.png")
    assert pool_from_folder(folder, size=6, min_per_class=2).class_names == ("cat", "dog")
    with pytest.raises(DataError, match="min_per_class"):
        pool_from_folder(folder, size=6, min_per_class=4)


def test_errors_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        pool_from_folder(tmp_path / "gone")
    with pytest.raises(DataError, match="is a file"):
        pool_from_folder(folder / "cat" / "0.PNG")
    (tmp_path / "bare" / "a").mkdir(parents=True)
    (tmp_path / "bare" / "a" / "x.txt").touch()
    with pytest.raises(DataError, match=r"no images.*1 other file"):
        pool_from_folder(tmp_path / "bare")
    put(tmp_path / "one" / "only" / "a.png")
    with pytest.raises(DataError, match="a folder with one class"):
        pool_from_folder(tmp_path / "one")
    put(folder / "loose.png")
    with pytest.raises(DataError, match=r"no class folder.*loose\.png"):
        pool_from_folder(folder)


def test_unreadable_image_is_named_or_skipped(folder: Path) -> None:
    (folder / "dog" / "bad.jpg").write_bytes(b"\xff\xd8 broken")
    with pytest.raises(DataError, match=r"dog.bad\.jpg"):
        pool_from_folder(folder, size=6)
    assert pool_from_folder(folder, size=6, on_error="skip").counts.tolist() == [3, 3]


def test_skipping_counts_towards_min_per_class(folder: Path) -> None:
    put(folder / "eel" / "0.png")
    (folder / "eel" / "1.png").write_bytes(b"?")
    pool = pool_from_folder(folder, size=6, on_error="skip", min_per_class=2)
    assert pool.class_names == ("cat", "dog")


def test_csv_as_miniimagenet_is_published(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / "images" / f"n{i}.jpg")
    rows = "".join(f"n{i}.jpg,class{i % 2}\n" for i in range(4))
    (tmp_path / "train.csv").write_text("\ufefffilename,label\n" + rows, encoding="utf-8")
    pool = pool_from_csv(tmp_path, "train.csv", size=6, split="train")
    assert pool.class_names == ("class0", "class1")
    assert pool.split == "train"
    assert pool.counts.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,x\n", "no column 'filename'.*'file'"),
        ("filename,label\n../a.png,x\n", "line 2.*not a path below"),
        ("filename,label\n/etc/passwd,x\n", "not a path below"),
        ("filename,label\na.png,\n", "label is empty"),
        ("filename,label\n", "no rows"),
        ("filename,label\ngone.png,x\ngone.png,y\n", r"gone\.png.*no such file"),
    ],
)
def test_csv_errors(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        pool_from_csv(tmp_path, tmp_path / "t.csv", size=6)
