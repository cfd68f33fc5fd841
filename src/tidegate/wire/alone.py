"""A prompt that one engine computes for another: how it is asked for alone, and how the rest is asked for there.

Both have to come to the same tokens: whatever of a request is in its prompt stays as it is. llama.cpp is told the slot
whose content couriers carry. vLLM's engines fetch KV caches from each other, and say whence in parameters of their own,
which whoever asks them hands on: the opaque word of one engine to another.
"""

import msgspec
from msgspec import Raw

from tidegate.wire.call import Call, Native
from tidegate.wire.errors import UNREADABLE

# Bounds on the tokens of the output, by the other names that engines have for them.
_BOUNDS = ("max_completion_tokens", "n_predict", "min_tokens")
_ONE = Raw(b"1")
_TRUE = Raw(b"true")
_NULL = Raw(b"null")

_FETCHING = "kv_transfer_params"
# What a vLLM takes for the word of another: KV caches, and what was made of images.
OF_ENGINES = frozenset((_FETCHING, "ec_transfer_params"))
# By this clients give it arguments of any name. Among them these would be neither checked nor expected to be text, over
# which its connectors fall.
ARGUMENTS = "vllm_xargs"
# As vLLM's own proxies ask: nothing is to be fetched, and what is computed is kept until somebody has.
_KEEP = Raw(
    b'{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,'
    b'"remote_host":null,"remote_port":null}'
)
# Numbers of blocks, and with some connectors those of the tokens: a million of them has 7 MB.
FETCHING_BYTES_MAX = 8 << 20


def alone(call: Call, slot: int) -> Call:
    """The same for one token, which nobody gets, in this slot of llama.cpp."""
    return _one_token(call, _in(slot), stream=True)


def in_slot(call: Call, slot: int) -> Call:
    """The same in this slot of llama.cpp, with what it has there."""
    return msgspec.structs.replace(call, fields=call.fields | _in(slot))


def kept(call: Call) -> Call:
    """The same for one token, which nobody gets, of a vLLM that keeps the KV cache for another. What is to be told that
    one comes with an answer given whole, and not in a stream."""
    return _one_token(call, {_FETCHING: _KEEP}, stream=False)


def fetching(call: Call, told: Raw | None) -> Call:
    """The same of a vLLM that is `told` whence it gets the KV cache, or of any engine. Nobody else tells one: by these
    parameters a client could have it fetch what is another's, from wherever it likes."""
    fields, native = _own(call.fields), _own_native(call.native)
    if told is not None:
        fields = fields | {_FETCHING: told}
    if fields is call.fields and native is call.native:
        return call
    return msgspec.structs.replace(call, fields=fields, native=native)


def told(answer: bytes) -> Raw | None:
    """What a vLLM that keeps a KV cache has to tell who fetches it; None where that needs to know nothing, as with a
    store that both use. ValueError for what no vLLM says."""
    if len(answer) > FETCHING_BYTES_MAX:
        raise ValueError("beyond any bound")
    try:
        said = _decode_any(_decode(answer).get(_FETCHING, _NULL))
    except UNREADABLE as error:
        raise ValueError("not an object") from error
    if said is None:
        return None
    # vLLM 0.32 would tell the other's cached tokens for its own, and nobody knew whether anything was fetched.
    said.pop("remote_prefill_cached_tokens", None)
    return Raw(msgspec.json.encode(said))


_decode = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_any = msgspec.json.Decoder(dict[str, Raw] | None).decode


def _own(fields: dict[str, Raw]) -> dict[str, Raw]:
    """Without what only engines say to each other; the same where there is none of it."""
    if OF_ENGINES.isdisjoint(fields) and ARGUMENTS not in fields:
        return fields
    own = {name: value for name, value in fields.items() if name not in OF_ENGINES}
    try:
        more = _decode_any(own.get(ARGUMENTS, _NULL))
    except UNREADABLE:
        return own  # the engine says what is wrong with it
    if more is not None and not OF_ENGINES.isdisjoint(more):
        kept = {name: value for name, value in more.items() if name not in OF_ENGINES}
        own[ARGUMENTS] = Raw(msgspec.json.encode(kept))
    return own


def _own_native(native: Native | None) -> Native | None:
    """The same of what goes on as it came to an engine of the client's own dialect: vLLM speaks several."""
    if native is None:
        return None
    fields = _own(native.fields)
    return native if fields is native.fields else msgspec.structs.replace(native, fields=fields)


def _one_token(call: Call, fields: dict[str, Raw], *, stream: bool) -> Call:
    kept = {name: value for name, value in _own(call.fields).items() if name not in _BOUNDS}
    kept |= {"max_tokens": _ONE} | fields
    # What a client of another dialect has sent goes there as OpenAI's: it is the hub that is told of a slot.
    return msgspec.structs.replace(call, fields=kept, stream=stream, output_tokens_max=1, native=None)


def _in(slot: int) -> dict[str, Raw]:
    return {"id_slot": Raw(msgspec.json.encode(slot)), "cache_prompt": _TRUE}
