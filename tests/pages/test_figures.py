"""What pages make of figures that are rare, old, or unknown, and what stays under the hand when figures change."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bench.pages import dashboard
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.pages.shown import Looked
from tidegate.cli.audit import HANDED
from tidegate.sim.audit import Audit, Gap, Row
from tidegate.sim.preview import Interval

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Streams that say what a test has them say.
STREAMS = """
globalThis.streams = [];
globalThis.EventSource = class extends EventTarget {
  static CLOSED = 2;
  readyState = 1;
  constructor() {
    super();
    streams.push(this);
  }
  close() {
    this.readyState = 2;
  }
};
globalThis.say = (kind, data = {}) => {
  const event = Object.assign(new Event(kind), { data: JSON.stringify(data) });
  streams.at(-1).dispatchEvent(event);
};
"""


def changed(change: Callable[[Any], None]) -> Callable[[Route], None]:
    """What answers with what the dashboard says, but for this change."""

    def answer(route: Route) -> None:
        body = route.fetch().json()
        change(body)
        route.fulfill(json=body)

    return answer


def followed(browser: Browser, *, wide: int = 1280) -> Looked:
    """A page whose stream says nothing by itself."""
    looked = Looked(browser, wide=wide)
    looked.page.add_init_script(STREAMS)
    return looked


def fact(card: Locator, name: str) -> Locator:
    """What is said by that name."""
    return card.locator("dl.facts > div", has_text=name).locator("dd")


def row(name: str, value_per_1k: float, better: float = 0.0) -> Row:
    interval = Interval(figure=better, low=better - 0.1, high=better + 0.1)
    return Row(name=name, value_per_1k=value_per_1k, kept=0.5, usd_per_1k=1.0, better=interval)


def shown_audit(browser: Browser, address: str, found: Audit) -> Looked:
    """The page of an audit that came to this."""
    looked = Looked(browser)
    job = {"state": "done", "began_s": 1.0, "ended_s": 2.0, "problem": "", "result": msgspec.to_builtins(found)}
    looked.page.route("**/api/dashboard/audit", lambda route: route.fulfill(json=job))
    looked.at(f"{address}/#/audit")
    return looked


def test_an_audit_names_what_it_recommends_and_how_far_from_a_bound_below_nothing_that_is(
    browser: Browser, address: str
) -> None:
    found = Audit(
        start_s=1.0,
        end_s=2.0,
        requests=10,
        policy=row("as it was", -3.0),
        rules=(row("everything away", -4.0),),
        reached=row("a schedule", -2.5),
        bound_per_1k=-2.0,
        handed=False,
        gap=Gap(staleness=0.0, prediction=0.0, myopia=0.5, slack=0.5),
        changes=(row("no holding", -2.6, better=0.4), row("no sessions", -3.1)),
        recommended="no holding",
    )
    looked = shown_audit(browser, address, found)
    tiles = looked.page.locator("dl.tiles > div")
    expect(tiles.nth(1)).to_contain_text("50%")
    expect(tiles.nth(2)).to_have_text("To changeno holding$0.40 better")
    expect(looked.page.get_by_text(HANDED)).to_have_count(0)
    handed = msgspec.structs.replace(found, bound_per_1k=-4.0, handed=True, recommended=None)
    looked = shown_audit(browser, address, handed)
    tiles = looked.page.locator("dl.tiles > div")
    expect(tiles.nth(1)).to_contain_text("\u221225%")
    expect(tiles.nth(2)).to_contain_text("nothing")
    expect(looked.page.get_by_text(HANDED)).to_be_visible()
    assert looked.complaints == []


def test_shares_below_nothing_have_a_sign_and_prices_all_their_digits(browser: Browser, address: str) -> None:
    page = Looked(browser).at(f"{address}/login")
    expected: dict[str, dict[float, str]] = {
        "share": {-1: "\u2212100%", -0.03: "\u22123%", -1e-5: "> \u22120.1%", -0.9999: "< \u221299.9%"},
        "usdSet": {0.375: "$0.375", 3: "$3.00", 0: "$0", 0.899999999999: "$0.90"},
    }
    for name, values in expected.items():
        said = page.evaluate(
            "async ([name, values]) => values.map((await import('/assets/format.js'))[name])",
            [name, list(values)],
        )
        assert said == list(values.values())
    said = page.evaluate(
        """async (flip) => {
            const { grouped } = await import('/assets/flips.js');
            return grouped([flip], () => "local")[0].flips[0];
        }""",
        {"axis": "usd_per_s", "endpoint": "laptop", "now": 0.371 / 3600, "at": 0.37123 / 3600, "goes_to": "laptop"},
    )
    assert ("".join(said["said"]), said["now"]) == (
        "running laptop had cost $0.372 an hour or more",
        "it costs $0.371",
    )


def test_figures_that_change_leave_what_is_focused_and_scrolled_as_it_is(browser: Browser, address: str) -> None:
    page = followed(browser, wide=360).at(f"{address}/#/overview")
    page.locator("details.more").first.locator("summary").click()
    tick = page.evaluate(
        """async () => {
            const ask = async (path) => (await fetch(`/api/dashboard/${path}`)).json();
            const [summary, flow, page] = await Promise.all(["summary", "flow", "requests?limit=1"].map(ask));
            return { summary, flow, newest: page.rows };
        }"""
    )
    boxes = page.locator(".scroll:visible")
    classes = page.get_by_role("group", name="Promises, by class")
    links = page.get_by_role("group", name="Newest requests").locator("a")
    newest = links.first.inner_text()
    links.first.focus()
    scrolled = [box.evaluate("one => { one.scrollLeft = 40; return one.scrollLeft; }") for box in boxes.all()]
    assert max(scrolled) == 40
    tick["newest"][0] |= {"id": "one-more", "at_s": tick["newest"][0]["at_s"] + 1.0}
    tick["summary"]["classes"][0]["requests"] = 4321
    tick["flow"]["flows"][0]["requests"] = 5432
    page.evaluate("(tick) => say('tick', tick)", tick)
    expect(links.first).to_have_text("one-more")
    expect(links.nth(1)).to_have_text(newest)
    expect(links.nth(1)).to_be_focused()
    expect(links).to_have_count(8)
    expect(classes).to_contain_text("4,321")
    expect(page.get_by_role("group", name="Where requests go")).to_contain_text("5,432")
    assert [box.evaluate("one => one.scrollLeft") for box in boxes.all()] == scrolled


def test_requests_of_long_ago_have_their_day(browser: Browser, address: str) -> None:
    page = Looked(browser).at(f"{address}/#/requests?q=people-1")
    expect(page.locator("tbody tr td.id").first).to_contain_text("5 Jan, ")


def test_a_search_that_failed_is_over_and_what_is_typed_last_stays_on_its_page(browser: Browser, address: str) -> None:
    looked = Looked(browser)
    page = looked.page
    page.clock.install()
    looked.at(f"{address}/#/requests")
    page.route("**/api/dashboard/requests?*", lambda route: route.fulfill(status=500, json={}), times=1)
    page.get_by_label("Side").select_option("remote")
    alert = page.get_by_role("alert")
    expect(alert).to_be_visible()
    assert alert.locator("..").evaluate("one => getComputedStyle(one).opacity") == "1"
    page.get_by_label("Find").fill("people")
    page.get_by_role("link", name="Policy").click()
    expect(page.locator("h1")).to_have_text("Policy")
    page.clock.run_for(1000)
    assert page.url.endswith("#/policy")


def test_of_endpoints_whose_state_nobody_can_tell_nothing_is_claimed(browser: Browser, address: str) -> None:
    def untold(body: Any) -> None:
        body["quantile"] = None
        for one in body["endpoints"]:
            nothing = ("state", "owned", "concurrency", "context_tokens", "usd_per_1m_input_tokens")
            one |= dict.fromkeys((*nothing, "usd_per_1m_output_tokens", "running_usd_per_hour"))

    looked = Looked(browser)
    looked.page.route("**/api/dashboard/endpoints?*", changed(untold))
    card = looked.at(f"{address}/#/endpoints").locator("section.card", has_text="cloud")
    expect(card.locator(".tags")).to_have_text("state not known")
    expect(fact(card, "Within bound")).to_have_text(re.compile(r"^[\d.]+%$"))
    expect(fact(card, "Price")).to_have_text("\u2013")
    assert looked.complaints == []


def test_endpoints_are_looked_at_again_and_what_was_opened_and_focused_stays(browser: Browser, address: str) -> None:
    looks = list[int]()

    def told(body: Any) -> None:
        looks.append(len(looks))
        for one in body["endpoints"]:
            one["totals"]["requests"] = 1000 + len(looks)
            one["state"]["at_s"] += len(looks)
            one["usd_per_1m_input_tokens"] = 0.375

    looked = Looked(browser)
    page = looked.page
    page.clock.install()
    page.route("**/api/dashboard/endpoints?*", changed(told))
    looked.at(f"{address}/#/endpoints")
    card = page.locator("section.card", has=page.get_by_role("heading", name="cloud"))
    as_of = page.get_by_text("As of 5 Jan, ")
    before = as_of.inner_text()
    expect(fact(card, "Served")).to_contain_text("1,001")
    expect(fact(card, "Price")).to_contain_text("$0.375 in")
    card.locator("summary").click()
    card.get_by_role("group", name="Predictions at cloud").focus()
    with page.expect_response("**/api/dashboard/endpoints?*"):
        page.clock.run_for(15_000)
    expect(fact(card, "Served")).to_contain_text("1,002")
    expect(as_of).not_to_have_text(before)
    expect(card.get_by_role("group", name="Predictions at cloud")).to_be_focused()
    page.evaluate("Object.defineProperty(document, 'visibilityState', { value: 'hidden' })")
    page.clock.run_for(60_000)
    assert len(looks) == 2
    assert looked.complaints == []


def test_a_stream_that_falls_silent_is_said_to_be_gone_and_another_one_is_opened(
    browser: Browser, address: str
) -> None:
    looked = followed(browser)
    page, state = looked.page, looked.page.locator("#state")
    page.clock.install()
    looked.at(f"{address}/#/overview")
    page.evaluate("say('open')")
    for _ in range(4):
        page.clock.run_for(30_000)
        expect(state).to_have_text("Journal")
        page.evaluate("say('still')")
    page.clock.run_for(41_000)
    expect(state).to_have_text("Dashboard gone; trying again")
    assert page.evaluate("streams.map((one) => one.readyState)") == [2, 1]
    page.evaluate("say('open')")
    expect(state).to_have_text("Journal")
    # Nobody listens on another page, and nothing is opened for it.
    page.get_by_role("link", name="Policy").click()
    expect(state).to_be_empty()
    page.clock.run_for(60_000)
    assert page.evaluate("streams.length") == 2


def test_without_a_journal_nothing_is_claimed_to_be_spent_or_saved(browser: Browser, address: str) -> None:
    looked = followed(browser)
    looked.page.route("**/api/dashboard/summary*", changed(lambda body: body.update(journal=False)))
    tiles = looked.at(f"{address}/#/overview").locator("dl.tiles")
    expect(tiles.locator("dd.big")).to_have_text(["\u2013"] * 4)


def test_beside_the_cap_of_a_day_stands_what_counts_against_it(browser: Browser, address: str) -> None:
    budget = {"name": "day", "usd": 5.0, "spent_usd": 1.25, "begins_s": 0.0, "ends_s": 4e9, "price": 0.0}
    looked = followed(browser)
    looked.page.route("**/api/dashboard/summary*", changed(lambda body: body.update(budgets=[budget])))
    spent = looked.at(f"{address}/#/overview").locator("dl.tiles > div").nth(1)
    expect(spent).to_have_text("Spent today (UTC)$1.25of $5.00 for the day")
    budget["ends_s"] = 1.0
    looked.at(f"{address}/#/overview")
    expect(spent).to_contain_text("requests")


def test_a_choice_keeps_the_focus_and_says_what_was_asked_for(browser: Browser, address: str) -> None:
    looked = Looked(browser)
    page = looked.at(f"{address}/#/endpoints?minutes=120")
    window = page.get_by_label("The last")
    expect(window.locator("option:checked")).to_have_text("2 hours")
    window.select_option("7 days")
    expect(page).to_have_url(re.compile("minutes=10080"))
    expect(window).to_be_focused()
    looked.at(f"{address}/#/surface")
    klass = page.get_by_label("Class")
    klass.select_option("batch")
    expect(page).to_have_url(re.compile("class=batch"))
    looked.settled()
    expect(klass).to_have_value("batch")
    expect(klass).to_be_focused()


@contextmanager
def long_names(journal: Path, folder: Path) -> Iterator[str]:
    """The dashboard of this journal, whose endpoints have names of 64 letters."""
    for segment in journal.glob("*.jsonl"):
        text = re.sub(r'"(laptop|cloud)"', lambda found: f'"{found[1]:x<64}"', segment.read_text())
        (folder / segment.name).write_text(text)
    with dashboard(folder) as at:
        yield at


def test_a_long_name_makes_no_page_wider_than_a_small_phone(browser: Browser, mixed: Path, tmp_path: Path) -> None:
    looked = Looked(browser, wide=320)
    with long_names(mixed, tmp_path) as at:
        for path in ("requests/people-99", "endpoints", "surface"):
            page: Page = looked.at(f"{at}/#/{path}")
            expect(page.get_by_text(f"{'laptop':x<64}").or_(page.get_by_text(f"{'cloud':x<64}")).first).to_be_attached()
            assert (path, looked.overflows()) == (path, False)
