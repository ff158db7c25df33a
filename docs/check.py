"""Check that the documents match the code; with --write, bring the generated tables up to date.

Checked: every import in a Python block resolves; every ``quickstudy`` command and option in a
shell block exists; every local link and picture exists; the tables of results equal
docs/results/*.json.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import estimator_tables
import typer

from quickstudy.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks as ``(language, code)``."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def python_faults(code: str) -> list[str]:
    """Return names that a block imports and that do not exist."""
    faults = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quickstudy"):
            module = importlib.import_module(str(node.module))
            faults += [
                f"{node.module} has no {alias.name}"
                for alias in node.names
                if not hasattr(module, alias.name)
            ]
    return faults


def command_faults(line: str) -> list[str]:
    """Return what a ``quickstudy`` line uses that the command line does not have."""
    words = shlex.split(line, comments=True)
    command: Any = typer.main.get_command(app)
    words = words[1:]
    while hasattr(command, "commands"):
        options = {o for p in command.params for o in p.opts}
        while words and words[0] in options | {"--help"}:
            words = words[1:]
        if not words:
            return []
        if words[0] not in command.commands:
            return [f"{line!r}: no command {words[0]!r}"]
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    used = [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    return [f"{line!r}: no option {option}" for option in used if option not in known]


def link_faults(page: Path, text: str) -> list[str]:
    """Return local links of a page that lead nowhere."""
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    local = [t for t in targets if not re.match(r"\w+:", t)]
    return [f"no file {target}" for target in local if not (page.parent / target).exists()]


def load(name: str) -> dict[str, Any] | None:
    """Return a result file, or ``None`` if it was not made yet."""
    path = ROOT / "docs" / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def percent(score: dict[str, float]) -> str:
    """Return ``96.31 ± 0.24``."""
    return f"{100 * score['mean']:.2f} ± {100 * score['ci95']:.2f}"


def results_table(*, brief: bool) -> str:
    """Return the table of all results, or of those that have something to reach."""
    rows = [
        "| run | tasks | accuracy, % (95 % CI over episodes) | wanted | pixel 1-NN | episodes |",
        "|---|---|---|---|---|---|",
    ]
    files = sorted((ROOT / "docs" / "results").glob("*.json"))
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    for document in documents:
        for cell in document.get("cells", []):
            turned = ", rotations as classes" if cell.get("rotations_as_classes") else ""
            turned += ", tracks apart" if cell.get("group_aware") else ""
            rows += cell_rows(document["name"], cell, turned, brief=brief)
        if "lake_20_runs" in document:
            lake = document["lake_20_runs"]
            rows.append(
                f"| {document['name']} | Lake's 20 runs, 20-way 1-shot within an alphabet: error "
                f"| {100 * lake['error']:.2f} ± {100 * lake['ci95_over_runs']:.2f} (over runs) "
                f"| at most {100 * lake['wanted_at_most']:.1f} | 38.8 (modified Hausdorff) | 20 |"
            )
    return "\n".join([*rows, "", *speed_lines(documents)]).rstrip()


def cell_rows(name: str, cell: dict[str, Any], how: str, *, brief: bool) -> list[str]:
    """Return the rows of one cell: its own, and the transductive one if there is."""
    p, rows = cell["protocol"], []
    sides = [(cell, ""), (cell.get("transductive"), ", transductive")]
    for score, mode in sides:
        if score is None or (brief and "wanted" not in score):
            continue
        tasks = f"{cell['data']}, {p['n_way']}-way {p['k_shot']}-shot{how}{mode}"
        floor = percent(cell["floor"]) if "floor" in cell else ""
        rows.append(
            f"| {name} | {tasks} | {percent(score['accuracy'])} | {wanted(score)} | "
            f"{floor} | {p['episodes']:,} |"
        )
    return rows


def wanted(score: dict[str, Any]) -> str:
    """Return what was to be reached, and whether it was missed."""
    if "wanted" not in score:
        return ""
    text = f"{100 * score['wanted']:.2f}".rstrip("0").rstrip(".")
    text = text if "." in text else f"{text}.0"
    return text + ("" if score["reached"] else " (missed)")


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


BLOCKS = {
    "gradient": gradient_table,
    "memory": memory_table,
    "sinusoid": sinusoid_table,
    "speed": gradient_speed_table,
    **estimator_tables.BLOCKS,
}


def speed_lines(documents: list[dict[str, Any]]) -> list[str]:
    """Return training times and speed ratios as sentences."""
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
    speed = load("speed")
    if speed is not None:
        e, s = speed["evaluation"], speed["training_step"]
        lines += [
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
    return lines


def tables(text: str, *, brief: bool) -> str:
    """Return a page with its results table brought up to date."""
    for name, table in BLOCKS.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin in text:
            head, rest = text.split(begin, 1)
            text = f"{head}{begin}\n{table()}\n{end}{rest.split(end, 1)[1]}"
    if BEGIN not in text:
        return text
    head, rest = text.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{results_table(brief=brief)}\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    """Check all pages, or write their tables."""
    faults = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        current = tables(text, brief=page == ROOT / "README.md")
        if "--write" in sys.argv:
            page.write_text(current, encoding="utf-8")
            continue
        found = link_faults(page, text)
        if current != text:
            found.append("the results table is not that of docs/results; run: make docs")
        for language, code in blocks(text):
            if language == "python":
                found += python_faults(code)
            for line in code.splitlines() if not language else []:
                if line.startswith("quickstudy "):
                    found += command_faults(line)
        faults += [f"{page.relative_to(ROOT)}: {fault}" for fault in found]
    print("\n".join(faults) or "documents match the code")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
