"""What an operator sees: every page, in light and dark, on a phone and at a desk."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from bench.pages import dashboard
from playwright.sync_api import Browser, Route, expect

from tests import make
from tests.pages.shown import PATIENT_MS, Looked
from tidegate.core.model import (
    JOURNAL_VERSION,
    Decision,
    Ending,
    Endpoint,
    Fact,
    Fingerprint,
    FirstToken,
    Handover,
    Line,
    Prefill,
    Request,
    Run,
    Segment,
    Shipped,
    Slo,
    Step,
)
from tidegate.core.why import Why
from tidegate.wire.changes import FILE, Changed, Setting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGES = {
    "/#/overview": "Overview",
    "/#/requests": "Requests",
    "/#/requests/people-99": "people-99",
    "/#/requests/batch-24": "batch-24",
    "/#/endpoints": "Endpoints",
    "/#/surface": "Break-even",
    "/#/policy": "Policy",
    "/#/audit": "Audit",
    "/login": "Log in to Tidegate",
}
KEPT_LOCAL = "What would have kept it local"
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("wide", [360, 1280])
def test_every_page_is_shown_without_a_complaint_a_barrier_or_a_line_too_wide(
    browser: Browser, address: str, wide: int, scheme: str
) -> None:
    looked = Looked(browser, wide=wide, scheme=scheme)
    for path, title in PAGES.items():
        page = looked.at(address + path)
        expect(page.locator("h1")).to_have_text(title)
        expect(page.get_by_role("alert").filter(has_text="a")).to_have_count(0)
        assert (path, looked.barriers()) == (path, [])
        assert (path, looked.overflows()) == (path, False)
        assert (path, looked.complaints) == (path, [])


def test_from_the_overview_two_clicks_say_why_a_request_went_remote_and_what_would_have_kept_it_local(
    browser: Browser, address: str
) -> None:
    page = Looked(browser).at(f"{address}/")
    page.get_by_role("link", name="All requests").click()
    page.get_by_role("row").filter(has=page.get_by_title("remote")).first.get_by_role("link").click()
    expect(page.locator(".verdict")).to_contain_text("It went remote, to cloud: ")
    expect(page.get_by_role("heading", name=KEPT_LOCAL)).to_be_visible(timeout=PATIENT_MS)
    expect(page.locator("#flips")).to_contain_text("It would have run locally, at laptop, if")


def test_what_was_held_tells_how_long_and_what_was_decided_at_first(browser: Browser, address: str) -> None:
    page = Looked(browser).at(f"{address}/#/requests/batch-24")
    expect(page.locator(".answer")).to_contain_text("It was held for a place at laptop before.")
    expect(page.locator(".stages li").first).to_contain_text("held here")
    earlier = page.locator("details.earlier")
    expect(earlier).to_contain_text("held for laptop")
    earlier.locator("> summary").click()
    expect(earlier.locator(".candidates > li")).to_have_count(2)


def test_a_handover_is_told_stage_by_stage(browser: Browser, handovers: str) -> None:
    page = Looked(browser).at(f"{handovers}/#/requests/people-1")
    story = "Its prompt was computed at cluster, and the KV cache sent to laptop"
    expect(page.locator(".answer")).to_contain_text(story)
    expect(page.locator(".verdict")).to_contain_text("It was answered locally, at laptop")
    expect(page.locator(".stages li > div:first-child")).to_have_text(
        ["promptclusterfor laptop", "KV cache sentclusterto laptop", "KV cache readlaptop", "answerlaptop"]
    )


def told(folder: Path) -> Path:
    """A journal of an answer in one piece, of a prompt whose KV cache did not come, and of one that was lost."""
    sends = Handover(target="laptop", kv_bytes_per_token=20_000.0, bytes_per_s=20e6)
    fingerprint = Fingerprint(weights="hf:o/one")
    endpoints = (
        make.endpoint("laptop", fingerprint=fingerprint),
        make.endpoint("rack", local=False, fingerprint=fingerprint, handovers=(sends,)),
    )
    whole = make.request("whole", arrived_s=100.0, stream=False, slo=Slo(ttft_s=2.0, tpot_s=0.1))
    handed = make.request("handed", arrived_s=110.0, prompt_tokens=4_000, prompt_bytes=16_000, slo=Slo())
    lost = make.request("lost", arrived_s=120.0)

    def decided(request: Request, step: Step) -> Decision:
        return Decision(request_id=request.id, plan=(step,), why=Why.CHEAPEST_ON_TIME)

    laptop, rack = Run(endpoint="laptop", timeout_s=10.0), Run(endpoint="rack", timeout_s=10.0)
    facts: list[tuple[float, Fact]] = [
        (100.0, whole),
        (100.0, decided(whole, laptop)),
        (100.0, make.started(whole, "laptop")),
        (106.0, make.ended("whole", "laptop", e2e_s=6.0, prompt_tokens=200, output_tokens=50)),
        (110.0, handed),
        (110.0, decided(handed, Prefill(endpoint="rack", target="laptop", timeout_s=10.0))),
        (110.0, make.started(handed, "rack", target="laptop")),
        (111.0, make.ended("handed", "rack", ttft_s=1.0, prompt_tokens=4_000, output_tokens=1)),
        (112.0, Shipped(request_id="handed", endpoint="rack", target="laptop", ok=False, cause="ticket")),
        (112.0, handed),
        (112.0, decided(handed, laptop)),
        (112.0, make.started(handed, "laptop")),
        (116.0, FirstToken(request_id="handed", endpoint="laptop", ttft_s=4.0)),
        (118.0, make.ended("handed", "laptop", e2e_s=6.0, ttft_s=4.0, prompt_tokens=4_000, output_tokens=50)),
        (120.0, lost),
        (120.0, decided(lost, rack)),
        (120.0, make.started(lost, "rack")),
        (121.0, make.ended("lost", "rack", ending=Ending.TIMED_OUT, cause="no_content", e2e_s=1.0)),
        (121.0, make.started(lost, "laptop")),
    ]
    return journalled(folder, endpoints, facts)


def journalled(folder: Path, endpoints: tuple[Endpoint, ...], facts: list[tuple[float, Fact]]) -> Path:
    """A journal of these facts, each with its time."""
    router = make.router(*endpoints)
    head = Segment(
        version=JOURNAL_VERSION, software="test", policy=router.policy, endpoints=endpoints, state=router.snapshot()
    )
    lines = [Line(at_s=100.0, fact=head), *(Line(at_s=at_s, fact=fact) for at_s, fact in facts)]
    (folder / "journal-20261125T000000000Z-1-000000.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(lines))
    return folder


def test_what_nobody_can_tell_of_a_request_is_not_told_and_what_failed_says_why(
    browser: Browser, tmp_path: Path
) -> None:
    with dashboard(told(tmp_path)) as at:
        looked = Looked(browser)
        page = looked.at(f"{at}/#/overview")
        expect(page.locator("dl.tiles")).to_contain_text("of none in this window is it known")
        page = looked.at(f"{at}/#/requests")
        row = page.locator("tbody tr")
        expect(row.filter(has_text="whole").locator("td").last).to_have_text("not known")
        expect(row.filter(has_text="handed").locator(".where")).to_contain_text("prefill elsewhere was lost")
        expect(row.filter(has_text="lost with").locator("td").last).to_have_text("lost with its process")
        page = looked.at(f"{at}/#/requests/whole")
        facts = page.locator("dl.facts").first
        expect(facts.locator("div", has_text="First token").locator("dd").last).to_have_text("\u2013")
        expect(page.locator(".stages li")).to_have_count(1)
        expect(page.locator(".stages li")).to_contain_text("prompt and answer")
        page = looked.at(f"{at}/#/requests/handed")
        story = "Its prompt was computed at rack; to send its KV cache to laptop failed (ticket)."
        expect(page.locator(".answer")).to_contain_text(story)
        expect(page.locator(".stages li").nth(1)).to_contain_text("came to nothing (ticket)")
        page = looked.at(f"{at}/#/requests/lost")
        expect(page.locator("dl.facts").first).to_contain_text("lost with its process")
        expect(page.locator("dl.facts").first).to_contain_text("Paid$0.0002")
        page = looked.at(f"{at}/#/endpoints")
        card = page.locator("section.card", has=page.get_by_role("heading", name="laptop"))
        expect(card).to_contain_text("Of nothing that it served in this window a first token was predicted and seen")
        card = page.locator("section.card", has=page.get_by_role("heading", name="rack"))
        expect(card).to_contain_text("It served nothing in this window")
        assert looked.complaints == []


def test_requests_are_found_by_id_and_narrowed_by_side_and_the_address_remembers_that(
    browser: Browser, address: str
) -> None:
    looked = Looked(browser)
    page = looked.at(f"{address}/#/requests")
    rows = page.locator("tbody tr")
    page.get_by_label("Find").fill("people-1")
    expect(page.get_by_role("status").filter(has_text="found")).to_have_text("11 found")
    page.get_by_label("Side").select_option("remote")
    expect(rows.get_by_title("local")).to_have_count(0)
    assert page.url.endswith("#/requests?q=people-1&tier=remote")
    page = looked.at(page.url)
    expect(page.get_by_label("Find")).to_have_value("people-1")
    expect(page.get_by_label("Side")).to_have_value("remote")
    page.get_by_label("Find").fill("nobody")
    expect(page.get_by_text("No request is like that")).to_be_visible()


def test_older_requests_follow_until_all_are_there(browser: Browser, address: str) -> None:
    page = Looked(browser).at(f"{address}/#/requests")
    rows, older = page.locator("tbody tr"), page.get_by_role("button", name="Show older")
    expect(rows).to_have_count(50)
    older.click()
    expect(rows).to_have_count(100)
    older.click()
    expect(rows).to_have_count(125)
    expect(older).to_be_hidden()


def test_who_has_no_mouse_reaches_everything(browser: Browser, address: str) -> None:
    page = Looked(browser).at(f"{address}/")

    def tab_to(role: str, name: str) -> None:
        wanted = page.get_by_role(role, name=name, exact=True).first  # type: ignore[arg-type]
        for _ in range(80):
            page.keyboard.press("Tab")
            if wanted.evaluate("one => one === document.activeElement"):
                return
        raise AssertionError(f"no way to {role} {name}")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    tab_to("link", "people-99")
    page.keyboard.press("Enter")
    # Whoever is read to begins at the new page's title.
    expect(page.get_by_role("heading", name="people-99")).to_be_focused()
    expect(page.get_by_role("heading", name=KEPT_LOCAL)).to_be_visible(timeout=PATIENT_MS)
    table = page.locator("details", has_text="As a table").first
    table.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(table.get_by_role("table")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Overview")).to_be_focused()


def test_the_theme_is_switched_and_remembered(browser: Browser, address: str) -> None:
    looked = Looked(browser)
    page = looked.at(f"{address}/")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    switch = page.get_by_role("button", name="Theme")
    switch.click()
    switch.click()
    expect(switch).to_have_text("Theme: dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    expect(switch).to_have_text("Theme: dark")
    assert page.evaluate(ground) == dark


def test_names_from_clients_are_text_and_never_markup(browser: Browser, mixed: Path, tmp_path: Path) -> None:
    hostile = HOSTILE.replace('"', '\\"')
    for segment in mixed.glob("*.jsonl"):
        text = segment.read_text()
        for name in ("people-", "interactive/", "assistant"):
            text = text.replace(f'"{name}', f'"{hostile}{name}')
        (tmp_path / segment.name).write_text(text)
    with dashboard(tmp_path) as at:
        looked = Looked(browser)
        page = looked.at(f"{at}/")
        expect(page.locator("main")).to_contain_text(HOSTILE)
        page.get_by_role("link", name=f"{HOSTILE}people-99").click()
        looked.settled()
        expect(page.locator("h1")).to_have_text(f"{HOSTILE}people-99")
        expect(page.locator("dl.facts").first).to_contain_text(f"{HOSTILE}assistant")
        for path in ("/#/requests", "/#/endpoints", "/#/surface"):
            looked.at(at + path)
            assert page.locator("img").count() == 0
            assert "Tidegate" in page.title()
            assert not looked.overflows()
    assert looked.complaints == []


def test_a_dashboard_that_is_gone_is_said_to_be_and_found_again(browser: Browser, mixed: Path) -> None:
    with dashboard(mixed) as at:
        page = Looked(browser).at(f"{at}/")
        expect(page.locator("#state")).to_have_text("Journal")
    expect(page.locator("#state")).to_have_text("Dashboard gone; trying again", timeout=PATIENT_MS)
    page.get_by_role("link", name="Endpoints").click()
    expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer. Trying again in 3 s.")
    with dashboard(mixed, port=int(at.rpartition(":")[2])):
        expect(page.get_by_role("heading", name="cloud")).to_be_visible(timeout=PATIENT_MS)


def halved(journal: Path, folder: Path) -> tuple[Path, bytes]:
    """A segment with the first half of this journal's in that folder, and what is still to come to it."""
    (segment,) = journal.glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    growing, half = folder / segment.name, len(lines) // 2
    growing.write_bytes(b"".join(lines[:half]))
    return growing, b"".join(lines[half:])


def test_what_a_journal_gains_is_shown_by_itself(browser: Browser, mixed: Path, tmp_path: Path) -> None:
    growing, rest = halved(mixed, tmp_path)
    with dashboard(tmp_path) as at:
        page = Looked(browser).at(f"{at}/")
        expect(page.locator("#state")).to_have_text("Journal")
        expect(page.get_by_role("link", name="people-99")).to_have_count(0)
        with growing.open("ab") as file:
            file.write(rest)
        expect(page.get_by_role("link", name="people-99")).to_be_visible(timeout=PATIENT_MS)
        expect(page.locator(".top .soft")).to_contain_text("125 requests in this window")


def test_who_gets_no_stream_is_told_so_and_sees_what_is_new(browser: Browser, mixed: Path, tmp_path: Path) -> None:
    growing, rest = halved(mixed, tmp_path)
    with dashboard(tmp_path) as at:
        looked = Looked(browser)
        looked.page.route("**/api/dashboard/live?*", lambda route: route.fulfill(status=503, json={}))
        page = looked.at(f"{at}/")
        expect(page.locator("#state")).to_have_text("Not live; looks every 3 s")
        with growing.open("ab") as file:
            file.write(rest)
        expect(page.get_by_role("link", name="people-99")).to_be_visible(timeout=PATIENT_MS)
        expect(page.locator(".top .soft")).to_contain_text("125 requests in this window")
        expect(page.locator("#state")).to_have_text("Not live; looks every 3 s")
        page.get_by_role("link", name="Policy").click()
        expect(page.locator("#state")).to_be_empty()


def test_who_gets_no_stream_asks_no_oftener_for_having_looked_at_other_pages_and_windows(
    browser: Browser, address: str
) -> None:
    looked = Looked(browser)
    page = looked.page
    page.clock.install()
    streams = list[str]()

    def refused(route: Route) -> None:
        streams.append(route.request.url)
        route.fulfill(status=503, json={})

    page.route("**/api/dashboard/live?*", refused)
    state = page.locator("#state")
    looked.at(f"{address}/#/overview")
    expect(state).to_have_text("Not live; looks every 3 s")

    def goes_by(ms: int) -> None:
        page.clock.run_for(ms)
        # What was answered by then is dealt with before time goes on.
        page.evaluate("fetch('/api/dashboard/values').then((answer) => answer.json())")

    for minutes in (360, 60, 360, 60):
        for path in ("policy", f"overview?minutes={minutes}"):
            page.goto(f"{address}/#/{path}")
            looked.settled()
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(state).to_have_text("Not live; looks every 3 s")
        goes_by(500)
    streams.clear()
    for _ in range(30):
        goes_by(300)
    assert 2 <= len(streams) <= 5


def test_while_the_dashboard_is_away_the_overview_asks_no_oftener_as_time_goes_by(
    browser: Browser, address: str
) -> None:
    looked = Looked(browser)
    looked.page.clock.install()
    page = looked.at(f"{address}/#/overview")
    asked = list[str]()

    def away(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=503, json={})

    page.route("**/api/dashboard/series?*", away)
    counts = list[int]()
    for _ in range(4):
        asked.clear()
        for _ in range(5):
            page.clock.run_for(3000)
            # What was answered by then is dealt with before time goes on.
            page.evaluate("fetch('/api/dashboard/values').then((answer) => answer.json())")
        counts.append(len(asked))
    assert max(counts) <= 7


def test_a_journal_that_is_still_being_read_is_said_to_be_and_shown_again_when_it_is_read(
    browser: Browser, address: str
) -> None:
    for name in ("requests", "endpoints"):
        looked = Looked(browser)
        told = {"indexed_share": 0.5}
        looked.page.route("**/api/dashboard/summary*", answer(told))
        page = looked.at(f"{address}/#/{name}")
        expect(page.get_by_text("Of the journal 50% has been read so far.")).to_be_visible()
        with page.expect_request(f"**/api/dashboard/{name}?*"):
            told["indexed_share"] = 1.0
        expect(page.get_by_text("Of the journal")).to_have_count(0)
        assert looked.complaints == []


def answer(body: dict[str, float]) -> Callable[[Route], None]:
    """What answers with this, as it is by then."""
    return lambda route: route.fulfill(json=body)


def test_older_requests_that_do_not_come_are_said_not_to_and_asked_for_again(browser: Browser, address: str) -> None:
    looked = Looked(browser)
    page = looked.at(f"{address}/#/requests")
    page.route("**/api/dashboard/requests?*before=*", broken, times=1)
    page.get_by_role("button", name="Show older").click()
    expect(page.get_by_role("alert")).to_contain_text("A bug of ours.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("tbody tr")).to_have_count(100)
    expect(page.get_by_role("alert")).to_have_count(0)
    page.route("**/api/dashboard/values", broken, times=1)
    page = looked.at(f"{address}/#/requests")
    expect(page.get_by_role("alert")).to_contain_text("A bug of ours.")
    page.get_by_role("button", name="Try again").click()
    page.locator("select[name=endpoint]").select_option("cloud")
    expect(page.get_by_role("alert")).to_have_count(0)


def broken(route: Route) -> None:
    """An answer that nobody asks for again by itself."""
    route.fulfill(status=500, json={"error": {"message": "A bug of ours."}})


def two_models(folder: Path) -> Path:
    """A journal of a model that both serve, for chats, and of one that only the cloud has, for batches."""
    endpoints = (make.endpoint("laptop"), make.endpoint("cloud", local=False, models=("m", "deep")))
    facts: list[tuple[float, Fact]] = []
    for at_s, klass, model, endpoint in (
        (1.0, "chat", "m", "laptop"),
        (2.0, "chat", "m", "laptop"),
        (3.0, "batch", "deep", "cloud"),
    ):
        request = make.request(arrived_s=at_s, klass=klass, model=model)
        run = Run(endpoint=endpoint, timeout_s=10.0)
        facts += [
            (at_s, request),
            (at_s, Decision(request_id=request.id, plan=(run,), why=Why.CHEAPEST_ON_TIME)),
            (at_s, make.started(request, endpoint)),
            (at_s + 0.5, make.ended(request.id, endpoint, e2e_s=0.5, prompt_tokens=200, output_tokens=5)),
        ]
    return journalled(folder, endpoints, facts)


def test_whatever_the_break_even_offers_is_shown_or_what_comes_closest(browser: Browser, tmp_path: Path) -> None:
    with dashboard(two_models(tmp_path)) as at:
        looked = Looked(browser)
        page = looked.at(f"{at}/#/surface")
        klass, model, load = (page.get_by_label(name) for name in ("Class", "Model", "Load at"))
        load.select_option("laptop")
        expect(page).to_have_url(re.compile("endpoint=laptop"))
        looked.settled()
        model.select_option("deep")
        expect(load).to_have_value("cloud")
        expect(page.get_by_text("What comes closest is shown.")).to_be_visible()
        expect(klass).to_have_value("batch")
        klass.select_option("chat")
        expect(model).to_have_value("m")
        looked.at(f"{at}/#/surface?class=chat&model=m")
        expect(load).to_have_value("laptop")
        expect(page.get_by_text("What comes closest is shown.")).to_have_count(0)
        looked.at(f"{at}/#/surface?class=gone")
        expect(page.get_by_text("What comes closest is shown.")).to_be_visible()
        expect(klass).to_have_value("chat")
        expect(page.get_by_role("alert")).to_have_count(0)


def test_many_classes_have_room_for_their_names(browser: Browser, mixed: Path, tmp_path: Path) -> None:
    for segment in mixed.glob("*.jsonl"):
        text = re.sub(r'("id":"\w+-)(\d)(.*?"klass":")\w+/', r"\1\2\3team-\2/", segment.read_text())
        (tmp_path / segment.name).write_text(text)
    with dashboard(tmp_path) as at:
        page = Looked(browser).at(f"{at}/")
        high = page.locator(".chart").first.evaluate("one => one.querySelector('canvas').clientHeight")
        shown = page.locator("table", has_text="Endpoint").first.locator("tbody tr th")
        classes = len(set(shown.all_text_contents()))
        assert classes > 12
        assert high >= 28 * classes


def test_a_journal_without_requests_says_so(browser: Browser, tmp_path: Path) -> None:
    with dashboard(tmp_path) as at:
        looked = Looked(browser)
        page = looked.at(f"{at}/")
        expect(page.get_by_text("No requests yet")).to_be_visible()
        looked.at(f"{at}/#/endpoints")
        expect(page.get_by_text("No endpoints are known yet")).to_be_visible()
        looked.at(f"{at}/#/surface")
        expect(page.get_by_text("Nothing can be decided yet")).to_be_visible()
        assert looked.complaints == []


def test_of_what_operators_have_changed_it_is_said_whether_it_is_in_force_and_when(
    browser: Browser, tmp_path: Path
) -> None:
    settings = (
        Setting(path="gateway.drain_s", before=5, after=6),
        Setting(path="gateway.listen", before="a", after="b", at_restart=True),
    )
    lines = [
        Changed(at_s=float(number), who="me", what="configuration reloaded", changes=settings, applied=applied)
        for number, applied in enumerate((True, False))
    ]
    (tmp_path / FILE).write_bytes(msgspec.json.Encoder().encode_lines(lines))
    with dashboard(tmp_path) as at:
        page = Looked(browser).at(f"{at}/#/audit")
        refused, applied = page.locator(".changes > li").all()
        for change, when in ((refused, ("no", "no")), (applied, ("at once", "at restart"))):
            for row, said in zip(change.locator("tbody tr").all(), when, strict=True):
                expect(row.locator("td").last).to_have_text(said)


FORMATS: dict[str, dict[float, str]] = {
    "usd": {0.0012: "$0.0012", 0: "$0", 0.123: "$0.12", 12.3: "$12.30", 1234.5: "$1,235", 1e-7: "< $0.00001"},
    "usdSigned": {0.0012: "+$0.0012", -0.5: "\u2212$0.50", 0: "$0"},
    "seconds": {
        0: "0 s",
        0.0142: "14 ms",
        0.69: "0.69 s",
        1.23: "1.2 s",
        24.4: "24 s",
        200: "3 min 20 s",
        300: "5 min",
    },
    "share": {
        1: "100%",
        0.9999: "> 99.9%",
        0.987: "98.7%",
        0.5: "50%",
        0: "0%",
        0.0004: "< 0.1%",
        1.002: "> 100%",
        129.62: "12,962%",
    },
    "short": {983: "983", 1234: "1.2k", 47210: "47.2k", 1250000: "1.3M"},
}


def test_numbers_are_written_for_people(browser: Browser, address: str) -> None:
    page = Looked(browser).at(f"{address}/login")
    for name, expected in FORMATS.items():
        said = page.evaluate(
            """async ([name, values]) => {
                const all = await import('/assets/format.js');
                return values.map((one) => all[name](one));
            }""",
            [name, list(expected)],
        )
        assert [one.replace("\u00a0", " ") for one in said] == list(expected.values())


def test_a_time_in_more_than_a_day_has_its_day(browser: Browser, address: str) -> None:
    page = Looked(browser).at(f"{address}/login")
    said = page.evaluate(
        """async ([day, atS]) => {
            const { tick, between } = await import('/assets/format.js');
            const ticks = [tick(atS, day), tick(atS, 7 * day), tick(atS + 3 * 3600, 7 * day)];
            const spans = [[600, day], [600, 7 * day], [day, 7 * day]];
            return [...ticks, ...spans.map(([s, wide]) => between(atS, atS + s, wide))];
        }""",
        [86_400, 86_400 * 20_000],
    )
    one_day = ["00:00", "4 Oct", "4 Oct, 03:00", "00:00 to 00:10"]
    assert said == [*one_day, "4 Oct, 00:00 to 00:10", "4 Oct, 00:00 to 5 Oct, 00:00"]


def test_a_flip_is_rounded_away_from_where_the_request_stands(browser: Browser, address: str) -> None:
    page = Looked(browser).at(f"{address}/login")
    flips = [
        {"axis": "ttft_s", "now": 2.0, "at": 3.18401, "goes_to": "laptop"},
        {"axis": "price", "endpoint": "cloud", "now": 1.0, "at": 0.160799, "goes_to": "cloud"},
        {"axis": "prompt_tokens", "now": 392, "at": 171, "goes_to": "laptop"},
    ]
    said = page.evaluate(
        """async (flips) => {
            const { grouped } = await import('/assets/flips.js');
            return grouped(flips, (name) => (name === 'laptop' ? 'local' : 'remote'));
        }""",
        flips,
    )
    assert [(one["goesTo"], one["tier"], ["".join(flip["said"]) for flip in one["flips"]]) for one in said] == [
        (
            "laptop",
            "local",
            [
                "its first token had been promised within 3.19 s or more",
                "its prompt had been 171 tokens or shorter",
            ],
        ),
        ("cloud", "remote", ["tokens at cloud had cost 0.16 times as much, or less"]),
    ]
