"""What is found on a machine, whatever listens there."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.gateway import neighbours
from tests.gateway.harness import CHAT, chat, house, wire
from tests.gateway.neighbours import Neighbour, Page, blurting, models, neighbour, page
from tests.http.harness import client, read_response, serving
from tidegate.clock import Clock
from tidegate.config.address import Url
from tidegate.config.build import build
from tidegate.config.discovered import FoundEngine, State, toml
from tidegate.config.endpoint import EngineKind
from tidegate.config.load import parse
from tidegate.config.schema import GatewayTable
from tidegate.core.model import Probed
from tidegate.core.router import Router
from tidegate.engines.fake import FakeEngine
from tidegate.engines.recognise import MODELS_MAX
from tidegate.gateway.app import Gateway
from tidegate.gateway.discover import ANSWER_BYTES_MAX, BOUND_S, Found, discover, patiently
from tidegate.http.server import Exchange

KINDS = {
    "llamacpp": (neighbours.LLAMACPP, EngineKind.LLAMACPP, "llama.cpp"),
    "vllm": (neighbours.VLLM, EngineKind.VLLM, "vLLM"),
    "sglang": (neighbours.SGLANG, EngineKind.SGLANG, "SGLang"),
    "ollama": (neighbours.OLLAMA, EngineKind.OLLAMA, "Ollama"),
    "lm-studio": (neighbours.LM_STUDIO, EngineKind.OPENAI, "LM Studio"),
    "koboldcpp": (neighbours.KOBOLDCPP, EngineKind.OPENAI, "KoboldCpp"),
    "generic": (neighbours.GENERIC, EngineKind.OPENAI, "an OpenAI-compatible server"),
}
BOUNDS_S = (0.5, 2.0, 8.0)  # on a busy machine an engine may take longer than the first to answer
HUNG_S = 30.0


async def found(*urls: Url, bound_s: float = BOUND_S) -> Found:
    return await discover(urls, Clock(), bound_s=bound_s)


async def soon(*urls: Url) -> Found:
    """What is found within a bound that some of them use up, and an engine among them does not."""
    for bound_s in BOUNDS_S:
        told = await asyncio.wait_for(found(*urls, bound_s=bound_s), HUNG_S)
        if told.engines:
            break
    return told


async def engine(pages: dict[str, Page]) -> FoundEngine:
    async with neighbour(pages) as there:
        (one,) = (await found(there.url)).engines
        return one


def served(one: FoundEngine) -> dict[str, int | None]:
    return {model.name: model.context_tokens for model in one.served}


# --- what an engine is taken for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
async def test_an_engine_is_told_by_what_it_answers_whatever_its_port(name: str) -> None:
    pages, kind, software = KINDS[name]
    one = await engine(pages)
    assert (one.kind, one.software, one.state) == (kind, software, State.READY)


@pytest.mark.parametrize("name", KINDS)
async def test_no_engine_is_sent_a_credential_or_made_to_load_or_generate(name: str) -> None:
    pages, kind, _ = KINDS[name]
    async with neighbour(pages) as there:
        await found(there.url)
    assert {asked for asked in there.asked if asked[0] != "GET"} <= {("POST", "/api/show")}
    assert not {"authorization", "x-api-key"} & {header.decode() for head in there.heads for header in head}
    # It makes a token to find out whether it is well, and its metrics are nobody's business yet.
    assert kind is not EngineKind.SGLANG or ("GET", "/health") not in there.asked
    assert ("GET", "/metrics") not in there.asked


@pytest.mark.parametrize("name", KINDS)
async def test_each_thing_is_asked_once(name: str) -> None:
    async with neighbour(KINDS[name][0]) as there:
        await found(there.url)
    gets = [asked for asked in there.asked if asked[0] == "GET"]
    assert len(gets) == len(set(gets))


async def test_a_stranger_is_asked_two_things() -> None:
    async with neighbour({"/": page(b"<html>")}) as there:
        told = await found(there.url)
    assert {path for _, path in there.asked} == {"/livez", "/v1/models"}
    assert [passed.why for passed in told.passed] == ["it lists no models: /v1/models answered 404"]


async def test_an_engine_tells_its_window_and_how_much_it_runs_at_once() -> None:
    one = await engine(neighbours.LLAMACPP)
    assert (served(one), one.slots) == ({"smollm2": 1024}, 2)
    assert served(await engine(neighbours.VLLM)) == {"meta-llama/Llama-3.1-8B-Instruct": 32768}
    assert served(await engine(neighbours.SGLANG)) == {"qwen": 20000}
    assert served(await engine(neighbours.GENERIC)) == {"some-model": None}


async def test_of_ollama_the_models_that_run_here_and_can_chat_are_served() -> None:
    one = await engine(neighbours.OLLAMA)
    assert served(one) == {"llama3.2:latest": 8192, "qwen3:8b": None}
    left = {model.name: model.remark for model in one.models if model.remark}
    assert "embeddings" in left["nomic-embed-text:latest"]
    assert "cloud" in left["gpt-oss:120b-cloud"]
    assert {model.name for model in one.models if model.vision} == {"qwen3:8b"}
    assert {model.name for model in one.models if model.tools and not model.remark} == {"llama3.2:latest"}


async def test_of_ollama_a_model_that_makes_images_is_not_served() -> None:
    pages = neighbours.OLLAMA | {"/api/show qwen3:8b": page({"capabilities": ["image"]})}
    one = await engine(pages)
    assert set(served(one)) == {"llama3.2:latest"}
    assert {model.remark for model in one.models if model.name == "qwen3:8b"} == {"it does not write text"}


async def test_an_ollama_that_tells_nothing_of_what_a_model_can_do_has_it_served() -> None:
    pages = {path: said for path, said in neighbours.OLLAMA.items() if path != "/api/show qwen3:8b"}
    for told in ({}, {"/api/show qwen3:8b": page({"capabilities": []})}):
        assert "qwen3:8b" in served(await engine(pages | told))


async def test_of_several_models_of_llama_cpp_each_has_its_own_window() -> None:
    one = await engine(neighbours.LLAMACPP_OF_SEVERAL)
    assert (served(one), one.slots) == ({"qwen3-8b": 32768, "smol": None}, None)


async def test_an_older_sglang_is_asked_by_its_former_path() -> None:
    pages = dict(neighbours.SGLANG)
    pages["/get_server_info"] = pages.pop("/server_info")
    pages["/v1/models"] = models("qwen", owned_by="somebody", max_model_len=40960)
    one = await engine(pages)
    assert (one.kind, served(one)) == (EngineKind.SGLANG, {"qwen": 20000})
    async with neighbour(neighbours.SGLANG) as there:
        await found(there.url)
    assert ("GET", "/get_server_info") not in there.asked


async def test_of_lm_studio_the_window_is_that_of_what_is_loaded() -> None:
    """What is not loaded yet it will load with a window of its own, not with the one that was trained for."""
    one = await engine(neighbours.LM_STUDIO)
    assert served(one) == {"qwen2.5-7b": 8192, "pixtral": None}
    assert "context_tokens = 4096  # assumed" in toml([one], [], None)
    assert {model.name for model in one.models if model.vision} == {"pixtral"}


async def test_koboldcpp_is_up_with_its_window_and_its_eyes_and_does_one_thing_at_a_time() -> None:
    one = await engine(neighbours.KOBOLDCPP)
    assert one.state is State.READY
    assert [model.vision for model in one.models] == [True]
    assert served(one) == {"koboldcpp/qwen3-8b-q4_k_m": 16384}
    assert "\nconcurrency = 1  " in toml([one], [], None)


async def test_an_engine_below_a_version_of_its_own_is_asked_there() -> None:
    async with neighbour({"/v3/models": models("served")}) as there:
        (one,) = (await found(structs.replace(there.url, path="/v3"))).engines
        (passed,) = (await found(structs.replace(there.url, path="/v4"))).passed
    assert (one.state, one.url) == (State.READY, f"http://127.0.0.1:{there.port}/v3")
    assert served(one) == {"served": None}
    assert passed.why == "it lists no models: /v4/models answered 404"


async def test_a_strange_field_spoils_neither_the_model_nor_the_list() -> None:
    told = {"data": [{"id": "a", "max_model_len": "many", "owned_by": None}, {"id": "b", "context_length": 4096.5}]}
    assert served(await engine({"/v1/models": page(told)})) == {"a": None, "b": None}


async def test_a_name_that_no_header_can_carry_is_left_out() -> None:
    assert served(await engine({"/v1/models": models("good", "b\u00f6se", "two\nlines", "", "x" * 257)})) == {
        "good": None
    }


async def test_of_too_many_models_the_first_are_taken_and_the_others_counted() -> None:
    one = await engine({"/v1/models": models(*(f"m{n}" for n in range(MODELS_MAX + 7)))})
    assert (len(one.models), one.left_out) == (MODELS_MAX, 7)


async def test_an_engine_without_a_model_is_found_and_serves_nothing() -> None:
    one = await engine({**neighbours.OLLAMA, "/v1/models": page({"object": "list", "data": None})})
    assert (one.kind, one.models) == (EngineKind.OLLAMA, ())


async def test_an_engine_that_wants_a_key_is_found_and_not_served() -> None:
    one = await engine(neighbours.LOCKED)
    assert (one.kind, one.state, one.served) == (EngineKind.OLLAMA, State.LOCKED, ())
    one = await engine({"/v1/models": page({"error": {"message": "No key", "type": "auth"}}, 401)})
    assert (one.kind, one.state, one.served) == (EngineKind.OPENAI, State.LOCKED, ())


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("said", [b"<html>Sign in</html>", b"", b"Forbidden", b"[]", b'{"a":1}'])
async def test_what_wants_a_login_is_no_engine_unless_it_says_so(status: int, said: bytes) -> None:
    async with neighbour({"/v1/models": page(said, status)}) as there:
        told = await found(there.url)
    assert told.engines == ()
    assert [passed.why for passed in told.passed] == ["it wants a login, and does not say that it is an engine"]


async def test_an_engine_that_is_named_twice_is_one() -> None:
    async with neighbour(neighbours.VLLM) as there:
        other = structs.replace(there.url, host="localhost")
        told = await found(there.url, there.url, other)
    assert [one.url for one in told.engines] == [str(there.url)]
    assert [(passed.url, passed.why) for passed in told.passed] == [(str(other), f"this is {there.url} again")]


class Both(Neighbour):
    """An engine that answers to `localhost`, and a web page that has the same port at 127.0.0.1."""

    def __call__(self, exchange: Exchange) -> None:
        self.pages = neighbours.VLLM if exchange.headers[b"host"].startswith(b"localhost") else {}
        super().__call__(exchange)


async def test_an_engine_behind_a_stranger_at_the_other_address_of_the_machine_is_found() -> None:
    both = Both({})
    async with serving(both) as server:
        both.port = server.port
        named = structs.replace(both.url, host="localhost")
        told = await found(both.url, named)
    assert [one.url for one in told.engines] == [str(named)]
    assert [passed.url for passed in told.passed] == [str(both.url)]


# --- engines that start -----------------------------------------------------------------------------------------------


async def test_an_engine_that_lists_its_model_while_it_loads_is_served_when_it_is_ready() -> None:
    one = await engine(neighbours.LOADING)
    assert (one.state, served(one)) == (State.STARTING, {"smollm2": None})


@pytest.mark.parametrize("pages", [neighbours.LOADING, neighbours.LLAMACPP_OF_SEVERAL], ids=["loading", "several"])
@pytest.mark.parametrize("slots", [1, 4])
async def test_a_llama_cpp_that_does_not_tell_yet_how_many_it_runs_gets_as_many_as_it_tells_later(
    pages: dict[str, Page], slots: int
) -> None:
    made = build(parse(toml([await engine(pages)], (), None), "(no file)", {}), 0.0)
    router = Router(made.endpoints, made.policy)
    name = made.endpoints[0].name
    router.observe(Probed(endpoint=name, up=True, slots=slots), 1.0)
    assert router.endpoint(name).capacity.places == slots


class Loading(Neighbour):
    """llama.cpp, which lists nothing until it was asked three times."""

    def __call__(self, exchange: Exchange) -> None:
        if self.asked.count(("GET", "/v1/models")) == 3:
            self.pages = dict(neighbours.LLAMACPP)
        super().__call__(exchange)


async def test_an_engine_that_does_not_list_its_model_yet_is_waited_for() -> None:
    loading = Loading({"/v1/models": neighbours.said("health_loading")})
    async with serving(loading) as server, neighbour(neighbours.VLLM) as other:
        loading.port = server.port
        first = await found(other.url, loading.url)
        assert [one.url for one in first.loading] == [str(loading.url)]
        asked = len(other.asked)
        told = await patiently(first, Clock(), again_s=0.01)
    assert [one.kind for one in told.engines] == [EngineKind.VLLM, EngineKind.LLAMACPP]
    assert told.passed == ()
    assert len(other.asked) == asked, "who has answered is left in peace"


# --- ourselves --------------------------------------------------------------------------------------------------------


async def test_a_tidegate_is_not_an_engine(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        urls = [Url(tls=False, host="127.0.0.1", port=port, path="") for port in (home.port, home.admin_port)]
        told = await found(*urls)
        assert told.engines == ()
        assert [passed.why for passed in told.passed] == ["this is a Tidegate"] * 2


async def test_our_own_address_is_not_asked() -> None:
    async with neighbour(neighbours.VLLM) as there:
        told = await discover([there.url], Clock(), own=frozenset({there.port}))
    assert (told.engines, there.asked) == ((), [])


# --- served -----------------------------------------------------------------------------------------------------------


async def test_two_engines_with_the_same_model_are_one_for_clients_and_stand_in_for_each_other(tmp_path: Path) -> None:
    async with FakeEngine(model="m") as one, FakeEngine(model="m") as other:
        told = await found(*(Url(tls=False, host="127.0.0.1", port=engine.port, path="") for engine in (one, other)))
        quiet = GatewayTable(listen="127.0.0.1:0", admin="127.0.0.1:0", journal="", log=str(tmp_path / "log"))
        config = structs.replace(parse(toml(told.engines, (), None), "(no file)", {}), gateway=quiet)
        gateway = Gateway(config, Clock())
        await gateway.start()
        try:
            assert await ask(gateway.server.port) == 200
            await (one if one.seen else other).__aexit__(None, None, None)
            assert await ask(gateway.server.port) == 200
        finally:
            await gateway.stop()
    assert (len(one.seen), len(other.seen)) == (1, 1)


async def ask(port: int) -> int:
    async with client(port) as (reader, writer):
        writer.write(wire("POST", CHAT, json.dumps(chat()).encode()))
        return (await read_response(reader)).status


# --- whatever listens there -------------------------------------------------------------------------------------------


async def test_where_nobody_listens_nothing_is_found() -> None:
    async with blurting(b"") as url:
        pass
    assert await found(url) == Found(engines=(), passed=())


BODY = b'{"data":[{"id":"m"}]}'
ANSWERS = {
    "nothing": b"",
    "garbage": b"\x00\xff" * 100,
    "a greeting of another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "html": b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
    "a redirect": b"HTTP/1.1 302 Found\r\nlocation: http://example.com/\r\ncontent-length: 0\r\n\r\n",
    "a huge head": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000,
    "a huge body": b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (2 * ANSWER_BYTES_MAX) + BODY,
    "deep nesting": b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    "a list cut short": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + BODY,
    "an endless answer": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
}


@pytest.mark.lengthy
@pytest.mark.parametrize("stays", [False, True], ids=["closes", "stays"])
@pytest.mark.parametrize("name", ANSWERS)
async def test_discovery_ends_and_finds_the_engine_beside_whatever_is_answered(name: str, stays: bool) -> None:
    async with blurting(ANSWERS[name], stays=stays) as url, neighbour(neighbours.LLAMACPP) as there:
        told = await soon(url, there.url)
    assert [one.kind for one in told.engines] == [EngineKind.LLAMACPP], "a bad neighbour hides no engine"
    assert [one.url for one in told.passed] == [str(url)]


async def test_an_engine_that_is_slow_to_tell_more_is_served_by_what_it_told() -> None:
    class Slow(Neighbour):
        def __call__(self, exchange: Exchange) -> None:
            if exchange.path in ("/livez", "/v1/models"):
                super().__call__(exchange)

    slow = Slow(dict(neighbours.LLAMACPP))
    async with serving(slow) as server:
        slow.port = server.port
        (one,) = (await soon(slow.url)).engines
    assert (one.kind, one.state, served(one)) == (EngineKind.LLAMACPP, State.STARTING, {"smollm2": None})


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["data", "id", "owned_by", "models", "name", "version", "max_model_len", "error", "total_slots",
                         "default_generation_settings", "modalities", "capabilities", "context_length", "n_ctx"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
PATHS = ["/livez", "/v1/models", "/props", "/server_info", "/get_server_info", "/api/version", "/version",
         "/api/v0/models", "/health", "/api/ps", "/api/tags"]  # fmt: skip


@pytest.mark.lengthy
@given(
    st.dictionaries(st.sampled_from(PATHS), st.tuples(st.sampled_from([200, 401, 404, 503]), JSONS)),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_no_answer_in_the_shape_of_an_engines_brings_discovery_down(
    told: dict[str, tuple[int, object]], listing: bool
) -> None:
    pages = {path: page(body, status) for path, (status, body) in told.items()}
    if listing:
        pages["/v1/models"] = models("a", "b")

    async def ask() -> Found:
        async with neighbour(pages) as there:
            return await found(there.url)

    looked = asyncio.run(ask())
    assert len(looked.engines) + len(looked.passed) == 1


@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]))
@settings(max_examples=100, deadline=None)
def test_no_bytes_bring_discovery_down(said: bytes, head: bytes) -> None:
    async def ask() -> Found:
        async with blurting(head + said) as url:
            return await found(url)

    assert asyncio.run(ask()).engines == ()
