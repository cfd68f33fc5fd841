"""Operators' rules: which requests they are about, and which class these are of or where they go."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Protocol

from msgspec import Meta, field

from tidegate.config.condition import FEATURES, TEXT_MAX, ConditionError, Known, condition, one_of
from tidegate.config.problem import Problems, join, nearest
from tidegate.config.table import NAME, Table
from tidegate.core.condition import Condition
from tidegate.core.model import Capability
from tidegate.core.ruling import Rule, Ruling

RULES_MAX = 64  # each is asked of each request, and a name of each may become a metric label
BREAK_USD_MIN = 1e-6  # a millionth of a dollar: less decides nothing

_NAME = re.compile(NAME)
# As they are made: the name that it was given, and what tells it from an earlier one of that name.
_KEY_ID = re.compile(r".+-[0-9a-f]{8}")
_Break = Annotated[float, Meta(ge=BREAK_USD_MIN, le=1000)]  # at most as for what a request is worth
_Place = Annotated[str, Meta(min_length=1, max_length=64)]


class RuleTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule of the operators'. It gives requests a class, or says where they go; one of the two.

    Rules only narrow: residency, capabilities and what a key may do stand above them. They are asked in the order in
    which they are written, once for each request, when it arrives.
    """

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            description="What it is called where it shows: in explanations, refusals, the journal and metrics. Of the "
            "letters of other names; it has no default, since somebody has to find the rule again.",
        ),
    ]
    when: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=TEXT_MAX,
            description='Of which requests it holds, as in `prompt_tokens > 32768 and class == "batch"`. It has no '
            "default: a rule for all requests is a setting of their class.",
        ),
    ]
    klass: Annotated[
        str,
        Meta(
            max_length=64,
            description="The class of the requests that name none: of the rules that hold the first one's whose class "
            "the key may use. Before the default of the key. None where `to` is given.",
        ),
    ] = field(default="", name="class")
    to: Annotated[
        tuple[_Place, ...],
        Meta(
            max_length=64,  # as many as there are sites, or engines at a site
            description="Where the requests go: names of endpoints and sites. Nowhere else, unless `break_usd` is "
            "given; where several such rules hold, only where all of them allow.",
        ),
    ] = ()
    break_usd: Annotated[
        _Break | None,
        Meta(
            description="Makes of `to` a preference: anywhere else is worth so many dollars less, which nobody pays. "
            "None: who writes where requests go means it.",
        ),
    ] = None


class Stands(Protocol):
    """What stands at a site: an endpoint, as it is configured or as the core knows it."""

    @property
    def site(self) -> str:
        """The site's name."""


def check(
    tables: Collection[RuleTable],
    *,
    classes: Collection[str],
    sites: Collection[str],
    written: Collection[str],
    endpoints: Mapping[str, Stands],
    models: Collection[str] | None,
    keyed: bool | None,
    problems: Problems,
) -> None:
    """Note what contradicts itself, or names what there is not; `written` are all endpoints, broken ones too.

    `models` are the names that clients may ask for, None where that is not known; `keyed`: they are asked for keys,
    None where what keys are called is up to others.
    """
    names = [table.name for table in tables]
    known = {"class": one_of(classes), "needs": one_of([one.value for one in Capability])}
    if models is not None:
        known["model"] = one_of(models)
    if keyed is not None:
        known["key"] = _key_id if keyed else _no_key
    for index, table in enumerate(tables):
        path = join("rule", table.name)
        if not _NAME.match(table.name):
            problems.add(
                f"{path}.name",
                "this name cannot be a metric label",
                "use lower-case letters, digits, `.`, `_` and `-`, 64 at most, a letter or digit first",
            )
        if table.name in names[:index]:
            problems.add(f"{path}.name", f"two rules are called `{table.name}`", "give each a name of its own")
        _effect(path, table, classes, problems)
        try:
            _condition(table, known)
        except ConditionError as error:
            problems.add(f"{path}.when", error.message, error.remedy)
        for name in table.to:
            _place(f"{path}.to", name, sites, written, endpoints, problems)


def _key_id(text: str) -> str:
    """What to do about what is no key's id: operators know the name that they have given it."""
    return "" if not text or _KEY_ID.fullmatch(text) else "write its id, which `tidegate keys list` shows"


def _no_key(text: str) -> str:
    return "no client is asked for a key: name a file in `gateway.keys`, or remove this" if text else ""


def _effect(path: str, table: RuleTable, classes: Collection[str], problems: Problems) -> None:
    if not table.klass and not table.to:
        problems.add(path, "it says nothing", 'write class = "NAME", or to = ["NAME"] with endpoints or sites')
    if table.klass and table.to:
        problems.add(path, "it gives a class and says where to go", "make two rules of it")
    if table.klass and table.klass not in classes:
        problems.add(f"{path}.class", f"there is no class `{table.klass}`", nearest(table.klass, classes))
    if table.break_usd is not None and not table.to:
        problems.add(f"{path}.break_usd", "there is no `to` that could be broken", "remove it")


def _place(
    path: str,
    name: str,
    sites: Collection[str],
    written: Collection[str],
    endpoints: Mapping[str, Stands],
    problems: Problems,
) -> None:
    at_site = sorted(endpoint for endpoint, table in endpoints.items() if table.site == name)
    if name not in sites and name not in written:
        problems.add(path, f"there is no endpoint or site `{name}`", nearest(name, {*sites, *written}))
    elif name in sites and name in written and at_site != [name]:
        problems.add(
            path, f"`{name}` is an endpoint and a site", "name the endpoints one by one, or rename one of them"
        )
    # Only where the rest is sound: a broken endpoint may be the one that was meant.
    elif name not in written and not at_site and not problems.found:
        problems.add(path, f"no endpoint stands at `{name}`", "name another site, or add an endpoint there")


def rules(tables: Iterable[RuleTable], endpoints: Mapping[str, Stands]) -> tuple[Rule, ...]:
    """The rules as the core knows them, in their order: sites are their endpoints."""
    return tuple(Rule(when=_condition(table, {}), says=_ruling(table, endpoints)) for table in tables)


def _ruling(table: RuleTable, endpoints: Mapping[str, Stands]) -> Ruling:
    to = tuple(sorted(name for name, one in endpoints.items() if name in table.to or one.site in table.to))
    return Ruling(rule=table.name, klass=table.klass, to=to, break_usd=table.break_usd)


def _condition(table: RuleTable, known: Known) -> Condition:
    features = [name for name in FEATURES if name != "class"] if table.klass else FEATURES
    return condition(table.when, known, features)
