"""Through the gateway to two real engines, with the clients that people use."""

import asyncio
import json
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError

from tests.live.conftest import Running
from tests.live.stack import MODEL, Stack, get_any
from tidegate.core.fingerprint import OF_THE_MODEL, differs
from tidegate.core.model import Fingerprint
from tidegate.core.replay import replay
from tidegate.core.why import Why
from tidegate.lab.tour import document
from tidegate.telemetry.journal import read

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

QUESTION = [{"role": "user", "content": "Name three primary colours."}]
PATIENT = {"x-tidegate-slo-ttft-ms": "60000"}


def sdk(stack: Stack) -> Any:
    # Its overloads are for literal calls; these are made from parts.
    return AsyncOpenAI(base_url=stack.url, api_key="not-checked", max_retries=0)


def ask(words: int, seed: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Continue this list of words: {document(seed, words)}"}]


async def curl(*arguments: str) -> str:
    child = await asyncio.create_subprocess_exec("curl", "-sS", "-N", *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    assert child.returncode == 0
    return out.decode()


def test_the_openai_sdk_gets_a_whole_answer_and_a_streamed_one(live: Running) -> None:
    async def main() -> None:
        async with sdk(live.stack) as client:
            whole = await client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=16)
            assert whole.choices[0].message.content
            assert whole.usage.completion_tokens <= 16
            stream = await client.chat.completions.create(
                model=MODEL,
                messages=QUESTION,
                max_tokens=16,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
            assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert chunks[-1].usage is not None
            text = await client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8)
            assert text.choices[0].text
            assert [m.id async for m in client.models.list()] == [MODEL]

    live.run(main())


def test_curl_gets_a_whole_answer_and_a_streamed_one(live: Running) -> None:
    async def main() -> None:
        url = f"{live.stack.url}/chat/completions"
        body = {"model": MODEL, "messages": QUESTION, "max_tokens": 8}
        header = ("-H", "content-type: application/json")
        whole = json.loads(await curl(url, *header, "-d", json.dumps(body)))
        assert whole["object"] == "chat.completion"
        streamed = await curl(url, *header, "-d", json.dumps({**body, "stream": True}))
        assert streamed.startswith("data: {")
        assert streamed.endswith("data: [DONE]\n\n")

    live.run(main())


@pytest.mark.lengthy
def test_a_short_chat_stays_local_and_a_document_beyond_its_window_goes_remote_for_the_stated_reason(
    live: Running,
) -> None:
    async def main() -> None:
        async with sdk(live.stack) as client:
            create = client.chat.completions.with_raw_response.create
            short = await create(model=MODEL, messages=QUESTION, max_tokens=8)
            assert short.headers["x-tidegate-endpoint"] == "local"
            assert short.headers["x-tidegate-why"] == Why.CHEAPEST_ON_TIME
            long = await create(model=MODEL, messages=ask(2050, 1), max_tokens=8, extra_headers=PATIENT)
            assert long.headers["x-tidegate-endpoint"] == "remote"
            assert long.headers["x-tidegate-why"] == Why.ONLY_LONG_ENOUGH
            assert float(long.headers["x-tidegate-cost-usd"]) > 0.001

    live.run(main())


def test_a_context_beyond_every_endpoint_is_a_bad_request_that_names_the_remedy(live: Running) -> None:
    async def main() -> None:
        async with sdk(live.stack) as client:
            with pytest.raises(BadRequestError, match="shorten the prompt") as refused:
                await client.chat.completions.create(model=MODEL, messages=ask(9000, 2))
            assert refused.value.code == "context_length_exceeded"

    live.run(main())


@pytest.mark.lengthy
def test_a_client_that_leaves_frees_the_slot_of_the_engine(live: Running) -> None:
    async def main() -> None:
        stack = live.stack
        async with sdk(stack) as client:
            stream = await client.chat.completions.create(
                model=MODEL,
                messages=ask(20, 3),
                max_tokens=1500,
                stream=True,
                extra_headers={"x-tidegate-residency": "local"},
                extra_body={"ignore_eos": True},
            )
            await anext(stream)
            assert (await stack.state())["endpoints"]["local"]["in_flight"] == 1
            await stream.close()
        for _ in range(4):
            # The engine misses clients that leave if it is asked more often than once a second.
            await asyncio.sleep(2.0)
            slots = await get_any(stack.local.port, b"/slots")
            if not any(slot["is_processing"] for slot in slots):
                break
        else:
            raise AssertionError("the slot is still busy; 1,500 tokens take half a minute")
        assert (await stack.state())["endpoints"]["local"]["in_flight"] == 0

    live.run(main())


async def served(client: Any, number: int, started: asyncio.Event) -> tuple[bool, bool]:
    """Whether a streamed request had content before it ended, and whether it ended well."""
    content = False
    try:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=ask(60, 100 + number),
            max_tokens=48,
            stream=True,
            extra_headers=PATIENT,
            extra_body={"ignore_eos": True},
        )
        async for _ in stream:
            content = True
            started.set()
    except Exception:
        return content, False
    return content, True


@pytest.mark.lengthy
def test_killing_the_local_engine_in_mid_burst_loses_no_request_that_was_not_committed(live: Running) -> None:
    async def main() -> None:
        stack = live.stack
        started = asyncio.Event()
        async with sdk(stack) as client:
            burst = [asyncio.create_task(served(client, n, started)) for n in range(8)]
            await started.wait()
            await stack.local.kill()
            endings = await asyncio.gather(*burst)
            # What had content when the engine died ends with an error, never as if it were complete.
            assert all(well for content, well in endings if not content)
            assert sum(well for _, well in endings) >= 6, "two slots died; all others were served elsewhere"
            await stack.local.start()
            for _ in range(20):
                if (await stack.state())["endpoints"]["local"]["up"]:
                    break
                await asyncio.sleep(0.5)
            else:
                raise AssertionError("the engine is back, and no probe noticed in ten seconds")

    live.run(main())


@pytest.mark.lengthy
def test_replaying_the_journal_of_all_of_this_reproduces_every_decision(live: Running) -> None:
    report = replay(read(live.stack.journal))
    assert report.difference is None
    assert report.decisions >= 15


def test_the_real_engines_tell_what_they_have_loaded_and_that_it_is_the_same(live: Running) -> None:
    async def main() -> None:
        listed = await get_any(live.stack.port, f"/v1/models/{MODEL}".encode())
        local, remote = (endpoint["fingerprint"] for endpoint in listed["tidegate"]["endpoints"])
        # How many parameters there are stands in what llama.cpp tells of the weights.
        assert all(local[name] for name in Fingerprint.__struct_fields__ if name != "parameters")
        # One of them was started with a chat template of its own.
        assert differs(Fingerprint(**local), Fingerprint(**remote), OF_THE_MODEL) == ("chat_template",)

    live.run(main())
