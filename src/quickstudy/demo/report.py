"""The page: one HTML file that needs nothing else to be read."""

from __future__ import annotations

import html
import os
import platform
import shlex
from dataclasses import dataclass
from pathlib import Path

import torch

from quickstudy.core import EpisodeSpec
from quickstudy.demo.data import DemoData
from quickstudy.demo.episodes import draw_episode, draw_map
from quickstudy.demo.pictures import bar_chart, line_chart
from quickstudy.demo.style import CSS
from quickstudy.evaluation import Paired, Report
from quickstudy.learners import EmbeddingLearner
from quickstudy.tasks import PoolSource
from quickstudy.training import TrainConfig, TrainResult
from quickstudy.training.checkpoint import write_atomically

__all__ = ["Facts", "Score", "write_report"]

# the page may load nothing from anywhere, and says so to the browser
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Score:
    """One test: the learner and the floor on the same episodes.

    Args:
        what: the test data in plain words.
        source: the test data.
        spec: way, shot and queries.
        ours: the learner's report.
        floor: the floor's.
        paired: their difference.
    """

    what: str
    source: PoolSource
    spec: EpisodeSpec
    ours: Report
    floor: Report
    paired: Paired

    @property
    def title(self) -> str:
        """For example ``"handwritten digits, 5-way 1-shot"``."""
        return f"{self.what}, {self.spec}"


@dataclass(frozen=True, slots=True)
class Facts:
    """How the learner came about.

    Args:
        data: what it was trained on.
        config: how.
        trained: what came of it.
        seed: of weights, training episodes and tests.
        run: folder with the trained weights.
        device: where it was trained.
    """

    data: DemoData
    config: TrainConfig
    trained: TrainResult
    seed: int
    run: Path
    device: torch.device


def write_report(out: Path, learner: EmbeddingLearner, scores: list[Score], facts: Facts) -> None:
    """Write the page.

    Args:
        out: the HTML file.
        learner: the trained one, for the pictures.
        scores: the tests, unseen classes first and digits last.
        facts: how the learner came about.

    Raises:
        CheckpointError: if the file cannot be written.
    """
    title = "Learning new characters from one example"
    sections = [
        _opening(title, scores),
        _done(scores, facts),
        _accuracy(scores),
        _episodes(learner, scores, facts.seed),
        _maps(learner, scores, facts.seed),
        _curves(facts),
        _table(scores),
        _next_steps(facts),
    ]
    body = "\n".join(sections)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title} – Quickstudy</title><style>{CSS}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )
    write_atomically(out, page.encode())


def _percent(mean: float, ci95: float) -> str:
    return f"{100 * mean:.2f} ± {100 * ci95:.2f} %"


def _opening(title: str, scores: list[Score]) -> str:
    one, five = scores[-2], scores[-1]
    return (
        f'<header><h1>{title}</h1><p class="lede">After meta-training, this learner was shown '
        f"<strong>one</strong> example each of five {html.escape(one.what)} and named further ones "
        f"correctly in <strong>{100 * one.ours.mean:.1f} %</strong> of the cases; with five "
        "examples each, "
        f"in <strong>{100 * five.ours.mean:.1f} %</strong>. It had seen none of these classes "
        "before, and "
        "nothing in it was retrained.</p></header>"
    )


def _done(scores: list[Score], facts: Facts) -> str:
    c, t, data = facts.config, facts.trained, facts.data
    rate = f"{t.seconds:.0f} seconds" if t.seconds < 100 else f"{t.seconds / 60:.1f} minutes"
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    unseen = scores[0]
    return (
        "<h2>What was done</h2>"
        f"<p>A Prototypical Network ({data.recipe.encoder.kind} encoder) was meta-trained on "
        f"{html.escape(data.trained_on)}: {data.train_classes:,} classes, turned copies included, "
        f"{c.steps:,} steps, {rate} on {html.escape(_machine(facts.device))} ({cores}). "
        f"Each step was one small task: {c.n_way} classes drawn at random, {c.k_shot} example of "
        "each to learn "
        f"from, {c.n_query} others of each to be judged on. The weights were chosen on "
        "validation classes "
        f"(step {t.best_step:,} of {t.steps:,}); the test classes played no part.</p>"
        f"<p>Then it was tested on classes it had never seen: {unseen.source.pool.n_classes} "
        f"{html.escape(unseen.what)}, and the ten {html.escape(scores[-1].what)} of "
        "scikit-learn.</p>"
        "<p><strong>5-way 1-shot</strong> means: shown one labelled example of each of five "
        "classes "
        "(the support), name the class of new examples (the queries). "
        "The <strong>floor</strong> gives a query the label of the support image nearest in "
        "pixels; "
        "a learner that does not beat it has learned nothing. <strong>Chance</strong> is blind "
        "guessing.</p>"
        "<p>Intervals are 95 % confidence intervals of the mean over "
        f"{unseen.ours.protocol.episodes} episodes "
        f"(tasks), the classes being fixed, seed {facts.seed}. No answer looks at other queries "
        "(not transductive).</p>"
    )


def _machine(device: torch.device) -> str:
    """Name the processor in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return name
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else name


def _accuracy(scores: list[Score]) -> str:
    panels = ""
    for score in scores:
        ours, floor = score.ours, score.floor
        chance = 1 / score.spec.max_way
        rows = [
            ("ours", "Prototypical Network", ours.mean, ours.ci95),
            ("floor", "floor: pixel nearest neighbour", floor.mean, floor.ci95),
            ("chance", "chance", chance, 0.0),
        ]
        label = f"{score.title}: " + "; ".join(
            f"{name} {_percent(mean, ci95) if ci95 else f'{100 * mean:g} %'}"
            for _, name, mean, ci95 in rows
        )
        panels += (
            f"<figure><h3>{html.escape(_capital(score.title))}</h3>"
            f"{bar_chart(rows, label=label)}</figure>"
        )
    return f'<h2>How well it does</h2><div class="panels">{panels}</div>'


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _episodes(learner: EmbeddingLearner, scores: list[Score], seed: int) -> str:
    """Draw the first episode of each kind, and the one that went worst."""
    unseen, digits = scores[1], scores[-2]
    worst = int(digits.ours.scores.argmin())
    chosen = [
        (unseen, 0, f"{_capital(unseen.title)}: the first episode."),
        (digits, 0, f"{_capital(digits.title)}: the first episode."),
        (
            digits,
            worst,
            f"{_capital(digits.title)}: the worst episode of {len(digits.ours.scores)}.",
        ),
    ]
    figures = "".join(
        draw_episode(learner, s.source, s.spec, task_id=task_id, seed=seed, caption=caption)
        for s, task_id, caption in chosen
    )
    return (
        "<h2>What an episode looks like</h2>"
        "<p>In each row: the one example it was shown of a class, then up to eight queries of "
        "that class with "
        "its answers. ✓ marks a right answer, ✗ a wrong one together with the right one. "
        "The first episodes of the list are shown, not picked ones, and the worst.</p>" + figures
    )


def _maps(learner: EmbeddingLearner, scores: list[Score], seed: int) -> str:
    panels = ""
    for score in (scores[1], scores[-2]):
        drawing = draw_map(learner, score.source, seed=seed, what=score.what)
        panels += f"<figure><h3>{html.escape(_capital(score.what))}</h3>{drawing}</figure>"
    return (
        "<h2>How it sees classes it has never seen</h2>"
        "<p>Each image lies where the network puts it; images that it takes for alike lie close "
        "together "
        "(t-SNE in two dimensions; distances between far groups mean little). Up to ten classes, "
        "one colour "
        f'each.</p><div class="panels wide">{panels}</div>'
    )


def _curves(facts: Facts) -> str:
    log = facts.trained.log
    loss = [(e["step"], e["loss"]) for e in log if "loss" in e]
    validation = [(e["step"], e["validation"]) for e in log if "validation" in e]
    v = facts.config.validation
    last = f"the loss falls from {loss[0][1]:.3g} to {loss[-1][1]:.3g}"
    best = max(value for _, value in validation)
    return (
        "<h2>Training</h2>"
        '<div class="panels wide"><figure><h3>Loss of the training tasks (nats, logarithmic)</h3>'
        + line_chart(loss, label=f"Training loss: {last}.", percent=False, markers=False)
        + f"</figure><figure><h3>Accuracy on validation classes ({v.spec})</h3>"
        + line_chart(
            validation,
            label=f"Validation accuracy over the steps; the best is {100 * best:.1f} %.",
            percent=True,
            markers=True,
        )
        + "</figure></div>"
    )


def _table(scores: list[Score]) -> str:
    heads = (
        *(
            "test",
            "accuracy",
            "floor",
            "difference (points)",
            "over new classes",
            "calibration error",
        ),
        *(
            "classes",
            "split",
            "queries per class",
            "episodes",
            "seed",
            "transductive",
            "episode list",
        ),
    )
    rows = ""
    for s in scores:
        p, classes = s.ours.protocol, s.ours.class_interval
        cells = (
            _percent(s.ours.mean, s.ours.ci95),
            _percent(s.floor.mean, s.floor.ci95),
            f"{100 * s.paired.mean:+.2f} ± {100 * s.paired.ci95:.2f}",
            "–" if classes is None else f"{100 * classes.low:.1f} to {100 * classes.high:.1f} %",
            "–" if (e := s.ours.calibration_error) is None else f"{100 * e:.2f} %",
            s.source.pool.n_classes,
            p.split,
            p.n_query,
            p.episodes,
            p.seed,
            "yes" if p.transductive else "no",
            p.episodes_sha256[:12],
        )
        rows += f'<tr><th scope="row">{html.escape(_capital(s.title))}</th>'
        rows += "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        "<h2>The numbers</h2>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of results">'
        "<table><caption>± is the half-width of a 95 % interval over episodes, the classes being "
        "fixed.</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<ul class="soft"><li><strong>Difference</strong>: learner minus floor on the same '
        "episodes (paired).</li>"
        "<li><strong>Over new classes</strong>: a 95 % interval from drawing the test classes "
        "anew (bootstrap); "
        "with few classes it is the more honest one, and still a lower bound of the spread.</li>"
        "<li><strong>Calibration error</strong>: how far the learner's confidence is from its "
        "accuracy "
        "on average (15 bins); 0 % is perfect.</li>"
        "<li><strong>Episode list</strong>: the beginning of the hash of all episodes; two "
        "numbers may be "
        "compared only if it is equal.</li></ul>"
    )


def _next_steps(facts: Facts) -> str:
    run = shlex.quote(str(facts.run))
    steps = [
        (
            "Try the trained learner on your own images: a folder with one folder of images per "
            "class.",
            f"quickstudy evaluate {run} --data my_images/ --n-way 5 --k-shot 1 --floor",
        ),
        (
            "Repeat one of the numbers above, as JSON.",
            f"quickstudy evaluate {run} --data digits --n-way 5 --k-shot 5 --episodes 600 "
            f"--seed {facts.seed} --json",
        ),
        (
            "Train longer: this demonstration stops after two minutes, the full recipe goes on.",
            f"quickstudy train {facts.data.recipe.name} --out runs/longer",
        ),
    ]
    if facts.data.recipe.data.name != "omniglot":
        steps.insert(
            0,
            (
                "Train on real handwriting: fetch Omniglot (15 MB), then run the demonstration "
                "again.",
                "quickstudy data get omniglot && quickstudy demo",
            ),
        )
    items = "".join(
        f"<p>{html.escape(text)}</p><pre><code>{html.escape(command)}</code></pre>"
        for text, command in steps
    )
    return f"<h2>What to do next</h2>{items}"
