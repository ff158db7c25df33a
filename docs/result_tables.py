"""The tables of docs/results/README.md and docs/gradient.md, from docs/results/*.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).resolve().parent / "results"

# error of the modified Hausdorff distance in Lake's 20 runs, as he publishes it with Omniglot
HAUSDORFF_ERROR = "38.8 (modified Hausdorff)"


def load(name: str) -> dict[str, Any] | None:
    """Return a result file, or ``None`` if it was not made yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def percent(score: dict[str, float]) -> str:
    """Return ``96.31 ± 0.24``."""
    return f"{100 * score['mean']:.2f} ± {100 * score['ci95']:.2f}"


def wanted(score: dict[str, Any]) -> str:
    """Return what was to be reached, and whether it was missed."""
    if "wanted" not in score:
        return ""
    text = f"{100 * score['wanted']:.2f}".rstrip("0").rstrip(".")
    text = text if "." in text else f"{text}.0"
    return text + ("" if score["reached"] else " (missed)")


class Scored(NamedTuple):
    """One accuracy of a run: the tasks, the score, the pixel floor and the number of episodes."""

    tasks: str
    score: dict[str, Any]
    floor: str
    episodes: int


def scored(document: dict[str, Any]) -> Iterator[Scored]:
    """Yield every accuracy of a run, the transductive one after the inductive one."""
    for cell in document.get("cells", []):
        p = cell["protocol"]
        tasks = f"{cell['data']}, {p['n_way']}-way {p['k_shot']}-shot"
        tasks += ", rotations as classes" if cell.get("rotations_as_classes") else ""
        tasks += ", tracks apart" if cell.get("group_aware") else ""
        floor = percent(cell["floor"]) if "floor" in cell else ""
        yield Scored(tasks, cell, floor, p["episodes"])
        if "transductive" in cell:
            yield Scored(f"{tasks}, transductive", cell["transductive"], floor, p["episodes"])


def lake_scores(lake: dict[str, Any]) -> tuple[str, str]:
    """Return the error in Lake's 20 runs with its interval, and what was to be reached."""
    error = f"{100 * lake['error']:.2f} ± {100 * lake['ci95_over_runs']:.2f} (over runs)"
    missed = "" if lake["reached"] else " (missed)"
    return error, f"at most {100 * lake['wanted_at_most']:.1f}{missed}"


def all_results() -> str:
    """Return the table of all accuracies, and under it what they took."""
    rows = [
        "| run | tasks | accuracy, % (95 % CI over episodes) | wanted | pixel 1-NN | episodes |",
        "|---|---|---|---|---|---|",
    ]
    files = sorted(RESULTS.glob("*.json"))
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    for document in documents:
        name = document["name"]
        rows += [
            f"| {name} | {s.tasks} | {percent(s.score['accuracy'])} | {wanted(s.score)} | "
            f"{s.floor} | {s.episodes:,} |"
            for s in scored(document)
        ]
        if "lake_20_runs" in document:
            error, goal = lake_scores(document["lake_20_runs"])
            rows.append(
                f"| {name} | Lake's 20 runs, 20-way 1-shot within an alphabet: error | {error} | "
                f"{goal} | {HAUSDORFF_ERROR} | 20 |"
            )
    return "\n".join([*rows, "", *cost_lines(documents), *speed_lines()]).rstrip()


def cost_lines(documents: list[dict[str, Any]]) -> list[str]:
    """Return how long each run took, as sentences."""
    lines = []
    for document in documents:
        if "demo" in document:
            lines.append(
                f"* `{document['name']}`: {document['demo']['seconds']:.0f} seconds from command "
                f"to report on {document['machine']['cores']} cores, with an empty cache."
            )
        if "training" in document:
            steps, seconds = document["training"]["steps"], document["training"]["seconds"]
            cores = document["machine"]["cores"]
            lines.append(
                f"* `{document['name']}`: {steps:,} steps in {seconds / 60:.1f} minutes on {cores} "
                f"cores ({document['machine']['device']}), validation included."
            )
    return lines


def speed_lines() -> list[str]:
    """Return the speed of evaluation, training and sampling, as sentences."""
    speed = load("speed")
    if speed is None:
        return []
    e, s = speed["evaluation"], speed["training_step"]
    return [
        f"* 10,000 episodes ({e['spec']}) on cached embeddings: {e['seconds']:.2f} s, "
        f"{e['times_faster_per_episode']:.0f} times faster per episode than easyfsl "
        f"{e['easyfsl_version']} on the same embeddings in the same process (wanted: 10 s and "
        f"{e['wanted']['times_faster_per_episode']} times). From images, the pool embedded "
        f"once: {e['from_images']['seconds']:.1f} s, "
        f"{e['from_images']['times_faster_per_episode']:.0f} times faster per episode than "
        "easyfsl's evaluation, which embeds each episode.",
        f"* One training step ({s['step']}): {100 * s['share_of_matrix_product']:.0f} % of the "
        "arithmetic rate of a large float32 matrix product; bfloat16 is "
        f"{s['bfloat16_times_faster']:.2f} times faster.",
        f"* Making a 60-way episode: {speed['sampling']['milliseconds']:.1f} ms, with "
        f"augmentation {speed['sampling']['milliseconds_augmented']:.1f} ms.",
    ]


# trained for each way apart, as in the papers; then those of which one model does all
PAIRS = ("maml", "fomaml", "reptile", "metasgd")
GRADIENT = [
    *((name, f"{name}{way}") for name in PAIRS for way in ("-5way", "")),
    *((name, name) for name in ("anil", "protomaml", "protomaml-vinyals")),
]


def gradient_table() -> str:
    """Return the table of gradient learners on Omniglot."""
    rows = [
        "| method | tasks | inductive | transductive | gain | wanted |",
        "|---|---|---|---|---|---|",
    ]
    start = load("omniglot-start")
    for cell in start["cells"] if start else []:
        p = cell["protocol"]
        rows.append(
            f"| the start: a Prototypical Network | {p['n_way']}-way {p['k_shot']}-shot | "
            f"{percent(cell['accuracy'])} | | | |"
        )
    for method, run in GRADIENT:
        document = load(f"omniglot-{run}")
        for cell in document["cells"] if document else []:
            p, other = cell["protocol"], cell["transductive"]
            gain = cell["transductive_gain"]
            goal = wanted(other) + (f"; inductive {wanted(cell)}" if "wanted" in cell else "")
            rows.append(
                f"| {method} | {p['n_way']}-way {p['k_shot']}-shot | {percent(cell['accuracy'])} | "
                f"{percent(other['accuracy'])} | {100 * gain['mean']:+.2f} ± "
                f"{100 * gain['ci95']:.2f} | {goal} |"
            )
    return "\n".join(rows)


def sinusoid_table() -> str:
    """Return the mean squared errors on sine waves."""
    document = load("sinusoid")
    if document is None:
        return ""
    rows = [
        "| points | steps | MAML | pretrained, fine-tuned | difference (paired) |",
        "|---|---|---|---|---|",
    ]
    for row in document["mean_squared_error"]:
        cells = [
            f"{row[n]['mean']:.3f} ± {row[n]['ci95']:.3f}"
            for n in ("maml", "pretrained", "difference")
        ]
        rows.append(f"| {row['k_shot']} | {row['inner_steps']} | {' | '.join(cells)} |")
    n = document["mean_squared_error"][0]["episodes"]
    return "\n".join([*rows, "", f"Mean squared error with 95 % CI over {n:,} test tasks."])


_UNMEASURED = "Not measured on a quiet machine yet: `make bench-gradient` does it."


def gradient_speed_table() -> str:
    """Return tasks per second against the peers."""
    document = load("gradient-speed")
    if document is None:
        return _UNMEASURED
    names = ["quickstudy", "quickstudy, flat", "learn2learn", "higher", "torchopt"]
    rows = [
        f"| tasks per second | order | {' | '.join(names)} | times the best peer | share of the "
        "matrix product |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    for row in document["speed"]:
        rates = [str(row["tasks_per_second"].get(n, "")) for n in names]
        rows.append(
            f"| {row['n_way']}-way, {row['inner_steps']} steps | {row['order']} | "
            f"{' | '.join(rates)} | {row['times_best_peer']:.2f} | "
            f"{100 * row['share_of_matrix_product']:.0f} % |"
        )
    return "\n".join([*rows, "", document["what"] + f"; {document['machine']['cores']} cores."])


def memory_table() -> str:
    """Return peak memory by inner steps."""
    document = load("gradient-speed")
    if document is None:
        return _UNMEASURED
    cells = {(r["library"], r["n_way"], r["inner_steps"]): r["peak_mb"] for r in document["memory"]}
    names = list(dict.fromkeys(name for name, _, _ in cells))
    columns = sorted({(ways, steps) for _, ways, steps in cells})
    heads = [f"{ways}-way, {steps} step{'s' * (steps > 1)}" for ways, steps in columns]
    rows = [f"| peak, MB | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name in names:
        values = [cells.get((name, *column)) for column in columns]
        shown = ["" if v is None else f"{v:.0f}" for v in values]
        rows.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(
        [*rows, "", "Second order, 32 tasks of which all but the last row of ours hold 16 at once."]
    )


def flat_memory_table() -> str:
    """Return how much a process grows by in flat memory, by inner steps."""
    document = load("flat-memory")
    if document is None:
        return "Not measured yet: `python benchmarks/flat_memory.py` does it."
    rows = document["memory"]
    return "\n".join(
        [
            f"| inner steps | {' | '.join(str(r['inner_steps']) for r in rows)} |",
            "|---|" + "---|" * len(rows),
            "| peak of the process, MB | " + " | ".join(f"{r['peak_mb']:.0f}" for r in rows) + " |",
            "| of it stored parameters, MB | "
            + " | ".join(f"{r['stored_parameters_mb']:.0f}" for r in rows)
            + " |",
            "",
            document["what"] + ".",
        ]
    )


# accuracy, %, at the instances below: what papers and re-implementations print
_INSTANCES = (1, 2, 3, 4, 5, 10)
_PUBLISHED_STREAMS = {
    "MANN (Santoro et al. 2016)": (36.4, 82.8, 91.0, 92.6, 94.9, 98.1),
    "MANN, a re-implementation": (35.4, 89.2, 95.2, 96.3, 96.9, 97.8),
    "MANN, another one": (35.6, 88.8, 95.0, 96.5, 97.3, 97.6),
    "LSTM (Santoro et al. 2016)": (24.4, 49.5, 55.3, 61.0, 63.6, 62.5),
    "LSTM, a re-implementation, trained longer": (30.4, 77.9, 85.3, 87.5, 88.8, 91.6),
}


def stream_table() -> str:
    """Return accuracy by instance in streams: what others print, and what was measured here."""
    rows = [
        f"| | batches of 16 | {' | '.join(f'{k}.' for k in _INSTANCES)} |",
        "|---|---|" + "---|" * len(_INSTANCES),
    ]
    rows += [
        f"| {name} | {'up to 100,000' if 're-impl' in name or 'another' in name else ''} | "
        f"{' | '.join(f'{v:.1f}' for v in values)} |"
        for name, values in _PUBLISHED_STREAMS.items()
    ]
    unmeasured = []
    for name in ("omniglot-mann", "omniglot-lstm"):
        document = load(name)
        if document is None or "streams" not in document:
            unmeasured.append(name)
            continue
        found = document["streams"]["accuracy_by_instance"]
        cells = [percent(found[str(k)]) for k in _INSTANCES]
        steps = document["training"]["steps"]
        rows.append(f"| `{name}` (measured) | {steps:,} | {' | '.join(cells)} |")
    rows += [f"| `{name}` | not measured yet |" + " |" * len(_INSTANCES) for name in unmeasured]
    return "\n".join(rows)


def clouds_table() -> str:
    """Return accuracy by instance of memory learners in streams of Gaussian clouds."""
    document = load("streams-clouds")
    if document is None:
        return "Not measured yet: `python benchmarks/streams.py` does it."
    instances = list(document["rows"][0]["accuracy_by_instance"])
    rows = [
        f"| | seed | {' | '.join(f'{k}.' for k in instances)} | processor seconds |",
        "|---|---|" + "---|" * (len(instances) + 1),
    ]
    for row in document["rows"]:
        cells = [percent(row["accuracy_by_instance"][k]) for k in instances]
        seed, seconds = row.get("seed", ""), row.get("cpu_seconds", "")
        rows.append(f"| {row['learner']} | {seed} | {' | '.join(cells)} | {seconds} |")
    return "\n".join([*rows, "", document["what"] + "."])


BLOCKS: dict[str, Callable[[], str]] = {
    "results": all_results,
    "gradient": gradient_table,
    "flat-memory": flat_memory_table,
    "memory": memory_table,
    "sinusoid": sinusoid_table,
    "speed": gradient_speed_table,
    "streams": stream_table,
    "streams-clouds": clouds_table,
}
