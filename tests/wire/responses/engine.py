"""What an engine of the Responses dialect answers, whole and as events, with what the vendor calls it.

Written after the vendor's reference and the types of its SDK; these are not recordings.
"""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from tests.wire.hub import dumped, objects, pieces, texts, words
from tests.wire.streams import frame

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 16,
}

some = texts.filter(bool)


def part(kind: str, text: str) -> dict[str, Any]:
    return {"type": kind, "refusal" if kind == "refusal" else "text": text}


def message(text: str = "Hi", phase: str | None = None, refusal: str = "") -> dict[str, Any]:
    said = [{**part("output_text", text), "annotations": [], "logprobs": []}] if text else []
    said += [part("refusal", refusal)] if refusal else []
    item = {"type": "message", "role": "assistant", "status": "completed", "content": said}
    return item if phase is None else {**item, "phase": phase}


def thought(*summary: str, sealed: str = "", text: str = "") -> dict[str, Any]:
    item = {"type": "reasoning", "status": "completed", "summary": [part("summary_text", one) for one in summary]}
    item["content"] = [part("reasoning_text", text)] if text else []
    return {**item, "encrypted_content": sealed} if sealed else item


def call(name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "status": "completed", "call_id": "", "name": name, "arguments": arguments}


PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


def response(*items: dict[str, Any], status: str = "completed", **fields: Any) -> dict[str, Any]:
    """A response of these items, each named as the vendor does."""
    output = [
        {**item, "id": item.get("id", f"{PREFIXES.get(item['type'], 'x')}_{at}")} for at, item in enumerate(items)
    ]
    output = [item | {"call_id": f"call_{item['id']}"} if "call_id" in item else item for item in output]
    head = {"id": "resp_1", "object": "response", "created_at": 1_760_000_000, "model": "gpt"}
    more = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "incomplete_details": None}
    return {**head, "status": status, "output": output, "usage": USAGE, **more, **fields}


items = st.lists(
    st.builds(message, some, st.sampled_from([None, "commentary", "final_answer"]))
    | st.builds(message, st.sampled_from(["", "a"]), st.none(), some)
    | st.builds(lambda parts, seal: thought(*parts, sealed=seal), st.lists(some, max_size=3), some)
    | st.builds(lambda text, seal: thought(text=text, sealed=seal), some, st.sampled_from(["", "gAAA"]))
    | st.builds(call, words, objects.map(dumped)),
    max_size=5,
)
responses = st.builds(lambda items: response(*items), items)


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\n".encode() + frame({"type": kind, **fields})


def created(answer: dict[str, Any]) -> bytes:
    return event("response.created", response={**answer, "status": "in_progress", "output": [], "usage": None})


def parts_of(item: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The text of each part of an item, with its event and its place."""
    for at, one in enumerate(item.get("summary", ())):
        yield "reasoning_summary_text", {"summary_index": at}, one["text"]
    for at, one in enumerate(item.get("content", ())):
        yield one["type"], {"content_index": at}, one.get("text") or one.get("refusal")
    if "arguments" in item:
        yield "function_call_arguments", {}, item["arguments"]


@st.composite
def events(draw: st.DrawFn, answer: dict[str, Any]) -> bytes:
    """The same answer as its engine streams it, each text in pieces."""
    found = [created(answer), event("response.in_progress", response={**answer, "output": [], "usage": None})]
    for at, item in enumerate(answer["output"]):
        begun = {
            name: type(value)() if name in ("summary", "content", "arguments") else value
            for name, value in item.items()
        }
        # It may be incomplete until the item is done.
        begun |= {"encrypted_content": "g"} if "encrypted_content" in item else {}
        found.append(event("response.output_item.added", output_index=at, item=begun))
        place = {"output_index": at, "item_id": item["id"]}
        for kind, index, text in parts_of(item):
            cut = draw(pieces(text))
            found += [event(f"response.{kind}.delta", **place, **index, delta=piece) for piece in cut]
            found.append(event(f"response.{kind}.done", **place, **index, text=text))
        found.append(event("response.output_item.done", output_index=at, item=item))
    return b"".join([*found, event(f"response.{answer['status']}", response=answer)])


def quick(answer: dict[str, Any]) -> bytes:
    """The same with each item in one piece, which comes at its end."""
    found = [
        event(f"response.output_item.{kind}", output_index=at, item=item)
        for at, item in enumerate(answer["output"])
        for kind in ("added", "done")
    ]
    return b"".join([created(answer), *found, event(f"response.{answer['status']}", response=answer)])
