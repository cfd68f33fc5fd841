"""Doing without a file: what there is to serve, how it would be decided, and the configuration that says the same."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import uvloop
from rich.table import Table

from tidegate.cli import serve
from tidegate.cli.output import Console, print_json, print_table, while_read
from tidegate.clock import Clock
from tidegate.config.address import Url, is_private, parse_address, parse_url
from tidegate.config.discovered import ENABLE, NETWORK, FoundEngine, State, remote_name, served_names, toml
from tidegate.config.endpoint import EngineKind
from tidegate.config.load import parse
from tidegate.config.problem import ConfigError, Problem
from tidegate.config.schema import BUDGET_USD_MAX, BUDGET_USD_MIN, GatewayTable
from tidegate.config.vendors import Remote, remotes
from tidegate.core.model import Record
from tidegate.engines.recognise import SOFTWARE
from tidegate.gateway.discover import ENGINES_MAX, PORTS, Found, Passed, discover, patiently, usual

# Relative paths start at the current folder, as they would in a file there.
FILE = "(no file)"
NAMES_MAX = 5  # more do not fit a sentence

_NOTHING = """\
There is nothing to serve. Engines were looked for at {looked}.

Start one, as in
    llama-server -m model.gguf --port 8080
name one that listens elsewhere with --engine http://HOST:PORT, or let a vendor's models be used and say what they may
cost{keys}:
    {enable}
Everything else is said in a file: `tidegate serve --config FILE`, examples are in examples/."""


class Report(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What was found, and what will come of it. `enabled`: requests may go to the remotes."""

    engines: tuple[FoundEngine, ...]
    passed: tuple[Passed, ...]
    remotes: tuple[Remote, ...]
    enabled: bool
    budget_usd_per_day: float | None
    models: tuple[str, ...]
    decides: tuple[str, ...]
    clients: str
    admin: str
    journal: str
    curl: str


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """What can be said without a file."""
    verb.add_argument(
        "--engine", type=_url, action="append", default=[], metavar="URL", help="ask here too; can be repeated"
    )
    verb.add_argument("--allow-remote", action="store_true", help="use the vendors whose keys are in the environment")
    verb.add_argument(
        "--budget-usd-day", type=_usd, metavar="USD", help="what remote endpoints may cost in a day; needed for them"
    )


def given(options: argparse.Namespace) -> bool:
    """Whether anything of that was said."""
    return bool(options.engine or options.allow_remote or options.budget_usd_day is not None)


def refuse_beside(file: Path) -> None:
    """A file says everything; what the command line adds would be lost. Raises ConfigError."""
    raise _refusal(
        str(file),
        "this file says everything, and --engine, --allow-remote and --budget-usd-day are for serving without one",
        "write endpoints and [budget] into it; `tidegate discover --write OTHER` makes a file of them",
    )


def verb(options: argparse.Namespace) -> int:
    """Print what was found; 2 where there is nothing to serve."""
    report = _look(options, patient=False)
    if report.models and options.write is not None:
        _write(options.write, _text(report))  # first: where it cannot be, that is all there is to say
    with while_read():
        if options.json:
            print_json(report)
        else:
            _print(report)
    return 0 if report.models else _nothing(options, report, quiet=options.json)


def serve_found(options: argparse.Namespace) -> int:
    """Serve what is found, until told to stop; 2 where there is nothing."""
    report = _look(options, patient=True)
    if not options.json:
        _print(report)
    if not report.models:
        return _nothing(options, report, quiet=False)
    config = parse(_text(report), FILE)
    remedy = "the addresses can be chosen in a file: `tidegate discover --write tidegate.toml` makes one"
    return serve.serve(config, as_json=options.json, remedy=remedy)


def _look(options: argparse.Namespace, *, patient: bool) -> Report:
    if options.allow_remote and options.budget_usd_day is None:
        raise _refusal("--allow-remote", "what goes away costs money, and nobody has said how much it may be", ENABLE)
    if options.budget_usd_day is not None and not options.allow_remote:
        raise _refusal("--budget-usd-day", "nothing can cost money without --allow-remote", ENABLE)
    if len(options.engine) > ENGINES_MAX:
        raise _refusal("--engine", f"there are more than {ENGINES_MAX}", "write them into a file")
    clock = Clock()
    found = uvloop.run(_found((*usual(), *options.engine), clock, patient=patient))
    silent = _silent(options.engine, found)
    return report(
        Found(engines=found.engines, passed=(*found.passed, *silent)),
        remotes(os.environ, clock.now_s()),
        options.budget_usd_day,
    )


async def _found(urls: tuple[Url, ...], clock: Clock, *, patient: bool) -> Found:
    gateway = GatewayTable()
    own = frozenset(parse_address(text).port for text in (gateway.listen, gateway.admin))
    found = await discover(urls, clock, own)
    if patient and found.loading:
        for one in found.loading:
            print(f"tidegate: {one.url}: {one.why}; waiting for it", file=sys.stderr, flush=True)
        found = await patiently(found, clock)
    return found


def _silent(named: list[Url], found: Found) -> list[Passed]:
    """Of the engines named by hand, those where nobody is: that is worth a line."""
    answered = {engine.url for engine in found.engines} | {passed.url for passed in found.passed}
    return [Passed(url=str(url), why="nobody listens there") for url in named if str(url) not in answered]


def report(found: Found, known: tuple[Remote, ...], usd_per_day: float | None) -> Report:
    """What will come of it; remotes are used where there is a budget."""
    enabled = usd_per_day is not None
    local = served_names(found.engines)
    away = dict.fromkeys(remote_name(model, remote, local) for remote in known for model in remote.usable)
    models = (*sorted(local), *(away if enabled else ()))
    gateway = GatewayTable()
    return Report(
        engines=found.engines,
        passed=found.passed,
        remotes=known,
        enabled=enabled,
        budget_usd_per_day=usd_per_day,
        models=models,
        decides=tuple(_decides(found.engines, known, usd_per_day)) if models else (),
        clients=f"http://{gateway.listen}/v1",
        admin=f"http://{gateway.admin}",
        journal=gateway.journal,
        curl=_curl(gateway.listen, models[0]) if models else "",
    )


def _decides(engines: tuple[FoundEngine, ...], known: tuple[Remote, ...], usd_per_day: float | None) -> Iterable[str]:
    """One sentence for each kind of consequence."""
    local = served_names(engines)
    if local:
        network = any(engine.site == NETWORK for engine in engines if engine.served)
        place = "in your own network" if network else "on this machine"
        yield f"Stays {place}: all that is asked of {_listed(local)}; nothing elsewhere serves a model of such a name."
    shared = {name for name in local if sum(name in served_names([engine]) for engine in engines) > 1}
    if shared:
        yield (
            f"Served by several engines: {_listed(shared)}. Each request goes to the one whose predicted value is "
            "best, and to another if that fails."
        )
    for engine in engines:
        if engine.software == SOFTWARE[EngineKind.OPENAI] and engine.served:
            yield (
                f"Taken for an engine of yours: {engine.software} at {engine.url}. If it passes requests on to others, "
                "describe it in a file, with local = false and a price."
            )
    payable = [remote for remote in known if remote.usable]
    vendors = _listed(remote.vendor.name for remote in payable)
    if payable and usd_per_day is not None:
        away = _listed(remote_name(model, remote, local) for remote in payable for model in remote.usable)
        yield f"May go away: only what asks for {away} by that name, to {vendors}."
        yield (
            f"May cost: the vendors' list prices. Never more than ${usd_per_day:g} in a UTC day: what a request "
            "can cost at most is held back before it is sent."
        )
    else:
        off = "there is no vendor whose model has a price"
        if payable:
            off = f"what {vendors} offers is not enabled; `{ENABLE}` does that"
        yield f"Nothing goes away: {off}."
        yield "Costs nothing: nobody sends a bill for engines of your own."


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(set(names))
    more = len(ordered) - NAMES_MAX
    return ", ".join(ordered[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")


def _curl(listen: str, model: str) -> str:
    body = msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "Say hi"}]}).decode()
    return f"curl http://{listen}/v1/chat/completions -d {shlex.quote(body)}"


def _print(found: Report) -> None:
    """For people. What engines say of themselves is text, never markup."""
    console = Console(highlight=False, markup=False)
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for title in ("taken for", "at", "model", "context", "$/M in", "$/M out", ""):
        table.add_column(title)
    for engine in found.engines:
        for row in _rows(engine):
            table.add_row(*row)
    for remote in found.remotes:
        for row in _remote_rows(remote, enabled=found.enabled):
            table.add_row(*row)
    if table.row_count:
        print_table(console, table)
    for passed in found.passed:
        console.print(f"not used: {passed.url}: {passed.why}", soft_wrap=True)
    for sentence in found.decides:
        console.print(sentence, soft_wrap=True)
    if found.models:
        where = f"clients {found.clients}, admin {found.admin}, journal in ./{found.journal}"
        console.print(f"\n{where}\n{found.curl}", soft_wrap=True)


def _rows(engine: FoundEngine) -> Iterable[tuple[str, ...]]:
    where, state = engine.url.removesuffix("/v1"), "" if engine.state is State.READY else engine.state.value
    if engine.state is State.LOCKED:
        state = "it wants a key: describe it in a file, with api_key_env"
    for model in engine.models:
        context = "asked for later" if model.context_tokens is None else str(model.context_tokens)
        yield engine.software, where, model.name, context, "-", "-", model.remark or state
    if not engine.models:
        yield engine.software, where, "-", "-", "-", "-", state or "it lists no model"
    if engine.left_out:
        yield engine.software, where, f"{engine.left_out} more", "-", "-", "-", "too many: name them in a file"


def _remote_rows(remote: Remote, *, enabled: bool) -> Iterable[tuple[str, ...]]:
    for model in remote.models:
        prices = ("?", "?")
        if model.price is not None:
            price = model.price
            prices = (f"{price.usd_per_input_token * 1e6:g}", f"{price.usd_per_output_token * 1e6:g}")
        state = remote.remark or model.remark or ("" if enabled else "not enabled")
        yield remote.vendor.name, remote.vendor.variable, model.name, str(model.context_tokens), *prices, state


def _nothing(options: argparse.Namespace, found: Report, *, quiet: bool) -> int:
    """Say what to do about it."""
    if not quiet:
        looked = [f"{port} ({name})" for port, name in PORTS.items()]
        keys = _listed(remote.vendor.variable for remote in found.remotes if remote.usable)
        text = _NOTHING.format(
            looked=", ".join(["127.0.0.1, ports " + ", ".join(looked), *(str(url) for url in options.engine)]),
            keys=f" (there is {keys})" if keys else " (export OPENAI_API_KEY=... or another's)",
            enable=ENABLE,
        )
        print(f"tidegate: {text}", file=sys.stderr)
    return 2


def _text(found: Report) -> str:
    return toml(found.engines, found.remotes, found.budget_usd_per_day)


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except OSError:
                # A part of it would be found by `tidegate serve`, and read.
                path.unlink()
                raise
    except FileExistsError:
        raise _refusal(str(path), "there is a file already", "name another, or remove it") from None
    except OSError as error:
        raise _refusal(
            str(path), f"it cannot be written: {error.strerror}", "name a file in a folder of yours"
        ) from None
    print(f"tidegate: written; `tidegate serve --config {shlex.quote(str(path))}` serves it", file=sys.stderr)


def _refusal(where: str, message: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(file="tidegate", path=where, message=message, remedy=remedy)])


def _url(text: str) -> Url:
    """An engine's address on the command line; it is not repeated, as there may be a password in it."""
    try:
        url = parse_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; write http://HOST:PORT") from None
    if not is_private(url.host):
        raise argparse.ArgumentTypeError(
            "this is an address in the internet, where data leaves your network: describe it in a file, with its price"
        )
    return url


def _usd(text: str) -> float:
    try:
        usd = float(text)
    except ValueError:
        usd = 0.0
    if not BUDGET_USD_MIN <= usd <= BUDGET_USD_MAX:
        raise argparse.ArgumentTypeError(
            f"a number of dollars from {BUDGET_USD_MIN:g} to {BUDGET_USD_MAX:d} is expected"
        )
    return usd
