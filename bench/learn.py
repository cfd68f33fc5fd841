"""What predicting and learning cost: CPU time, and the bytes of what is learned of one endpoint.

    python -m bench.learn             prints a table and writes bench/results/learn.json

Predicting is `EndpointModel.base` of one request at each of 16 endpoints that have learned something and have work in
flight. A learning step is `FirstToken` and `Ended` of one request. As in `bench/decide.py`: medians of batches, CPU
time of the thread, the quietest of three sittings, with a yardstick beside it. Bytes are those of the largest endpoint
in a snapshot, after 5,000 requests at each that differ in size, output, cache, class, load and time, with nothing in
flight.
"""

from random import Random
from statistics import median

import msgspec

from bench.decide import BATCH, DECISIONS, NOW_S, SITTINGS, endpoints, facts, request, seasoned, yardstick_us
from bench.record import record
from tidegate import clock
from tidegate.core.model import Ended, FirstToken, Policy, Started, replace
from tidegate.core.output import Length
from tidegate.core.router import Router

CANDIDATES = 16
VARIED = 5_000
VARIED_ENDPOINTS = 4
IN_FLIGHT = 12
PREDICT_BUDGET_US = 35.0
LEARN_BUDGET_US = 30.0
STATE_BUDGET_BYTES = 64 * 1024


def predict_us() -> float:
    """Microseconds to predict one request at all endpoints."""
    draw = Random(7)
    router = seasoned(CANDIDATES, 0, draw)
    models = [router.endpoint(one.name) for one in endpoints(CANDIDATES)]
    asked = [request(index, draw) for index in range(BATCH)]
    length = Length(expected_tokens=120.0, high_tokens=400.0, median_tokens=120.0, sigma=0.5)
    batches, now_s = [], NOW_S
    for _ in range(DECISIONS // BATCH):
        now_s += 0.001
        begun_s = clock.cpu_s()
        for one in asked:
            for model in models:
                model.base(one, length, now_s)
        batches.append((clock.cpu_s() - begun_s) / BATCH)
    return round(median(batches) * 1e6, 1)


def learn_us() -> float:
    """Microseconds to take in FirstToken and Ended of one request."""
    draw = Random(7)
    router = seasoned(CANDIDATES, 0, draw)
    names = [one.name for one in endpoints(CANDIDATES)]
    batches = []
    for batch in range(DECISIONS // BATCH):
        told = [facts(request(batch * BATCH + i, draw), names[i % CANDIDATES], draw) for i in range(BATCH)]
        at_s = NOW_S + batch
        for started, _, _ in told:
            router.observe(started, at_s)
        begun_s = clock.cpu_s()
        for _, first, ended in told:
            router.observe(first, at_s + 0.5)
            router.observe(ended, at_s + 0.9)
        batches.append((clock.cpu_s() - begun_s) / BATCH)
    return round(median(batches) * 1e6, 1)


def state_bytes() -> int:
    """Encoded bytes of what is known of the largest endpoint after so many requests at each."""
    draw = Random(11)
    router = Router(endpoints(VARIED_ENDPOINTS), Policy())
    now_s = NOW_S
    for endpoint in endpoints(VARIED_ENDPOINTS):
        flying: list[tuple[Started, FirstToken, Ended]] = []
        for index in range(VARIED):
            now_s += draw.expovariate(1.0) * (600.0 if index % 500 == 0 else 0.5)
            started, first, ended = facts(request(index, draw), endpoint.name, draw)
            tokens = int(draw.lognormvariate(7.0, 1.8)) + 1
            klass = f"{draw.choice(('interactive', 'batch', 'agent', 'tool'))}/{draw.choice(('short', 'long', 'huge'))}"
            session = draw.choice(("", f"s{draw.randrange(500)}"))
            sent = replace(started, klass=klass, prompt_tokens=tokens, prompt_bytes=4 * tokens, session=session)
            cached = int(tokens * draw.choice((0.0, 0.0, 0.5, 0.95)))
            ended = replace(ended, prompt_tokens=tokens, cached_tokens=cached)
            router.observe(sent, now_s)
            flying.append((sent, first, ended))
            while len(flying) > draw.randrange(1, IN_FLIGHT):
                _over(router, flying.pop(0), now_s)
        for one in flying:
            _over(router, one, now_s)
    encode = msgspec.json.Encoder().encode
    return max(len(encode(state)) for state in router.state.endpoints.values())


def _over(router: Router, one: tuple[Started, FirstToken, Ended], now_s: float) -> None:
    _, first, ended = one
    router.observe(first, now_s)
    router.observe(ended, now_s)


def main() -> None:
    """Measure, print, write down."""
    predicted = min(predict_us() for _ in range(SITTINGS))
    learned = min(learn_us() for _ in range(SITTINGS))
    found: dict[str, object] = {
        "predict_16_us": predicted,
        "predict_16_us_budget": PREDICT_BUDGET_US,
        "learn_us": learned,
        "learn_us_budget": LEARN_BUDGET_US,
        "state_bytes": (size := state_bytes()),
        "state_bytes_budget": STATE_BUDGET_BYTES,
        "yardstick_us": yardstick_us(),
    }
    print(f"predicting {CANDIDATES} candidates: {predicted} us (budget {PREDICT_BUDGET_US})")
    print(f"FirstToken + Ended: {learned} us (budget {LEARN_BUDGET_US})")
    print(f"state of an endpoint after {VARIED:,} requests: {size:,} bytes (budget {STATE_BUDGET_BYTES:,})")
    record("learn", found)


if __name__ == "__main__":
    main()
