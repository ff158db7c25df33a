"""Exit codes: 0 done, 1 failed, 2 misused, 130 interrupted; every error is one line that helps."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import quickstudy.advice.advise
import quickstudy.comparing.compare
import quickstudy.runs.judging
from quickstudy.cli import main
from quickstudy.core import CheckpointError, ConfigError, QuickstudyError
from quickstudy.tasks.datasets import DATASETS

RUNS = Path(__file__).parents[1] / "compatibility" / "run-finished"
HUGE = 10**11
BEYOND = 2**70

# commands with "{run}", "{waves}" (a run of regression), "{photos}", "{table}"; what they must end
# with; and a word of the error
SWEEP = """
2 | episodes | evaluate {run} --data digits --episodes 0
2 | episodes | evaluate {run} --data digits --episodes -5
2 | seed | evaluate {run} --data digits --seed {beyond}
1 | 10 class | evaluate {run} --data digits --n-way {huge}
1 | 10 class | evaluate {run} --data digits --n-way {beyond}
1 | --k-shot | evaluate {run} --data digits --k-shot {huge}
1 | --n-query | evaluate {run} --data digits --n-query {beyond}
2 | --n-way | evaluate {run} --data digits --n-way 0
2 | --n-way | evaluate {run} --data digits --n-way -3
2 | --n-way | evaluate {run} --data digits --n-way 9-5
2 | --n-way | evaluate {run} --data digits --n-way ''
2 | --n-query | evaluate {run} --data digits --n-query 0
2 | nonsense | evaluate {run} --data digits --device nonsense
2 | device | evaluate {run} --data digits --device ''
2 | --inner-steps | evaluate {run} --data digits --inner-steps 3
2 | --inner-steps | evaluate {run} --data digits --inner-steps -1
2 | --transductive | evaluate {run} --data digits --transductive
2 | --invert | evaluate {run} --data digits --invert maybe
2 | --data | evaluate {run} --data ''
2 | --data | evaluate {run}
2 | nope | evaluate {run} --data nope
1 | ./nope | evaluate {run} --data ./nope
2 | nope | evaluate {run} --data digits --split nope
1 | nope.npz | evaluate {run} --data digits --tasks nope.npz
1 | t.csv | evaluate {run} --data digits --tasks {table}
1 | photos | evaluate {run} --data digits --tasks {photos}
1 | no run | evaluate nope --data digits
1 | no run | evaluate {photos} --data digits
2 | regression | evaluate {run} --data sinusoid
2 | regression | evaluate {waves} --data digits
2 | workers | compare {run} --data digits --workers 0
2 | seed | compare {run} --data digits --seed {beyond}
2 | episodes | compare {run} --data digits --episodes -3
1 | 10 classes | compare {run} --data digits --n-way {huge} --workers 1
1 | --k-shot | compare {run} --data digits --k-shot {huge} --workers 1
2 | twice | compare {run} --data digits --k-shot 1 --k-shot 1
2 | --n-query | compare {run} --data digits --n-query 0
1 | no run | compare {photos} --data digits
1 | no run | compare nope --data digits
2 | --data | compare {run}
2 | nope | compare {run} --data nope
1 | no run | compare {run} --data digits --features {photos}
2 | nope | compare {run} --data digits --baseline nope
2 | same weights | compare {run} {run} --data digits
2 | --out | compare {run} --data digits --out {run}
2 | --n-way | check digits --n-way 0
2 | --k-shot | check digits --k-shot x
2 | --episodes | check digits --episodes 1
2 | nope | check nope
1 | ./nope | check ./nope
2 | empty | check ''
1 | nope.json | check nope.json
2 | --data | check digits --data digits
2 | --size | check digits --size 0
2 | --channels | check digits --channels 2
2 | nope.py | check nope.py:x
2 | json | check json:nope
1 | no folder | check {photos}/cat/0.png
2 | two domains | diversity digits
2 | two domains | diversity digits digits
2 | nope | diversity digits nope
1 | /nope | diversity digits ./nope
2 | --rank | diversity digits {photos} --rank 0
2 | --n-way | diversity digits {photos} --n-way 0
2 | --k-shot | diversity digits {photos} --k-shot 0
2 | seed | diversity digits {photos} --seed {beyond}
2 | --episodes | diversity digits {photos} --episodes 1
1 | too few | diversity digits {photos} --n-way {beyond}
1 | no run | diversity digits {photos} --run {photos}
2 | seed | episodes write --data digits --seed {beyond}
2 | episodes | episodes write --data digits --episodes 0
1 | 10 class | episodes write --data digits --n-way {huge}
1 | --k-shot | episodes write --data digits --k-shot {huge}
2 | nope | episodes write --data nope
1 | nope | episodes write --data ./nope
2 | --data | episodes write --data ''
2 | nope | episodes write --data digits --split nope
2 | nope | episodes write --data digits --split-file nope
2 | --out | episodes write --data digits --out {photos}
1 | nope.npz | episodes verify nope.npz
1 | t.csv | episodes verify {table}
1 | photos | episodes verify {photos}
1 | nope | advise nope
1 | nope.csv | advise nope.csv
2 | empty | advise ''
2 | seed | advise {table} --seed {beyond}
2 | --most | advise {table} --most 0
2 | --episodes | advise {table} --episodes -1
2 | nonsense | advise {table} --device nonsense
2 | nope | advise {table} --label nope
2 | nope | advise {table} --group nope
2 | same column | advise {table} --label label --group label
2 | photos | advise {photos} --label x
2 | nonsense | demo --device nonsense
2 | seed | demo --seed {beyond} --steps 1
2 | --steps | demo --steps 0
2 | --out | demo --out {photos}
2 | nope | data get nope
2 | nope | data check nope
2 | nope | data nope
2 | nope | nope
2 | --nope | advise {table} --nope
"""
CALLS = [tuple(part.strip() for part in line.split("|")) for line in SWEEP.strip().splitlines()]


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(ord(name[0]) + i).integers(0, 255, (12, 12, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / name / f"{i}.png")
    rows = [f"{i % 2 * 9 + i / 10},{i / 7},{'ab'[i % 2]}" for i in range(24)]
    (folder / "t.csv").write_text("\n".join(["width,height,label", *rows]) + "\n")
    return folder


@pytest.mark.parametrize(("code", "word", "words"), CALLS, ids=[call[2] for call in CALLS])
def test_misuse_and_failures_by_the_book(
    code: str,
    word: str,
    words: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    given = words.format(
        run=RUNS / "glyphs-protonet",
        waves=RUNS / "sinusoid-maml",
        photos="photos",
        table="t.csv",
        huge=HUGE,
        beyond=BEYOND,
    )
    assert run(*shlex.split(given), "--json") == int(code)
    printed = capsys.readouterr()
    error = printed.err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert word in error
    assert "fault of Quickstudy" not in printed.err
    assert "Traceback" not in printed.err
    assert json.loads(printed.out)["error"]["message"] == error.removeprefix("error: ")
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("words", ["evaluate {run} --data digits", "advise t.csv", "check digits"])
def test_ctrl_c_ends_with_130(
    words: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(place)
    monkeypatch.setattr("quickstudy.runs.judging.evaluate", stop)
    monkeypatch.setattr("quickstudy.advice.advise.run_until_clear", stop)
    monkeypatch.setattr("quickstudy.runs.checking.read_data", stop)
    assert run(*words.format(run=RUNS / "glyphs-protonet").split()) == 130
    assert "stopped" in capsys.readouterr().err


QUICK = ["--episodes", 5, "--workers", 1, "--baseline", "none"]


def test_scores_are_printed_where_the_page_of_a_comparison_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise CheckpointError("cannot write the page: No space left on device.")

    monkeypatch.setattr(quickstudy.comparing.compare, "write_atomically", full)
    words = ["compare", RUNS / "glyphs-protonet", "--data", "digits", *QUICK]
    assert run(*words, "--out", tmp_path / "c", "--json") == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["results"]
    assert document["page"] is None
    assert "No space left" in document["page_error"]
    assert "error: cannot write the page" in printed.err
    monkeypatch.undo()
    assert run(*words, "--out", tmp_path / "c") == 0  # the scores are there, and the page follows
    assert "1 of 1 are there already" in capsys.readouterr().err
    assert (tmp_path / "c" / "comparison.html").is_file()


def test_advice_is_printed_where_its_page_cannot_be_written(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise CheckpointError("cannot write the page: No space left on device.")

    monkeypatch.setattr("quickstudy.advice.page.write_atomically", full)
    words = ["advise", place / "t.csv", "--episodes", 5, "--html", tmp_path / "a.html"]
    assert run(*words) == 1
    printed = capsys.readouterr()
    assert "take: " in printed.out
    assert "No space left" in printed.err


@pytest.mark.parametrize("out", ["itself", "features", "photos"])
def test_python_compares_into_no_run_and_no_folder_of_others(out: str, place: Path) -> None:
    one, other = RUNS / "glyphs-protonet", RUNS / "matching"
    into = {"itself": one, "features": other, "photos": place / "photos"}[out]
    before = sorted(into.rglob("*"))
    with pytest.raises(ConfigError, match="out "):
        quickstudy.comparing.compare.compare_runs(
            one, "digits", features=other, out=into, episodes=5, workers=1
        )
    assert sorted(into.rglob("*")) == before


@pytest.mark.parametrize("seed", [-1, 0, 2**63 - 1, BEYOND])
def test_a_seed_is_used_or_refused(seed: int, place: Path) -> None:
    def advised() -> object:
        return quickstudy.advice.advise.advise(place / "t.csv", episodes=5, seed=seed).chosen.mean

    def judged() -> object:
        return quickstudy.runs.judging.judge(
            RUNS / "glyphs-protonet", "digits", episodes=3, seed=seed
        ).report.mean

    for ask in (advised, judged):
        if seed == BEYOND:
            with pytest.raises(QuickstudyError, match="seed"):
                ask()
        else:
            assert ask() == ask()


def test_every_data_set_has_a_state(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "list", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["data"]) == len(DATASETS)
