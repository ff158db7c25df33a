"""Embed the real data once, for the scripts here that score or learn on embeddings.

    python benchmarks/embed.py image --out FOLDER          (needs QUICKSTUDY_DATA)

writes FOLDER/NAME.npz for every set of the encoder's kind: ``z`` [N, D], ``row`` [N] in the data
set's file and its other columns, ``split`` [N] ("all" where there is none). A file that is there
already is left alone. Of the larger image sets the first rows of each class are taken, see ROWS;
with --small of all sets, see SMALL and CLASSES.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.choose import get_embedder

TEXTS = (
    "banking77",
    "clinc150",
    "huffpost41",
    "stackoverflow20",
    "snips",
    "trec6",
    "ag_news_test",
    "sst2",
)
PHOTOS = ("cifar_fs", "gtsrb", "dtd10", "quickdraw", "miniimagenet", "fashionmnist", "mnist")
SETS = {
    "text": TEXTS,
    "image": (*PHOTOS, "omniglot"),
    "characters": ("omniglot", "quickdraw", "mnist", "fashionmnist", "gtsrb"),
}
# rows of a class (and split, where there is one) that are embedded, evenly spread; of others all
ROWS: dict[str, dict[str, int]] = {
    "image": {"quickdraw": 20, "miniimagenet": 100},
    "characters": {},
    "text": {},
}
# the same with --small
SMALL: dict[str, dict[str, int]] = {
    "image": {
        "quickdraw": 30,
        "miniimagenet": 50,
        "cifar_fs": 50,
        "fashionmnist": 100,
        "mnist": 100,
    },
    "characters": {"fashionmnist": 100, "mnist": 100},
    "text": dict.fromkeys(TEXTS, 100) | {"clinc150": 30, "banking77": 30},
}
# of a set with many classes, with --small every so many-th one
CLASSES: dict[str, dict[str, int]] = {
    "image": {"quickdraw": 3, "omniglot": 8},
    "characters": {"omniglot": 3, "quickdraw": 3},
}


def rank_in_class(label: np.ndarray) -> np.ndarray:
    """Return how many rows of the same class stand before each row."""
    _, y = np.unique(label, return_inverse=True)
    order = np.argsort(y, kind="stable")
    starts = np.searchsorted(y[order], np.arange(y.max() + 1))
    rank = np.empty(len(y), dtype=np.int64)
    rank[order] = np.arange(len(y)) - starts[y[order]]
    return rank


def main() -> None:
    """Embed and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", choices=sorted(SETS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=None, help="only these")
    parser.add_argument("--small", action="store_true", help="fewer rows, for priors and honesty")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    embedder = get_embedder(given.encoder, cache=EmbeddingCache(disk=False))
    given.out.mkdir(parents=True, exist_ok=True)
    kind, column = ("text", "text") if given.encoder == "text" else ("images", "image")
    for name in given.sets or SETS[given.encoder]:
        out, begun = given.out / f"{name}.npz", time.monotonic()
        if out.exists():
            continue
        table = pq.read_table(Path(os.environ["QUICKSTUDY_DATA"]) / kind / f"{name}.parquet")
        rows = np.arange(len(table))
        if most := (SMALL if given.small else ROWS)[given.encoder].get(name):
            label = np.array(table["label"].to_pylist()).astype(str)
            if "split" in table.column_names:
                label = np.char.add(label, np.array(table["split"].to_pylist()).astype(str))
            rank, (_, y, count) = rank_in_class(label), np.unique(label, False, True, True)
            rows = rows[rank * most // count[y] != (rank - 1) * most // count[y]]
        if step := CLASSES.get(given.encoder, {}).get(name) if given.small else None:
            _, y = np.unique(np.array(table["label"].to_pylist()).astype(str), return_inverse=True)
            rows = rows[y[rows] % step == 0]
        kept = table.take(rows)
        values = kept[column].to_pylist()
        values = [v["bytes"] if isinstance(v, dict) else v for v in values]
        parts = [
            embedder.embed(embedder.read(values[i : i + 512])) for i in range(0, len(values), 512)
        ]
        arrays = {"z": np.concatenate(parts), "row": rows, "split": np.full(len(rows), "all")}
        arrays |= {
            name: np.array(kept[name].to_pylist()).astype(str)
            for name in kept.column_names
            if name != column
        }
        arrays["fingerprint"] = np.array(embedder.fingerprint)
        with out.with_suffix(".part").open("wb") as file:
            np.savez(file, **arrays)
        out.with_suffix(".part").rename(out)
        print(f"{name}: {arrays['z'].shape}, {time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
