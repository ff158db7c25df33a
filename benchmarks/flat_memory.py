"""How much a process grows with the inner steps when the inner loop runs in flat memory.

python benchmarks/flat_memory.py            (about two minutes)

prints a table and writes docs/results/flat-memory.json. Each number is the peak of a process of its
own above what it held before the meta-gradient, on images large enough that activations outweigh
the stored parameters.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from machine import provenance, write_result
from quickstudy.core import EpisodeSpec
from quickstudy.core.allocator import keep_freed_memory
from quickstudy.learners import MAML, InnerLoop
from quickstudy.nets import Conv4
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool
from quickstudy.training import TrainConfig
from quickstudy.training.step import meta_gradient

SIZE, TASKS, STEPS = 84, 2, (1, 5, 20, 40)


def measure(steps: int) -> None:
    """Print peak, stored parameters (MB) and processor seconds; runs in a process of its own."""
    keep_freed_memory()
    torch.set_num_threads(2)
    source = PoolSource(gaussian_pool(10, 6, (1, SIZE, SIZE)))
    tasks = source.episodes(EpisodeSpec(5, 1, 1), range(TASKS), seed=0)
    config = TrainConfig(n_way=5, n_query=1, tasks_per_step=TASKS, tasks_at_once=1)

    def learner(inner_steps: int) -> MAML:
        torch.manual_seed(0)
        net = Conv4(image_size=SIZE, norm="support", downsample="stride")
        return MAML(net, n_way=5, inner=InnerLoop(inner_steps, lr=0.01, memory="flat")).train()

    meta_gradient(learner(2), tasks, config, progress=1.0)  # loads code
    measured = learner(steps)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before, begin = _status("VmRSS"), time.process_time()
    meta_gradient(measured, tasks, config, progress=1.0)
    seconds = time.process_time() - begin
    size = sum(p.numel() * p.element_size() for p in measured.parameters())
    row = {
        "inner_steps": steps,
        "peak_mb": round((_status("VmHWM") - before) / 1024, 1),
        "stored_parameters_mb": round(size * (steps - 1) * TASKS / 2**20, 1),
        "cpu_seconds_per_inner_step": round(seconds / steps, 3),
    }
    print(json.dumps(row))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise KeyError(field)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.steps:
        measure(given.steps)
        return
    rows: list[dict[str, Any]] = []
    for steps in STEPS:
        words = [sys.executable, __file__, "--steps", str(steps)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    document = {
        "name": "flat-memory",
        **provenance(seeds=[0]),
        "what": f"MAML, Conv-4 with stride 2, 64 channels, support norm; {SIZE} x {SIZE} images, "
        f"5-way 1-shot, {TASKS} tasks, one on each of two threads; float32",
        "memory": rows,
    }
    write_result("flat-memory", document, given.results)


if __name__ == "__main__":
    main()
