"""Outcomes of checks: a finding with evidence and a remedy, a pass, or a reason for skipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.core.words import count

__all__ = ["CheckReport", "Finding", "Outcome", "Pair", "Passed", "Skipped"]

MOST_PAIRS = 4  # shown with one finding; the evidence says how many there are


@checked
@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two examples to look at side by side.

    Args:
        first: one example, uint8 ``[channels, height, width]`` or numbers of any shape.
        second: the other example.
        captions: what the first and the second one are.

    Example::

        from quickstudy.checks import Pair
        image = torch.zeros(1, 28, 28, dtype=torch.uint8)
        pair = Pair(image, image.clone(), ("train/koala/1.png", "test/koala/9.png"))
        print(" | ".join(pair.captions))
    """

    first: Tensor
    second: Tensor
    captions: tuple[str, str]


@checked
@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """Something that is wrong, or good to know.

    Args:
        check: name of the check, as ``docs/checks.md`` lists it.
        severity: ``"fault"`` = it makes scores wrong; ``"note"`` = good to know.
        summary: one sentence with the numbers.
        evidence: JSON-ready facts; shares are fractions.
        remedy: one sentence: what to do.
        pairs: a few examples to look at.

    Raises:
        ConfigError: if the severity is another word.

    Example::

        from quickstudy.checks import Finding
        evidence = {"classes": ["okapi"]}
        note = Finding("small-classes", "note", "One class is too small.", evidence, "Add images.")
        print(note)
    """

    check: str
    severity: Literal["fault", "note"]
    summary: str
    evidence: dict[str, Any]
    remedy: str
    pairs: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        if self.severity not in ("fault", "note"):
            raise ConfigError(f"severity must be 'fault' or 'note'; got {self.severity!r}.")

    def __str__(self) -> str:
        return f"{self.severity}: {self.check}: {self.summary}\n  remedy: {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; each pair of examples is given as its two captions."""
        return {
            "check": self.check,
            "severity": self.severity,
            "summary": self.summary,
            "evidence": _json_ready(self.evidence),
            "remedy": self.remedy,
            "pairs": [list(pair.captions) for pair in self.pairs],
        }


def _json_ready(value: Any) -> Any:
    """Return evidence with NaN and infinity as words: documents may hold them, JSON may not."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _json_ready(inner) for key, inner in value.items()}
    return [_json_ready(inner) for inner in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True, slots=True)
class Passed:
    """A check that found nothing.

    Args:
        check: its name.
        fact: what was looked at, and the numbers.

    Example::

        from quickstudy.checks import CheckReport, Passed
        passed = Passed("labels", "300 episodes: inputs are finite, queries can be answered")
        print(CheckReport("my data", (passed,)).text())
    """

    check: str
    fact: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A check that was not run, because it does not apply or cannot be run.

    Args:
        check: its name.
        reason: why it was not run.

    Example::

        from quickstudy.checks import CheckReport, Skipped
        skipped = Skipped("label-order", "targets are real numbers")
        print(CheckReport("sine waves", (skipped,)).text())
    """

    check: str
    reason: str


Outcome = Finding | Passed | Skipped


@checked
@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcomes of all checks of one target.

    Args:
        target: name of what was checked.
        outcomes: one or more for each check, in the order in which they ran.
        seconds: wall time.

    Example::

        from quickstudy.checks import check_source
        report = check_source(PoolSource(load_pool("digits")), EpisodeSpec(5, 1), episodes=60)
        print(report.text())
        report.clean, report.faults, report.to_dict()
    """

    target: str
    outcomes: tuple[Outcome, ...] = field(default=())
    seconds: float = 0.0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, faults first."""
        found = [o for o in self.outcomes if isinstance(o, Finding)]
        return tuple(sorted(found, key=lambda finding: finding.severity != "fault"))

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that make scores wrong."""
        return tuple(f for f in self.findings if f.severity == "fault")

    @property
    def passed(self) -> tuple[Passed, ...]:
        """The checks that ran and found nothing."""
        return tuple(o for o in self.outcomes if isinstance(o, Passed))

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The checks that were not run."""
        return tuple(o for o in self.outcomes if isinstance(o, Skipped))

    @property
    def clean(self) -> bool:
        """Whether there is no fault; notes are allowed."""
        return not self.faults

    def __str__(self) -> str:
        notes = len(self.findings) - len(self.faults)
        lines = [
            f"{self.target}: {count(len(self.faults), 'fault')}, {count(notes, 'note')}, "
            f"{count(len(self.passed), 'check')} passed, {len(self.skipped)} skipped "
            f"({self.seconds:.1f} s)"
        ]
        for finding in self.findings:
            lines += ["", str(finding)]
            lines += [f"  see: {' | '.join(pair.captions)}" for pair in finding.pairs]
        lines += [""] if self.outcomes else []
        lines += [f"passed: {p.check}: {p.fact}" for p in self.passed]
        lines += [f"skipped: {s.check}: {s.reason}" for s in self.skipped]
        return "\n".join(lines)

    def text(self) -> str:
        """Return the report for people."""
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {
            "target": self.target,
            "clean": self.clean,
            "findings": [finding.to_dict() for finding in self.findings],
            "passed": [{"check": p.check, "fact": p.fact} for p in self.passed],
            "skipped": [{"check": s.check, "reason": s.reason} for s in self.skipped],
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def join(cls, target: str, reports: Iterable[CheckReport]) -> CheckReport:
        """Return one report with the outcomes of several."""
        parts = tuple(reports)
        outcomes = tuple(outcome for part in parts for outcome in part.outcomes)
        return cls(target, outcomes, sum(part.seconds for part in parts))
