"""A made-up answer as bytes: `w1 w2 w3 ...`, for chat and for completions, as frames and whole."""

from collections.abc import Mapping
from math import log

import msgspec

DONE = b"data: [DONE]\n\n"


def event(chunk: object) -> bytes:
    """A frame that carries this."""
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


class Words:
    """What one request is answered with. Usage is counted as four bytes of the request a token.

    model       the name that was asked for
    chat        a chat completion, else a text completion
    body_bytes  size of the request
    certainty   how likely each token is, between 0 and 1; None where nobody asks
    """

    __slots__ = ("_certainty", "_chat", "_model", "_prompt_tokens")

    def __init__(self, *, model: str, chat: bool, body_bytes: int, certainty: float | None = None) -> None:
        self._certainty = certainty
        self._model = model
        self._chat = chat
        self._prompt_tokens = body_bytes // 4

    def role(self) -> bytes:
        """The frame that says who speaks; completions have none."""
        return self._chunk({"role": "assistant", "content": None}) if self._chat else b""

    def token(self, number: int, pad: str = "") -> bytes:
        """The frame of one token, numbered from 1."""
        word = f"w{number} {pad}"
        return self._chunk({"content": word} if self._chat else word, logprobs=self._logprobs([word]))

    def finish(self, usage: dict[str, int] | None = None) -> bytes:
        """The frame that says why it ends; with usage, if any, where it does not belong."""
        return self._chunk({} if self._chat else "", finish="stop", usage=usage)

    def usage_frame(self, usage: Mapping[str, object]) -> bytes:
        """The frame of usage alone."""
        return event({**self._chunk_head(), "choices": [], "usage": usage})

    def usage(self, output_tokens: int) -> dict[str, int]:
        """What it took."""
        total = self._prompt_tokens + output_tokens
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": output_tokens, "total_tokens": total}

    def whole(self, output_tokens: int, usage: dict[str, int] | None) -> bytes:
        """The answer in one piece."""
        words = [f"w{number} " for number in range(1, output_tokens + 1)]
        choice: dict[str, object] = {"index": 0, "finish_reason": "stop", "logprobs": self._logprobs(words)}
        text = "".join(words)
        choice |= {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        answer = {**self._head("chat.completion" if self._chat else "text_completion"), "choices": [choice]}
        return msgspec.json.encode(answer if usage is None else {**answer, "usage": usage})

    def _logprobs(self, words: list[str]) -> dict[str, object] | None:
        certainty = self._certainty
        if certainty is None:
            return None
        content = []
        for word in words:
            top = [{"token": word, "logprob": log(certainty)}, {"token": "other", "logprob": log(1.0 - certainty)}]
            content.append({**top[0], "top_logprobs": top})
        return {"content": content}

    def _chunk(
        self,
        piece: dict[str, object] | str,
        *,
        finish: str | None = None,
        usage: dict[str, int] | None = None,
        logprobs: dict[str, object] | None = None,
    ) -> bytes:
        choice: dict[str, object] = {"index": 0, "finish_reason": finish}
        choice |= {"delta": piece} if self._chat else {"text": piece}
        if logprobs is not None:
            choice["logprobs"] = logprobs
        chunk = {**self._chunk_head(), "choices": [choice]}
        return event(chunk if usage is None else {**chunk, "usage": usage})

    def _chunk_head(self) -> dict[str, object]:
        return self._head("chat.completion.chunk" if self._chat else "text_completion")

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": "fake-1", "object": kind, "created": 0, "model": self._model}
