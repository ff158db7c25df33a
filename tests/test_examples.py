"""Examples run as tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from quickstudy.recipes import build_learner, get_recipe
from quickstudy.runs.folder import save_recipe
from quickstudy.storage.tensors import save_tensors

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda f: f.name)
def test_an_example_is_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) < 150


def test_own_learner_learns() -> None:
    accuracy = float(run(str(EXAMPLES / "own_learner.py")).split(" ± ")[0])
    assert accuracy > 60  # chance is 20 %


def test_own_learner_conforms() -> None:
    assert " passed" in run(
        "-m", "pytest", "-p", "no:cacheprovider", str(EXAMPLES / "own_learner.py")
    )


def test_new_task_labels_pictures(tmp_path: Path) -> None:
    recipe = get_recipe("omniglot-protonet")
    learner = build_learner(recipe.encoder, recipe.learner, seed=0)
    save_recipe(tmp_path / "run", recipe, {})
    save_tensors(tmp_path / "run" / "model.safetensors", learner.state_dict(), {"step": 0})
    for name, box in {"bar": (20, 2, 30, 60), "dot": (25, 25, 40, 40)}.items():
        for i in range(3):
            picture = Image.new("L", (64, 64), 255)
            picture.paste(0, tuple(v + i for v in box))
            folder = tmp_path / ("query" if i == 2 else "support") / name
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{i}.png")
    folders = [str(tmp_path / part) for part in ("run", "support", "query")]
    lines = run(str(EXAMPLES / "new_task.py"), *folders).splitlines()
    # even an untrained encoder tells a bar from a dot; the file's own folder is the right answer
    assert [line.split(": ")[1].split(" ")[0] for line in lines] == ["bar", "dot"]
