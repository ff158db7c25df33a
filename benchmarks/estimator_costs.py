"""Time and memory of the estimator on real pictures: first answer, a new class, another runtime.

    python benchmarks/estimator_costs.py          (needs QUICKSTUDY_DATA and the extras image, onnx)

* A new process with an empty cache learns 25 JPEG files of miniImageNet's test classes and answers
  for 25 more: seconds with all imports, and peak memory.
* A task of 1,000 classes (Omniglot's training characters, 5 pictures each) gets one class more, 5
  files that were never embedded.
* A Conv-4 with its head as an ONNX graph against the same in eager torch, same pixels, one thread
  each, medians of pairs: the shipped net (128 channels, five views of a drawing) and the field's
  (64 channels, one view), which learns 5-way 5-shot and answers 75 queries, or has learned and
  answers one.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from machine import provenance, write_result
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.choose import get_embedder
from quickstudy.estimators import FewShotClassifier
from quickstudy.nets import Conv4

FIRST = """
import resource, sys, time
start = time.perf_counter()
from pathlib import Path
from quickstudy.estimators import FewShotClassifier
files = sorted(Path(sys.argv[1]).glob("train/*/*.jpg"))
clf = FewShotClassifier("image").fit(files, [f.parent.name for f in files])
answers = clf.predict(sorted(Path(sys.argv[1]).glob("test/*/*.jpg")))
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def images(name: str, split: str) -> dict[str, list[bytes]]:
    """Return the image files of each class."""
    path = Path(os.environ["QUICKSTUDY_DATA"]) / "images" / f"{name}.parquet"
    table = pq.read_table(path, filters=[("split", "=", split)], columns=["image", "label"])
    found: dict[str, list[bytes]] = {}
    for label, image in zip(table["label"].to_pylist(), table["image"].to_pylist(), strict=True):
        found.setdefault(str(label), []).append(image["bytes"])
    return found


def first_answer(pictures: dict[str, list[bytes]], folder: Path) -> dict[str, float]:
    for label, files in list(pictures.items())[:5]:
        for i, data in enumerate(files[:10]):
            path = folder / ("train" if i < 5 else "test") / label / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.open(io.BytesIO(data)).convert("RGB").save(path, quality=95)
    seconds, megabytes = [], []
    for i in range(3):
        environment = os.environ | {"XDG_CACHE_HOME": str(folder / f"cache{i}")}
        done = subprocess.run(
            [sys.executable, "-c", FIRST, str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        time_taken, memory = map(float, done.stdout.split())
        seconds.append(time_taken)
        megabytes.append(memory)
    return {
        "seconds": round(statistics.median(seconds), 2),
        "peak_megabytes": round(max(megabytes)),
        "wanted_seconds": 60,
        "wanted_megabytes": 1500,
    }


def new_class(characters: dict[str, list[bytes]]) -> dict[str, Any]:
    """Return how long a class more takes in a task of 1,000 classes."""
    names = sorted(characters)
    if len(names) < 1010:
        raise SystemExit(f"needs 1,010 classes, there are {len(names)}")
    out: dict[str, Any] = {}
    embedder = get_embedder("characters", cache=EmbeddingCache(disk=False))
    x = [image for name in names[:1000] for image in characters[name][:5]]
    for head in ("auto", "class-mean"):
        clf = FewShotClassifier(embedder, head=head).fit(x, np.repeat(names[:1000], 5))
        taken = [clf.add_class(name, characters[name][:5]).seconds for name in names[1000:1009]]
        out[f"characters, head={head} ({clf.head_})"] = {
            "seconds": round(statistics.median(taken), 3),
            "slowest": round(max(taken), 3),
        }
        print(head, out, file=sys.stderr, flush=True)
    return out | {"wanted_seconds": 1.0}


def other_runtimes(characters: dict[str, list[bytes]], folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    names = sorted(characters)[:5]
    support = [image for name in names for image in characters[name][:5]]
    query = [image for name in names for image in characters[name][5:20]]
    labels = np.repeat(names, 5)
    shipped = FewShotClassifier("characters", head="prototype").fit(support, labels)
    torch.manual_seed(0)
    pixels = [np.stack([drawing(image) for image in part]) for part in (support, query)]
    plain = FewShotClassifier(Conv4().eval(), head="prototype").fit(pixels[0], labels)
    return {
        "shipped, 128 channels, 5 views: learn 25, answer 75": other_runtime(
            shipped, support, query, folder
        ),
        "64 channels: learn 25, answer 75": other_runtime(plain, *pixels, folder),
        "64 channels: learn 25, answer 1": other_runtime(plain, pixels[0], pixels[1][:1], folder),
        "64 channels, learned: answer 1": other_runtime(
            plain, pixels[0], pixels[1][:1], folder, fixed=True
        ),
        "wanted_times_faster": 3.0,
    }


def drawing(data: bytes) -> np.ndarray:
    """Return an image as the field feeds it to a Conv-4: one channel, 28 by 28, ink is 1."""
    image = Image.open(io.BytesIO(data)).convert("L").resize((28, 28))
    return 1 - np.asarray(image, dtype=np.float32)[None] / 255


def other_runtime(
    clf: FewShotClassifier, support: Any, query: Any, folder: Path, *, fixed: bool = False
) -> dict[str, Any]:
    """Return the times of one classifier; ``fixed``: the task is part of the graph."""
    import onnxruntime

    clf.export_onnx(folder / "c.onnx", support_as_input=not fixed)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(folder / "c.onnx"), options, providers=["CPUExecutionProvider"]
    )
    x, q = clf.inputs(support), clf.inputs(query)
    member = np.eye(5, dtype=np.float32).repeat(5, 0)
    feed = {"query": q} if fixed else {"support": x, "membership": member, "query": q}
    embedder, task = clf.embedder_, clf.fitted_task
    net = embedder.network().net
    assert net is not None
    y = torch.arange(5).repeat_interleave(5)

    def eager() -> np.ndarray:
        from quickstudy.core import Examples

        with torch.inference_mode():
            if fixed:
                return task.proba(net(torch.from_numpy(q))).numpy()
            z, zq = net(torch.from_numpy(x)), net(torch.from_numpy(q))
            prior = task.prior
            examples = Examples.full(prior.transform(z)[None], y[None])
            state = task.head.adapt(examples, n_way=5)
            logits = task.head.predict(state, prior.transform(zq)[None])[0]
            return (logits / task.temperature).softmax(1).numpy()

    def graph() -> np.ndarray:
        answer: np.ndarray = session.run(["probabilities"], feed)[0]
        return answer

    difference = float(np.abs(eager() - graph()).max())
    ratios, times = [], []
    for _ in range(40):
        start = time.perf_counter()
        eager()
        middle = time.perf_counter()
        graph()
        end = time.perf_counter()
        ratios.append((middle - start) / (end - middle))
        times.append((middle - start, end - middle))
    return {
        "largest_difference": difference,
        "eager_milliseconds": round(1000 * statistics.median(t[0] for t in times), 1),
        "onnxruntime_milliseconds": round(1000 * statistics.median(t[1] for t in times), 1),
        "times_faster": round(statistics.median(ratios), 2),
        "quartiles": [round(v, 2) for v in np.quantile(ratios, [0.25, 0.75]).tolist()],
    }


def main() -> None:
    """Measure, print, write."""
    pictures, characters = images("miniimagenet", "test"), images("omniglot", "background")
    characters |= images("omniglot", "evaluation")
    with tempfile.TemporaryDirectory() as folder:
        costs = {
            "first_answer_25_pictures": first_answer(pictures, Path(folder)),
            "class_added_to_1000": new_class(characters),
            "onnx_conv4": other_runtimes(characters, Path(folder)),
        }
    print(json.dumps(costs, indent=1), file=sys.stderr)
    write_result(
        "estimator-costs", {"name": "estimator-costs", **provenance(seeds=[0]), "scores": costs}
    )


if __name__ == "__main__":
    main()
