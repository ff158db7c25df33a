"""Make the character encoder that every installation carries from a run.

    quickstudy train omniglot-background --out runs/characters
    python benchmarks/ship_characters.py runs/characters

The file's metadata hold what it was made with: command, commit, split, validation accuracy.
``--out`` writes it elsewhere; ``--show`` prints what the shipped file says of itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from quickstudy.embedders.trained import save_characters
from quickstudy.runs.folder import read_facts, read_recipe
from quickstudy.storage.tensors import load_tensors

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "src/quickstudy/embedders/weights/characters.safetensors"


def commit() -> str:
    """Return the commit that is checked out, and whether files were changed since."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"],
        capture_output=True,
        text=True,
        check=True,
    )
    return head.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", help="the folder of a finished run")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument(
        "--command", help="how the run was made, if not by its recipe with its own settings"
    )
    parser.add_argument("--show", action="store_true", help="print the metadata of the file")
    given = parser.parse_args()
    if given.run is not None:
        recipe, facts = read_recipe(given.run), read_facts(given.run)
        about = {
            "command": given.command or f"quickstudy train {recipe.name}",
            "commit": commit(),
            "split": f"{recipe.data.name}, {recipe.data.split_file}, {recipe.data.train}",
            "data": facts,
        }
        size = save_characters(given.run, given.out, about=about)
        print(f"{given.out}: {size:,} bytes")
    elif not given.show:
        parser.error("name a run, or --show")
    if given.show:
        print(json.dumps(load_tensors(given.out)[1], indent=1))


if __name__ == "__main__":
    main()
