"""The meta-training loop that all learners share."""

from __future__ import annotations

import copy
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from quickstudy.core import (
    CheckpointError,
    ConfigError,
    DivergenceError,
    ProtocolError,
)
from quickstudy.core.allocator import keep_freed_memory
from quickstudy.core.arguments import checked
from quickstudy.core.determinism import deterministic_on_cpu
from quickstudy.core.devices import choose_device
from quickstudy.learners.base import Learner
from quickstudy.storage.outputs import check_output_folder, is_run_folder
from quickstudy.storage.tensors import load_tensors, load_weights, save_tensors
from quickstudy.tasks import TaskSource
from quickstudy.training.checkpoint import (
    checked_checkpoint,
    optimiser_state,
    restore_optimiser,
)
from quickstudy.training.config import TrainConfig
from quickstudy.training.fingerprint import changes, fingerprint
from quickstudy.training.logs import RunLog
from quickstudy.training.overfitting import Curve
from quickstudy.training.step import (
    Average,
    build_optimiser,
    check_config,
    learning_rate,
    meta_gradient,
)
from quickstudy.training.validation import Validator, curve_line, log_line
from quickstudy.training.watcher import ProgressBar, Watcher, Watchers

__all__ = [
    "CHECKPOINT",
    "MAY_CHANGE",
    "TrainResult",
    "TrainingInterrupted",
    "check_folder",
    "train",
]

# settings that may be changed when a run is resumed: one that diverged or ran out of memory
# cannot go on without the first three, one that is finished without the others
MAY_CHANGE = {
    *("train.outer_lr", "train.clip_norm", "train.tasks_at_once"),
    *("train.steps", "train.validation.patience"),
}
CHECKPOINT, MODEL, CURVE = "checkpoint.safetensors", "model.safetensors", "curve.jsonl"


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during training; the steps done are saved if the run has a folder.

    Args:
        step: outer steps done.
        steps: outer steps wanted.
        out: folder of the run, or ``None``.
        go_on: the command that resumes it, if there is one.
    """

    def __init__(self, step: int, steps: int, out: Path | None, go_on: str | None = None) -> None:
        self.step, self.steps, self.out = step, steps, out
        kept = "nothing is kept" if out is None else f"{out} can be resumed"
        text = f"training stopped at step {step} of {steps}; {kept}."
        if go_on is not None:
            text = f"stopped at step {step} of {steps}; nothing is lost. Go on with: {go_on}"
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The outcome of a training.

    Args:
        steps: outer steps done in all.
        stopped: ``"done"``, or ``"early"`` (by patience or a watcher).
        best_step: step of the weights that were kept.
        best_validation: score of these weights on the tasks that chose them, validation classes or
            a domain (accuracy, or minus the mean squared error); ``None`` without validation.
        seconds: time spent training, over all resumed parts.
        episodes_per_second: training episodes per second in this part.
        sampling_share: share of this part's step time that drawing the episodes took.
        log: log lines of the whole run.
        curve: scores of training classes, novel classes and domains at each validation; ``None``
            if only validation classes were scored.

    Example::

        result = train(learner, source, config, validation=validation)
        result.steps, result.best_step, result.best_validation
        losses = [line["loss"] for line in result.log if "loss" in line]
        print(f"{result.episodes_per_second:.0f} episodes/s")
    """

    steps: int
    stopped: str
    best_step: int
    best_validation: float | None
    seconds: float
    episodes_per_second: float
    sampling_share: float
    log: list[dict[str, Any]] = field(repr=False)
    curve: Curve | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Progress:
    """The numbers that change during a run, beside the weights; a checkpoint holds them."""

    step: int = 0
    best_step: int = 0
    best: float | None = None
    worse: int = 0  # validations since the best one
    seconds: float = 0.0


@checked
def train(
    learner: Learner,
    source: TaskSource,
    config: TrainConfig,
    *,
    validation: TaskSource | None = None,
    domains: Mapping[str, TaskSource] | None = None,
    out: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    manifest: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
    progress: bool = False,
    watchers: Sequence[Watcher] = (),
) -> TrainResult:
    """Meta-train a learner in place; afterwards it holds the weights that validation chose.

    On a CPU the result depends only on the seed and the number of threads. A run that was killed
    and resumed ends with the same parameters, bit for bit, as one that was not.

    Args:
        learner: the learner to train.
        source: training episodes.
        config: steps, optimiser, episode sizes, validation.
        validation: episodes of validation classes; never the test split.
        domains: a source for each name in ``config.validation.domains``; never the data set that is
            trained on.
        out: folder of the run, for checkpoints, log and ``model.safetensors``. ``None`` = nothing
            is written.
        resume: continue from the checkpoint in ``out``, if there is one.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        manifest: JSON-ready facts that must be the same when the run is resumed (recipe, data
            hashes).
        tensorboard: also write event files.
        progress: show a bar with rate and time left on standard error.
        watchers: objects whose methods are called during training, and that may stop it.

    Raises:
        ConfigError: if the learner cannot be trained with these settings; nothing is written then.
        ProtocolError: if ``source`` or ``validation`` is a test split, or a domain is the data set
            that is trained on.
        CheckpointError: if the run cannot be written, or not be resumed with these settings.
        DivergenceError: if the loss or its gradient is not finite; the run is saved as it was
            before that step.
        TrainingInterrupted: after the first Ctrl-C (or SIGTERM), when the step is done and saved.
    """
    for what, used in (("training", source), ("validation", validation)):
        if used is not None and "test" in used.split.split("+"):
            raise ProtocolError(
                f"{what} on the test split of {used.name} would tune on test. Use its training "
                "and validation classes."
            )
    check_config(learner, config)

    watch = Watchers([*watchers, *([ProgressBar(config.steps)] if progress else [])])
    validator = _validator(config, source, validation, domains or {}, watch.on_warning)
    keep_freed_memory()
    where = choose_device(device)
    learner.to(where).train()
    run = _Run(learner, config, out, fingerprint(config, manifest))
    if out is not None:
        check_folder(out, resume=resume)
    if resume:
        run.restore(warn=watch.on_warning)
    clock, done = _Clock(), run.progress.step
    keeps = validator is not None and validator.keeps_curve
    with (
        RunLog(out, from_step=done, tensorboard=tensorboard) as log,
        RunLog(out if keeps else None, name=CURVE, from_step=done) as curve,
        _stop_signal() as stop,
        deterministic_on_cpu(where),
        watch.started(done),
    ):
        stopped = _loop(run, source, validator, (log, curve), clock, stop, watch, where)
    run.finish(validation is not None)
    return _result(run, stopped, clock, log, curve)


def _validator(
    config: TrainConfig,
    source: TaskSource,
    validation: TaskSource | None,
    domains: Mapping[str, TaskSource],
    warn: Callable[[str], None],
) -> Validator | None:
    """Return the validator, or ``None`` if there are no validation classes."""
    if validation is not None:
        v = config.validation
        return Validator(v, source, validation, domains, seed=config.seed, warn=warn)
    if config.validation.domains or domains:
        raise ConfigError("domains are followed beside validation classes. Give validation too.")
    return None


@checked
def check_folder(out: Path, *, resume: bool) -> None:
    """Refuse to write over a run.

    Args:
        out: folder of the run.
        resume: whether the run in it is to be continued.

    Raises:
        CheckpointError: if the folder holds a run that is not to be resumed, or cannot be.
        ConfigError: if it is a file, or holds other things.
    """
    check_output_folder(out, ours=is_run_folder)
    if (out / CHECKPOINT).exists():
        if not resume:
            raise CheckpointError(
                f"{out} already holds a run. Use resume=True to go on, or another out=."
            )
    elif (out / MODEL).exists():
        raise CheckpointError(
            f"{out} holds a trained model without a checkpoint to go on from. Use another out=."
        )


def _result(run: _Run, stopped: str, clock: _Clock, log: RunLog, curve: RunLog) -> TrainResult:
    p, tasks = run.progress, run.config.tasks_per_step
    return TrainResult(
        steps=p.step,
        stopped=stopped,
        best_step=p.best_step,
        best_validation=p.best,
        seconds=p.seconds,
        episodes_per_second=clock.steps * tasks / max(clock.total, 1e-9),
        sampling_share=clock.sampling / max(clock.total, 1e-9),
        log=log.lines,
        curve=Curve.from_lines(curve.lines),
    )


def _loop(
    run: _Run,
    source: TaskSource,
    validator: Validator | None,
    logs: tuple[RunLog, RunLog],
    clock: _Clock,
    stop: threading.Event,
    watch: Watchers,
    where: torch.device,
) -> str:
    """Train to the last step (returns ``"done"``), or until patience or a watcher ends it
    (``"early"``)."""
    config, p = run.config, run.progress
    v, (log, curve) = config.validation, logs
    followed: dict[str, str] = {}
    figures: dict[str, str] = {}
    while p.step < config.steps:
        if v.patience is not None and p.worse >= v.patience:
            return "early"
        if stop.is_set():
            run.save()
            raise TrainingInterrupted(p.step, config.steps, run.out)
        begin = time.perf_counter()
        ids = range(p.step * config.tasks_per_step, (p.step + 1) * config.tasks_per_step)
        episode = source.episodes(config.spec, ids, seed=config.seed).to(where)
        sampled = time.perf_counter()
        try:
            loss = run.step(episode)
        except DivergenceError as error:
            run.save()
            raise DivergenceError(_diverged(str(error), p.step, run.out)) from error
        clock.add(sampled - begin, time.perf_counter() - begin)
        last = p.step == config.steps
        if p.step % config.log_every == 0 or last:
            value = float(loss)
            rate = round(clock.steps * config.tasks_per_step / clock.total, 3)
            lr = learning_rate(config, p.step - 1)
            log.write({"step": p.step, "loss": value, "lr": lr, "episodes_per_second": rate})
            best = {} if p.best is None else {"validation": f"{p.best:.4f}"}
            figures = {"loss": f"{value:.3f}", **best, **followed}
        elif not figures:  # watchers get a loss from the first step on
            figures = {"loss": f"{float(loss):.3f}"}
        wants_stop = False
        if validator is not None and (p.step % v.every == 0 or last):
            reports = validator.reports(run.average)
            run.judge(validator.chosen(reports))
            wants_stop = watch.on_validation(p.step, reports)
            log.write(log_line(p.step, reports))
            if validator.keeps_curve:
                curve.write(curve_line(p.step, reports))
                followed = {name: f"{report.mean:.3f}" for name, report in reports.items()}
        p.seconds += time.perf_counter() - begin
        if p.step % config.checkpoint_every == 0 or last or wants_stop:
            run.save()
            if run.out is not None:
                watch.on_checkpoint(p.step, run.out / CHECKPOINT)
        watch.on_step(p.step, figures)
        if wants_stop and not last:
            return "early"
    return "done"


def _diverged(what: str, step: int, out: Path | None) -> str:
    """Return the error text of a training whose loss or gradient is not finite."""
    kept = "" if out is None else f" {out} holds the run as it was before that step."
    return (
        f"training has diverged at step {step + 1}: {what.rstrip('. ')}.{kept} Lower outer_lr or "
        "set clip_norm (both may be changed when a run is resumed), or check the inputs for NaN."
    )


class _Clock:
    """Seconds that steps took, and the part of them that drawing episodes took."""

    def __init__(self) -> None:
        self.steps, self.sampling, self.total = 0, 0.0, 0.0

    def add(self, sampling: float, total: float) -> None:
        self.steps += 1
        self.sampling += sampling
        self.total += total


class _Run:
    """Weights, their average, the optimiser and the folder they are saved in."""

    def __init__(
        self,
        learner: Learner,
        config: TrainConfig,
        out: Path | None,
        fingerprint: dict[str, str],
    ) -> None:
        self.learner, self.config, self.out = learner, config, out
        self.fingerprint = fingerprint
        # with decay 0 the average is the latest weights
        self.average = copy.deepcopy(learner).requires_grad_(False)
        self._averager = Average(self.average, config.ema_decay)
        self._best = {n: v.clone() for n, v in self.average.state_dict().items()}
        self.optimiser = build_optimiser(learner, config)
        self.progress = _Progress()

    def step(self, episode: Any) -> torch.Tensor:
        """Make one outer step and return its mean loss, still on the device."""
        config, p = self.config, self.progress
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, p.step)
        loss = meta_gradient(self.learner, episode, config, progress=p.step / config.steps).mean()
        norm = torch.nn.utils.clip_grad_norm_(
            self.learner.parameters(), config.clip_norm or math.inf
        )
        # checked before the weights are changed: the run is then saved with the last finite ones
        if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            raise DivergenceError(
                f"the loss is {float(loss)} and the norm of the meta-gradient {float(norm)}. "
                + self.learner.divergence_advice
            )
        self.optimiser.step()
        p.step += 1
        self._averager.update(self.learner, p.step)
        return loss

    def judge(self, score: float) -> None:
        """Keep a copy of the average weights if their validation score is the best so far."""
        p = self.progress
        if p.best is None or score > p.best:
            p.best, p.best_step, p.worse = score, p.step, 0
            self._best = {n: v.clone() for n, v in self.average.state_dict().items()}
        else:
            p.worse += 1

    def save(self) -> None:
        """Write everything that a resumed run needs into one file."""
        if self.out is None:
            return
        p = self.progress
        tensors = {
            **{f"weights/{n}": v for n, v in self.learner.state_dict().items()},
            **{f"average/{n}": v for n, v in self.average.state_dict().items()},
            **{f"best/{n}": v for n, v in self._best.items()},
            **{f"optimiser/{n}": v for n, v in optimiser_state(self.optimiser).items()},
        }
        meta = {
            "fingerprint": self.fingerprint,
            "threads": torch.get_num_threads(),
            "progress": {name: getattr(p, name) for name in _Progress.__slots__},
        }
        save_tensors(self.out / CHECKPOINT, tensors, meta)

    def restore(self, *, warn: Callable[[str], None]) -> None:
        """Continue from the checkpoint, if there is one.

        Args:
            warn: is called with a sentence if the result will differ from that of a run that was
                never stopped.

        Raises:
            CheckpointError: if it was made with other settings or other data.
        """
        if self.out is None or not (self.out / CHECKPOINT).exists():
            return
        tensors, meta = load_tensors(self.out / CHECKPOINT)
        meta = checked_checkpoint(self.out / CHECKPOINT, tensors, meta, tuple(_Progress.__slots__))
        differ = changes(meta["fingerprint"], self.fingerprint)
        for name in MAY_CHANGE & differ.keys():
            warn(f"resumed with another setting ({differ.pop(name)}).")
        changed = list(differ.values())
        if changed:
            raise CheckpointError(
                f"{self.out} was made with other settings or data, and a resumed run must not "
                f"change them ({'; '.join(changed)}). Use the same, or another out=."
            )
        if meta["threads"] != torch.get_num_threads():
            warn(
                f"resumed with {torch.get_num_threads()} threads, begun with {meta['threads']}: "
                "sums are rounded in another order, so the weights will differ in their last bits."
            )
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            part, rest = name.split("/", 1)
            parts.setdefault(part, {})[rest] = value
        load_weights(self.learner, parts["weights"], where=str(self.out))
        load_weights(self.average, parts["average"], where=str(self.out))
        where = next(self.learner.parameters()).device
        # a copy takes them only if their names and shapes fit
        load_weights(copy.deepcopy(self.average), parts["best"], where=str(self.out))
        self._best = {n: v.to(where) for n, v in parts["best"].items()}
        restore_optimiser(self.optimiser, parts.get("optimiser", {}))
        self.progress = _Progress(**meta["progress"])

    def finish(self, validated: bool) -> None:
        """Put the chosen weights into the learner, and into ``model.safetensors``."""
        p = self.progress
        if not validated:
            p.best_step = p.step
            self._best = self.average.state_dict()
        self.learner.load_state_dict(self._best)
        self.learner.eval()
        if self.out is not None:
            meta = {
                "step": p.best_step,
                "validation": p.best,
                "training": {"steps": p.step, "seconds": round(p.seconds, 1)},
                "fingerprint": self.fingerprint,
            }
            save_tensors(self.out / MODEL, self.learner.state_dict(), meta)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C (or SIGTERM) sets; the second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set signal handlers
        return

    def handle(number: int, frame: Any) -> None:
        del frame
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)
        del number

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
