"""From what was found on this machine to the configuration that serves it: the text of a `tidegate.toml`.

Serving without a file reads this text as if it were one, so that writing it down changes nothing.
"""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum

from tidegate.config.address import Url, is_loopback, parse_url
from tidegate.config.defaults import defaults
from tidegate.config.endpoint import EngineKind
from tidegate.config.vendors import Offered, Remote
from tidegate.core.model import Capability, Record

HERE, NETWORK = "here", "network"
"""The sites of engines of one's own: on this machine, and in its network."""

ENABLE = "tidegate serve --allow-remote --budget-usd-day 5"
"""What enables remote endpoints."""

# A chat with a short document fits; what the engine really has is known to who started it.
ASSUMED_TOKENS = 4096
# More than llama.cpp is often started with, so that what it tells later is less and holds, and no flood until then.
UNTOLD_SLOTS = 16
NAME_CHARS_MAX = 64
# Two seconds is the shortest time between probes that llama.cpp bears; each model of an engine has its own probes.
PROBE_S, PROBE_S_MAX = 5, 60
_LATEST = ":latest"
_NO_NAME = re.compile(r"[^a-z0-9._-]+")


_HEAD = """\
# Made by `tidegate discover`: what it found. Every setting is in docs/reference/configuration.md.
# Clients reach it at http://127.0.0.1:8400/v1; what stands under the same name in `serves` is one model for them.
"""


class State(StrEnum):
    """How an engine was found."""

    READY = "ready"
    STARTING = "starting"
    LOCKED = "locked"  # it wants a key, and gets none


class FoundModel(Record, frozen=True, kw_only=True):
    """A model that an engine lists. None is unknown. It takes `tools` unless its engine tells otherwise. `remark` says
    why it is not served, and is empty where it is."""

    name: str
    context_tokens: int | None = None
    vision: bool = False
    tools: bool = True
    remark: str = ""


class FoundEngine(Record, frozen=True, kw_only=True):
    """An engine that answered. `software` is its name for people, `slots` how many requests it says to run at once.

    `left_out` counts models beyond the bound.
    """

    url: str
    kind: EngineKind
    software: str
    state: State
    models: tuple[FoundModel, ...]
    slots: int | None = None
    left_out: int = 0

    @property
    def served(self) -> tuple[FoundModel, ...]:
        """The models that requests can go to."""
        return () if self.state is State.LOCKED else tuple(model for model in self.models if not model.remark)

    @property
    def site(self) -> str:
        """Where it stands."""
        return HERE if is_loopback(parse_url(self.url).host) else NETWORK


def toml(engines: Sequence[FoundEngine], remotes: Sequence[Remote], usd_per_day: float | None) -> str:
    """The configuration as TOML, with comments. Remote endpoints are commented out without `usd_per_day`.

    Keys of vendors are named by their variables and never stand in it.
    """
    served = [engine for engine in engines if engine.served]
    parts = [_HEAD]
    parts += [f"[site.{site}]\nlocal = true\n" for site in sorted({engine.site for engine in served})]
    names = _Names()
    for engine in served:
        parts += _engine(engine, names)
    payable = [remote for remote in remotes if remote.usable]
    if payable:
        parts += _remotes(payable, served_names(served), names, usd_per_day)
    return "\n".join(parts)


def remote_name(model: Offered, remote: Remote, local_names: Collection[str]) -> str:
    """The name under which a remote model is served: its own, unless an engine here has that.

    What is asked of an engine here must not go away because a vendor uses the same name.
    """
    name = model.name
    while name in local_names:
        name = f"{remote.vendor.name}/{name}"
    return name


def served_names(engines: Iterable[FoundEngine]) -> set[str]:
    """All names that engines of one's own answer to."""
    return {name for engine in engines for model in engine.served for name in _called(engine, model)}


def _called(engine: FoundEngine, model: FoundModel) -> list[str]:
    """What clients may call it. In Ollama, a name without a tag is the latest."""
    if engine.kind is EngineKind.OLLAMA and model.name.endswith(_LATEST):
        return [model.name, model.name.removesuffix(_LATEST)]
    return [model.name]


class _Names:
    """Makes names of endpoints, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def make(self, *words: str) -> str:
        """Of these words, in letters that a name may have."""
        whole = "-".join(filter(None, (_NO_NAME.sub("-", word.lower()).strip("-._") for word in words)))
        name, count = whole[:NAME_CHARS_MAX], 1
        while name in self._taken:
            count += 1
            ending = f"-{count}"
            name = whole[: NAME_CHARS_MAX - len(ending)] + ending
        self._taken.add(name)
        return name


def _engine(engine: FoundEngine, names: _Names) -> list[str]:
    url = parse_url(engine.url)
    several = len(engine.served) > 1
    parts = [f"# {engine.software} at {url}, {engine.state.value} when it was found.\n"]
    for model in engine.served:
        name = names.make(engine.kind.value, _place(url), model.name if several else "")
        lines = [
            f"[endpoint.{_key(name)}]",
            f'site = "{engine.site}"',
            f'engine = "{engine.kind.value}"',
            f"url = {_text(engine.url)}",
            f"model = {_text(model.name)}",
            f"serves = [{', '.join(_text(one) for one in _called(engine, model))}]",
            *_window(engine, model),
            *_abilities(engine, model),
        ]
        if engine.slots is not None:
            lines.append(f"concurrency = {engine.slots}  # as many as it says to run at once")
        elif engine.kind is EngineKind.LLAMACPP:
            lines.append(f"concurrency = {UNTOLD_SLOTS}  # until it says how many it runs at once")
        if several:
            probe_s = min(PROBE_S_MAX, PROBE_S * len(engine.served))
            lines.append(f"probe_s = {probe_s}  # each of its models is asked for, and together not too often")
        parts.append("\n".join(lines) + "\n")
    return parts


def _place(url: Url) -> str:
    """What tells this address from others, without saying 127.0.0.1 each time."""
    return str(url.port) if is_loopback(url.host) else f"{url.host}-{url.port}"


def _window(engine: FoundEngine, model: FoundModel) -> list[str]:
    if defaults(engine.kind, local=True).context_tokens is not None:
        told = "it was not told yet" if model.context_tokens is None else f"{model.context_tokens} when it was found"
        return [f"# context_tokens is asked for: {told}"]
    if model.context_tokens is None:
        return [f"context_tokens = {ASSUMED_TOKENS}  # assumed, as it does not tell: write what it was started with"]
    return [f"context_tokens = {model.context_tokens}"]


def _abilities(engine: FoundEngine, model: FoundModel) -> list[str]:
    usual = frozenset(defaults(engine.kind, local=True).capabilities)
    able = usual | {Capability.VISION} if model.vision else usual
    if not model.tools:
        able -= {Capability.TOOLS}
    if able == usual:
        return []
    return [f"capabilities = [{', '.join(_text(one.value) for one in sorted(able))}]"]


def _remotes(
    payable: Sequence[Remote], local_names: Collection[str], names: _Names, usd_per_day: float | None
) -> list[str]:
    enabled = usd_per_day is not None
    parts = ["# What costs money. Prices are the vendors' own, from the list in genai-prices.\n"]
    if not enabled:
        parts = [
            "# Not enabled: nothing below is used, or sent anything, until the marks are removed and a budget is set.\n"
            f"# Without a file, the same is: {ENABLE}\n"
        ]
    tables = [f"[budget]\nusd_per_day = {5.0 if usd_per_day is None else usd_per_day!r}\n"]
    for remote in payable:
        tables.append(f"[site.{remote.vendor.name}]\nlocal = false\n")
        tables += [_remote(remote, model, local_names, names) for model in remote.usable]
    return parts + [table if enabled else _commented(table) for table in tables]


def _remote(remote: Remote, model: Offered, local_names: Collection[str], names: _Names) -> str:
    vendor = remote.vendor
    lines = [
        f"[endpoint.{_key(names.make(vendor.name, model.name))}]",
        f'site = "{vendor.name}"',
        f'engine = "{vendor.engine.value}"',
        f'url = "{vendor.url}"',
        f"model = {_text(model.name)}",
        f"serves = [{_text(remote_name(model, remote, local_names))}]",
        f"context_tokens = {model.context_tokens}",
        *_output(model),
        f'api_key_env = "{vendor.variable}"',
        f'price = {{ provider = "{vendor.provider}" }}',
    ]
    return "\n".join(lines) + "\n"


def _output(model: Offered) -> list[str]:
    return [] if model.output_tokens_max is None else [f"output_tokens_max = {model.output_tokens_max}"]


def _commented(table: str) -> str:
    return "".join(f"# {line}\n" for line in table.splitlines())


def _key(name: str) -> str:
    return _text(name) if "." in name else name


def _text(text: str) -> str:
    """A string in TOML: names are printable ASCII, for which JSON's quoting is the same."""
    return json.dumps(text)
