"""The page of judged worlds: well-formed, what is lost first, and no dot of it missing."""

from html.parser import HTMLParser
from itertools import pairwise

import pytest
from bench.policy_bounds import Bracket
from bench.policy_figures import Interval, Tried, hull_at
from bench.policy_judged import Ablated, Chained, Judged, Point, TakenApart, Terms, promises
from bench.policy_page import LOSING_SHOWN, page
from bench.policy_plots import hull
from hypothesis import given
from hypothesis import strategies as st

VOID = ("meta", "br")
RULES = [("local-only", 0.0, 0.4, 0.0), ("a<b", 0.5, 0.8, 0.2), ("a<b", 0.7, 0.7, 0.6), ("remote-only", 0.0, 1.0, 1.0)]


class Read(HTMLParser):
    """Elements with their attributes, and the texts between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str, kind: str = "") -> int:
        kinds = [(found.get("class") or "").split() for name, found in self.elements if name == tag]
        return sum(not kind or kind in names for names in kinds)


def point(name: str, knob: float, attainment: float, usd: float) -> Point:
    return Point(name=name, knob=knob, attainment=attainment, usd=usd, value=0.0, ours=0.5, unserved=0)


def around(figure: float) -> Interval:
    return Interval(figure, figure - 0.01, figure + 0.01)


def judged(trace: str, gain: float, *, regime: str = "load-1.00", closed: float | None = 0.2) -> Judged:
    return Judged(
        trace=trace,
        regime=regime,
        seed=1,
        unit_usd=0.001,
        ours=point("tidegate", 0.0, 0.9, 0.3),
        points=[point(*rule) for rule in RULES],
        best="a<b 0.5",
        hull="a<b 0.5 + remote-only 0",
        saved=around(gain),
        saved_today=around(gain),
        gain=around(gain),
        kept=around(gain),
        behind_rule=[-0.1, -gain],
        behind_schedule=None if closed is None else [0.1, 0.2],
        bounds=None if closed is None else Bracket(bound=1.2, schedule=1.1),
        closed_bound=closed,
        closed_schedule=closed,
    )


def read(worlds: list[Judged]) -> Read:
    return Read(page("abc123", "two <cores>", worlds, promises(worlds)))


def test_the_loser_stands_first_in_table_and_plots() -> None:
    found = read([judged("winner", 0.3), judged("loser", -0.3)])
    names = [text for text in found.texts if text in ("winner load-1.00 1", "loser load-1.00 1")]
    assert names == ["loser load-1.00 1", "winner load-1.00 1"] * 2
    targets = [attributes["id"] for tag, attributes in found.elements if tag == "figure"]
    assert [f"#{target}" for target in targets] == [
        attributes["href"] for tag, attributes in found.elements if tag == "a"
    ]


def test_broken_promises_stand_before_those_that_hold() -> None:
    worlds = [judged("winner", 0.3), judged("loser", -0.3)]
    words = [text for text in read(worlds).texts if text in ("broken", "holds")]
    assert words == sorted(words)
    assert words.count("broken") == sum(not one.kept for one in promises(worlds))


def test_each_world_has_a_plot_with_all_its_points() -> None:
    found = read([judged("one", 0.1, closed=None), judged("two", 0.2, closed=None)])
    assert found.count("svg") == 2 * 2
    assert found.count("circle") == 2 * len(RULES)
    assert found.count("path", "ours") == found.count("path", "hull") == 2


def test_names_are_no_markup() -> None:
    found = read([judged("<script>", -0.1, regime="<b>&")])
    assert found.count("script") == 0
    assert "<script> <b>& 1" in found.texts
    assert "a<b 0.5: 80.0% kept for 0.200" in found.texts
    assert any("two <cores>" in text for text in found.texts)


def test_nothing_is_loaded_and_nothing_is_run() -> None:
    found = read([judged("one", 0.1), judged("two", -0.2)])
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "link", "img", "iframe", "image", "use"})
    refers = [value or "" for _, found in found.elements for name, value in found.items() if name in ("href", "src")]
    assert all(value.startswith("#") for value in refers)
    assert not any("url(" in text or "@import" in text for text in found.texts)


def test_no_worlds_make_a_page_that_says_so() -> None:
    found = Read(page("abc123", "two cores", [], []))
    assert any("nothing was found" in text for text in found.texts)
    assert found.count("svg") == found.count("table") == 0


def test_a_gap_that_is_not_known_is_named_and_one_beyond_the_scale_is_an_arrow() -> None:
    found = read([judged("far", -0.1, closed=-7.0), judged("near", 0.1), judged("blind", 0.2, closed=None)])
    assert found.count("circle", "dot") == found.count("path", "dot") == 1
    assert any(text.endswith("a gap to it: blind load-1.00 1.") for text in found.texts)
    assert "far load-1.00 1: -700%" in found.texts


def test_many_losing_worlds_are_folded_away_and_all_there() -> None:
    worlds = [judged(f"w{number}", -0.1) for number in range(LOSING_SHOWN + 2)]
    found = read(worlds)
    assert "2 more" in found.texts
    assert all(any(text.startswith(f"{one.name}: -10%, kept") for text in found.texts) for one in worlds)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=12), st.integers(0, 20))
def test_the_line_is_the_hull_that_savings_are_held_against(rules: list[tuple[int, int]], kept: int) -> None:
    corners = hull([point("r", 0.0, kept / 20.0, usd / 20.0) for kept, usd in rules])
    tried = [policy(kept, usd / 20.0) for kept, usd in rules]
    mixed = hull_at(tried, kept / 20.0)
    assert any(one.attainment >= mixed.attainment - 1e-9 for one in corners)
    assert usd_on(corners, kept / 20.0) == pytest.approx(mixed.usd_each)


def policy(kept: int, usd: float) -> Tried:
    whether = [number < kept for number in range(20)]
    return Tried(name="r", knob=0.0, kept=whether, usd=[usd] * 20, worth_usd=[1.0] * 20, ours=0.5, unserved=0)


def usd_on(corners: list[Point], attainment: float) -> float:
    """Dollars where the line is as high as that, or where it ends."""
    for one, after in pairwise(corners):
        if one.attainment <= attainment <= after.attainment:
            part = (attainment - one.attainment) / (after.attainment - one.attainment)
            return one.usd + part * (after.usd - one.usd)
    return corners[0].usd if attainment <= corners[0].attainment else corners[-1].usd


def test_regret_is_drawn_against_the_best_rule_and_against_a_schedule_where_there_is_one() -> None:
    found = read([judged("known", 0.2), judged("blind", -0.3, closed=None)])
    assert found.count("path", "behind") == 2
    assert found.count("path", "planned") == 1
    assert "+0.3 in the end" in found.texts
    assert "-0.2 in the end" in found.texts


def test_what_parts_are_worth_stands_with_those_first_that_do_harm() -> None:
    def reached(value: float) -> Point:
        return Point(name="", knob=0.0, attainment=0.9, usd=0.1, value=value, ours=0.5, unserved=0)

    def terms(trace: str, without: dict[str, float]) -> Terms:
        steps = [Chained(knows="as it is", reached=reached(1.0)), Chained(knows="lengths", reached=reached(1.03))]
        ablations = [Ablated(without=name, reached=reached(value)) for name, value in without.items()]
        return Terms(trace=trace, regime="load-1.00", seed=1, chain=steps, ablations=ablations)

    worlds = [judged("known", 0.2), judged("other", 0.1, closed=None)]
    parts = [terms("known", {"order<": 0.9, "margin": 1.01}), terms("other", {"order<": 0.8, "margin": 1.02})]
    found = Read(page("abc123", "cores", worlds, promises(worlds), TakenApart(commit="def456", worlds=parts)))
    assert [text for text in found.texts if text in ("order<", "margin")] == ["margin", "order<"]
    harms = [text for text in found.texts if text in ("2 of 2", "0 of 2")]
    assert harms[-2:] == ["2 of 2", "0 of 2"]
    assert found.texts.count("+0.030") == 2
    # From the last step to the schedule, and from there to the bound: of the one world where they are known.
    assert found.texts.count("+0.070") == 1
    assert found.texts.count("+0.100") >= 1
