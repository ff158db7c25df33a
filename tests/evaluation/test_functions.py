"""Pictures of regression tasks."""

import pytest

from quickstudy.core import EpisodeSpec, TaskError
from quickstudy.evaluation.functions import KnownFunctions, draw_function, function_chart
from quickstudy.learners import ConditionalNeuralProcess, NearestNeighbour
from quickstudy.nets import Identity
from quickstudy.tasks import GaussianProcessSource, PoolSource, SinusoidSource
from quickstudy.testing import gaussian_pool


@pytest.mark.parametrize("source", [SinusoidSource("test"), GaussianProcessSource("test")])
def test_a_task_is_drawn_with_its_function(source):
    assert isinstance(source, KnownFunctions)
    spec = EpisodeSpec(1, 4, 10)
    drawn = draw_function(
        ConditionalNeuralProcess(Identity((1,))), source, spec, task_id=3, seed=0, caption="a & b"
    )
    assert drawn.count("<circle") == 4
    assert drawn.count("<polyline") == 2
    assert drawn.count("<polygon") == 1
    assert "a &amp; b" in drawn


def test_without_a_deviation_there_is_no_band():
    source, spec = SinusoidSource("test"), EpisodeSpec(1, 2, 10)
    chart = function_chart(NearestNeighbour(), source, spec, task_id=0, seed=0)
    assert "<polygon" not in chart
    assert chart.count("<circle") == 2


def test_other_inputs_are_refused():
    source = PoolSource(gaussian_pool(4, 9, (3,)))
    with pytest.raises(TaskError, match="one number"):
        function_chart(NearestNeighbour(), source, EpisodeSpec(2, 2, 2), task_id=0, seed=0)
