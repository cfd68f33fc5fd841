"""A request's KV cache on its way into a slot, between the gateway's couriers' client and couriers that are real."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tests.courier.harness import Pair, pair
from tests.gateway.fetching import TEXT, breaker, facts, prior
from tests.gateway.harness import House, chat, house, local, remote
from tests.http.harness import HOST, descriptors_used_up, eventually, serving
from tidegate.config.build import Built, build
from tidegate.config.load import load
from tidegate.core.model import Ended, Ending, Held, Request, Shipped
from tidegate.engines.base import Failure
from tidegate.engines.fake import FakeEngine, Fault, Script
from tidegate.gateway.couriers import Couriers
from tidegate.gateway.failures import GONE
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


def configured(home: Pair, here: str) -> Built:
    """What the gateway's file says, with the rack's courier at that address."""
    file = home.folder / "tidegate.toml"
    file.write_text(CONFIG.format(here=here, there=home.to("b")))
    return build(load(file), home.clock.now_s())


@asynccontextmanager
async def between(home: Pair, here: str = "") -> AsyncIterator[Couriers]:
    """The gateway's client of both; `here`: the rack's courier is somebody else's, at that address."""
    built = configured(home, here or home.to("a"))
    couriers = Couriers(built.gateway.couriers, home.clock, Log.to(home.folder / "gateway.log", home.clock))
    couriers.configure(built.upstreams)
    try:
        yield couriers
    finally:
        await couriers.close()


class Handing:
    """A gateway, its engines, and the couriers beside these: what the rack computes, a stand-in holds for its own."""

    def __init__(self, couriers: Pair, gateway: House, laptop: FakeEngine, rack: FakeEngine) -> None:
        self.couriers, self.gateway, self.laptop, self.rack = couriers, gateway, laptop, rack

    async def ship(self) -> None:
        """What the rack has computed is saved."""
        engine = self.couriers.engines["a"]
        waiting = engine.waiting
        assert waiting is not None
        await eventually(lambda: bool(waiting))
        (asked,) = waiting
        slot, tokens = int(asked.path.rpartition("/")[2]), len(self.rack.seen[-1].body) // 4
        engine.slots[slot] = [7] * tokens
        engine.save(asked, slot, msgspec.json.decode(asked.body)["filename"])


@asynccontextmanager
async def handing(folder: Path) -> AsyncIterator[Handing]:
    """A long prompt is too slow at the laptop, which has one place, and output dear at the rack."""
    async with AsyncExitStack() as stack:
        couriers = await stack.enter_async_context(pair(folder))
        couriers.engines["a"].waiting = []
        laptop, rack = FakeEngine(weights="model.gguf"), FakeEngine(weights="model.gguf")
        for engine in (laptop, rack):
            engine.slots = 2
            await stack.enter_async_context(engine)
        (folder / "gateway").mkdir()
        tls = {"cert": "gateway.pem", "key": "gateway.key", "ca": "ca.pem"}
        settings = {
            "secret": {"file": str(folder / "tickets.key")},
            "tls": {name: str(folder / file) for name, file in tls.items()},
        }
        here = local(url=laptop.url, engine="llamacpp", model="m", prior=prior(5), concurrency=1)
        there = remote(url=rack.url, engine="llamacpp", model="m", prior=prior(150))
        here.settings["courier"] = {"name": "b", "address": couriers.to("b")}
        there.settings["courier"] = {"name": "a", "address": couriers.to("a")}
        there.settings["price"] = {"usd_per_1m_input_tokens": 0.1, "usd_per_1m_output_tokens": 1000}
        there.settings["handover"] = [{"to": "laptop", "kv_kib_per_token": 23, "mbit_per_s": 1000}]
        classes = {"interactive": {"slo": {"ttft_ms": 4000}, "worth_usd": 0.05, "late_usd_per_s": 0.001}}
        gateway = await stack.enter_async_context(
            house(folder / "gateway", gateway={"couriers": settings}, classes=classes, laptop=here, rack=there)
        )
        yield Handing(couriers, gateway, laptop, rack)


async def expire(home: Pair) -> None:
    """What the laptop's courier keeps is kept no longer."""
    (file,) = home.files()
    await home.client("b").discard(file.name, 5.0)


def a_failure() -> "asyncio.Future[Failure | None]":
    """What is to be told once it is known."""
    return asyncio.get_running_loop().create_future()


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
        shipping, engine, slots, went_on = await come(home, couriers), home.engines["b"], Slots(1), a_failure()
        engine.reading = []
        reading = engine.reading
        slot = slots.take((1,), keep=True)
        assert slot is not None
        assert shipping.restore("laptop", slot, went_on.set_result)
        await eventually(lambda: bool(reading))
        # Its client leaves.
        slot.leave()
        shipping.close()
        assert slots.take((2,)) is None
        assert slot.kept
        (asked,) = reading
        engine.restore(asked, slot.number, msgspec.json.decode(asked.body)["filename"])
        assert await went_on is None
        assert slots.take((2,)) is slot
        assert home.files() == []


async def test_who_has_waited_for_what_is_put_into_its_slot_has_it_afterwards(tmp_path: Path) -> None:
    async with pair(tmp_path) as home, between(home) as couriers:
        shipping, slots, went_on = await come(home, couriers), Slots(1), a_failure()
        slot = slots.take((1,), keep=True)
        assert slot is not None
        assert shipping.restore("laptop", slot, went_on.set_result)
        assert await went_on is None
        assert home.engines["b"].slots[slot.number] == [5, 6, 7]
        assert slots.take((2,)) is None
        assert slot.kept
        slot.leave()
        assert slots.take((2,)) is slot


async def stop(home: Pair) -> None:
    """The laptop's engine is there no more."""
    await home.engines["b"].stop()


@pytest.mark.parametrize(("happens", "told"), [(stop, None), (expire, GONE)])
async def test_where_nothing_can_be_put_into_a_slot_it_is_left_and_what_is_gone_is_told(
    tmp_path: Path, happens: Callable[[Pair], Awaitable[None]], told: Failure | None
) -> None:
    async with pair(tmp_path) as home, between(home) as couriers:
        shipping, slots, went_on = await come(home, couriers), Slots(1), a_failure()
        await happens(home)
        slot = slots.take((1,), keep=True)
        assert slot is not None
        assert shipping.restore("laptop", slot, went_on.set_result)
        assert await went_on is told
        slot.leave()
        assert slots.take((2,)) is slot


async def test_a_request_that_waits_longer_than_its_kv_cache_is_kept_is_decided_anew(tmp_path: Path) -> None:
    async with handing(tmp_path) as both:
        gateway, laptop = both.gateway, both.laptop
        laptop.script = Script(fault=Fault.SILENT)
        async with gateway.asking(chat("Say hi")):
            await eventually(lambda: laptop.in_flight == 1)
            long = asyncio.ensure_future(gateway.ask(chat(TEXT)))
            await both.ship()
            await eventually(lambda: bool(facts(gateway, Held)))
            await expire(both.couriers)
            laptop.script = Script()
        answer = await long
        assert (answer.status, answer.endpoint) == (200, "laptop")
        assert [one.shipped for one in facts(gateway, Request)][-3:] == ["", "rack>laptop", "laptop>"]
        (shipped,) = facts(gateway, Shipped)
        ended = [one for one in facts(gateway, Ended) if one.request_id == shipped.request_id]
        assert [(one.endpoint, one.ending, one.cause) for one in ended] == [
            ("rack", Ending.OK, ""),
            ("laptop", Ending.CANCELLED, "gone"),
            ("laptop", Ending.OK, ""),
        ]
        assert len(both.rack.seen) == 1, "nobody is asked again to compute it for another"
        assert breaker(gateway).strikes == 1.0
        assert gateway.gateway.router.endpoint("laptop").state.breaker.strikes == 0.0


async def test_who_waits_for_its_kv_cache_is_served_over_the_connections_that_a_reload_has_left(tmp_path: Path) -> None:
    async with handing(tmp_path) as both:
        engine, dispatch = both.couriers.engines["b"], both.gateway.gateway.dispatch
        reading = engine.reading = []
        long = asyncio.ensure_future(both.gateway.ask(chat(TEXT)))
        await both.ship()
        await eventually(lambda: bool(reading))
        before, file = dispatch.upstreams["laptop"].pool, both.gateway.folder / "tidegate.toml"
        file.write_text(file.read_text().replace("concurrency = 1\n", "concurrency = 2\n"))
        assert (await both.gateway.change("POST", "/api/config")).status == 200
        assert dispatch.upstreams["laptop"].pool is not before
        await eventually(lambda: before._closed)
        (asked,) = reading
        engine.restore(asked, int(asked.path.rpartition("/")[2]), msgspec.json.decode(asked.body)["filename"])
        answer = await long
        assert (answer.status, answer.endpoint) == (200, "laptop")
        assert {one.ending for one in facts(both.gateway, Ended)} == {Ending.OK}


async def test_of_another_engine_under_the_same_name_no_slot_is_taken_yet(tmp_path: Path) -> None:
    async with handing(tmp_path) as both, FakeEngine(weights="model.gguf") as other:
        other.slots = 2
        gateway = both.gateway.gateway
        before = gateway.dispatch.slots_of("laptop")
        file = both.gateway.folder / "tidegate.toml"
        file.write_text(file.read_text() + "\n[class.batch]\n")
        assert (await both.gateway.change("POST", "/api/config")).status == 200
        assert gateway.dispatch.slots_of("laptop") is before is not None
        file.write_text(file.read_text().replace(both.laptop.url, other.url))
        assert (await both.gateway.change("POST", "/api/config")).status == 200
        await eventually(lambda: gateway.dispatch.slots_of("laptop") is not None)
        assert gateway.dispatch.slots_of("laptop") is not before


async def test_an_engine_at_another_path_of_the_same_host_is_another_engine(tmp_path: Path) -> None:
    async with handing(tmp_path) as both:
        gateway = both.gateway.gateway
        before = gateway.dispatch.slots_of("laptop")
        assert before is not None
        file = both.gateway.folder / "tidegate.toml"
        here = file.read_text()
        for text in (here.replace(both.laptop.url, both.laptop.url + "/elsewhere"), here):
            file.write_text(text)
            assert (await both.gateway.change("POST", "/api/config")).status == 200
        await eventually(lambda: gateway.dispatch.slots_of("laptop") is not None)
        assert gateway.dispatch.slots_of("laptop") is not before


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


async def two_wanted(home: Pair, couriers: Couriers) -> tuple[Heard, Exchange]:
    """Who hears of two KV caches, of which one waits for its turn, and what the rack is asked for the other, before it
    has answered."""
    engine, heard, slots = home.engines["a"], Heard(), Slots(2)
    engine.slots = [[5, 6, 7], [5, 6, 7]]
    engine.waiting = []
    waiting = engine.waiting
    for number in range(2):
        slot = slots.take(())
        assert slot is not None
        shipping = Shipping(couriers, f"r{number}", heard, home.clock.now_s)
        shipping.ship("rack", "laptop", slot, tokens=3, size_bytes=1000.0)
    await eventually(lambda: bool(waiting))
    (asked,), engine.waiting = waiting, None
    return heard, asked


async def test_a_courier_that_moves_ends_what_is_under_way_and_sends_what_waits_for_its_turn(tmp_path: Path) -> None:
    async with pair(tmp_path) as home, between(home) as couriers:
        heard, asked = await two_wanted(home, couriers)
        couriers.configure(configured(home, home.to("a").replace(HOST, "localhost")).upstreams)
        # Whatever that begins has had its turn when somebody else was answered.
        await home.client("a").health(5.0)
        home.engines["a"].save(asked, 0, msgspec.json.decode(asked.body)["filename"])
        await eventually(lambda: len(heard.facts) == 2)
    assert [(fact.request_id, fact.ok) for fact in heard.facts] == [("r0", True), ("r1", True)]


async def test_what_waits_to_be_sent_by_a_courier_that_is_taken_out_is_not(tmp_path: Path) -> None:
    async with pair(tmp_path) as home, between(home) as couriers:
        heard, asked = await two_wanted(home, couriers)
        couriers.configure({})
        home.engines["a"].save(asked, 0, msgspec.json.decode(asked.body)["filename"])
        await eventually(lambda: len(heard.facts) == 2)
    assert [(fact.request_id, fact.ok, fact.cause) for fact in heard.facts] == [("r0", True, ""), ("r1", False, "peer")]
