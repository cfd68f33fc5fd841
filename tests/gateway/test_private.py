"""Prompts, answers and keys leave no trace."""

import json
from pathlib import Path

import pytest

from tests.gateway.harness import KEY, chat, completion, house, local, remote
from tests.gateway.test_failover import OVERFLOW
from tests.http.harness import eventually
from tidegate.engines.fake import Fault, Script

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
    "quoting_429": Script(status=429, error=QUOTES),
    "overflow": Script(status=400, error=OVERFLOW.replace(b"request", PROMPT.encode())),
}


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
