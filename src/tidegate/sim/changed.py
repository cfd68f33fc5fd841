"""What another policy makes of requests that have come: its settings, its classes, its rules."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tidegate.config import build, classes, rule
from tidegate.config.convert import convert, listed
from tidegate.config.load import policy_tables
from tidegate.config.problem import ConfigError, Problems, join
from tidegate.config.rule import RULES_MAX, RuleTable
from tidegate.config.schema import CLASSES, PolicyTable
from tidegate.core.classify import base_of
from tidegate.core.model import Endpoint, Policy, Request, RequestClass, replace
from tidegate.core.resume import PASSED_OVER
from tidegate.core.ruled import features, rulings
from tidegate.core.ruling import Rule

# What requests take from their class, unless they say it themselves. Where data may go is not among it: that is what
# class, key and request allow together, and the journal does not say which of them.
_TAKEN = ("slo", "attainment", "worth_usd", "worth_usd_per_1k_tokens", "late_usd_per_s", "session_moves")
_Usual = dict[str, dict[str, Any]]


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """Another policy. `classes` are those that it has, `usual` is what requests of each class mostly had, and `rules`
    are those that it has, None where they stay."""

    policy: Policy
    classes: dict[str, RequestClass] = {}
    usual: _Usual = {}
    rules: tuple[Rule, ...] | None = None

    def __call__(self, request: Request) -> Request:
        """The request as it would come under this policy: what it says itself stays."""
        name = base_of(request.klass)
        klass, usual = self.classes.get(name), self.usual.get(name, {})
        if klass is not None:
            told = {
                field: getattr(klass, field)
                for field in _TAKEN
                if field in usual and getattr(request, field) == usual[field]
            }
            request = replace(request, **told)
        if self.rules is not None:
            observed = features(
                model=request.model,
                prompt_tokens=request.prompt_tokens,
                output_tokens_max=request.output_tokens_max,
                completions=request.completions,
                needs=request.needs,
                session=bool(request.session),
                stream=request.stream,
                key=request.key,
            )
            # Where it could not be sent, it cannot be under other rules.
            kept = [one for one in request.rulings if one.rule == PASSED_OVER]
            request = replace(request, rulings=(*rulings(self.rules, observed | {"class": name}), *kept))
        return request


def changed(file: Path, policy: Policy, endpoints: Iterable[Endpoint], requests: Iterable[Request]) -> Changed:
    """What this file's [policy], [class] and [[rule]] say, of requests as they came under `policy`; a table that it
    does not have stays as it was. ConfigError tells everything that is wrong with it."""
    tables, shown = policy_tables(file), os.fspath(file)
    problems = Problems(shown)
    settings = convert(tables["policy"], "policy", PolicyTable, problems) if "policy" in tables else None
    known = classes.read(tables, problems) if "class" in tables else {}
    # A class that is not written down stays as it was.
    written = {name: table for name, table in known.items() if name in tables["class"]}
    came = list(requests)
    there = {*CLASSES, *known, *(base_of(one.klass) for one in came)}
    ruled = _rules(tables, {one.name: one for one in endpoints}, there, problems)
    if problems.found:
        raise ConfigError(problems.found)
    return Changed(
        policy=policy if settings is None else build.policy(settings),
        classes={name: build.request_class(name, table) for name, table in written.items()},
        usual=_usual(came) if written else {},
        rules=ruled,
    )


def _rules(
    tables: Mapping[str, Any], endpoints: Mapping[str, Endpoint], there: Collection[str], problems: Problems
) -> tuple[Rule, ...] | None:
    if "rule" not in tables:
        return None
    found = [table for _, table in listed(dict(tables), "rule", RuleTable, RULES_MAX, problems)]
    rule.check(
        found,
        classes=there,
        sites={one.site for one in endpoints.values()},
        written=endpoints,
        endpoints=endpoints,
        models=None,
        keyed=None,
        problems=problems,
    )
    for table in found:
        if table.klass:
            problems.add(
                join("rule", table.name),
                "it gives a class, and a journal does not say which requests named none",
                "leave it out of the preview",
            )
    return None if problems.found else rule.rules(found, endpoints)


def _usual(requests: Iterable[Request]) -> _Usual:
    """What most requests of each class had: whoever has that has said nothing else."""
    counts: dict[tuple[str, str], Counter[Any]] = {}
    for request in requests:
        for field in _TAKEN:
            counts.setdefault((base_of(request.klass), field), Counter())[getattr(request, field)] += 1
    found: _Usual = {}
    for (name, field), counted in counts.items():
        found.setdefault(name, {})[field] = counted.most_common(1)[0][0]
    return found
