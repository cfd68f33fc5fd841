"""Who may ask for what, and how often: keys, and the limits on each."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from math import ceil

from tidegate.clock import Clock
from tidegate.core.bucket import Bucket
from tidegate.core.model import ANYWHERE, LOCAL, Request, replace
from tidegate.core.profile import Profile
from tidegate.gateway import daemon
from tidegate.gateway.reply import no_model
from tidegate.http.origin import refuse_pages
from tidegate.state.keys import KeyFile, KeysError, Known, digest
from tidegate.telemetry.log import Log
from tidegate.wire.call import Call
from tidegate.wire.errors import BadRequest
from tidegate.wire.intake import ClassTable
from tidegate.wire.options import OTHER_MODELS

# A revocation holds within two seconds: half of that for the look, and half for a machine that is busy.
WATCH_S = 1.0
# A disk that sleeps takes some of that, and what hangs never answers.
READ_S = 30.0
# What is longer is no key of ours, and not worth a digest.
PRESENTED_BYTES_MAX = 256
# Of the keys that one line of the log names: a site or a class that is renamed may be that of all.
KEYS_TOLD_MAX = 20
CHALLENGE = (b"www-authenticate", b"Bearer")

_EVERYBODY = Profile(id="", name="everybody", created_s=0.0)


class Grant:
    """What one key may do, and what of its limits is left: lives as long as the key does."""

    __slots__ = ("_in_flight", "_requests", "_tokens", "_told", "classes", "limited", "models", "profile")

    def __init__(self, profile: Profile, models: tuple[str, ...], classes: ClassTable, now_s: float) -> None:
        """`models` and `classes` are all that are served; of them it gets what the profile allows."""
        self.profile = profile
        self.serve(models, classes)
        requests, tokens = profile.requests_per_minute, profile.tokens_per_minute
        self._requests = None if requests is None else Bucket(requests, now_s)
        self._tokens = None if tokens is None else Bucket(tokens, now_s)
        kinds = ((b"requests", self._requests), (b"tokens", self._tokens))
        self._told = tuple((bucket, _text(kind, bucket)) for kind, bucket in kinds if bucket is not None)
        self.limited = bool(self._told)
        self._in_flight = 0

    @property
    def busy(self) -> bool:
        """Whether requests of this key are under way."""
        return self._in_flight > 0

    def serve(self, models: tuple[str, ...], classes: ClassTable) -> None:
        """These are all that are served."""
        profile = self.profile
        self.models = models if profile.models is None else tuple(m for m in models if m in profile.models)
        self.classes = _allowed(classes, profile)

    def may_ask(self, model: str, group: str) -> bool:
        """Whether this key may ask for a model by this name, which stands for `group`."""
        return self.profile.models is None or model in self.models or group in self.models

    def check(self, model: str, group: str) -> None:
        """Raise for a model that is not for this key, in the words for one that does not exist."""
        if not self.may_ask(model, group):
            raise no_model()

    def check_fields(self, call: Call) -> None:
        """Raise for a field that lets a vendor answer with a model that is not for this key."""
        if self.profile.models is None:
            return
        for name in OTHER_MODELS:
            if any(bytes(fields.get(name, b"null")) != b"null" for fields in (call.fields, call.native_fields)):
                raise BadRequest(
                    f"`{name}` may be answered by another model than those that this key may ask for; leave it out.",
                    status=403,
                    param=name,
                    code="option_not_allowed",
                )

    def admit(self, now_s: float) -> None:
        """Count one request, or raise that there were too many."""
        bucket = self._requests
        if bucket is None:
            return
        wait_s = bucket.wait_s(1.0, now_s)
        if wait_s > 0.0:
            raise _too_many(f"This key may make {bucket.burst:.0f} requests a minute", wait_s)
        bucket.take(1.0, now_s)

    def begin(self, request: Request, now_s: float) -> None:
        """Take a place and the tokens it is expected to use, or raise. `end` has to follow."""
        most = self.profile.concurrency
        if most is not None and self._in_flight >= most:
            # When one ends, nobody knows; a second is the least that a client can be told.
            raise _too_many(f"This key may have {most} requests under way, and has", 1.0)
        bucket = self._tokens
        if bucket is not None:
            if request.prompt_tokens > bucket.burst:
                raise BadRequest(
                    f"This prompt has about {request.prompt_tokens} tokens, and this key may use {bucket.burst:.0f} a "
                    "minute: shorten it, or ask for a higher limit.",
                    status=429,
                    type="rate_limit_error",
                    code="rate_limit_exceeded",
                    headers=((b"x-should-retry", b"false"),),
                )
            tokens = _charge(request, bucket)
            wait_s = bucket.wait_s(tokens, now_s)
            if wait_s > 0.0:
                raise _too_many(f"This key may use {bucket.burst:.0f} tokens a minute", wait_s)
            bucket.take(tokens, now_s)
        self._in_flight += 1

    def end(self, request: Request, tokens: int, now_s: float) -> None:
        """Give the place back, and count the tokens that it really used."""
        self._in_flight -= 1
        if self._tokens is not None:
            self._tokens.take(tokens - _charge(request, self._tokens), now_s)

    def lines(self, now_s: float) -> bytes:
        """The header lines that tell a limited client where it stands."""
        found = b""
        for bucket, text in self._told:
            level = bucket.level(now_s)
            found += text % (max(0.0, level), (bucket.burst - level) / bucket.rate_per_s)
        return found


class Auth:
    """Knows every key by the digest of its secret. Without a file of keys, everybody may do everything."""

    def __init__(
        self,
        file: KeyFile | None,
        *,
        models: tuple[str, ...],
        classes: ClassTable,
        sites: frozenset[str],
        clock: Clock,
        log: Log,
        on_change: Callable[[Iterable[Profile]], None],
    ) -> None:
        """`models` and `classes` are all that are served, at these `sites`. `on_change` is told the profiles of all
        `spenders`, now and whenever they change.

        Raises KeysError where the file cannot be read.
        """
        self._file = file
        self._models = models
        self._classes = classes
        self._sites = sites
        self._astray: dict[str, dict[str, frozenset[str]]] = {}
        self._clock = clock
        self._log = log
        self._on_change = on_change
        self._blind = False
        self._look = asyncio.Lock()
        self._reading: Future[list[Known] | None] | None = None
        self._open = None if file is not None else Grant(_EVERYBODY, models, classes, clock.now_s())
        self._by_digest: dict[bytes, tuple[Grant, float]] = {}
        # Of keys that open nothing any more, while requests of theirs are under way.
        self._gone: dict[str, Grant] = {}
        if file is not None:
            self._put(file.changed() or ())

    def serve(self, models: tuple[str, ...], classes: ClassTable, sites: frozenset[str]) -> None:
        """Other models and classes are served now, at these sites; what is left of each key's limits stays."""
        self._models, self._classes, self._sites = models, classes, sites
        grants = [*self._gone.values(), *(grant for grant, _ in self._by_digest.values())]
        for grant in grants if self._open is None else [self._open]:
            grant.serve(models, classes)
        self._warn()

    def profiles(self) -> Iterable[Profile]:
        """Of all keys that are known."""
        return {grant.profile.id: grant.profile for grant, _ in self._by_digest.values()}.values()

    def spenders(self) -> Iterable[Profile]:
        """The same, and of keys that are gone as long as requests of theirs go on: their budgets bound those."""
        return (*self.profiles(), *(grant.profile for grant in self._gone.values() if grant.busy))

    def grant(self, headers: Mapping[bytes, bytes], now_s: float) -> Grant:
        """What the key in these headers, their names in lower case, may do. Raises a 401 where it opens nothing."""
        if self._open is not None:
            refuse_pages(headers)
            return self._open
        given = bearer(headers)
        if given is None:
            given = headers.get(b"x-api-key")  # where clients of the Messages API put it
        if given is None:
            raise _unknown("There is no key with this request: send it as `Authorization: Bearer tk-...`.")
        if len(given) <= PRESENTED_BYTES_MAX:
            # The time of a look-up tells of the digest alone, from which nothing leads back. No cache from header to
            # grant: the digest takes 0.5 us, and secrets would stay in memory for as long as it held them.
            found = self._by_digest.get(digest(given))
            if found is not None and now_s < found[1]:
                return found[0]
        raise _unknown("This key opens nothing: it is unknown, was revoked or has expired. Ask for another.")

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether these headers open anything: asked before a large body is read."""
        try:
            self.grant(headers, self._clock.now_s())
        except BadRequest:
            return False
        return True

    async def watch(self) -> None:
        """Follow the file for as long as it runs."""
        while self._file is not None:
            await asyncio.sleep(WATCH_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Take over what has changed in the file. While it cannot be read, what was known holds; the log says so."""
        assert self._file is not None, "there is something to follow"
        async with self._look:
            if self._reading is None:
                # In a thread: neither a slow disk nor a writer who holds the lock stops the streams.
                self._reading = daemon.begin(self._file.changed, "keys")
            try:
                async with asyncio.timeout(READ_S):
                    known = await asyncio.wrap_future(self._reading)
            except TimeoutError:
                # Who hangs there stays, and is looked for again: another would only hang beside it.
                self._miss(f"{self._file.path}: it did not answer within {READ_S:g} s; see to its disk")
                return
            except Exception as error:
                self._reading = None
                if not isinstance(error, (KeysError, OSError)):
                    raise
                self._miss(str(error))
                return
            self._reading = None
            self._blind = False
            if known is not None:
                self._put(known)

    def _miss(self, reason: str) -> None:
        if not self._blind:
            self._log.event("error", "keys cannot be read; those that were known hold", reason=reason)
        self._blind = True

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _put(self, known: Iterable[Known]) -> None:
        now_s = self._clock.now_s()
        # A key whose limits have not changed keeps its grant, and so what is left of them.
        grants = self._gone | {grant.profile.id: grant for grant, _ in self._by_digest.values()}
        by_digest = {}
        for one in known:
            grant = grants.get(one.profile.id)
            if grant is None or grant.profile != replace(one.profile, weight=grant.profile.weight):
                grant = grants[one.profile.id] = Grant(one.profile, self._models, self._classes, now_s)
            grant.profile = one.profile
            by_digest[one.digest] = grant, one.until_s
        self._by_digest = by_digest
        here = {profile.id for profile in self.profiles()}
        self._gone = {name: grant for name, grant in grants.items() if grant.busy and name not in here}
        self._on_change(self.spenders())
        self._log.event("info", "keys read", secrets=len(by_digest))
        self._warn()

    def _warn(self) -> None:
        """Say which keys let data go to sites where nobody is, or ask for classes that are not there: whoever writes a
        key is not told, and to its requests nothing helps."""
        profiles, sites = list(self.profiles()), self._sites | {ANYWHERE, LOCAL}
        # What a frozenset lacks of a dict's keys would be a set, which compiled code does not take for one.
        classes = frozenset(self._classes.classes)
        self._warn_of(
            "sites",
            "keys name sites that have no endpoint",
            {one.name: frozenset(one.residency) - sites for one in profiles},
            "add an endpoint there, or revoke each and create it with another --residency",
        )
        self._warn_of(
            "classes",
            "keys name classes that are not configured",
            {one.name: _classes_of(one) - classes for one in profiles},
            "configure them, or revoke each and create it with other --classes and --class-default",
        )

    def _warn_of(self, what: str, text: str, astray: dict[str, frozenset[str]], remedy: str) -> None:
        """By the names of keys, `what` of theirs is not there: told once, until that changes."""
        astray = {name: missing for name, missing in sorted(astray.items()) if missing}
        if astray and astray != self._astray.get(what):
            missing = sorted(frozenset().union(*astray.values()))
            self._log.event(
                "warning",
                text,
                **{"keys": ", ".join(list(astray)[:KEYS_TOLD_MAX]), what: ", ".join(missing[:KEYS_TOLD_MAX])},
                remedy=remedy,
            )
        self._astray[what] = astray


def bearer(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The token in `Authorization: Bearer`; the scheme may be written as one likes."""
    given = headers.get(b"authorization")
    if given is None or given[:7].lower() != b"bearer ":
        return None
    return given[7:].strip()


def _allowed(classes: ClassTable, profile: Profile) -> ClassTable:
    """The classes of this key, and its own default: the gateway's if it may ask for that, else the first it may."""
    if profile.classes is None:
        return ClassTable(
            classes=classes.classes, default=profile.class_default or classes.default, rules=classes.rules
        )
    usual = classes.default if classes.default in profile.classes else next(iter(profile.classes), "")
    return ClassTable(
        classes={name: spec for name, spec in classes.classes.items() if name in profile.classes},
        default=profile.class_default or usual,
        partial=True,
        rules=classes.rules,
    )


def _classes_of(profile: Profile) -> frozenset[str]:
    """The classes that it names, its default among them."""
    default = profile.class_default
    return frozenset(profile.classes or ()).union(() if default is None else (default,))


def _text(kind: bytes, bucket: Bucket) -> bytes:
    """The header lines of one limit, short of what is left of it and the seconds until all of it is there again."""
    limit = b"x-ratelimit-limit-%b: %d\r\n" % (kind, bucket.burst)
    return limit + b"x-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%.3fs\r\n" % (kind, kind)


def _charge(request: Request, bucket: Bucket) -> float:
    """Tokens taken when it begins: its prompt and all the output that it allows, but never more than there can be.

    Output that it does not bound is counted when it is known.
    """
    output_tokens = (request.output_tokens_max or 0) * request.completions
    return min(bucket.burst, float(request.prompt_tokens + output_tokens))


def _too_many(what: str, wait_s: float) -> BadRequest:
    seconds = max(1, ceil(wait_s))
    return BadRequest(
        f"{what}; try again in {seconds} s.",
        status=429,
        type="rate_limit_error",
        code="rate_limit_exceeded",
        headers=((b"retry-after", b"%d" % seconds),),
    )


def _unknown(message: str) -> BadRequest:
    return BadRequest(message, status=401, code="invalid_api_key", headers=(CHALLENGE,))
