"""What no courier should send: all of it is refused, nothing of it is kept, and the next good one arrives."""

from pathlib import Path

import pytest

from tests.courier.harness import HOST, Pair, Put, flipped, made, pair
from tests.courier.spoilt import SPOILT, Spoilt
from tidegate.wire.courier import Restore


@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda spoilt: spoilt.name)
async def test_a_spoilt_blob_is_refused_and_nothing_of_it_is_kept(tmp_path: Path, spoilt: Spoilt) -> None:
    async with pair(tmp_path) as home:
        fingerprint, tls, port = await home.fingerprint(), home.tls("a").client(), home.couriers["b"].port
        for n in range(4):
            put = Put(home.ticket(fingerprint), made(size_bytes=1000 + n * 100_000), 3)
            assert await spoilt.refused(put, port, tls), n
        await good(home)
        assert home.engines["b"].restores == 1
        assert len(home.files()) == (4 if spoilt.twice else 0)


async def good(home: Pair) -> None:
    home.engines["a"].slots[0] = [5, 6, 7]
    told = await home.client("a").ship(home.order(home.ticket(await home.fingerprint())), 10.0)
    await home.client("b").restore(Restore(name=told.name, slot=0), 10.0)
    assert home.engines["b"].alive
    assert home.engines["b"].slots[0] == [5, 6, 7]


async def test_a_stranger_is_refused_with_a_good_ticket(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        put = Put(home.ticket(await home.fingerprint()), made(), 3)
        status, refusal = await put.send(home.couriers["b"].port, home.tls("stranger").client())
        assert (status, refusal and refusal.why) == (403, "ticket")
        assert (await put.send(home.couriers["b"].port, home.tls("a").client()))[0] == 201


@pytest.mark.lengthy
async def test_a_ticket_of_a_gateway_whose_clock_is_ahead_is_not_good_again_after_a_start(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        now_s = home.clock.now_s()
        ticket = home.ticket(await home.fingerprint(), issued_s=now_s + 1.0, expires_s=now_s + 61.0)
        put, tls, engine = Put(ticket, made(), 3), home.tls("a").client(), home.engines["b"]
        assert (await put.send(home.couriers["b"].port, tls))[0] == 201
        await home.couriers["b"].stop()
        again = await home.start("b", f"http://{HOST}:{engine.port}")
        status, refusal = await put.send(again.port, tls)
        assert (status, refusal and refusal.why) == (409, "replayed")


async def test_what_a_spoilt_blob_would_do_to_the_engine_is_worth_the_trouble(tmp_path: Path) -> None:
    """The stand-in notices, so that the other tests mean something."""
    async with pair(tmp_path) as home:
        put = Put(home.ticket(await home.fingerprint()), flipped(made(), 5_000), 3)
        status, _ = await put.send(home.couriers["b"].port, home.tls("a").client())
        (file,) = home.files()
        await home.client("b").restore(Restore(name=file.name, slot=0), 10.0)
        assert status == 201
        assert not home.engines["b"].alive
