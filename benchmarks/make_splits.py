"""Write the split files in ``src/quickstudy/tasks/splits`` from the columns of the data files.

    QUICKSTUDY_DATA=... python benchmarks/make_splits.py

The files are committed; this script is the record of how they came about.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from quickstudy.core import keys
from quickstudy.storage.places import data_home

OUT = Path(__file__).parents[1] / "src" / "quickstudy" / "tasks" / "splits"

# Meta-Dataset's validation alphabets: the five with the fewest characters (14, 14, 16, 17, 20) of
# the
# background set; the evaluation set is kept for the test (Triantafillou et al. 2020).
VALIDATION_ALPHABETS = {
    "Blackfoot_(Canadian_Aboriginal_Syllabics)",
    "Ojibwe_(Canadian_Aboriginal_Syllabics)",
    "Inuktitut_(Canadian_Aboriginal_Syllabics)",
    "Tagalog",
    "Alphabet_of_the_Magi",
}

Parts = dict[str, list[str]]


def classes(file: str, label: str, column: str) -> list[tuple[str, str]]:
    """Return each class with its value in ``column``, sorted."""
    table = pq.read_table(data_home() / "images" / file, columns=[label, column])
    return sorted(set(zip(*(table.column(c).to_pylist() for c in (label, column)), strict=True)))


def by_column(file: str, label: str, column: str) -> Parts:
    pairs = classes(file, label, column)
    return {p: [c for c, part in pairs if part == p] for p in ("train", "val", "test")}


def by_alphabet() -> Parts:
    parts: Parts = {"train": [], "val": [], "test": []}
    for label, split in classes("omniglot.parquet", "label", "split"):
        held_out = label.split("/")[0] in VALIDATION_ALPHABETS
        parts["test" if split == "evaluation" else "val" if held_out else "train"].append(label)
    return parts


def at_random() -> Parts:
    """Return 1,100, 100 and 423 characters, drawn once for ever by our own hash."""
    labels = np.array([label for label, _ in classes("omniglot.parquet", "label", "split")])
    drawn = labels[np.argsort(keys(0, np.arange(len(labels))), kind="stable")].tolist()
    return {"train": drawn[:1100], "val": drawn[1100:1200], "test": drawn[1200:]}


def write(name: str, source: str, parts: Parts, names: dict[str, str] | None = None) -> None:
    content: dict[str, object] = {"name": name, "source": source, "parts": parts}
    if names:
        content["names"] = names
    (OUT / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(name, {part: len(members) for part, members in parts.items()})


def main() -> None:
    alphabets = by_alphabet()
    background = sorted(alphabets["train"] + alphabets["val"])
    smallest = "validation: the five smallest background alphabets, as Meta-Dataset (2020)"
    write(
        "omniglot-vinyals",
        "Vinyals et al. (2016), as split by Snell et al. (2017); without rotations",
        by_column("omniglot.parquet", "label", "vinyals_split"),
    )
    write(
        "omniglot-random",
        "1,200 characters to train on (the last 100 of them to validate) and 423 to test on, drawn "
        "at random over all alphabets as in Finn et al. (2017); theirs were never published, this "
        "draw is ours",
        at_random(),
    )
    write("omniglot-by-alphabet", f"Lake et al. (2015); {smallest}", alphabets)
    write(
        "omniglot-background-evaluation",
        f"Lake et al. (2015), 30 background and 20 evaluation alphabets; {smallest}",
        {**alphabets, "background": background},
    )
    write(
        "miniimagenet-ravi",
        "Ravi and Larochelle (2017), WordNet ids",
        by_column("miniimagenet.parquet", "wnid", "split"),
        dict(classes("miniimagenet.parquet", "wnid", "label")),
    )
    write("cifar-fs", "Bertinetto et al. (2019)", by_column("cifar_fs.parquet", "label", "split"))
    write("fc100", "Oreshkin et al. (2018)", by_column("cifar_fs.parquet", "label", "fc100_split"))


if __name__ == "__main__":
    main()
