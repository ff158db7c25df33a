"""The leak and protocol suite: what is wrong with a data set, a source, a learner, an interval.

Every check has one of three outcomes: a finding with evidence and a remedy, a pass, or the reason
why it was skipped. What each check looks for and how it decides is in ``docs/checks.md``.
"""

from quickstudy.checks.contents import check_contents
from quickstudy.checks.findings import (
    CheckReport,
    Finding,
    Outcome,
    Pair,
    Passed,
    Skipped,
)
from quickstudy.checks.intervals import (
    check_differences,
    check_document,
    check_interval,
    check_protocol,
)
from quickstudy.checks.learners import check_learner
from quickstudy.checks.snapshot import snapshot
from quickstudy.checks.sources import check_source

__all__ = [
    "CheckReport",
    "Finding",
    "Outcome",
    "Pair",
    "Passed",
    "Skipped",
    "check_contents",
    "check_differences",
    "check_document",
    "check_interval",
    "check_learner",
    "check_protocol",
    "check_source",
    "snapshot",
]
