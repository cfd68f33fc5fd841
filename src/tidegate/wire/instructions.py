"""What the system says, before all else and in mid-conversation: where the hub's messages have it."""

from collections.abc import Sequence
from typing import Any

from tidegate.wire.hub import text_or_parts


def led(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The hub's messages with the instructions where every engine takes them. Those before all else are one message;
    those between are marked words of the user, where they are: templates of some models refuse them there, and put
    first they would change the beginning of a prompt that is cached."""
    first = next((at for at, message in enumerate(messages) if message["role"] != "system"), len(messages))
    found = list(messages[:first])
    if first > 1:
        found = [{"role": "system", "content": text_or_parts([p for m in found for p in parts_of(m["content"])])}]
    told: list[dict[str, Any]] = []
    for message in messages[first:]:
        if message["role"] == "system":
            told += [marked(part) for part in parts_of(message["content"])]
            continue
        # What came of calls stands right behind them.
        if told and message["role"] != "tool":
            if message["role"] == "user" and found[-1]["role"] != "user":
                message = {**message, "content": text_or_parts(told + parts_of(message["content"]))}
            else:
                _tell(found, told)
            told = []
        found.append(message)
    if told:
        _tell(found, told)
    return found


def parts_of(content: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The parts of a message's content; none where it is empty."""
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def marked(part: dict[str, Any]) -> dict[str, Any]:
    """A part of what the system says, so that the model can tell it from what the user does."""
    return {**part, "text": f"<system>\n{part['text']}\n</system>"} if part["type"] == "text" else part


def _tell(messages: list[dict[str, Any]], told: list[dict[str, Any]]) -> None:
    """Put it at the end, into the user's turn where that is the last: to some templates turns have to alternate."""
    if messages[-1]["role"] == "user":
        told = parts_of(messages.pop()["content"]) + told
    messages.append({"role": "user", "content": text_or_parts(told)})
