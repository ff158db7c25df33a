"""The page of the demonstration: one HTML file that loads no other file."""

from __future__ import annotations

import html
import re
from pathlib import Path

from quickstudy.demo.text import (
    Facts,
    Score,
    capital,
    five_way_test,
    next_steps,
    opening,
    what_was_done,
)
from quickstudy.evaluation import Mean
from quickstudy.evaluation.drawing import draw_episode, draw_map
from quickstudy.learners import EmbeddingLearner
from quickstudy.pages import bar_chart, document, line_chart, table
from quickstudy.storage.files import write_atomically

__all__ = ["write_report"]


def write_report(out: Path, learner: EmbeddingLearner, scores: list[Score], facts: Facts) -> None:
    """Write the page.

    Args:
        out: the HTML file.
        learner: the trained learner; it answers the episodes that are drawn.
        scores: one for each test.
        facts: how the learner was trained.

    Raises:
        CheckpointError: if the file cannot be written.
    """
    title = "Learning new characters from one example"
    sections = [
        opening(title, scores),
        what_was_done(scores, facts),
        _accuracy(scores),
        _episodes(learner, scores, facts.seed),
        _maps(learner, scores, facts.seed),
        _curves(facts),
        _numbers(scores),
        next_steps(facts),
    ]
    # a number and its sign stay on one line
    body = re.sub(r"(?<=\d) (?=[%±])", "\N{NO-BREAK SPACE}", "\n".join(sections))
    write_atomically(out, document(title, body).encode())


def _accuracy(scores: list[Score]) -> str:
    panels = ""
    for score in scores:
        ours, floor = score.ours.score, score.floor.score
        chance = 1 / score.spec.max_way
        rows = [
            ("ours", "Prototypical Network", _bar_text(ours), ours.mean, ours.ci95),
            ("floor", "floor: pixel nearest neighbour", _bar_text(floor), floor.mean, floor.ci95),
            ("chance", "chance", f"{100 * chance:g} %", chance, 0.0),
        ]
        label = (
            f"{score.title}: Prototypical Network {_bar_text(ours)}; floor: pixel nearest "
            f"neighbour {_bar_text(floor)}; chance {100 * chance:g} %"
        )
        panels += (
            f"<figure><h3>{html.escape(capital(score.what))}<br>{score.spec}</h3>"
            f"{bar_chart(rows, label=label)}</figure>"
        )
    return f'<h2>How well it does</h2><div class="panels">{panels}</div>'


def _bar_text(accuracy: Mean) -> str:
    """Return the text at a bar: a number with its interval, unless the interval has no length."""
    return accuracy.percent() if accuracy.ci95 else f"{100 * accuracy.mean:g} %"


def _episodes(learner: EmbeddingLearner, scores: list[Score], seed: int) -> str:
    """Draw the first episode of unseen classes and of digits, and the worst one of digits."""
    unseen = five_way_test(scores, digits=False, k_shot=1)
    digits = five_way_test(scores, digits=True, k_shot=1)
    worst = int(digits.ours.scores.argmin())
    chosen = [
        (unseen, 0, f"{capital(unseen.title)}: the first episode."),
        (digits, 0, f"{capital(digits.title)}: the first episode."),
        (
            digits,
            worst,
            f"{capital(digits.title)}: the worst episode of {len(digits.ours.scores)}.",
        ),
    ]
    figures = "".join(
        draw_episode(learner, s.source, s.spec, task_id=task_id, seed=seed, caption=caption)
        for s, task_id, caption in chosen
    )
    return f"""<h2>What an episode looks like</h2>
<p>In each row: the one example it was shown of a class, then up to eight queries of that class with
its answers. ✓ marks a right answer, ✗ a wrong one together with the right one. The first episodes
of the list are shown, not picked ones, and the worst.</p>{figures}"""


def _maps(learner: EmbeddingLearner, scores: list[Score], seed: int) -> str:
    panels = ""
    for digits in (False, True):
        score = five_way_test(scores, digits=digits, k_shot=1)
        drawing = draw_map(learner, score.source, seed=seed, what=score.what)
        panels += f"<figure><h3>{html.escape(capital(score.what))}</h3>{drawing}</figure>"
    return f"""<h2>How it sees classes it has never seen</h2>
<p>Each image lies where the network puts it; images that it takes for alike lie close together
(t-SNE in two dimensions; distances between far groups mean little). Up to ten classes, one colour
each.</p><div class="panels wide">{panels}</div>"""


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
        + "</figure><figure><h3>Accuracy on validation classes, "
        + f'<span class="whole">{v.spec}</span></h3>'
        + line_chart(
            validation,
            label=f"Validation accuracy over the steps; the best is {100 * best:.1f} %.",
            percent=True,
            markers=True,
        )
        + "</figure></div>"
    )


def _numbers(scores: list[Score]) -> str:
    results, protocols = [], []
    for s in scores:
        p, classes, error = s.ours.protocol, s.ours.class_interval, s.ours.calibration_error
        name = f'{html.escape(capital(s.what))}, <span class="whole">{s.spec}</span>'
        results.append(
            (
                name,
                s.ours.score.percent(),
                s.floor.score.percent(),
                s.paired.gap.cell(signed=True),
                f"{100 * classes.low:.1f} to {100 * classes.high:.1f} %" if classes else "–",
                "–" if error is None else f"{100 * error:.2f} %",
            )
        )
        split = f"{p.split}, {s.source.pool.n_classes}"
        transductive = "yes" if p.transductive else "no"
        list_name = p.episodes_sha256[:12]
        protocols.append(
            (name, split, p.n_query, p.episodes, p.seed, transductive, list_name),
        )
    results_heads = ("test", "accuracy", "floor", "difference", "over new classes", "calibration")
    protocol_heads = (
        *("test", "split, classes", "queries per class", "episodes", "seed"),
        *("transductive", "episode list"),
    )
    return f"""<h2>The numbers</h2>{table("Results", results_heads, results)}
<ul class="soft"><li><strong>±</strong>: half-width of a 95 % interval over episodes, the classes
being fixed.</li>
<li><strong>Difference</strong>: learner minus floor in percentage points, on the same episodes
(paired).</li>
<li><strong>Over new classes</strong>: a 95 % interval of the same mean with other classes of the
kind (jackknife over classes); with few classes it is the more honest one.</li>
<li><strong>Calibration</strong> error: how far the learner's confidence is from its accuracy on
average (15 bins); 0 % is perfect.</li></ul>
{table("Protocol", protocol_heads, protocols)}
<ul class="soft"><li><strong>Episode list</strong>: the beginning of the hash of all episodes; two
numbers may be compared only if it is equal.</li></ul>"""
