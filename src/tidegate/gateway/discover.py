"""Asks who listens where engines usually do: in two seconds, without a credential, a loaded model or a made token."""

import asyncio
import ssl
from collections.abc import Iterable, Sequence

import msgspec

from tidegate.clock import Clock
from tidegate.config.address import Url, is_loopback, parse_url
from tidegate.config.discovered import FoundEngine, State
from tidegate.config.endpoint import EngineKind
from tidegate.core.model import Record
from tidegate.engines import recognise
from tidegate.engines.base import ProbeAnswer
from tidegate.http.client import Cause, Origin, Pool, TransportError, fetch

PORTS = {8080: "llama.cpp", 8000: "vLLM", 11434: "Ollama", 1234: "LM Studio", 30000: "SGLang"}
"""Where engines listen unless told otherwise. Who listens there is judged by what it answers."""

BOUND_S = 2.0  # an engine on this machine answers in milliseconds; one that is busy may take a second
ANSWER_BYTES_MAX = 512 * 1024  # Ollama's description of a model has 100 KB, its licence among them
CONNECTIONS_MAX = 8  # at once to one address: Ollama is asked about each of its models
ENGINES_MAX = 16  # addresses named by hand, as in a list that somebody types
PATIENCE_S = 120.0  # a large model takes a minute from disk
AGAIN_S = 1.0

_NOBODY = frozenset({Cause.REFUSED, Cause.DNS})


class Passed(Record, frozen=True, kw_only=True):
    """An address where something listens that is not used, and why. `loading`: it will be an engine."""

    url: str
    why: str
    loading: bool = False


class Found(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What listens at the addresses that were asked, in their order; where nobody does is left out."""

    engines: tuple[FoundEngine, ...]
    passed: tuple[Passed, ...]

    @property
    def loading(self) -> tuple[Passed, ...]:
        """Engines that do not tell yet what they serve."""
        return tuple(one for one in self.passed if one.loading)


def usual(ports: Iterable[int] = PORTS) -> tuple[Url, ...]:
    """The addresses to ask on this machine."""
    return tuple(Url(tls=False, host="127.0.0.1", port=port, path="") for port in ports)


async def discover(
    urls: Sequence[Url], clock: Clock, own: frozenset[int] = frozenset(), bound_s: float = BOUND_S
) -> Found:
    """Who listens at these addresses. Never raises; what is not answered within `bound_s` is not waited for.

    `own` are the ports on this machine where this gateway listens: they are not asked.
    """
    deadline_s = clock.now_s() + bound_s
    looked = await asyncio.gather(*(_look(url, clock, deadline_s, own) for url in dict.fromkeys(urls)))
    looked = _each_once(looked)
    return Found(
        engines=tuple(one for one in looked if isinstance(one, FoundEngine)),
        passed=tuple(one for one in looked if isinstance(one, Passed)),
    )


async def patiently(found: Found, clock: Clock, again_s: float = AGAIN_S) -> Found:
    """`found`, with the engines in it that are loading asked again until they tell what they serve.

    After `PATIENCE_S` it is given up, and what still loads stands among the passed.
    """
    until_s = clock.now_s() + PATIENCE_S
    while found.loading and clock.now_s() < until_s:
        await asyncio.sleep(again_s)
        again = await discover([parse_url(one.url) for one in found.loading], clock)
        settled = tuple(one for one in found.passed if not one.loading)
        found = Found(engines=(*found.engines, *again.engines), passed=(*settled, *again.passed))
    return found


def _each_once(looked: Sequence[FoundEngine | Passed | None]) -> list[FoundEngine | Passed | None]:
    """Without engines that were found by both names of this machine: they would count as two."""
    seen: set[str] = set()
    kept: list[FoundEngine | Passed | None] = []
    for one in looked:
        same = "" if one is None else one.url.replace("://localhost:", "://127.0.0.1:")
        if isinstance(one, FoundEngine) and same in seen:
            one = Passed(url=one.url, why=f"this is {same} again")
        elif isinstance(one, FoundEngine):
            # Who is no engine by one name may stand before an engine that has the other: IPv4 and IPv6 are two.
            seen.add(same)
        kept.append(one)
    return kept


async def _look(url: Url, clock: Clock, deadline_s: float, own: frozenset[int]) -> FoundEngine | Passed | None:
    if url.port in own and is_loopback(url.host):
        return Passed(url=str(url), why="this is where Tidegate itself listens")
    asker = _Asker(url, clock, deadline_s)
    try:
        return await _judge(url, asker)
    finally:
        await asker.close()


async def _judge(url: Url, asker: "_Asker") -> FoundEngine | Passed | None:
    """Ask as much as each answer gives reason to: a stranger is asked two things."""
    await asker.ask(recognise.FIRST)
    answers = asker.answers
    if asker.nobody:
        return None
    if recognise.is_tidegate(answers):
        return Passed(url=str(url), why="this is a Tidegate")
    if recognise.is_loading(answers):
        return Passed(url=str(url), why="llama.cpp is loading its model", loading=True)
    locked = recognise.is_locked(answers)
    if not locked and not recognise.lists_models(answers):
        return Passed(url=str(url), why=asker.silence())
    await asker.ask(recognise.SIGNS)
    kind, software = recognise.kind_of(answers)
    if locked and kind is EngineKind.OPENAI and not recognise.refuses_as_engines_do(answers):
        return Passed(url=str(url), why="it wants a login, and does not say that it is an engine")
    if locked:
        return FoundEngine(url=str(url), kind=kind, software=software, state=State.LOCKED, models=())
    paths, shown = recognise.details(kind, answers, url.path)
    await asyncio.gather(asker.ask(paths), *(asker.show(model) for model in shown))
    return recognise.engine(str(url), kind, software, answers, url.path)


class _Asker:
    """Asks one address each thing once, until the deadline; what is not answered by then is not answered."""

    def __init__(self, url: Url, clock: Clock, deadline_s: float) -> None:
        self.answers: dict[str, ProbeAnswer | None] = {}
        self._refused = False
        self._path = url.path
        self._clock = clock
        self._deadline_s = deadline_s
        self._why = ""
        self._pool = Pool(
            Origin(url.host, url.port, ssl.create_default_context() if url.tls else None),
            clock=clock,
            connections_max=CONNECTIONS_MAX,
            connect_timeout_s=BOUND_S,
        )

    @property
    def nobody(self) -> bool:
        """Whether nothing listens there."""
        return self._refused and not any(self.answers.values())

    async def ask(self, paths: Iterable[str]) -> None:
        """GET them, as far as they were not asked for yet."""
        new = [path for path in paths if path not in self.answers]
        await asyncio.gather(*(self._get(path) for path in new))

    async def show(self, model: str) -> None:
        """Have Ollama tell what a model can do, which does not load it."""
        body = msgspec.json.encode({"model": model})
        await self._fetch(b"POST", recognise.SHOW, f"{recognise.SHOW} {model}", body)

    def silence(self) -> str:
        """Why it is no engine to us."""
        said = self.answers.get(recognise.MODELS)
        if said is None:
            return f"it gave no answer that can be read ({self._why})"
        return f"it lists no models: {recognise.models_at(self._path)} answered {said.status}"

    async def close(self) -> None:
        """Leave."""
        await self._pool.close()

    async def _get(self, path: str) -> None:
        await self._fetch(b"GET", path, path, b"")
        said, former = self.answers[path], recognise.FORMER.get(path)
        if former is not None and said is not None and said.status == 404:
            await self._fetch(b"GET", former, path, b"")

    async def _fetch(self, method: bytes, path: str, key: str, body: bytes) -> None:
        self.answers[key] = None
        left_s = self._deadline_s - self._clock.now_s()
        if left_s <= 0:
            return
        headers = ((b"accept-encoding", b"identity"), (b"content-type", b"application/json"))[: 2 if body else 1]
        target = (recognise.models_at(self._path) if path == recognise.MODELS else self._path + path).encode()
        try:
            status, _, said = await fetch(self._pool, method, target, headers, body, left_s, ANSWER_BYTES_MAX)
        except TransportError as error:
            self._refused = self._refused or error.cause in _NOBODY
            self._why = error.cause.value.replace("_", " ")
        else:
            self.answers[key] = ProbeAnswer(status=status, body=said)
