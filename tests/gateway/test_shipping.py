"""A request's KV cache on its way into a slot, between the gateway's couriers' client and couriers that are real."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tests.courier.harness import Pair, pair
from tests.http.harness import descriptors_used_up, eventually
from tidegate.config.build import build
from tidegate.config.load import load
from tidegate.core.model import Shipped
from tidegate.gateway.couriers import Couriers
from tidegate.gateway.shipping import Shipping
from tidegate.gateway.slots import Slots

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
async def between(home: Pair) -> AsyncIterator[Couriers]:
    file = home.folder / "tidegate.toml"
    file.write_text(CONFIG.format(here=home.to("a"), there=home.to("b")))
    built = build(load(file), home.clock.now_s())
    couriers = Couriers(built.gateway.couriers, home.clock)
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
