"""What a decision costs: CPU time of `decide` and of learning from one request.

    python -m bench.decide            prints a table and writes bench/results/decide.json

Medians come from batches of decisions, so that reading the clock costs nothing; p99 from decisions timed one by one,
less the clock's own cost. CPU time of the thread, not elapsed: a neighbour on the machine does not count, except that
one on the same core may halve its speed. So each row is the quietest of three sittings, and a yardstick, a fixed loop
timed after each, tells how quiet it was.

The usual case prunes: most endpoints cost too much to be among the best, whatever their promise. In the late case every
promise is broken already, so that nothing can be pruned: the most that a decision costs where nobody waits.
"""

from random import Random
from statistics import median

import msgspec

from bench.record import record
from tidegate import clock
from tidegate.core.model import (
    Ended,
    Ending,
    Endpoint,
    FirstToken,
    Held,
    Policy,
    Price,
    Prior,
    Request,
    Slo,
    Started,
)
from tidegate.core.router import Router

DECISIONS = 20_000
BATCH = 50
SITTINGS = 3
LEARNED = 400
# From one decision to the next: all of them together are too short for a promise to be broken meanwhile.
MOMENT_S = 2e-5
NOW_S = 1_700_000_000.0
BUDGET_US = 50.0
# The name, how many endpoints, and how many requests are held.
CASES = [(case, count, 0) for case in ("usual", "late") for count in (1, 4, 16, 64)]
CASES += [("held", count, 32) for count in (4, 16)]
# Every slot of large engines is taken: four have so many each.
CASES += [("full", 16, 8)]
# There is nobody but ours, and no place left to wait.
CASES += [("refused", 4, 256)]
SLOTS, FULL_SLOTS = 4, 256


class Row(msgspec.Struct, kw_only=True):
    """One line of the table: microseconds of CPU."""

    case: str
    candidates: int
    held: int
    us_p50: float
    us_p99: float
    yardstick_us: float


def endpoints(count: int, slots: int = SLOTS, *, ours: bool = False) -> tuple[Endpoint, ...]:
    """Every fourth is ours or all are, the rest are remote; one model group, each its own speed and price."""
    made = []
    for index in range(count):
        local = ours or index % 4 == 0
        prior = Prior(
            overhead_s=0.05 + 0.01 * index,
            prefill_s_per_token=0.0008 if local else 0.00005,
            decode_s_per_token=0.03 if local else 0.01,
            batch_slowdown=0.1 if local else 0.0,
            rtt_s=0.0 if local else 0.03,
        )
        price = Price() if local else Price(usd_per_input_token=1e-6 + 1e-8 * index, usd_per_output_token=4e-6)
        made.append(
            Endpoint(
                name=f"e{index:02}",
                site="home" if local else f"s{index}",
                local=local,
                models=("m",),
                context_tokens=131_072,
                concurrency=slots if local else 64,
                owned=local,
                shares_compute=local,
                price=price,
                prior=prior,
            )
        )
    return tuple(made)


def request(index: int, draw: Random) -> Request:
    """One of a mix of sizes."""
    tokens = int(draw.lognormvariate(6.0, 1.2)) + 1
    return Request(
        id=f"r{index}",
        arrived_s=NOW_S,
        model="m",
        klass=f"interactive/{'short' if tokens < 1024 else 'long'}",
        prompt_tokens=tokens,
        prompt_bytes=4 * tokens,
        output_tokens_max=512,
        slo=Slo(ttft_s=3.0, tpot_s=0.1),
        worth_usd=0.002,
        worth_usd_per_1k_tokens=0.005,
        late_usd_per_s=0.001,
    )


def facts(request: Request, endpoint: str, draw: Random) -> tuple[Started, FirstToken, Ended]:
    """What is told of one request that went well."""
    ttft_s = draw.lognormvariate(-1.0, 0.5)
    return (
        Started(
            request_id=request.id,
            endpoint=endpoint,
            klass=request.klass,
            prompt_tokens=request.prompt_tokens,
            prompt_bytes=request.prompt_bytes,
            output_tokens_max=request.output_tokens_max,
            model=request.model,
        ),
        FirstToken(request_id=request.id, endpoint=endpoint, ttft_s=ttft_s),
        Ended(
            request_id=request.id,
            endpoint=endpoint,
            ending=Ending.OK,
            e2e_s=ttft_s + 3.0,
            ttft_s=ttft_s,
            prompt_tokens=request.prompt_tokens,
            output_tokens=int(draw.lognormvariate(4.5, 0.6)) + 1,
        ),
    )


def seasoned(count: int, held: int, draw: Random, slots: int = SLOTS, *, ours: bool = False) -> Router:
    """A router that has learned something, with work in flight, and every slot of ours taken where work is held."""
    made = endpoints(count, slots, ours=ours)
    router = Router(made, Policy())
    names = [e.name for e in made]
    for index in range(LEARNED):
        for fact in facts(request(index, draw), names[index % count], draw):
            router.observe(fact, NOW_S - LEARNED + index)
    for index, name in enumerate(names):
        local = router.endpoint(name).owned
        for slot in range(slots if local and held else 1):
            sent = facts(request(100_000 + 1_000 * index + slot, draw), name, draw)
            router.observe(sent[0], NOW_S - 2.0)
            if slot % 2 == 0:
                router.observe(sent[1], NOW_S - 1.0)
    for index in range(held):
        router.observe(
            Held(request=msgspec.structs.replace(request(200_000 + index, draw), slo=Slo(e2e_s=600.0))), NOW_S
        )
    return router


def yardstick_us() -> float:
    """CPU time of a fixed loop: two runs are to be compared by their ratio to it."""
    times = []
    for _ in range(1000):
        begun_s = clock.cpu_s()
        sum(range(1000))
        times.append(clock.cpu_s() - begun_s)
    return round(median(times) * 1e6, 1)


def prepared(case: str, count: int, held: int) -> tuple[Router, list[Request]]:
    """Who decides, and what is asked of it."""
    draw = Random(7)
    router = seasoned(count, held, draw, FULL_SLOTS if case == "full" else SLOTS, ours=case == "refused")
    arrived_s = NOW_S - (60.0 if case == "late" else 0.0)
    return router, [msgspec.structs.replace(request(index, draw), arrived_s=arrived_s) for index in range(BATCH)]


def row(case: str, count: int, held: int) -> Row:
    """Time `decide` over this many candidates, with this much work held."""
    router, asked = prepared(case, count, held)
    decisions = DECISIONS if not held else DECISIONS // 20  # two orders dearer, and as steady
    for _ in range(20):
        for one in asked:
            router.decide(one, NOW_S)
    batches, now_s = [], NOW_S
    for _ in range(decisions // BATCH):
        begun_s = clock.cpu_s()
        for one in asked:
            # What was predicted for one moment is no help in the next: each decision has its own.
            now_s += MOMENT_S
            router.decide(one, now_s)
        batches.append((clock.cpu_s() - begun_s) / BATCH)
    clock_s = median(-(clock.cpu_s() - clock.cpu_s()) for _ in range(1000))
    singles = []
    for index in range(decisions):
        now_s += MOMENT_S
        begun_s = clock.cpu_s()
        router.decide(asked[index % BATCH], now_s)
        singles.append(clock.cpu_s() - begun_s - clock_s)
    singles.sort()
    return Row(
        case=case,
        candidates=count,
        held=held,
        us_p50=round(median(batches) * 1e6, 1),
        us_p99=round(singles[int(0.99 * len(singles))] * 1e6, 1),
        yardstick_us=yardstick_us(),
    )


def learn_us() -> float:
    """Microseconds to take in Started, FirstToken and Ended of one request."""
    draw = Random(7)
    router = seasoned(16, 0, draw)
    names = [e.name for e in endpoints(16)]
    batches = []
    for batch in range(DECISIONS // BATCH):
        told = [facts(request(batch * BATCH + i, draw), names[i % 16], draw) for i in range(BATCH)]
        begun_s = clock.cpu_s()
        for started, first, ended in told:
            router.observe(started, NOW_S + batch)
            router.observe(first, NOW_S + batch + 0.5)
            router.observe(ended, NOW_S + batch + 0.9)
        batches.append((clock.cpu_s() - begun_s) / BATCH)
    return round(median(batches) * 1e6, 1)


def main() -> None:
    """Measure, print, write down."""
    rows = [min((row(*one) for _ in range(SITTINGS)), key=lambda r: r.us_p50) for one in CASES]
    learned = min(learn_us() for _ in range(SITTINGS))
    print(f"{'case':>7} {'candidates':>10} {'held':>5} {'p50 us':>8} {'p99 us':>8} {'yardstick':>10}")
    for one in rows:
        print(
            f"{one.case:>7} {one.candidates:>10} {one.held:>5} {one.us_p50:>8} {one.us_p99:>8} {one.yardstick_us:>10}"
        )
    print(f"16 candidates: target {BUDGET_US} us; Started + FirstToken + Ended: {learned} us (see bench.learn)")
    found = {"decisions": DECISIONS, "decide": [msgspec.to_builtins(one) for one in rows], "learn_us_p50": learned}
    record("decide", found)


if __name__ == "__main__":
    main()
