"""Learn the priors that ship with Quickstudy from embeddings of training classes.

    python benchmarks/learn_priors.py text --embeddings FOLDER

reads FOLDER/NAME.npz (benchmarks/embed.py writes them) and writes NAME.json and NAME.safetensors
into src/quickstudy/fitting/priors, or elsewhere with ``--out``. Which classes a prior is learned
from is stated below. What ships for texts has seen all sets below, so BANKING77 and CLINC150 are
scored with priors that were learned without them, and the others (snips, trec6, Stack Overflow, AG
News) cannot be scored with it at all.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from embed import rank_in_class
from machine import ROOT, provenance
from quickstudy.embedders.choose import get_embedder
from quickstudy.fitting.learn import learn_prior
from quickstudy.tasks.splits import load_split

# data sets and the splits of them that are read (None = all rows)
TEXTS: dict[str, tuple[str, ...] | None] = {
    "huffpost41": ("train", "valid"),
    "stackoverflow20": None,
    "snips": None,
    "trec6": None,
    "ag_news_test": None,
    "banking77": ("train",),
    "clinc150": ("train",),
}
SOURCES = {
    "text": TEXTS,
    "image": {"miniimagenet": ("train", "val"), "cifar_fs": ("train", "val")},
    # classes that the encoder was not trained on, for it tells its own apart too well
    "characters": {"omniglot": ("background",)},
    # what BANKING77 and CLINC150 are scored with: neither knows the set that it is scored on
    "text-without-banking77": {n: s for n, s in TEXTS.items() if n != "banking77"},
    "text-without-clinc150": {n: s for n, s in TEXTS.items() if n != "clinc150"},
    # and half of the classes of one set, to score it on the other half
    "banking77-half": {"banking77": ("train",)},
    "clinc150-half": {"clinc150": ("train",)},
}
SHIPPED = ("text", "image", "characters")

# rows of a class that are read, the first ones: no source counts more for being larger
MOST_ROWS = 300


def read(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of one file."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files if key != "text"}


def gather(folder: Path, prior: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return embeddings, labels and sources of the training classes of a prior."""
    parts = []
    for name, splits in SOURCES[prior].items():
        data = read(folder, name)
        label = data["label"].astype(str)
        keep = label != "oos"
        if splits is not None:
            keep &= np.isin(data["split"].astype(str), splits)
        if prior.endswith("-half"):
            keep &= np.isin(label, np.unique(label[keep])[::2])
        if prior == "characters":
            keep &= np.isin(label, load_split("omniglot-background-evaluation").parts["val"])
        keep &= rank_in_class(label) < MOST_ROWS
        parts.append((data["z"][keep], label[keep], np.full(int(keep.sum()), name)))
    z, label, source = (np.concatenate(side) for side in zip(*parts, strict=True))
    return z, label, source


def main() -> None:
    """Learn and write the priors named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("priors", nargs="+", choices=sorted(SOURCES))
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "src/quickstudy/fitting/priors")
    given = parser.parse_args()
    for name in given.priors:
        begun = time.monotonic()
        z, labels, sources = gather(given.embeddings, name)
        prior = learn_prior(z, labels, sources=sources, seed=0)
        made = provenance(seeds=[0])
        about = {
            **prior.about,
            # a prior belongs to one space: it is not used with other weights or transforms
            "fingerprint": get_embedder(name if name in SHIPPED else "text").fingerprint,
            **{fact: made[fact] for fact in ("command", "commit")},
            "minutes": round((time.monotonic() - begun) / 60, 1),
        }
        prior = replace(prior, about=about)
        prior.save(given.out / name)
        settings = {h: {k: dict(v) for k, v in p.settings.items()} for h, p in prior.heads.items()}
        print(
            f"{name}: {prior.metric.settings}, centre {prior.centre_prior}, {settings}, "
            f"{time.monotonic() - begun:.0f} s",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
