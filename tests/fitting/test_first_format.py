"""Priors of the first format, as they lie in task files of earlier versions."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from quickstudy.core import CheckpointError, generator
from quickstudy.fitting.first_format import from_first_format
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import fit_task


def surface(constant: float, **slopes: float) -> dict[str, Any]:
    """Return a surface of log shots, log ways, their squares and product, and how near classes
    lie; the last must not count."""
    weight = [slopes.get("shots", 0.0), slopes.get("ways", 0.0), 0.0, 0.0, 0.0, 9.0, constant]
    return {"centre": [0.0] * 5 + [0.7], "scale": [1.0] * 6, "weight": weight}


def flat(width: int, constant: float) -> dict[str, Any]:
    """Return a surface that also took other statistics."""
    return {"centre": [0.0] * width, "scale": [1.0] * width, "weight": [0.0] * width + [constant]}


def old_document() -> dict[str, Any]:
    """Return a prior of the first format: of prototypes on four features."""
    return {
        "format": 1,
        "metric": {"power": 1.0, "shrinkage": 1.0, "rank": 128},
        "centre_prior": 2.0,
        "most_ways": 20.0,
        "heads": {
            "prototype": {
                "settings": {"5x1": {"shrinkage": 0.0}},
                "temperature": [surface(-1.0, ways=-0.5), flat(14, 0.0)],
                "accuracy": [surface(2.0, ways=-1.0, shots=0.5), flat(14, 0.0)],
                "spread": [[-1.0, 0.5], [-0.5, 0.5]],
                "sets": [
                    {"0.5": surface(0.2, ways=0.1), "0.9": surface(1.0, ways=0.3)},
                    {"0.5": flat(14, 0.0), "0.9": flat(14, 1.0)},
                ],
            }
        },
        "open_set": {
            "score": flat(10, 0.0),
            "thresholds": {"0.5": surface(0.0), "0.9": surface(1.0)},
        },
        "about": {"classes": 40, "sources": ["somewhere"]},
    }


def old_prior(document: dict[str, Any]) -> TaskPrior:
    return TaskPrior.from_parts(document, {"mean": torch.zeros(4)})


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("ways", [2, 5, 20])
def test_what_the_surfaces_said_of_one_example_each_is_kept(ways: int) -> None:
    far = old_prior(old_document()).heads["prototype"].far
    logit = 2 - math.log(ways)
    assert far.log_temperature(ways) == pytest.approx(-1 - 0.5 * math.log(ways))
    assert far.accuracy(ways) == pytest.approx(sigmoid(logit))
    assert far.low(ways) == pytest.approx(sigmoid(logit - 1))
    assert far.high(ways) == pytest.approx(sigmoid(logit + 0.5))
    assert far.sets[0.5](ways) == pytest.approx(0.2 + 0.1 * math.log(ways))
    assert far.sets[0.9](ways) == pytest.approx(1.0 + 0.3 * math.log(ways))


def test_beyond_what_was_learned_from_a_surface_stays_as_it_was() -> None:
    """Twenty classes were the most, and standardised features were cut at three."""
    far = old_prior(old_document()).heads["prototype"].far
    assert far.log_temperature(75) == pytest.approx(far.log_temperature(20))
    document = old_document()
    steep = document["heads"]["prototype"]["temperature"][0]
    steep["scale"] = [1.0, 0.1, 1.0, 1.0, 1.0, 1.0]  # log 2 is 6.9 deviations
    cut = old_prior(document).heads["prototype"].far
    assert cut.log_temperature(2) == cut.log_temperature(20) == pytest.approx(-1 - 0.5 * 3)


def test_which_head_was_expected_to_be_best_is_kept() -> None:
    document = old_document()
    heads = document["heads"]
    heads["ridge"] = copy.deepcopy(heads["prototype"])
    heads["ridge"]["settings"] = {"5x1": {"penalty": 0.3}}
    # worse with one example, better from about four on
    heads["ridge"]["accuracy"][0] = surface(1.0, ways=-1.0, shots=1.2)
    prior = old_prior(document)
    expected = prior.heads["ridge"].expected
    assert expected[5, 10] == pytest.approx(sigmoid(1 - math.log(5) + 1.2 * math.log(10)))
    assert prior.preferred(5, 1) == "prototype"
    assert prior.preferred(5, 10) == "ridge"


def test_an_old_prior_is_saved_in_the_present_format(tmp_path) -> None:
    prior = old_prior(old_document())
    prior.save(tmp_path / "p")
    assert json.loads((tmp_path / "p.json").read_text())["format"] == 2
    again = TaskPrior.load(tmp_path / "p")
    assert again.to_parts()[0] == prior.to_parts()[0]
    assert again.about == {"classes": 40, "sources": ["somewhere"]}


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_an_old_prior_serves_tasks(shots: int) -> None:
    y = torch.arange(3).repeat(shots)
    z = torch.eye(3, 4)[y] + 0.1 * torch.randn(len(y), 4, generator=generator(0))
    task = fit_task(old_prior(old_document()), z, y, n_way=3, head="prototype")
    assert task.proba(z).argmax(1).tolist() == y.tolist()
    if shots == 1:
        assert task.temperature == pytest.approx(math.exp(-1 - 0.5 * math.log(3)), rel=0.02)
    assert bool(task.accepts(z).all())
    # as before, something in another direction altogether is a stranger
    if shots > 1:
        assert not bool(task.accepts(-z.mean(0, keepdim=True)))


def test_an_old_prior_without_tasks_and_strangers_is_one_still() -> None:
    document = old_document() | {"heads": {}, "open_set": None}
    prior = old_prior(document)
    assert not prior.learned
    assert prior.open_set is None


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ways below one": lambda d: d.update(most_ways=-3),
    "ways that are no number": lambda d: d.update(most_ways=math.nan),
    "no ways": lambda d: d.pop("most_ways"),
    "no heads": lambda d: d.pop("heads"),
    "five numbers": lambda d: head(d)["temperature"][0]["centre"].pop(),
    "fourteen": lambda d: head(d)["accuracy"].__setitem__(0, flat(14, 0.0)),
    "infinity": lambda d: head(d)["accuracy"][0]["weight"].__setitem__(6, math.inf),
    "not a number": lambda d: head(d)["sets"][0]["0.9"]["centre"].__setitem__(0, math.nan),
    "no scale": lambda d: head(d)["temperature"][0]["scale"].__setitem__(1, 0.0),
    "a word": lambda d: head(d)["temperature"][0]["weight"].__setitem__(1, "far"),
    "one threshold": lambda d: head(d)["sets"][0].pop("0.9"),
    "a level of one": lambda d: head(d)["sets"][0].update({"1.0": surface(2.0)}),
    "a spread of three": lambda d: head(d)["spread"][0].append(1.0),
    "a spread that is none": lambda d: head(d)["spread"].__setitem__(0, [math.nan, 1.0]),
    "no settings": lambda d: head(d).pop("settings"),
}


def head(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["heads"]["prototype"]
    return found


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_is_no_prior_is_refused(change: Callable[[dict[str, Any]], Any], tmp_path) -> None:
    document = old_document()
    change(document)
    with pytest.raises((KeyError, TypeError, ValueError)):
        old_prior(document)
    # and from a file, as one error that says what to do
    TaskPrior.plain(4).save(tmp_path / "p")
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="Learn it again"):
        TaskPrior.load(tmp_path / "p")


def test_the_document_that_was_read_is_not_changed() -> None:
    document = old_document()
    before = copy.deepcopy(document)
    from_first_format(document)
    assert document == before
