"""Runs: a recipe is trained into a folder, which is then loaded, judged and checked.

::

    from quickstudy.runs import check, judge, load_run, train_recipe

    train_recipe("glyphs-protonet", ["steps=300"], out="runs/glyphs")
    run = load_run("runs/glyphs")
    print(judge(run, "glyphs", n_way=5, k_shot=1).text())
    print(check("runs/glyphs").text())
"""

from quickstudy.runs.checking import check
from quickstudy.runs.folder import Run, load_run, read_recipe
from quickstudy.runs.judging import Judgement, judge
from quickstudy.runs.saved import load_learner, save_learner
from quickstudy.runs.train import TrainedRun, train_recipe

__all__ = [
    "Judgement",
    "Run",
    "TrainedRun",
    "check",
    "judge",
    "load_learner",
    "load_run",
    "read_recipe",
    "save_learner",
    "train_recipe",
]
