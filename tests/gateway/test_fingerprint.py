"""An engine that loads another model behind our back is not taken for the old one, and everybody is told."""

from pathlib import Path
from typing import Any

from tests.gateway.harness import House, chat, house, local
from tidegate.engines.fake import FakeEngine
from tidegate.gateway.probe import Prober

IDENTICAL: dict[str, dict[str, Any]] = {"chat": {"endpoints": {"one": "identical", "two": "identical"}}}
A = "/models/a.gguf"
B = "/models/b.gguf"


def llama(weights: str = A, **settings: Any) -> Any:
    """An engine of our own that tells its model as llama.cpp does."""
    place = local(engine="llamacpp", **settings)
    place.weights = weights
    return place


async def probe(home: House, name: str) -> None:
    gateway = home.gateway
    await Prober(gateway.dispatch, gateway.dispatch.upstreams[name], 3600.0).once()


async def load(home: House, name: str, weights: str) -> None:
    """The engine loads something else, and is probed."""
    engine: FakeEngine = home.engines[name]
    engine.weights = weights
    await probe(home, name)


def events(home: House, *names: str) -> list[dict[str, Any]]:
    return [e for e in home.log("event") if e["event"] in names]


async def member(home: House, name: str) -> dict[str, Any]:
    found = (await home.get("/v1/models/chat")).json["tidegate"]["endpoints"]
    return next(e for e in found if e["name"] == name)


async def test_an_engine_that_loads_other_weights_serves_no_request_for_the_identical_model(tmp_path: Path) -> None:
    models = {"chat": {"endpoints": {"one": "identical"}}}
    async with house(tmp_path, models=models, one=llama()) as home:
        assert (await home.ask(chat(model="chat"))).header("x-tidegate-likeness") == "identical"
        await load(home, "one", B)
        refused = await home.ask(chat(model="chat"))
        assert (refused.status, refused.error["code"]) == (400, "model_not_alike")
        less = await home.ask(chat(model="chat"), x_tidegate_likeness="same_family")
        assert (less.status, less.header("x-tidegate-likeness")) == (200, "same_family")
        assert len(home.engines["one"].seen) == 2
        await load(home, "one", A)
        assert (await home.ask(chat(model="chat"))).header("x-tidegate-likeness") == "identical"


async def test_the_list_of_models_and_the_admin_address_say_what_is_served_and_what_it_contradicts(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, models=IDENTICAL, one=llama(), two=llama()) as home:
        fresh = await member(home, "one")
        assert fresh["fingerprint"]["weights"] == "gguf:a.gguf:1000:500"
        assert fresh["fingerprint"]["quantisation"] == "Q4_K_M"
        assert "contradicts" not in fresh
        await load(home, "one", B)
        changed = await member(home, "one")
        assert changed["fingerprint"]["weights"] == "gguf:b.gguf:1000:500"
        assert (changed["likeness"], changed["contradicts"]) == ("same_family", {"trusted": ["weights"]})
        state = (await home.get("/api/state", admin=True)).json["endpoints"]
        assert state["one"]["contradicts"] == {"chat": {"trusted": ["weights"]}}
        assert state["one"]["trusted"]["weights"] == "gguf:a.gguf:1000:500"
        assert state["two"]["contradicts"] == {}
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        assert 'tidegate_another_model{endpoint="one"} 1.0' in metrics
        assert 'tidegate_another_model{endpoint="two"} 0.0' in metrics


async def test_a_change_is_logged_once_and_so_is_its_end(tmp_path: Path) -> None:
    models = {"chat": {"endpoints": {"one": "identical"}}}
    async with house(tmp_path, models=models, one=llama()) as home:
        for weights in (A, B, B, B, A, A):
            await load(home, "one", weights)
        told = events(home, "fingerprint changed", "fingerprint contradicts", "fingerprint agrees again")
        assert [e["event"] for e in told] == [
            "fingerprint changed",
            "fingerprint contradicts",
            "fingerprint changed",
            "fingerprint agrees again",
        ]
        assert (told[1]["endpoint"], told[1]["model"], told[1]["fields"]) == ("one", "chat", "trusted: weights")
        assert told[1]["likeness"] == "same_family"


async def test_two_that_are_called_identical_and_differ_both_serve_and_one_warning_names_them(tmp_path: Path) -> None:
    async with house(tmp_path, models=IDENTICAL, one=llama(A), two=llama(B)) as home:
        await probe(home, "one")
        await probe(home, "two")
        assert [(await member(home, name))["likeness"] for name in ("one", "two")] == ["identical", "identical"]
        (warning,) = events(home, "identical endpoints differ")
        assert (warning["endpoint"], warning["other"], warning["fields"]) == ("one", "two", "weights")


async def test_where_a_name_demands_a_fingerprint_only_who_has_it_is_identical(tmp_path: Path) -> None:
    demanding = {"chat": IDENTICAL["chat"] | {"fingerprint": {"weights": "gguf:b.gguf:1000:500"}}}
    async with house(tmp_path, models=demanding, one=llama(A), two=llama(B)) as home:
        assert {(await home.ask(chat(model="chat"))).endpoint for _ in range(4)} == {"two"}
        assert (await member(home, "one"))["contradicts"] == {"demanded": ["weights"]}
        (event,) = events(home, "fingerprint contradicts")
        assert event["fields"] == "demanded: weights"
        assert events(home, "identical endpoints differ") == []
