"""Records what llama.cpp really answers: `python -m tests.lab.record`, from the top of the repository.

One JSON file per exchange, with the request, the head and the body freed of chunk framing; streams also
as .txt, each byte as it came over the wire.
"""

import asyncio
import socket
from pathlib import Path

import msgspec

from tests.lab.engines import real_engine
from tests.lab.raw import Answer, exchange

FOLDER = Path("tests/engines/cassettes/llamacpp")
CHAT = "/v1/chat/completions"
USAGE = {"include_usage": True}
WEATHER = {
    "name": "weather",
    "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def ask(prompt: str, **fields: object) -> dict[str, object]:
    """A greedy chat of few tokens."""
    return {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 8} | fields


def tool_chat() -> dict[str, object]:
    """Three examples, so that a model of 135M parameters calls the tool as well."""
    messages: list[dict[str, object]] = []
    for city in ("Rome", "Oslo", "Lima"):
        call = {"name": "weather", "arguments": f'{{"city": "{city}"}}'}
        messages += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "tool_calls": [{"id": city, "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": city, "content": "sunny"},
            {"role": "assistant", "content": f"It is sunny in {city}."},
        ]
    messages.append({"role": "user", "content": "What is the weather in Paris?"})
    tools = [{"type": "function", "function": WEATHER}]
    return {"messages": messages, "tools": tools, "temperature": 0, "max_tokens": 60}


def save(name: str, request: dict[str, object], answer: Answer, folder: Path = FOLDER) -> None:
    """Write one exchange."""
    response = {"status": answer.status, "headers": answer.headers, "body": answer.body.decode()}
    text = msgspec.json.format(msgspec.json.encode({"request": request, "response": response}), indent=2)
    (folder / f"{name}.json").write_bytes(text + b"\n")
    if b"transfer-encoding: chunked" in answer.wire.lower():
        (folder / f"{name}.txt").write_bytes(answer.wire)


async def record(port: int, name: str, path: str, body: object = None) -> None:
    """Do one exchange and keep it."""
    method = "GET" if body is None else "POST"
    answer = await exchange(port, method, path, body)
    save(name, {"method": method, "path": path, "body": body}, answer)


async def record_chats(port: int) -> None:
    """Answers, streamed and not, and the ways to refuse one."""
    too_long = "word " * 1500
    await record(port, "chat", CHAT, ask("Say hi"))
    await record(port, "chat_repeated", CHAT, ask("Say hi"))
    await record(port, "chat_two_choices", CHAT, ask("Say hi", n=2))
    await record(port, "chat_stream", CHAT, ask("Say hi", stream=True))
    await record(port, "chat_stream_usage", CHAT, ask("Say hi", stream=True, stream_options=USAGE))
    await record(port, "overflow", CHAT, ask(too_long))
    await record(port, "overflow_stream", CHAT, ask(too_long, stream=True))
    await record(port, "bad_request", CHAT, {"max_tokens": 8})
    await record(port, "not_found", "/nope")


async def record_state(port: int) -> None:
    """What it tells of itself, idle and with two requests running and two waiting."""
    await record(port, "health", "/health")
    await record(port, "props", "/props")
    await record(port, "models", "/v1/models")
    await record(port, "slots_idle", "/slots")
    await record(port, "metrics_idle", "/metrics")
    long = [ask(f"Story number {turn}", max_tokens=200, stream=True) for turn in range(4)]
    running = [asyncio.create_task(exchange(port, "POST", CHAT, body)) for body in long]
    while b"requests_deferred 2" not in (await exchange(port, "GET", "/metrics")).body:
        assert not any(task.done() for task in running)
    await record(port, "metrics", "/metrics")
    await record(port, "slots", "/slots")
    await asyncio.gather(*running)


async def record_loading() -> None:
    """`/health` between the port opening and the model being there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = real_engine(port=port)
    starting = asyncio.create_task(running.__aenter__())
    while not starting.done():
        try:
            answer = await exchange(port, "GET", "/health")
        except OSError:
            await asyncio.sleep(0)  # refused: not listening yet
            continue
        if answer.status != 200:
            save("health_loading", {"method": "GET", "path": "/health", "body": None}, answer)
            break
    await starting
    await running.__aexit__(None, None, None)


async def main() -> None:
    """Record all."""
    await record_loading()
    async with real_engine() as engine:
        await record_state(engine.port)
        await record_chats(engine.port)
    async with real_engine(template=Path(__file__).with_name("tools.jinja")) as engine:
        await record(engine.port, "tool_call", CHAT, tool_chat())
        await record(engine.port, "tool_call_stream", CHAT, tool_chat() | {"stream": True, "stream_options": USAGE})


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    asyncio.run(main())
