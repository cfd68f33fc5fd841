"""The engine process: starts as asked, answers, and is gone when it should be."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.engines import LAST_CPU, real_engine
from tests.lab.processes import processes_of, watched
from tests.lab.raw import exchange
from tidegate.lab import weights
from tidegate.lab.llama import Engine, EngineDiedError, Spec, parse

words = st.text(st.characters(categories=("L", "N", "P"))).filter(bool)


def ask(prompt: str, **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 8} | fields


@given(
    st.builds(
        Spec,
        model=words.map(Path),
        port=st.integers(0, 65535),
        context_tokens=st.integers(1, 1 << 20),
        slots=st.integers(1, 64),
        threads=st.integers(1, 64),
        cpu=st.sampled_from([None, *sorted(os.sched_getaffinity(0))]),
        batch_tokens=st.integers(1, 4096),
        alias=words,
        template=st.none() | words.map(Path),
        flash_attention=st.booleans(),
        sleep_after_s=st.none() | st.integers(1, 3600),
        saves=st.none() | words.map(Path),
    )
)
def test_a_spec_survives_the_command_line(spec: Spec) -> None:
    assert parse(spec.arguments()) == (spec, None)


def test_a_core_that_is_not_there_is_refused_with_the_choice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--model=m.gguf", "--cpu=4095"])
    assert f"choose from {sorted(os.sched_getaffinity(0))}" in capsys.readouterr().err


@pytest.mark.engine
def test_the_engine_has_the_slots_context_and_name_that_were_asked_for(shared_engine: Engine) -> None:
    async def scenario() -> None:
        props = msgspec.json.decode((await exchange(shared_engine.port, "GET", "/props")).body)
        slots = msgspec.json.decode((await exchange(shared_engine.port, "GET", "/slots")).body)
        assert props["model_alias"] == "smollm2"
        assert [slot["n_ctx"] for slot in slots] == [1024, 1024]
        assert os.sched_getaffinity(shared_engine.pid) == {LAST_CPU}

    asyncio.run(scenario())


@pytest.mark.engine
def test_a_stream_ends_with_usage_timings_and_done(shared_engine: Engine) -> None:
    async def scenario() -> None:
        body = ask("Say hi", stream=True, stream_options={"include_usage": True})
        answer = await exchange(shared_engine.port, "POST", "/v1/chat/completions", body)
        frames = [frame.removeprefix("data: ") for frame in answer.body.decode().split("\n\n")]
        assert frames[-2:] == ["[DONE]", ""]
        last = msgspec.json.decode(frames[-3])
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 8
        assert last["timings"]["predicted_n"] == 8

    asyncio.run(scenario())


@pytest.mark.engine
def test_a_repeated_prompt_is_served_from_the_cache_but_for_its_last_token(shared_engine: Engine) -> None:
    async def scenario() -> None:
        body = ask("Name three colours of the rainbow, in order")
        await exchange(shared_engine.port, "POST", "/v1/chat/completions", body)
        again = await exchange(shared_engine.port, "POST", "/v1/chat/completions", body)
        usage = msgspec.json.decode(again.body)["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1

    asyncio.run(scenario())


@pytest.mark.engine
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_a_400_with_both_numbers(shared_engine: Engine, stream: bool) -> None:
    async def scenario() -> None:
        body = ask("word " * 1500, stream=stream)
        answer = await exchange(shared_engine.port, "POST", "/v1/chat/completions", body)
        error = msgspec.json.decode(answer.body)["error"]
        assert (answer.status, error["type"]) == (400, "exceed_context_size_error")
        assert error["n_prompt_tokens"] > error["n_ctx"] == 1024

    asyncio.run(scenario())


@pytest.mark.engine
def test_an_engine_stops_with_status_0_even_while_it_computes() -> None:
    async def scenario() -> None:
        async with real_engine() as engine:
            running = asyncio.create_task(exchange(engine.port, "POST", "/v1/chat/completions", ask("word " * 900)))
            while b'"is_processing":true' not in (await exchange(engine.port, "GET", "/slots")).body:
                assert not running.done()
            assert await engine.stop() == 0
            with pytest.raises(ConnectionError):
                await running

    asyncio.run(scenario())


@pytest.mark.engine
def test_a_killed_engine_comes_back_on_its_port() -> None:
    async def scenario() -> None:
        async with real_engine() as first:
            port = first.port
            assert await first.kill() == -signal.SIGKILL
            async with real_engine(port=port) as second:
                assert (await exchange(port, "GET", "/health")).status == 200
                assert second.port == port

    asyncio.run(scenario())


@pytest.mark.engine
def test_a_port_that_is_taken_is_an_error_although_another_engine_answers_there(
    shared_engine: Engine, tmp_path: Path
) -> None:
    async def scenario() -> None:
        spec = msgspec.structs.replace(shared_engine.spec, port=shared_engine.port)
        with pytest.raises(EngineDiedError, match="couldn't bind"):
            await Engine(spec, tmp_path / "log").start()

    asyncio.run(scenario())


@pytest.mark.engine
def test_a_context_that_llama_cpp_would_round_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        spec = Spec(model=weights.fetch(), context_tokens=1000)
        with pytest.raises(EngineDiedError, match="multiple of 256"):
            await Engine(spec, tmp_path / "log").start()

    before = processes_of(os.getpid())
    asyncio.run(scenario())
    assert processes_of(os.getpid()) == before


@pytest.mark.engine
def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "broken.gguf").write_bytes(b"not a model")
        with pytest.raises(EngineDiedError, match=r"broken\.gguf"):
            await Engine(Spec(model=tmp_path / "broken.gguf"), tmp_path / "log").start()

    asyncio.run(scenario())


ORPHANS = """
import asyncio, os, sys
from tests.lab.engines import real_engine
async def main():
    async with real_engine() as engine:
        print(engine.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.engine
def test_an_engine_does_not_outlive_a_parent_that_was_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with watched([int(parent.stdout.readline())]) as all_ended:
        parent.kill()
        parent.communicate()
        assert all_ended()
