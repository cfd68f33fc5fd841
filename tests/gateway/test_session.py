"""A conversation that a client names stays with the model that answered it, through the whole gateway."""

from pathlib import Path

from tests.gateway.harness import House, chat, house, local, remote
from tests.gateway.test_fingerprint import A, B, llama, load, probe
from tidegate.core.model import Request, Started
from tidegate.engines.fake import Script

SESSION = "diary-of-alice"


async def down(home: House, name: str) -> None:
    """The engine says that it is not well."""
    home.engines[name].up = False
    await probe(home, name)


def everything(folder: Path) -> bytes:
    """What stands in all of its files."""
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


async def test_a_conversation_goes_on_where_it_began_though_another_would_be_taken(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        first = await home.ask(chat(), x_tidegate_session=SESSION, x_tidegate_residency="away")
        assert first.endpoint == "cloud"
        assert (await home.ask(chat())).endpoint == "laptop"
        again = await home.ask(chat(), x_session_id=SESSION)
        assert (again.endpoint, again.header("x-tidegate-why")) == ("cloud", "only_continuing")
        assert (await home.get("/api/state", admin=True)).json["sessions"] == 1


async def test_while_its_endpoint_is_down_it_is_refused_with_the_remedy_and_with_it_served(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(engine="llamacpp"), cloud=remote()) as home:
        assert (await home.ask(chat(), x_tidegate_session=SESSION)).endpoint == "laptop"
        await down(home, "laptop")
        refused = await home.ask(chat(), x_tidegate_session=SESSION)
        assert (refused.status, refused.error["code"]) == (503, "session_elsewhere")
        assert int(refused.header("retry-after")) >= 1
        assert "x-tidegate-session-moves: true" in refused.error["message"]
        assert home.engines["cloud"].seen == []
        assert (await home.ask(chat(), x_tidegate_session="another")).endpoint == "cloud"
        moved = await home.ask(chat(tidegate={"session": SESSION, "session_moves": True}))
        assert (moved.status, moved.endpoint) == (200, "cloud")


async def test_a_class_may_let_its_conversations_move(tmp_path: Path) -> None:
    classes = {"loose": {"session_moves": True}}
    async with house(tmp_path, classes=classes, laptop=local(engine="llamacpp"), cloud=remote()) as home:
        assert (await home.ask(chat(), x_tidegate_session=SESSION)).endpoint == "laptop"
        await down(home, "laptop")
        assert (await home.ask(chat(), x_tidegate_session=SESSION, x_tidegate_class="loose")).endpoint == "cloud"


async def test_fail_over_within_a_request_goes_to_no_other_model(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        assert (await home.ask(chat(), x_tidegate_session=SESSION)).endpoint == "laptop"
        home.engines["laptop"].script = Script(status=500, error=b"{}")
        assert (await home.ask(chat(), x_tidegate_session=SESSION)).status == 502
        assert home.engines["cloud"].seen == []


async def test_two_engines_with_one_model_are_one_place_until_one_loads_another(tmp_path: Path) -> None:
    models = {"chat": {"endpoints": {"a": "identical", "b": "identical", "c": "identical"}}}
    # However long their probes took, the free one is asked first.
    price = {"usd_per_1m_input_tokens": 1, "usd_per_1m_output_tokens": 1}
    places = {"a": llama(A), "b": llama(B, price=price), "c": llama(A, price=price)}
    body = chat(model="chat")
    async with house(tmp_path, models=models, **places) as home:
        assert (await home.ask(body, x_tidegate_session=SESSION)).endpoint == "a"
        home.engines["a"].script = Script(status=500, error=b"{}")
        assert (await home.ask(body, x_tidegate_session=SESSION)).endpoint == "c"
        await load(home, "c", B)  # it was answered there last, and goes on with who has that model still
        home.engines["a"].script = Script()
        assert (await home.ask(body, x_tidegate_session=SESSION)).endpoint == "a"
        assert home.engines["b"].seen == []


async def test_the_name_of_a_conversation_is_in_no_file(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.ask(chat(), x_tidegate_session=SESSION)
    journal = home.journal()
    (asked,) = (line.fact for line in journal if isinstance(line.fact, Request))
    (started,) = (line.fact for line in journal if isinstance(line.fact, Started))
    assert asked.session == started.session != ""
    written = everything(tmp_path)
    assert asked.session.encode() in written
    assert SESSION.encode() not in written


async def test_an_answer_that_a_client_got_wrong_begins_no_conversation(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(status=400)), cloud=remote()) as home:
        assert (await home.ask(chat(), x_tidegate_session=SESSION)).status == 400
        assert (await home.get("/api/state", admin=True)).json["sessions"] == 0
