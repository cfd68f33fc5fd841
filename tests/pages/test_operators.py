"""Operators beside each other: what one does while another has a page open, who comes to the door, and who leaves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, Dialog, Page, Route, expect

from tests.pages.shown import PATIENT_MS, SECRET, Looked, gateway
from tests.pages.test_beside_a_gateway import controls, log_in, policy_page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DOOR = "Log in · Tidegate"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the gateway has its files."""
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    """A gateway's dashboard."""
    with gateway(folder) as (at, _):
        yield at


def by_another(address: str, name: str, body: dict[str, str]) -> Any:
    """What another operator's change comes to."""
    headers = {
        "authorization": f"Bearer {SECRET}",
        "content-type": "application/json",
        "x-tidegate-dashboard": "1",
    }
    with urlopen(Request(f"{address}/api/dashboard/{name}", json.dumps(body).encode(), headers)) as answer:
        return json.load(answer)


def asked_meanwhile(page: Page) -> None:
    """What was answered by now is dealt with."""
    page.evaluate("fetch('/api/dashboard/values').then((answer) => answer.json())")


def test_a_rollback_goes_to_what_was_agreed_to_or_nowhere(browser: Browser, served: str, folder: Path) -> None:
    file = folder / "tidegate.toml"
    first = file.read_text()
    looked = Looked(browser)
    page = policy_page(looked, served)
    _, status, dialog = controls(page)
    revision = page.evaluate("fetch('/api/dashboard/policy').then((answer) => answer.json())")["revision"]
    good = first.replace("worth_usd = 0.002", "worth_usd = 0.003")
    revision = by_another(served, "policy/apply", {"text": good, "revision": revision})["revision"]
    page.reload()
    looked.settled()
    bad = first.replace("worth_usd = 0.002", "worth_usd = 0.009")
    applied = by_another(served, "policy/apply", {"text": bad, "revision": revision})
    by_another(served, "policy/rollback", {"revision": applied["revision"]})
    page.get_by_role("button", name="Roll back…").click()
    expect(dialog).to_contain_text("What was in force until ")
    dialog.get_by_role("button", name="Roll back").click()
    expect(status).to_contain_text("A rollback goes to another configuration by now", timeout=PATIENT_MS)
    assert file.read_text() == good
    # What it goes to stands there by now.
    page.get_by_role("button", name="Roll back…").click()
    dialog.get_by_role("button", name="Roll back").click()
    expect(status).to_contain_text("It was taken back.", timeout=PATIENT_MS)
    assert file.read_text() == bad
    by_another(served, "policy/apply", {"text": first, "revision": applied["revision"]})


def test_a_job_that_another_has_begun_is_followed_by_the_clock_that_it_began_by(browser: Browser, address: str) -> None:
    job = {"state": "none", "at_s": 0.0, "began_s": None, "ended_s": None, "problem": "", "result": None}

    def answer(route: Route) -> None:
        if route.request.method == "POST":
            job.update(state="running", at_s=1010.0, began_s=1000.0)
            route.fulfill(status=409, json={"error": {"message": "One is under way."}})
        else:
            route.fulfill(json=job)

    looked = Looked(browser)
    looked.page.route("**/api/dashboard/audit", answer)
    page = looked.at(f"{address}/#/audit")
    page.get_by_role("button", name="Audit now").click()
    expect(page.locator(".progress")).to_contain_text("Under way for 10 s")
    expect(page.get_by_role("button", name="Audit now")).to_be_disabled()
    job.update(state="failed", problem="Theirs came to nothing.")
    expect(page.get_by_role("alert")).to_contain_text("Theirs came to nothing.")


def test_why_a_job_cannot_be_begun_stays_where_none_is_under_way(browser: Browser, address: str) -> None:
    looked = Looked(browser)
    refused = {"error": {"message": "There is no journal to play."}}
    page = looked.at(f"{address}/#/audit")
    page.route(
        "**/api/dashboard/audit",
        lambda route: route.fallback() if route.request.method == "GET" else route.fulfill(status=409, json=refused),
    )
    with page.expect_response(lambda answer: answer.request.method == "GET"):
        page.get_by_role("button", name="Audit now").click()
    asked_meanwhile(page)
    expect(page.get_by_role("alert")).to_contain_text("There is no journal to play.")


def test_who_asks_for_a_job_while_nobody_answers_waits_as_told_and_keeps_what_is_said(
    browser: Browser, address: str
) -> None:
    looked = Looked(browser)
    page = looked.page
    page.clock.install()
    looks = list[str]()

    def away(route: Route) -> None:
        looks.append(route.request.url)
        route.fulfill(status=503, headers={"retry-after": "30"}, json={"error": {"message": "Not yet."}})

    page.route("**/api/dashboard/audit", away)
    looked.at(f"{address}/#/audit")
    button = page.get_by_role("alert").get_by_role("button", name="Try again")
    button.focus()
    looks.clear()
    for _ in range(6):
        page.clock.run_for(1000)
        asked_meanwhile(page)
    assert looks == []
    page.clock.run_for(25_000)
    asked_meanwhile(page)
    assert len(looks) == 1
    expect(button).to_be_focused()


def test_a_preview_of_another_text_is_said_to_be(browser: Browser, served: str) -> None:
    looked = Looked(browser)
    page = policy_page(looked, served)
    editor, _, _ = controls(page)
    another = page.get_by_text("It is of another text than what stands in the editor.")
    editor.fill(editor.input_value() + "# tried\n")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator(".progress, .notice, .done")).to_be_visible(timeout=PATIENT_MS)
    expect(another).to_be_hidden()
    page.reload()
    looked.settled()
    expect(page.locator(".progress, .notice, .done")).to_be_visible(timeout=PATIENT_MS)
    expect(another).to_be_hidden()
    page.get_by_role("button", name="Undo edits").click()
    expect(another).to_be_visible()
    assert looked.barriers() == []


def test_who_comes_to_the_door_by_a_link_goes_on_to_where_it_leads(browser: Browser, served: str) -> None:
    looked = Looked(browser)
    page = looked.page
    page.goto(f"{served}/#/endpoints")
    log_in(page)
    expect(page.locator("h1")).to_have_text("Endpoints")
    # By a link in a chat, with which no cookie comes.
    chat = f'<a href="{served}/#/surface">look</a>'
    page.route("http://chat.test/", lambda route: route.fulfill(content_type="text/html", body=chat))
    page.goto("http://chat.test/")
    page.get_by_role("link").click()
    expect(page.locator("h1")).to_have_text("Break-even", timeout=PATIENT_MS)
    page.go_back()
    expect(page.get_by_role("link", name="look")).to_be_visible()


def test_who_types_before_the_door_can_answer_stays_there(browser: Browser, served: str) -> None:
    page = Looked(browser).page
    held = list[Route]()
    page.route("**/assets/login.js", lambda route: held.append(route))
    with page.expect_request("**/assets/login.js"):
        page.goto(f"{served}/login", wait_until="commit")
    page.get_by_label("Admin key").fill(SECRET)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Log in")).to_be_disabled()
    held[0].continue_()
    log_in(page)


def test_who_could_not_log_out_is_told_so(browser: Browser, served: str) -> None:
    looked = Looked(browser)
    page = looked.page
    page.goto(f"{served}/")
    log_in(page)
    page.route("**/logout", lambda route: route.abort(), times=2)
    for _ in range(2):
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("alert")).to_contain_text("You may still be logged in.")
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_title(DOOR)


def test_edits_outlive_a_session_and_go_with_who_logs_out(browser: Browser, served: str) -> None:
    looked = Looked(browser)
    page = policy_page(looked, served)
    asked = list[str]()

    def leave(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", leave)
    editor, _, _ = controls(page)
    before = editor.input_value()
    editor.fill(before + "# mine\n")
    page.context.clear_cookies()
    page.get_by_role("button", name="Check").click()
    log_in(page)
    expect(editor).to_have_value(before + "# mine\n", timeout=PATIENT_MS)
    # Nothing was to be lost, so nobody was asked.
    assert asked == []
    page.get_by_role("button", name="Log out").click()
    log_in(page)
    # Whoever goes elsewhere before he is let in has not logged in; between two pages there is no title, either.
    expect(page.get_by_role("button", name="Log out")).to_be_visible(timeout=PATIENT_MS)
    page.goto(f"{served}/#/policy")
    expect(editor).to_have_value(before, timeout=PATIENT_MS)
    assert asked == ["beforeunload"]


def test_what_a_row_tells_is_shown_also_where_the_rest_is_still_to_come(browser: Browser, address: str) -> None:
    looked = Looked(browser)
    page = looked.page
    held = list[Route]()
    busy = {"error": {"message": "Another decision is being explained."}}
    page.route(
        "**/api/dashboard/decisions/*",
        lambda route: route.fulfill(status=503, headers={"retry-after": "30"}, json=busy),
    )
    page.route("**/api/dashboard/requests?q=*", lambda route: held.append(route))
    page.goto(f"{address}/#/requests/people-99")
    expect(page.get_by_role("status").filter(has_text="is being explained")).to_be_visible(timeout=PATIENT_MS)
    held[0].continue_()
    expect(page.locator(".verdict")).to_be_visible()
