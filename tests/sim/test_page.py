"""The page: well-formed whatever the figures are, and true to them."""

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tests.sim.test_scenario import FAR, GOOD, HEAD, OWN, TRAFFIC
from tidegate.sim import plot
from tidegate.sim.page import SHOWN_MAX, page
from tidegate.sim.plot import Range, Series
from tidegate.sim.report import report
from tidegate.sim.scenario import parse
from tidegate.sim.stage import play

values = st.floats(0.0, 1e9)


def drawn(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def numbers(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", path)]


@given(st.lists(st.lists(values, min_size=3, max_size=3), max_size=8), st.text(max_size=20))
def test_areas_stay_within_their_frame_and_names_are_no_markup(rows: list[list[float]], name: str) -> None:
    safe = "".join(c for c in name if c.isprintable())
    svg = drawn(plot.areas(safe, [Series(safe, row) for row in rows], 60.0))
    paths = svg.findall("path")
    assert len(paths) == len(rows)
    for path in paths:
        assert path.findtext("title") == safe
        for x, y in numbers(path.attrib["d"]):
            assert plot.LEFT <= x <= plot.WIDTH - plot.RIGHT + 0.1
            assert plot.TOP - 0.1 <= y <= plot.HEIGHT - plot.BOTTOM + 0.1


@given(st.lists(st.lists(values, min_size=4, max_size=4).map(sorted), max_size=5))
def test_ranges_go_from_the_least_to_the_largest(rows: list[list[float]]) -> None:
    svg = drawn(plot.ranges("times", [Range("r", [("p", value) for value in row]) for row in rows], "s"))
    dots = [float(dot.attrib["cx"]) for dot in svg.findall("circle")]
    assert len(dots) == 4 * len(rows)
    for first in range(0, len(dots), 4):
        assert dots[first : first + 4] == sorted(dots[first : first + 4])
    assert all(0.0 <= x <= plot.WIDTH for x in dots)


def test_a_series_is_drawn_as_high_as_it_is() -> None:
    (path,) = drawn(plot.areas("a", [Series("a", [0.0, 2.0, 4.0])], 60.0)).findall("path")
    tops = numbers(path.attrib["d"])[:6]
    floor, height = plot.HEIGHT - plot.BOTTOM, plot.HEIGHT - plot.TOP - plot.BOTTOM
    assert [y for _, y in tops] == [floor, floor, floor - height / 2, floor - height / 2, plot.TOP, plot.TOP]


def test_a_world_without_a_request_has_a_page_too() -> None:
    scenario = parse(GOOD.replace("rate_per_s = 1", "rate_per_s = 0.000001"), "s.toml")
    found = report(scenario, "own", play(scenario))
    assert found.groups[0].requests == 0
    assert all(drawn(svg) is not None for svg in re.findall(r"<svg.*?</svg>", page(found)))


def test_endpoints_beyond_those_with_a_colour_are_one() -> None:
    many = [f"e{n}" for n in range(9)]
    endpoints = "".join(
        HEAD[HEAD.index("[endpoint.own]") : HEAD.index("[endpoint.far]")].replace("own", n) for n in many
    )
    places = "".join(OWN.replace("own", name) for name in many)
    scenario = parse(f"[world]\nduration_s = 60\n{HEAD}{endpoints}{OWN}{FAR}{places}{TRAFFIC}", "s.toml")
    text = page(report(scenario, "own", play(scenario)))
    (flying,) = re.findall(r'aria-label="In flight".*?</svg>', text)
    titles = re.findall(r"<title>(.*?)</title>", flying)
    assert len(titles) == SHOWN_MAX + 1
    assert titles[-1] == "others"
