"""What another gateway served, as the journal that this one would have written of it: its decisions are the other's."""

import re
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from math import inf
from urllib.parse import urlsplit

import msgspec

from tidegate.config.address import Url
from tidegate.config.build import Built, Upstream, build
from tidegate.config.cap import Cap
from tidegate.config.config import Config
from tidegate.config.listed import provider_of
from tidegate.config.schema import INTERACTIVE
from tidegate.core.classify import base_of, classify
from tidegate.core.health import CLIENT_ERROR
from tidegate.core.model import (
    JOURNAL_VERSION,
    Decision,
    Ended,
    Ending,
    Endpoint,
    FirstToken,
    Line,
    Policy,
    Request,
    Run,
    Segment,
    replace,
)
from tidegate.core.plan import WHOLE_S
from tidegate.core.router import Router
from tidegate.core.sending import started
from tidegate.core.why import Why
from tidegate.sim.foreign import Served, Unused
from tidegate.wire.digest import SALT_BYTES
from tidegate.wire.errors import BadRequest
from tidegate.wire.intake import ClassTable, intake
from tidegate.wire.openai import NO_BYTES, Call, parse
from tidegate.wire.tokens import PRIOR_BYTES_PER_TOKEN, TokenRatio

# Of a longer log the last so many: two a second all day long.
REQUESTS_MAX = 200_000
# Who is tried again is so within this.
RETRY_S = 60.0
# A key that is a secret is told apart, and not told. What may be either, as a UUID, is taken for one: a name that is
# not shown can be looked up in the log, and a secret that was shown has to be changed.
_SECRETS = re.compile(
    r"(?<![a-z0-9])sk[-_]"  # no `task-` or `desk-`
    r"|\bbearer\s|\b(?:basic|token)\s+\S{8,}"  # no "Basic plan"
    r"|(?:key|password|secret|token)\s*[:=]"
    r"|(?<![a-z0-9])(?-i:eyJ)"  # how a JWT begins
    r"|[a-z0-9+/_=-]{32,}",
    re.IGNORECASE,
)
_ASKED = ("messages", "prompt", "tools", "functions", "max_tokens", "max_completion_tokens", "n", "stream")
_PORTS = {"https": 443, "http": 80}
_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 - an address to compare with, not to listen at
# Names that are told of, of those that fit nothing.
STRANGERS_MAX = 8


class AdoptError(Exception):
    """Nothing of the log can be used; the message says why."""


class By(StrEnum):
    """What says which endpoint served a record."""

    SAID = "--at"
    NAME = "its name"
    ADDRESS = "its address"
    MODEL = "what its model is called"


class Adopted(msgspec.Struct, kw_only=True):
    """The journal, and what is in no line of it.

    All that is decided here may spend `caps`, which are to last where they are `paced`. `where` each request went, by
    id, how many were `placed` at each endpoint by what, and what was `billed` for it, where that was told. Of some
    `unseen` nobody saw first content. Of an engine whose window is asked for, which a log cannot be, so many prompts
    were `too_long` for the usual one. `unused` counts records by reason, `strangers` what served others that is no
    endpoint, or was asked for and is no model here.
    """

    lines: list[Line]
    endpoints: tuple[Endpoint, ...]
    policy: Policy
    caps: tuple[Cap, ...]
    paced: bool
    where: dict[str, str]
    placed: Counter[tuple[str, By]]
    billed: dict[str, float]
    unseen: int
    too_long: Counter[str]
    records: int
    unused: Counter[Unused]
    strangers: Counter[str]


class _Kept(msgspec.Struct, frozen=True):
    """One request that can be used, and what came of it."""

    request: Request
    endpoint: str
    by: By
    served: Served


def adopt(records: Iterable[Served | Unused], config: Config, at: Mapping[str, str] | None = None) -> Adopted:
    """The journal of a log, for this configuration. `at` says which endpoint an address, a host or a deployment is.

    Prices are those in force when it begins. Raises `AdoptError` where nothing of it can be used.
    """
    reading: _Reading | None = None
    unused, count = Counter[Unused](), 0
    for record in records:
        count += 1
        if isinstance(record, Unused):
            unused[record] += 1
            continue
        if reading is None:
            reading = _Reading(config, build(config, record.arrived_s), at or {})
        why = reading.take(record)
        if why is not None:
            unused[why] += 1
    if reading is None or not reading.kept:
        raise AdoptError(_nothing(count, unused, Counter() if reading is None else reading.strangers))
    return reading.over(count, unused)


class _Reading:
    def __init__(self, config: Config, built: Built, at: Mapping[str, str]) -> None:
        self._config, self._built, self._at = config, built, at
        # Whoever has what is written of it cannot guess prompts.
        self._salt = secrets.token_bytes(SALT_BYTES)
        self._table = ClassTable(classes=built.classes, default=INTERACTIVE, rules=built.rules)
        self._served = {name for endpoint in built.endpoints for name in endpoint.models}
        self._endpoints = {endpoint.name: endpoint for endpoint in built.endpoints}
        self.kept: dict[str, _Kept] = {}
        self.strangers: Counter[str] = Counter()
        self.retried = self.older = 0
        # Nothing that came before is taken any more.
        self._since_s = -inf

    def take(self, record: Served) -> Unused | None:
        """One more record; why it cannot be used, None where it can."""
        if record.arrived_s < self._since_s:
            return Unused.OLDER
        known = self.kept.get(record.id)
        if known is not None and (known.served.ok or not record.ok):
            return Unused.AGAIN
        found = self._endpoint(record)
        if found is None:
            self.strangers[_shown(record.base) or record.deployment] += 1
            return Unused.ELSEWHERE
        endpoint, by = found
        model = self._model(record, endpoint)
        if model is None:
            self.strangers[record.model] += 1
            return Unused.UNSERVED
        request = self._request(record, model)
        if request is None or (record.ok and record.output_tokens is None):
            return Unused.NO_TOKENS
        if known is not None:
            # LiteLLM's attempts at one request have its id.
            self.retried += 1
        # Its prompt is needed no more.
        self.kept[record.id] = _Kept(request, endpoint.name, by, msgspec.structs.replace(record, fields={}, headers={}))
        if len(self.kept) >= 2 * REQUESTS_MAX:
            # A log may be of a year.
            last = self._last()
            self.kept = {one.served.id: one for one in last}
            self._since_s = last[0].request.arrived_s
        return None

    def over(self, records: int, unused: Counter[Unused]) -> Adopted:
        """All of them were read."""
        kept = self._last()
        unused[Unused.RETRIED] += self.retried
        unused[Unused.OLDER] += self.older
        # Prices are those of its beginning, in whatever order it is written.
        built = build(self._config, kept[0].request.arrived_s)
        asked = [one for one in built.endpoints if built.upstreams[one.name].asks_context]
        return Adopted(
            lines=_lines(kept, built.endpoints, built.policy),
            endpoints=built.endpoints,
            policy=built.policy,
            caps=built.caps,
            paced=built.paced,
            where={one.request.id: one.endpoint for one in kept},
            placed=Counter((one.endpoint, one.by) for one in kept),
            billed={one.request.id: one.served.usd for one in kept if one.served.usd is not None},
            unseen=sum(one.served.ok and one.served.ttft_s is None for one in kept),
            too_long=Counter(
                endpoint.name
                for one in kept
                for endpoint in asked
                if one.request.model in endpoint.models and one.request.prompt_tokens > endpoint.context_tokens
            ),
            records=records,
            unused=+unused,
            strangers=self.strangers,
        )

    def _last(self) -> list[_Kept]:
        """The last requests, in the order in which they came; those that others took the place of are none."""
        served: dict[str, list[float]] = {}
        for one in self.kept.values():
            if one.served.ok and one.served.trace:
                served.setdefault(one.served.trace, []).append(one.served.arrived_s)
        kept = [one for one in self.kept.values() if one.served.ok or not _served_then(one.served, served)]
        self.retried += len(self.kept) - len(kept)
        kept.sort(key=lambda one: (one.request.arrived_s, one.request.id))
        self.older += max(0, len(kept) - REQUESTS_MAX)
        return kept[-REQUESTS_MAX:]

    def _endpoint(self, record: Served) -> tuple[Endpoint, By] | None:
        """Which of them served it: as it was said, by its name or address, or by the only one that calls its model so.

        Of a vendor whom the log names, it is the only one there. Where it names somebody else, it was none of them,
        whatever the model is called.
        """
        host, port = _origin(record.base)
        # A vendor has many deployments.
        for name in (record.deployment, record.base, _shown(record.base), f"{host}:{port}", host):
            if name and name in self._at:
                return self._endpoints[self._at[name]], By.SAID
        if record.base in self._endpoints:
            return self._endpoints[record.base], By.NAME
        upstreams = list(self._built.upstreams.values())
        there = [one for one in upstreams if one.url is not None and _is_at(one.url, host, port)]
        among = there
        if not there:
            # A vendor's name is no address: others may stand behind it.
            among = self._of_provider.get(record.base.lower(), []) if record.base else upstreams
        named = [one for one in among if _calls(one, self._endpoints[one.name], record)]
        found, by = named or there, By.ADDRESS if there else By.MODEL
        return (self._endpoints[found[0].name], by) if len(found) == 1 else None

    @cached_property
    def _of_provider(self) -> dict[str, list[Upstream]]:
        """Those at the vendors of the price list, by its names; to load that takes a tenth of a second."""
        found: dict[str, list[Upstream]] = {}
        for name, upstream in self._built.upstreams.items():
            # As it is written there, without a port.
            if provider := provider_of(self._config.endpoints[name].url):
                found.setdefault(provider, []).append(upstream)
        return found

    def _model(self, record: Served, endpoint: Endpoint) -> str | None:
        """The name that a client would ask for here."""
        if record.model in self._served or record.model in self._built.groups:
            return record.model
        # A name of the other gateway's own: that of the model which it stands for.
        return endpoint.models[0] if len(endpoint.models) == 1 and record.model == record.deployment else None

    def _request(self, record: Served, model: str) -> Request | None:
        call, told = self._call(record, model), record.prompt_tokens
        if call is None:
            if told is None:
                return None
            call = _unread(record, model)
        # Whoever saw it begin had it streamed, also where the log does not say so.
        stream = record.ttft_s is not None if record.stream is None else record.stream
        call = msgspec.structs.replace(call, stream=stream)
        headers = {name.encode(): text.encode() for name, text in record.headers.items()}
        try:
            request = self._taken_in(call, headers, record)
        except BadRequest:
            # What was meant for another gateway may mean nothing here.
            request = self._taken_in(call, {}, record)
        if told is not None:
            request = replace(
                request,
                prompt_tokens=told,
                klass=classify(base_of(request.klass), told),
                prompt_bytes=request.prompt_bytes or int(PRIOR_BYTES_PER_TOKEN * told),
            )
        return request

    def _taken_in(self, call: Call, headers: Mapping[bytes, bytes], record: Served) -> Request:
        return intake(
            call,
            headers,
            id=record.id,
            now_s=record.arrived_s,
            table=self._table,
            ratio=TokenRatio(),
            salt=self._salt,
            group=self._built.groups.get(call.model),
            key=_named(record.key),
        )[0]

    def _call(self, record: Served, model: str) -> Call | None:
        """The request as it came, None where its prompt was not kept."""
        if not isinstance(record.fields.get("messages", record.fields.get("prompt")), list | str):
            return None
        fields = {name: record.fields[name] for name in _ASKED if name in record.fields}
        try:
            return parse(msgspec.json.encode({"model": model, **fields}), record.kind)
        except BadRequest:
            return None


def _served_then(failed: Served, served: Mapping[str, list[float]]) -> bool:
    """Whether another attempt at the same was served soon after this one had failed: a trace may be a whole session."""
    over_s = failed.arrived_s + failed.e2e_s
    return any(failed.arrived_s <= at_s <= over_s + RETRY_S for at_s in served.get(failed.trace, ()))


def _unread(record: Served, model: str) -> Call:
    """A request of which only its size is known."""
    bound = record.fields.get("max_completion_tokens") or record.fields.get("max_tokens")
    several = record.fields.get("n")
    return Call(
        kind=record.kind,
        model=model,
        stream=False,
        include_usage=False,
        output_tokens_max=bound if isinstance(bound, int) and bound > 0 else None,
        completions=several if isinstance(several, int) and several > 0 else 1,
        needs=(record.kind,),
        prompt=NO_BYTES,
        tools=NO_BYTES,
        text_bytes=0,
        messages=0,
        media=0,
        prompt_tokens=record.prompt_tokens,
        knobs=None,
        fields={},
    )


def _origin(base: str) -> tuple[str, int]:
    """Host and port of an address, empty and 0 of what is none."""
    try:
        found = urlsplit(base if "://" in base else f"//{base}")
        host, port = found.hostname or "", found.port
    except ValueError:
        return "", 0
    return host, port or _PORTS.get(found.scheme, 0)


def _shown(base: str) -> str:
    """An address without what may be secret in it."""
    host, port = _origin(base)
    if "://" not in base:
        # A vendor's name, or an address as it is written in hosts.
        return base.partition("?")[0].rpartition("@")[2][:128]
    return f"{host}:{port}{urlsplit(base).path}"[:128] if host else ""


def _named(key: str) -> str:
    """A key's name as it stands, or a digest of what may be a secret or has one in it."""
    return blake2b(key.encode("utf-8", "replace"), digest_size=6).hexdigest() if _SECRETS.search(key) else key


def _is_at(url: Url, host: str, port: int) -> bool:
    """Whether that is this address; a port of 0 is one that is not told."""
    return (url.host == host or (url.host in _HERE and host in _HERE)) and port in (0, url.port)


def _calls(upstream: Upstream, endpoint: Endpoint, record: Served) -> bool:
    """Whether this is what its model is called there."""
    deployment = record.deployment
    # LiteLLM puts the vendor before the name.
    names = {deployment, deployment.partition("/")[2]}
    return bool(names & ({upstream.model} if upstream.model else set(endpoint.models)))


def _lines(kept: list[_Kept], endpoints: tuple[Endpoint, ...], policy: Policy) -> list[Line]:
    """In the order of time."""
    begin_s = kept[0].request.arrived_s
    header = Segment(
        version=JOURNAL_VERSION,
        software="the log of another gateway",
        policy=policy,
        endpoints=endpoints,
        state=Router(endpoints, policy).snapshot(),
    )
    lines = [Line(at_s=begin_s, fact=header)]
    for one in kept:
        request, served, at_s = one.request, one.served, one.request.arrived_s
        step = Run(endpoint=one.endpoint, timeout_s=WHOLE_S)
        lines.append(Line(at_s=at_s, fact=request))
        lines.append(Line(at_s=at_s, fact=Decision(request_id=request.id, plan=(step,), why=Why.STATIC_RULE)))
        lines.append(Line(at_s=at_s, fact=started(request, one.endpoint)))
        if served.ttft_s is not None:
            first = FirstToken(request_id=request.id, endpoint=one.endpoint, ttft_s=served.ttft_s)
            lines.append(Line(at_s=at_s + served.ttft_s, fact=first))
        lines.append(Line(at_s=at_s + served.e2e_s, fact=_ended(request, one.endpoint, served)))
    # What is of one moment stays in its order.
    lines.sort(key=lambda line: line.at_s)
    return lines


def _ended(request: Request, endpoint: str, served: Served) -> Ended:
    if served.at_fault:
        # As our gateway says it: the endpoint has answered, and the request came to nothing by itself.
        return Ended(request_id=request.id, endpoint=endpoint, ending=Ending.OK, e2e_s=served.e2e_s, cause=CLIENT_ERROR)
    ending = Ending.OK if served.ok else Ending.REFUSED if served.rate_limited else Ending.FAILED
    return Ended(
        request_id=request.id,
        endpoint=endpoint,
        ending=ending,
        e2e_s=served.e2e_s,
        ttft_s=served.ttft_s,
        prompt_tokens=served.prompt_tokens if served.ok else None,
        cached_tokens=_within(served.cached_tokens, served.prompt_tokens) if served.ok else None,
        output_tokens=served.output_tokens if served.ok else None,
        cause="" if served.ok else "rate_limited" if served.rate_limited else "failed",
    )


def _within(cached: int | None, prompt: int | None) -> int | None:
    """No more is cached than there is."""
    return cached if cached is None or prompt is None else min(cached, prompt)


def _nothing(count: int, unused: Counter[Unused], strangers: Counter[str]) -> str:
    """Why there is nothing to look at."""
    if not count:
        return "the log is empty"
    said = "; ".join(f"{number} {why}" for why, number in unused.most_common())
    if not strangers:
        return f"nothing of the log can be used: {said}"
    names = ", ".join(name or "(no name)" for name, _ in strangers.most_common(STRANGERS_MAX))
    return (
        f"nothing of the log can be used: {said}. It names {names}: give each an endpoint in the configuration, or "
        "say which one it is with --at NAME=ENDPOINT"
    )
