"""Charts: where marks stand, and that nothing gets through unescaped."""

import re
import xml.etree.ElementTree as ET

import pytest

from recbole_molar.compare.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Series, cloud, dots, intervals, lines, round_ticks, scatter

EVIL = "</svg><script>alert(1)</script>\"' & <b>"


def test_round_ticks_by_hand():
    assert round_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] and round_ticks(0, 0.6) == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert round_ticks(0.11, 0.19) == [0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, 0.18, 0.19]
    assert round_ticks(1, 3, whole=True) == [1, 2, 3] and round_ticks(-0.02, 0.01) == [-0.02, -0.015, -0.01, -0.005, 0, 0.005, 0.01]


def test_an_axis_by_hand():
    axis = Axis([0, 10], 100, 200)
    assert axis(0) == 100 and axis(5) == 150 and axis(10) == 200
    log = Axis([1, 100], 0, 100, log=True)
    assert log(10) == 50 and 10 in log.ticks and log.label(100) == "100"
    assert Axis([3, 3], 0, 100)(3) == 50 and not Axis([0, 5], 0, 1, log=True).log  # one value stands in the middle; no log of zero


def test_lines_stand_where_they_should():
    chart = ET.fromstring(lines([Series("a", 0, [(1, 0.0), (2, 1.0)], band=[(1, 0.0, 0.0), (2, 0.5, 1.0)])], "epoch", "loss"))
    x, y = map(float, re.match(r"M([\d.]+),([\d.]+)L", chart.find("path").get("d")).groups())
    assert x == LEFT and TOP < y < HEIGHT - BOTTOM
    last = chart.findall("circle")[-1]
    assert float(last.get("cx")) == WIDTH - RIGHT and "a: 1.0000" == last.get("data-tip") and chart.find("polygon") is not None
    assert lines([Series("a", 0, [])], "x", "y") == ""


@pytest.mark.parametrize("chart", [
    lines([Series(EVIL, 0, [(1, 2), (2, 3)], [EVIL, EVIL])], EVIL, EVIL),
    intervals([(EVIL, EVIL, 1, 0.1, -0.1, 0.3, True, EVIL)], EVIL),
    dots([(EVIL, EVIL, [(0, 0.2, EVIL), (9, 0.3, EVIL)])], EVIL),
    scatter([(EVIL, 0, 10, 0.2, 0.01, EVIL), ("b", 1, 11, 0.2, None, "")], EVIL, EVIL, log_x=True),
    cloud([(0.5, 0.5, {"data_tip": EVIL, "data_item": EVIL})], [(0, 0, 1, 1, "link")]),
])  # fmt: skip
def test_whatever_the_names_it_is_one_well_formed_svg_without_script(chart):
    root = ET.fromstring(chart)
    assert root.tag == "svg" and "<script" not in chart and not root.findall(".//script")
    assert EVIL in {element.get("data-tip") for element in root.iter()}


def test_names_of_near_points_do_not_cover_each_other():
    points = [(name, 0, 10.0 + index / 100, 0.2, None, "") for index, name in enumerate(("one model", "another model", "a third one"))]
    chart = ET.fromstring(scatter([*points, ("far", 1, 1000.0, 0.1, None, "")], "s", "m"))
    names = []
    for text in chart.findall("text"):
        if text.get("class") == "name":
            x, width = float(text.get("x")), 7 * len(text.text)
            names.append((x if text.get("text-anchor") == "start" else x - width, float(text.get("y")), width))
    assert len(names) == 4
    for index, (x, y, width) in enumerate(names):
        for other_x, other_y, other_width in names[:index]:
            assert abs(y - other_y) >= 14 or x + width <= other_x or other_x + other_width <= x
