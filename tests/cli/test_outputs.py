"""No command writes over a file that is not its own: neither an input nor anything else."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import typing
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

import quickstudy.storage.files
from quickstudy.cli import app, main
from quickstudy.core import CheckpointError, ConfigError, QuickstudyError
from quickstudy.estimators import FewShotClassifier
from quickstudy.estimators.files import fit_files
from quickstudy.storage import outputs
from quickstudy.storage.outputs import check_output, check_output_folder

COMPATIBILITY = Path(__file__).parents[1] / "compatibility"

# command and option -> the words of a call, where "{out}" is the output, "{in}" an input and
# "{task}" a task that may be changed
OUTPUTS = {
    "demo --out": ["demo", "--out", "{out}"],
    "train --out": ["train", "glyphs-protonet", "--out", "{out}"],
    "check --html": ["check", "{in}", "--html", "{out}"],
    "advise --html": ["advise", "{in}", "--html", "{out}"],
    "compare --out": ["compare", "{in}", "--data", "digits", "--out", "{out}"],
    "fit --out": ["fit", "{in}", "--out", "{out}"],
    "predict --out": ["predict", "{in}", "{in}", "--out", "{out}"],
    "show --out": ["show", "{in}", "--out", "{out}"],
    "export --out": ["export", "{in}", "--out", "{out}"],
    "add --out": ["add", "{task}", "{in}", "--class", "c", "--out", "{out}"],
    "remove --out": ["remove", "{task}", "--class", "c", "--out", "{out}"],
    "relabel --out": ["relabel", "{task}", "3", "c", "--out", "{out}"],
    "rename --out": ["rename", "{task}", "c", "d", "--out", "{out}"],
    "correct --out": ["correct", "{task}", "{in}", "--out", "{out}"],
    "undo --out": ["undo", "{task}", "--out", "{out}"],
    "episodes write --out": ["episodes", "write", "--data", "{in}", "--out", "{out}"],
}
INPUTS = {
    "compare --features",
    "diversity --run",
    "evaluate --tasks",
}
FOLDERS = ("train --out", "compare --out")


def commands(
    group: typer.Typer = app, before: str = ""
) -> Iterator[tuple[str, Callable[..., Any]]]:
    for one in group.registered_commands:
        assert one.callback is not None
        yield f"{before}{one.name or one.callback.__name__}", one.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{before}{inner.name} ")


def path_options() -> Iterator[str]:
    """Yield every option of every command that is a path."""
    for name, callback in commands():
        hints = typing.get_type_hints(callback, include_extras=True)
        for parameter, hint in hints.items():
            option = next(
                (m for m in getattr(hint, "__metadata__", ()) if "Option" in type(m).__name__), None
            )
            # 'train --out' is a text, so that an empty one is no folder
            names_path = "Path" in str(typing.get_args(hint)[:1]) or parameter == "out"
            if option is None or not names_path:
                continue
            # inside Annotated, Typer takes the first name for the default
            named = [option.default, *(option.param_decls or ())]
            declared = [str(d) for d in named if str(d).startswith("--")]
            yield f"{name} {declared[0] if declared else '--' + parameter.replace('_', '-')}"


def test_every_path_of_every_command_is_an_input_or_tested_here() -> None:
    assert set(path_options()) == set(OUTPUTS) | INPUTS


def photo(path: Path) -> None:
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(path, "PNG")


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("manifest.json", '{"kind": "holiday"}')


FOREIGN: dict[str, Callable[[Path], object]] = {
    "photo.jpg": photo,
    "mine.csv": lambda path: path.write_text("a,b,label\n1,2,x\n"),
    "mine.jsonl": lambda path: path.write_text('{"label": "x"}\n'),
    "mine.html": lambda path: path.write_text("<!doctype html><title>My thesis</title>"),
    "mine.task": archive,
    "mine.onnx": lambda path: path.write_bytes(b"\x08\x07\x12\x07pytorch"),
    "mine.npz": lambda path: np.savez(path, a=np.arange(3)),
    "mine.py": lambda path: path.write_text("print('quickstudy task made_by quickstudy ')\n"),
    "no ending": lambda path: path.write_bytes(b"\xff\xfe\x00"),
}


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def call(option: str, given: Path, out: Path) -> int:
    return run(
        *(word.replace("{in}", str(given)).replace("{out}", str(out)) for word in OUTPUTS[option])
    )


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "i.csv"
    rows = [f"{i % 2 * 9 + i / 10},{i / 7},{'ab'[i % 2]}" for i in range(12)]
    path.write_text("\n".join(["width,height,label", *rows]) + "\n")
    return path


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("option", OUTPUTS)
def test_the_files_of_others_stay(
    option: str, name: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FOREIGN[name](tmp_path / name)
    before = snapshot(tmp_path)
    assert call(option, table, tmp_path / name) == 2
    assert snapshot(tmp_path) == before
    assert option.split()[-1] in capsys.readouterr().err


@pytest.mark.parametrize("way", ["itself", "link", "hard link", "other words", "loop", "nowhere"])
@pytest.mark.parametrize("option", [o for o in OUTPUTS if "{in}" in OUTPUTS[o]])
def test_an_output_is_never_an_input(option: str, way: str, table: Path, tmp_path: Path) -> None:
    given, out = table, tmp_path / ("out" + ".csv" * (option == "predict --out"))
    if option.startswith(("show", "export", "predict")):  # an input that the command could write
        given = tmp_path / "t.task"
        shutil.copy(COMPATIBILITY / "tasks" / "numbers.task", given)
    if way == "itself":
        out = given
    elif way == "link":
        out.symlink_to(given)
    elif way == "hard link":
        out.hardlink_to(given)
    elif way == "other words":
        (tmp_path / "sub").mkdir()
        out = tmp_path / "sub" / ".." / given.name
    elif way == "loop":
        out.symlink_to(out)
    else:
        out.symlink_to(tmp_path / "nothing")
    before = snapshot(tmp_path)
    assert call(option, given, out) == 2
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("option", FOLDERS)
def test_a_folder_of_photos_takes_no_run(option: str, table: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "cat").mkdir(parents=True)
    photo(photos / "cat" / "1.jpg")
    before = snapshot(tmp_path)
    assert call(option, table, photos) == 2
    assert call(option, table, photos / "cat") == 2
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("option", [o for o in OUTPUTS if o not in FOLDERS])
def test_a_class_folder_takes_no_file(option: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
        photo(photos / name / "1.jpg")
    before = snapshot(tmp_path)
    ending = ".csv" if option == "predict --out" else ""
    if "{in}" in OUTPUTS[option]:
        assert call(option, photos, photos / "cat" / f"new{ending}") == 2
    assert call(option, photos, photos / "cat") == 2
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("option", OUTPUTS)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    option: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", full)
    ending = ".csv" if option == "predict --out" else ""
    assert call(option, table, tmp_path / "deep" / f"new{ending}") == 2
    assert call(option, table, table / f"inside{ending}") == 2  # a file is no folder
    assert call(option, table, tmp_path / ("n" * 300 + ending)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["i.csv"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_neither_read_nor_replaced(table: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert run("fit", table, "--out", pipe) == 2
    with pytest.raises(CheckpointError, match="no ordinary file"):
        quickstudy.storage.files.write_atomically(pipe, b"")
    assert pipe.is_fifo()


def test_what_a_command_wrote_it_may_replace(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, page, answers = tmp_path / "t.task", tmp_path / "t.html", tmp_path / "a"
    for _ in range(2):
        assert run("fit", table, "--out", task) == 0, capsys.readouterr().err
        assert run("show", task, "--out", page) == 0
        for ending in (".csv", ".jsonl", ".parquet"):
            assert run("predict", task, table, "--out", answers.with_suffix(ending)) == 0
    task.write_bytes(task.read_bytes()[:-200])  # damaged, and ours all the same
    page.write_bytes(b"")  # nothing to lose
    assert run("fit", table, "--out", task) == 0
    assert run("show", task, "--out", page) == 0


def test_files_of_the_old_version_are_recognised() -> None:
    for task in (COMPATIBILITY / "tasks").glob("*.task"):
        assert outputs.is_task_file(task)
    for recipe in COMPATIBILITY.rglob("recipe.json"):
        assert outputs.is_run_folder(recipe.parent)
    assert outputs.is_comparison_folder(COMPATIBILITY / "compared")


def test_an_old_page_is_recognised_and_one_about_us_is_not(tmp_path: Path) -> None:
    page = tmp_path / "old.html"
    page.write_text("<!doctype html><title>zoo – Quickstudy</title>", encoding="utf-8")
    assert outputs.is_page(page)
    page.write_text("<!doctype html><title>What is Quickstudy?</title>", encoding="utf-8")
    assert not outputs.is_page(page)


def test_a_graph_is_recognised_by_its_metadata(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for maker, ours in (("quickstudy 0.1.0", True), ("somebody", False)):
        graph = onnx.helper.make_graph([], "g", [], [])
        model = onnx.helper.make_model(graph)
        entry = model.metadata_props.add()
        entry.key, entry.value = "made_by", maker
        path = tmp_path / "g.onnx"
        path.write_bytes(model.SerializeToString())
        assert outputs.is_graph(path) is ours


def test_a_stopped_training_or_comparison_leaves_a_folder_that_is_ours(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("")
    assert outputs.is_run_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert not outputs.is_run_folder(tmp_path)
    cells = tmp_path / "c" / "cells"
    cells.mkdir(parents=True)
    (cells / ("0a" * 16 + ".npy")).write_bytes(b"")
    assert outputs.is_comparison_folder(cells.parent)
    (cells / "prison.txt").write_text("mine")
    assert not outputs.is_comparison_folder(cells.parent)


@pytest.mark.parametrize("name", FOREIGN)
def test_python_writes_over_nothing_foreign_either(name: str, table: Path, tmp_path: Path) -> None:
    from quickstudy.core import EpisodeSpec
    from quickstudy.estimators.page import write_page
    from quickstudy.runs import train_recipe
    from quickstudy.tasks import PoolSource
    from quickstudy.tasks.datasets import load_pool
    from quickstudy.tasks.published import draw_episodes

    path = tmp_path / name
    FOREIGN[name](path)
    before = path.read_bytes()
    clf = FewShotClassifier("array").fit(np.eye(4, dtype=np.float32), ["a", "a", "b", "b"])
    listed = draw_episodes(
        PoolSource(load_pool("digits")), EpisodeSpec(2, 1, 1), episodes=2, seed=0, about={}
    )
    (tmp_path / "p.json").write_bytes(before)
    with pytest.raises(ConfigError, match="the prior"):
        clf.version_.prior.save(tmp_path / "p")
    assert (tmp_path / "p.json").read_bytes() == before
    writers: list[Callable[[], object]] = [
        lambda: clf.save(path),
        lambda: clf.export_onnx(path),
        lambda: write_page(clf.version_, path, title="t"),
        lambda: fit_files(table, path),
        lambda: train_recipe("glyphs-protonet", out=path),
        lambda: listed.write(path),
    ]
    for write in writers:
        with pytest.raises(QuickstudyError):
            write()
        assert path.read_bytes() == before


@pytest.mark.parametrize("wrong", [3, None, b"x.task", "", "a\0b", ["x"]])
def test_what_is_no_path_is_refused_in_our_words(wrong: Any) -> None:
    for check in (check_output, check_output_folder):
        with pytest.raises(ConfigError, match="out is the path of a file; got"):
            check(wrong)


def test_the_result_is_printed_where_its_page_cannot_be_written(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import quickstudy.checks.page

    def full(*_: Any) -> Any:
        raise CheckpointError("cannot write the page: No space left on device.")

    monkeypatch.setattr(quickstudy.storage.files, "write_atomically", full)
    monkeypatch.setattr("quickstudy.cli.check.write_atomically", full)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(ord(name[0]) + i).integers(0, 255, (12, 12, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{i}.png")
    words = ["check", tmp_path / "photos", "--n-way", 2, "--episodes", 5]
    assert run(*words, "--html", tmp_path / "p.html", "--json") == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["command"] == "check"
    assert document["page"] is None
    assert "No space left" in document["page_error"]
    assert "No space left" in printed.err


def test_every_option_has_a_signature() -> None:
    # the enumeration above reads annotations: a command without any would go unnoticed
    for name, callback in commands():
        for parameter in inspect.signature(callback).parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, name
