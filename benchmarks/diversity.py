"""Is one shared embedding enough? Omniglot, CIFAR-FS and QuickDraw, pixels and a run's embeddings.

    python benchmarks/diversity.py [RUN]          (needs QUICKSTUDY_DATA)

runs ``quickstudy diversity omniglot cifar-fs quickdraw``, and the same on the embeddings of RUN if
one is named; writes docs/results/diversity.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import provenance, write_result

DOMAINS = ("omniglot", "cifar-fs", "quickdraw")


def measured(*options: str) -> dict[str, Any]:
    """Return the command's document, and its time."""
    start = time.perf_counter()
    words = [sys.executable, "-m", "quickstudy", "diversity", *DOMAINS, *options, "--json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    """Measure and write."""
    scores = {"pixels": measured()}
    made = provenance(seeds=[0])
    if len(sys.argv) > 1:
        run = Path(sys.argv[1])
        scores[f"embeddings of {run.name}"] = measured("--run", str(run))
        made["command"] = made["command"].replace(str(run), f"runs/{run.name}")
    write_result("diversity", {"name": "diversity", **made, "scores": scores})


if __name__ == "__main__":
    main()
