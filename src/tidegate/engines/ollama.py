"""Ollama, over its OpenAI address (`/v1`) rather than its own.

What passes is untouched bytes, with nothing to translate and nothing to lose, and errors and usage have the usual
shape. And `/v1` has no `num_ctx`: a window other than the loaded one would make Ollama load the model anew, and cannot
be asked for by mistake. A prompt beyond the window is cut by Ollama without a word, so the window matters.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from tidegate.config.away import in_ollamas_cloud
from tidegate.core.fingerprint import text
from tidegate.core.model import Fingerprint
from tidegate.engines import names
from tidegate.engines.base import Header, Outgoing, ProbeAnswer, ProbeRequest, Signals, narrowest, read, recognised
from tidegate.engines.openai import OpenAI, by_older_name, with_reasoning, without
from tidegate.engines.tools import of_one_tool
from tidegate.wire.ollama.models import tagged
from tidegate.wire.openai import Call

_NO_TOOL = Raw(b'"none"')
# Of OpenAI's efforts it refuses some: the nearest that every build knows.
_EFFORTS = {b'"minimal"': Raw(b'"low"'), b'"xhigh"': Raw(b'"high"')}


class _Loaded(msgspec.Struct):
    name: str = ""
    model: str = ""
    context_length: int | None = None


class _Running(msgspec.Struct):
    models: list[_Loaded] | None = None


class _Details(msgspec.Struct):
    quantization_level: str = ""
    parameter_size: str = ""


class _Tag(msgspec.Struct):
    """A model on its disk. The digest is that of its manifest: of weights, template and parameters together."""

    name: str = ""
    model: str = ""
    digest: str = ""
    details: _Details | None = None


class _Tags(msgspec.Struct):
    models: list[_Tag] | None = None


class _Version(msgspec.Struct):
    version: str = ""


class Ollama:
    """The OpenAI dialect as Ollama speaks it."""

    name = "ollama"
    fetches = False
    continuing = None  # whether it goes on with a last message is up to the template of each model

    def __init__(self, base_path: str, model: str | None) -> None:
        """See `OpenAI`. `model` without a tag is its latest, as everywhere in Ollama."""
        self._base = base_path.rstrip("/").removesuffix("/v1").encode()
        # Whatever a path ends in, these add `/v1` to it.
        self._openai = OpenAI(f"{self._base.decode()}/v1", model)
        self._model = None if model is None else _plain(model)
        self.failure = self._openai.failure
        self.headers = self._openai.headers
        self.translator = self._openai.translator

    def outgoing(self, call: Call, model: str, headers: Sequence[Header]) -> Outgoing:
        """See `Dialect`. Ollama passes over `max_completion_tokens` and `reasoning_content`."""
        call = with_reasoning(by_older_name(call))
        # It passes over the choice of a tool, too: where none is to be called, it is told of none.
        none = call.fields.get("tool_choice") == _NO_TOOL and "tools" in call.fields
        call = without(call, "tools", "tool_choice") if none else of_one_tool(call)
        if "reasoning_effort" in call.fields:
            effort = call.fields["reasoning_effort"]
            fields = {**call.fields, "reasoning_effort": _EFFORTS.get(bytes(effort), effort)}
            call = msgspec.structs.replace(call, fields=fields)
        return self._openai.outgoing(call, model, headers)

    def probes(self) -> tuple[ProbeRequest, ...]:
        """See `Dialect`. None of them loads a model.

        Not `/api/show`: it tells the window that a model was trained for, which is rarely the one that it runs with.
        """
        return (
            ProbeRequest(target=self._base + b"/api/version", essential=True),
            ProbeRequest(target=self._base + b"/api/ps"),
            ProbeRequest(target=self._base + b"/api/tags"),
        )

    def signals(self, answers: Sequence[ProbeAnswer | None]) -> Signals:
        """See `Dialect`. A window is known while the model is loaded; how much runs, Ollama does not tell.

        What it is loading it lists as if it were there. It is down for a model that it has not on its disk, and would
        not fetch; of its cloud's it need not have any.
        """
        version, running, tags = answers
        if version is None or version.status != 200:
            return Signals(up=False)
        kept = read(tags, _Tags).models or ()
        if self._model is not None and kept and not in_ollamas_cloud(self._model) and self._tag(kept) is None:
            return Signals(up=False, resident=False, lacks=self._model)
        loaded = read(running, _Running).models
        mine = [m for m in loaded or () if self._model in (None, _plain(m.name), _plain(m.model))]
        window = narrowest(m.context_length for m in mine)
        return Signals(
            up=True,
            context_tokens=window,
            fingerprint=recognised(self._fingerprint(version, kept, window)),
            # Which of its models an endpoint without a name of its own will be asked for, nobody knows.
            resident=None if loaded is None or self._model is None else bool(mine),
        )

    def _tag(self, kept: Sequence[_Tag]) -> _Tag | None:
        """What is told of the endpoint's model, of all that are on its disk."""
        return next((m for m in kept if self._model in (_plain(m.name), _plain(m.model))), None)

    def _fingerprint(self, version: ProbeAnswer, kept: Sequence[_Tag], window: int | None) -> Fingerprint:
        tag = self._tag(kept) or _Tag()
        details = tag.details or _Details()
        return Fingerprint(
            weights=text(f"ollama:{tag.digest}") if tag.digest else "",
            quantisation=names.quantisation(details.quantization_level),
            parameters=names.count(details.parameter_size),
            context_tokens=window,
            engine=names.build("Ollama", read(version, _Version).version),
        )


def _plain(name: str) -> str:
    """The name as Ollama lists it: with a tag, without what is the same for most, and in whatever letters."""
    return tagged(name).lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
