"""Random worlds from one seed each: engines, vendors, links, traffic, faults, and what has to hold whatever happens.

The real router and the real flights are in them, and after every event of a world it is looked at whether its parts
agree. Whoever finds a seed that breaks something prints it, and it stays in tests/seeds/soak.json.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from math import isfinite
from random import Random
from typing import Any

import msgspec

from tests import make
from tests.sim.make import profile
from tidegate.config.cap import Cap, Period
from tidegate.core.flight import RESUMES_MAX
from tidegate.core.model import (
    Decision,
    Ended,
    Endpoint,
    Fingerprint,
    Handover,
    Held,
    Line,
    Policy,
    Prefill,
    Price,
    Released,
    Request,
    RequestClass,
    Ruling,
    Slo,
    Started,
    Wait,
    Warmed,
    Warming,
    replace,
)
from tidegate.core.replay import replay
from tidegate.core.resume import RULE
from tidegate.core.rules import may_go_to
from tidegate.core.step import StepTime
from tidegate.core.warmup import HANGS_S_MAX
from tidegate.core.why import Why
from tidegate.sim.api import Api, ApiProfile, CacheProfile, Spread
from tidegate.sim.arrivals import Gamma, Poisson
from tidegate.sim.ask import Ask
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job, Traffic
from tidegate.sim.lengths import Lengths, LogNormal
from tidegate.sim.loop import Loop
from tidegate.sim.network import Link, LinkProfile, Regimes
from tidegate.sim.place import Local, Remote
from tidegate.sim.purse import Purse
from tidegate.sim.schema import FaultKind, FaultTable
from tidegate.sim.traffic import Open
from tidegate.sim.trouble import Trouble
from tidegate.sim.world import World

START_S = 1_700_000_000.0
REQUESTS, FAULTS_LEAST = 200, 3
TIMEOUT_S = 120.0
# Of the worlds, those in which answers that broke off are completed; and models of which most are the same.
RESUMING_SHARE, WEIGHTS = 0.5, ("one", "one", "other")
# And those in which prompts are computed elsewhere.
HANDED_SHARE = 0.4
# Shares of a fifth and three fifths of each kind of class.
CLASSES = (
    RequestClass(name="tight", slo=Slo(ttft_s=1.0, tpot_s=0.1), worth_usd=0.01, late_usd_per_s=0.001),
    RequestClass(name="loose", slo=Slo(e2e_s=60.0), worth_usd=0.005),
    RequestClass(name="aimed", slo=Slo(ttft_s=2.0), attainment=0.9, worth_usd=0.02),
    RequestClass(name="home", slo=Slo(ttft_s=5.0), worth_usd=0.01, residency=("local",)),
    RequestClass(name="batch", worth_usd=0.001),
)


class Broken(AssertionError):
    """Something does not hold."""


class Watched(Loop):
    """Time that is looked at after every event."""

    __slots__ = ("look",)

    def __init__(self, now_s: float) -> None:
        super().__init__(now_s)
        self.look: Callable[[], None] = lambda: None

    def at(self, at_s: float, act: Callable[..., None], *arguments: Any) -> None:
        super().at(at_s, self._done, act, arguments)

    def _done(self, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        act(*arguments)
        self.look()


class Crowd:
    """Several kinds of traffic as one, some of whose clients have conversations and keys, and come again."""

    def __init__(self, draw: Random, parts: list[Open]) -> None:
        self._draw = draw
        jobs = [job for part in parts for job in part.arrivals()]
        self._jobs = [self._dressed(job) for job in sorted(jobs, key=lambda one: one.request.arrived_s)]
        # Of each, how many tokens are in its answer.
        self.targets = {job.request.id: job.target for job in self._jobs}
        self.last_s = self._jobs[-1].request.arrived_s

    def _dressed(self, job: Job) -> Job:
        draw = self._draw
        rulings = (Ruling(rule="rather", to=("own-0",), break_usd=0.002),) if draw.random() < 0.1 else ()
        request = replace(
            job.request,
            session=f"s{draw.randrange(40)}" if draw.random() < 0.3 else "",
            session_moves=draw.random() < 0.5,
            failover=draw.random() < 0.95,
            completions=2 if draw.random() < 0.05 else 1,
            cost_usd_max=0.001 if draw.random() < 0.05 else None,
            rulings=rulings,
        )
        return msgspec.structs.replace(job, request=request)

    def arrivals(self) -> Iterator[Job]:
        return iter(self._jobs)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        """Who was not served comes again now and then, as an SDK does."""
        if served or job.request.retry >= 2 or self._draw.random() < 0.5:
            return None
        again = replace(
            job.request,
            id=f"{job.request.id}+",
            arrived_s=ended_s + self._draw.uniform(0.1, 5.0),
            retry=job.request.retry + 1,
        )
        self.targets[again.id] = job.target
        return msgspec.structs.replace(job, request=again)


class Weather:
    """One seed's world. `play` lets all of it happen, and raises `Broken` where something does not hold."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.draw = Random(f"soak {seed}")
        self.lines: list[Line] = []
        draw = self.draw
        policy = Policy(
            seed=seed,
            held_max=draw.choice((2, 16, 256)),
            hold_s_max=draw.choice((5.0, 30.0, 120.0)),
            attempts_max=draw.choice((1, 2, 3)),
            hedge_share=draw.choice((0.0, 0.02, 0.2)),
            explore_share=draw.choice((0.0, 0.0, 0.1)),
            stall_s=draw.choice((5.0, 60.0)),
        )
        beside, count = draw.random() < 0.2, draw.randint(1, 2)
        self.own = [self._own(f"own-{number}", beside=beside and count == 2) for number in range(count)]
        self.vendors = [self._vendor(f"vendor-{number}") for number in range(draw.randint(0, 3))]
        # Drawn apart: seeds that have found something go on with what they found it in.
        apart = Random(f"soak {seed} resumes")
        if apart.random() < RESUMING_SHARE:
            policy = replace(policy, resume=True)
            self.own, self.vendors = self._alike(apart, self.own), self._alike(apart, self.vendors)
        self._hand_over(Random(f"soak {seed} handovers"))
        caps = (Cap(usd=draw.choice((0.01, 0.3)), period=Period.DAY),) if draw.random() < 0.3 else ()
        self.purse = Purse(caps, paced=draw.random() < 0.5)
        self.caps = caps
        self.world = World(
            [*self.own, *self.vendors],
            policy,
            start_s=START_S,
            request_timeout_s=TIMEOUT_S,
            purse=self.purse,
            journal=self.lines.append,
        )
        self.loop = self.world.loop = Watched(START_S)
        chance = Chance(seed)
        self.places: dict[str, Local | Remote] = {}
        for endpoint in self.own:
            self.places[endpoint.name] = self._engine(endpoint, chance)
        for endpoint in self.vendors:
            self.places[endpoint.name] = self._api(endpoint, chance)
        self.crowd = Crowd(draw, self._traffic(chance))
        self.faults = self._faults()

    # --- what there is ------------------------------------------------------------------------------------------------

    def _own(self, name: str, *, beside: bool) -> Endpoint:
        draw = self.draw
        prior = replace(make.scaled(make.LOCAL_PRIOR, draw.choice((0.5, 1.0, 3.0))), load_s=8.0)
        if draw.random() < 0.4:
            prior = replace(prior, unload_after_s=draw.choice((10.0, 60.0)))
        return make.endpoint(
            name,
            concurrency=draw.choice((1, 2, 8)),
            prior=prior,
            warms_up=draw.random() < 0.7,
            kept_usd_per_s=draw.choice((None, None, 0.0, 1e-5)),
            usd_per_s=draw.choice((0.0, 0.0, 1e-4)),
            beside=(("own-1",) if name == "own-0" else ("own-0",)) if beside else (),
        )

    def _vendor(self, name: str) -> Endpoint:
        draw = self.draw
        per_token = draw.choice((0.0, 2e-7, 1e-6, 5e-6))
        return make.endpoint(
            name,
            local=False,
            concurrency=draw.choice((2, 64)),
            price=Price(usd_per_input_token=per_token, usd_per_output_token=4.0 * per_token),
            prior=replace(make.REMOTE_PRIOR, unload_after_s=60.0 if draw.random() < 0.2 else None),
            warms_up=draw.random() < 0.2,
            shares_compute=draw.random() < 0.2,
        )

    def _alike(self, draw: Random, endpoints: list[Endpoint]) -> list[Endpoint]:
        """Most of them with one model."""
        return [replace(one, fingerprint=Fingerprint(weights=draw.choice(WEIGHTS))) for one in endpoints]

    def _hand_over(self, draw: Random) -> None:
        """In some worlds, vendors compute prompts for the first of ours. Drawn apart, as above."""
        if draw.random() < HANDED_SHARE:
            self.vendors = [
                replace(
                    one,
                    handovers=(
                        Handover(
                            target="own-0",
                            kv_bytes_per_token=draw.choice((500.0, 20_000.0)),
                            bytes_per_s=draw.choice((1e5, 1e7)),
                            usd_per_byte=draw.choice((0.0, 1e-11)),
                            layers=draw.choice((1, 8)),
                            whole=draw.random() < 0.5,
                        ),
                    ),
                )
                for one in self.vendors
            ]
            if draw.random() < 0.7:
                self.own, self.vendors = self._alike(draw, self.own), self._alike(draw, self.vendors)

    def _link(self, name: str, chance: Chance) -> Link | None:
        draw = self.draw
        if draw.random() < 0.3:
            return None
        regimes = Regimes(hold_s=draw.choice((20.0, 300.0)), quantiles=((0.3, 0.02), (0.6, 1.0), (1.0, 1.0)))
        table = LinkProfile(
            rtt_s=draw.choice((0.001, 0.05, 0.3)),
            upload_bytes_per_s=draw.choice((30_000.0, 1e6, 1e8)),
            download_bytes_per_s=1e8,
            jitter=draw.choice((0.0, 0.3)),
            rate_regimes=regimes if draw.random() < 0.5 else Regimes(hold_s=3600.0, quantiles=((0.5, 1.0),)),
        )
        return Link(table, chance, name)

    def _engine(self, endpoint: Endpoint, chance: Chance) -> Local:
        draw = self.draw
        engine = profile(
            step=StepTime(
                base_s=draw.choice((0.005, 0.03)), per_token_s=draw.choice((2e-5, 5e-4)), per_sequence_s=2e-4
            ),
            slots=draw.choice((endpoint.concurrency, 2 * endpoint.concurrency)),
            kv_tokens=draw.choice((4_096, 65_536)),
            queue_max=draw.choice((None, 1)),
            load_s=draw.choice((0.0, 5.0, 40.0)),
            unload_after_s=endpoint.prior.unload_after_s,
        )
        return Local(
            endpoint.name,
            Engine(engine, START_S),
            self.loop,
            self.world,
            self._link(endpoint.name, chance) if draw.random() < 0.3 else None,
            tells_residency=draw.random() < 0.5,
            tells_memory=draw.random() < 0.5,
        )

    def _api(self, endpoint: Endpoint, chance: Chance) -> Remote:
        draw = self.draw
        idle = endpoint.prior.unload_after_s
        api = ApiProfile(
            ttft_s=draw.choice((0.1, 0.5)),
            ttft_s_per_uncached_token=5e-5,
            ttft_spread=Spread(sigma=0.3, tail=0.1, tail_sigma=1.5),
            tpot_s=draw.choice((0.005, 0.05)),
            errors=draw.choice((0.0, 0.0, 0.05, 0.4)),
            requests_per_minute=draw.choice((None, None, 30.0)),
            retry_after_s=draw.choice((None, 2.0, 90.0)),
            concurrency=draw.choice((None, 3)),
            cache=CacheProfile() if draw.random() < 0.3 else None,
            idle_s=idle,
            cold_start_s=0.0 if idle is None else 15.0,
        )
        return Remote(
            endpoint.name, Api(api, chance, endpoint.name), self.loop, self.world, self._link(endpoint.name, chance)
        )

    def _traffic(self, chance: Chance) -> list[Open]:
        draw, parts = self.draw, draw_parts(self.draw)
        return [
            Open(
                process=Poisson(rate_per_s=rate) if draw.random() < 0.5 else Gamma(rate_per_s=rate, cv=2.0),
                lengths=Lengths(
                    prompt_tokens=LogNormal(median=draw.choice((100.0, 800.0)), sigma=0.8, most=3_000.0),
                    output_tokens=LogNormal(median=draw.choice((20.0, 150.0)), sigma=0.8, most=800.0),
                ),
                ask=Ask("m", tuple((one, draw.random() + 0.01) for one in CLASSES), key=f"k{number}" if number else ""),
                chance=chance,
                name=f"t{number}",
                space=number,
                begins_s=START_S,
                requests_max=count,
            )
            for number, (rate, count) in enumerate(parts)
        ]

    def _faults(self) -> list[FaultTable]:
        draw = self.draw
        last_s = self.crowd.last_s - START_S
        found = []
        for _ in range(draw.randint(FAULTS_LEAST, 8)):
            name = draw.choice(list(self.places))
            place, kinds = self.places[name], [FaultKind.SLOW, FaultKind.DRAIN, FaultKind.PIN, FaultKind.STATIC]
            kinds += [FaultKind.CRASH, FaultKind.FREEZE] if isinstance(place, Local) else [FaultKind.UNAVAILABLE] * 2
            kinds += [FaultKind.RATE_LIMIT] if isinstance(place, Remote) else []
            kinds += [FaultKind.OUTAGE] * 3 if place.way is not None else []
            kind = draw.choice(kinds)
            found.append(
                FaultTable(
                    kind=kind,
                    endpoint="" if kind is FaultKind.STATIC else name,
                    at_s=draw.uniform(0.0, last_s),
                    for_s=draw.choice((0.5, 5.0, 40.0)),
                    factor=draw.choice((0.3, 4.0, 30.0)) if kind is FaultKind.SLOW else None,
                    requests_per_minute=6.0 if kind is FaultKind.RATE_LIMIT else None,
                )
            )
        return found

    # --- what has to hold ---------------------------------------------------------------------------------------------

    def play(self) -> None:
        """All of it."""
        trouble = Trouble(self.world, self.places)
        for fault in self.faults:
            trouble.arrange(fault)
        self.loop.look = self._look
        traffic: Traffic = self.crowd
        try:
            # Who comes again does so twice; what is lost on its way never comes.
            until_s = self.crowd.last_s + 4.0 * TIMEOUT_S + HANGS_S_MAX
            self.world.run(self.places, traffic, probe_s=5.0, until_s=until_s)
            self._over()
        except Exception as error:
            raise Broken(f"seed {self.seed}: {type(error).__name__}: {error}") from error

    def _look(self) -> None:
        """After every event."""
        world, router = self.world, self.world.router
        for handover in world.router._known.handovers.models.values():  # type: ignore[attr-defined]
            source = handover.source.name
            for request_id in handover.state.under_way:
                drive = world._drives[request_id]
                there = source in drive.shipments or bool(drive.attempts[source].target)
                assert there, f"{request_id} is on its way to {handover.name}"
        drives = world._drives
        assert router.held == len(world._held), "the router holds what is held"
        warming = Counter(attempt.endpoint for attempt in world._warm_ups.under_way)
        for name in world.endpoints:
            model = router.endpoint(name)
            state = model.state
            for request_id in state.reservations:
                assert request_id in drives, f"{request_id} is reserved at {name}, and over"
                assert name in drives[request_id].attempts, f"{request_id} is reserved at {name}, and not under way"
            assert world.in_flight[name] == len(state.reservations), f"all that is under way at {name} is reserved"
            trial = state.breaker.trial
            assert not trial or trial in state.reservations, f"the trial of {name} is under way"
            assert warming[name] <= 1, f"one load at a time at {name}"
            assert (state.cold.warm_up.sent is not None) == bool(warming[name]), f"a load at {name} is known"
            assert 1 <= model.places <= model.endpoint.concurrency, f"{name} is given some, and no more than configured"
            assert model._context_tokens == sum(one.prompt_tokens for one in state.reservations.values())
        left_usd = self.purse.left_usd(self.loop.now_s)
        assert left_usd is None or left_usd >= -1e-9, "no more is spent than may be"

    def _over(self) -> None:
        """When nothing is to happen any more."""
        world = self.world
        assert not world._drives, "all of them are over"
        assert not world._held
        outcomes = [one.request.id for one in world.outcomes]
        assert len(outcomes) == len(set(outcomes)), "each is over once"
        assert set(outcomes) == self.crowd.targets.keys(), "nobody is lost"
        rests = Counter(line.fact.id for line in self.lines if isinstance(line.fact, Request) and line.fact.said_tokens)
        assert all(count <= RESUMES_MAX for count in rests.values()), "what breaks everybody is not carried on"
        for one in world.outcomes:
            assert one.e2e_s <= TIMEOUT_S + 1e-6, "nobody waits for longer than a request may take"
            assert isfinite(one.usd)
            assert one.usd >= 0.0
            if one.outcome == "ok":
                surplus = one.output_tokens - self.crowd.targets[one.request.id]
                # Where all of it but its end was said, that end is asked for.
                assert 0 <= surplus <= rests[one.request.id], "nothing of an answer is lost, and nothing doubled"
        # What is kept loaded for good is used again and again; time may be up meanwhile.
        assert all(until_s > self.loop.now_s for until_s in world._warm_ups.under_way.values()), "no load hangs"
        self._told()
        assert replay(self.lines).difference is None, "the journal is replayed"

    def _told(self) -> None:
        """What the journal says."""
        begun, held, warming = Counter[tuple[str, str]](), set[str](), set[str]()
        requests: dict[str, Request] = {}
        for line in self.lines:
            match line.fact:
                case Request() as request:
                    before = requests.get(request.id)
                    if before is not None and request == replace(before, budget_usd=request.budget_usd):
                        assert request.budget_usd != before.budget_usd, "it has something to tell"
                        assert request.id not in held, "it is held anew"
                    elif request.shipped:
                        assert request == replace(requests[request.id], shipped=request.shipped), "it is the same"
                        assert not requests[request.id].shipped, "a prompt comes once"
                    elif request.said_tokens:
                        self._is_rest(request, requests[request.id])
                        assert not any(begun[request.id, name] for name in self.places), "one goes on at a time"
                    requests[request.id] = request
                case Decision() as decision:
                    for step in decision.plan:
                        place = self.world.endpoints[step.endpoint]
                        assert may_go_to(requests[decision.request_id], place), "data stays where it must"
                        if isinstance(step, Prefill):
                            weights = place.fingerprint.weights
                            assert weights, "nobody knows what its model is"
                            assert weights == self.world.endpoints[step.target].fingerprint.weights
                        assert not isinstance(step, Wait) or step is decision.plan[-1], "who waits is decided again"
                    assert decision.retry_after_s is None or decision.retry_after_s >= 1.0
                case Started() as started:
                    begun[started.request_id, started.endpoint] += 1
                    assert started.said_tokens == requests[started.request_id].said_tokens
                    held.discard(started.request_id)
                case Ended() as ended:
                    begun[ended.request_id, ended.endpoint] -= 1
                    assert begun[ended.request_id, ended.endpoint] == 0, "an attempt that began ends once"
                case Held() as one:
                    held.add(one.request.id)
                case Released() as released:
                    unpaid = released.cause == Why.OVER_BUDGET
                    assert unpaid or released.request_id in held, "it was held, or could not be paid for"
                    held.discard(released.request_id)
                case Warming() as load:
                    assert load.endpoint not in warming
                    warming.add(load.endpoint)
                case Warmed() as load:
                    warming.remove(load.endpoint)
                case _:
                    pass
        assert not any(begun.values())
        assert not held
        assert warming == {attempt.endpoint for attempt in self.world._warm_ups.under_way}

    def _is_rest(self, rest: Request, before: Request) -> None:
        """What is left of a request is the rest of what was asked before, for those that have its model."""
        assert rest.said_tokens > before.said_tokens, "something was said"
        assert rest.prompt_tokens - rest.said_tokens == before.prompt_tokens - before.said_tokens
        ruling = rest.rulings[-1]
        assert ruling.rule == RULE
        assert len({self.world.endpoints[name].fingerprint.weights for name in ruling.to}) == 1, "of one model"


def draw_parts(draw: Random) -> list[tuple[float, int]]:
    """Rates and numbers of requests, at least `REQUESTS` in all."""
    count = draw.randint(1, 3)
    return [(draw.choice((0.5, 3.0, 12.0)), REQUESTS // count + 1) for _ in range(count)]


def broken(seed: int) -> str:
    """What does not hold in this seed's world; empty where all does."""
    try:
        Weather(seed).play()
    except Broken as error:
        return str(error)
    return ""
