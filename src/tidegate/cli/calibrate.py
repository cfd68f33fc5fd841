"""The verb that measures a live engine, and writes down what it is like for simulated worlds."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from tidegate.cli.output import Console, check_writable, print_json, print_problems, print_table, write
from tidegate.clock import Clock, iso
from tidegate.config import secret
from tidegate.config.address import Url, is_private, parse_url
from tidegate.config.discovered import FoundEngine, State
from tidegate.config.endpoint import EngineKind
from tidegate.config.problem import ConfigError, Problem
from tidegate.config.secret import SecretError
from tidegate.config.vendors import VENDORS
from tidegate.core.step import StepTime
from tidegate.engines.base import Header
from tidegate.engines.recognise import SOFTWARE
from tidegate.gateway.discover import discover
from tidegate.lab.asking import Asker
from tidegate.lab.calibrate import CalibrateError, Facts, Plan, Progress
from tidegate.lab.constants import Constants, constants
from tidegate.lab.fit import Fit
from tidegate.lab.purse import Budget, Purse
from tidegate.sim.engine import EngineProfile
from tidegate.sim.profile import Interval, Measured, Network, Profile, rounded, toml

SECONDS, SECONDS_MAX = 120.0, 3600.0
TOKENS, TOKENS_MAX = 50_000, 10_000_000
USD_MAX = 1000.0  # of one calibration: more is a slip of the keyboard
USD_PER_1M_MAX = 10_000.0
LOOK_S = 5.0  # to find out what it is; it may be busy
KV_ASSUMED_TOKENS = 131_072  # where no window is told
_HOSTS = {urlsplit(vendor.url).hostname: vendor for vendor in VENDORS}

Tell = Callable[[Progress], None]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured, by its own word as far as it gives one."""

    url: Url
    kind: EngineKind
    software: str
    model: str
    facts: Facts


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """What can be asked for."""
    verb.add_argument("url", type=_url, metavar="URL", help="the engine's address, as in http://127.0.0.1:8080")
    verb.add_argument("--model", help="the model to ask for, where it serves several")
    verb.add_argument("--out", type=Path, metavar="FILE", help="write the profile there; without it, it is printed")
    verb.add_argument(
        "--seconds", type=_number(1.0, SECONDS_MAX), default=SECONDS, help="take no longer (default: %(default)g)"
    )
    verb.add_argument(
        "--tokens", type=_number(500, TOKENS_MAX), default=TOKENS, help="have no more computed (default: %(default)d)"
    )
    verb.add_argument("--key-env", metavar="NAME", help="the environment variable that holds its key")
    verb.add_argument(
        "--price-per-1m",
        type=_number(0.0, USD_PER_1M_MAX),
        nargs=2,
        metavar=("IN", "OUT"),
        help="dollars for a million tokens of prompts and of answers; needed for every address in the internet",
    )
    verb.add_argument(
        "--yes-spend", type=_number(0.0, USD_MAX), metavar="USD", help="spend as much without asking, and never more"
    )


def calibrate(options: argparse.Namespace) -> int:
    """Measure, print or write; 1 where it cannot be measured, 2 where it was asked wrongly."""
    check_writable("calibrate", options.out, "--out")
    budget = _budget(options)
    headers = _key(options.key_env)
    try:
        with _progress() as tell:
            made = asyncio.run(measure(options.url, options.model, headers, budget, Clock(), tell))
    except CalibrateError as error:
        print(f"tidegate calibrate: {error}\n    remedy: {error.remedy}", file=sys.stderr)
        return 1
    status = 0
    if options.out is not None:
        try:
            write("calibrate", options.out, "--out", toml(made).encode())
        except ConfigError as error:
            # It has taken minutes, and may have cost money: it is not lost.
            print_problems(error)
            status = 2
    if options.json:
        print_json(made)
    elif options.out is None or status:
        sys.stdout.buffer.write(toml(made).encode())
    else:
        show(Console(highlight=False), made, options.out)
    return status


def show(console: Console, made: Profile, file: Path) -> None:
    """For people: what was found, how sure that is, and what that took."""
    measured = made.measured
    assert measured is not None
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("constant", "value", "nine in ten"):
        table.add_column(heading, justify="left" if heading == "constant" else "right")
    values: dict[str, float] = {f"step.{name}": value for name, value in msgspec.to_builtins(made.engine.step).items()}
    values |= {"request_s": made.network.request_s, "rtt_s": made.network.rtt_s}
    values |= {"batch_tokens": made.engine.batch_tokens, "slots": made.engine.slots}
    for name, interval in made.confidence.items():
        low, high = interval.low, interval.high
        table.add_row(name, f"{values[name]:g}", f"at least {low:g}" if high is None else f"{low:g} to {high:g}")
    # What an engine says of itself is no mark-up.
    what = f"[bold]{escape(measured.software)}[/] with {escape(measured.model)} at {escape(measured.url)}"
    console.print(what, soft_wrap=True)
    print_table(console, table)
    cost = f", ${measured.usd:g}" if measured.usd else ""
    console.print(
        f"{measured.requests} requests, {measured.tokens} tokens{cost}, {measured.seconds:g} s; "
        f"the constants are {measured.error:.1%} from what was measured. Assumed: {', '.join(measured.assumed)}.",
        soft_wrap=True,
    )
    for remark in measured.remarks:
        console.print(f"[yellow]{escape(remark)}[/]", soft_wrap=True)
    console.print(f"Written: {file}", soft_wrap=True, markup=False)


async def measure(
    url: Url, model: str | None, key: tuple[Header, ...], budget: Budget, clock: Clock, tell: Tell
) -> Profile:
    """The profile of the engine there. Raises `CalibrateError`."""
    purse = Purse(budget, clock)
    target = await _look(url, model, clock, min(LOOK_S, budget.seconds))
    async with Asker(url, target.kind, target.model, key, clock, purse.until_s) as asker:
        window = (await asker.signals()).context_tokens
        if window is not None:
            target = msgspec.structs.replace(target, facts=Facts(slots=target.facts.slots, context_tokens=window))
        seen = await Plan(asker, target.facts, purse, tell).run()
    return _profile(target, constants(seen, target.facts.slots), purse, iso(clock.now_s()))


# --- what may be spent --------------------------------------------------------------------------------------------


def _budget(options: argparse.Namespace) -> Budget:
    """What may be spent; on a paid API, what somebody has said may be. Raises ConfigError."""
    prices, usd = options.price_per_1m, options.yes_spend
    if prices is None and not is_private(options.url.host):
        vendor = _HOSTS.get(options.url.host)
        who = "this is an address in the internet" if vendor is None else f"{vendor.name} takes money"
        remedy = "give it as --price-per-1m IN OUT, from the vendor's price list; 0 0 where it costs nothing"
        raise _refusal("--price-per-1m", f"{who}, and what a token costs is not said", remedy)
    if usd is not None and prices is None:
        raise _refusal("--yes-spend", "without --price-per-1m nothing says what is spent", "say both, or neither")
    budget = Budget(seconds=options.seconds, tokens=int(options.tokens))
    if prices is None or not any(prices):
        return budget
    budget = msgspec.structs.replace(budget, usd_per_input_token=prices[0] / 1e6, usd_per_output_token=prices[1] / 1e6)
    return msgspec.structs.replace(budget, usd=_asked(budget) if usd is None else usd)


def _asked(budget: Budget) -> float:
    """What all the tokens of the budget cost at most, where the one at the terminal agrees."""
    usd = budget.tokens * max(budget.usd_per_input_token, budget.usd_per_output_token)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise _refusal("--yes-spend", "this costs money, and nobody is there to agree", f"--yes-spend {usd:.2f}")
    print(
        f"This sends up to {budget.tokens} tokens, which cost up to ${usd:.2f}. Go on? [y/N] ", end="", file=sys.stderr
    )
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise _refusal("--yes-spend", "nobody agreed to spend anything", "answer `y`, or give less to --tokens")
    return usd


def _key(variable: str | None) -> tuple[Header, ...]:
    if variable is None:
        return ()
    try:
        key = secret.from_variable(variable, os.environ, alone=True)
    except SecretError as error:
        raise _refusal("--key-env", error.message, error.remedy) from None
    return ((b"authorization", b"Bearer " + key.reveal().encode()),)


# --- what it is ---------------------------------------------------------------------------------------------------


async def _look(url: Url, model: str | None, clock: Clock, bound_s: float) -> Target:
    """What stands there. A vendor is known by its host, and is not asked."""
    vendor = _HOSTS.get(url.host)
    if vendor is not None:
        if model is None:
            raise CalibrateError("a vendor serves many models", f"name one: --model {vendor.models[0][0]}")
        windows = {name: context_tokens for name, context_tokens, _ in vendor.models}
        facts = Facts(context_tokens=windows.get(model))
        return Target(url=url, kind=vendor.engine, software=vendor.name, model=model, facts=facts)
    found = await discover((url,), clock, bound_s=bound_s)
    if not found.engines:
        why = found.passed[0].why if found.passed else "nobody listens there"
        raise CalibrateError(f"{url}: {why}", "start an engine there, or give the address of one")
    engine = found.engines[0]
    return Target(
        url=url,
        kind=engine.kind,
        software=SOFTWARE[engine.kind] if engine.state is State.LOCKED else engine.software,
        model=_model(engine, model),
        facts=Facts(slots=engine.slots, context_tokens=_window(engine, model)),
    )


def _model(engine: FoundEngine, asked: str | None) -> str:
    names = [one.name for one in engine.served]
    if asked is not None:
        if names and asked not in names and not engine.left_out:
            raise CalibrateError(f"it does not serve `{asked[:80]}`", f"choose of: {', '.join(names[:5])}")
        return asked
    if len(names) != 1:
        why = "it serves several models" if names else "it does not list what it serves"
        raise CalibrateError(why, f"name one: --model {names[0] if names else 'NAME'}")
    return names[0]


def _window(engine: FoundEngine, asked: str | None) -> int | None:
    return next((one.context_tokens for one in engine.served if asked in (None, one.name)), None)


# --- what comes of it ---------------------------------------------------------------------------------------------


def _profile(target: Target, found: Constants, purse: Purse, at: str) -> Profile:
    slots, window = found.slots.value, target.facts.context_tokens
    fits = {name: rounded(one.value) for name, one in found.fits.items()}
    assumed = ["engine.kv_tokens", "engine.load_s"]
    assumed += [] if found.batch_tokens.high is not None else ["engine.batch_tokens"]
    assumed += [] if found.slots.high is not None else ["engine.slots"]
    return Profile(
        engine=EngineProfile(
            step=StepTime(
                base_s=fits["step.base_s"],
                per_token_s=fits["step.per_token_s"],
                per_sequence_s=fits["step.per_sequence_s"],
                per_context_token_s=fits["step.per_context_token_s"],
                per_pair_s=fits["step.per_pair_s"],
            ),
            slots=slots,
            batch_tokens=found.batch_tokens.value,
            # llama.cpp has a window for each slot; where memory is shared, there is at least one whole window.
            kv_tokens=KV_ASSUMED_TOKENS if window is None else window * (slots if _has_windows(target) else 1),
            keeps_prefixes=found.keeps_prefixes,
        ),
        network=Network(
            rtt_s=rounded(found.rtt_s.value),
            upload_bytes_per_s=rounded(found.upload_bytes_per_s),
            request_s=fits["request_s"],
        ),
        confidence={
            **{name: _interval(one) for name, one in found.fits.items()},
            "rtt_s": _interval(found.rtt_s),
            "batch_tokens": Interval(low=found.batch_tokens.low, high=found.batch_tokens.high),
            "slots": Interval(low=found.slots.low, high=found.slots.high),
        },
        measured=Measured(
            at=at,
            url=str(target.url),
            software=target.software,
            model=target.model,
            requests=purse.requests,
            tokens=purse.tokens,
            seconds=round(purse.seconds, 1),
            usd=rounded(purse.usd),
            error=round(found.error, 3),
            assumed=tuple(assumed),
            remarks=found.remarks,
        ),
    )


def _has_windows(target: Target) -> bool:
    return target.kind is EngineKind.LLAMACPP


def _interval(one: Fit) -> Interval:
    return Interval(low=rounded(one.low), high=rounded(one.high))


@contextmanager
def _progress() -> Iterator[Tell]:
    """A bar where somebody watches; nothing otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("round {task.fields[round]}: {task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("looking", total=1.0, round=1)
        yield lambda at: bar.update(task, description=at.what, completed=at.spent, round=at.round)


def _url(text: str) -> Url:
    """An address on the command line; it is not repeated, as there may be a password in it."""
    try:
        url = parse_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; write http://HOST:PORT") from None
    if not url.tls and not is_private(url.host):
        raise argparse.ArgumentTypeError("http:// into the internet shows everybody the key; write https://")
    return url


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"a number from {low:g} to {high:g} is expected")
        return value

    return read


def _refusal(option: str, message: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(file="tidegate calibrate", path=option, message=message, remedy=remedy)])
