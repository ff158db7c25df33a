"""Records what an earlier version writes and answers, for the tests in this folder.

::

    export PYTHONPATH=OLD/src OMP_NUM_THREADS=1
    python tests/compatibility/record.py                     # all
    python tests/compatibility/record.py documents           # these only, of the same fixtures
    python tests/compatibility/record.py documents evaluate  # one of them
    python tests/compatibility/record.py answers             # of the same tasks

``OLD`` is a clone of the version to record; which one is used is printed first. The fixtures (runs,
tasks, lists) are files that users may still have: record them anew only beside the old ones. The
documents are recorded again, from the same fixtures, when a command is changed on purpose, and the
answers of the saved tasks when an estimate is: only numbers that differ are written then. The two
documents that need the real data are recorded where ``QUICKSTUDY_DATA`` is set, and kept otherwise.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from recorded import (
    COMMANDS,
    COMPARED,
    DOCUMENTS,
    FITTED,
    FIXTURES,
    HERE,
    LISTED,
    RUNS,
    STOPPED,
    TASKS,
    Command,
    answers,
    copy_fixtures,
    differences,
    edited,
    encoder,
    environment,
    flat,
    is_hashed,
    leaves,
    module,
    numbers,
    questions,
    run_command,
    same,
    structure,
    values,
    written,
)

TEXTS = {
    "card": [
        "block my card",
        "my card was stolen",
        "the machine kept my card",
        "a new card please",
    ],
    "bill": ["pay the bill", "the invoice is due", "I paid this twice", "send me a receipt"],
    "weather": ["will it rain", "how cold is it", "is it sunny today", "I lost my bank card"],
}
NEW_TEXTS = ["my card is gone", "a wet and windy day", "what do I owe you", "purple elephants"]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def command(line: str, code: int = 0) -> Any:
    """Run a command and return its document."""
    say(f"quickstudy {line}")
    found, printed = run_command([*shlex.split(line), "--json"])
    assert found == code, printed
    return json.loads(printed)


# ---------------------------------------------------------------- fixtures


def make_inputs(folder: Path) -> None:
    """Write a table, texts, drawings and a folder with faults."""
    draw = np.random.default_rng(0)
    kinds = (("okapi", 0.0, "brown"), ("zebra", 2.0, "striped"), ("giraffe", 4.0, "striped"))
    for name, per_class in (("animals", 8), ("animals-new", 3)):
        rows: list[dict[str, Any]] = []
        for kind, middle, coat in kinds:
            other = "striped" if coat == "brown" else "brown"
            for i, (height, width) in enumerate(draw.normal(middle, 1, (per_class, 2))):
                odd = i == 5  # looks like another kind
                values = {"height": f"{height + 4 * odd:.3f}", "width": f"{width + 4 * odd:.3f}"}
                rows.append(
                    {**values, "coat": other if odd else coat, "species": kind, "herd": i % 4}
                )
        write_table(folder / f"{name}.csv", rows)
    write_table(
        folder / "texts.csv",
        [{"text": text, "label": label} for label, texts in TEXTS.items() for text in texts],
    )
    (folder / "texts-new.json").write_text(json.dumps(NEW_TEXTS) + "\n", encoding="utf-8")
    for c, kind in enumerate(("bar", "dash", "cross")):
        for i in range(6):
            stroke = np.full((40, 40), 255, np.uint8)
            at = int(draw.integers(8, 32))
            if c != 1:
                stroke[6:34, at - 2 : at + 1] = 0
            if c != 0:
                stroke[at - 2 : at + 1, 6:34] = 0
            new = folder / f"drawings-new/{c}.png"
            save(new if i == 5 else folder / f"drawings/{kind}/{i}.png", stroke)
    save(folder / "drawings-new/3.png", draw.integers(0, 256, (20, 20), dtype=np.uint8))
    # one under two labels, one that looks like another class
    shutil.copy(folder / "drawings/bar/0.png", folder / "drawings/dash/copy.png")
    shutil.copy(folder / "drawings/cross/2.png", folder / "drawings/bar/5.png")
    for part in ("train", "test"):
        for c in range(3):
            for i in range(4):
                small = Image.fromarray(draw.integers(0, 256, (5, 5, 3), dtype=np.uint8))
                large = small.resize((20, 20), Image.Resampling.BICUBIC)
                save(folder / f"faulty/{part}/{part} {c}/{i}.png", np.asarray(large))
    faulty = folder / "faulty"
    shutil.copy(faulty / "train/train 0/2.png", faulty / "train/train 1/copy.png")
    shutil.copy(faulty / "train/train 2/1.png", faulty / "test/test 0/leak.png")
    (faulty / "test/test 1/notes.txt").write_text("drawn on Monday\n", encoding="utf-8")
    (faulty / "test/test 2/broken.png").write_bytes(b"no picture")


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, optimize=True)


def make_runs() -> None:
    """Train the finished runs, and those that are stopped in the middle."""
    for name, words in RUNS.items():
        command(f"train {words} --out run-finished/{name}")
    for name, words in STOPPED.items():
        whole, part = Path("run-stopped/expected") / name, Path("run-stopped") / name
        command(f"train {words} --out {whole}")
        (whole / "checkpoint.safetensors").unlink()
        stop_at_first_checkpoint(words, part)


def stop_at_first_checkpoint(words: str, out: Path) -> None:
    """Train until the first checkpoint is on the disk, then press Ctrl-C."""
    flush, pressed = os.fsync, False

    def pressing(handle: int) -> None:
        nonlocal pressed
        flush(handle)
        if (out / "checkpoint.safetensors").exists() and not pressed:
            pressed = True
            signal.raise_signal(signal.SIGINT)

    os.fsync = pressing
    try:
        document = command(f"train {words} --out {out}", 130)
    finally:
        os.fsync = flush
    say(document["error"]["message"])
    assert "step 4 of 9" in document["error"]["message"]
    assert not (out / "model.safetensors").exists()


def make_tasks() -> None:
    """Fit classifiers, save them, and write down what they answer."""
    from quickstudy.estimators import FewShotClassifier

    for name, words in FITTED.items():
        command(f"fit {words} --out tasks/{name}.task")
    x, y, _ = numbers()
    settings: dict[str, Any] = {
        "numbers": {"encoder": "table", "head": "logistic", "unknown": 0, "false_rejects": 0.2},
        "module": {"encoder": module(), "head": "kernel"},
        "array": {"encoder": "array", "head": "class-mean"},
    }
    for name, given in settings.items():
        FewShotClassifier(**given).fit(x, y).save(f"tasks/{name}.task")
    write_json(Path("tasks/expected.json"), answered())


def answered() -> dict[str, Any]:
    """Return what the saved tasks answer, and what they answer after changes."""
    from quickstudy.estimators import FewShotClassifier

    expected = {}
    for name in TASKS:
        given, asked = encoder(name, Path()), questions(name, Path())
        clf = FewShotClassifier.load(f"tasks/{name}.task", encoder=given, device="cpu")
        expected[name] = {"answers": answers(clf, asked), "edited": edited(clf, asked)}
    return expected


def answer_again(out: Path) -> None:
    """Record what the same tasks answer now; what did not change is kept to the digit."""
    torch.set_num_threads(1)  # as when they are compared
    path = out / "tasks/expected.json"
    with tempfile.TemporaryDirectory(prefix="quickstudy-") as scratch:
        copy_fixtures(Path(scratch), out)
        os.chdir(scratch)
        use_cache(Path(scratch))
        new = answered()
        os.chdir(out)
    old = json.loads(path.read_text(encoding="utf-8"))
    for where in differences(flat(old), flat(new)):
        say(where)
    write_json(path, kept_where_same(old, new))


def kept_where_same(old: Any, new: Any) -> Any:
    """Return the new document with the old scalars where they are the same up to rounding."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {n: kept_where_same(old[n], v) if n in old else v for n, v in new.items()}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [kept_where_same(*pair) for pair in zip(old, new, strict=True)]
    return old if same(old, new) else new


def make_fixtures(out: Path) -> None:
    """Make all fixtures and put them into a folder."""
    with tempfile.TemporaryDirectory(prefix="quickstudy-") as scratch:
        os.chdir(scratch)
        use_cache(Path(scratch))
        make_inputs(Path("inputs"))
        make_runs()
        make_tasks()
        Path("lists").mkdir()
        command(f"{LISTED} lists/digits.npz")
        document = command(COMPARED)
        assert document["results"]
        for page in ("comparison.html", "comparison.md"):
            (Path("compared") / page).unlink()
        scores = command("evaluate run-finished/matching --data digits --n-query 3 --episodes 8")
        write_json(Path("inputs/scores.json"), scores)
        for name in FIXTURES:
            shutil.rmtree(out / name, ignore_errors=True)
            shutil.copytree(name, out / name)
        os.chdir(out)


# ---------------------------------------------------------------- documents


def use_cache(folder: Path) -> None:
    """Embed and read anew, but for the rendered characters, which take long."""
    mine = folder / "cache" / "quickstudy"
    mine.mkdir(parents=True)
    pools = USUAL / "quickstudy" / "pools"
    if pools.is_dir():
        (mine / "pools").symlink_to(pools)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")


USUAL = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
DATA = os.environ.pop("QUICKSTUDY_DATA", "")


def run_once(one: Command, source: Path) -> tuple[Any, dict[str, str]]:
    """Run a command beside copies of the fixtures; return its document and what it wrote."""
    with tempfile.TemporaryDirectory(prefix="quickstudy-") as scratch:
        folder = Path(scratch)
        copy_fixtures(folder, source)
        if "glyphs" in one.needs:
            use_cache(folder)
        else:
            os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        if "data" in one.needs:
            os.environ["QUICKSTUDY_DATA"] = DATA
        before = written(folder)
        os.chdir(folder)
        try:
            document = command(one.line, one.code)
        finally:
            os.chdir(source)
            os.environ.pop("QUICKSTUDY_DATA", None)
        return document, written(folder, before)


def record(one: Command, source: Path, out: Path) -> None:
    """Run a command twice; what is the same both times is kept, of all else the type."""
    (first, files), (second, again) = run_once(one, source), run_once(one, source)
    assert structure(first) == structure(second), one.name
    kept, other = values(first), values(second)
    files = {name: digest for name, digest in files.items() if name in again}
    steady = {name: digest for name, digest in files.items() if digest == again[name]}
    write_json(
        out / f"{one.name}.json",
        {
            "command": f"quickstudy {one.line} --json",
            "structure": structure(first),
            "values": {n: v for n, v in kept.items() if other[n] == v and not is_place(v)},
            "files": {n: steady.get(n) if is_hashed(n) else None for n in files},
        },
    )
    dropped = {where for where, _, _ in leaves(first)} - kept.keys()
    say(f"{one.name}: {len(kept)} values, {len(dropped)} measured anew each time")


def is_place(value: Any) -> bool:
    """Return whether a value names a folder of this machine."""
    places = [tempfile.gettempdir(), str(HERE), *([DATA] if DATA else [])]
    return isinstance(value, str) and any(place in value for place in places)


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=0)
    path.write_text(text + "\n", encoding="utf-8")


def main(given: list[str]) -> None:
    import quickstudy

    say(f"recording {quickstudy.__file__}, {quickstudy.__version__}")
    assert not os.environ.get("QUICKSTUDY_COMPATIBILITY"), "record in the ordinary way"
    wanted = {word for word in given if word not in ("fixtures", "documents", "answers")}
    if not given or "fixtures" in given:
        make_fixtures(HERE)
    if "answers" in given:
        answer_again(HERE)
    if not given or wanted or "documents" in given:
        for one in COMMANDS:
            if wanted and one.name not in wanted:
                continue
            if "data" in one.needs and not DATA:
                say(f"{one.name}: kept, as QUICKSTUDY_DATA is not set")
                continue
            record(one, HERE, DOCUMENTS)
        if not wanted:
            kept = {f"{one.name}.json" for one in COMMANDS} | {"environment.json"}
            for path in DOCUMENTS.glob("*.json"):
                if path.name not in kept:
                    path.unlink()
            write_json(DOCUMENTS / "environment.json", environment())


if __name__ == "__main__":
    main(sys.argv[1:])
