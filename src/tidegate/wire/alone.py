"""A prompt that one engine computes for another: how it is asked for alone, and how the rest is asked for in its slot.

Both have to come to the same tokens: whatever of a request is in its prompt stays as it is.
"""

import msgspec
from msgspec import Raw

from tidegate.wire.call import Call

# Bounds on the tokens of the output, by the other names that engines have for them.
_BOUNDS = ("max_completion_tokens", "n_predict", "min_tokens")
_ONE = Raw(b"1")
_TRUE = Raw(b"true")


def alone(call: Call, slot: int) -> Call:
    """The same for one token, which nobody gets, in this slot of llama.cpp."""
    fields = {name: value for name, value in call.fields.items() if name not in _BOUNDS}
    fields |= {"max_tokens": _ONE} | _in(slot)
    # What a client of another dialect has sent goes there as OpenAI's: it is the hub that has a slot.
    return msgspec.structs.replace(call, fields=fields, stream=True, output_tokens_max=1, native=None)


def in_slot(call: Call, slot: int) -> Call:
    """The same in this slot of llama.cpp, with what it has there."""
    return msgspec.structs.replace(call, fields=call.fields | _in(slot))


def _in(slot: int) -> dict[str, Raw]:
    return {"id_slot": Raw(msgspec.json.encode(slot)), "cache_prompt": _TRUE}
