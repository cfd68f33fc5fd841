"""Any server that speaks the OpenAI protocol: LM Studio, a gateway, the cloud, and vLLM or SGLang seen from outside."""

import re
from collections.abc import Mapping, Sequence

import msgspec

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
from tidegate.engines.listed import Models
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
_NULL = msgspec.Raw(b"null")


class OpenAI:
    """The plain dialect. Answers are streamed only where the client streams."""

    name = "openai"
    fetches = False
    newer_bound = False  # it takes the bound of a chat's output by its newer name, and not by both
    continuing = None  # a last message of the assistant is the beginning of its next one, or one before it: nobody says

    def __init__(self, base_path: str, model: str | None) -> None:
        """`base_path` is the path of the endpoint's URL, to which `/v1` is added as `api_path` has it.

        `model` is the endpoint's own name of the model whose window a probe looks up, None for any.
        """
        self._base = api_path(base_path).encode()
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
        if self.newer_bound and call.kind is Capability.CHAT and _OLDER in call.fields:
            fields = dict(call.fields)
            older = fields.pop(_OLDER)
            if fields.get(_NEWER, _NULL) == _NULL:
                fields[_NEWER] = older
            call = msgspec.structs.replace(call, fields=fields)
        return Outgoing(
            target=self._base + _PATHS[call.kind],
            headers=(*FIXED_HEADERS, *headers),
            body=upstream_body(call, model=model, stream=streamed),
            streamed=streamed,
        )

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
        if status in _CLIENTS_FAULT and not aside:
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
        # 401 and other 403 concern the key that we hold, as some 400 do, other 404 a model that we configured: nobody
        # else's fault.
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

    def window(self, models: ProbeAnswer | None) -> int | None:
        """The window of the endpoint's model in a list of models: for dialects that build on this one."""
        try:
            listed = msgspec.json.decode(b"" if models is None else models.body, type=Models).data
        except UNREADABLE:
            return None
        known = [m for m in listed if self._model in (None, m.id)]
        told = narrowest(m.max_model_len for m in known)
        parents = [m.parent for m in known if m.parent]
        if told is not None or not parents:
            return told
        # An adapter is listed without a window, and has its model's, which may stand there under another name.
        adapted = [m for m in listed if m.id in parents]
        return narrowest(m.max_model_len for m in adapted or listed)


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


def is_down(models: ProbeAnswer | None) -> bool:
    """Whether who was asked for its models cannot serve: it is failing, or the key opens nothing.

    A server without a list is up all the same. So is one that does not let this key see it, and says so: a key may be
    good for answers alone.
    """
    if models is None or models.status >= 500:
        return True
    return models.status in (401, 403) and not _LACKS.search(models.body)


class OpenAIOwn(OpenAI):
    """Where OpenAI's own models are, of which those that think refuse the older name of the bound; the newer one all
    know, and all refuse both at once."""

    newer_bound = True


FIXED_HEADERS = (
    (b"content-type", b"application/json"),
    # Bytes are relayed as they come, so they must come uncompressed.
    (b"accept-encoding", b"identity"),
)
