"""The page of dialects, against what the code does."""

import json
from types import ModuleType
from typing import Any, get_type_hints

import msgspec
import pytest
from msgspec import Raw, UnsetType

from tidegate.wire.anthropic import request as messages
from tidegate.wire.anthropic import shapes as anthropic
from tidegate.wire.errors import BadRequest
from tidegate.wire.fate import Fate, Field, top_level
from tidegate.wire.ollama import request as ollama
from tidegate.wire.ollama import shapes as ollama_shapes
from tidegate.wire.responses import request as responses
from tidegate.wire.responses import shapes as responses_shapes

HI = [{"role": "user", "content": "hi"}]
DIALECTS: dict[str, tuple[Any, tuple[Field, ...], dict[str, Any]]] = {
    "messages": (messages.parse, anthropic.FIELDS, {"model": "m", "max_tokens": 9, "messages": HI}),
    "responses": (responses.parse, responses_shapes.FIELDS, {"model": "m", "input": "hi"}),
    "chat": (ollama.parse_chat, ollama_shapes.CHAT, {"model": "m", "messages": HI}),
    "generate": (ollama.parse_generate, ollama_shapes.GENERATE, {"model": "m", "prompt": "hi"}),
}
FATES = [
    pytest.param(kind, name, fate, id=f"{kind}-{name}")
    for kind, (_, fields, _) in DIALECTS.items()
    for fate in (Fate.NATIVE, Fate.SET_ASIDE, Fate.REFUSED)
    for name in top_level(fields, fate)
]


@pytest.mark.parametrize(("kind", "name", "fate"), FATES)
def test_a_field_has_the_fate_that_the_page_tells(kind: str, name: str, fate: Fate) -> None:
    parse, _, body = DIALECTS[kind]
    data = json.dumps({**body, name: "anything"}).encode()
    if fate is Fate.REFUSED:
        with pytest.raises(BadRequest) as caught:
            parse(data)
        assert caught.value.param == name
        return
    call = parse(data)
    plain = parse(json.dumps(body).encode())
    assert call.fields == plain.fields
    if fate is Fate.NATIVE:
        assert call.native is not None
        assert bytes(call.native.fields[name]) == b'"anything"'


@pytest.mark.parametrize("kind", DIALECTS)
def test_no_field_stands_on_the_page_twice(kind: str) -> None:
    paths = [field.path for field in DIALECTS[kind][1]]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize(
    ("module", "fields"), [(anthropic, anthropic.FIELDS), (responses_shapes, responses_shapes.FIELDS)]
)
def test_what_is_decoded_and_never_looked_at_is_on_the_page(module: ModuleType, fields: tuple[Field, ...]) -> None:
    told = " ".join(f"{field.path} {field.note}" for field in fields)
    unseen = {
        name
        for made in vars(module).values()
        if isinstance(made, type) and issubclass(made, msgspec.Struct)
        for name, hint in get_type_hints(made).items()
        if hint == Raw | UnsetType
    }
    assert unseen
    assert {name for name in unseen if name not in told} == set()


@pytest.mark.parametrize("kind", DIALECTS)
def test_what_the_page_calls_carried_is_what_is_decoded(kind: str) -> None:
    decoded = {
        "messages": anthropic.Body,
        "responses": responses_shapes.Body,
        "chat": ollama_shapes.ChatBody,
        "generate": ollama_shapes.GenerateBody,
    }[kind]
    assert set(top_level(DIALECTS[kind][1], Fate.CARRIED)) == set(decoded.__struct_fields__)
