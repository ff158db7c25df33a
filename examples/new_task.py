"""Master a new task with a trained run: a few labelled pictures in, labels of other pictures out.

python examples/new_task.py runs/x support/ query/

``support/`` holds one folder of pictures per class; ``query/`` the pictures to be labelled.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from quickstudy.core import Examples
from quickstudy.runs.folder import load_run
from quickstudy.tasks.fit import fit_images
from quickstudy.tasks.folders import pool_from_folder
from quickstudy.tasks.images import IMAGE_SUFFIXES, read_image


def main(run_folder: str, support_folder: str, query_folder: str) -> None:
    run = load_run(Path(run_folder))
    size, channels = run.recipe.encoder.image_size, run.recipe.encoder.in_channels
    pool = pool_from_folder(Path(support_folder), size=size, channels=channels)
    invert = "auto" if channels == 1 else "no"
    fitted = fit_images(pool, channels=channels, size=size, invert=invert)
    # one task: [T=1, S, ...]
    support = Examples.full(fitted.x[None].float() / 255, fitted.y[None])
    state = run.learner.adapt(support, n_way=pool.n_classes)

    files = sorted(p for p in Path(query_folder).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise SystemExit(f"no pictures in {query_folder}")
    turned = not torch.equal(fitted.x, pool.x)  # the queries are inverted as the support was
    images = [
        read_image(file, size=size, channels=channels, what=str(file), invert=turned)
        for file in files
    ]
    with torch.no_grad():
        logits = run.learner.predict(state, torch.stack(images)[None].float() / 255)[0]  # [Q, C]
    for file, scores in zip(files, logits.softmax(1), strict=True):
        best = int(scores.argmax())
        print(f"{file}: {pool.class_names[best]} ({100 * float(scores[best]):.0f} %)")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
