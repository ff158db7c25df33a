"""A run on several data sets, from training to comparison and check."""

from __future__ import annotations

import json

import pytest
from test_compare_cli import FAST, QUICK, run

import quickstudy.checks.suite
from quickstudy.checks import CheckReport

ALSO = '[{"name": "digits", "train": "all", "validation": "all"}]'


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    out = tmp_path_factory.mktemp("mixed") / "both"
    words = ["glyphs-protonet", "-s", f"also={ALSO}", "-s", "in_channels=3"]
    assert run("train", *words, "--out", out, "--device", "cpu", *FAST) == 0
    return out


def test_a_run_on_several_is_resumed_on_the_same_only(mixed, capsys):
    words = ["train", "glyphs-protonet", "--out", mixed, "--device", "cpu", "--resume"]
    assert run(*words, "-s", "also=[]", "-s", "steps=4") == 1
    assert "digits" in capsys.readouterr().err
    assert run(*words, "-s", "steps=4") == 0


def test_it_has_trained_on_both(mixed, tmp_path, capsys):
    words = ["--split", "all", "--episodes", "3", "--n-query", "2", "--json"]
    assert run("evaluate", mixed, "--data", "digits", *words) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["trained_on"]
    compared = ["compare", mixed, "--data", "glyphs", *QUICK, "--workers", "1"]
    assert run(*compared, "--out", tmp_path, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {r["role"] for r in document["results"]} == {"trained distribution", "novel classes"}
    # digits has no class that the run has not seen, whatever the part is called
    assert run("evaluate", mixed, "--data", "digits", *words[2:]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["trained_on"]
    words = ["compare", mixed, "--data", "digits", *QUICK, "--out", tmp_path / "none"]
    assert run(*words, "--no-trained") == 1
    assert "It has 0 classes that no run" in capsys.readouterr().err


def test_both_are_checked(mixed, capsys, monkeypatch):
    looked_at = []

    def contents(parts, **_):  # the pixels of 44,740 pairs of glyphs take a minute
        looked_at.append({pool.name for pool in parts.values()})
        return CheckReport("contents", ())

    monkeypatch.setattr(quickstudy.checks.suite, "check_contents", contents)
    run("check", mixed, "--episodes", "4")
    assert looked_at == [{"glyphs"}, {"digits"}]
    printed = capsys.readouterr()
    said = printed.err
    assert printed.out.count("fault: classes-seen") == 1  # digits has no class left
    assert "passed: classes-seen" in printed.out
    for name in ("glyphs", "digits"):
        assert f"both on {name}: checking query-statistics" in said


def test_data_that_is_too_small_leaves_no_run_behind(tmp_path, capsys):
    out = tmp_path / "small"
    words = ["train", "glyphs-protonet", "-s", f"also={ALSO}", "-s", "in_channels=3"]
    assert run(*words, "--out", out, "--device", "cpu") == 1  # 20-way tasks of ten digits
    assert "digits" in capsys.readouterr().err
    assert not out.exists()
