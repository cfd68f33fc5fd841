"""How far predictions are from what a real engine then did, under load that changes.

    make bench-predict_live                           # llama.cpp behind a gateway, six minutes; then the figures
    python -m bench.predict_live --journal FOLDER     # the figures of a journal that is there, by the software of now

Laid down before anything was tuned: the seed, the phases, what is asked, the figures and the bounds. SmolLM2 on one
thread with four slots has one core, the gateway and the load have another. The gateway is told nothing of the engine
but its address and its slots. Requests come by Poisson's law in phases: prompts of 30 to 1,500 tokens, answers of 10 to
120 tokens at most. No text comes twice, so that no prefix is kept, but in the conversations, whose turns bring all
that was said before; a turn is sent when its people have read the last answer.

Text is that of Python's own reference manual, paragraph by paragraph in an order that is drawn: prose with code in it,
of 3.7 to 4.7 characters a token.

One core computes prompts and answers alike, a token of either in a few milliseconds: whose answer is under way when
somebody's prompt comes gets its tokens that much later, and nobody can tell before. So phases are mostly such that
two of three answers are left in peace; at loads of two thirds, as in `short, busy`, half of the TPOT are off by half,
whoever predicts them. How much of the error nobody can help is told beside it: `who comes next` is the error of one who
knows the engine, all that it has to do, and how long answers become, but not who comes next, and `simulated` that of
one who knows that, too. Both are a simulated engine with the constants of bench/results/llama_parity.json, as fast as
the real one was in the median, which is sent what that one was sent, when that was.

Predictions are those that the router made when it sent: the journal is replayed, line by line, and each attempt's
prediction is put beside what came of it. The error of a figure is |predicted / measured - 1|; its median is taken over
all requests that were sent after the first 50, and by phase. Beside it stand the prior's, which learns nothing, and
that of the best constant, which is chosen afterwards: both as the others, over the same requests.

A run counts where the engine had its core: its CPU time over the time in which it had work.
"""

import argparse
import asyncio
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench.foresight import Sent, Times, foresight, profile
from bench.live_load import PHASES, Load, run
from bench.record import record
from tidegate.core.hindsight import Compared, Hindsight
from tidegate.core.model import JOURNAL_VERSION, Ending, Line, Segment, Started, replace
from tidegate.lab import weights
from tidegate.telemetry.segments import segments

FIRST = 50  # requests that are learned from and not counted
ERROR_MAX = 0.10  # median, of both
ENGINE_SHARE_MIN = 0.95
SPEED_ROUNDS = 3  # until the simulated engine is as fast as the real one


def lines(journal: Path) -> Iterator[Line]:
    """A journal from its beginning, whichever version wrote it, for a router that knows nothing yet.

    The state at its beginning is that of a gateway that has just started, and is left out. Later segments begin with
    what the software of then had learned: they are passed over.
    """
    decoder, begun = msgspec.json.Decoder(Line), False
    for path in segments(journal):
        for raw in path.read_bytes().splitlines():
            line = decoder.decode(raw)
            if isinstance(line.fact, Segment):
                if begun:
                    continue
                begun = True
                fresh = replace(line.fact, version=JOURNAL_VERSION, state=msgspec.Raw(b"{}"))
                line = replace(line, fact=fresh)
            yield line


def compared(journal: Path, *, learns: bool = True) -> list[Compared]:
    """All that ended well, in the order of sending; with `learns=False`, as the prior predicts it."""
    hindsight, found = Hindsight(), []
    for line in lines(journal):
        one = hindsight.feed(line)
        if one is not None and one.ended.ending is Ending.OK:
            found.append(one)
        if not learns and isinstance(line.fact, Started):
            assert hindsight.replay.router is not None
            model = hindsight.replay.router.endpoint(line.fact.endpoint)
            model.state.reservations[line.fact.request_id].teaches = False
    return sorted(found, key=lambda one: one.sent_s)


Pairs = list[tuple[float, float]]
"""Predicted and measured."""


def pairs(rows: Sequence[Compared], figure: str) -> Pairs:
    """Of those of which it could be measured."""
    found = []
    for one in rows:
        measured: float | None = getattr(one, figure)
        if measured is not None:
            found.append((float(getattr(one.predicted, figure)), measured))
    return found


def error(found: Pairs) -> float | None:
    """The median error; None of nothing."""
    return round(median(abs(predicted / measured - 1.0) for predicted, measured in found), 4) if found else None


def best_constant(found: Pairs) -> float | None:
    """The median error of whichever measured value is the best prediction of all."""
    errors = [error([(constant, measured) for _, measured in found]) for _, constant in found]
    return min((one for one in errors if one is not None), default=None)


def summary(rows: Sequence[Compared]) -> dict[str, object]:
    """The figures of these requests."""
    ttft, tpot = pairs(rows, "ttft_s"), pairs(rows, "tpot_s")
    inside = [one.predicted.ttft_s_high >= one.ttft_s for one in rows if one.ttft_s is not None]
    return {
        "requests": len(rows),
        "ttft_error": error(ttft),
        "tpot_error": error(tpot),
        "ttft_bias": _bias(ttft),
        "tpot_bias": _bias(tpot),
        "within_bound": round(sum(inside) / len(inside), 3) if inside else None,
    }


def _bias(found: Pairs) -> float | None:
    return round(median(predicted / measured - 1.0 for predicted, measured in found), 4) if found else None


def figures(folder: Path) -> dict[str, object]:
    """All figures of what a run left in its folder."""
    load = msgspec.json.decode((folder / "load.json").read_bytes(), type=Load)
    journal = folder / "journal"
    rows = compared(journal)
    prior = compared(journal, learns=False)[FIRST:]
    counted = rows[FIRST:]
    found = summary(counted)
    within = all(isinstance(one := found[name], float) and one <= ERROR_MAX for name in ("ttft_error", "tpot_error"))
    shares = _shares(rows, load)
    phases, made = {}, simulated(rows)
    for number, phase in enumerate(PHASES):
        these = [n for n, one in enumerate(rows) if n >= FIRST and load.phases.get(one.ended.request_id) == number]
        phases[phase.name] = {
            **summary([rows[n] for n in these]),
            "who comes next": foreseen([made[n] for n in these]),
            "engine_share": shares.get(number),
        }
    return {
        "bounds": {"median_error": ERROR_MAX, "after_requests": FIRST, "engine_share": ENGINE_SHARE_MIN},
        "within": within,
        **found,
        "engine_share": shares[None],
        "undisturbed": (shares[None] or 0.0) >= ENGINE_SHARE_MIN,
        "run_on": load.machine,
        "lost": load.lost,
        "references": {
            "prior": {"ttft_error": error(pairs(prior, "ttft_s")), "tpot_error": error(pairs(prior, "tpot_s"))},
            "who comes next": foreseen(made[FIRST:]),
            "simulated": known(counted, made[FIRST:]),
            "best constant": {
                "ttft_error": best_constant(pairs(counted, "ttft_s")),
                "tpot_error": best_constant(pairs(counted, "tpot_s")),
            },
        },
        "first requests": summary(rows[:FIRST]),
        "phases": phases,
        "columns": "phase prompt cached output load | ttft_s predicted high | tpot_s predicted; tokens are as told",
        "rows": [_row(one, load.phases.get(one.ended.request_id)) for one in rows],
    }


def simulated(rows: Sequence[Compared]) -> list[tuple[Times, Times]]:
    """Each of them as if it were the last one, and as it comes to be, before a simulated engine as fast as the real one
    was: its median TTFT is the same."""
    sent = [
        Sent(
            at_s=one.sent_s,
            prompt_tokens=max(1, (one.ended.prompt_tokens or 0) - (one.ended.cached_tokens or 0)),
            output_tokens=max(1, one.ended.output_tokens or 0),
        )
        for one in rows
    ]
    slowdown = 1.0
    for _ in range(SPEED_ROUNDS):
        found = foresight(sent, profile(), slowdown)
        slowdown *= median((one.ttft_s or 0.0) / was.ttft_s for one, (_, was) in zip(rows, found, strict=True))
    return foresight(sent, profile(), slowdown)


def foreseen(made: Sequence[tuple[Times, Times]]) -> dict[str, float | None] | None:
    """How far one is off who knows the engine, all that it has to do, how long answers become, and not who comes next;
    and how many TPOT are known to him to the bound."""
    tpot = [(last.tpot_s, was.tpot_s) for last, was in made if last.tpot_s is not None and was.tpot_s is not None]
    if not tpot:
        return None
    return {
        "ttft_error": error([(last.ttft_s, was.ttft_s) for last, was in made]),
        "tpot_error": error(tpot),
        "tpot_within": round(sum(abs(last / was - 1.0) <= ERROR_MAX for last, was in tpot) / len(tpot), 3),
    }


def known(rows: Sequence[Compared], made: Sequence[tuple[Times, Times]]) -> dict[str, float | None]:
    """How far the simulated engine is off that knows who comes, too."""
    both = [(one, was) for one, (_, was) in zip(rows, made, strict=True)]
    return {
        "ttft_error": error([(was.ttft_s, one.ttft_s) for one, was in both if one.ttft_s is not None]),
        "tpot_error": error(
            [(was.tpot_s, one.tpot_s) for one, was in both if was.tpot_s is not None and one.tpot_s is not None]
        ),
    }


def _row(one: Compared, phase: int | None) -> str:
    ended, predicted = one.ended, one.predicted
    tokens = f"{ended.prompt_tokens} {ended.cached_tokens} {ended.output_tokens} {predicted.load}"
    ttft = f"{one.ttft_s:.4f} {predicted.ttft_s:.4f} {predicted.ttft_s_high:.4f}"
    tpot = "-" if one.tpot_s is None else f"{one.tpot_s:.5f}"
    return f"{'-' if phase is None else phase} {tokens} | {ttft} | {tpot} {predicted.tpot_s:.5f}"


def _shares(rows: Sequence[Compared], load: Load) -> dict[int | None, float | None]:
    """What of its core the engine had while there was work, by the phase in which that was sent; None is all of it."""
    busy: list[list[float]] = []
    for one in rows:
        if busy and one.sent_s <= busy[-1][1]:
            busy[-1][1] = max(busy[-1][1], one.ended_s)
        else:
            busy.append([one.sent_s, one.ended_s])

    def share(begin_s: float, end_s: float) -> float | None:
        worked_s = sum(max(0.0, min(end_s, b) - max(begin_s, a)) for a, b in busy)
        cpu_s = _at(load.cpu, end_s) - _at(load.cpu, begin_s)
        return round(cpu_s / worked_s, 3) if worked_s > 1.0 else None

    found: dict[int | None, float | None] = {None: share(rows[0].sent_s, max(one.ended_s for one in rows))}
    for number in range(len(PHASES)):
        sent_s = [one.sent_s for one in rows if load.phases.get(one.ended.request_id) == number]
        if sent_s:
            found[number] = share(min(sent_s), max(sent_s))
    return found


def _at(samples: Sequence[tuple[float, float]], at_s: float) -> float:
    """What had been used by then, between the samples by a straight line."""
    if not samples:
        return 0.0
    before, after = samples[0], samples[-1]
    for one in samples:
        if one[0] <= at_s:
            before = one
        else:
            after = one
            break
    if after[0] <= before[0]:
        return before[1]
    share = min(max((at_s - before[0]) / (after[0] - before[0]), 0.0), 1.0)
    return before[1] + share * (after[1] - before[1])


def main() -> None:
    """Run, unless there is a journal; print; write down what was run."""
    parser = argparse.ArgumentParser(prog="python -m bench.predict_live")
    parser.add_argument("--journal", type=Path, metavar="FOLDER", help="what a run left, with journal/ and load.json")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave it there (it is emptied first)")
    options = parser.parse_args()
    if options.journal is not None:
        found: dict[str, Any] = figures(options.journal)
        for name, value in found.items():
            if name != "rows":
                print(name, value)
        return
    folder = options.keep or weights.cache_dir() / "predict_live"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    asyncio.run(run(folder))
    record("predict_live", figures(folder))


if __name__ == "__main__":
    main()
