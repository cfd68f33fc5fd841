"""Running the gateway, and saying what a configuration means."""

import asyncio
import errno
import gc
import os
import signal
import sys
from collections.abc import Callable
from functools import partial

import uvloop
from rich.markup import escape
from rich.table import Table

from tidegate.cli import descriptors, heap
from tidegate.cli.journal import ruling_text
from tidegate.cli.output import Console, print_json, print_table
from tidegate.clock import Clock
from tidegate.config.build import build
from tidegate.config.config import Config
from tidegate.core.model import Endpoint, Record, RequestClass, Ruling
from tidegate.gateway.app import Gateway
from tidegate.gateway.outage import MORE_FILES
from tidegate.gateway.tending import tended
from tidegate.state.keys import KeysError
from tidegate.state.store import LedgerError

# In libuv's threads names are looked up, by half of them at most. Of its four, two whose name server says nothing would
# keep everybody waiting, engines on this machine too. Idle ones take some KB.
_THREADS = "32"

# Each stream under way has ninety objects, so that many that begin at once would all wait for a collection of garbage,
# which finds nothing: it is left to `heap`, each minute, as long as it is quick, and this is the last resort.
COLLECTS_AFTER = 500_000


class Ruled(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A rule of the operators': of which requests it holds, and what it says of them."""

    when: str
    says: Ruling


class Summary(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What a configuration comes to."""

    file: str
    listen: str
    admin: str
    keys: str
    tls: bool
    journal: str
    state: str
    endpoints: tuple[Endpoint, ...]
    classes: dict[str, RequestClass]
    rules: tuple[Ruled, ...]


def summary(config: Config) -> Summary:
    """What this configuration comes to, without secrets."""
    built = build(config, Clock().now_s())
    return Summary(
        file=str(config.file),
        listen=config.gateway.listen,
        admin=config.gateway.admin,
        keys=str(built.gateway.keys or ""),
        tls=config.gateway.tls is not None,
        journal=str(built.gateway.journal or ""),
        state=str(built.gateway.state or ""),
        endpoints=built.endpoints,
        classes=built.classes,
        rules=tuple(
            Ruled(when=table.when, says=rule.says) for table, rule in zip(config.rules, built.rules, strict=True)
        ),
    )


def print_summary(found: Summary) -> None:
    """For people."""
    console = Console(highlight=False)
    # In the names of files and models, and in conditions, what is in brackets is no mark-up.
    console.print(f"[bold]{escape(found.file)}[/] is good.", soft_wrap=True)
    console.print(
        f"{_addresses(found)}, keys {found.keys or 'none'}, journal {found.journal or 'off'}, "
        f"learned state {found.state or 'off'}",
        soft_wrap=True,
        markup=False,
    )
    table = Table(
        "endpoint", "site", "serves", "context", "at once", "$/M in", "$/M out", box=None, header_style="bold"
    )
    for e in found.endpoints:
        table.add_row(
            e.name,
            f"{e.site} ({'local' if e.local else 'remote'})",
            escape(", ".join(e.models)),
            str(e.context_tokens or "probed"),
            f"{e.concurrency}{' held' if e.owned else ''}",
            f"{e.price.usd_per_input_token * 1e6:g}",
            f"{e.price.usd_per_output_token * 1e6:g}",
        )
    print_table(console, table)
    table = Table("class", "ttft", "tpot", "e2e", "worth", "late $/s", "may go", box=None, header_style="bold")
    for c in found.classes.values():
        axes = (c.slo.ttft_s, c.slo.tpot_s, c.slo.e2e_s)
        table.add_row(
            c.name,
            *("-" if a is None else f"{a * 1000:g} ms" for a in axes),
            _worth(c),
            f"{c.late_usd_per_s:g}",
            ", ".join(c.residency),
        )
    print_table(console, table)
    if found.rules:
        table = Table("rule", "of requests with", "says", box=None, header_style="bold")
        for rule in found.rules:
            table.add_row(rule.says.rule, escape(" ".join(rule.when.split())), ruling_text(rule.says))
        print_table(console, table)


def _worth(klass: RequestClass) -> str:
    most = f"${klass.worth_usd:g} + ${klass.worth_usd_per_1k_tokens:g}/1k tokens"
    return most if klass.attainment is None else f"as keeps {klass.attainment:g}, up to {most}"


def _addresses(found: Summary) -> str:
    scheme = "https" if found.tls else "http"
    return f"clients {scheme}://{found.listen}/v1, admin {scheme}://{found.admin}"


def serve(config: Config, *, as_json: bool, source: Callable[[], Config] | None = None, remedy: str = "") -> int:
    """Run the gateway until SIGTERM or SIGINT; a second signal ends it at once. SIGHUP reloads what `source` gives.

    `remedy` is what to do where it cannot start, if that is not a change in the file.
    """
    heap.keep_large_buffers()
    os.environ.setdefault("UV_THREADPOOL_SIZE", _THREADS)
    try:
        descriptors.raise_limit()
        told = summary(config)
        descriptors.reserve(config, told.endpoints)
        uvloop.run(_run(Gateway(config, Clock(), source), config, told, as_json=as_json))
    except (OSError, KeysError, LedgerError) as error:
        # An address that is taken, a journal's folder or a log that cannot be written: the error names it.
        table = "budget" if isinstance(error, LedgerError) else "gateway"
        remedy = remedy or f"see [{table}] in {config.file}"
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            remedy = MORE_FILES
        print(f"tidegate serve: cannot start: {error}; {remedy}", file=sys.stderr)
        return 1
    return 0


async def _run(gateway: Gateway, config: Config, told: Summary, *, as_json: bool) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(gateway.escaped)
    stop = asyncio.Event()

    def signalled(number: int) -> None:
        if stop.is_set():
            # An orderly end waits for disks, and one of them may hang.
            os._exit(128 + number)
        stop.set()

    on_terminal = os.isatty(0)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, signalled, name)

    def hung_up() -> None:
        # A terminal that is closed says the same as an operator who wants a reload; only then is it none any more.
        # Kernel and shell both say it, so a second time is no haste.
        if on_terminal and not os.isatty(0):
            stop.set()
        else:
            gateway.reloader.soon()

    # Before the start, which probes and may take seconds: left alone, this signal kills.
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    await gateway.start()
    # What was made up to here lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # And at the rest only where there is very much of it: requests make no cycles, and rare faults few.
    gc.set_threshold(COLLECTS_AFTER, 20, 50)
    descriptors.check(config, told.endpoints, gateway.log)
    if as_json:
        print_json(told, flush=True)
    else:
        print(f"tidegate: {_addresses(told)}, journal {told.journal or 'off'}", file=sys.stderr, flush=True)
    aside = [tended(heap.tidies), tended(partial(descriptors.watches, gateway))]
    try:
        await stop.wait()
    finally:
        for task in aside:
            task.cancel()
        await gateway.stop()
