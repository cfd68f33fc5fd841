"""Google's Gemini, over its OpenAI address.

Gemini 3 signs the calls of tools that it makes (`extra_content.google.thought_signature`), and refuses a message whose
first call comes back without. Calls of another model have no signature, and clients of other dialects have no place for
one: for these Google names a word that stands for it (ai.google.dev/gemini-api/docs/thought-signatures, FAQs).
"""

import re
from collections.abc import Sequence

import msgspec
from msgspec import Raw, structs

from tidegate.engines.base import Header, Outgoing
from tidegate.engines.openai import OpenAI, without_cache_key
from tidegate.wire.errors import UNREADABLE
from tidegate.wire.openai import Call

_UNSIGNED = Raw(b'{"google":{"thought_signature":"skip_thought_signature_validator"}}')
# Those before the third generation sign nothing that they want back. Other makers' models are at Google's cloud too.
_SIGNS = re.compile(r"gemini-(?![12]\b)", re.IGNORECASE)
_NULL = Raw(b"null")
_messages = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_calls = msgspec.json.Decoder(list[dict[str, Raw]] | None).decode


class Google:
    """The OpenAI dialect as Google speaks it."""

    name = "openai"
    fetches = False
    continuing = None  # as of the plain dialect

    def __init__(self, base_path: str, model: str | None) -> None:
        """See `OpenAI`."""
        self._openai = OpenAI(base_path, model)
        self.failure = self._openai.failure
        self.headers = self._openai.headers
        self.probes = self._openai.probes
        self.signals = self._openai.signals
        self.translator = self._openai.translator

    def outgoing(self, call: Call, model: str, headers: Sequence[Header]) -> Outgoing:
        """See `Dialect`. A signature that is there stays; the first call of a message alone needs one.

        A field that Google does not know it refuses, `prompt_cache_key` among them.
        """
        messages = call.fields.get("messages")
        if messages is not None and _SIGNS.search(model) and b'"tool_calls"' in bytes(messages):
            call = structs.replace(call, fields={**call.fields, "messages": _signed(messages)})
        return self._openai.outgoing(without_cache_key(call), model, headers)


def _signed(messages: Raw) -> Raw:
    """The messages, none without a signature that needs one; as they came where they are not what Google takes."""
    try:
        found = _messages(messages)
        for message in found:
            calls = _calls(message.get("tool_calls", _NULL))
            if calls and calls[0].get("extra_content", _NULL) == _NULL:
                signed = {**calls[0], "extra_content": _UNSIGNED}
                message["tool_calls"] = Raw(msgspec.json.encode([signed, *calls[1:]]))
    except UNREADABLE:
        return messages
    return Raw(msgspec.json.encode(found))
