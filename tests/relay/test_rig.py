"""The engine without a model and the load generator, against each other and against servers that misbehave."""

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from bench.gateway import HOST, free_ports
from bench.loads import Load
from bench.rig import Ask, Rig

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
HELD_S = 0.05
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("rig"))  # every warning of the compiler is an error


@pytest.fixture(scope="module")
def engine(rig: Rig) -> Iterator[int]:
    with rig.engine(1) as (port,):
        yield port


def body(folder: Path, ask: Ask, gap_ms: int = 0) -> Path:
    file = folder / "body.json"
    file.write_bytes(Load(name="test", about="", ask=ask, gap_ms=gap_ms).body())
    return file


def answered(port: int, method: str, path: str, sent: Any = None, chunked: bool = False) -> tuple[int, Any]:
    with closing(HTTPConnection(HOST, port)) as connection:
        raw = json.dumps(sent).encode()
        if chunked:
            pieces = (raw[at : at + 7] for at in range(0, len(raw), 7))
            connection.request(method, path, pieces, encode_chunked=True)
        else:
            connection.request(method, path, raw if sent is not None else None)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that reads what has come and leaves the rest to `answer`, one connection after the other."""
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                with one:
                    answer(one)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_every_request_and_every_chunk_is_counted_once(rig: Rig, engine: int, tmp_path: Path) -> None:
    ask = Ask(connections=3, requests=12, chunks=5)
    said = rig.load(engine, body(tmp_path, ask), ask)
    assert (said.ok, said.chunks, said.failed, said.connects) == (12, 60, 0, 3)
    assert 0.0 < said.ttft_us.p50 <= said.latency_us.max
    assert 0.0 < said.transit_us.p50 <= said.transit_us.max


def test_chunks_come_as_far_apart_as_was_asked_for(rig: Rig, engine: int, tmp_path: Path) -> None:
    ask = Ask(connections=4, requests=4, chunks=4)
    said = rig.load(engine, body(tmp_path, ask, gap_ms=10), ask)
    assert said.ok == 4
    assert said.latency_us.p50 >= 28_000.0  # three gaps, each begun within a millisecond of the wheel


def test_answers_that_are_not_streamed_have_no_chunks(rig: Rig, engine: int, tmp_path: Path) -> None:
    ask = Ask(connections=2, requests=50)
    said = rig.load(engine, body(tmp_path, ask), ask)
    assert (said.ok, said.chunks, said.failed, said.connects) == (50, 0, 0, 2)


def test_an_open_loop_sends_all_that_is_due(rig: Rig, engine: int, tmp_path: Path) -> None:
    ask = Ask(connections=4, requests=20, rate_per_s=1000.0)
    said = rig.load(engine, body(tmp_path, ask), ask)
    assert (said.ok, said.failed) == (20, 0)
    assert said.seconds >= 0.019


def test_who_is_late_for_one_is_late_for_all_that_were_due_meanwhile(rig: Rig, tmp_path: Path) -> None:
    never = threading.Event()
    held = iter([HELD_S])

    def slow_at_first(one: socket.socket) -> None:
        while one.recv(65536):
            never.wait(next(held, 0.0))
            one.sendall(WHOLE)

    ask = Ask(connections=1, requests=10, rate_per_s=1000.0)
    with serving(slow_at_first) as port:
        said = rig.load(port, body(tmp_path, ask), ask)
    assert said.ok == 10
    assert said.latency_us.p50 >= 1e6 * (HELD_S - 0.010)  # the last was due after nine milliseconds


def test_what_was_due_and_had_no_connection_when_the_time_was_over_is_an_error(rig: Rig, tmp_path: Path) -> None:
    over = threading.Event()

    def answers_none(one: socket.socket) -> None:
        over.wait()

    ask = Ask(connections=1, requests=1000, rate_per_s=100.0, seconds=0.1, timeout_s=0.2)
    with serving(answers_none) as port:
        try:
            said = rig.load(port, body(tmp_path, ask), ask)
        finally:
            over.set()
    # One is due each hundredth of a second, and the first of them has the connection.
    assert (said.ok, said.errors["unfinished"], said.errors["not_begun"], said.failed) == (0, 1, 9, 10)


@pytest.mark.parametrize("ask", [Ask(connections=4, requests=5), Ask(connections=4, requests=5, rate_per_s=1000.0)])
def test_of_what_has_all_begun_nothing_is_missing(rig: Rig, engine: int, tmp_path: Path, ask: Ask) -> None:
    said = rig.load(engine, body(tmp_path, ask), ask)
    assert (said.ok, said.errors["not_begun"]) == (5, 0)


def test_a_stream_of_another_length_is_an_error(rig: Rig, engine: int, tmp_path: Path) -> None:
    file = body(tmp_path, Ask(connections=1, requests=1, chunks=5))
    said = rig.load(engine, file, Ask(connections=2, requests=6, chunks=4))
    assert (said.ok, said.errors["stream"], said.failed) == (0, 6, 6)


def test_a_port_where_nothing_listens_is_an_error_each_time(rig: Rig, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    ask = Ask(connections=2, requests=6)
    said = rig.load(port, body(tmp_path, ask), ask)
    assert (said.ok, said.errors["connect"], said.failed) == (0, 6, 6)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "status"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", "broken"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", "broken"),
        (b"", "broken"),
    ],
)
def test_answers_that_are_no_good_are_told_apart(rig: Rig, tmp_path: Path, sent: bytes, error: str) -> None:
    def answer(one: socket.socket) -> None:
        one.recv(65536)
        one.sendall(sent)

    ask = Ask(connections=1, requests=3)
    with serving(answer) as port:
        said = rig.load(port, body(tmp_path, ask), ask)
    assert (said.ok, said.errors[error], said.failed) == (0, 3, 3)


def test_an_answer_without_a_length_ends_with_its_connection(rig: Rig, tmp_path: Path) -> None:
    def answer(one: socket.socket) -> None:
        one.recv(65536)
        one.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}")

    ask = Ask(connections=1, requests=3)
    with serving(answer) as port:
        said = rig.load(port, body(tmp_path, ask), ask)
    assert (said.ok, said.failed, said.connects) == (3, 0, 3)


def test_the_engine_says_what_routers_ask_before_they_use_one(engine: int) -> None:
    status, models = answered(engine, "GET", "/v1/models")
    assert (status, models["data"][0]["id"]) == (200, "bench-model")
    assert answered(engine, "GET", "/health")[1]["status"] == "ok"
    assert answered(engine, "POST", "/v1/nothing", {})[0] == 404


def test_a_rendered_prompt_has_as_many_tokens_as_it_is_long(engine: int) -> None:
    path = "/v1/chat/completions/render"
    short, long = (answered(engine, "POST", path, {"messages": "x" * size})[1]["token_ids"] for size in (400, 4000))
    assert 90 <= len(short) <= 120
    assert 900 <= len(long) <= 1100


def test_a_body_in_chunks_is_a_body(engine: int) -> None:
    status, found = answered(engine, "POST", "/v1/chat/completions", {"messages": "x" * 100}, chunked=True)
    assert (status, found["object"]) == (200, "chat.completion")
