"""Why queries get their labels, which labels of the support look wrong, and what to label next.

Axes: ``N`` support examples, ``Q`` queries, ``C`` classes, ``D`` numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quickstudy.estimators.answers import Explanation, Neighbour, Suspect
from quickstudy.estimators.support import Bools, Floats, Ints, Support
from quickstudy.fitting.task import FittedTask

__all__ = ["explanations", "ranked_suspects", "rows_to_label", "worth_checking"]


def explanations(
    support: Support,
    scores: Floats,
    probabilities: Floats,
    known: Bools,
    distances: Floats,
    *,
    n: int,
) -> list[Explanation]:
    """Return why each query gets its label.

    Args:
        support: the labelled examples.
        scores: of the classes ``[Q, C]``.
        probabilities: of the classes ``[Q, C]``.
        known: whether a query is near enough to belong to a class ``[Q]``.
        distances: between queries and support examples ``[Q, N]``.
        n: number of support examples to name.
    """
    found = []
    for q, row in enumerate(scores):
        order = np.argsort(-row, kind="stable")
        best, second = order[0], order[1] if len(order) > 1 else None
        near = np.argsort(distances[q], kind="stable")[:n]
        found.append(
            Explanation(
                support.classes[best],
                float(probabilities[q, best]),
                None if second is None else support.classes[second],
                float("inf") if second is None else float(row[best] - row[second]),
                bool(known[q]),
                tuple(
                    Neighbour(i, support.label(i), float(distances[q, i]), support.items[i].source)
                    for i in near.tolist()
                ),
            )
        )
    return found


def ranked_suspects(support: Support, task: FittedTask) -> list[Suspect]:
    """Return the examples by how much the others contradict their label, worst first.

    Examples that are alone in their class are left out: without them, their class is unknown.

    Args:
        support: the labelled examples.
        task: what was learned of them.
    """
    if support.n_way < 2:
        return []
    order, odds, best = task.suspects()
    rows = order.numpy()  # task.suspects() is sorted by its own rule: back to the order of rows
    evidence = np.empty(len(rows), dtype=np.float32)
    evidence[rows] = odds.float().numpy()
    suggestion = np.empty_like(support.y)
    suggestion[rows] = best.numpy()
    return [
        Suspect(
            row,
            support.label(row),
            support.classes[suggestion[row]],
            float(evidence[row]),
            support.items[row].source,
        )
        for row in np.argsort(-evidence, kind="stable").tolist()
        if np.isfinite(evidence[row])
    ]


def worth_checking(ranked: Sequence[Suspect], task: FittedTask) -> list[Suspect]:
    """Return those whose label is as likely wrong as right.

    Args:
        ranked: what :func:`ranked_suspects` returned.
        task: what was learned of the examples.
    """
    return [one for one in ranked if one.evidence >= task.suspect_odds]


def rows_to_label(probabilities: Floats, x: Tensor, distances: Floats, *, n: int) -> Ints:
    """Return the rows of the queries to label first ``[<= n]``: uncertain, and unlike each other.

    These are the least certain queries (smallest difference between the two largest probabilities;
    Scheffer et al. 2001), leaving out queries that are much like a chosen one.

    Args:
        probabilities: of the classes ``[Q, C]``.
        x: the queries in the space in which the head works ``[Q, D]``.
        distances: between queries and support examples ``[Q, N]``.
        n: largest number of rows.
    """
    p = np.sort(probabilities, axis=1)
    margin = p[:, -1] - (p[:, -2] if p.shape[1] > 1 else 0)
    # two queries nearer than half the usual distance between a query and its nearest support count
    # as alike: the label of one says what the label of the other would
    near = 0.5 * float(np.median(distances.min(1)))
    chosen: list[int] = []
    for row in np.argsort(margin, kind="stable").tolist():
        if len(chosen) == n:
            break
        if not chosen or float(torch.cdist(x[row][None], x[chosen]).min()) > near:
            chosen.append(row)
    return np.array(chosen, dtype=np.int64)
