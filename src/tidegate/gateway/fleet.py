"""The endpoints behind the gateway: how each is reached, and who looks after it. Settings may change while it runs."""

import asyncio
from collections.abc import Container

import msgspec

from tidegate.config import build
from tidegate.config.secret import Secret
from tidegate.core.model import Endpoint, Probed, replace
from tidegate.engines.kinds import dialect_of
from tidegate.gateway.canary import Canary
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.outage import Outage
from tidegate.gateway.probe import Prober
from tidegate.gateway.retiring import retire
from tidegate.gateway.tending import tended
from tidegate.gateway.upstream import Upstream
from tidegate.gateway.warmer import Warmer
from tidegate.http.client import Origin, Pool
from tidegate.http.lanes import lanes

# Fail-over may fill an endpoint beyond its concurrency, and probes come on top.
PROBE_CONNECTIONS = 64


class Member(msgspec.Struct, eq=False):
    """One endpoint: what it was made from, and what was made. `seen` is its first probe, until that is told.

    While it is in force, `tasks` look after it.
    """

    settings: build.Upstream
    upstream: Upstream
    prober: Prober
    canary: Canary
    warmer: Warmer
    seen: Probed | None = None
    tasks: tuple[asyncio.Task[None], ...] = ()


class Fleet:
    """Owns the connections and the probes. What is taken out finishes what it has begun."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._members: dict[str, Member] = {}
        self._lanes = lanes()
        self._retiring: set[asyncio.Task[None]] = set()

    def canaries(self) -> dict[str, Canary]:
        """Those in force, by endpoint."""
        return {name: member.canary for name, member in self._members.items()}

    async def prepare(self, built: build.Built, anew: Container[str] = ()) -> dict[str, Member]:
        """The members under other settings: those that stay as they are, and new ones, each probed once.

        Those in `anew` are new in any case: what was believed of them first is believed no more. Nothing is in force
        yet: `take_over` or `discard` has to follow. OSError where a certificate cannot be read.
        """
        members: dict[str, Member] = {}
        try:
            for endpoint in built.endpoints:
                settings, known = built.upstreams[endpoint.name], self._members.get(endpoint.name)
                if (
                    known is None
                    or known.settings != settings
                    or known.upstream.endpoint != endpoint
                    or endpoint.name in anew
                ):
                    before, known = known, self._member(endpoint, settings, known)
                    if before is not None and endpoint.name not in anew and _same_model(before, known):
                        known.canary.succeed(before.canary)
                members[endpoint.name] = known
            new = [member for member in members.values() if not member.tasks]
            for member, seen in zip(new, await asyncio.gather(*(m.prober.introduce() for m in new)), strict=True):
                member.seen = self._forgiven(member, seen)
        except BaseException:
            await self.discard(members)
            raise
        return members

    def release(self, members: dict[str, Member]) -> None:
        """They will be in force in a moment: loads go on where their models stay, and the others are given up, which is
        told while it is still known of whom."""
        for name, member in self._members.items():
            after = members.get(name)
            if after is member:
                continue
            if after is not None and _same_load(member, after):
                after.warmer = member.warmer
                after.warmer.reach_by(after.upstream)
            else:
                # What is told there is no reason to begin another one.
                del self._dispatch.warmers[name]
                member.warmer.give_up()

    def take_over(self, members: dict[str, Member]) -> list[tuple[Probed, Outage]]:
        """Put them in force: what their first probes saw, and met where one is down. What is in nobody's hands any more
        is retired."""
        staying = {id(member) for member in members.values()}
        for member in [m for m in self._members.values() if id(m) not in staying]:
            for task in member.tasks:
                task.cancel()
        used = {id(member.upstream.pool) for member in members.values()}
        for pool in [m.upstream.pool for m in self._members.values() if id(m.upstream.pool) not in used]:
            task = asyncio.create_task(retire(pool))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        self._members = members
        self._dispatch.lookers = {name: member.prober.doubt for name, member in members.items()}
        self._dispatch.warmers = {name: member.warmer.begin for name, member in members.items()}
        self._dispatch.returns = {name: member.canary.returned for name, member in members.items()}
        seen = []
        for member in members.values():
            if member.seen is not None:
                seen.append((member.seen, member.prober.outage))
                member.seen = None
                runs = [member.prober.run, member.canary.run]
                if member.upstream.endpoint.kept_usd_per_s is not None:
                    runs.append(member.warmer.keep)
                member.tasks = tuple(tended(run) for run in runs)
        return seen

    async def discard(self, members: dict[str, Member]) -> None:
        """They will not be in force after all."""
        used = {id(member.upstream.pool) for member in self._members.values()}
        for member in members.values():
            if id(member.upstream.pool) not in used:
                await member.upstream.pool.close()

    async def close(self) -> None:
        """Close every connection."""
        # Loads first: one may go on over connections that are to be let go when it is over.
        self._dispatch.warmers = {}
        await asyncio.gather(*(member.warmer.close() for member in self._members.values()))
        tasks = [*self._retiring, *(task for member in self._members.values() for task in member.tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in self._members.values():
            await member.upstream.pool.close()
        if self._lanes is not None:
            self._lanes.close()

    def _forgiven(self, member: Member, seen: Probed) -> Probed:
        """One lost probe is bad luck: an engine that was up stays so, as it was known, and the next probe decides."""
        known, now = self._members.get(seen.endpoint), member.settings
        if seen.up or known is None or not _alike(known.settings, now):
            return seen
        state, before = self._dispatch.router.endpoint(seen.endpoint).state, known.settings
        return replace(
            seen,
            up=state.up,
            context_tokens=state.context_tokens if before.asks_context and now.asks_context else seen.context_tokens,
            capabilities=state.capabilities if before.asks_media and now.asks_media else seen.capabilities,
        )

    def _member(self, endpoint: Endpoint, settings: build.Upstream, known: Member | None) -> Member:
        """A member made anew. What leads to the same place over the same number of connections is kept."""
        assert settings.url is not None, "load refuses an endpoint without a URL"
        if known is not None and _reached(known.settings, known.upstream.endpoint) == _reached(settings, endpoint):
            pool = known.upstream.pool
        else:
            pool = Pool(
                Origin(settings.url.host, settings.url.port, settings.tls()),
                clock=self._dispatch.clock,
                connections_max=endpoint.concurrency + PROBE_CONNECTIONS,
                connect_timeout_s=settings.connect_timeout_s,
                lanes=self._lanes,
            )
        dialect = dialect_of(settings.engine.value, settings.url.host, settings.url.path, settings.model or None)
        upstream = Upstream(
            endpoint,
            dialect,
            pool,
            settings.model or None,
            dialect.headers(_key(settings.key)),
            assumes_window=settings.asks_context,
        )
        written = None if settings.asks_context else endpoint.context_tokens
        prober = Prober(
            self._dispatch,
            upstream,
            settings.probe_s,
            written,
            asks_media=settings.asks_media,
            wakes=settings.probes_wake,
        )
        canary = Canary(self._dispatch, upstream, settings.canary_s)
        return Member(settings, upstream, prober, canary, Warmer(self._dispatch, upstream))


def _same_load(before: Member, after: Member) -> bool:
    """Whether both have the same engine load the same model."""
    named = before.upstream.first_called == after.upstream.first_called
    return before.settings.reaches(after.settings) and named


def _same_model(before: Member, after: Member) -> bool:
    """Whether a canary asks the same model of both, as far as anybody has said."""
    return _same_load(before, after) and before.upstream.endpoint.fingerprint == after.upstream.endpoint.fingerprint


def _alike(before: build.Upstream, after: build.Upstream) -> bool:
    """Whether what was up under one is up under the other."""
    return before.reaches(after) and before.key == after.key and _trusted(before) == _trusted(after)


def _reached(settings: build.Upstream, endpoint: Endpoint) -> tuple[object, ...]:
    return settings.url, *_trusted(settings), settings.connect_timeout_s, endpoint.concurrency


def _trusted(settings: build.Upstream) -> tuple[object, ...]:
    return settings.tls_ca_file, settings.authorities


def _key(secret: Secret | None) -> tuple[tuple[bytes, bytes], ...]:
    if secret is None:
        return ()
    return ((b"authorization", b"Bearer " + secret.reveal().encode()),)
