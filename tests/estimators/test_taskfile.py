"""A task file is whole or refused."""

import json
import multiprocessing
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.core import CheckpointError
from quickstudy.estimators.taskfile import (
    FORMAT,
    TaskFile,
    label_from_json,
    label_to_json,
    read_task,
    write_task,
)


def example(value: float = 1.0) -> TaskFile:
    return TaskFile(
        {"classes": [["str", "okapi"]], "value": value},
        {"z": torch.full((300, 40), value), "y": torch.zeros(300, dtype=torch.int64)},
        {"mean": torch.zeros(40)},
        {0: b"\x89PNG not really"},
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_task(tmp_path / "zoo.task", example())
    return tmp_path / "zoo.task"


def test_a_task_comes_back_exactly(saved: Path):
    task = read_task(saved)
    assert task.about == example().about
    assert torch.equal(task.support["z"], example().support["z"])
    assert torch.equal(task.prior["mean"], torch.zeros(40))
    assert task.previews == {0: b"\x89PNG not really"}


def test_the_same_task_is_the_same_bytes(saved: Path, tmp_path: Path):
    write_task(tmp_path / "again.task", example())
    assert (tmp_path / "again.task").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("label", ["okapi", "", 3, -1, 2.5, True, "ä\n😀"])
def test_labels_keep_their_type(label: object):
    back = label_from_json(json.loads(json.dumps(label_to_json(label))))
    assert back == label
    assert type(back) is type(label)


def test_numpy_labels_are_plain_ones():
    assert label_to_json(np.int64(3)) == ["int", 3]
    assert label_to_json(np.str_("a")) == ["str", "a"]


def test_a_label_that_no_file_holds_is_refused():
    with pytest.raises(CheckpointError, match="tuple"):
        label_to_json((1, 2))


def test_every_flipped_byte_of_the_contents_is_noticed(saved: Path, tmp_path: Path):
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        entries = {e.filename: e for e in archive.infolist()}
    at = entries["support.safetensors"].header_offset + 30 + len("support.safetensors")
    for step in range(0, entries["support.safetensors"].file_size, 1009):
        altered = bytearray(data)
        altered[at + step] ^= 1
        (tmp_path / "altered.task").write_bytes(altered)
        with pytest.raises(CheckpointError, match=r"altered\.task"):
            read_task(tmp_path / "altered.task")


def test_a_member_replaced_with_a_good_checksum_of_zip_is_noticed(saved: Path, tmp_path: Path):
    other = tmp_path / "other.task"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(other, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename == "task.json":
                data = data.replace(b"okapi", b"zebra")
            new.writestr(entry.filename, data)
    with pytest.raises(CheckpointError, match=r"altered.*task\.json.*sha256"):
        read_task(other)


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(saved: Path, part: float):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(part * len(data))])
    with pytest.raises(CheckpointError, match="damaged"):
        read_task(saved)


def test_a_newer_format_is_refused_with_its_version(saved: Path, tmp_path: Path):
    newer = tmp_path / "newer.task"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(newer, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename == "manifest.json":
                manifest = json.loads(data) | {"format": FORMAT + 1, "quickstudy": "9.9"}
                data = json.dumps(manifest).encode()
            new.writestr(entry.filename, data)
    with pytest.raises(CheckpointError, match=r"9\.9.*Upgrade"):
        read_task(newer)


def test_foreign_files_are_refused(tmp_path: Path):
    plain = tmp_path / "plain.task"
    plain.write_text("not a zip")
    with pytest.raises(CheckpointError, match="not a task file"):
        read_task(plain)
    foreign = tmp_path / "foreign.task"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        read_task(foreign)
    bomb = tmp_path / "bomb.task"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"0" * 50_000_000)
    with pytest.raises(CheckpointError, match="compressed"):
        read_task(bomb)
    with pytest.raises(CheckpointError, match="quickstudy fit"):
        read_task(tmp_path / "none.task")
    with pytest.raises(CheckpointError):
        read_task(tmp_path)


def _save_often(path: Path, value: float) -> None:
    for _ in range(25):
        write_task(path, example(value))


def test_of_two_processes_that_save_at_once_one_wins_whole(tmp_path: Path):
    path = tmp_path / "zoo.task"
    write_task(path, example())
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_save_often, args=(path, float(v))) for v in (2, 3)]
    for worker in workers:
        worker.start()
    seen = set()
    while any(worker.is_alive() for worker in workers):
        task = read_task(path)
        assert torch.equal(task.support["z"], torch.full((300, 40), task.about["value"]))
        seen.add(task.about["value"])
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert read_task(path).about["value"] in (2.0, 3.0)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_full_disk_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch):
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="free some space"):
        write_task(saved, example(5))
    assert saved.read_bytes() == before
    assert not list(saved.parent.glob("*.tmp"))


def test_it_can_be_copied_and_renamed(saved: Path, tmp_path: Path):
    shutil.copy(saved, tmp_path / "copy.zip")
    assert read_task(tmp_path / "copy.zip").about == example().about


@pytest.mark.parametrize("where", ["before", "after"])
def test_bytes_beside_the_members_are_refused(saved: Path, tmp_path: Path, where: str):
    other, data = tmp_path / "other.task", saved.read_bytes()
    other.write_bytes(b"#!/bin/sh" + data if where == "before" else data + b"more")
    with pytest.raises(CheckpointError, match="damaged or not a task file"):
        read_task(other)
