"""Flat memory, seen from outside: the size of the process and not that of the live tensors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_PROBE = """
import ctypes, gc, json
from pathlib import Path
import torch
from quickstudy.core import EpisodeSpec
from quickstudy.core.allocator import keep_freed_memory
from quickstudy.learners import MAML, InnerLoop
from quickstudy.nets import Conv4
from quickstudy.tasks import PoolSource
from quickstudy.testing import gaussian_pool

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

def peak(steps):
    net = Conv4(image_size=84, channels=16, norm="support", downsample="stride")
    learner = MAML(net, n_way=5, inner=InnerLoop(steps=steps, lr=0.01, memory="flat"))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier steps freed could be used without being counted
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = status("VmRSS")
    learner.training_loss(batch, progress=1.0).sum().backward()
    return status("VmHWM") - before

keep_freed_memory()  # as training does
torch.set_num_threads(1)
source = PoolSource(gaussian_pool(5, 2, (1, 84, 84)))
batch = source.episodes(EpisodeSpec(5, 1, 1), [0], seed=0)
peak(2)  # loads code
print(json.dumps([peak(1), peak(40)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which only Linux has")
def test_the_process_hardly_grows_with_the_inner_steps():
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    one, forty = json.loads(done.stdout)
    # 1.1 MB of it are the stored parameters; with a block for each step it is three times as much
    assert forty < 2 * one + 1.1, f"{one:.1f} MB for 1 step, {forty:.1f} MB for 40"
