"""Half of a surrogate pair, alone: what every other reader of JSON takes."""

import json
import re

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tidegate.wire.surrogates import replace_lone_surrogates

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


def test_a_row_of_backslashes_takes_time_in_proportion() -> None:
    data = b"\\" * 2_000_000
    assert replace_lone_surrogates(data) == data
