"""Checks on the examples themselves: identical and nearly identical pictures, classes in two
splits."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from quickstudy.checks.alike import COARSE, COPY, FINE, SAME, copies_inside, near_pairs
from quickstudy.checks.findings import (
    MOST_PAIRS,
    CheckReport,
    Finding,
    Outcome,
    Pair,
    Passed,
    Skipped,
)
from quickstudy.core.arguments import checked
from quickstudy.core.words import quiet
from quickstudy.tasks import Pool

__all__ = ["HARMLESS", "check_contents", "row_digests"]

HARMLESS = 0.001
"""Share of queries with a copy in their support below which copies are no fault: they move the
accuracy by 0.1 points at most."""

_Twin = tuple["_Row", "_Row"]
"""Two examples that are the same picture."""
_Cluster = list["_Row"]
"""Two or more identical examples of one class in one split."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One example: its split (``part``), its row there and its class."""

    part: str
    row: int
    class_name: str


@checked
def check_contents(
    parts: Mapping[str, Pool],
    *,
    target: str | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    k_shot: int = 1,
    progress: Callable[[str], None] | None = None,
) -> CheckReport:
    """Look for copies among the examples of a data set, and for classes in two of its splits.

    Args:
        parts: the splits by name; one if the data set has no splits.
        target: name of what is checked, for the report; the first pool's by default.
        names: names of the rows of each split, for example file names.
        k_shot: support per class, for the share of queries that have a copy in their support.
        progress: called with a line about each step.

    Returns:
        A report on ``identical-images``, ``duplicate-images``, ``near-duplicates``,
        ``near-copies`` and ``class-in-two-splits``.
    """
    start, say = time.perf_counter(), progress or quiet
    say("hashing every example")
    clusters, twins = _same_content(parts)
    evidence = _Evidence(parts, names or {})
    outcomes: list[Outcome] = [
        _identical_images(twins, evidence, parts),
        _duplicate_images(clusters, evidence, parts, k_shot),
        *_near_duplicates(parts, evidence, say),
        _near_copies(parts, evidence, k_shot),
        _class_in_two_splits(parts),
    ]
    name = target or next(iter(parts.values())).name
    return CheckReport(name, tuple(outcomes), time.perf_counter() - start)


def row_digests(x: torch.Tensor) -> list[bytes]:
    """Return a hash of each example: equal for identical ones."""
    rows = x.flatten(1).contiguous().cpu().numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def _same_content(parts: Mapping[str, Pool]) -> tuple[list[_Cluster], list[_Twin]]:
    """Return the copies inside a class of a split, and identical pairs of two classes or splits.

    A picture that stands in three classes makes two pairs, both with its first place.
    """
    known: dict[tuple[bytes, str, tuple[int, ...]], dict[tuple[str, str], list[_Row]]] = {}
    for part, pool in parts.items():
        shape = tuple(pool.x.shape[1:])
        for row, digest in enumerate(row_digests(pool.x)):
            here = _Row(part, row, pool.class_names[int(pool.y[row])])
            homes = known.setdefault((digest, str(pool.x.dtype), shape), {})
            homes.setdefault((part, here.class_name), []).append(here)
    clusters = [rows for homes in known.values() for rows in homes.values() if len(rows) > 1]
    twins = [
        (next(iter(homes.values()))[0], row)
        for homes in known.values()
        for rows in list(homes.values())[1:]
        for row in rows
    ]
    return clusters, twins


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Turns rows into the pairs of pictures and the JSON facts of a finding."""

    parts: Mapping[str, Pool]
    names: Mapping[str, Sequence[str]]

    def caption(self, row: _Row) -> str:
        if row.part in self.names:
            return self.names[row.part][row.row]
        return f"{row.part}, {row.class_name}, row {row.row}"

    def pairs(self, twins: Sequence[_Twin]) -> tuple[Pair, ...]:
        return tuple(
            Pair(
                self.parts[a.part].x[a.row],
                self.parts[b.part].x[b.row],
                (self.caption(a), self.caption(b)),
            )
            for a, b in twins[:MOST_PAIRS]
        )

    def facts(self, twins: Sequence[_Twin]) -> dict[str, object]:
        return {
            "pairs": len(twins),
            "across_splits": sum(a.part != b.part for a, b in twins),
            "first": [
                [{"split": r.part, "class": r.class_name, "row": r.row} for r in twin]
                for twin in twins[:10]
            ],
        }


def _identical_images(
    twins: list[_Twin], evidence: _Evidence, parts: Mapping[str, Pool]
) -> Outcome:
    """Are there identical examples with different labels, or in two splits?"""
    rows = sum(len(pool.y) for pool in parts.values())
    if not twins:
        text = (
            f"{rows:,} examples: none is identical ({_compared(parts)}) to one of another class or "
            "split"
        )
        return Passed("identical-images", text)
    conflicts = sum(a.class_name != b.class_name for a, b in twins)
    across = sum(a.part != b.part for a, b in twins)
    what = [f"{conflicts} with different labels"] if conflicts else []
    what += [f"{across} across splits"] if across else []
    return Finding(
        "identical-images",
        "fault",
        f"{len(twins)} pair(s) of identical examples ({_compared(parts)}) among {rows:,}: "
        f"{', '.join(what)}.",
        evidence.facts(twins) | {"different_labels": conflicts, "examples": rows},
        "Delete one of each pair, or both if the right label is not known: a learner has seen a "
        "picture before the test if it is in two splits.",
        evidence.pairs(twins),
    )


def _duplicate_images(
    clusters: list[_Cluster], evidence: _Evidence, parts: Mapping[str, Pool], k_shot: int
) -> Outcome:
    """Are there copies inside a class? A query is easy if its copy is in the support.

    One outcome for all splits, with the largest share of easy queries among them.
    """
    if not clusters:
        return Passed("duplicate-images", "no class holds an example twice")
    twins = [(rows[0], row) for rows in clusters for row in rows[1:]]
    share = max(_easy_queries(part, parts[part], clusters, k_shot) for part in parts)
    severe = share >= HARMLESS
    return Finding(
        "duplicate-images",
        "fault" if severe else "note",
        f"{len(twins)} example(s) repeat another of their class exactly ({_compared(parts)}); in "
        f"{k_shot}-shot tasks {100 * share:.3g} % of the queries have a copy in the support.",
        evidence.facts(twins) | {"easy_queries": share, "k_shot": k_shot},
        "Delete the copies." + ("" if severe else " So few hardly move the accuracy."),
        evidence.pairs(twins),
    )


def _easy_queries(part: str, pool: Pool, clusters: list[_Cluster], k_shot: int) -> float:
    """Return the expected share of queries that have a copy in the support of their episode."""
    counts = pool.counts
    easy = np.zeros(len(counts))
    for rows in clusters:
        if rows[0].part == part:
            c = int(pool.y[rows[0].row])
            n, m = int(counts[c]), len(rows)
            # a query of this class is one of these m with chance m / n, and has m - 1 copies
            easy[c] += m / n * _copy_in_support(n, m - 1, k_shot)
    return float(easy.sum() / max(1, (counts > 1).sum()))  # a class of one example is in no task


def _compared(parts: Mapping[str, Pool]) -> str:
    """Say what is compared: decoded pictures, so two files of different bytes may be identical."""
    shapes = {tuple(pool.x.shape[1:]) for pool in parts.values()}
    sizes = sorted({f"{s[1]} x {s[2]}" for s in shapes if len(s) == 3})
    return f"every pixel, as read at {', '.join(sizes)}" if sizes else "every value"


def _near_duplicates(
    parts: Mapping[str, Pool], evidence: _Evidence, say: Callable[[str], None]
) -> Iterator[Outcome]:
    """Are there nearly identical pictures in two splits, or with different labels in one split?"""
    shapes = {tuple(pool.x.shape[1:]) for pool in parts.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 3:
        yield Skipped("near-duplicates", "it compares images, all of one shape")
        return
    across, inside = _near_twins(parts, say)
    rule = {"fine_cosine_at_least": FINE, "coarse_cosine_at_least": COARSE}
    if across:
        twins = [twin for twin, _ in across]
        # below SAME two drawings by two people may be alike by chance
        same = across[0][1] >= SAME
        yield Finding(
            "near-duplicates",
            "fault" if same else "note",
            f"{len(twins)} pair(s) of nearly identical pictures are in two splits (cosine up to "
            f"{across[0][1]:.4f}).",
            evidence.facts(twins) | rule | {"cosine": [c for _, c in across[:10]]},
            "Delete one of each pair from the training side."
            if same
            else "Look at them: if it is one picture, delete it from the training side.",
            evidence.pairs(twins),
        )
    if inside:
        twins = [twin for twin, _ in inside]
        copied = inside[0][1] >= COPY
        yield Finding(
            "near-duplicates",
            "fault" if copied else "note",
            f"{len(twins)} pair(s) of nearly identical pictures of one split have different "
            f"labels (cosine up to {inside[0][1]:.4f}).",
            evidence.facts(twins) | rule | {"cosine": [c for _, c in inside[:10]]},
            "Delete both, or the one whose label is wrong: it is one picture."
            if copied
            else "Look at them: one label may be wrong.",
            evidence.pairs(twins),
        )
    if not across and not inside:
        yield Passed(
            "near-duplicates",
            f"no two pictures of different classes or splits have cosines of {FINE} at 32 pixels "
            f"and {COARSE} at 8",
        )


def _near_twins(
    parts: Mapping[str, Pool], say: Callable[[str], None]
) -> tuple[list[tuple[_Twin, float]], list[tuple[_Twin, float]]]:
    """Return nearly identical pictures of two splits, and of two classes in one, with cosines."""
    codes = _codes(parts)
    across: list[tuple[_Twin, float]] = []
    inside: list[tuple[_Twin, float]] = []
    for a, b in [*((p, p) for p in parts), *combinations(parts, 2)]:
        say(f"comparing {a} with {'itself' if a == b else b}")
        # inside a split only pictures of two classes are compared: those of one class are alike by
        # nature. Of two splits all are: -1 is no class, so it differs from each
        second = (None, None) if a == b else (parts[b].x, torch.full_like(codes[b], -1))
        rows, cosines = near_pairs(parts[a].x, codes[a], *second)
        for (i, j), cosine in zip(rows.tolist(), cosines.tolist(), strict=True):
            if not torch.equal(parts[a].x[i], parts[b].x[j]):
                twin = tuple(
                    _Row(p, r, parts[p].class_names[int(parts[p].y[r])])
                    for p, r in ((a, i), (b, j))
                )
                (inside if a == b else across).append(((twin[0], twin[1]), cosine))
    # the closest first, whichever splits they stand in: it decides how grave the finding is
    return _closest_first(across), _closest_first(inside)


def _closest_first(twins: list[tuple[_Twin, float]]) -> list[tuple[_Twin, float]]:
    return sorted(twins, key=lambda twin: -twin[1])


def _near_copies(parts: Mapping[str, Pool], evidence: _Evidence, k_shot: int) -> Outcome:
    """Which share of the queries has a compressed or resized copy in its support?"""
    check = "near-copies"
    if any(pool.x.ndim != 4 for pool in parts.values()):
        return Skipped(check, "it compares images")
    twins: list[_Twin] = []
    shares = []
    for part, pool in parts.items():
        easy, count = 0.0, 0
        for name, start, n in zip(pool.class_names, pool.offsets, pool.counts, strict=True):
            found = _unequal_copies(pool.x[int(start) : int(start + n)])
            if len(found):
                copies = np.bincount(found.flatten().numpy(), minlength=int(n))
                easy += float(np.mean([_copy_in_support(int(n), int(m), k_shot) for m in copies]))
                count += len(found)
                shown_rows = (found[:MOST_PAIRS] + int(start)).tolist()
                twins += [(_Row(part, i, name), _Row(part, j, name)) for i, j in shown_rows]
        shares.append((easy / max(1, int((pool.counts > 1).sum())), count))
    share, count = max(shares)
    if not twins:
        return Passed(check, f"no two pictures of one class have a cosine of {COPY}")
    return Finding(
        check,
        "note",
        f"{count:,} pair(s) of pictures of one class are nearly the same (cosine {COPY} and "
        f"more); in {k_shot}-shot tasks {100 * share:.3g} % of the queries have such a near copy "
        "in the support.",
        {"pairs": count, "easy_queries": share, "k_shot": k_shot, "cosine_at_least": COPY},
        "Look at them: of one picture in two sizes or compressions keep one; put frames of one "
        "film into one group; simple signs may be alike by nature.",
        evidence.pairs(twins),
    )


def _unequal_copies(x: torch.Tensor) -> torch.Tensor:
    """Return pairs of rows ``[P, 2]`` that are one picture, but not pixel for pixel."""
    found = copies_inside(x)
    if not len(found):
        return found
    _, content = np.unique(row_digests(x), return_inverse=True)
    same = content[found[:, 0].numpy()] == content[found[:, 1].numpy()]
    return found[torch.from_numpy(~same)]


def _copy_in_support(n: int, copies: int, k_shot: int) -> float:
    """Return the probability that a query has a copy in its support.

    The support of its class is ``k`` of the other ``n - 1`` rows, ``copies`` of them copies of the
    query: ``1 - C(n - 1 - copies, k) / C(n - 1, k)``.
    """
    k = min(k_shot, n - 1)
    return 1 - math.comb(n - 1 - copies, k) / math.comb(n - 1, k)


def _codes(parts: Mapping[str, Pool]) -> dict[str, torch.Tensor]:
    """Number the classes alike in all parts: one name is one class."""
    every = sorted({name for pool in parts.values() for name in pool.class_names})
    number = {name: i for i, name in enumerate(every)}
    codes: dict[str, torch.Tensor] = {}
    for part, pool in parts.items():
        own: npt.NDArray[np.int64] = np.array([number[n] for n in pool.class_names], np.int64)
        codes[part] = torch.from_numpy(own)[pool.y]
    return codes


def _class_in_two_splits(parts: Mapping[str, Pool]) -> Outcome:
    if len(parts) < 2:
        return Skipped("class-in-two-splits", "there is one split")
    shared = {
        f"{a} and {b}": sorted(set(parts[a].class_names) & set(parts[b].class_names))
        for a, b in combinations(parts, 2)
    }
    shared = {where: names for where, names in shared.items() if names}
    if not shared:
        total = sum(pool.n_classes for pool in parts.values())
        return Passed("class-in-two-splits", f"{total:,} classes, each in one split")
    where, names = next(iter(shared.items()))
    return Finding(
        "class-in-two-splits",
        "fault",
        f"{sum(map(len, shared.values()))} class(es) are in two splits; {names[0]!r} is in "
        f"{where}.",
        {"classes": {w: n[:20] for w, n in shared.items()}},
        "Give each class to one split: accuracy on new classes cannot be measured on classes that "
        "were trained on.",
    )
