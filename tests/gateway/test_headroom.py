"""A vendor that says how little is left of its limits is asked for no more than that."""

import asyncio
from pathlib import Path
from typing import Any

from tests.gateway.harness import chat, house, remote
from tests.gateway.test_reload import edit, reload
from tests.http.harness import eventually, read_request, upstream
from tidegate.core.model import Headroom
from tidegate.engines.fake import FakeEngine, Script

LAST = (
    (b"x-ratelimit-limit-requests", b"60"),
    (b"x-ratelimit-remaining-requests", b"0"),
    (b"x-ratelimit-reset-requests", b"10m0s"),
)
DEAR: dict[str, Any] = {"price": {"usd_per_1m_input_tokens": 2, "usd_per_1m_output_tokens": 8}}


async def test_the_next_request_goes_elsewhere_before_it_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path, cheap=remote(Script(headers=LAST)), dear=remote(**DEAR)) as home:
        answers = [await home.ask(chat(stream=stream)) for stream in (True, False)]
        assert [len(home.engines[name].seen) for name in ("cheap", "dear")] == [1, 1]
        (told,) = [line.fact for line in home.journal() if isinstance(line.fact, Headroom)]
    assert [answer.endpoint for answer in answers] == ["cheap", "dear"]
    assert (told.requests_left, told.requests_max, told.requests_full_s) == (0, 60, 600.0)


async def test_where_there_is_nobody_else_the_refusal_says_when_to_come_back(tmp_path: Path) -> None:
    async with house(tmp_path, cheap=remote(Script(headers=LAST))) as home:
        assert (await home.ask()).status == 200
        refused = await home.ask()
        assert len(home.engines["cheap"].seen) == 1
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    # One of sixty comes back in ten seconds.
    assert 5 <= int(refused.header("retry-after")) <= 10


class Waiting:
    """A vendor whose answers wait until they are let go; questions without a body are answered at once."""

    def __init__(self, answer: bytes) -> None:
        self.asked, self.go, self._answer = asyncio.Event(), asyncio.Event(), answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if (await read_request(reader)).startswith(b"GET "):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                continue
            self.asked.set()
            await self.go.wait()
            writer.write(self._answer)


def answered(status: bytes, *fields: tuple[bytes, bytes]) -> bytes:
    body = b'{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"w1"}}]}'
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (status, len(body))
    return head + lines + b"\r\n" + body


async def test_what_an_address_has_left_says_nothing_of_another_under_the_same_name(tmp_path: Path) -> None:
    vendor = Waiting(answered(b"200 OK", *LAST))
    async with upstream(vendor.serve) as old, FakeEngine(Script(), context_tokens=32768) as new:
        url = f"http://127.0.0.1:{old.port}"
        async with house(tmp_path, cheap=remote(url=url, engine="openai")) as home:
            asking = asyncio.create_task(home.ask())
            await vendor.asked.wait()
            edit(home, url, new.url)
            await reload(home)
            vendor.go.set()
            assert (await asking).status == 200
            assert (await home.ask()).status == 200
            assert len(new.seen) == 1
            assert not [line for line in home.journal() if isinstance(line.fact, Headroom)]


async def test_another_account_has_limits_of_its_own(tmp_path: Path) -> None:
    key = tmp_path / "vendor.key"
    key.write_text("sk-one")
    key.chmod(0o600)
    async with house(tmp_path, cheap=remote(Script(headers=LAST))) as home:
        edit(home, 'api_key_env = "VENDOR_KEY"', f'api_key_file = "{key}"')
        await reload(home)
        assert (await home.ask()).status == 200
        await reload(home)
        assert (await home.ask()).status == 429, "as it was"
        key.write_text("sk-another")
        await reload(home)
        assert (await home.ask()).status == 200


async def test_what_another_account_is_told_later_is_not_held_against_the_new_one(tmp_path: Path) -> None:
    key = tmp_path / "vendor.key"
    key.write_text("sk-one")
    key.chmod(0o600)
    vendor = Waiting(answered(b"429 Too Many Requests", (b"retry-after", b"3600")))
    async with upstream(vendor.serve) as there:
        place = remote(url=f"http://127.0.0.1:{there.port}", engine="openai")
        async with house(tmp_path, cheap=place) as home:
            edit(home, 'api_key_env = "VENDOR_KEY"', f'api_key_file = "{key}"')
            await reload(home)
            asking = asyncio.create_task(home.ask())
            await vendor.asked.wait()
            key.write_text("sk-another")
            await reload(home)
            vendor.go.set()
            assert (await asking).status == 429
            assert home.gateway.router.endpoint("cheap").state.not_before_s < home.gateway.clock.now_s() + 60.0


async def test_what_another_account_is_refused_later_is_no_fault_of_the_new_one(tmp_path: Path) -> None:
    key = tmp_path / "vendor.key"
    key.write_text("sk-one")
    key.chmod(0o600)
    vendor = Waiting(answered(b"401 Unauthorized"))
    async with upstream(vendor.serve) as there:
        place = remote(url=f"http://127.0.0.1:{there.port}", engine="openai")
        async with house(tmp_path, cheap=place) as home:
            edit(home, 'api_key_env = "VENDOR_KEY"', f'api_key_file = "{key}"')
            await reload(home)
            asking = [asyncio.create_task(home.ask()) for _ in range(3)]
            await eventually(lambda: len(home.gateway.router.endpoint("cheap").state.reservations) == 3)
            key.write_text("sk-another")
            await reload(home)
            vendor.go.set()
            assert {(await one).status for one in asking} <= {401, 502, 503}
            breaker = home.gateway.router.endpoint("cheap").state.breaker
            assert (breaker.strikes, breaker.openings) == (0.0, 0)
            assert not [line for line in home.log("event") if line["event"] == "account turned away"]
