"""Are choices right between a throttled engine at home, a priced remote one, and both: `make bench-throttled_pair`.

Two real llama.cpp, SmolLM2 on one thread each: the one at home has a quarter of a core, the remote one has the other
core and a price. Between them the project's WAN relay, of 20 Mbit/s to 1 Gbit/s each way, with couriers at its ends.
What is asked stands in `bench.throttled_pair_settings`, written down before anything was tuned on it.

Each request is sent through the gateway, which chooses; then the actions that it did not choose are really run, past
it on two more such engines, so that it learns of its own choices alone. An action's promise is kept or not by what was
measured, and its dollars are the price of the tokens that the remote engine computed. Right is the choice of the action
that keeps the promise for the least dollars, or is the least late where none keeps it. Regret is what the choice was
worth less than that one (worth of the promise where it was kept, less lateness and dollars, as a decision counts them),
of the promise's worth.

Each request has words of its own for each action, so that no cache helps; answers go on to their last token. An action
that is too late already is cut short where another one has kept the promise. The gateway begins anew for each link,
with what it had learned of both engines while warming up, and is told the rate of the link, as operators know theirs.
That is three answers of each, or with `--warmed` some thirty, and a few over each link, where the gateway chooses.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from math import inf
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench.record import record
from bench.throttled_pair_settings import (
    SEED,
    TPOT_FACTOR,
    WARM_LOCAL,
    WARM_OUTPUT,
    WARM_REMOTE,
    WARMED,
    WARMED_LINK,
    WARMED_LINK_FACTOR,
    WARMED_LINK_OUTPUT,
    Asked,
    Axis,
    asked,
    warming,
)
from bench.throttled_rig import (
    CALL_S_MAX,
    CONTEXT_TOKENS,
    LATE_USD_PER_S,
    MBIT_WARM,
    PRICE,
    WORTH_USD,
    WORTH_USD_PER_1K,
    Action,
    Rig,
    Said,
)
from tidegate.clock import tick_s
from tidegate.core.leastsquares import non_negative
from tidegate.core.model import Prefill
from tidegate.gateway.couriers import Couriers

RIGHT_LEAST, REGRET_MAX = 0.9, 0.05


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """Limits in seconds; infinite where nothing is promised."""

    ttft_s: float = inf
    tpot_s: float = inf
    e2e_s: float = inf


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """One action, as measured. `cut`: it was too late already, and its times are what they were at least."""

    action: Action
    ttft_s: float
    tpot_s: float | None
    e2e_s: float
    prompt_tokens: int
    usd: float
    cut: bool = False
    kept: bool = False
    late_s: float = 0.0
    value_usd: float = 0.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One request: what was chosen, what would have been right, and what each action came to. `predicted_ttft_s`,
    its `sigma` and `attainment` are by action, as the decision saw them."""

    asked: Asked
    promise: dict[str, float]
    chosen: Action
    best: Action
    right: bool
    regret: float
    lost_usd: float
    worth_usd: float
    why: str
    predicted_ttft_s: dict[str, float]
    sigma: dict[str, float]
    attainment: dict[str, float]
    took: list[Took]


class Pace(msgspec.Struct, frozen=True):
    """What the remote engine takes alone: seconds for a prompt, by `parts` of 1, its tokens and their square; and for
    each token."""

    parts: tuple[float, float, float]
    tpot_s: float

    def prefill_s(self, tokens: int) -> float:
        """Of a prompt."""
        one, each, pair = self.parts
        return one + each * tokens + pair * tokens * tokens


async def warmed(rig: Rig, most_tokens: int, *, well: bool) -> tuple[Pace, Path]:
    """How quick the remote engine is, and the file of what the gateway has learned of both, `well` or a little."""
    points = []
    async with rig.gateway(MBIT_WARM, None) as folder:
        for site, sizes in (("local", WARM_LOCAL), ("away", WARM_REMOTE)):
            for tokens in (size for size in sizes if size <= most_tokens):
                said = await _at(rig, site, tokens, WARM_OUTPUT)
                print(
                    f"warm-up, {site}: {said.prompt_tokens} tokens, {said.first_s:.2f} s, {said.tpot_s:.3f} s a token"
                )
                if site == "away":
                    points.append(said)
        if well:
            await asyncio.gather(*(_in_use(rig, site, most_tokens) for site in ("local", "away")))
    rows = [[1.0, float(said.prompt_tokens), float(said.prompt_tokens) ** 2] for said in points]
    one, each, pair = non_negative(rows, [said.first_s for said in points])
    return Pace((one, each, pair), median(said.tpot_s for said in points)), folder / "learned.sqlite"


async def _at(rig: Rig, site: str, tokens: int, output_tokens: int) -> Said:
    """One that is not judged, at this site."""
    headers = {"x-tidegate-residency": site, "x-tidegate-slo-ttft-ms": "600000"}
    said = await rig.through(rig.body(tokens, output_tokens), headers)
    assert said.served, f"{tokens} tokens at {site}: not served while warming up"
    return said


async def _in_use(rig: Rig, site: str, most_tokens: int) -> None:
    """One after the other, beside those at the other site."""
    for tokens, output_tokens in warming(site):
        if tokens <= most_tokens:
            said = await _at(rig, site, tokens, output_tokens)
            print(f"in use, {site}: {said.prompt_tokens} tokens, {said.first_s:.2f} s, {said.tpot_s:.3f} s a token")


async def _over_the_link(rig: Rig, pace: Pace) -> None:
    """Requests that are not judged, and that the gateway sends where it likes."""
    for tokens in WARMED_LINK:
        headers = in_headers(Promise(ttft_s=WARMED_LINK_FACTOR * pace.prefill_s(tokens)))
        body = rig.body(tokens, WARMED_LINK_OUTPUT)
        chosen = (await rig.foreseen(body, headers)).decision.plan[0]
        said = await rig.through(body, headers)
        assert said.served, f"{tokens} tokens: not served while warming up"
        print(f"over the link: {said.prompt_tokens} tokens, {said.first_s:.2f} s, by {chosen}")


def promised(one: Asked, pace: Pace) -> Promise:
    """What is promised, on this machine."""
    first_s = one.factor * pace.prefill_s(one.tokens)
    match one.axis:
        case Axis.TTFT:
            return Promise(ttft_s=first_s)
        case Axis.TPOT:
            return Promise(ttft_s=first_s, tpot_s=TPOT_FACTOR * pace.tpot_s)
        case Axis.E2E:
            return Promise(e2e_s=first_s + one.factor * pace.tpot_s * one.output_tokens)


def in_headers(promise: Promise) -> dict[str, str]:
    """As a request says it; an axis that promises nothing has a day."""
    limits = {"ttft": promise.ttft_s, "tpot": promise.tpot_s, "e2e": promise.e2e_s}
    return {f"x-tidegate-slo-{axis}-ms": str(int(1e3 * min(86_400.0, limit))) for axis, limit in limits.items()}


def worth_usd(one: Asked) -> float:
    """Of its promise."""
    return WORTH_USD + WORTH_USD_PER_1K * (one.tokens + one.output_tokens) / 1e3


def weighed(action: Action, said: Said, one: Asked, promise: Promise) -> Took:
    """What an action came to."""
    sent = {Action.HOME: 0, Action.REMOTE: said.output_tokens, Action.HANDOVER: 1}[action]
    usd = PRICE.usd(said.prompt_tokens, sent, 0) if sent else 0.0
    ttft_s = min(said.first_s, said.ended_s)
    in_time = ttft_s <= promise.ttft_s and said.ended_s <= promise.e2e_s
    kept = said.served and in_time and said.tpot_s <= promise.tpot_s
    late_s = max(0.0, ttft_s - promise.ttft_s, said.ended_s - promise.e2e_s)
    value_usd = worth_usd(one) * kept - LATE_USD_PER_S * late_s - usd
    return Took(
        action=action,
        ttft_s=ttft_s,
        tpot_s=said.tpot_s if said.served else None,
        e2e_s=said.ended_s,
        prompt_tokens=said.prompt_tokens,
        usd=usd,
        kept=kept,
        late_s=late_s,
        value_usd=value_usd,
    )


async def other(rig: Rig, action: Action, one: Asked, promise: Promise, couriers: Couriers, *, may_cut: bool) -> Took:
    """An action that was not chosen; it may be cut short once it is too late."""
    await rig.idle()
    limit_s = min(promise.ttft_s, promise.e2e_s) if may_cut else CALL_S_MAX
    body = rig.body(one.tokens, one.output_tokens)
    try:
        async with asyncio.timeout(limit_s) as bound:
            ends = promise.e2e_s < inf or not may_cut
            said = await rig.run(action, body, couriers, (lambda: None) if ends else (lambda: bound.reschedule(None)))
    except TimeoutError:
        usd = 0.0 if action is Action.HOME else PRICE.usd(one.tokens, 1, 0)
        return Took(
            action=action,
            ttft_s=limit_s,
            tpot_s=None,
            e2e_s=limit_s,
            prompt_tokens=one.tokens,
            usd=usd,
            cut=True,
            value_usd=-usd,
        )
    return weighed(action, said, one, promise)


async def judged(rig: Rig, one: Asked, pace: Pace, couriers: Couriers) -> Row:
    """What is chosen for a request, and what all actions come to."""
    promise = promised(one, pace)
    headers = in_headers(promise)
    await rig.idle()
    body = rig.body(one.tokens, one.output_tokens)
    foreseen = await rig.foreseen(body, headers)
    step = foreseen.decision.plan[0]
    chosen = (
        Action.HANDOVER if isinstance(step, Prefill) else Action.REMOTE if step.endpoint == "remote" else Action.HOME
    )
    said = await rig.through(body, headers)
    took = [weighed(chosen, said, one, promise)]
    for action in (Action.REMOTE, Action.HANDOVER, Action.HOME):
        if action is not chosen:
            may_cut = any(each.kept for each in took)
            took.append(await other(rig, action, one, promise, couriers, may_cut=may_cut))
    best = min(took, key=lambda each: (not each.kept, each.usd if each.kept else each.late_s, each.ttft_s))
    lost_usd = max(0.0, best.value_usd - took[0].value_usd)
    estimates = {
        action.value: candidate.estimate
        for candidate in (*foreseen.candidates, *foreseen.prefills)
        if candidate.estimate is not None
        for action in (
            Action.HANDOVER if candidate.target else Action.HOME if candidate.endpoint == "local" else Action.REMOTE,
        )
    }
    return Row(
        asked=one,
        promise={axis: limit for axis, limit in msgspec.structs.asdict(promise).items() if limit < inf},
        chosen=chosen,
        best=best.action,
        right=best.action is chosen,
        regret=lost_usd / worth_usd(one),
        lost_usd=lost_usd,
        worth_usd=worth_usd(one),
        why=foreseen.decision.why.value,
        predicted_ttft_s={action: estimate.ttft_s for action, estimate in estimates.items()},
        sigma={action: estimate.sigma for action, estimate in estimates.items()},
        attainment={action: estimate.attainment for action, estimate in estimates.items()},
        took=took,
    )


async def played(
    folder: Path, requests: Sequence[Asked], most_tokens: int, *, well: bool
) -> tuple[list[Row], Pace, str]:
    """All of them."""
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        rig = Rig(folder, stack)
        await rig.start()
        pace, learned = await warmed(rig, most_tokens, well=well)
        for mbit_per_s in dict.fromkeys(one.mbit_per_s for one in requests):
            async with rig.gateway(mbit_per_s, learned) as files, rig.couriers(files, mbit_per_s) as couriers:
                if well:
                    await _over_the_link(rig, pace)
                for one in requests:
                    if one.mbit_per_s == mbit_per_s:
                        rows.append(await judged(rig, one, pace, couriers))
                        print(_line(rows[-1]), flush=True)
        return rows, pace, rig.how


def _line(row: Row) -> str:
    one = row.asked
    verdict = "right" if row.right else f"WRONG, {row.best.value} was right, {row.regret:.1%} of its worth lost"
    return (
        f"{one.mbit_per_s} Mbit/s, {one.tokens} tokens, {one.axis.value} x {one.factor}: {row.chosen.value}: {verdict}"
    )


def _shown(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Those that lost most first."""
    for row in sorted(rows, key=lambda row: -row.regret):
        one = row.asked
        limits = ", ".join(f"{axis.removesuffix('_s')} {limit:.2f}" for axis, limit in row.promise.items())
        for took in sorted(row.took, key=lambda each: list(Action).index(each.action)):
            first = took.action is Action.HOME
            marks = f"{'chosen ' if took.action is row.chosen else ''}{'best' if took.action is row.best else ''}"
            predicted = row.predicted_ttft_s.get(took.action.value)
            yield (
                *((f"{one.mbit_per_s}", f"{one.tokens}", limits, f"{row.regret:.1%}") if first else ("", "", "", "")),
                took.action.value,
                marks,
                f"{'>' if took.cut else ''}{took.ttft_s:.2f}",
                "-" if predicted is None else f"{predicted:.2f}",
                f"{took.e2e_s:.2f}",
                "kept" if took.kept else "missed",
                f"{took.usd * 1e3:.3f}",
            )


def main() -> int:
    """Play, print and record; 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", type=int, help="only prompts of at most so many tokens; nothing is recorded")
    help_text = f"each engine has answered {WARMED} more before, and each link was used"
    parser.add_argument("--warmed", action="store_true", help=help_text)
    args = parser.parse_args()
    most_tokens = args.short or CONTEXT_TOKENS
    requests = [one for one in asked() if one.tokens <= most_tokens]
    began_s = tick_s()
    with TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows, pace, how = runner.run(played(Path(folder), requests, most_tokens, well=args.warmed))
    right, regret = mean(row.right for row in rows), mean(row.regret for row in rows)
    heads = "Mbit/s", "tokens", "promised s", "regret", "action", "", "ttft s", "predicted", "e2e s", "promise", "m$"
    table = Table(*heads, box=None)
    for cells in _shown(rows):
        table.add_row(*cells)
    Console(width=160).print(table)
    paid = sum(row.took[0].usd for row in rows)
    remote = sum(each.usd for row in rows for each in row.took if each.action is Action.REMOTE)
    print(f"{right:.0%} of {len(rows)} choices right; {regret:.1%} of the worth lost in the mean;", end=" ")
    print(f"${paid:.5f} paid, all remote ${remote:.5f}; {tick_s() - began_s:.0f} s")
    kept = right >= RIGHT_LEAST and regret <= REGRET_MAX
    if most_tokens == CONTEXT_TOKENS:
        record(
            "throttled_pair_warmed" if args.warmed else "throttled_pair",
            {
                "seed": SEED,
                "throttled": how,
                "requests": len(rows),
                "right_share": round(right, 4),
                "regret": round(regret, 5),
                "kept": kept,
                "promises_kept": sum(row.took[0].kept for row in rows),
                "promises_that_could_be_kept": sum(any(each.kept for each in row.took) for row in rows),
                "paid_usd": round(paid, 6),
                "remote_usd": round(remote, 6),
                "chosen": {action.value: sum(row.chosen is action for row in rows) for action in Action},
                "best": {action.value: sum(row.best is action for row in rows) for action in Action},
                "pace": msgspec.to_builtins(pace),
                "seconds": round(tick_s() - began_s),
                "rows": msgspec.to_builtins(sorted(rows, key=lambda row: -row.regret)),
            },
        )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
