"""All who send requests in a scenario, as one traffic."""

from collections.abc import Iterator
from heapq import merge
from pathlib import Path

from tidegate.core.model import Likeness
from tidegate.sim.arrivals import HOUR_S, ArrivalProcess, Diurnal, Gamma, Poisson, Weibull
from tidegate.sim.ask import BOUNDS, Ask
from tidegate.sim.chance import Chance
from tidegate.sim.checks import kind_of
from tidegate.sim.fitted import BURSTGPT_HOURS, fitted
from tidegate.sim.job import Job, Traffic
from tidegate.sim.lengths import Constant, Distribution, Lengths, LogNormal
from tidegate.sim.recorded import recorded
from tidegate.sim.scenario import INTERACTIVE, Scenario
from tidegate.sim.schema import Law, Size, SizeTable, TrafficTable
from tidegate.sim.traffic import Open, Reuse, Sessions, Talk

DAY_H = 24


class _Source:
    """One traffic, until when, and how many requests it may still send."""

    def __init__(self, traffic: Traffic, ends_s: float, requests_max: int) -> None:
        self.traffic = traffic
        self.ends_s = ends_s
        self.left = requests_max


class Crowd:
    """Several traffics, whose requests are known by the names that their ids begin with.

    Each ends at its time, or with its number of requests; all of them together with theirs.
    """

    def __init__(self, sources: dict[str, _Source], requests_max: int) -> None:
        self._sources = sources
        self._left = requests_max

    def arrivals(self) -> Iterator[Job]:
        """Of all, in order of arrival; at the same time, in the order of the traffics."""
        return merge(*(self._of(source) for source in self._sources.values()), key=lambda job: job.request.arrived_s)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        """What the same client asks next."""
        source = self._sources[job.request.id.rpartition("-")[0]]
        following = source.traffic.follows(job, ended_s, served=served)
        return following if following is not None and self._may(following, source) else None

    def _of(self, source: _Source) -> Iterator[Job]:
        for job in source.traffic.arrivals():
            if not self._may(job, source):
                return
            yield job

    def _may(self, job: Job, source: _Source) -> bool:
        if job.request.arrived_s >= source.ends_s or source.left <= 0 or self._left <= 0:
            return False
        source.left -= 1
        self._left -= 1
        return True


def crowd(scenario: Scenario) -> Crowd:
    """The traffic of a scenario, from its beginning."""
    world = scenario.world
    chance = Chance(world.seed)
    sources: dict[str, _Source] = {}
    for index, table in enumerate(scenario.traffic):
        name = table.called(index)
        ends_s = world.duration_s if table.ends_s is None else min(table.ends_s, world.duration_s)
        sources[name] = _Source(
            _traffic(table, name, index, scenario, chance),
            scenario.start_s + ends_s,
            world.requests_max if table.requests_max is None else table.requests_max,
        )
    return Crowd(sources, world.requests_max)


def _traffic(table: TrafficTable, name: str, space: int, scenario: Scenario, chance: Chance) -> Traffic:
    ask = _ask(table, scenario)
    begins_s = scenario.start_s + table.begins_s
    kind = kind_of(table)
    if kind in ("trace", "kvct"):
        assert table.format is not None
        return recorded(
            scenario.file.parent / Path(table.trace),
            table.format,
            ask,
            chance,
            name=name,
            space=space,
            begins_s=begins_s,
            speed=table.speed or 1.0,
            users=table.users or 8,
        )
    if table.preset is not None:
        return fitted(
            table.preset,
            ask,
            chance,
            name=name,
            space=space,
            begins_s=begins_s,
            rate_per_s=table.rate_per_s,
            starts_h=_hour(begins_s) if table.hours else None,
            users=table.users or 8,
        )
    if kind == "users":
        return _sessions(table, name, space, ask, chance, begins_s)
    return _open(table, name, space, ask, chance, begins_s)


def _ask(table: TrafficTable, scenario: Scenario) -> Ask:
    weights = table.classes or INTERACTIVE
    classes = [(scenario.classes[name], weight) for name, weight in weights.items()]
    likeness = scenario.likeness.get(table.model, Likeness.IDENTICAL)
    bounds = BOUNDS if table.output_tokens_max is None else (table.output_tokens_max,)
    return Ask(
        table.model,
        classes,
        likeness=likeness,
        output_tokens_max=bounds,
        rules=scenario.rules,
        served=scenario.classes,
        says_class=table.classes is not None,
        key=table.key,
        weight=table.weight,
    )


def _open(table: TrafficTable, name: str, space: int, ask: Ask, chance: Chance, begins_s: float) -> Open:
    assert table.rate_per_s is not None
    process: ArrivalProcess = Poisson(rate_per_s=table.rate_per_s)
    if table.cv is not None:
        law = Weibull if table.law is Law.WEIBULL else Gamma
        process = law(rate_per_s=table.rate_per_s, cv=table.cv)
    if table.hours:
        process = Diurnal(process=process, factors=BURSTGPT_HOURS, starts_h=_hour(begins_s))
    lengths = Lengths(
        prompt_tokens=_size(table.prompt_tokens, 1.0),
        output_tokens=_size(table.output_tokens, 1.0),
        correlation=table.correlation or 0.0,
    )
    reuse = Reuse()
    if table.common_tokens:
        reuse = Reuse(common_share=1.0, common_tokens=Constant(float(table.common_tokens)))
    return Open(
        process=process, lengths=lengths, ask=ask, chance=chance, name=name, space=space, begins_s=begins_s, reuse=reuse
    )


def _sessions(table: TrafficTable, name: str, space: int, ask: Ask, chance: Chance, begins_s: float) -> Sessions:
    assert table.users is not None
    talk = Talk(
        first_tokens=_size(table.prompt_tokens, 1.0),
        output_tokens=_size(table.output_tokens, 1.0),
        new_tokens=_size(table.new_tokens, 100.0),
        turns=_size(table.turns, 1.0),
        think_s=_size(table.think_s, 10.0),
        pause_s=_size(table.think_s, 10.0),
        correlation=table.correlation or 0.0,
        common_tokens=table.common_tokens or 0,
    )
    return Sessions(
        users=table.users, talks=((talk, 1.0),), ask=ask, chance=chance, name=name, space=space, begins_s=begins_s
    )


def _size(size: Size | None, otherwise: float) -> Distribution:
    if size is None:
        return Constant(otherwise)
    if not isinstance(size, SizeTable):
        return Constant(float(size))
    most = float("inf") if size.most is None else size.most
    return LogNormal(median=size.median, sigma=size.sigma, most=most)


def _hour(at_s: float) -> int:
    """The full hour of the day, which laws of a day begin at."""
    return int(at_s // HOUR_S) % DAY_H
