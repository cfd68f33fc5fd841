"""The hub's messages and tools as types: what engines' other dialects can say of them. What is not here is refused."""

from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tidegate.wire.hub import Detail

_Ignored = Raw | UnsetType


class _Part(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", gc=False, kw_only=True):
    """Any part. `cache_control` is the vendor's own hint, which its clients put into chats as well."""

    cache_control: _Ignored = UNSET


class TextPart(_Part, tag="text"):
    """Text."""

    text: str


class RefusalPart(_Part, tag="refusal"):
    """The model said no."""

    refusal: str


class ImageUrl(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Where an image is; `data:` is the image itself."""

    url: str
    detail: str | None = None


class ImagePart(_Part, tag="image_url"):
    """An image."""

    image_url: ImageUrl


class _HubMessage(msgspec.Struct, forbid_unknown_fields=True, tag_field="role", gc=False, kw_only=True):
    """Any message. `cache_control` as of parts: some clients have it here."""

    cache_control: _Ignored = UNSET


class HubSystem(_HubMessage, tag="system"):
    """An instruction."""

    content: str | list[TextPart]
    name: str | None = None


class HubDeveloper(_HubMessage, tag="developer"):
    """An instruction, by its newer name."""

    content: str | list[TextPart]
    name: str | None = None


class HubUser(_HubMessage, tag="user"):
    """What the user said."""

    content: str | list[TextPart | ImagePart]
    name: str | None = None


class HubTool(_HubMessage, tag="tool"):
    """What came of a call."""

    tool_call_id: str
    content: str | list[TextPart | ImagePart]
    name: str | None = None


class HubFunction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What was called. Arguments are JSON in a string."""

    name: str
    arguments: str
    parsed_arguments: _Ignored = UNSET


class HubCall(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A call that the model made."""

    id: str
    function: HubFunction
    type: Literal["function"] = "function"
    index: int | None = None
    cache_control: _Ignored = UNSET
    # Google's, with the signatures of Gemini.
    extra_content: _Ignored = UNSET


class HubAssistant(_HubMessage, tag="assistant"):
    """What the model said."""

    content: str | list[TextPart | RefusalPart] | None = None
    refusal: str | None = None
    tool_calls: list[HubCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Detail] | None = None
    annotations: _Ignored = UNSET
    parsed: _Ignored = UNSET
    extra_content: _Ignored = UNSET
    # vLLM says so of each answer, and clients send it back as it came.
    audio: None = None
    function_call: None = None
    name: str | None = None


HubMessage = HubSystem | HubDeveloper | HubUser | HubTool | HubAssistant


class ToolFunction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A function of the client's own."""

    name: str
    description: str | UnsetType | None = UNSET
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None
    cache_control: _Ignored = UNSET


class FunctionTool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A tool. `cache_control` as of parts: some clients have it here, and some at the function."""

    type: Literal["function"]
    function: ToolFunction
    cache_control: _Ignored = UNSET


class Named(msgspec.Struct, gc=False):
    """A function by its name."""

    name: str


class ChosenTool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The tool to be called."""

    type: Literal["function"]
    function: Named
