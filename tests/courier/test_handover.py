"""From one slot to another, through two couriers, before engines that have slots and nothing else."""

import asyncio
import struct
from pathlib import Path

import msgspec
import pytest

from tests.courier.harness import HOST, SECRET, Pair, Put, made, pair
from tests.http.harness import eventually
from tidegate.courier.folder import FolderError
from tidegate.engines.courier import CourierError
from tidegate.http.server import Exchange
from tidegate.wire.courier import Restore, Shipped, Why

PROMPT = [5, 6, 7]


async def shipped(home: Pair, **fields: object) -> Shipped:
    home.engines["a"].slots[0] = PROMPT
    return await home.client("a").ship(home.order(home.ticket(await home.fingerprint(), **fields)), 10.0)


async def refused(home: Pair, **fields: object) -> Why:
    with pytest.raises(CourierError) as raised:
        await shipped(home, **fields)
    return raised.value.why


async def test_a_slot_of_one_engine_becomes_a_slot_of_another_and_no_file_is_left(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        told = await shipped(home)
        assert (told.tokens, told.size_bytes) == (3, 3 * home.engines["a"].bytes_per_token + 40)
        assert [file.name for file in home.files()] == [told.name]
        restored = await home.client("b").restore(Restore(name=told.name, slot=1), 10.0)
        assert restored.tokens == 3
        assert home.engines["b"].slots[1] == PROMPT
        assert home.engines["b"].alive
        assert home.files() == []
        with pytest.raises(CourierError, match="gone"):
            await home.client("b").restore(Restore(name=told.name, slot=1), 10.0)


async def test_a_blob_of_many_pieces_arrives_as_it_was(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        home.engines["a"].bytes_per_token = 3_333_333
        told = await shipped(home)
        await home.client("b").restore(Restore(name=told.name, slot=0), 10.0)
        assert home.engines["b"].alive
        assert home.engines["b"].slots[0] == PROMPT


async def test_nothing_of_a_blob_a_ticket_or_a_name_is_in_the_log_or_the_metrics(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        ticket = home.ticket(await home.fingerprint())
        home.engines["a"].slots[0] = [31_337, 31_338, 31_339]
        told = await home.client("a").ship(home.order(ticket), 10.0)
        await home.client("b").restore(Restore(name=told.name, slot=0), 10.0)
        said = home.log.read_text()
        assert [event["event"] for event in home.events()] == ["receive done", "ship done", "restore done"]
        for hidden in (told.name, ticket.id, SECRET, "31337"):
            assert hidden not in said


async def test_a_slot_that_holds_another_prompt_by_now_is_not_shipped(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        home.engines["a"].slots[0] = [1, 2, 3, 4]
        with pytest.raises(CourierError, match="changed"):
            await home.client("a").ship(home.order(home.ticket(await home.fingerprint())), 10.0)
        assert home.files() == []


@pytest.mark.parametrize(("fields", "why"), [
    ({"fingerprint": "0" * 64}, Why.FINGERPRINT),
    ({"bytes_max": 100}, Why.TOO_LARGE),
    ({"source": "b"}, Why.TICKET),
    ({"expires_s": 1.0}, Why.TICKET),
])  # fmt: skip
async def test_a_ticket_for_something_else_ships_nothing(tmp_path: Path, fields: dict[str, object], why: Why) -> None:
    async with pair(tmp_path) as home:
        home.engines["a"].slots[0] = PROMPT
        ticket = msgspec.structs.replace(home.ticket(await home.fingerprint()), **fields)
        with pytest.raises(CourierError) as raised:
            await home.client("a").ship(home.order(ticket), 10.0)
        assert raised.value.why is why
        assert home.files() == []


async def test_a_prompt_that_fits_is_shipped_though_twice_as_much_would_not(tmp_path: Path) -> None:
    async with pair(tmp_path, space_mib=1) as home:
        home.engines["a"].bytes_per_token = 200_000
        assert (await shipped(home, bytes_max=1 << 30)).size_bytes > 600_000
        home.engines["a"].bytes_per_token = 400_000
        assert await refused(home, bytes_max=1 << 30) is Why.FULL
        assert list(home.saves_of("a").iterdir()) == []


async def test_an_engine_with_other_weights_or_of_another_build_is_given_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        home.engines["b"].build = "b2"
        assert await refused(home) is Why.FINGERPRINT
        home.engines["b"].build = "b1"
        told = await shipped(home)
        home.engines["b"].model = tmp_path / "other.gguf"
        home.engines["b"].model.write_bytes(b"fine tuned")
        with pytest.raises(CourierError, match="fingerprint"):
            await home.client("b").restore(Restore(name=told.name, slot=0), 10.0)
        assert home.engines["b"].restores == 0
        assert home.files() == []


async def test_an_engine_that_is_said_to_compute_otherwise_is_given_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        await home.couriers["b"].stop()
        await home.start("b", f"http://{HOST}:{home.engines['b'].port}", arguments="--rope-scaling yarn --rope-scale 4")
        assert await refused(home) is Why.FINGERPRINT


async def test_an_engine_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        told = await shipped(home)
        await home.engines["b"].stop()
        health = await home.client("b").health(5.0)
        assert (health.fingerprint, health.kv) == (None, None)
        with pytest.raises(CourierError, match="engine"):
            await home.client("b").restore(Restore(name=told.name, slot=0), 10.0)


KEY = "the engine's own key"


async def test_an_engine_with_a_key_is_shown_it_and_nobody_else_is(tmp_path: Path) -> None:
    (tmp_path / "engine.key").write_text(KEY)
    (tmp_path / "engine.key").chmod(0o600)
    async with pair(tmp_path, api_key_file="engine.key") as home:
        for engine in home.engines.values():
            engine.api_key = KEY.encode()
        told = await shipped(home)
        await home.client("b").restore(Restore(name=told.name, slot=1), 10.0)
        assert home.engines["b"].slots[1] == PROMPT
        assert KEY not in home.log.read_text()


async def test_why_nothing_can_be_handed_over_is_told_in_the_log_when_it_changes_and_whenever_asked(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as home:
        engine, client = home.engines["b"], home.client("b")
        assert (await client.health(5.0)).reason == ""
        engine.api_key = KEY.encode()
        refused = [(await client.health(5.0)).reason for _ in range(3)]
        assert "401" in refused[0]
        assert "api_key_env" in refused[0]
        engine.model = tmp_path / "missing.gguf"
        engine.api_key = b""
        unread = (await client.health(5.0)).reason
        engine.model = home.model
        assert (await client.health(5.0)).reason == ""
        told = [(event["event"], event.get("reason")) for event in home.events()]
        assert told == [
            ("nothing can be handed over", refused[0]),
            ("nothing can be handed over", unread),
            ("the engine answers", None),
        ]


async def test_a_courier_that_starts_beside_an_engine_that_refuses_it_says_so_at_once(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        home.engines["b"].api_key = KEY.encode()
        await home.couriers["b"].stop()
        await home.start("b", f"http://{HOST}:{home.engines['b'].port}")
        await eventually(lambda: "status 401" in home.log.read_text())


async def test_a_courier_that_is_gone_or_another_is_no_peer(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        home.engines["a"].slots[0] = PROMPT
        fingerprint = await home.fingerprint()
        order = home.order(home.ticket(fingerprint))
        with pytest.raises(CourierError, match="peer"):  # it shows the certificate of `a`
            await home.client("a").ship(msgspec.structs.replace(order, to=home.to("a")), 10.0)
        await home.couriers.pop("b").stop()
        with pytest.raises(CourierError, match="peer"):
            await home.client("a").ship(order, 10.0)
        assert list(home.saves_of("a").iterdir()) == []


async def test_only_the_gateway_has_slots_shipped_and_restored(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        told = await shipped(home)
        order = home.order(home.ticket(await home.fingerprint()))
        for who in ("a", "stranger"):
            with pytest.raises(CourierError, match="forbidden"):
                await home.client("a", as_=who).ship(order, 10.0)
            with pytest.raises(CourierError, match="forbidden"):
                await home.client("b", as_=who).restore(Restore(name=told.name, slot=0), 10.0)
            with pytest.raises(CourierError, match="forbidden"):
                await home.client("b", as_=who).discard(told.name, 10.0)
        assert home.engines["b"].restores == 0


@pytest.mark.lengthy
async def test_a_blob_that_nobody_claims_is_discarded_when_told_or_in_time(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        first, second = await shipped(home), await shipped(home)
        await home.client("b").discard(first.name, 5.0)
        assert [file.name for file in home.files()] == [second.name]
        home.clock.ahead_s += 61.0
        await eventually(lambda: home.files() == [])


@pytest.mark.lengthy
async def test_a_folder_that_cannot_be_swept_for_a_moment_is_swept_afterwards(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        await shipped(home)
        saves = home.saves_of("b")
        away = saves.rename(home.saves / "away")
        await eventually(lambda: home.log.read_text().count("cannot be swept") == 1)
        away.rename(saves)
        home.clock.ahead_s += 61.0
        await eventually(lambda: home.files() == [])


@pytest.mark.lengthy
async def test_a_gateway_that_leaves_ends_what_it_asked_and_what_is_saved_later_is_removed(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        engine = home.engines["a"]
        engine.slots[0], engine.waiting = PROMPT, []
        waiting = engine.waiting
        order = home.order(home.ticket(await home.fingerprint()))
        asking = asyncio.ensure_future(home.client("a").ship(order, 10.0))
        await eventually(lambda: bool(waiting))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: waiting[0].closed)
        assert "ship ended: whoever asked has left" in home.log.read_text()
        late = home.saves_of("a") / msgspec.json.decode(waiting[0].body)["filename"]
        late.write_bytes(struct.pack("<I", 0))
        await eventually(lambda: not late.exists())


@pytest.mark.lengthy
async def test_after_a_sleep_of_the_machine_tickets_are_good_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        gateways_s = home.clock.now_s() + 3600.0
        assert await refused(home, issued_s=gateways_s, expires_s=gateways_s + 60.0) is Why.TICKET
        home.clock.slept_s = 3600.0
        await eventually(lambda: "clock put forward" in home.log.read_text())
        home.clock.slept_s = 0.0
        assert (await shipped(home, issued_s=gateways_s, expires_s=gateways_s + 60.0)).tokens == len(PROMPT)


async def test_a_clock_that_was_put_back_is_told_once_and_time_does_not_follow(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        before_s = home.clock.now_s()
        home.clock.slept_s = -3600.0
        for _ in range(3):
            home.couriers["a"]._keep_time()
        assert home.clock.now_s() >= before_s
        assert [event["by_s"] for event in home.events()] == [pytest.approx(3600.0, abs=1.0)]
        gateways_s = before_s - 3600.0
        with pytest.raises(CourierError, match=r"expired 3[56]\d\d s ago"):
            await shipped(home, issued_s=gateways_s - 10.0, expires_s=gateways_s)


async def test_a_folder_that_is_gone_is_said_to_be_and_nothing_is_sent(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        saves = home.saves_of("b")
        away = saves.rename(home.saves / "away")
        with pytest.raises(CourierError, match="the folder cannot be written: No such file") as raised:
            await shipped(home)
        assert (raised.value.why, raised.value.sent_bytes) == (Why.FULL, 0)
        away.rename(saves)
        assert (await shipped(home)).tokens == len(PROMPT)


async def test_what_is_being_saved_when_a_courier_stops_is_not_left_behind(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        engine, waiting = home.engines["a"], list[Exchange]()
        engine.slots[0], engine.waiting = PROMPT, waiting
        order = home.order(home.ticket(await home.fingerprint()))
        asking = asyncio.ensure_future(home.client("a").ship(order, 10.0))
        await eventually(lambda: bool(waiting))
        stopping = asyncio.ensure_future(home.couriers["a"].stop())
        await asyncio.sleep(0)
        (home.saves_of("a") / msgspec.json.decode(waiting[0].body)["filename"]).write_bytes(struct.pack("<I", 0))
        waiting[0].respond(200, [], b'{"n_saved":0,"n_written":4}')
        await stopping
        await asyncio.gather(asking, return_exceptions=True)
        assert list(home.saves_of("a").iterdir()) == []


@pytest.mark.lengthy
async def test_what_is_saved_after_a_courier_has_stopped_cannot_be_written(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        engine, waiting = home.engines["a"], list[Exchange]()
        engine.slots[0], engine.waiting = PROMPT, waiting
        fingerprint, asking = await home.fingerprint(), []
        for _ in range(2):
            order = home.order(home.ticket(fingerprint))
            asking.append(asyncio.ensure_future(home.client("a").ship(order, 10.0)))
            await eventually(lambda: len(waiting) == len(asking))
        asking[0].cancel()  # that gateway has left before
        await eventually(lambda: waiting[0].closed)
        await home.couriers["a"].stop()
        await asyncio.gather(*asking, return_exceptions=True)
        for one in waiting:
            with pytest.raises(IsADirectoryError):
                engine.save(one, 0, msgspec.json.decode(one.body)["filename"])
        await home.start("a", f"http://{HOST}:{engine.port}")
        assert home.files() == []


async def test_a_second_courier_in_the_same_folder_does_not_start_and_the_first_goes_on(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        told = await shipped(home)
        with pytest.raises(FolderError, match="is used by another courier"):
            await home.start("b", f"http://{HOST}:{home.engines['b'].port}")
        await home.client("b").restore(Restore(name=told.name, slot=1), 10.0)
        assert home.engines["b"].slots[1] == PROMPT


async def test_a_ticket_that_expires_on_the_way_ends_the_transfer(tmp_path: Path) -> None:
    async with pair(tmp_path) as home:
        home.engines["a"].waiting = []
        now_s = home.clock.now_s()
        assert await refused(home, issued_s=now_s, expires_s=now_s + 0.3) is Why.TIMEOUT


async def test_no_more_blobs_than_allowed_are_under_way_and_a_silent_one_ends(tmp_path: Path) -> None:
    async with pair(tmp_path, transfers_max=1) as home:
        fingerprint = await home.fingerprint()
        silent = Put(home.ticket(fingerprint), made(), 3)
        tls = home.tls("a").client()
        _, writer = await asyncio.open_connection("127.0.0.1", home.couriers["b"].port, ssl=tls, server_hostname="b")
        writer.write(silent.head() + silent.blob[:1000])
        await eventually(lambda: bool(home.files()))
        assert await refused(home) is Why.FULL
        home.clock.ahead_s += 11.0
        await eventually(lambda: home.files() == [])
        writer.transport.abort()
        await shipped(home)
