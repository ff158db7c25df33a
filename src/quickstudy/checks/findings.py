"""What a check says: a finding with its evidence and a remedy, that it passed, or why it was not
asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from quickstudy.core import ConfigError
from quickstudy.core.words import count

__all__ = ["CheckReport", "Finding", "Outcome", "Pair", "Passed", "Skipped"]

MOST_PAIRS = 4  # shown of one finding: the count is in the evidence


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two examples to look at side by side.

    Args:
        first: one example, uint8 ``[channels, height, width]`` or numbers of any shape.
        second: the other.
        captions: what each of them is.
    """

    first: Tensor
    second: Tensor
    captions: tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """Something that is wrong, or good to know.

    Args:
        check: name of the check, as ``docs/checks.md`` lists them.
        severity: ``"fault"`` makes numbers wrong; ``"note"`` is good to know.
        summary: one sentence with the numbers.
        evidence: JSON-ready facts; shares are fractions.
        remedy: one sentence: what to do.
        pairs: a few examples to look at.

    Raises:
        ConfigError: if the severity is another word.
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
        """Return it as JSON-ready values; of the examples, their captions."""
        return {
            "check": self.check,
            "severity": self.severity,
            "summary": self.summary,
            "evidence": self.evidence,
            "remedy": self.remedy,
            "pairs": [list(pair.captions) for pair in self.pairs],
        }


@dataclass(frozen=True, slots=True)
class Passed:
    """A check that found nothing.

    Args:
        check: its name.
        fact: what was looked at, and the numbers.
    """

    check: str
    fact: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A check that could not be asked, or need not be.

    Args:
        check: its name.
        reason: why.
    """

    check: str
    reason: str


Outcome = Finding | Passed | Skipped


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Everything that was asked of one thing.

    Args:
        target: what was checked.
        outcomes: one or more for each check, in the order they ran.
        seconds: wall time.
    """

    target: str
    outcomes: tuple[Outcome, ...] = field(default=())
    seconds: float = 0.0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, faults first."""
        found = [o for o in self.outcomes if isinstance(o, Finding)]
        return tuple(sorted(found, key=lambda finding: finding.severity != "fault"))

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What makes numbers wrong."""
        return tuple(f for f in self.findings if f.severity == "fault")

    @property
    def passed(self) -> tuple[Passed, ...]:
        """Which checks ran and found nothing."""
        return tuple(o for o in self.outcomes if isinstance(o, Passed))

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Which checks did not run."""
        return tuple(o for o in self.outcomes if isinstance(o, Skipped))

    @property
    def clean(self) -> bool:
        """Whether there is no fault; notes are allowed."""
        return not self.faults

    def __str__(self) -> str:
        notes = len(self.findings) - len(self.faults)
        lines = [
            f"{self.target}: {count(len(self.faults), 'fault')}, {count(notes, 'note')}, "
            f"{count(len(self.passed), 'check')} passed, {len(self.skipped)} not asked "
            f"({self.seconds:.1f} s)"
        ]
        for finding in self.findings:
            lines += ["", str(finding)]
            lines += [f"  see: {' | '.join(pair.captions)}" for pair in finding.pairs]
        lines += [""] if self.outcomes else []
        lines += [f"passed: {p.check}: {p.fact}" for p in self.passed]
        lines += [f"not asked: {s.check}: {s.reason}" for s in self.skipped]
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
        """Return one report of several."""
        parts = tuple(reports)
        outcomes = tuple(outcome for part in parts for outcome in part.outcomes)
        return cls(target, outcomes, sum(part.seconds for part in parts))
