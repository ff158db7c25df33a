"""The bins of the calibration error are cut, not rounded: by hand."""

import numpy as np
import pytest

from quickstudy.evaluation.statistics import CalibrationCounts


@pytest.mark.parametrize(
    ("pair", "together"),
    # bin 7 of 15 is [0.4667, 0.5333)
    [((0.48, 0.52), True), ((0.47, 0.53), True), ((0.46, 0.48), False), ((0.52, 0.54), False)],
)
def test_two_predictions_share_a_bin_between_its_edges(pair, together):
    counts = CalibrationCounts()
    counts.add(np.array(pair), np.array([True, False]))
    low, high = pair
    # in one bin the right and the wrong answer offset each other
    expected = abs(low + high - 1) if together else (1 - low) + high
    assert counts.error() == pytest.approx(expected / 2)


def test_the_error_of_four_bins_by_hand():
    counts = CalibrationCounts(bins=4)  # [0, 1/4), [1/4, 1/2), [1/2, 3/4), [3/4, 1]
    confidence = np.array([0.2, 0.24, 0.3, 0.49, 0.6, 0.74, 0.76, 1.0])
    counts.add(confidence, np.array([1, 0, 1, 0, 0, 1, 1, 1], dtype=bool))
    gaps = [abs(0.44 - 1), abs(0.79 - 1), abs(1.34 - 1), abs(1.76 - 2)]
    assert counts.error() == pytest.approx(sum(gaps) / 8)
