"""Meta-train the in-context heads that ship with Quickstudy on embeddings of training classes.

    python benchmarks/learn_incontext.py image --embeddings EMB

reads EMB/NAME.npz (benchmarks/embed.py --small) and the encoder's shipped prior, and writes
NAME.safetensors into src/quickstudy/fitting/incontext_weights, or elsewhere with ``--out``, with
the command, the curve and the time. The classes are those of benchmarks/learn_priors.py. With
``--without KIND`` data sets of one kind are left out, and the prior is PRIORS/ENCODER-without-KIND:
with such a head benchmarks/incontext_heads.py scores that kind.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learn_priors import SOURCES, Rows, gather
from machine import ROOT, provenance
from quickstudy.core import Episode, Examples
from quickstudy.embedders.choose import get_embedder
from quickstudy.fitting.incontext import save_incontext
from quickstudy.fitting.prior import TaskPrior
from quickstudy.learners import meta_loss
from quickstudy.learners.heads import CentredHead, InContextHead

WAYS, SHOTS, QUERIES = (2, 3, 5, 5, 8, 12, 20), (1, 1, 1, 2, 3, 5, 5, 10), 4
PAIRS_PER_STEP = 2_400  # queries times classes, over the tasks of a step


class Classes:
    """Rows of the classes of one source, as a padded table, in the space of their prior."""

    def __init__(self, z: Tensor, label: np.ndarray, group: np.ndarray, centre: float) -> None:
        self.z, self.centre = z, centre
        self.group = torch.from_numpy(np.unique(group, return_inverse=True)[1])
        _, y = np.unique(label, return_inverse=True)
        rows = [np.flatnonzero(y == c) for c in range(y.max() + 1)]
        table = np.full((len(rows), max(map(len, rows))), -1)
        for c, of_class in enumerate(rows):
            table[c, : len(of_class)] = of_class
        self.table = torch.from_numpy(table)

    def draw(self, tasks: int, n_way: int, k_shot: int, rng: torch.Generator) -> Episode:
        """Return tasks of up to ``n_way`` classes; queries of a support group are padding."""
        n_way = min(n_way, len(self.table))
        classes = torch.rand(tasks, len(self.table), generator=rng).topk(n_way).indices
        rows = self.table[classes]  # [T, C, M]
        order = torch.rand(rows.shape, generator=rng).masked_fill(rows < 0, -1)
        rows = rows.gather(2, order.topk(min(k_shot + QUERIES, rows.shape[2])).indices)
        shown, asked = rows[..., :k_shot], rows[..., k_shot:]
        clash = (self.group[asked][..., None] == self.group[shown][..., None, :]).any(3)
        support, query = (
            Examples(
                self.z[part.clamp(min=0)].flatten(1, 2),
                torch.arange(n_way)[None, :, None].expand_as(part).flatten(1),
                kept.flatten(1),
            )
            for part, kept in ((shown, shown >= 0), (asked, (asked >= 0) & ~clash))
        )
        return Episode(support, query, n_way)


def sources_of(rows: Rows, prior: TaskPrior) -> list[Classes]:
    """Return the classes of each source."""
    with torch.no_grad():
        z = prior.transform(torch.from_numpy(rows.z).float())
    return [
        Classes(z[rows.source == s], rows.label[rows.source == s], rows.group[rows.source == s],
                prior.centre_prior)
        for s in np.unique(rows.source)
    ]  # fmt: skip


def train(
    sources: list[Classes], *, steps: int, lr: float, width: int, layers: int, seed: int
) -> tuple[InContextHead, list[dict[str, float]]]:
    """Return a trained head, and by step the mean loss beside that of the nearest class mean.

    The mean of the weights over the last steps is returned (decay 0.99).
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    head = InContextHead(width=width, layers=layers)
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.01)
    chance = torch.tensor([len(s.table) ** 0.5 for s in sources])
    average = {n: v.clone() for n, v in head.state_dict().items()}
    curve, losses = [], []
    for step in range(1, steps + 1):
        source = sources[int(torch.multinomial(chance, 1, generator=rng))]
        n_way, k_shot = (
            choices[int(torch.randint(len(choices), (1,), generator=rng))]
            for choices in (WAYS, SHOTS)
        )
        tasks = max(2, PAIRS_PER_STEP // (n_way * n_way * QUERIES))
        episode = source.draw(tasks, n_way, k_shot, rng)
        loss = meta_loss(CentredHead(head, prior=source.centre), episode).mean()
        rate = lr * min(1, step / 50) * 0.5 * (1 + math.cos(math.pi * step / (steps + 1)))
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        decay = min(0.99, step / (step + 10))
        for name, value in head.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        losses.append(float(loss.detach()))
        if step % max(1, steps // 10) == 0:
            curve.append({"step": step, "loss": round(float(np.mean(losses)), 4)})
            print(curve[-1], file=sys.stderr, flush=True)
            losses = []
    head.load_state_dict(average)
    return head.eval(), curve


def gathered(given: argparse.Namespace) -> tuple[list[Classes], dict[str, Any]]:
    """Return the sources to train on, and facts about the encoder."""
    name = given.encoder + (f"-without-{given.without}" if given.without else "")
    folder = given.priors if given.without else ROOT / "src/quickstudy/fitting/priors"
    prior = TaskPrior.load(folder / name)
    facts = {"fingerprint": get_embedder(given.encoder).fingerprint}
    return sources_of(gather(given.embeddings, given.encoder, given.without), prior), facts


def main() -> None:
    """Train and write the head named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", choices=sorted(SOURCES))
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--priors", type=Path, default=None, help="for --without")
    parser.add_argument("--without", default=None, help="a kind of data sets to leave out")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "src/quickstudy/fitting/incontext_weights"
    )
    given = parser.parse_args()
    if given.without is not None and given.priors is None:
        parser.error("--without needs --priors")
    torch.set_num_threads(1)
    begun = time.monotonic()
    sources, facts = gathered(given)
    head, curve = train(
        sources,
        steps=given.steps,
        lr=given.lr,
        width=given.width,
        layers=given.layers,
        seed=given.seed,
    )
    shown = {given.embeddings: "EMB", given.out: "HEADS"}
    made = provenance(seeds=[given.seed], shown=shown | ({given.priors: "PRIORS"} if given.priors
                                                         else {}))  # fmt: skip
    about = facts | {fact: made[fact] for fact in ("command", "commit", "finished")}
    about |= {"curve": curve, "minutes": round((time.monotonic() - begun) / 60, 1)}
    given.out.mkdir(parents=True, exist_ok=True)
    name = given.encoder + (f"-without-{given.without}" if given.without else "")
    save_incontext(given.out / f"{name}.safetensors", head, about)


if __name__ == "__main__":
    main()
