"""The texts of the page, and the facts that they are made from."""

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
from quickstudy.evaluation import Paired, Report
from quickstudy.tasks import PoolSource
from quickstudy.training import TrainConfig, TrainResult

__all__ = [
    "DIGITS",
    "Facts",
    "Score",
    "capital",
    "five_way_test",
    "next_steps",
    "opening",
    "what_was_done",
]

DIGITS = "handwritten digits"
"""The second kind of test data; the first are unseen classes of the kind that was trained on."""

_ENCODERS = {"conv4": "Conv-4", "resnet12": "ResNet-12", "mlp": "multilayer perceptron"}


@dataclass(frozen=True, slots=True)
class Score:
    """One test: the learner and pixel nearest neighbour (the floor) on the same episodes.

    Args:
        what: the test data in plain words; :data:`DIGITS` for digits.
        source: the test data.
        spec: way, shot and queries.
        ours: report of the learner.
        floor: report of the floor.
        paired: learner minus floor.
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
    """How the learner was trained.

    Args:
        data: training and test data.
        config: the training configuration.
        trained: the outcome of training.
        seed: of weights, training episodes and tests.
        run: folder with the trained weights.
        device: the device that it was trained on.
    """

    data: DemoData
    config: TrainConfig
    trained: TrainResult
    seed: int
    run: Path
    device: torch.device


def five_way_test(scores: list[Score], *, digits: bool, k_shot: int) -> Score:
    """Return the 5-way test with this many shots, on digits or on unseen classes."""
    for score in scores:
        size = score.spec.n_way, score.spec.k_shot
        if (score.what == DIGITS) == digits and size == (5, k_shot):
            return score
    raise KeyError(f"no 5-way {k_shot}-shot test {'on' if digits else 'but on'} {DIGITS}")


def capital(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def opening(title: str, scores: list[Score]) -> str:
    """Return the heading and the result in two sentences."""
    one, five = (five_way_test(scores, digits=True, k_shot=k) for k in (1, 5))
    return f"""<header><h1>{title}</h1>
<p class="lede">After meta-training, this learner was shown <strong>one</strong> example each of
five {html.escape(one.what)} and named further ones correctly in
<strong>{100 * one.ours.mean:.1f} %</strong> of the cases; with five examples each, in
<strong>{100 * five.ours.mean:.1f} %</strong>. Comparing pixels gets {100 * one.floor.mean:.1f} %
and {100 * five.floor.mean:.1f} %. It had never seen these classes, and its weights did not change
for them.</p></header>"""


def what_was_done(scores: list[Score], facts: Facts) -> str:
    """Return the section on training data, training, machine, tests and the terms of the page."""
    c, t, data = facts.config, facts.trained, facts.data
    time = f"{t.seconds:.0f} seconds" if t.seconds < 100 else f"{t.seconds / 60:.1f} minutes"
    threads = torch.get_num_threads()
    used = f"{os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''}"
    unseen = five_way_test(scores, digits=False, k_shot=1)
    digits = five_way_test(scores, digits=True, k_shot=1)
    shown = "one example" if c.k_shot == 1 else f"{c.k_shot} examples"
    return f"""<h2>What was done</h2>
<p>A Prototypical Network ({_ENCODERS[data.recipe.encoder.kind]} encoder) was meta-trained on
{html.escape(data.trained_on)}: {data.train_classes:,} classes, turned copies included,
{c.steps:,} steps, {time} on {html.escape(_machine(facts.device))} ({used}). Each step was one small
task: {c.n_way} classes drawn at random, {shown} of each to learn from, {c.n_query} others of
each to be judged on. The weights were chosen on validation classes (step {t.best_step:,} of
{t.steps:,}); the test classes played no part.</p>
<p>Then it was tested on classes it had never seen: {unseen.source.pool.n_classes}
{html.escape(unseen.what)}, and the {digits.source.pool.n_classes}
{html.escape(digits.what)} that come with scikit-learn.</p>
<p><strong>5-way 1-shot</strong> means: shown one labelled example of each of five classes (the
support), name the class of new examples (the queries). The <strong>floor</strong> gives a query
the label of the support image nearest in pixels; a learner that does not beat it has learned
nothing. <strong>Chance</strong> is blind guessing.</p>
<p>Intervals are 95 % confidence intervals of the mean over {unseen.ours.protocol.episodes} episodes
(tasks), the classes being fixed, seed {facts.seed}. No answer looks at other queries (not
transductive).</p>"""


def _machine(device: torch.device) -> str:
    """Return the name of the processor or graphics card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return name
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else name


def next_steps(facts: Facts) -> str:
    """Return what to try next, with the commands."""
    run = shlex.quote(str(facts.run))
    steps = [
        (
            "Try the trained learner on your own images: a folder with one folder per class.",
            f"quickstudy evaluate {run} --data my_images/ --n-way 5 --k-shot 1 --floor",
        ),
        (
            "Repeat one of the numbers above, as JSON.",
            f"quickstudy evaluate {run} --data digits --n-way 5 --k-shot 5 --episodes 600 "
            f"--seed {facts.seed} --json",
        ),
        (
            "Train longer: this demonstration stops after two minutes, the recipe goes on.",
            f"quickstudy train {facts.data.recipe.name} --out runs/longer",
        ),
    ]
    if facts.data.recipe.data.name != "omniglot":
        steps[-1] = (
            "Train on real handwriting: fetch Omniglot (15 MB), then run the demonstration again.",
            "quickstudy data get omniglot && quickstudy demo",
        )
    items = "".join(
        f"<p>{html.escape(text)}</p><pre><code>{html.escape(command)}</code></pre>"
        for text, command in steps
    )
    return f"<h2>What to do next</h2>{items}"
