"""How fast: evaluation against easyfsl, the training step against a matrix product, sampling
against training.

python benchmarks/speed.py

prints JSON and writes docs/results/speed.json; about two minutes on 2 cores.

Everything is a ratio of two things measured in this process, in turn, several times: machines
are noisy.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from machine import provenance, write_result
from peers import easyfsl
from quickstudy.core import EpisodeSpec
from quickstudy.core.allocator import keep_freed_memory
from quickstudy.evaluation import evaluate
from quickstudy.learners import Learner, PrototypicalNetwork
from quickstudy.learners.metric import PrototypeHead
from quickstudy.nets import Conv4
from quickstudy.tasks import AffineJitter, AugmentedSource, Pool, PoolSource
from quickstudy.training import TrainConfig
from quickstudy.training.step import batch_loss, build_optimiser


def seconds(action: Callable[[], object], times: int) -> float:
    """Return the median wall time of an action, after one warm-up."""
    action()
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def character_pool(classes: int, per_class: int = 20) -> Pool:
    """Return random images shaped like Omniglot: speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (classes * per_class, 1, 28, 28), generator=generator)
    y = torch.arange(classes).repeat_interleave(per_class)
    return Pool(x.to(torch.uint8), y, tuple(map(str, range(classes))), "random characters", "train")


class Backbone(torch.nn.Module):
    """Our Conv-4 as the plain module that easyfsl wants."""

    def __init__(self, encoder: Conv4) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return embeddings ``[B, 64]``."""
        return self.encoder.encode(x[None])[0][0]


def evaluation(rounds: int) -> dict[str, Any]:
    """10,000 episodes, and easyfsl's evaluation loop on such episodes, per episode.

    Twice: with embeddings cached on both sides; and from images, where easyfsl embeds each
    episode (as in its tutorials) and we embed the pool once.
    """
    peer = easyfsl()
    pool = character_pool(423)
    z = torch.randn(len(pool.y), 64, generator=torch.Generator().manual_seed(1))
    spec, network = EpisodeSpec(20, 1, 15), PrototypicalNetwork(Conv4()).eval()

    def theirs(x: torch.Tensor, backbone: torch.nn.Module, tasks: int) -> float:
        data = peer.FeaturesDataset(pool.y.tolist(), x, list(pool.class_names))
        model = peer.PrototypicalNetworks(backbone)
        sampler = peer.TaskSampler(data, n_way=20, n_shot=1, n_query=15, n_tasks=tasks)
        loader = DataLoader(data, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)

        def run() -> None:
            with torch.no_grad():
                peer.evaluate(model, loader, device="cpu", use_tqdm=False)

        return seconds(run, 1) / tasks

    def ours(learner: Learner, source: PoolSource) -> float:
        return seconds(lambda: evaluate(learner, source, spec, episodes=10_000), 1)

    images = pool.x.float() / 255
    taken: dict[str, list[float]] = {"ours": [], "theirs": [], "images": [], "their_images": []}
    for _ in range(rounds):
        taken["ours"].append(ours(PrototypeHead(), PoolSource(pool.with_x(z))))
        taken["theirs"].append(theirs(z, torch.nn.Identity(), 100))
        taken["images"].append(ours(network, PoolSource(pool)))
        taken["their_images"].append(theirs(images, Backbone(network.encoder), 20))
    mine, other, mine_images, other_images = (statistics.median(t) for t in taken.values())
    return {
        "episodes": 10_000,
        "spec": "20-way 1-shot 15-query, 64 features",
        "seconds": mine,
        "easyfsl_version": peer.version,
        "easyfsl_seconds_per_episode": other,
        "times_faster_per_episode": other / (mine / 10_000),
        "from_images": {
            "seconds": mine_images,
            "easyfsl_seconds_per_episode": other_images,
            "times_faster_per_episode": other_images / (mine_images / 10_000),
        },
        "wanted": {"seconds": 10, "times_faster_per_episode": 50},
    }


def conv4_flops(images: int) -> float:
    """Return the arithmetic of the convolutions of one step, forward and backward."""
    total, inputs, side = 0, 1, 28
    for block in range(4):
        forward = 2 * side * side * 64 * inputs * 9
        # the first block needs no gradient for its input
        total += forward * (3 if block else 2)
        inputs, side = 64, side // 2
    return float(total * images)


def training_step(rounds: int) -> dict[str, Any]:
    """60-way 1-shot 5-query steps in both precisions between large matrix products."""
    source = PoolSource(character_pool(1000))
    a, b = torch.randn(3000, 3000), torch.randn(3000, 3000)
    torch.manual_seed(0)
    learner = PrototypicalNetwork(Conv4()).train()
    configs = {
        name: TrainConfig(n_way=60, n_query=5, precision=name)  # type: ignore[arg-type]
        for name in ("float32", "bfloat16")
    }
    optimiser = build_optimiser(learner, configs["float32"])
    episode = source.episodes(configs["float32"].spec, [0], seed=0)

    def step(name: str) -> None:
        loss = batch_loss(learner, episode, configs[name]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    taken: dict[str, list[float]] = {"product": [], "float32": [], "bfloat16": []}
    for _ in range(rounds):
        taken["product"].append(seconds(lambda: a @ b, 5))
        taken["float32"].append(seconds(lambda: step("float32"), 10))
        taken["bfloat16"].append(seconds(lambda: step("bfloat16"), 10))
    product = [2 * 3000**3 / t for t in taken["product"]]
    rate = [conv4_flops(360) / t for t in taken["float32"]]
    faster = [f / b for f, b in zip(taken["float32"], taken["bfloat16"], strict=True)]
    return {
        "step": "60-way 1-shot 5-query Conv-4, forward, backward and Adam",
        "gflops_matrix_product": statistics.median(product) / 1e9,
        "gflops_step_float32": statistics.median(rate) / 1e9,
        "share_of_matrix_product": statistics.median(
            r / p for r, p in zip(rate, product, strict=True)
        ),
        "bfloat16_times_faster": statistics.median(faster),
        "milliseconds": {
            n: 1000 * statistics.median(t) for n, t in taken.items() if n != "product"
        },
        "wanted": {"share_of_matrix_product": 0.7, "bfloat16_times_faster": 1.4},
    }


def sampling() -> dict[str, Any]:
    """What making an episode costs, plain and augmented."""
    source, spec = PoolSource(character_pool(4112)), EpisodeSpec(60, 1, 5)
    jittered = AugmentedSource(source, AffineJitter())
    return {
        "spec": "60-way 1-shot 5-query of 4,112 classes",
        "milliseconds": 1000 * seconds(lambda: source.episodes(spec, [7], seed=0), 30),
        "milliseconds_augmented": 1000 * seconds(lambda: jittered.episodes(spec, [7], seed=0), 30),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=None)
    given = parser.parse_args()
    keep_freed_memory()
    begin = time.perf_counter()
    document = {
        "name": "speed",
        **provenance(seeds=[0]),
        "evaluation": evaluation(given.rounds),
        "training_step": training_step(given.rounds),
        "sampling": sampling(),
    }
    document["seconds"] = round(time.perf_counter() - begin, 1)
    write_result("speed", document, given.results)


if __name__ == "__main__":
    main()
