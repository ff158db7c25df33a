"""Drawings of functions: well-formed, and everything lies where the numbers say."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from quickstudy.pages.curves import curve_chart, standalone

X = [-2.0, 0.0, 2.0]


def numbers(element: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in element.attrib["points"].split()]
    return [(float(a), float(b)) for a, b in pairs]


def test_lines_band_and_points():
    chart = curve_chart(
        X, [0, 1, 0], ([-1, 0, -1], [1, 2, 1]), points=[(0.0, 1.0)], truth=[0, 1, 0.5], label="a<b"
    )
    root = ElementTree.fromstring(chart)
    assert root.attrib["aria-label"] == "a<b"
    truth, mean = root.findall("polyline")
    band, (dot,) = numbers(root.find("polygon")), root.findall("circle")
    assert len(band) == 6
    line = numbers(mean)
    assert line[0][0] < line[1][0] < line[2][0]
    assert line[1][1] < line[0][1]  # up is a smaller number
    assert (float(dot.attrib["cx"]), float(dot.attrib["cy"])) == line[1]
    assert numbers(truth)[:2] == line[:2]
    for (_, low), (_, high), (_, middle) in zip(band[:3], band[:2:-1], line, strict=True):
        assert low > middle > high


def test_a_very_wide_interval_does_not_flatten_the_function():
    chart = curve_chart(X, [0, 1, 0], ([-1e6] * 3, [1e6] * 3), points=[], label="")
    (mean,) = ElementTree.fromstring(chart).findall("polyline")
    heights = [y for _, y in numbers(mean)]
    assert max(heights) - min(heights) > 80


def test_a_narrow_interval_cuts_nothing_off():
    flat = curve_chart(
        X, [0, 0, 0], ([-0.1] * 3, [0.1] * 3), points=[(0.0, 3.0)], truth=[-4, 3, 1], label=""
    )
    truth, mean = ElementTree.fromstring(flat).findall("polyline")
    heights = [y for _, y in numbers(truth)]
    assert heights[0] > numbers(mean)[0][1] > heights[2] > heights[1]
    # as far apart as the numbers say
    share = (heights[2] - heights[1]) / (heights[0] - heights[1])
    assert share == pytest.approx(2 / 7, abs=0.01)


@pytest.mark.parametrize("level", [0.0, 1e-9, 1e9])
def test_a_flat_function_without_interval(level):
    chart = curve_chart(X, [level] * 3, None, points=[(0.0, level)], label="")
    assert "nan" not in chart
    assert ElementTree.fromstring(chart).find("polygon") is None


def test_one_file_of_several():
    chart = curve_chart(X, [0, 1, 0], None, points=[], label="")
    file = standalone([("first & best", chart), ("second", chart), ("third", chart)])
    root = ElementTree.fromstring(file)
    inner = [e for e in root if e.tag.endswith("svg")]
    assert [(e.attrib["x"], e.attrib["y"]) for e in inner] == [
        ("0", "30"),
        ("500", "30"),
        ("0", "370"),
    ]
    assert re.search("first &amp; best", file)
