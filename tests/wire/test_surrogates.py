"""Half of a surrogate pair, alone: what every other reader of JSON takes."""

import json
import re
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tidegate.wire.errors import UNREADABLE
from tidegate.wire.shape import read_fields
from tidegate.wire.surrogates import HALVES_MAX, decoded, replace_lone_surrogates

PIECES = [
    r"\ud83d",
    r"\uDE00",
    r"\uD800",
    r"\udfff",
    r"\u00e9",
    r"\ufffd",
    r"\\",
    r"\"",
    r"\n",
    "ud83d",
    "u",
    "é",
    "😀",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_each_half_alone_is_replaced_and_all_else_stands_where_it_stood(text: str) -> None:
    data = f'{{"a":"{text}"}}'.encode()
    found = replace_lone_surrogates(data)
    assert len(found) == len(data)
    assert msgspec.json.decode(found) == {"a": re.sub("[\ud800-\udfff]", "\ufffd", json.loads(data)["a"])}
    assert replace_lone_surrogates(found) == found


def replaced(data: bytes) -> tuple[bytes, int]:
    """What comes of it, and the most memory that it took meanwhile."""
    tracemalloc.start()
    try:
        return replace_lone_surrogates(data), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("piece", [b"\\", b"\\\\n", b'\\"', b"\\u00e9"])
def test_a_long_row_of_escapes_takes_time_and_memory_in_proportion(piece: bytes) -> None:
    data = rb"\ud83d" + piece * (2_000_000 // len(piece))
    found, peak_bytes = replaced(data)
    assert found == rb"\ufffd" + data[6:]
    assert peak_bytes < 4 * len(data)


@pytest.mark.parametrize("half", [rb"\ud83d", rb"\uDE00", rb"\ud83da"])
def test_of_more_halves_than_any_text_has_so_many_are_replaced_and_the_rest_stand(half: bytes) -> None:
    data = half * 1_000_000
    found, peak_bytes = replaced(data)
    assert found == half.replace(half[:6], rb"\ufffd") * HALVES_MAX + half * (1_000_000 - HALVES_MAX)
    assert peak_bytes < 8 * len(data)
    with pytest.raises(UNREADABLE):
        decoded(msgspec.json.decode, b'"%b"' % data)


@pytest.mark.parametrize("data", [b'["\\ud83d", \0\0]', b'["\0\0\\ud83d"]'])
def test_bytes_that_no_json_has_become_nothing_that_it_has(data: bytes) -> None:
    with pytest.raises(UNREADABLE):
        decoded(msgspec.json.decode, data)


def test_a_request_is_read_on_from_the_body_without_halves() -> None:
    fields, body = read_fields(rb'{"a":["\ud83d"]}')
    assert (fields, body) == ({"a": Raw(rb'["\ufffd"]')}, rb'{"a":["\ufffd"]}')
    sound = rb'{"a":["\ud83d\ude00"]}'
    assert read_fields(sound)[1] is sound


def test_what_has_none_is_handed_back_uncopied() -> None:
    data = b"\\" * 2_000_000
    assert replace_lone_surrogates(data) is data


class Decoder:
    """Decodes JSON, and knows how often."""

    def __init__(self) -> None:
        self.calls = 0

    def decode(self, data: bytes) -> object:
        self.calls += 1
        return msgspec.json.decode(data)


def test_what_cannot_be_read_for_a_half_alone_is_read_without_it() -> None:
    decoder = Decoder()
    assert decoded(decoder.decode, rb'["a\ud83d"]') == ["a\ufffd"]
    assert decoder.calls == 2


@pytest.mark.parametrize("data", [b"[", b'["a"', rb'["\ud83d\ude00"', rb'["\\ud83d"'])
def test_what_cannot_be_read_for_another_reason_is_not_read_twice(data: bytes) -> None:
    decoder = Decoder()
    with pytest.raises(UNREADABLE):
        decoded(decoder.decode, data)
    assert decoder.calls == 1
