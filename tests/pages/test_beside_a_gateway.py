"""The pages at a gateway's own address: who may see them, and a policy that is changed and taken back."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.pages.shown import PATIENT_MS, SECRET, Looked, gateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the gateway has its files."""
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[tuple[str, str]]:
    """A gateway's dashboard, and its clients' address."""
    with gateway(folder) as at:
        yield at


def log_in(page: Page) -> None:
    expect(page).to_have_title("Log in · Tidegate")
    page.get_by_label("Admin key").fill(SECRET)
    expect(page.get_by_role("button", name="Log in")).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page).not_to_have_title("Log in · Tidegate")


def policy_page(looked: Looked, address: str) -> Page:
    """The policy, for who has logged in."""
    page = looked.page
    page.goto(f"{address}/#/policy")
    log_in(page)
    page.goto(f"{address}/#/policy")
    return looked.settled()


def controls(page: Page) -> tuple[Locator, Locator, Locator]:
    """The editor, what is said of a change, and what asks before one."""
    return page.get_by_label("Configuration"), page.get_by_role("status").last, page.get_by_role("dialog")


def test_who_has_no_session_logs_in_and_comes_to_the_page_that_was_asked_for(
    browser: Browser, served: tuple[str, str]
) -> None:
    looked = Looked(browser)
    page = looked.page
    page.goto(f"{served[0]}/login?to=%23%2Fendpoints")
    page.get_by_label("Admin key").fill("a guess")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).not_to_be_empty()
    expect(page.get_by_label("Admin key")).to_be_focused()
    assert looked.barriers() == []
    log_in(page)
    expect(page.locator("h1")).to_have_text("Endpoints")
    expect(page.get_by_role("heading", name="laptop")).to_be_visible(timeout=PATIENT_MS)
    assert SECRET not in page.content()
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_title("Log in · Tidegate")
    page.goto(f"{served[0]}/")
    expect(page).to_have_title("Log in · Tidegate")


def test_what_a_gateway_refuses_is_seen_at_once_with_its_reason(browser: Browser, served: tuple[str, str]) -> None:
    looked = Looked(browser)
    page = looked.page
    page.goto(f"{served[0]}/")
    log_in(page)
    looked.settled()
    expect(page.locator("#state")).to_have_text("Live", timeout=PATIENT_MS)
    body = {"model": "assistant", "messages": [{"role": "user", "content": "a prompt that nobody else is to see"}]}
    asked = Request(f"{served[1]}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with pytest.raises(HTTPError) as refused:
        urlopen(asked)
    refused.value.close()
    row = page.locator(".requests tbody tr")
    expect(row).to_contain_text("refused", timeout=PATIENT_MS)
    row.get_by_role("link").click()
    expect(page.locator(".verdict")).to_contain_text("It was refused: ", timeout=PATIENT_MS)
    looked.settled()
    expect(page.get_by_role("heading", name="What it chose from")).to_be_visible()
    assert "nobody else" not in page.content()


def test_a_policy_is_checked_put_in_force_written_down_and_taken_back(
    browser: Browser, served: tuple[str, str]
) -> None:
    looked = Looked(browser)
    page = policy_page(looked, served[0])
    editor, status = page.get_by_label("Configuration"), page.get_by_role("status").last
    before = editor.input_value()
    editor.fill(before.replace("worth_usd = 0.002", "worth_usd = -1"))
    page.get_by_role("button", name="Check").click()
    expect(status).to_contain_text("It cannot be put in force:", timeout=PATIENT_MS)
    expect(status).to_contain_text("class.interactive.worth_usd")
    editor.fill(before.replace("worth_usd = 0.002", "worth_usd = 0.003"))
    page.get_by_role("button", name="Put in force…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("class.interactive.worth_usd", timeout=PATIENT_MS)
    assert looked.barriers() == []
    dialog.get_by_role("button", name="Put in force").click()
    expect(status).to_contain_text("It is in force.", timeout=PATIENT_MS)
    page.get_by_role("button", name="Roll back…").click()
    dialog.get_by_role("button", name="Roll back").click()
    expect(status).to_contain_text("It was taken back.", timeout=PATIENT_MS)
    expect(editor).to_have_value(before)
    page.get_by_role("link", name="Audit").click()
    changes = page.locator(".changes > li")
    expect(changes.first).to_contain_text("class.interactive.worth_usd", timeout=PATIENT_MS)
    expect(changes.first).to_contain_text("127.0.0.1")
    assert looked.barriers() == []


def test_edits_outlive_another_page_and_another_hand_and_are_named_before_they_are_lost(
    browser: Browser, served: tuple[str, str], folder: Path
) -> None:
    file = folder / "tidegate.toml"
    (folder / "tidegate.toml.before").write_text(file.read_text() + "# once\n")
    looked = Looked(browser)
    page = policy_page(looked, served[0])
    editor, status = page.get_by_label("Configuration"), page.get_by_role("status").last
    before = editor.input_value()
    edited = before.replace("worth_usd = 0.002", "worth_usd = 0.005")
    editor.fill(edited)
    page.get_by_role("link", name="Audit").click()
    expect(page.get_by_role("heading", name="Audit", exact=True)).to_be_visible()
    page.go_back()
    looked.settled()
    expect(editor).to_have_value(edited)
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Roll back…").click()
    expect(dialog).to_contain_text("What you have edited here is in no file")
    dialog.get_by_role("button", name="Cancel").click()
    file.write_text(before + "# by another hand\n")
    page.get_by_role("button", name="Put in force…").click()
    dialog.get_by_role("button", name="Put in force").click()
    expect(status).to_contain_text("The file has been changed meanwhile. Your edits are kept", timeout=PATIENT_MS)
    expect(status).to_contain_text("class.interactive.worth_usd", timeout=PATIENT_MS)
    expect(editor).to_have_value(edited)
    file.write_text(before)
    page.get_by_role("link", name="Audit").click()
    page.go_back()
    expect(status).to_contain_text("Your edits are kept", timeout=PATIENT_MS)
    expect(editor).to_have_value(edited)
    page.get_by_role("button", name="Undo edits").click()
    expect(editor).to_have_value(before)


def test_a_file_that_was_edited_by_hand_is_put_in_force_from_here_and_keeps_its_line_ends(
    browser: Browser, served: tuple[str, str], folder: Path
) -> None:
    file = folder / "tidegate.toml"
    was = file.read_text()
    looked = Looked(browser)
    file.write_bytes(was.replace("worth_usd = 0.002", "worth_usd = 0.006").replace("\n", "\r\n").encode())
    page = policy_page(looked, served[0])
    editor, status = page.get_by_label("Configuration"), page.get_by_role("status").last
    about, dialog = page.locator("section.card header p").first, page.get_by_role("dialog")
    put = page.get_by_role("button", name="Put in force…")

    def put_in_force() -> None:
        put.click()
        expect(dialog).to_be_visible(timeout=PATIENT_MS)
        dialog.get_by_role("button", name="Put in force").click()
        expect(status).to_contain_text("It is in force.", timeout=PATIENT_MS)
        expect(about).to_contain_text("as it is in force")
        expect(put).to_be_disabled()

    expect(about).to_contain_text("as it stands; the gateway has not loaded it")
    put_in_force()
    expect(status).to_contain_text("class.interactive.worth_usd")
    editor.fill(editor.input_value().replace("worth_usd = 0.006", "worth_usd = 0.002"))
    put_in_force()
    assert file.read_bytes() == was.replace("\n", "\r\n").encode()
    file.write_text("this is [[ broken")
    page.reload()
    looked.settled()
    expect(about).to_contain_text("as it stands; the gateway has not loaded it")
    editor.fill(was.replace("worth_usd = 0.002", "worth_usd = 0.004"))
    page.get_by_role("button", name="Check").click()
    expect(status).to_contain_text("The file as it stands is broken: what that changes is told then.")
    put.click()
    expect(dialog).to_contain_text("The file as it stands is broken. What that changes is told then.")
    dialog.get_by_role("button", name="Put in force").click()
    expect(status).to_contain_text("class.interactive.worth_usd", timeout=PATIENT_MS)
    # What was broken never was in force, and is no way back.
    expect(about).to_contain_text("Before it: ")
    page.get_by_role("button", name="Roll back…").click()
    dialog.get_by_role("button", name="Roll back").click()
    expect(status).to_contain_text("It was taken back.", timeout=PATIENT_MS)
    expect(about).to_contain_text("as it is in force")
    file.write_text(was)


def test_what_was_agreed_to_is_sent_and_what_is_typed_meanwhile_stays(
    browser: Browser, served: tuple[str, str], folder: Path
) -> None:
    file = folder / "tidegate.toml"
    looked = Looked(browser)
    page = policy_page(looked, served[0])
    editor, status, dialog = controls(page)
    was = editor.input_value()
    sent = was + "# one\n"

    def type_meanwhile(route: Route) -> None:
        typed = f"# typed before {route.request.url.rpartition('/')[2]} was answered\n"
        editor.evaluate("(at, typed) => { at.value += typed; at.dispatchEvent(new Event('input')); }", typed)
        route.continue_()

    page.route("**/policy/check", type_meanwhile)
    page.route("**/policy/apply", type_meanwhile)
    editor.fill(sent)
    page.get_by_role("button", name="Put in force…").click()
    dialog.get_by_role("button", name="Put in force").click()
    expect(status).to_contain_text("It is in force.", timeout=PATIENT_MS)
    looked.settled()
    assert file.read_text() == sent
    expect(editor).to_have_value(sent + "# typed before check was answered\n# typed before apply was answered\n")
    page.get_by_role("button", name="Undo edits").click()
    expect(editor).to_have_value(sent)


def test_what_was_put_in_force_is_said_to_be_also_where_the_file_cannot_be_looked_at_after_it(
    browser: Browser, served: tuple[str, str]
) -> None:
    looked = Looked(browser)
    page = policy_page(looked, served[0])
    editor, status, dialog = controls(page)
    page.route("**/api/dashboard/policy", lambda route: route.abort(), times=1)
    editor.fill(editor.input_value() + "# two\n")
    page.get_by_role("button", name="Put in force…").click()
    dialog.get_by_role("button", name="Put in force").click()
    expect(status).to_contain_text("It is in force.", timeout=PATIENT_MS)
    expect(status).to_contain_text("The gateway does not answer. Trying again in 3 s.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("section.card header p").first).to_contain_text("as it is in force")
    expect(status).to_contain_text("It is in force.")
    expect(status).not_to_contain_text("does not answer")
