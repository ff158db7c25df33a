"""Runs of neural processes from the recipe to the page of a comparison, as a user makes them."""

from __future__ import annotations

import json

import pytest

from quickstudy.comparing import compare_runs
from quickstudy.core import ConfigError
from quickstudy.recipes import GaussianProcessData, get_recipe, override
from quickstudy.runs import check, judge, load_run, save_learner, train_recipe

SMALL = (
    *("train.steps=4", "train.validation.every=4", "train.validation.episodes=4"),
    *("watch_episodes=4", "warmup=1", "tasks_per_step=2", "channels=8", "learner.width=8"),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in ("sinusoid-cnp", "gp-anp"):
        more = ("learner.heads=2", "learner.blocks=1") if name == "gp-anp" else ()
        train_recipe(name, (*SMALL, *more), out=folder / name, device="cpu")
    return folder


@pytest.mark.parametrize("name", ["sinusoid-cnp", "gp-anp"])
def test_a_run_is_judged_by_error_likelihood_and_coverage(runs, name):
    recipe = get_recipe(name)
    judged = judge(runs / name, recipe.data.name, k_shot=2, episodes=8)
    document = json.loads(json.dumps(judged.to_dict()))
    assert document["deviation"] == "learner"
    assert len(document["nll_scores"]) == len(document["coverage90_scores"]) == 8
    mean = sum(document["nll_scores"]) / 8
    assert document["nll"]["mean"] == pytest.approx(mean)
    assert not document["protocol"]["trained_on"]
    again = load_run(runs / name)
    assert again.recipe.learner.family == again.learner.family == "in-context"
    assert check(runs / name).clean


def test_a_comparison_has_both_and_draws_functions(runs, tmp_path):
    made = compare_runs(
        [runs / "sinusoid-cnp", runs / "gp-anp"],
        ["sinusoid", "gaussian-process"],
        k_shot=[4],
        episodes=6,
        workers=1,
        out=tmp_path / "compared",
    )
    assert all("nll" in row for row in made.to_dict()["results"])
    page = (tmp_path / "compared" / "comparison.html").read_text(encoding="utf-8")
    assert page.count('<figure class="function">') == 4
    assert "Likelihood and intervals" in page


def test_classes_are_no_data_for_it(runs):
    with pytest.raises(ConfigError, match="one is regression"):
        judge(runs / "gp-anp", "digits", episodes=2)
    with pytest.raises(ConfigError, match="sinusoid or gaussian-process"):
        compare_runs([runs / "gp-anp"], ["digits"], episodes=2, out=runs / "none")


def test_a_mean_from_one_point_has_no_likelihood_and_says_so(tmp_path):
    small = SMALL[:-1]
    train_recipe("sinusoid-maml", small, out=tmp_path / "maml", device="cpu")
    judged = judge(tmp_path / "maml", "gaussian-process", k_shot=1, episodes=4)
    assert "nll" not in judged.to_dict()
    assert any("a mean only" in note for note in judged.notes)
    judged = judge(tmp_path / "maml", "gaussian-process", k_shot=3, episodes=4)
    assert judged.to_dict()["deviation"] == "held-out support"
    assert judged.notes == ()


def test_saved_from_python_with_its_data(runs, tmp_path):
    learner = load_run(runs / "gp-anp").learner
    assert save_learner(learner, tmp_path / "mine", data=GaussianProcessData())
    judged = judge(tmp_path / "mine", "gaussian-process", k_shot=2, episodes=4)
    wanted = judge(runs / "gp-anp", "gaussian-process", k_shot=2, episodes=4)
    assert judged.report.likelihood.nll.tolist() == wanted.report.likelihood.nll.tolist()


def test_settings_of_the_recipe_reach_the_learner():
    recipe = override(
        get_recipe("gp-anp"), ["learner.floor=0.5", "heads=2", "blocks=0", "learner.depth=2"]
    )
    head = recipe.learner.build(_net(), n_way=1).head
    assert (head.floor, head.reading.heads, len(head.blocks)) == (0.5, 2, 0)
    assert len(head.pair) == 3  # two layers and what is between them
    with pytest.raises(ConfigError, match=r"heads is for anp"):
        override(get_recipe("sinusoid-cnp"), ["learner.heads=2"])
    with pytest.raises(ConfigError, match="functions are no images"):
        override(get_recipe("gp-anp"), ['also=[{"name": "digits"}]'])


def _net():
    from quickstudy.nets import MLP

    return MLP((1,), (8, 8))
