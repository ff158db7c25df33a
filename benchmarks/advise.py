"""Is the advice right, and do its intervals hold? Asked of examples that it has not seen.

    python benchmarks/advise.py text tables images --embeddings FOLDER       (needs QUICKSTUDY_DATA)

``advise`` sees one part of each set: the training rows, where there are test rows of the same
classes, else half of the contents (of the training classes, where the split is by class). Then
every approach is measured in full on the other part: more episodes, another seed. ``--embeddings``
holds NAME.npz of texts (benchmarks/embed.py text writes them). Sets that docs/results/advise.json
holds already are kept unless ``--again``; ``--only`` names sets.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from machine import ROOT, provenance, write_result
from quickstudy.advice.advise import advise
from quickstudy.advice.approaches import candidate_families
from quickstudy.advice.choice import run_episodes
from quickstudy.advice.episodes import take_sample
from quickstudy.advice.records import Advice
from quickstudy.core import uniforms
from quickstudy.embedders.base import Item
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.choose import get_embedder
from quickstudy.embedders.inputs import read_texts
from quickstudy.embedders.pictures import read_images
from quickstudy.embedders.tables import TableEmbedder
from quickstudy.tasks.labelled import LabelledFiles, read_examples

TEXTS = (
    *("banking77", "clinc150", "huffpost41", "snips", "stackoverflow20", "trec6"),
    *("ag_news_test", "sst2"),
)
TABLES = (
    *("australian", "balance_scale", "car", "cmc", "german", "letter", "mfeat_fourier"),
    *("nursery", "optdigits", "penguins", "phoneme", "satimage", "segmentation", "vehicle"),
    *("vowel", "yeast"),
)
IMAGES = (
    "cifar_fs",
    "dtd10",
    "gtsrb",
    "quickdraw",
    "omniglot",
    "mnist",
    "fashionmnist",
    "miniimagenet",
)
KINDS = {"text": ("text", TEXTS), "tables": ("tabular", TABLES), "images": ("images", IMAGES)}
GROUP = "track"
TRAIN, TEST = ("train", "background"), "test"
FEWEST_TEST = 12  # of each class, or the training rows are halved instead
IMAGES_IN_ALL, IMAGES_OF_A_CLASS = 600, 36
EPISODES = {"text": 100, "tables": 200, "images": 100}
WHOLE_EPISODES, SEED = 8, 1


def part(read: LabelledFiles, rows: np.ndarray) -> LabelledFiles:
    """Return some of the examples, without other columns than the group."""
    taken = read.take(rows)
    groups = groups_of(taken)
    return replace(taken, columns={} if groups is None else {GROUP: groups})


def groups_of(read: LabelledFiles) -> list[str] | None:
    """Return the physical sign of each frame of GTSRB, whose tracks are counted in each class."""
    if GROUP not in read.columns:
        return None
    pairs = zip(read.y, read.columns[GROUP], strict=True)
    return [str(t) if "/" in str(t) else f"{y}/{t}" for y, t in pairs]


def items_of(read: LabelledFiles) -> list[Item]:
    """Return the examples as embedders read them."""
    if read.kind == "table":
        return TableEmbedder().read(read.x)
    return read_texts(read.x) if read.kind == "text" else read_images(read.x)


def two_parts(read: LabelledFiles) -> tuple[LabelledFiles, LabelledFiles, str]:
    """Return what ``advise`` sees, what it is judged on, and how they were parted."""
    split = np.array([str(s) for s in read.columns.get("split", [TRAIN[0]] * len(read.y))])
    label = np.array([str(y) for y in read.y])
    train, test = np.flatnonzero(np.isin(split, TRAIN)), np.flatnonzero(split == TEST)
    if not len(train):
        train = np.arange(len(label))
    names, counts = np.unique(label[test], return_counts=True)
    if set(names) == set(label[train]) and counts.min() >= FEWEST_TEST:
        return part(read, train), part(read, test), "train and test rows"
    items = items_of(part(read, train))
    if read.kind == "image":
        sample = take_sample(
            [i.key for i in items],
            label[train].tolist(),
            groups=groups_of(part(read, train)),
            most=IMAGES_IN_ALL,
            fewest=IMAGES_OF_A_CLASS,
        )
        train, items = train[sample.rows], [items[row] for row in sample.rows]
    groups = groups_of(part(read, train))
    keys = [i.key for i in items] if groups is None else groups
    _, content = np.unique(keys, return_inverse=True)
    first = uniforms(SEED, content) < 0.5
    how = "halves by content" if groups is None else f"halves by {GROUP}"
    return part(read, train[first]), part(read, train[~first]), how


def filled_cache(name: str, items: list[Item], folder: Path | None) -> EmbeddingCache | None:
    """Return a cache that holds the embeddings of a folder, or ``None`` for the shared one."""
    path = None if folder is None else folder / f"{name}.npz"
    if path is None or not path.exists():
        return None
    embedder = get_embedder("text")
    data = np.load(path)
    if str(data["fingerprint"]) != embedder.fingerprint or len(data["z"]) != len(items):
        raise SystemExit(f"{path} is of another encoder or another file. Make it again.")
    cache = EmbeddingCache(disk=False)
    cache.put(embedder.fingerprint, [i.key for i in items], data["z"])
    return cache


def score(kind: str, name: str, embeddings: Path | None) -> dict[str, Any]:
    """Return what became of the advice on one set."""
    folder = KINDS[kind][0]
    read = read_examples(
        Path(os.environ["QUICKSTUDY_DATA"]) / folder / f"{name}.parquet", every_part=True
    )
    items = items_of(read) if kind == "text" else []
    cache = filled_cache(name, items, embeddings) if kind == "text" else None
    seen, unseen, how = two_parts(read)
    groups = groups_of(unseen)
    advice = advise(seen, group=None if groups is None else GROUP, cache=cache)
    begun = time.monotonic()
    others = items_of(unseen)
    sample = take_sample(
        [i.key for i in others],
        [str(y) for y in unseen.y],
        groups=groups,
        most=5000 if kind == "tables" else 2000,
        per_class=1000 if kind == "tables" else 300,
        seed=SEED,
    )
    families, _ = candidate_families(
        read.kind, [others[row] for row in sample.rows], seed=SEED, cache=cache
    )
    able = [e.k_shot for e in advice.expected]
    full = run_episodes(
        sample,
        families,
        shots=able,
        n_way=advice.expected[0].n_way,
        episodes=EPISODES[kind],
        seed=SEED,
    )
    means = {
        approach: {k: float(np.mean(full[k][approach].scores)) for k in able}
        for approach in full[able[0]]
    }
    overall = {approach: float(np.mean(list(by.values()))) for approach, by in means.items()}
    best, mine = max(overall, key=overall.__getitem__), advice.chosen.name
    held = [_held(e, full[e.k_shot][mine].scores) for e in advice.expected]
    family = next(f for f in families if mine in [c.name for c in f.candidates])
    for e in advice.whole if len(sample.classes) == advice.facts.classes else ():
        more = run_episodes(
            sample,
            [family.frozen()],
            shots=[e.k_shot],
            n_way=e.n_way,
            episodes=WHOLE_EPISODES,
            seed=SEED,
            only=[mine],
        )
        held.append(_held(e, more[e.k_shot][mine].scores))
    return {
        "kind": kind,
        "parts": how,
        "examples": {"advise": advice.facts.used, "full": len(sample.rows)},
        "advised": mine,
        "best": best,
        "regret": overall[best] - overall[mine],
        "largest_regret_at_a_shot": max(
            max(by[k] for by in means.values()) - means[mine][k] for k in able
        ),
        "full": {a: {str(k): round(v, 4) for k, v in by.items()} for a, by in means.items()},
        "expected": held,
        "one_more_label": _gain(advice),
        "seconds": {"advise": advice.seconds, "full": time.monotonic() - begun},
        "commit": provenance(seeds=[SEED])["commit"],
    }


def _held(e: Any, scores: list[float]) -> dict[str, Any]:
    """Return an expectation beside what came of it."""
    later = float(np.mean(scores))
    return {
        "n_way": e.n_way,
        "k_shot": e.k_shot,
        "mean": e.mean,
        "one_draw": [e.low, e.high],
        "many_draws": [e.mean_low, e.mean_high],
        "later": later,
        "later_in_one_draw": e.low <= later <= e.high,
        "later_in_many_draws": e.mean_low <= later <= e.mean_high,
        "share_of_later_episodes_in_one_draw": float(
            np.mean([e.low <= s <= e.high for s in scores])
        ),
        "episodes": len(scores),
    }


def _gain(advice: Advice) -> dict[str, Any] | None:
    return advice.to_dict()["one_more_label"]


def summary(sets: dict[str, Any]) -> dict[str, Any]:
    """Return the shares that the advice must hold, over sets and over intervals."""
    found: dict[str, Any] = {}
    for kind in ("all", *KINDS):
        rows = [s for s in sets.values() if kind in ("all", s["kind"])]
        if not rows:
            continue
        held = [e for s in rows for e in s["expected"]]
        regrets = [s["regret"] for s in rows]
        found[kind] = {
            "sets": len(rows),
            "within_2_points": float(np.mean([r <= 0.02 for r in regrets])),
            "mean_regret": float(np.mean(regrets)),
            "largest_regret": max(regrets),
            "intervals": len(held),
            "hold_later_mean_one_draw": float(np.mean([e["later_in_one_draw"] for e in held])),
            "hold_later_mean_many_draws": float(np.mean([e["later_in_many_draws"] for e in held])),
            "hold_single_later_episodes": float(
                np.mean([e["share_of_later_episodes_in_one_draw"] for e in held])
            ),
            "median_seconds": float(np.median([s["seconds"]["advise"] for s in rows])),
        }
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="+", choices=sorted(KINDS))
    parser.add_argument("--embeddings", type=Path, default=None)
    parser.add_argument("--only", nargs="+", default=None)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--out", type=Path, default=None, help="another folder than docs/results")
    given = parser.parse_args()
    path = (given.out or ROOT / "docs" / "results") / "advise.json"
    sets: dict[str, Any] = {}
    if path.exists():
        sets = json.loads(path.read_text(encoding="utf-8"))["sets"]
    for kind in given.kinds:
        for name in KINDS[kind][1]:
            if (given.only and name not in given.only) or (name in sets and not given.again):
                continue
            sets[name] = score(kind, name, given.embeddings)
            s = sets[name]
            line = f"{name}: {s['advised']}, regret {100 * s['regret']:.2f}, {s['seconds']}"
            print(line, file=sys.stderr, flush=True)
            document = {
                "name": "advise",
                "what": "advice on one part of each set, judged on the other",
                "full_episodes": EPISODES,
                "summary": summary(sets),
                "sets": sets,
                **provenance(seeds=[0, SEED]),
            }
            write_result("advise", document, given.out)


if __name__ == "__main__":
    main()
