"""Learn the priors that ship with Quickstudy from embeddings of training classes.

    python benchmarks/learn_priors.py text --embeddings EMB

reads EMB/NAME.npz (benchmarks/embed.py writes them) and writes NAME.json and NAME.safetensors into
src/quickstudy/fitting/priors, or elsewhere with ``--out``. Which classes a prior is learned from is
stated below. With ``--without KIND`` data sets of one kind are left out: with such a prior
benchmarks/honesty.py scores them.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embed import rank_in_class
from machine import ROOT, provenance
from quickstudy.embedders.choose import get_embedder
from quickstudy.fitting.learn import learn_prior
from quickstudy.tasks.splits import load_split

# data sets by kind, and the splits of them that are read (None = all rows)
Sets = dict[str, dict[str, tuple[str, ...] | None]]
SOURCES: dict[str, Sets] = {
    "text": {
        "intents": {"banking77": ("train",), "clinc150": ("train",), "snips": None},
        "news": {"huffpost41": ("train", "valid"), "ag_news_test": None},
        "questions": {"stackoverflow20": None, "trec6": None},
        "sentiment": {"sst2": None},
    },
    "image": {
        "photographs": {"miniimagenet": ("train", "val"), "cifar_fs": ("train", "val")},
        "ink": {"omniglot": ("background",), "quickdraw": None, "mnist": None},
        "clothes": {"fashionmnist": None},
        "signs": {"gtsrb": None},
        "textures": {"dtd10": None},
    },
    # of letters, classes that the encoder was not trained on: it tells its own apart too well
    "characters": {
        "letters": {"omniglot": ("background",)},
        "digits": {"mnist": None},
        "drawings": {"quickdraw": None},
    },
}

# rows of a class that are read, evenly spread: no source counts more for being larger
MOST_ROWS = 60


def read(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of one file."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files if key != "text"}


@dataclass(frozen=True)
class Rows:
    """Labelled embeddings of several data sets."""

    z: np.ndarray
    label: np.ndarray
    source: np.ndarray
    group: np.ndarray


def gather(folder: Path, encoder: str, without: str | None) -> Rows:
    """Return the training classes of a prior.

    Args:
        folder: of the embeddings.
        encoder: whose they are.
        without: a kind of data sets that is left out; ``None`` = none.
    """
    parts = []
    for kind, sets in SOURCES[encoder].items():
        for name, splits in sets.items():
            if kind != without:
                parts.append(rows_of(read(folder, name), encoder, name, splits))
    return Rows(*(np.concatenate(side) for side in zip(*parts, strict=True)))


def rows_of(
    data: dict[str, np.ndarray], encoder: str, name: str, splits: tuple[str, ...] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return embeddings, labels, source and groups of one data set.

    Args:
        data: its embeddings.
        encoder: whose they are.
        name: of the data set.
        splits: that are read; ``None`` = all rows.
    """
    label = data["label"].astype(str)
    keep = label != "oos"
    if splits is not None:
        keep &= np.isin(data["split"].astype(str), splits)
    # what the encoder was trained on is no sample of what it will meet
    if (encoder, name, splits) == ("characters", "omniglot", ("background",)):
        keep &= np.isin(label, load_split("omniglot-background-evaluation").parts["val"])
    rows = np.flatnonzero(keep)
    rows = rows[rank_in_class(label[rows]) < MOST_ROWS]
    # frames of one traffic sign never stand on both sides of a task
    group = np.char.add(f"{name}/", rows.astype(str))
    if "track" in data:
        group = np.char.add(np.char.add(label[rows], "/"), data["track"][rows].astype(str))
    return data["z"][rows], label[rows], np.full(len(rows), name), group


def main() -> None:
    """Learn and write the prior named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", choices=sorted(SOURCES))
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--without", default=None, help="a kind of data sets to leave out")
    parser.add_argument("--out", type=Path, default=ROOT / "src/quickstudy/fitting/priors")
    given = parser.parse_args()
    if given.without is not None and given.without not in SOURCES[given.encoder]:
        parser.error(f"--without is one of {', '.join(SOURCES[given.encoder])}")
    begun = time.monotonic()
    rows = gather(given.embeddings, given.encoder, given.without)
    prior = learn_prior(rows.z, rows.label, sources=rows.source, groups=rows.group, seed=0)
    made = provenance(seeds=[0], shown={given.embeddings: "EMB", given.out: "PRIORS"})
    about = {
        **prior.about,
        # a prior belongs to one space: it is not used with other weights or transforms
        "fingerprint": get_embedder(given.encoder).fingerprint,
        **{fact: made[fact] for fact in ("command", "commit")},
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }
    name = given.encoder + (f"-without-{given.without}" if given.without else "")
    given.out.mkdir(parents=True, exist_ok=True)
    replace(prior, about=about).save(given.out / name)
    settings = {h: [dict(v) for v in p.settings.values()] for h, p in prior.heads.items()}
    print(
        f"{name}: {prior.metric.settings}, centre {prior.centre_prior}, {settings}, "
        f"{time.monotonic() - begun:.0f} s",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
