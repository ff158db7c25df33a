"""Train the in-context classifier of tables on made-up tables.

    python benchmarks/train_tables.py --out runs/tables --minutes 12
    python benchmarks/train_tables.py --out runs/tables --minutes 15 --resume

A step is a batch of tables of one size: columns, rows and queries are drawn for each step, classes
and mechanisms for each table. Muon for the matrices of the layers, Adam for the rest, an average of
the weights; the learning rate falls to zero over the last part of the time, so that a training that
stops in time is finished. ``--resume`` goes on from the last checkpoint, with the rate up again.
Every --every steps the averaged weights are judged on held-out made-up tables; the best are kept as
``tables.safetensors`` in float16, with the command, the steps and the time in its header.
``curve.json`` holds the curve, with extra trees and logistic regression on the same tables
(--baselines).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from machine import provenance
from quickstudy.core import Examples, keys, uniforms
from quickstudy.learners.incontext import TableInContext, load_table_learner
from quickstudy.nets.table_transformer import TableTransformer
from quickstudy.storage.tensors import load_tensors, save_tensors
from quickstudy.tasks.synthetic import Draws, TableMaker
from quickstudy.training.muon import Muon

# its kernels are built anew for each size of table, which took most of a step
torch.backends.cuda.enable_cudnn_sdp(False)

WAYS, QUERIES, VERSION = 10, 128, 1
FADE = 0.5  # share of the time in which the learning rate falls


def sizes(draws: Draws, rows: int, queries: int) -> tuple[Tensor, Tensor]:
    """Return support and query rows of each class ``[T, C]``; they sum to one number."""
    most = max(2, min(WAYS, rows // 2))
    way = torch.where(draws.chance(0, of=0.45), 2, 2 + draws.whole(1, below=most - 1))
    there = torch.arange(WAYS, device=way.device) < way[:, None]
    spread = draws.uniform(2).square() * draws.chance(3, of=0.6)  # of uneven classes
    weight = torch.exp(1.5 * spread[:, None] * draws.normal(4, WAYS)) * there

    def split(count: int) -> Tensor:
        share = weight / weight.sum(1, keepdim=True)
        whole = (share * (count - way)[:, None]).long() + there
        whole[:, 0] += count - whole.sum(1)
        return whole

    return split(rows), split(queries)


def batch(
    seed: int, step: int, cells: int, device: torch.device, part: int = 0
) -> tuple[Examples, Examples]:
    """Return support and queries of one step."""
    u = uniforms(seed, 17, part, step, np.arange(3))
    columns = int(2 * math.exp(u[0] * math.log(60 / 2)))
    if u[2] < 0.05:
        columns = int(60 + 40 * u[0])
    rows = int(6 * math.exp(u[1] * math.log(520 / 6)))
    tokens = 1 + -(-columns // 3)
    # fused attention on GPUs takes at most 65,535 sequences
    most = min(256, 60_000 // (rows + QUERIES))
    tables = max(8, min(most, cells // ((rows + QUERIES) * tokens)))
    if part:
        tables = min(32, tables)
    key = keys(seed, 18, part, step, np.arange(tables)).view(np.int64)
    draws = Draws(torch.from_numpy(key.copy()).to(device))
    shots, asked = sizes(draws, rows, QUERIES)
    wide = torch.full((tables,), columns, device=device)
    return TableMaker().make(draws, shots, queries=asked, columns=wide, longest=(rows, QUERIES))


def losses(learner: TableInContext, support: Examples, query: Examples) -> tuple[Tensor, Tensor]:
    """Return log loss and accuracy of each table."""
    state = learner.adapt(support, n_way=WAYS)
    logits = learner.predict(state, query.x)
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), query.y.flatten(), reduction="none"
    ).view(query.y.shape)
    return loss.mean(1), (logits.argmax(2) == query.y).float().mean(1)


def judged(learner: TableInContext, held_out: list[Any], amp: Any) -> dict[str, float]:
    """Return the mean log loss (nats) and accuracy (%) on held-out tables."""
    learner.eval()
    with torch.no_grad(), amp():
        found = [losses(learner, *one) for one in held_out]
    learner.train()
    return {
        "loss": round(float(torch.cat([f[0] for f in found]).mean()), 5),
        "accuracy": round(100 * float(torch.cat([f[1] for f in found]).mean()), 3),
    }


def baselines(held_out: list[Any]) -> dict[str, dict[str, float]]:
    """Return the same of extra trees and logistic regression, missing values as the mean."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found: dict[str, list[tuple[float, float]]] = {"extra trees": [], "logistic regression": []}
    for support, query in held_out:
        for t in range(len(support.y)):
            x, y, q, a = (v[t].cpu().numpy() for v in (support.x, support.y, query.x, query.y))
            for name, rows in found.items():
                model = (
                    ExtraTreesClassifier(random_state=0)
                    if name == "extra trees"
                    else LogisticRegression(max_iter=500)
                )
                made = make_pipeline(
                    SimpleImputer(keep_empty_features=True), StandardScaler(), model
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    p = made.fit(x, y).predict_proba(q)
                at = np.searchsorted(made.classes_, a)
                own = np.clip(p[np.arange(len(a)), at], 1e-3, 1)
                rows.append((float(-np.log(own).mean()), float((p.argmax(1) == at).mean())))
    return {
        name: {
            "loss": round(float(np.mean([r[0] for r in rows])), 5),
            "accuracy": round(100 * float(np.mean([r[1] for r in rows])), 3),
        }
        for name, rows in found.items()
    }


def optimisers(network: TableTransformer, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers and Adam for the rest."""
    inner = [
        p
        for n, p in network.named_parameters()
        if p.ndim == 2 and n.startswith("layers") and "label" not in n
    ]
    inside = {id(p) for p in inner}
    rest = [p for p in network.parameters() if id(p) not in inside]
    return [
        Muon(inner, lr=rate, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--steps", type=int, default=10**9, help="stop earlier")
    parser.add_argument("--cells", type=int, default=200_000, help="tokens in a batch")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=24, help="batches of held-out tables")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--baselines", action="store_true", help="score them and stop")
    parser.add_argument("--network", default="{}", help="settings of the network, JSON")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    held_out = [batch(999, n, given.cells, device, part=1) for n in range(given.held_out)]
    curve_path = given.out / "curve.json"
    curve = json.loads(curve_path.read_text()) if curve_path.exists() else {"points": []}
    if given.baselines:
        curve["baselines"] = baselines(held_out)
        ours = load_table_learner(given.out / "tables.safetensors").to(device)
        curve["baselines"]["the kept weights"] = judged(ours, held_out, nullcontext)
        curve_path.write_text(json.dumps(curve, indent=1) + "\n")
        print(curve["baselines"])
        return
    Training(given, device, held_out, curve).run()


class Training:
    """A training that can be stopped and gone on with."""

    def __init__(self, given: Any, device: torch.device, held_out: list[Any], curve: Any) -> None:
        self.given, self.device, self.held_out, self.curve = given, device, held_out, curve
        self.settings = json.loads(given.network)
        torch.manual_seed(given.seed)
        self.learner = TableInContext(TableTransformer(**self.settings)).to(device).train()
        self.optimisers = optimisers(self.learner.network, given.rate)
        self.step, self.seconds, self.best = 0, 0.0, math.inf
        if given.resume:
            self._load()
        self.average = copy.deepcopy(self.learner)
        if given.resume:
            self.average.load_state_dict(self.averaged)

    def amp(self) -> Any:
        """Return the context that the network computes in."""
        cuda = self.device.type == "cuda"
        return torch.autocast("cuda", dtype=torch.bfloat16) if cuda else nullcontext()

    def run(self) -> None:
        """Train until the time or the steps are used up; write the last state."""
        given, start = self.given, time.monotonic()
        first = self.step
        while True:
            gone = time.monotonic() - start
            done = max(gone / (60 * given.minutes), (self.step - first) / given.steps)
            if done >= 1:
                break
            self._step(done)
            if self.step % given.every == 0:
                self._judge(gone)
        self.seconds += time.monotonic() - start
        self._judge(0.0)
        self._save()

    def _step(self, done: float) -> None:
        given = self.given
        warm = min(1.0, (self.step + 1) / 100)
        rate = given.rate * warm * min(1.0, (1.0 - done) / FADE)
        support, query = batch(given.seed, self.step, given.cells, self.device)
        with self.amp():
            loss = losses(self.learner, support, query)[0].mean()
        self.learner.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        keep = min(0.999, 1.0 - 10.0 / (10.0 + self.step))
        with torch.no_grad():
            averaged = [p.data for p in self.average.parameters()]
            torch._foreach_lerp_(averaged, [p.data for p in self.learner.parameters()], 1.0 - keep)
        self.step += 1

    def _judge(self, gone: float) -> None:
        point = {"step": self.step, "seconds": round(self.seconds + gone, 1)}
        point |= judged(self.average, self.held_out, self.amp)
        self.curve["points"].append(point)
        print(point, flush=True)
        if point["loss"] < self.best:
            self.best = point["loss"]
            small = {n: v.to(torch.float16) for n, v in self.average.network.state_dict().items()}
            about = {
                "version": VERSION,
                "network": self.settings,
                "held_out": point,
                "seed": self.given.seed,
                "command": " ".join(["python", "benchmarks/train_tables.py", *sys.argv[1:]]),
                "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            }
            save_tensors(self.given.out / "tables.safetensors", small, about)
        with suppress(OSError):  # no git on the machine
            self.curve |= {"name": "tables-incontext-training"}
            self.curve |= provenance(seeds=[self.given.seed])
        (self.given.out / "curve.json").write_text(json.dumps(self.curve, indent=1) + "\n")

    def _save(self) -> None:
        tensors = {f"now.{n}": v for n, v in self.learner.state_dict().items()}
        tensors |= {f"average.{n}": v for n, v in self.average.state_dict().items()}
        about = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "network": self.settings,
        }
        save_tensors(self.given.out / "checkpoint.safetensors", tensors, about)

    def _load(self) -> None:
        """Go on from the last checkpoint, or from shipped float16 weights beside it.

        The momentum of the optimisers starts anew: some hundred steps make up for it.
        """
        full, small = (self.given.out / f"{n}.safetensors" for n in ("checkpoint", "tables"))
        if full.exists():
            tensors, about = load_tensors(full)
            now = {n[4:]: v for n, v in tensors.items() if n.startswith("now.")}
            self.averaged = {n[8:]: v for n, v in tensors.items() if n.startswith("average.")}
            self.step, self.seconds = about["step"], about["seconds"]
            self.best = about["best"]
        else:
            tensors, about = load_tensors(small)
            now = self.averaged = {f"network.{n}": v.float() for n, v in tensors.items()}
            self.step, self.seconds = about["held_out"]["step"], about["held_out"]["seconds"]
            self.best = about["held_out"]["loss"]
        self.learner.load_state_dict(now)


if __name__ == "__main__":
    main()
