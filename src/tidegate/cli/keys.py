"""Verbs that make and change client keys. They work on the file alone, whether or not a gateway runs."""

import argparse
import os
import pwd
import re
import sys
from collections.abc import Callable
from contextlib import closing
from math import inf
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from tidegate.cli.output import Console, print_json, print_table
from tidegate.clock import DAY_S, Clock, iso
from tidegate.config.problem import ConfigError, Problem
from tidegate.core.model import ANYWHERE, Record
from tidegate.core.profile import (
    BUDGET_USD_MAX,
    CONCURRENCY_MAX,
    NAMES_MAX,
    PER_MINUTE_MAX,
    WEIGHT_MAX,
    WEIGHT_MIN,
    Profile,
)
from tidegate.state.keys import KeyFile, KeysError, new_id, new_secret

KEYS = Path("keys.db")
DAYS_MIN = 0.001  # a minute and a half: what ends sooner has ended before it is handed over
DAYS_MAX = 36_500.0  # a century: what is to last longer is given no end
GRACE_HOURS_MAX = 24.0 * 365
AUDIT_MAX = 1_000_000
_PLACE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRY = "curl http://127.0.0.1:8400/v1/models -H 'Authorization: Bearer {secret}'"

Verb = Callable[..., argparse.ArgumentParser]


class Made(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A key with its secret: the only time that it is shown."""

    key: Profile
    secret: str


def declare(parser: argparse.ArgumentParser, verb: Verb) -> None:
    """Add the verbs below `keys`; `verb` makes one, as those of the first level are made."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    one = verb(verbs, "create", "make a key, and show its secret this once", _run(_create))
    one.add_argument("name", type=_name, help="what people call it; lower-case letters, digits, `.`, `_` and `-`")
    _limits(one)

    one = verb(verbs, "list", "the keys that there are", _run(_list))
    one.add_argument("--all", action="store_true", help="those that were revoked, too")

    one = verb(verbs, "show", "what a key may do", _run(_show))
    one.add_argument("key", help="its name or id")

    one = verb(verbs, "change", "give a key another weight beside others", _run(_change))
    one.add_argument("key", help="its name or id")
    one.add_argument("--weight", type=_weight(), required=True, help="of its share of our engines")

    one = verb(verbs, "revoke", "let nothing open by a key any more", _run(_revoke))
    one.add_argument("key", help="its name or id")

    one = verb(verbs, "rotate", "give a key another secret, and show it this once", _run(_rotate))
    one.add_argument("key", help="its name or id")
    one.add_argument(
        "--grace-hours",
        type=_number(0.0, GRACE_HOURS_MAX),
        default=0.0,
        help="how long the old secret still works (default: not at all)",
    )

    one = verb(verbs, "audit", "who changed which key, and when", _run(_audit))
    one.add_argument("--last", type=_whole(1, AUDIT_MAX), default=100, help="changes to show (default: %(default)s)")

    for one in verbs.choices.values():
        one.add_argument("--file", type=Path, default=KEYS, help="the gateway's `keys` (default: %(default)s)")


def _limits(one: argparse.ArgumentParser) -> None:
    names = "names, separated by commas"
    one.add_argument("--classes", type=_names, help=f"classes it may ask for, the first its default: {names}")
    one.add_argument("--class-default", type=_only_name, help="class of its requests that name none")
    one.add_argument("--models", type=_names, help=f"models it may ask for: {names}")
    one.add_argument(
        "--residency",
        type=_places,
        default=(ANYWHERE,),
        help="where its data may go at most: `local`, names of sites, or `anywhere` (default)",
    )
    one.add_argument(
        "--weight",
        type=_weight(),
        default=1.0,
        help="of its share of our engines where they cannot do all in time (default: %(default)g)",
    )
    one.add_argument("--requests-per-minute", type=_whole(1, PER_MINUTE_MAX), help="at most, none where left out")
    one.add_argument("--tokens-per-minute", type=_whole(1, PER_MINUTE_MAX), help="at most, prompt and output together")
    one.add_argument("--concurrency", type=_whole(1, CONCURRENCY_MAX), help="requests under way at once, at most")
    one.add_argument("--usd-per-day", type=_number(0.0, BUDGET_USD_MAX), help="dollars it may spend in a day (UTC)")
    one.add_argument("--usd-per-month", type=_number(0.0, BUDGET_USD_MAX), help="dollars it may spend in a month (UTC)")
    one.add_argument("--days", type=_number(DAYS_MIN, DAYS_MAX), help="days after which it expires (default: never)")


# --- the verbs --------------------------------------------------------------------------------------------------------


def _create(options: argparse.Namespace) -> int:
    now_s, secret = Clock().now_s(), new_secret()
    default = options.class_default
    if default is not None and options.classes is not None and default not in options.classes:
        raise KeysError("--class-default is none of --classes; add it there, or name one of them")
    profile = Profile(
        id=new_id(options.name),
        name=options.name,
        created_s=now_s,
        classes=options.classes,
        class_default=default if default is not None or options.classes is None else options.classes[0],
        models=options.models,
        residency=options.residency,
        weight=options.weight,
        requests_per_minute=options.requests_per_minute,
        tokens_per_minute=options.tokens_per_minute,
        concurrency=options.concurrency,
        usd_per_day=options.usd_per_day,
        usd_per_month=options.usd_per_month,
        expires_s=None if options.days is None else now_s + options.days * DAY_S,
    )
    with closing(KeyFile(options.file, write=True)) as file:
        file.create(profile, secret, _who())
    return _told(options, profile, secret)


def _rotate(options: argparse.Namespace) -> int:
    secret = new_secret()
    with closing(_opened(options.file)) as file:
        profile = file.rotate(options.key, secret, Clock().now_s(), options.grace_hours * 3600.0, _who())
    return _told(options, profile, secret)


def _told(options: argparse.Namespace, profile: Profile, secret: str) -> int:
    if options.json:
        print_json(Made(key=profile, secret=secret))
    else:
        print(f"{profile.id} in {options.file}. This is its secret; it is not shown again:\n\n    {secret}\n")
        print(f"Try it:\n\n    {_TRY.format(secret=secret)}\n")
        print(f'The gateway asks for keys where its configuration says: [gateway] keys = "{options.file}"')
    return 0


def _revoke(options: argparse.Namespace) -> int:
    with closing(_opened(options.file)) as file:
        profile = file.revoke(options.key, Clock().now_s(), _who())
    if options.json:
        print_json(profile)
    else:
        print(f"{profile.id} opens nothing any more; a gateway that runs knows within two seconds.")
    return 0


def _change(options: argparse.Namespace) -> int:
    with closing(_opened(options.file)) as file:
        profile = file.weigh(options.key, options.weight, Clock().now_s(), _who())
    if options.json:
        print_json(profile)
    else:
        print(f"{profile.id} has weight {profile.weight:g}; a gateway that runs knows within two seconds.")
    return 0


def _list(options: argparse.Namespace) -> int:
    with closing(KeyFile(options.file)) as file:
        found = [profile for profile in file.profiles() if options.all or profile.revoked_s is None]
    if options.json:
        print_json(found)
        return 0
    now_s = Clock().now_s()
    table = Table("key", "created", "state", "may go", "classes", "models", "limits", box=None, header_style="bold")
    for p in found:
        table.add_row(p.id, iso(p.created_s)[:10], _state(p, now_s), *_grants(p), _rates(p))
    print_table(Console(highlight=False), table)
    return 0


def _show(options: argparse.Namespace) -> int:
    with closing(KeyFile(options.file)) as file:
        profile = file.find(options.key)
    if options.json:
        print_json(profile)
        return 0
    may_go, classes, models = _grants(profile)
    rows = {
        "created": iso(profile.created_s),
        "state": _state(profile, Clock().now_s()),
        "data may go": may_go,
        "classes": classes,
        "class of what names none": escape(profile.class_default or "the gateway's"),
        "models": models,
        "limits": _rates(profile),
        "weight": f"{profile.weight:g}",
    }
    table = Table(box=None, show_header=False, title=profile.id, title_justify="left", title_style="bold")
    for what, value in rows.items():
        table.add_row(what, value)
    print_table(Console(highlight=False), table)
    return 0


def _audit(options: argparse.Namespace) -> int:
    with closing(KeyFile(options.file)) as file:
        rows = file.audit(options.last)
    if options.json:
        print_json(rows)
    else:
        for row in rows:
            print(f"{iso(row.at_s)}  {row.who}  {row.key}  {row.what}")
    return 0


def check(file: Path, config: str) -> None:
    """Read all that a gateway would read of the keys that this configuration names. Raises ConfigError."""
    try:
        with closing(KeyFile(file)) as keys:
            keys.changed()
    except KeysError as error:
        message, _, remedy = str(error).partition("; ")
        raise ConfigError([Problem(file=config, path="gateway.keys", message=message, remedy=remedy)]) from None


# --- within -----------------------------------------------------------------------------------------------------------


def _run(verb: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        try:
            return verb(options)
        except KeysError as error:
            print(f"tidegate keys {verb.__name__[1:]}: {error}", file=sys.stderr)
            return 1

    return run


def _opened(path: Path) -> KeyFile:
    """The file, to change what is in it: it is made by the first key alone."""
    KeyFile(path).close()
    return KeyFile(path, write=True)


def _who() -> str:
    """The user of the system, and behind root the one who became root. Not `LOGNAME`, which everybody sets at will."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # containers run under numbers
        return f"uid {uid}"
    became = os.environ.get("SUDO_USER") if uid == 0 else None
    return f"{name} for {became[:64]}" if became else name


def _state(profile: Profile, now_s: float) -> str:
    if profile.revoked_s is not None:
        return f"revoked {iso(profile.revoked_s)[:10]}"
    if profile.expires_s is None:
        return "live"
    return f"{'expired' if profile.expires_s <= now_s else 'until'} {iso(profile.expires_s)[:10]}"


def _grants(profile: Profile) -> tuple[str, str, str]:
    lists = (profile.residency, profile.classes, profile.models)
    # Models have brackets in their names, which are no mark-up.
    may_go, classes, models = ("all" if names is None else escape(", ".join(names)) for names in lists)
    return may_go, classes, models


def _rates(profile: Profile) -> str:
    limits = (
        (profile.requests_per_minute, "{} requests/min"),
        (profile.tokens_per_minute, "{} tokens/min"),
        (profile.concurrency, "{} at once"),
        (profile.usd_per_day, "${:g}/day"),
        (profile.usd_per_month, "${:g}/month"),
    )
    return ", ".join(text.format(limit) for limit, text in limits if limit is not None) or "none"


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", text):
        raise argparse.ArgumentTypeError("lower-case letters, digits, `.`, `_` and `-` are expected, 64 at most")
    return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(0 < len(name) <= 256 and name.isprintable() for name in names) or len(names) > NAMES_MAX:
        raise argparse.ArgumentTypeError(f"names separated by commas are expected, {NAMES_MAX} at most")
    return names


def _only_name(text: str) -> str:
    name, *more = _names(text)
    if more:
        raise argparse.ArgumentTypeError("one name is expected")
    return name


def _places(text: str) -> tuple[str, ...]:
    places = _names(text)
    if not all(_PLACE.fullmatch(place) for place in places):
        raise argparse.ArgumentTypeError("local, anywhere, or names of sites are expected, separated by commas")
    if ANYWHERE in places and len(places) > 1:
        raise argparse.ArgumentTypeError("`anywhere` makes the rest meaningless: name it alone, or leave it out")
    return places


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most} is expected")
        return int(text)

    return read


def _number(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = inf
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"a number from {least:g} to {most:g} is expected")
        return value

    return read


def _weight() -> Callable[[str], float]:
    return _number(WEIGHT_MIN, WEIGHT_MAX)
