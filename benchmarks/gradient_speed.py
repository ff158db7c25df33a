"""How fast and how large: the meta-gradient of MAML, against learn2learn, higher and torchopt.

python benchmarks/gradient_speed.py            (after `make bench-peers`; about ten minutes)

prints a table and writes docs/results/gradient-speed.json. All libraries differentiate the very
same network on the very same 32 tasks, in one process and in turn; their gradients are compared
first. Memory is the peak of a process of its own above what it held before. Freed memory is kept by
the C library for all of them (``keep_freed_memory``): it helps the others too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from machine import provenance, write_result
from peers import higher, learn2learn, torchopt
from quickstudy.core import Episode, Examples
from quickstudy.core.allocator import keep_freed_memory
from quickstudy.learners import FOMAML, MAML, InnerLoop
from quickstudy.training import TrainConfig
from quickstudy.training.step import meta_gradient

TASKS, LR, QUERY = 32, 0.4, 1
SETTINGS = [(ways, steps) for ways in (5, 20) for steps in (1, 5)]


class Mean(nn.Module):
    """Average over positions."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C, h, w] -> [N, C]``."""
        return x.mean((2, 3))


def network(ways: int) -> nn.Module:
    """Return MAML's Omniglot network: Conv-4 with stride 2, batch statistics."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (1, 64, 64, 64):
        layers += [
            nn.Conv2d(inputs, 64, 3, 2, 1, bias=False),
            nn.BatchNorm2d(64, track_running_stats=False),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, Mean(), nn.Linear(64, ways))


def episode(ways: int, device: str) -> Episode:
    """Return 32 tasks of noise: speed does not depend on what the pictures show."""
    draw = torch.Generator().manual_seed(0)
    sides = [torch.randn(TASKS, ways * n, 1, 28, 28, generator=draw) for n in (1, QUERY)]
    labels = [torch.arange(ways).repeat(TASKS, n) for n in (1, QUERY)]
    support, query = (Examples.full(x, y) for x, y in zip(sides, labels, strict=True))
    return Episode(support, query, ways).to(device)


Backward = Callable[[], None]


def with_quickstudy(
    net: nn.Module, tasks: Episode, steps: int, order: str, *, memory: str, at_once: int | None
) -> Backward:
    """Return our meta-gradient step."""
    kind = MAML if order == "second" else FOMAML
    loop = InnerLoop(steps=steps, lr=LR, memory=memory)  # type: ignore[arg-type]
    learner = kind(net, head=None, inner=loop, query_statistics="query").train()
    config = TrainConfig(tasks_per_step=TASKS, tasks_at_once=at_once)
    return lambda: void(meta_gradient(learner, tasks, config, progress=1.0))


def void(_: object) -> None:
    """Drop a result."""


def with_learn2learn(net: nn.Module, tasks: Episode, steps: int, order: str) -> Backward:
    """Return the loop of learn2learn's examples."""
    maml = learn2learn().MAML(net, lr=LR, first_order=order == "first")

    def run() -> None:
        for t in range(TASKS):
            clone = maml.clone()
            for _ in range(steps):
                clone.adapt(F.cross_entropy(clone(tasks.support.x[t]), tasks.support.y[t]))
            loss = F.cross_entropy(clone(tasks.query.x[t]), tasks.query.y[t])
            (loss / TASKS).backward()

    return run


def with_higher(net: nn.Module, tasks: Episode, steps: int, order: str) -> Backward:
    """Return the loop of higher's examples."""
    optimiser = torch.optim.SGD(net.parameters(), lr=LR)
    library = higher()

    def run() -> None:
        for t in range(TASKS):
            with library.innerloop_ctx(
                net, optimiser, copy_initial_weights=False, track_higher_grads=order == "second"
            ) as (fast, steps_of):
                for _ in range(steps):
                    steps_of.step(F.cross_entropy(fast(tasks.support.x[t]), tasks.support.y[t]))
                loss = F.cross_entropy(fast(tasks.query.x[t]), tasks.query.y[t])
                (loss / TASKS).backward()

    return run


def with_torchopt(net: nn.Module, tasks: Episode, steps: int, order: str) -> Backward:
    """Return the loop of torchopt's examples; it has no first order."""
    del order
    library = torchopt()
    optimiser = library.MetaSGD(net, lr=LR)
    start = library.extract_state_dict(net, by="reference")
    fresh = library.extract_state_dict(optimiser, by="reference")

    def run() -> None:
        for t in range(TASKS):
            for _ in range(steps):
                optimiser.step(F.cross_entropy(net(tasks.support.x[t]), tasks.support.y[t]))
            loss = F.cross_entropy(net(tasks.query.x[t]), tasks.query.y[t])
            (loss / TASKS).backward()
            library.recover_state_dict(net, start)
            library.recover_state_dict(optimiser, fresh)

    return run


LIBRARIES: dict[str, Callable[..., Backward]] = {
    "quickstudy": lambda *a: with_quickstudy(*a, memory="unrolled", at_once=None),
    "quickstudy, flat": lambda *a: with_quickstudy(*a, memory="flat", at_once=None),
    "quickstudy, flat, one task at once": lambda *a: with_quickstudy(*a, memory="flat", at_once=1),
    "learn2learn": with_learn2learn,
    "higher": with_higher,
    "torchopt": with_torchopt,
}


def plays(name: str, order: str) -> bool:
    """Whether a library has this order: higher's drops the gradient of the start, torchopt's has
    none."""
    return order == "second" or name not in ("higher", "torchopt")


def timed(action: Backward, device: str) -> float:
    """Return the seconds of one call."""
    begin = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def speeds(rounds: int, device: str) -> list[dict[str, Any]]:
    """Return tasks per second of each library in each setting, measured in turn."""
    rows = []
    a = torch.randn(2000, 2000, device=device)
    for ways, steps in SETTINGS:
        tasks = episode(ways, device)
        for order in ("second", "first"):
            nets = {n: network(ways).to(device) for n in LIBRARIES if plays(n, order)}
            actions = {n: LIBRARIES[n](net, tasks, steps, order) for n, net in nets.items()}
            for action in actions.values():
                action()
            gap = largest_gap(nets)
            taken: dict[str, list[float]] = {n: [] for n in actions}
            products = []
            for _ in range(rounds):
                products.append(timed(lambda: void(a @ a), device))
                for name, action in actions.items():
                    nets[name].zero_grad(set_to_none=True)
                    taken[name].append(timed(action, device))
            rate = {n: TASKS / statistics.median(t) for n, t in taken.items()}
            best = max((n for n in rate if not n.startswith("quickstudy")), key=rate.__getitem__)
            flops = arithmetic(ways, steps, order) * rate["quickstudy"]
            rows.append(
                {
                    "n_way": ways,
                    "inner_steps": steps,
                    "order": order,
                    "tasks_per_second": {n: round(r, 1) for n, r in rate.items()},
                    "best_peer": best,
                    "times_best_peer": round(rate["quickstudy"] / rate[best], 2),
                    "share_of_matrix_product": round(
                        flops / (2 * 2000**3 / statistics.median(products)), 2
                    ),
                    "largest_gradient_gap": gap,
                }
            )
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def largest_gap(nets: dict[str, nn.Module]) -> float:
    """Return the largest relative difference between our gradient and another library's."""
    flat = {
        n: torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        for n, net in nets.items()
    }
    ours = flat["quickstudy"]
    return max(float((g - ours).norm() / ours.norm()) for g in flat.values())


def arithmetic(ways: int, steps: int, order: str) -> float:
    """Return the arithmetic of one task's convolutions.

    Forward, and backward by input and by filters, make three passes over a batch. A second-order
    step makes nine: those three, and for its derivative two for each of the two backward ones and
    two for the forward one. No gradient goes to the images themselves.
    """
    side, inputs, rest, first = 28, 1, 0.0, 0.0
    for block in range(4):
        side = (side + 1) // 2
        one = 2.0 * side * side * 64 * inputs * 9
        first, rest = (one, rest) if block == 0 else (first, rest + one)
        inputs = 64
    step = 3 * rest + 2 * first if order == "first" else 9 * rest + 5 * first
    return ways * (steps * step + QUERY * (3 * rest + 2 * first))


def measure_memory(name: str, ways: int, steps: int) -> None:
    """Print the peak of this process above its start, in MB; runs in a process of its own."""
    keep_freed_memory()
    # some 70 MB of code that torch.autograd.grad loads when it is first given grad_outputs, as a
    # Hessian product does: whether a library does so is no matter of what it keeps of the tasks
    importlib.import_module("torch.fx.experimental.symbolic_shapes")
    tasks = episode(ways, "cpu")
    action = LIBRARIES[name](network(ways), tasks, steps, "second")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _status("VmRSS")
    action()
    print(json.dumps((_status("VmHWM") - before) / 1024))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise KeyError(field)


def memory() -> list[dict[str, Any]]:
    """Return the peak memory of each library in each setting, and of flat memory by steps."""
    rows = []
    cells = [(n, w, s) for w, s in SETTINGS for n in LIBRARIES]
    cells += [
        (n, 5, s) for s in (2, 10, 20) for n in LIBRARIES if n.startswith(("quick", "learn2"))
    ]
    for name, ways, steps in cells:
        words = [sys.executable, __file__, "--memory", name, str(ways), str(steps)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        megabytes = round(json.loads(done.stdout.splitlines()[-1]), 1)
        rows.append({"library": name, "n_way": ways, "inner_steps": steps, "peak_mb": megabytes})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        measure_memory(given.memory[0], int(given.memory[1]), int(given.memory[2]))
        return
    keep_freed_memory()
    document = {
        "name": "gradient-speed" if given.device == "cpu" else "gradient-speed-gpu",
        **provenance(seeds=[0]),
        "what": "Conv-4 with stride 2, 64 channels, batch statistics; 1-shot, 1 query per class; "
        f"{TASKS} tasks; float32",
        "peers": {
            "learn2learn": learn2learn().version,
            "higher": higher().version,
            "torchopt": torchopt().__version__,
        },
        "wanted": {"times_best_peer": 2},
        "speed": speeds(given.rounds, given.device),
        "memory": memory() if given.device == "cpu" else [],
    }
    write_result(str(document["name"]), document, given.results)


if __name__ == "__main__":
    main()
