"""`tidegate`, one command, and its verbs."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path

import msgspec

from tidegate import __version__
from tidegate.cli import calibrate, discover, doctor, journal, keys, records, serve, status
from tidegate.cli.live import CONFIG, KEY_ENV
from tidegate.cli.output import print_json, print_problems, status_of, while_read
from tidegate.config.document import json_schema
from tidegate.config.extra import installs
from tidegate.config.load import load
from tidegate.config.problem import ConfigError
from tidegate.core.baseline import BASELINES
from tidegate.engines.faults import Fault
from tidegate.telemetry.cores import cores

COURIER_CONFIG = Path("courier.toml")
JOURNAL = Path("journal")
CHAOS_PORT = 8480
MIRROR_PORT = 8402
DASHBOARD_PORT = 8403
PORT_MAX = 65535 - 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status is 0 where it succeeded, 2 where it was asked wrongly, or what it says cannot be
    written."""
    _open_what_is_closed()
    if isinstance(sys.stdout, TextIOWrapper):
        # What others call things may have letters that a terminal has not; of standard error Python says the same.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    return status_of(lambda: _ran(options))


def _open_what_is_closed() -> None:
    """Of a standard stream that is closed Python makes None; a verb reads nothing from it, and writes to nobody."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Like Python's own standard error it takes any letter.
            stream = Path(os.devnull).open(mode, errors="backslashreplace")  # noqa: SIM115 - while this process is there
            setattr(sys, name, stream)


def _ran(options: argparse.Namespace) -> int:
    """The status of the verb; 2 where the configuration or an option is wrong, which is said."""
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except ConfigError as error:
        with while_read():
            if options.json:
                print_json({"problems": error.problems})
            else:
                print_problems(error)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidegate",
        description="Selective offloading for AI inference: decides, request by request, what runs on your own "
        "hardware and what is worth paying for.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    verb = _verb(verbs, "serve", "run the gateway", _serve)
    verb.add_argument("--config", type=Path, help=f"configuration file (default: {CONFIG}, or else what is found here)")
    discover.add_arguments(verb)

    verb = _verb(verbs, "discover", "print what can be served without a configuration file", discover.verb)
    discover.add_arguments(verb)
    verb.add_argument("--write", type=Path, metavar="FILE", help="write the same as a configuration file")

    verb = _verb(verbs, "demo", "two real engines, a gateway and a tour of decisions", _demo)
    verb.add_argument("--once", action="store_true", help="exit after the tour")
    verb.add_argument("--verify", action="store_true", help="really run the choice that was not taken, too")

    verb = _verb(verbs, "check", "read a configuration and say what it means, or what is wrong with it", _check)
    verb.add_argument("config", type=Path, nargs="?", default=CONFIG, help="default: %(default)s")

    _verb(verbs, "schema", "print the JSON schema of the configuration file, for editors", _schema)

    text = "make, list, show, change, revoke and rotate the keys of clients, and say who changed which"
    keys.declare(verbs.add_parser("keys", help=text, description=text[0].upper() + text[1:] + "."), _verb)

    _declare_live(verbs)

    text = "list, print, follow and export what a journal tells"
    records.declare(
        verbs.add_parser("journal", help=text, description=text[0].upper() + text[1:] + "."), _verb, JOURNAL
    )

    verb = _verb(verbs, "explain", "why a request went where it went", journal.explain)
    verb.add_argument("id", nargs="?", help="x-tidegate-decision of its answer; without it, the last decision")
    verb.add_argument("--journal", type=Path, default=JOURNAL, help="folder, segment, or - (default: %(default)s)")

    verb = _verb(verbs, "replay", "reproduce every decision of a journal", journal.replay)
    verb.add_argument("journal", type=Path, nargs="?", default=JOURNAL, help="default: %(default)s")
    verb.add_argument("--jobs", type=_count, default=cores(), help="segments at once (default: all cores, %(default)s)")

    verb = _verb(verbs, "doctor", "how good predictions were, by endpoint, and whether they still are", doctor.doctor)
    verb.add_argument("journal", type=Path, nargs="?", default=JOURNAL, help="default: %(default)s")

    text = "play a scenario: simulated engines, networks and clients around the real decisions"
    verb = verbs.add_parser("simulate", help=text, description=text[0].upper() + text[1:] + ".")
    _declare_simulate(verb)
    verb.set_defaults(run=_simulate)

    _declare_suite(verbs)

    verb = _verb(verbs, "preview", "another policy on the traffic of a journal, before it is in force", _preview)
    verb.add_argument("policy", type=Path, help="a file with [policy], [class] and [[rule]] as they would be")
    verb.add_argument("--journal", type=Path, default=JOURNAL, help="folder or segment (default: %(default)s)")
    verb.add_argument("--html", type=Path, metavar="FILE", help="write a page that needs nothing else")

    verb = _verb(verbs, "switchback", "how two policies compare that are tried by turns on live traffic", _switchback)
    verb.add_argument("--config", type=Path, default=CONFIG, help="the gateway's configuration (default: %(default)s)")

    verb = _verb(verbs, "backtest", "how far the simulator is from this installation, and whether too far", _backtest)
    verb.add_argument("journal", type=Path, nargs="?", default=JOURNAL, help="default: %(default)s")
    verb.add_argument(
        "--ratio",
        type=_positive,
        default=0.25,
        help="so far off may dollars and times be (default: %(default)s)",
    )
    verb.add_argument(
        "--points", type=_positive, default=5.0, help="and so many points of shares (default: %(default)s)"
    )
    verb.add_argument("--publish", type=Path, metavar="FILE", help="write the figures as metrics, for Prometheus")

    verb = _verb(verbs, "audit", "how far from the best possible the decisions of a journal are", _audit)
    verb.add_argument("--journal", type=Path, default=JOURNAL, help="folder or segment (default: %(default)s)")

    verb = _verb(verbs, "dashboard", "show a journal in a browser: what went where, why, and at what price", _dashboard)
    verb.add_argument("--journal", type=Path, default=JOURNAL, help="folder (default: %(default)s)")
    verb.add_argument(
        "--listen", default=f"127.0.0.1:{DASHBOARD_PORT}", metavar="HOST:PORT", help="loopback (default: %(default)s)"
    )
    verb.add_argument("--config", type=Path, help="the gateway's configuration, to edit and preview")
    # A gateway's own: it is told on standard input.
    verb.add_argument("--beside", action="store_true", help=argparse.SUPPRESS)

    verb = _verb(verbs, "shadow", "what this would have made of what another gateway has served, by its log", _shadow)
    verb.add_argument("log", type=Path, help="file or folder: LiteLLM's, or JSON lines with request and response")
    verb.add_argument(
        "--config", type=Path, default=CONFIG, help="the configuration that would be in force (default: %(default)s)"
    )
    verb.add_argument(
        "--at",
        action="append",
        metavar="NAME=ENDPOINT",
        help="which endpoint an address, a host or a deployment of the log is; may be given again",
    )
    verb.add_argument("--html", type=Path, metavar="FILE", help="write a page that needs nothing else")
    verb.add_argument("--journal", type=Path, metavar="FOLDER", help="write what it would have decided, for explain")

    verb = _verb(verbs, "mirror", "decide on copies of another gateway's requests, and send nothing", _mirror)
    verb.add_argument(
        "--config", type=Path, default=CONFIG, help="the configuration that would be in force (default: %(default)s)"
    )
    verb.add_argument(
        "--listen",
        default=f"127.0.0.1:{MIRROR_PORT}",
        metavar="HOST:PORT",
        help="where copies come (default: %(default)s)",
    )
    verb.add_argument("--now", metavar="ENDPOINT", help="where all of them really go, to be compared with")
    verb.add_argument("--journal", type=Path, metavar="FOLDER", help="write what it decides, for explain")

    verb = _verb(verbs, "calibrate", "measure a live engine, for simulated worlds", calibrate.calibrate)
    calibrate.add_arguments(verb)

    verb = _verb(verbs, "courier", "carry KV caches from one llama.cpp to another, beside one of them", _courier)
    verb.add_argument("--config", type=Path, default=COURIER_CONFIG, help="the courier's file (default: %(default)s)")

    verb = _verb(verbs, "chaos", "a provider that misbehaves, to aim a client or a gateway at", _chaos)
    verb.add_argument(
        "--only", nargs="+", choices=[fault.value for fault in Fault], metavar="FAULT", help="list these faults alone"
    )
    verb.add_argument(
        "--port", type=_port, default=CHAOS_PORT, help="the first of four ports, 0 for any (default: %(default)s)"
    )

    _verb(verbs, "version", "print the version", _version)
    return parser


def _declare_live(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "watch a running gateway, and drain its endpoints"
    top = verbs.add_parser("top", help=text, description=text[0].upper() + text[1:] + ".")
    top.set_defaults(run=_top, json=False)
    for verb in (_verb(verbs, "status", "how a running gateway is, and whether it is well", status.run), top):
        whose = f"its configuration (default: {CONFIG}, or else none, as `serve` does without one)"
        verb.add_argument("--config", type=Path, help=whose)
        verb.add_argument("--admin", metavar="HOST:PORT", help=f"its admin address instead, opened by ${KEY_ENV}")


def _declare_suite(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    test = _verb(verbs, "test", "play scenarios, and say which bounds do not hold", _test)
    test.add_argument("--policy", type=Path, metavar="FILE", help="a policy in place of the scenarios' own")
    test.add_argument("--junit", type=Path, metavar="FILE", help="write what build servers read")

    parser = verbs.add_parser("policy", help="compare policies", description="Compare policies.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    diff = _verb(kinds, "diff", "what differs between two policies, and what comes of it in scenarios", _policy_diff)
    diff.add_argument("old", metavar="OLD", help="a file with [policy], [class] and [[rule]]; - is the scenarios' own")
    diff.add_argument("new", metavar="NEW", help="the same")
    diff.add_argument("--markdown", type=Path, metavar="FILE", help="write it for the discussion of a change")

    for verb in (test, diff):
        verb.add_argument("scenarios", type=Path, nargs="+", help="files, and folders of them")
        verb.add_argument("--seeds", type=_count, metavar="N", help="play each with so many seeds, 0 to N - 1")
        verb.add_argument(
            "--jobs",
            type=_count,
            default=cores(),
            help="at once (default: all cores, %(default)s)",
        )


def _declare_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", type=Path, help="a scenario's file, as in scenarios/")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="a public trace in place of the scenario's traffic")
    parser.add_argument("--trace-format", metavar="FORMAT", help="whose trace that is: azure, mooncake or kvct")
    parser.add_argument(
        "--policy",
        metavar="FILE|BASELINE",
        help=f"a file with [policy], [class] and [[rule]] in place of the scenario's, or one of {', '.join(BASELINES)}",
    )
    parser.add_argument("--seed", type=_seed, metavar="N", help="the world's seed, in place of the scenario's")
    parser.add_argument(
        "--json", type=Path, nargs="?", const=Path("-"), metavar="FILE", help="write every figure as JSON, or print it"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots that needs nothing else")
    parser.add_argument("--journal", type=Path, metavar="FOLDER", help="write the journal, for explain and replay")


def _count(text: str) -> int:
    count = int(text) if text.isdecimal() else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return count


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=run)
    return verb


def _serve(options: argparse.Namespace) -> int:
    if options.config is None and not os.path.lexists(CONFIG):
        return discover.serve_found(options)
    file = options.config or CONFIG
    if discover.given(options):
        discover.refuse_beside(file)
    return serve.serve(load(file), as_json=options.json, source=lambda: load(file))


def _demo(options: argparse.Namespace) -> int:
    # The lab is heavy, and no other verb needs it.
    from tidegate.lab.demo import demo

    return demo(once=options.once, verify=options.verify, as_json=options.json)


def _top(options: argparse.Namespace) -> int:
    try:
        from tidegate.cli.top import run
    except ModuleNotFoundError as error:
        print(f"tidegate top needs {error.name}: {installs('terminal')}", file=sys.stderr)
        return 1
    return run(options)


def _preview(options: argparse.Namespace) -> int:
    # As for `simulate`.
    from tidegate.cli.preview import run

    return run(options)


def _test(options: argparse.Namespace) -> int:
    # As for `simulate`.
    from tidegate.cli.suite import test

    return test(options)


def _policy_diff(options: argparse.Namespace) -> int:
    # As for `simulate`.
    from tidegate.cli.suite import diff

    return diff(options)


def _backtest(options: argparse.Namespace) -> int:
    # As for `simulate`.
    from tidegate.cli.backtest import run

    return run(options)


def _switchback(options: argparse.Namespace) -> int:
    # As for `simulate`.
    from tidegate.cli.switchback import run

    return run(options)


def _shadow(options: argparse.Namespace) -> int:
    # As for `simulate`.
    from tidegate.cli.shadow import run

    return run(options)


def _mirror(options: argparse.Namespace) -> int:
    # As for `simulate`.
    from tidegate.cli.mirror import run

    return run(options)


def _audit(options: argparse.Namespace) -> int:
    try:
        from tidegate.cli.audit import run
    except ModuleNotFoundError as error:
        print(f"tidegate audit needs {error.name}: {installs('oracle')}", file=sys.stderr)
        return 1
    return run(options)


def _dashboard(options: argparse.Namespace) -> int:
    # A process of its own, as the courier is.
    from tidegate.cli.dashboard import run

    return run(options)


def _simulate(options: argparse.Namespace) -> int:
    # A world of its own, which no other verb needs.
    from tidegate.cli.simulate import simulate

    return simulate(options)


def _chaos(options: argparse.Namespace) -> int:
    # Part of the lab, as the demo is.
    from tidegate.cli.chaos import chaos

    return chaos(options)


def _courier(options: argparse.Namespace) -> int:
    # A process of its own, which no other verb needs.
    from tidegate.cli.courier import run

    return run(options)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= PORT_MAX:
        raise argparse.ArgumentTypeError(f"a number from 0 to {PORT_MAX} is expected: three more ports follow it")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError("a whole number from 0 to 2^63 - 1 is expected")
    return int(text)


def _check(options: argparse.Namespace) -> int:
    config = load(options.config)
    summary = serve.summary(config)
    if summary.keys:
        keys.check(Path(summary.keys), summary.file)
    if options.json:
        print_json(summary)
    else:
        serve.print_summary(summary)
    return 0


def _schema(_: argparse.Namespace) -> int:
    print(msgspec.json.format(msgspec.json.encode(json_schema())).decode())
    return 0


def _version(options: argparse.Namespace) -> int:
    if options.json:
        print_json({"version": __version__})
    else:
        print(f"tidegate {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
