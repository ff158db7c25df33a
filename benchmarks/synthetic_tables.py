"""Measure how fast made-up tables are made, and draw each mechanism.

    python benchmarks/synthetic_tables.py

Tables of 2 to 10 classes, 2 to 100 columns and 2 to 20 rows per class, 64 in a batch, in one
thread. Writes docs/results/synthetic-tables.json and docs/images/synthetic-NAME.svg: the first two
columns that differ most between the classes of three tables, coloured by class, for each mechanism;
and cells of three tables for the forms of columns and the three kinds of missing values.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from machine import ROOT, provenance, write_result
from quickstudy.core import EpisodeSpec, keys
from quickstudy.pages.charts import COLOURS
from quickstudy.tasks import SyntheticTables
from quickstudy.tasks.synthetic import (
    ColumnForms,
    Draws,
    LinearGaussian,
    MissingAtRandom,
    MissingByColumn,
    MissingByValue,
    RandomGraph,
    RuleTarget,
    TreeTarget,
)
from quickstudy.tasks.synthetic.classes import classes_by_scores

SIDE, GAP, ROWS, CLASSES, TABLES = 200, 20, 150, 3, 3


def rate(batches: int) -> float:
    """Return tables a minute."""
    source, spec = SyntheticTables(), EpisodeSpec((2, 10), (2, 20), 10)
    source.episodes(spec, range(8), seed=1)
    start = time.process_time()
    for number in range(batches):
        source.episodes(spec, range(64 * number, 64 * number + 64), seed=0)
    return 64 * batches * 60 / (time.process_time() - start)


def drawing(panels: list[str], label: str) -> str:
    """Return panels side by side as one SVG."""
    width = len(panels) * (SIDE + GAP) - GAP
    body = "".join(
        f'<g transform="translate({i * (SIDE + GAP)} 0)">'
        f'<rect width="{SIDE}" height="{SIDE}" fill="#fff" stroke="#ccc"/>{panel}</g>'
        for i, panel in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {SIDE}" role="img" '
        f'aria-label="{label}">{body}</svg>\n'
    )


def dots(x: Tensor, y: Tensor) -> str:
    """Return rows ``[N, 2]`` as dots, coloured by class."""
    low, high = x.quantile(0.02, dim=0), x.quantile(0.98, dim=0)
    at = ((x - low) / (high - low).clamp(min=1e-6)).clamp(0, 1) * (SIDE - 16) + 8
    return "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{COLOURS[c]}" fill-opacity="0.8"/>'
        for (a, b), c in zip(at.tolist(), y.tolist(), strict=True)
    )


def cells(x: Tensor) -> str:
    """Return cells ``[N, F]`` as shades of grey; missing ones are red."""
    shade = (x.argsort(0).argsort(0).float() / len(x)).tolist()
    high, wide = SIDE / len(x), SIDE / x.shape[1]
    found = ""
    for r, row in enumerate(x.tolist()):
        for c, value in enumerate(row):
            grey = int(40 + 200 * shade[r][c])
            fill = "#d55e00" if value != value else f"rgb({grey},{grey},{grey})"
            found += f'<rect x="{c * wide:.1f}" y="{r * high:.1f}" width="{wide:.1f}" '
            found += f'height="{high:.1f}" fill="{fill}"/>'
    return found


def telling(x: Tensor, y: Tensor) -> Tensor:
    """Return the two columns whose class means differ most."""
    means = torch.stack([x[y == c].mean(0) for c in range(CLASSES)])
    spread = means.std(0) / (x.std(0) + 1e-6)
    return x[:, spread.topk(2).indices]


def pictures() -> dict[str, str]:
    """Return an SVG for each mechanism."""
    draws = Draws(torch.from_numpy(keys(4, np.arange(TABLES)).view(np.int64)))
    found = {}
    targets = {
        "graph": RandomGraph(),
        "tree": TreeTarget(),
        "rules": RuleTarget(),
        "gaussian": LinearGaussian(),
    }
    for name, mechanism in targets.items():
        x, scores = mechanism.draw(draws, rows=ROWS, columns=6, classes=CLASSES)
        sizes = torch.full((TABLES, CLASSES), ROWS // CLASSES)
        if name == "gaussian":
            y = scores.argmax(2)
        else:
            y = classes_by_scores(draws, scores, sizes)
        panels = [dots(telling(x[t], y[t]), y[t]) for t in range(TABLES)]
        found[name] = drawing(panels, f"Three tables of the mechanism {name}, coloured by class")
    x, _ = RandomGraph().draw(draws, rows=40, columns=8, classes=2)
    order = x[..., 0].argsort(1)[..., None].expand_as(x)
    x = x.gather(1, order)  # rows in the order of the first column
    coded = ColumnForms(coded=2.0).apply(draws, x)
    found["columns"] = drawing(
        [cells(coded[t]) for t in range(TABLES)], "Cells of three tables: numbers and codes"
    )
    share = torch.full((TABLES, 8), 0.25)
    kinds = (MissingAtRandom(), MissingByColumn(), MissingByValue())
    panels = [cells(x[0].masked_fill(kind.where(draws, x, share)[0], torch.nan)) for kind in kinds]
    found["missing"] = drawing(
        panels, "Missing cells in red: at random, by another column, by their own value"
    )
    return found


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, svg in pictures().items():
        (given.images / f"synthetic-{name}.svg").write_text(svg, encoding="utf-8")
    document = {
        "name": "synthetic-tables",
        **provenance(seeds=[0]),
        "tables_a_minute_of_one_core": round(rate(given.batches)),
        "batches": given.batches,
    }
    write_result("synthetic-tables", document, given.out)


if __name__ == "__main__":
    main()
