"""`tidegate mirror`: takes copies of another gateway's requests, decides, and sends nothing anywhere."""

import argparse
import asyncio
import secrets
import signal
import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping
from hashlib import blake2b

import msgspec

from tidegate import __version__
from tidegate.cli.figures import print_sheet
from tidegate.cli.output import Console, print_json, refuse
from tidegate.clock import Clock
from tidegate.config.address import Address, is_loopback, parse_address
from tidegate.config.build import Built, build
from tidegate.config.load import load_unreached
from tidegate.config.problem import nearest
from tidegate.config.schema import INTERACTIVE
from tidegate.core.model import JOURNAL_VERSION, Capability, Decision, Line, Record, Segment
from tidegate.gateway.routes import ROUTES
from tidegate.http.limits import Limits
from tidegate.http.server import Exchange, Server, check_free
from tidegate.sim.mirrored import Mirror, Mirrored
from tidegate.sim.preview import Figures
from tidegate.sim.preview_page import figures_row, promises_text, spent_text
from tidegate.sim.purse import Purse
from tidegate.sim.sheet import Sheet
from tidegate.telemetry.journal import Journal
from tidegate.wire.digest import SALT_BYTES
from tidegate.wire.errors import BadRequest, error_body
from tidegate.wire.intake import ClassTable, client_request_id, intake
from tidegate.wire.tokens import TokenRatio

# What has waited for longer was not worth deciding: we are slower than requests come.
LATE_S = 1.0
PASS_S = 1.0
# Of requests that come twice, by the ids that their gateway gives them.
IDS_MAX = 10_000
_JSON = (b"content-type", b"application/json")


class Seen(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What has come: copies of which nothing was made, by reason, and what became of the others."""

    passed_over: dict[str, int]
    mirror: Mirror


class Door:
    """Takes copies in. Whoever sends them gets an answer without content at once, whatever they are."""

    def __init__(self, built: Built, mirrored: Mirrored, clock: Clock) -> None:
        self._built, self._mirrored, self._clock = built, mirrored, clock
        self._table = ClassTable(classes=built.classes, default=INTERACTIVE, rules=built.rules)
        self._salt, self._ratio = secrets.token_bytes(SALT_BYTES), TokenRatio()
        self._passed_over = Counter[str]()
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._count = 0

    def __call__(self, exchange: Exchange) -> None:
        """See `Server`."""
        if exchange.method == "GET":
            exchange.respond(200, (_JSON,), msgspec.json.format(msgspec.json.encode(self.seen())) + b"\n")
            return
        try:
            decision = self._decided(exchange)
        except BadRequest as error:
            self._passed_over[f"refused: {error.code or 'invalid'}"] += 1
            decision = None
        if decision is None:
            exchange.respond(204, (), b"")
            return
        plan = decision.plan
        to = plan[0].endpoint if plan else "nobody"
        said = ((b"x-tidegate-endpoint", to.encode()), (b"x-tidegate-why", decision.why.encode()))
        exchange.respond(204, (*said, (b"x-tidegate-decision", decision.request_id.encode())), b"")

    def seen(self) -> Seen:
        """What has come to now."""
        self._mirrored.pass_until(self._clock.now_s())
        return Seen(passed_over=dict(self._passed_over.most_common()), mirror=self._mirrored.told())

    def _decided(self, exchange: Exchange) -> Decision | None:
        headers = exchange.headers
        # Where a mirror is an address inside of nginx, the one that was asked stands in a header.
        path = headers.get(b"x-original-uri", b"").decode("ascii", "replace").partition("?")[0]
        route = ROUTES.get(exchange.path) or ROUTES.get(path)
        if route is None or exchange.method != "POST":
            self._passed_over["no address for completions"] += 1
            return None
        if self._clock.now_s() - exchange.received_s > LATE_S:
            self._passed_over["more than could be decided"] += 1
            return None
        if self._again(client_request_id(headers)):
            self._passed_over["came twice"] += 1
            return None
        call = route.parse(exchange.body, headers)
        if call.kind is Capability.EMBEDDING:
            self._passed_over["no chat and no text completion"] += 1
            return None
        self._count += 1
        request, _ = intake(
            call,
            headers,
            id=f"m{self._count}",
            now_s=exchange.received_s,
            table=self._table,
            ratio=self._ratio,
            salt=self._salt,
            group=self._built.groups.get(call.model),
            key=self._key(headers),
        )
        return self._mirrored.take(request)

    def _again(self, request_id: str | None) -> bool:
        if request_id is None:
            return False
        if request_id in self._ids:
            return True
        self._ids[request_id] = None
        if len(self._ids) > IDS_MAX:
            self._ids.popitem(last=False)
        return False

    def _key(self, headers: Mapping[bytes, bytes]) -> str:
        """One for each key of the other gateway's, which nobody can make again from it."""
        given = headers.get(b"authorization") or headers.get(b"x-api-key") or headers.get(b"api-key")
        return "" if given is None else blake2b(given, digest_size=4, key=self._salt).hexdigest()


def run(options: argparse.Namespace) -> int:
    """Take copies in until SIGTERM or SIGINT, and tell what they came to; 1 where it cannot start."""
    config = load_unreached(options.config)
    clock = Clock()
    built = build(config, clock.now_s())
    names = [endpoint.name for endpoint in built.endpoints]
    if options.now is not None and options.now not in names:
        raise refuse("mirror", "--now", f"there is no endpoint `{options.now}`", nearest(options.now, names))
    try:
        listen = parse_address(options.listen)
    except ValueError as error:
        raise refuse("mirror", "--listen", str(error), "write HOST:PORT") from None
    try:
        found = asyncio.run(_run(built, options, listen, clock))
    except OSError as error:
        print(f"tidegate mirror: cannot start: {error}; see --listen and --journal", file=sys.stderr)
        return 1
    if options.json:
        print_json(found)
    else:
        show(Console(highlight=False), found)
    return 0


async def _run(built: Built, options: argparse.Namespace, listen: Address, clock: Clock) -> Seen:
    # Who cannot start leaves no segment behind.
    await check_free(listen.host, listen.port)
    journal: Journal | None = None

    def write(line: Line) -> None:
        if journal is not None:
            journal.append(line.fact, line.at_s)

    mirrored = Mirrored(
        built.endpoints,
        built.policy,
        start_s=clock.now_s(),
        now=options.now,
        purse=Purse(built.caps, paced=built.paced),
        journal=write,
    )
    if options.journal is not None:
        journal = Journal(
            options.journal,
            segment_bytes=built.gateway.journal_segment_bytes,
            total_bytes=built.gateway.journal_total_bytes,
            clock=clock,
            header=lambda: Segment(
                version=JOURNAL_VERSION,
                software=f"tidegate {__version__}",
                policy=built.policy,
                endpoints=built.endpoints,
                state=mirrored.router.snapshot(),
            ),
            packs=built.gateway.journal_packs,
            on_problem=lambda problem: print(f"tidegate mirror: {problem}", file=sys.stderr),
        )
    door = Door(built, mirrored, clock)
    limits = Limits(body_bytes_max=built.gateway.body_bytes_max, connections_max=built.gateway.connections_max)
    server = Server(door, limits=limits, clock=clock, error_body=_error_body)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await server.start(listen.host, listen.port)
    if not is_loopback(listen.host):
        print("tidegate mirror: prompts and keys cross the network in the clear", file=sys.stderr)
    print(f"tidegate: copies of requests at http://{Address(listen.host, server.port)}", file=sys.stderr, flush=True)
    passing = asyncio.create_task(_pass(mirrored, clock))
    try:
        await stop.wait()
    finally:
        passing.cancel()
        await server.close(1.0)
        found = door.seen()
        if journal is not None:
            await journal.close()
    return found


async def _pass(mirrored: Mirrored, clock: Clock) -> None:
    """Time passes there as well while nobody asks."""
    while True:
        await asyncio.sleep(PASS_S)
        mirrored.pass_until(clock.now_s())


def show(console: Console, found: Seen) -> None:
    """For people."""
    mirror = found.mirror
    console.print(f"[bold]{mirror.requests} copies of requests were decided; nobody knows what came of them[/]")
    rows = [figures_row("Tidegate", mirror.ours)]
    if mirror.theirs is not None:
        rows.insert(0, figures_row("as now", mirror.theirs))
    columns = ("simulated", "requests", "kept", "served", "away", "$/1k", "ttft p50", "p95")
    print_sheet(console, Sheet(columns, tuple(rows)))
    if mirror.theirs is not None:
        console.print(compared_text(mirror, mirror.theirs), soft_wrap=True)
    for kind, counts in (("to", mirror.by_endpoint), ("because of", mirror.by_why), ("not", found.passed_over)):
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        if said:
            console.print(f"{kind}: {said}", soft_wrap=True, markup=False)


def compared_text(mirror: Mirror, theirs: Figures) -> str:
    """What Tidegate would have come to beside how things are."""
    if not theirs.requests:
        return "Of these none would have ended both ways yet, so nothing is compared."
    saved = mirror.saved_usd_per_1k
    spent = (
        "None would have ended both ways yet, so no dollars are compared"
        if saved is None
        else f"It would have {spent_text(saved)}"
    )
    return f"{spent}; {promises_text(theirs.requests, mirror.gained or 0, mirror.missed or 0)}."


def _error_body(status: int, message: str) -> tuple[bytes, bytes]:
    return b"application/json", error_body(message, "invalid_request_error", None, f"http_{status}")
