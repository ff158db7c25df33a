"""The table of README.md: ten numbers, each taken from one file of docs/results."""

from __future__ import annotations

from typing import Any, NamedTuple

from estimator_tables import WANTED, number
from result_tables import HAUSDORFF_ERROR, Scored, lake_scores, load, percent, scored, wanted


class Row(NamedTuple):
    """One number: its file, what it says, its value, what stands beside it and what was wanted."""

    file: str
    says: str
    value: str
    beside: str
    wanted: str = ""


def document(name: str) -> dict[str, Any]:
    """Return a result file that has to be there."""
    found = load(name)
    if found is None:
        raise SystemExit(
            f"README.md shows a number of docs/results/{name}.json, which is not there"
        )
    return found


def result_on(file: str, tasks: str) -> Scored:
    """Return the one accuracy of a run on these tasks."""
    matching = [result for result in scored(document(file)) if result.tasks == tasks]
    if len(matching) != 1:
        raise SystemExit(
            f"docs/results/{file}.json has {len(matching)} results on {tasks!r}, not 1"
        )
    return matching[0]


def accuracy(file: str, tasks: str, *, says: str) -> Row:
    """Return an accuracy of a run beside nearest neighbour on pixels."""
    result = result_on(file, tasks)
    value = f"{percent(result.score['accuracy'])} %"
    floor = f"pixel nearest neighbour: {result.floor}"
    return Row(file, f"{says}: {tasks}", value, floor, wanted(result.score))


def after_start(file: str, start: str, tasks: str, *, says: str) -> Row:
    """Return a transductive accuracy of a run beside that of the run from which it started."""
    before = percent(result_on(start, tasks).score["accuracy"])
    row = accuracy(file, f"{tasks}, transductive", says=says)
    return row._replace(beside=f"the Prototypical Network it starts from: {before}")


def lake(file: str, *, says: str) -> Row:
    """Return the error in Lake's 20 runs."""
    error, goal = lake_scores(document(file)["lake_20_runs"])
    return Row(file, says, f"error {error.replace(' (', ' % (')}", HAUSDORFF_ERROR, goal)


def other_domains(file: str, learner: str, *, says: str) -> Row:
    """Return the mean over the domains that no compared learner was trained on."""
    scores = document(file)["scores"]
    roles: dict[str, set[str]] = {}
    for result in scores["results"]:
        roles.setdefault(result["tasks"], set()).add(result["role"])
    domains = sum(found == {"novel domain"} for found in roles.values())
    of = {row["learner"]: row["accuracy"] for row in scores["approaches"]}
    ours, pixels = of[learner], of["pixel nearest neighbour"]
    return Row(
        file,
        f"{says}, mean of {domains}",
        f"{percent(ours['novel domain'])} %",
        f"pixel nearest neighbour: {percent(pixels['novel domain'])}; "
        f"on new classes of its own domain: {percent(ours['novel classes'])}",
    )


def classifier(file: str, data: str, tasks: str, *, says: str) -> Row:
    """Return an accuracy of ``FewShotClassifier`` beside the best of its baselines."""
    table = document(file)["scores"][data][tasks]
    baselines = table["baselines"]
    best = max(baselines, key=lambda name: baselines[name]["mean"])
    goal = WANTED.get((data, tasks))
    missed = goal is not None and table["auto"]["mean"] < goal
    return Row(
        file,
        f"{says}: {data}, {tasks}",
        f"{number(table['auto'])} %",
        f"{best}, the best of {len(baselines)} baselines: {number(baselines[best])}",
        "" if goal is None else f"{goal:.1f}{' (missed)' * missed}",
    )


def sinusoid(file: str, k_shot: int, inner_steps: int, *, says: str) -> Row:
    """Return the squared error of MAML on sine waves beside that of fine-tuning."""
    row = next(
        row
        for row in document(file)["mean_squared_error"]
        if (row["k_shot"], row["inner_steps"]) == (k_shot, inner_steps)
    )
    ours, other = (f"{row[n]['mean']:.2f} ± {row[n]['ci95']:.2f}" for n in ("maml", "pretrained"))
    points = f"{k_shot} points, {inner_steps} gradient step{'s' * (inner_steps > 1)}"
    return Row(file, f"{says}, {points}", f"squared error {ours}", f"fine-tuning: {other}")


def gradient_speed(file: str, *, says: str) -> Row:
    """Return the least and the most that we are faster than the fastest peer."""
    found = document(file)
    times = [row["times_best_peer"] for row in found["speed"]]
    goal, peers = found["wanted"]["times_best_peer"], ", ".join(found["peers"])
    missed = sum(value < goal for value in times)
    return Row(
        file,
        f"{says}, {len(times)} settings",
        f"{min(times):.1f} to {max(times):.1f} times as fast",
        f"the fastest of {peers}",
        f"{goal} times" + f" (missed in {missed} of {len(times)})" * bool(missed),
    )


def chosen() -> list[Row]:
    """Return the ten numbers: which ones is decided here, their values stand in the files."""
    return [
        accuracy(
            "omniglot-protonet",
            "omniglot, 20-way 1-shot, rotations as classes",
            says="Handwritten characters, Prototypical Network",
        ),
        after_start(
            "omniglot-maml",
            "omniglot-start",
            "omniglot, 20-way 1-shot, rotations as classes",
            says="Handwritten characters, split at random, MAML",
        ),
        lake(
            "omniglot-background",
            says="Lake's 20 runs: 20 characters of one alphabet, one example of each",
        ),
        accuracy(
            "cifar-fs-protonet", "cifar-fs, 5-way 1-shot", says="Small photos, Prototypical Network"
        ),
        accuracy(
            "miniimagenet-protonet",
            "miniimagenet, 5-way 5-shot",
            says="Larger photos, Prototypical Network",
        ),
        other_domains(
            "cross-domain",
            "omniglot-protonet",
            says="A shorter run on Omniglot alone, mixed ways and shots of other domains",
        ),
        classifier(
            "estimators-text-banking77",
            "banking77",
            "5-way 5-shot",
            says="`FewShotClassifier` on customers' questions",
        ),
        classifier(
            "estimators-image",
            "gtsrb",
            "5-way 1-shot",
            says="`FewShotClassifier` on photos of traffic signs",
        ),
        sinusoid("sinusoid", 10, 1, says="Sine waves, MAML"),
        gradient_speed("gradient-speed", says="Speed of MAML's meta-gradient"),
    ]


def ten_numbers() -> str:
    """Return the table, and under it how to read it."""
    rows = chosen()
    cores = sorted({document(row.file)["machine"]["cores"] for row in rows})
    lines = [
        "| what | measured | beside it | wanted |",
        "|---|---|---|---|",
        *(
            f"| [{row.says}](docs/results/{row.file}.json) | {row.value} | {row.beside} | "
            f"{row.wanted} |"
            for row in rows
        ),
        "",
        f"± is the 95 % interval. Measured on {' or '.join(map(str, cores))} CPU cores.",
    ]
    return "\n".join(lines)


BLOCKS = {"ten-numbers": ten_numbers}
