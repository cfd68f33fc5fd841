"""Any server that speaks the OpenAI protocol: LM Studio, a gateway, the cloud, and vLLM or SGLang seen from outside."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from tidegate.config.address import api_path
from tidegate.core.health import CLIENT_ERROR
from tidegate.core.model import Capability, Ending
from tidegate.engines.base import (
    Failure,
    Header,
    Outgoing,
    ProbeAnswer,
    ProbeRequest,
    Signals,
    narrowest,
    overflow,
    unfit,
)
from tidegate.engines.listed import Model, Models
from tidegate.wire.errors import REFUSALS, UNREADABLE, read_error, retry_after_s
from tidegate.wire.openai import EMBEDDING, Call, upstream_body

# The request itself is at fault: another endpoint would say the same.
_CLIENTS_FAULT = frozenset({400, 422})
# Whatever is said with these is of our key, or of what its account has left; 403 may be of the request as well.
_OF_THE_KEY = frozenset({401, 402})
_TURNED_AWAY = "the endpoint turned the gateway's account away"
_PATHS = {
    Capability.CHAT: b"/chat/completions",
    Capability.COMPLETION: b"/completions",
    EMBEDDING: b"/embeddings",
}
# How a key is told that it is good for something else: OpenAI's lacks a scope, Anthropic's a permission.
_LACKS = re.compile(rb"scope|permission", re.IGNORECASE)
# The bound of what is generated: every engine knows the older name.
_OLDER, _NEWER = "max_tokens", "max_completion_tokens"
# What the assistant thought before, by the hub's name and by the one that some engines have since.
_THOUGHT, _REASONING = "reasoning_content", "reasoning"
_THOUGHT_JSON = b'"reasoning_content"'
_ASSISTANT = Raw(b'"assistant"')
_CACHE_KEY = "prompt_cache_key"
_NULL = Raw(b"null")
_messages = msgspec.json.Decoder(list[dict[str, Raw]]).decode


class OpenAI:
    """The plain dialect. Answers are streamed only where the client streams."""

    name = "openai"
    fetches = False
    continuing = None  # a last message of the assistant is the beginning of its next one, or one before it: nobody says

    def __init__(self, base_path: str, model: str | None) -> None:
        """`base_path` is the path of the endpoint's URL, to which `/v1` is added as `api_path` has it.

        `model` is the endpoint's own name of the model whose window a probe looks up, None for any.
        """
        self._base = api_path(base_path).encode()
        self._targets = {kind: self._base + path for kind, path in _PATHS.items()}
        self._model = model

    def headers(self, given: Sequence[Header]) -> tuple[Header, ...]:
        """See `Dialect`. As they are."""
        return tuple(given)

    def translator(self, *, streamed: bool, now_s: float) -> None:  # noqa: ARG002 - there is none either way
        """See `Dialect`. What it answers is the hub's."""
        return

    def outgoing(self, call: Call, model: str, headers: Sequence[Header]) -> Outgoing:
        """See `Dialect`."""
        return self.made(call, model, headers, streamed=call.stream)

    def made(self, call: Call, model: str, headers: Sequence[Header], *, streamed: bool) -> Outgoing:
        """The request, streamed or not whatever the client wants: for dialects that build on this one."""
        call = self.fitted(call)
        return Outgoing(
            target=self._targets[call.kind],
            headers=(*FIXED_HEADERS, *headers),
            body=upstream_body(call, model=model, stream=streamed),
            streamed=streamed,
        )

    def fitted(self, call: Call) -> Call:
        """What of it goes there. All of it, as it came."""
        return call

    def failure(self, status: int, headers: Mapping[bytes, bytes], body: bytes, now_s: float) -> Failure:
        """See `Dialect`."""
        kind, encoding = headers.get(b"content-type", b""), headers.get(b"content-encoding", b"")
        said = read_error(status, body, kind, content_encoding=encoding)
        if said.context_exceeded:
            return overflow(said.message)
        # It may quote our key, or tell how we stand with a vendor.
        aside = said.message if status in _OF_THE_KEY or said.of_the_account else ""
        if status == 413 and not aside:
            # Of what stands before it: another endpoint may take as much.
            return unfit(said, 413, "request_too_large")
        if said.unfit and (status in _CLIENTS_FAULT or status >= 500):
            return unfit(said)
        if ((said.flagged and status == 403) or (said.unserved and status == 404)) and not aside:
            return unfit(said)
        if status in _CLIENTS_FAULT and not (aside or said.absent):
            return Failure(
                ending=Ending.OK,
                cause=CLIENT_ERROR,
                status=status,
                message=said.message,
                kind=said.type or "invalid_request_error",
                code=said.code,
                param=said.param,
                final=True,
            )
        if status in REFUSALS:
            return Failure(
                ending=Ending.REFUSED,
                cause=f"status_{status}",
                status=429 if status == 429 else 503,
                message=_TURNED_AWAY if aside else said.message,
                kind="rate_limit_error" if status == 429 else "api_error",
                code="rate_limit_exceeded" if status == 429 else "upstream_overloaded",
                retry_after_s=retry_after_s(headers, now_s),
                aside=aside,
            )
        # 401 and other 403 concern the key that we hold, as some 400 do, other 404 a model that we configured, as other
        # 400 do: nobody else's fault.
        return Failure(
            ending=Ending.FAILED,
            cause=f"status_{status}",
            status=502,
            message=f"the endpoint answered {status}" + ("" if aside else f": {said.message}"),
            code="upstream_error",
            retry_after_s=retry_after_s(headers, now_s),
            aside=aside,
        )

    def probes(self) -> tuple[ProbeRequest, ...]:
        """See `Dialect`. Listing models is free everywhere, and tells whether the key is good."""
        return (ProbeRequest(target=self._base + b"/models", essential=True, lists=True),)

    def signals(self, answers: Sequence[ProbeAnswer | None]) -> Signals:
        """See `Dialect`. A window is told by vLLM and SGLang alone (`max_model_len`)."""
        (models,) = answers
        if is_down(models):
            return Signals(up=False)
        return Signals(up=True, context_tokens=self.window(models))

    def unlisted(self, models: ProbeAnswer | None) -> str:
        """The endpoint's own name of its model where a list of models has others alone; for dialects as below."""
        names = [m.id for m in _listed(models)]
        return self._model if self._model is not None and names and self._model not in names else ""

    def window(self, models: ProbeAnswer | None) -> int | None:
        """The window of the endpoint's model in a list of models: for dialects that build on this one."""
        listed = _listed(models)
        known = [m for m in listed if self._model in (None, m.id)]
        told = narrowest(m.max_model_len for m in known)
        parents = [m.parent for m in known if m.parent]
        if told is not None or not parents:
            return told
        # An adapter is listed without a window, and has its model's, which may stand there under another name.
        adapted = [m for m in listed if m.id in parents]
        return narrowest(m.max_model_len for m in adapted or listed)


def _listed(models: ProbeAnswer | None) -> list[Model]:
    try:
        return msgspec.json.decode(b"" if models is None else models.body, type=Models).data
    except UNREADABLE:
        return []


def by_older_name(call: Call) -> Call:
    """The call with the bound of its output as `max_tokens`: for engines that pass over the newer name, and would
    answer without a bound."""
    if _NEWER not in call.fields:
        return call
    fields = dict(call.fields)
    bound = fields.pop(_NEWER)
    if bound != _NULL:
        fields[_OLDER] = bound
    return msgspec.structs.replace(call, fields=fields)


def without(call: Call, *names: str) -> Call:
    """The call without these fields."""
    fields = {name: value for name, value in call.fields.items() if name not in names}
    return msgspec.structs.replace(call, fields=fields)


def without_cache_key(call: Call) -> Call:
    """The call without OpenAI's hint where a prompt may be cached: for those that refuse a field they do not know."""
    return without(call, _CACHE_KEY) if _CACHE_KEY in call.fields else call


def with_reasoning(call: Call) -> Call:
    """The call with what was thought before by both its names: for engines that look for `reasoning`, and would go on
    without."""
    found = _thinking(call)
    for message in found:
        thought = message.get(_THOUGHT, _NULL)
        if thought != _NULL and message.get("role") == _ASSISTANT and message.get(_REASONING, _NULL) == _NULL:
            message[_REASONING] = thought
    return _saying(call, found)


def _without_thoughts(call: Call) -> Call:
    found = _thinking(call)
    for message in found:
        message.pop(_THOUGHT, None)
    return _saying(call, found)


def _thinking(call: Call) -> list[dict[str, Raw]]:
    """The messages of a chat in which somebody thought; none where nobody did, or nobody could read them."""
    messages = call.fields.get("messages")
    # A message alone has nothing before it, and need not be searched.
    if call.messages < 2 or messages is None or _THOUGHT_JSON not in bytes(messages):
        return []
    try:
        return _messages(messages)
    except UNREADABLE:
        return []


def _saying(call: Call, messages: list[dict[str, Raw]]) -> Call:
    if not messages:
        return call
    fields = {**call.fields, "messages": Raw(msgspec.json.encode(messages))}
    return msgspec.structs.replace(call, fields=fields)


def is_down(models: ProbeAnswer | None) -> bool:
    """Whether who was asked for its models cannot serve: it is failing, or the key opens nothing.

    A server without a list is up all the same. So is one that does not let this key see it, and says so: a key may be
    good for answers alone.
    """
    if models is None or models.status >= 500:
        return True
    return models.status in (401, 403) and not _LACKS.search(models.body)


def is_refused(answer: ProbeAnswer | None) -> bool:
    """Whether an engine says that our key is none of its, or missing: by 401 alone, as 403 may be of the path."""
    return answer is not None and answer.status == 401 and not _LACKS.search(answer.body)


class OpenAIOwn(OpenAI):
    """Where OpenAI's own models are, of which those that think refuse the older name of the bound; the newer one all
    know, and all refuse both at once."""

    def fitted(self, call: Call) -> Call:
        """See `OpenAI`. A chat has its bound by the newer name."""
        if call.kind is not Capability.CHAT or _OLDER not in call.fields:
            return call
        fields = dict(call.fields)
        older = fields.pop(_OLDER)
        if fields.get(_NEWER, _NULL) == _NULL:
            fields[_NEWER] = older
        return msgspec.structs.replace(call, fields=fields)


class Vendor(OpenAI):
    """A vendor that refuses some fields which others take or pass over, or does not heed one.

    `older_bound`: it knows the bound of its output by the older name alone. `thoughts`, `cache_key`: it takes what was
    thought before, and the hint where a prompt may be cached.
    """

    def __init__(
        self, base_path: str, model: str | None, *, older_bound: bool, thoughts: bool, cache_key: bool
    ) -> None:
        super().__init__(base_path, model)
        self._older_bound = older_bound
        self._thoughts = thoughts
        self._cache_key = cache_key

    def fitted(self, call: Call) -> Call:
        """See `OpenAI`."""
        if self._older_bound:
            call = by_older_name(call)
        if not self._thoughts:
            call = _without_thoughts(call)
        return call if self._cache_key else without_cache_key(call)


# Compiled, a tuple of a known length would be made anew for each request.
FIXED_HEADERS: Final[tuple[Header, ...]] = (
    (b"content-type", b"application/json"),
    # Bytes are relayed as they come, so they must come uncompressed.
    (b"accept-encoding", b"identity"),
)
