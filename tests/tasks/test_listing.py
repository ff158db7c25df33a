"""What a folder holds and is not read is told, with the reason, and nothing in it stops anyone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from quickstudy.core import DataError
from quickstudy.tasks.folders import pool_from_folder, read_folder, split_folders
from quickstudy.tasks.labelled import read_examples, read_inputs
from quickstudy.tasks.listing import folder_contents, not_read

READ = ("koala/0.png", "koala/1.JPG", "okapi/0.JpEg", "okapi/deep/1.png")


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 6), value).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "zoo"
    for number, name in enumerate(
        ("koala/0.png", "koala/1.JPG", "okapi/0.JpEg", "okapi/deep/1.png")
    ):
        picture(root / name, 50 * number)
    return root


def litter(root: Path) -> dict[str, str]:
    """Put into a folder what people's folders hold, and return a word of each reason by name."""
    for name in ("koala/x.heic", "koala/x.svg", "okapi/notes.txt", "Thumbs.db", "raw.CR2", "plain"):
        (root / name).write_bytes(b"x")
    for name in (".DS_Store", "koala/._0.png", ".git/x.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    picture(root / "__MACOSX" / "koala" / "0.png")
    (root / "koala" / "empty.png").touch()
    (root / "koala" / "page.jpg").write_text("<html>")
    os.mkfifo(root / "okapi" / "pipe.png")
    for name, target in (
        ("okapi/gone.png", "nowhere.png"),
        ("okapi/self.png", "self.png"),
        ("selfdir", "selfdir"),
        ("up", "."),
        ("okapi/root", "/"),
    ):
        (root / name).symlink_to(target)
    return {
        **dict.fromkeys(
            ("koala/x.heic", "koala/x.svg", "okapi/notes.txt", "Thumbs.db", "raw.CR2", "plain"),
            "not an image format",
        ),
        **dict.fromkeys((".DS_Store", "koala/._0.png", ".git"), "hidden"),
        "__MACOSX": "macOS",
        "koala/empty.png": "empty",
        "koala/page.jpg": "damaged",
        "okapi/pipe.png": "a pipe",
        **dict.fromkeys(("okapi/gone.png", "okapi/self.png", "selfdir"), "leads nowhere"),
        **dict.fromkeys(("up", "okapi/root"), "circle"),
    }


def test_everything_is_read_or_told(folder: Path):
    wanted = litter(folder)
    contents = folder_contents(folder)
    assert contents.images == READ
    found = {**contents.others, **contents.damaged}
    assert {name: wanted[name] in reason for name, reason in found.items()} == dict.fromkeys(
        wanted, True
    )
    assert contents.damaged.keys() == {"koala/empty.png", "koala/page.jpg"}
    assert contents.empty == ()
    note = contents.note()
    assert note.startswith(f"{len(wanted)} files were not read: ")
    assert "1 .heic" in note or "others (not an image format that is read)" in note
    assert max(map(len, note.split(";"))) < 200


def test_the_sentence():
    reasons = {"a/x.heic": "no format", "a/y.HEIC": "no format", "b.txt": "no format"}
    assert not_read({}) == ""
    assert not_read(reasons) == (
        "3 files were not read: 2 .heic, 1 .txt (no format: a/x.heic, a/y.HEIC, b.txt)."
    )
    assert not_read({"a.png": "empty"}) == "1 file was not read: 1 .png (empty: a.png)."
    # a thousand reasons and names of any length stay one sentence
    many = {f"{'long' * 99}{i}.png": f"reason {i}" for i in range(1000)}
    assert len(not_read(many)) < 800
    assert "992 for other reasons" in not_read(many)


def test_all_readers_tell_the_same(folder: Path):
    note = folder_contents(folder).note()
    assert note == ""
    litter(folder)
    note = folder_contents(folder).note()
    heard: list[str] = []
    pool = pool_from_folder(folder, size=6, on_error="skip", say=heard.append)
    assert heard == [f"note: {note}"]
    assert read_folder(folder, size=6, name="zoo").note == note
    read = read_examples(folder)
    assert read.note == note
    assert len(read.x) == len(pool.y) == len(READ)
    # damaged images are inputs all the same: each gets an answer or a reason
    inputs = read_inputs([folder])
    assert len(inputs.x) == len(READ) + 2
    assert note.split(" were")[0] == "18 files"
    assert "16 files were not read" in inputs.note


def test_loose_images_are_told_where_classes_are_wanted(folder: Path):
    picture(folder / "loose.png")
    assert "1 .png (in no class folder: loose.png)" in read_examples(folder).note
    assert "in no class folder" in read_folder(folder, size=6, name="zoo").note
    assert read_inputs([folder]).note == ""
    assert len(read_inputs([folder]).x) == 5


def test_a_class_of_nothing_but_what_is_not_read_says_why(folder: Path):
    (folder / "zebra").mkdir()
    (folder / "zebra" / "1.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"zebra: there are no images.*1 \.heic \(not an image"):
        read_examples(folder)
    (folder / "zebra" / "1.heic").rename(folder / "zebra" / "1.png")
    with pytest.raises(DataError, match=r"zebra: there are no images.*damaged"):
        read_examples(folder)


def test_a_damaged_image_is_told_by_the_pools_too(folder: Path):
    (folder / "koala" / "cut.png").write_bytes((folder / "koala" / "0.png").read_bytes()[:42])
    heard: list[str] = []
    pool_from_folder(folder, size=6, on_error="skip", say=heard.append)
    assert "koala/cut.png" in heard[0]
    reading = read_folder(folder, size=6, name="zoo")
    assert reading.unreadable == ("koala/cut.png",)
    assert "cut.png" in reading.note
    assert reading.passed_over_note == ""


def test_a_name_that_is_not_utf8_is_read_and_shown_escaped(tmp_path: Path):
    for name in (b"caf\xe9/0.png", b"caf\xe9/1.png", b"tea/0.png", b"tea/1.png"):
        picture(tmp_path / "in" / os.fsdecode(name))
    (tmp_path / "in" / os.fsdecode(b"caf\xe9/\xff.heic")).write_bytes(b"x")
    read = read_examples(tmp_path / "in")
    pool = pool_from_folder(tmp_path / "in", size=6)
    assert set(read.y or []) == set(pool.class_names) == {"caf\\xe9", "tea"}
    for text in (*read.names, read.note, *read_folder(tmp_path / "in", size=6, name="in").files):
        text.encode()
    assert all(Path(value).exists() for value in read.x)


def closed(path: object) -> object:
    raise PermissionError(13, "Permission denied")


def test_a_closed_folder_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch):
    usual = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return usual(path)

    monkeypatch.setattr(os, "scandir", scandir)
    contents = folder_contents(folder)
    assert contents.others == {"okapi/deep": "no permission to read"}
    monkeypatch.setattr(
        os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "no"))
    )
    with pytest.raises(DataError, match="cannot be listed"):
        folder_contents(folder)


def test_a_socket_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        assert folder_contents(tmp_path).others == {"s.png": "a socket, not a file"}


def test_a_link_to_itself_among_the_parts(folder: Path):
    for name in ("train", "test"):
        (folder / name).symlink_to(name)
    assert split_folders(folder) == {}
