"""Charts draw what they are given, also at the edges."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from quickstudy.pages.charts import legend, lines_chart, rows_chart, scatter_chart


@pytest.mark.parametrize("values", [(0.2, 0.9), (1.0, 1.0), (0.0, 0.0), (0.995, 1.0)])
def test_every_chart_is_a_drawing_without_holes(values):
    series = [f"learner {i} <&>" for i in range(10)]
    pairs = [(values[0], 0.01), (values[1], math.nan)]
    charts = [
        lines_chart([1, 5], series, [pairs] * 10, label="a"),
        rows_chart(["one", "another & more"], series, [[p] * 10 for p in pairs], label="b"),
        scatter_chart(
            [(s, 10.0**i, values[0]) for i, s in enumerate(series)], label="c", x_name="ms"
        ),
        scatter_chart([("alone", 1.0, values[1])], label="d", x_name="ms"),
    ]
    for chart in charts:
        ET.fromstring(chart)
        assert "nan" not in chart
        assert "inf" not in chart
        inside = [float(v) for v in re.findall(r'c[xy]="([-0-9.]+)"', chart)]
        assert all(-1 <= v <= 1300 for v in inside)
    assert legend(series).count("<svg") == 10


def test_a_higher_accuracy_stands_higher():
    chart = lines_chart([1, 5], ["one"], [[(0.5, 0.0), (0.8, 0.0)]], label="a")
    first, second = (float(v) for v in re.findall(r'<circle[^>]*cy="([0-9.]+)"', chart))
    assert second < first
