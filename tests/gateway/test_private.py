"""Prompts, answers and keys leave no trace."""

import json
from pathlib import Path

import pytest

from tests.gateway.harness import KEY, chat, completion, house, local, remote
from tests.gateway.test_failover import OVERFLOW
from tests.gateway.test_flow import ENDPOINT
from tests.http.harness import eventually, pool
from tidegate.engines.fake import Fault, Script
from tidegate.engines.openai import OpenAI
from tidegate.gateway.upstream import Upstream

PROMPT = "zyx-prompt-987"
ANSWER = "zyx-answer-654"
CLIENT_KEY = "sk-zyx-client-321"
MARKS = (PROMPT, ANSWER, CLIENT_KEY, KEY)

# An engine that quotes the prompt in its error, as some do.
QUOTES = json.dumps({"error": {"message": f"cannot parse {PROMPT}", "type": PROMPT, "code": PROMPT}}).encode()
SCRIPTS = {
    "success": Script(pad=ANSWER),
    "cut": Script(pad=ANSWER, fault=Fault.CUT),
    "error_event": Script(pad=ANSWER, fault=Fault.ERROR_EVENT),
    "malformed": Script(pad=ANSWER, fault=Fault.MALFORMED),
    "quoting_500": Script(status=500, error=QUOTES),
    "quoting_400": Script(status=400, error=QUOTES),
    "quoting_account": Script(
        status=400, error=json.dumps({"error": {"message": f"Invalid value: '{PROMPT} incorrect api key'"}}).encode()
    ),
    "quoting_429": Script(status=429, error=QUOTES),
    "overflow": Script(status=400, error=OVERFLOW.replace(b"request", PROMPT.encode())),
}


@pytest.mark.lengthy
@pytest.mark.parametrize("name", SCRIPTS)
async def test_no_prompt_answer_or_key_is_written_or_shown_anywhere(tmp_path: Path, name: str) -> None:
    script = SCRIPTS[name]
    async with house(tmp_path, laptop=local(script), cloud=remote(script)) as home:
        secret = {"authorization": f"Bearer {CLIENT_KEY}", "x_api_key": CLIENT_KEY}
        tools = [{"type": "function", "function": {"name": PROMPT}}]
        answers = [
            await home.ask(chat(PROMPT, stream=True), **secret),
            await home.ask(chat(PROMPT, tools=tools, user=PROMPT), **secret),
            await home.ask(chat(PROMPT), x_tidegate_residency="away", **secret),
            await home.ask(completion(PROMPT), path="/v1/completions", **secret),
            await home.ask(json.dumps({"model": "m", "messages": PROMPT}).encode(), **secret),
            await home.ask(b'{"model": "m", "messages": [{"role": ' + PROMPT.encode(), **secret),
            await home.ask(chat(PROMPT * 100_000), **secret),
            await home.ask(chat(PROMPT), x_tidegate_dry_run="1", **secret),
        ]
        async with home.asking(chat(PROMPT, stream=True), **secret):
            await eventually(lambda: len(home.log()) == 5)  # what was refused at the door has no line
        pages = ["/metrics", "/api/state"]
        if name == "success":  # it is explained from the journal, which is looked through every time
            pages.append(f"/api/decisions/{answers[0].header('x-tidegate-decision')}")
        shown = [await home.get(page, admin=True) for page in pages]
        headers = [b" ".join([*a.headers, *a.headers.values()]) for a in answers]
    written = [file.read_bytes() for file in (tmp_path / "log", *(tmp_path / "journal").iterdir())]
    assert all(written)
    for place in (*written, *(answer.body for answer in shown), *headers, answers[-1].body):
        assert [mark for mark in MARKS if mark.encode() in place] == []


def says(message: str, **more: str) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


HASH = "7cd2579696d03c0c"
QUOTED = "said of *** that it is bad"
OF_THE_KEY = {
    "401": Script(status=401, error=says(f"Received API Key = sk-...{KEY[-4:]}, Key Hash (Token) ={HASH}")),
    "402": Script(status=402, error=says(f"Insufficient Balance of account {HASH} ({KEY[-4:]})")),
    "400_by_code": Script(status=400, error=says(f"no such key: {HASH} {KEY[-4:]}", code="invalid_api_key")),
    # As xAI has it.
    "400_by_words": Script(status=400, error=f'{{"error":"Incorrect API key provided: sk***{KEY[-4:]}."}}'.encode()),
}
QUOTING = {
    "client": Script(status=400, error=says(f"said of {KEY} that it is bad")),
    "missing": Script(status=404, error=says(f"said of {KEY} that it is bad")),
    "busy": Script(status=429, error=says(f"said of {KEY} that it is bad")),
    "broken": Script(status=500, error=says(f"said of {KEY} that it is bad")),
    "partly": Script(status=500, error=says(f"said of {KEY[:10]}****{KEY[-2:]} that it is bad")),
    "plain": Script(status=502, error=f"said of {KEY} that it is bad".encode()),
}


@pytest.mark.parametrize("name", OF_THE_KEY)
async def test_what_a_vendor_says_of_our_key_or_account_is_not_passed_on(tmp_path: Path, name: str) -> None:
    async with house(tmp_path, cloud=remote(OF_THE_KEY[name])) as home:
        answer = await home.ask()
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert f"the endpoint answered {name[:3]}" in answer.error["message"]
    assert [part for part in (HASH, KEY[-4:]) if part.encode() in answer.body] == []


async def test_why_our_account_is_turned_away_is_told_in_the_log_once_a_minute(
    tmp_path: Path,
) -> None:
    script = Script(status=429, error=says(f"quota of {HASH}, key {KEY}, exceeded", code="insufficient_quota"))
    async with house(tmp_path, cloud=remote(script)) as home:
        answers = [await home.ask() for _ in range(2)]
        told = [line for line in home.log("event") if line["event"] == "account turned away"]
    for answer in answers:
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert HASH.encode() not in answer.body
    assert [(line["endpoint"], line["said"]) for line in told] == [("cloud", f"quota of {HASH}, key *** exceeded")]


async def test_a_reason_that_is_not_of_our_account_reaches_the_client(tmp_path: Path) -> None:
    script = Script(status=403, error=says(f"the input was flagged, said {KEY}"))
    async with house(tmp_path, cloud=remote(script)) as home:
        answer = await home.ask()
    assert "the input was flagged, said ***" in answer.error["message"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", QUOTING)
async def test_a_vendor_that_quotes_our_key_in_an_error_does_not_show_it_to_clients(
    tmp_path: Path, name: str, stream: bool
) -> None:
    async with house(tmp_path, cloud=remote(QUOTING[name])) as home:
        answer = await home.ask(chat(stream=stream))
    assert QUOTED in answer.error["message"]


@pytest.mark.parametrize("engine", ["fake", "anthropic"])
async def test_a_key_is_struck_out_that_is_cut_off_at_the_end_of_what_is_passed_on(tmp_path: Path, engine: str) -> None:
    script = Script(status=500, error=says("x" * 486 + f" {KEY} and so on"))
    async with house(tmp_path, cloud=remote(script, engine=engine)) as home:
        answer = await home.ask()
    assert answer.error["message"].endswith("x ***.")


ERRORS = {
    "quoted": (says(f"said of {KEY} that it is bad"), QUOTED),
    "of_the_key": (says(f"no such key: {HASH}", code="invalid_api_key"), "reported an error of the gateway's account"),
}


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_in_a_stream_shows_no_key_either(tmp_path: Path, name: str, begun: bool) -> None:
    error, told = ERRORS[name]
    content = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    script = Script(answer=(content if begun else b"") + b"data: " + error + b"\n\n")
    async with house(tmp_path, cloud=remote(script)) as home:
        answer = await home.ask(chat(stream=True))
    assert told.encode() in answer.body
    assert [part for part in (HASH, KEY) if part.encode() in answer.body] == []


@pytest.mark.parametrize(
    ("header", "said", "told"),
    [
        ((b"authorization", b"Bearer ollama"), "ollama is not loaded", "ollama is not loaded"),
        ((b"anthropic-version", b"2023-06-01"), "2023-06-01 is no version", "2023-06-01 is no version"),
        ((b"authorization", b"Bearer a.b+c/d=e"), "a.b+c/d=e or axb+c/d=e", "*** or axb+c/d=e"),
        ((b"x-api-key", b"sk-ant-api03-x"), "bad 'sk-ant-api03-x', bad sk-ant-api03-y", "bad '*** bad ***"),
    ],
    ids=["a_word", "no_key", "signs", "its_beginning"],
)
async def test_only_a_key_is_struck_out_and_a_word_is_none(header: tuple[bytes, bytes], said: str, told: str) -> None:
    async with pool(1) as to:
        upstream = Upstream(ENDPOINT, OpenAI("", None), to, None, (header,))
        assert upstream.without_key(said) == told
