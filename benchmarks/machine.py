"""What a measurement must say beside its numbers: commit, machine, versions, time."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import quickstudy

ROOT = Path(__file__).resolve().parent.parent


def provenance(
    *, seeds: list[int], shown: Mapping[Path | str, str] | None = None
) -> dict[str, Any]:
    """Return command, commit, machine, versions, seeds and time.

    Args:
        seeds: that the numbers depend on.
        shown: what stands in the command instead of a path of this machine.
    """
    program = Path(sys.argv[0]).resolve()
    name = program.relative_to(ROOT) if program.is_relative_to(ROOT) else program.name
    command = " ".join(["python", str(name), *sys.argv[1:]])
    for path, words in (shown or {}).items():
        command = command.replace(str(path), words)
    return {
        "command": command,
        "commit": _commit(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "quickstudy": quickstudy.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "seeds": seeds,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def compare(options: Sequence[object], out: Path) -> dict[str, Any]:
    """Run ``quickstudy compare`` into a folder and return its document."""
    words = [sys.executable, "-m", "quickstudy", "compare", *map(str, options)]
    done = subprocess.run(
        [*words, "--out", str(out), "--json"], stdout=subprocess.PIPE, check=True, text=True
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    dirty = git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks")
    return git("rev-parse", "HEAD") + (" with local changes" if dirty else "")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def write_result(name: str, document: dict[str, Any], folder: Path | None = None) -> Path:
    """Write ``docs/results/NAME.json`` and print it."""
    path = (folder or ROOT / "docs" / "results") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(document, ensure_ascii=False))
    return path
