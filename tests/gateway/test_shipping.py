"""A request's KV cache on its way into a slot, between the gateway's couriers' client and couriers that are real."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tests.courier.harness import Pair, pair
from tests.http.harness import HOST, descriptors_used_up, eventually, serving
from tidegate.config.build import build
from tidegate.config.load import load
from tidegate.core.model import Shipped
from tidegate.gateway.couriers import Couriers
from tidegate.gateway.shipping import Shipping
from tidegate.gateway.slots import Slots
from tidegate.http.server import Exchange
from tidegate.telemetry.log import Log
from tidegate.wire.courier import Refused, Why

CONFIG = """
[gateway.couriers]
secret = {{ file = "tickets.key" }}
tls = {{ cert = "gateway.pem", key = "gateway.key", ca = "ca.pem" }}
[site.home]
local = true
[site.rack]
local = false
[endpoint.laptop]
site = "home"
engine = "llamacpp"
url = "http://127.0.0.1:1"
serves = ["m"]
courier = {{ name = "b", address = "{there}" }}
[endpoint.rack]
site = "rack"
engine = "llamacpp"
url = "http://127.0.0.1:2"
price = "free"
serves = ["m"]
courier = {{ name = "a", address = "{here}" }}
[[endpoint.rack.handover]]
to = "laptop"
kv_kib_per_token = 23
mbit_per_s = 1000
"""


class Heard:
    def __init__(self) -> None:
        self.facts: list[Shipped] = []

    def shipped(self, fact: Shipped, seconds: float) -> None:
        self.facts.append(fact)


@asynccontextmanager
async def between(home: Pair, here: str = "") -> AsyncIterator[Couriers]:
    """The gateway's client of both; `here`: the rack's courier is somebody else's, at that address."""
    file = home.folder / "tidegate.toml"
    file.write_text(CONFIG.format(here=here or home.to("a"), there=home.to("b")))
    built = build(load(file), home.clock.now_s())
    couriers = Couriers(built.gateway.couriers, home.clock, Log.to(home.folder / "gateway.log", home.clock))
    couriers.configure(built.upstreams)
    try:
        yield couriers
    finally:
        await couriers.close()


async def come(home: Pair, couriers: Couriers) -> Shipping:
    """The shipping of a request whose KV cache is at the laptop."""
    home.engines["a"].slots[0] = [5, 6, 7]
    source, heard = Slots(2).take(()), Heard()
    assert source is not None
    shipping = Shipping(couriers, "r", heard, home.clock.now_s)
    shipping.ship("rack", "laptop", source, tokens=3, size_bytes=1000.0)
    await eventually(lambda: bool(heard.facts))
    assert heard.facts[0].ok
    assert not source.taken
    return shipping


async def test_a_slot_is_given_to_nobody_before_what_is_put_into_it_is_there(tmp_path: Path) -> None:
    async with pair(tmp_path) as home, between(home) as couriers:
        shipping, engine, slots, went_on = await come(home, couriers), home.engines["b"], Slots(1), asyncio.Event()
        engine.reading = []
        reading = engine.reading
        slot = slots.take((1,), keep=True)
        assert slot is not None
        assert shipping.restore("laptop", slot, went_on.set)
        await eventually(lambda: bool(reading))
        # Its client leaves.
        slot.leave()
        shipping.close()
        assert slots.take((2,)) is None
        assert slot.kept
        (asked,) = reading
        engine.restore(asked, slot.number, msgspec.json.decode(asked.body)["filename"])
        await went_on.wait()
        assert slots.take((2,)) is slot
        assert home.files() == []


async def test_who_has_waited_for_what_is_put_into_its_slot_has_it_afterwards(tmp_path: Path) -> None:
    async with pair(tmp_path) as home, between(home) as couriers:
        shipping, slots, went_on = await come(home, couriers), Slots(1), asyncio.Event()
        slot = slots.take((1,), keep=True)
        assert slot is not None
        assert shipping.restore("laptop", slot, went_on.set)
        await went_on.wait()
        assert home.engines["b"].slots[slot.number] == [5, 6, 7]
        assert slots.take((2,)) is None
        assert slot.kept
        slot.leave()
        assert slots.take((2,)) is slot


async def test_where_nothing_can_be_put_into_a_slot_its_request_goes_on_and_leaves_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as home, between(home) as couriers:
        shipping, slots, went_on = await come(home, couriers), Slots(1), asyncio.Event()
        await home.engines["b"].stop()
        slot = slots.take((1,), keep=True)
        assert slot is not None
        assert shipping.restore("laptop", slot, went_on.set)
        await went_on.wait()
        slot.leave()
        assert slots.take((2,)) is slot


async def test_where_we_may_open_nothing_more_that_is_held_against_no_handover(tmp_path: Path) -> None:
    async with pair(tmp_path) as home, between(home) as couriers:
        slot, heard = Slots(1).take(()), Heard()
        assert slot is not None
        shipping = Shipping(couriers, "r", heard, home.clock.now_s)
        with descriptors_used_up():
            shipping.ship("rack", "laptop", slot, tokens=3, size_bytes=1000.0)
            await eventually(lambda: bool(heard.facts))
        (fact,) = heard.facts
        assert (fact.ok, fact.given_up, fact.cause) == (False, True, "peer")


async def sent(home: Pair, couriers: Couriers) -> Shipped:
    """What became of one that was computed."""
    slot, heard = Slots(1).take(()), Heard()
    assert slot is not None
    Shipping(couriers, "r", heard, home.clock.now_s).ship("rack", "laptop", slot, tokens=3, size_bytes=1000.0)
    await eventually(lambda: bool(heard.facts))
    return heard.facts[0]


async def test_why_a_handover_fails_is_logged_once_until_it_is_another_reason_or_none(tmp_path: Path) -> None:
    async with pair(tmp_path) as home, between(home) as couriers:
        here, there = home.engines["a"], home.engines["b"]
        here.slots[0] = [1, 2, 3, 4]
        causes = [(await sent(home, couriers)).cause for _ in range(2)]
        here.slots[0], there.build = [5, 6, 7], "b2"
        causes.append((await sent(home, couriers)).cause)
        there.build = "b1"
        causes += [(await sent(home, couriers)).cause for _ in range(2)]
        told = [json.loads(line) for line in (home.folder / "gateway.log").read_text().splitlines()]
    assert causes == ["changed", "changed", "fingerprint", "", ""]
    assert [(event["event"], event.get("cause"), event.get("reason")) for event in told] == [
        ("handover failed", "changed", "the slot holds 4 tokens, not 3"),
        (
            "handover failed",
            "fingerprint",
            "the other courier refuses: the engine has another model, shape or build than the blob",
        ),
        ("handover done again", None, None),
    ]
    assert {(event["endpoint"], event["target"]) for event in told} == {("rack", "laptop")}


async def test_what_was_sent_of_one_that_did_not_arrive_is_in_the_fact(tmp_path: Path) -> None:
    def full(exchange: Exchange) -> None:
        exchange.respond(503, [], msgspec.json.encode(Refused(why=Why.FULL, message="no room", sent_bytes=3 << 20)))

    async with (
        pair(tmp_path) as home,
        serving(full, tls=home.tls("a").server()) as rack,
        between(home, f"{HOST}:{rack.port}") as couriers,
    ):
        fact = await sent(home, couriers)
    assert (fact.ok, fact.cause, fact.kv_bytes) == (False, "full", 3 << 20)


async def test_an_engine_that_refuses_its_courier_is_not_said_to_be_silent(tmp_path: Path) -> None:
    async with pair(tmp_path) as home, between(home) as couriers:
        home.engines["b"].api_key = b"of its own"
        assert (await sent(home, couriers)).cause == "engine"
        assert "b: the engine refuses us for want of its key: status 401" in (home.folder / "gateway.log").read_text()
