"""Charts: what is drawn where, round numbers on the axes, and curves of many points."""

import math
import re
from xml.etree import ElementTree

import pytest

from galirep.visuals.chart import HEIGHT, MAX_POINTS, Chart, Line, draw, short, thin, ticks


def paths(svg, kind):
    root = ElementTree.fromstring(svg)
    return [element for element in root.iter() if element.get("class", "").split()[:1] == [kind]]


def points_of(path):
    return [tuple(map(float, pair.split())) for pair in re.split("[ML]", path.get("d")) if pair]


def test_a_curve_runs_from_left_to_right_and_higher_values_are_higher():
    svg = draw(Chart("Loss", [Line("a", [(0, 1.0), (50, 3.0), (100, 2.0)], 2)]))
    (curve,) = paths(svg, "curve")
    points = points_of(curve)
    assert [x for x, _ in points] == sorted(x for x, _ in points) and len(points) == 3
    first, highest, last = (y for _, y in points)
    assert highest < last < first < HEIGHT and curve.get("class") == "curve c2"


def test_levels_are_drawn_at_their_value_and_always_in_sight():
    chart = Chart("Loss", [Line("a", [(0, 1.0), (10, 1.2)], 0)], [("chance", 2.0)])
    _, _, low, high = chart.extent()
    assert low < 1.0 and high > 2.0
    svg = draw(chart)
    (level,) = paths(svg, "level")
    (name,) = paths(svg, "level-name")
    assert name.text == "chance"
    y = float(re.search(r"M\d+ ([\d.]+)H", level.get("d"))[1])
    assert all(y < point_y for _, point_y in points_of(paths(svg, "curve")[0]))


def test_one_point_is_a_dot_and_what_is_not_finite_is_left_out():
    svg = draw(Chart("x", [Line("a", [(5, 1.0), (6, math.nan), (7, math.inf)], 0)]))
    assert len(paths(svg, "dot")) == 1 and not paths(svg, "curve")


def test_names_are_text_and_no_markup():
    svg = draw(Chart("<b>", [Line('"><script>', [(0, 1.0), (1, 2.0)], 0)], [("<i>", 1.0)]))
    root = ElementTree.fromstring(svg)
    assert {element.tag for element in root.iter()} == {"svg", "path", "text"}
    assert root.get("aria-label") == '<b>: "><script>'


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.011, 0.052, [0.02, 0.03, 0.04, 0.05]),
        (-3, 9, [-2.5, 0, 2.5, 5, 7.5]),
        (0, 12_000, None),
    ],
)
def test_ticks_are_round_numbers_between_the_ends(low, high, expected):
    found = ticks(low, high)
    assert all(low <= value <= high for value in found) and 2 <= len(found) <= 6
    if expected:
        assert found == pytest.approx(expected)


def test_short_numbers():
    assert [short(v) for v in (0, 0.05, 1e-6, 950, 12_000, 1_500_000)] == ["0", "0.05", "1e-06", "950", "12k", "1.5M"]


def test_many_points_become_means_of_equal_stretches():
    points = [(step, float(step % 2)) for step in range(10_000)]
    few = thin(points)
    assert len(few) == MAX_POINTS and few[-1][0] == 9999
    assert all(abs(y - 0.5) < 0.05 for _, y in few)
    assert thin(points[:MAX_POINTS]) == points[:MAX_POINTS]


def test_the_payload_has_what_is_drawn():
    chart = Chart("Loss", [Line("a", [(0, 1.23456789), (10, 2.0)], 3)])
    payload = chart.payload()
    assert payload["series"] == [{"name": "a", "colour": 3, "points": [[0, 1.2346], [10, 2.0]]}]
    assert payload["x"] == [0, 10] and payload["y"][0] < 1.24 < 2 < payload["y"][1]
