"""Advice as lines of text for a terminal."""

from __future__ import annotations

from quickstudy.advice.expectation import Expectation, LabelGain
from quickstudy.advice.records import Advice

__all__ = ["advice_text", "gain_text"]

_SHOWN = 3


def advice_text(advice: Advice) -> str:
    """Return the advice in words: what there is, what to take and why, what to expect."""
    facts, chosen = advice.facts, advice.chosen
    low, middle, high = facts.per_class
    lines = [
        f"{advice.source}: {facts.examples:,} {facts.kind} examples of {facts.classes} classes in "
        f"{facts.tasks} task{'s' * (facts.tasks > 1)}; per class {low} to {high}, median {middle}",
        f"copies: {facts.copies}; the same content under different labels: "
        f"{len(facts.contradictions)}",
    ]
    lines += [
        f"  {', '.join(names)}: labelled {', '.join(labels)}"
        for names, labels in facts.contradictions[:_SHOWN]
    ]
    lines += [
        f"measured with {facts.used:,} examples of {facts.used_classes} classes, seed {advice.seed}"
    ]
    shots = list(chosen.shots)
    over = f"95 % CI over {chosen.episodes} episodes"
    lines += ["", f"accuracy, % ({over}), by labels per class: {_list(shots)}"]
    width = max(len(m.name) for m in advice.approaches)
    for m in advice.approaches:
        cells = "  ".join(
            f"{100 * mean:5.1f} ± {100 * half:4.1f}" for mean, half in m.shots.values()
        )
        fewer = f"  ({m.episodes} episodes)" if m.episodes < chosen.episodes else ""
        lines.append(f"{'>' if m is chosen else ' '} {m.name:<{width}}  {cells}{fewer}")
    lines += [f"  {name}: not measured. {why}" for name, why in advice.skipped.items()]
    lines += ["", f"take: {chosen.name}", f"why: {advice.reason}"]
    lines += ["", _expected("in tasks of", advice.expected)] if advice.expected else []
    lines += [_expected("in the task of all", advice.whole)] if advice.whole else []
    lines.append(gain_text(advice.gain))
    if advice.pairs:
        worst = [f"{p.first} / {p.second} ({100 * p.rate:.0f} %)" for p in advice.pairs[:_SHOWN]]
        lines.append(f"most often taken for each other: {', '.join(worst)}")
    lines += list(advice.notes)
    lines += ["", f"next: {advice.command}", f"({advice.seconds:.0f} s)"]
    return "\n".join(lines)


def _list(shots: list[int]) -> str:
    return ", ".join(map(str, shots))


def _expected(what: str, found: tuple[Expectation, ...]) -> str:
    cells = [f"{e.k_shot} label{'s' * (e.k_shot > 1)}: {e}" for e in found]
    return (
        f"expect {what} {found[0].n_way} classes (90 % interval for one fresh draw of labels, on "
        f"new examples; {found[0].episodes} episodes): " + "; ".join(cells)
    )


def gain_text(gain: LabelGain | None) -> str:
    """Return what one more label per class buys, as a sentence."""
    if gain is None:
        return "one more label per class: too few numbers of labels could be measured to say."
    words = (
        f"one more label per class, from {gain.labels} to {gain.labels + 1}: "
        f"{100 * gain.gain:+.2f} points (90 % interval {100 * gain.low:+.2f} to "
        f"{100 * gain.high:+.2f})"
    )
    if gain.extrapolated:
        words += f", drawn out from at most {gain.measured_to} measured"
    return words
