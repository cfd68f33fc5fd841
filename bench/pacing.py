"""What pacing a budget is worth: against the cap alone, and against whoever knows the best price of each day.

    python -m bench.pacing [--regimes even,varied] [--jobs 2]

In each world (`bench/pacing_settings.py`) the same requests come four times. Without a budget it is found what a day
spends; then a budget of a share of that holds as a cap alone, paced, and last not at all, but with one price of dollars
for each day, that at which the budget is spent: the best constant price in hindsight, sought between one that spends
more and one that spends less.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from math import exp, log
from multiprocessing import get_context

import msgspec
from rich.console import Console
from rich.table import Table

from bench import pacing_settings as settings
from bench.pacing_settings import Regime
from bench.policy_settings import OWN, VENDOR, WAY
from bench.policy_worlds import own_endpoint, vendor_endpoint
from bench.predict_traffic import Given
from bench.predict_worlds import believed
from bench.record import record
from tidegate.clock import DAY_S
from tidegate.config.cap import Cap, Period
from tidegate.core import budget
from tidegate.core.model import Drawn, Endpoint, Policy, replace
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.sim import api
from tidegate.sim.api import Api
from tidegate.sim.arrivals import Diurnal, Gamma
from tidegate.sim.ask import Ask
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.fitted import BURSTGPT_HOURS
from tidegate.sim.job import Job
from tidegate.sim.network import Link
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Remote
from tidegate.sim.purse import Purse
from tidegate.sim.traffic import Open
from tidegate.sim.world import World

DAY = "day"


class Task(msgspec.Struct, frozen=True):
    """A world: what days are like, its seed, and the budget as a share of what is spent without one."""

    regime: Regime
    seed: int
    share: float


class Spent(msgspec.Struct, frozen=True):
    """What a day came to: dollars, the share of promises that were kept, and of what they were worth."""

    usd: float
    kept: float
    worth: float


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One world with one budget: its days with the cap alone, paced, and by hindsight, at those prices."""

    regime: Regime
    seed: int
    share: float
    budget_usd: float
    cap: list[Spent]
    paced: list[Spent]
    hindsight: list[Spent]
    prices: list[float]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of several worlds and days: dollars as a share of the budget, the mean and the least; attainment and worth, as
    far behind hindsight in points, the mean and the most."""

    spent: float
    spent_least: float
    kept_behind: float
    kept_behind_most: float
    worth_behind: float
    worth_behind_most: float


# --- worlds -------------------------------------------------------------------------------------------------------


def jobs(task: Task) -> list[Job]:
    """What comes: each day is a traffic of its own, so that another day's size does not move it."""
    found: list[Job] = []
    chance = Chance(task.seed)
    sizes = chance.at("pacing", "days")
    ask = Ask(
        "m",
        settings.ALIKE if task.regime is Regime.ALIKE else settings.CLASSES,
        output_tokens_max=(settings.OUTPUT_TOKENS_MAX,),
    )
    for day in range(settings.DAYS):
        size = sizes.gauss(0.0, settings.VARIED)
        per_day = settings.PER_DAY * (exp(size) if task.regime is Regime.VARIED else 1.0)
        begins_s = settings.START_S + day * DAY_S
        law = Gamma(rate_per_s=per_day / DAY_S, cv=settings.ARRIVALS_CV)
        traffic = Open(
            process=Diurnal(process=law, factors=BURSTGPT_HOURS),
            lengths=settings.LENGTHS,
            ask=ask,
            chance=chance,
            name=f"day{day}",
            begins_s=begins_s,
        )
        found += takewhile(partial(_before, begins_s + DAY_S), traffic.arrivals())
    return found


def _before(ends_s: float, job: Job) -> bool:
    return job.request.arrived_s < ends_s


def endpoints() -> tuple[Endpoint, ...]:
    """A laptop of ours, and a vendor."""
    own = own_endpoint(OWN, settings.OWN, settings.CONTEXT_TOKENS, believed(settings.OWN))
    return own, vendor_endpoint(api.PRESETS[settings.VENDOR], settings.CONTEXT_TOKENS, settings.PRICE)


def play(
    task: Task, came: Sequence[Job], purse: Purse, router: Router, at: Callable[[World], None] | None = None
) -> list[Spent]:
    """What each day came to, by when its requests did."""
    start_s = settings.START_S
    world = World(endpoints(), policy(task), start_s=start_s, request_timeout_s=3600.0, router=router, purse=purse)
    chance = Chance(task.seed)
    own = Local(OWN, Engine(settings.OWN, start_s), world.loop, world)
    sold = Api(api.PRESETS[settings.VENDOR], chance, VENDOR)
    vendor = Remote(VENDOR, sold, world.loop, world, Link(WAY, chance, VENDOR))
    if at is not None:
        at(world)
    ends_s = start_s + settings.DAYS * DAY_S + 3600.0
    world.run({OWN: own, VENDOR: vendor}, Given(list(came)), probe_s=settings.PROBE_S, until_s=ends_s)
    days: list[list[Outcome]] = [[] for _ in range(settings.DAYS)]
    for one in world.outcomes:
        days[int((one.request.arrived_s - start_s) // DAY_S)].append(one)
    asked_tokens = {job.request.id: job.prompt_tokens + job.target for job in came}
    return [_spent(day, asked_tokens) for day in days]


def _spent(day: Sequence[Outcome], asked_tokens: Mapping[str, int]) -> Spent:
    """`asked_tokens` are those of each request if it is served: what is refused was worth as much."""
    worths = [
        one.request.worth_usd + one.request.worth_usd_per_1k_tokens * asked_tokens[one.request.id] / 1000.0
        for one in day
    ]
    kept = [worth for worth, one in zip(worths, day, strict=True) if one.kept]
    return Spent(sum(one.usd for one in day), len(kept) / len(day), sum(kept) / sum(worths))


def router(task: Task, state: State | None = None) -> Router:
    """Who decides."""
    return Router(endpoints(), policy(task), state)


def policy(task: Task) -> Policy:
    """The settings of whoever decides."""
    return Policy(seed=task.seed, recheck_s=settings.RECHECK_S, hold_s_max=settings.HOLD_S_MAX)


def hindsight(task: Task, came: Sequence[Job], free: Sequence[Spent], usd: float) -> tuple[list[Spent], list[float]]:
    """The days, and their prices, where each day has the price at which the budget is spent, more or less.

    The logarithms of dollars and of `1 + price` are nearly on a line; each guess is where the line between the nearest
    two, one that spends too much and one that does not, meets the budget.
    """
    drawing = [msgspec.structs.replace(job, request=replace(job.request, budgets=(DAY,))) for job in came]
    searches = [_Search(spent, usd) for spent in free]
    for _ in range(settings.STEPS):
        levels = [search.guess() for search in searches]
        for search, level, spent in zip(
            searches, levels, _at_prices(task, drawing, [exp(level) - 1.0 for level in levels]), strict=True
        ):
            search.learn(level, spent)
    return [search.best[1] for search in searches], [exp(search.best[0]) - 1.0 for search in searches]


class _Search:
    """The price of one day, by the logarithm of `1 + price`; `best` is the one that spends nearest to the budget."""

    def __init__(self, free: Spent, usd: float) -> None:
        self._usd = usd
        self._low, self._low_usd = 0.0, free.usd
        self._high, self._high_usd = settings.LEVEL_MAX, 0.05 * usd
        self.best = (0.0, free)

    def guess(self) -> float:
        """Where the line meets the budget; nothing has a price where all is affordable."""
        if self._low_usd <= self._usd:
            return self._low
        share = log(self._low_usd / self._usd) / log(self._low_usd / self._high_usd)
        return self._low + min(max(share, 0.05), 0.95) * (self._high - self._low)

    def learn(self, level: float, spent: Spent) -> None:
        """What a day spends at that price."""
        if spent.usd > self._usd:
            self._low, self._low_usd = level, spent.usd
        else:
            self._high, self._high_usd = level, max(spent.usd, 0.05 * self._usd)
        if abs(spent.usd - self._usd) < abs(self.best[1].usd - self._usd):
            self.best = level, spent


def _at_prices(task: Task, drawing: Sequence[Job], prices: Sequence[float]) -> list[Spent]:
    """The days, where nothing is learned of a budget: each has its price."""
    begins_s = settings.START_S
    drawn = Drawn(budget=DAY, usd=1.0, spent_usd=0.0, begins_s=begins_s, ends_s=begins_s + DAY_S)
    watched = budget.fresh(drawn, begins_s)

    def arrange(world: World) -> None:
        for day, price in enumerate(prices):
            world.loop.at(begins_s + day * DAY_S, setattr, watched, "price", price)

    return play(task, drawing, Purse(), router(task, State(budgets={DAY: watched})), arrange)


# --- what is found ------------------------------------------------------------------------------------------------


def judge(task: Task) -> Found:
    """One world with its budget."""
    came = jobs(task)
    free = play(task, came, Purse(), router(task))
    usd = task.share * sum(day.usd for day in free) / settings.DAYS
    caps = [Cap(usd=usd, period=Period.DAY)]
    best, prices = hindsight(task, came, free, usd)
    return Found(
        regime=task.regime,
        seed=task.seed,
        share=task.share,
        budget_usd=usd,
        cap=play(task, came, Purse(caps, paced=False), router(task)),
        paced=play(task, came, Purse(caps), router(task)),
        hindsight=best,
        prices=prices,
    )


def figures(found: Sequence[Found], of: Callable[[Found], list[Spent]], days: slice) -> Figures:
    """How far the days of some are from what could have been spent, and was kept."""
    spent, kept, worth = [], [], []
    for one in found:
        for day, best in list(zip(of(one), one.hindsight, strict=True))[days]:
            # Where not all can be spent, at no price, that is all that can be asked for.
            spent.append(day.usd / (one.budget_usd if best.usd > 0.95 * one.budget_usd else best.usd))
            kept.append(100.0 * (best.kept - day.kept))
            worth.append(100.0 * (best.worth - day.worth))
    return Figures(
        spent=sum(spent) / len(spent),
        spent_least=min(spent),
        kept_behind=sum(kept) / len(kept),
        kept_behind_most=max(kept),
        worth_behind=sum(worth) / len(worth),
        worth_behind_most=max(worth),
    )


def table(found: Sequence[Found]) -> dict[str, dict[str, Figures]]:
    """By regime, share, policy and whether anything was known of the days."""
    ways: dict[str, Callable[[Found], list[Spent]]] = {"cap": lambda one: one.cap, "paced": lambda one: one.paced}
    made = {}
    for regime in dict.fromkeys(one.regime for one in found):
        for share in sorted({one.share for one in found if one.regime is regime}):
            some = [one for one in found if one.regime is regime and one.share == share]
            made[f"{regime} {share:.0%}"] = {
                f"{way} {when}": figures(some, of, days)
                for way, of in ways.items()
                for when, days in (("first day", slice(1)), ("later days", slice(1, None)))
            }
    return made


def show(made: dict[str, dict[str, Figures]]) -> None:
    """For people."""
    shown = Table("world", "", "spent", "least", "kept, points behind", "most", "worth, points behind", "most")
    for world, by_way in made.items():
        for way, one in by_way.items():
            points = (one.kept_behind, one.kept_behind_most, one.worth_behind, one.worth_behind_most)
            shown.add_row(world, way, f"{one.spent:.1%}", f"{one.spent_least:.1%}", *(f"{p:+.2f}" for p in points))
    Console().print(shown)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regimes", default="", help="some of them, by name")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="worlds at once")
    options = parser.parse_args()
    regimes = [Regime(name) for name in options.regimes.split(",") if name] or list(Regime)
    tasks = [Task(r, seed, share) for r in regimes for seed in settings.SEEDS for share in settings.SHARES]
    found: list[Found] = []
    with get_context("spawn").Pool(options.jobs) as pool:
        for one in pool.imap(judge, tasks):
            found.append(one)
            show(made := table(found))
            # A run that is stopped has written what it found.
            if not options.regimes:
                record("pacing", {"figures": msgspec.to_builtins(made), "worlds": msgspec.to_builtins(found)})


if __name__ == "__main__":
    main()
