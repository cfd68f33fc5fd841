"""What handing prompts over between two real llama.cpp comes to: `make bench-handover`.

SmolLM2 on one thread each, couriers between them, a gateway in front. Prompts of 500 to 7,000 tokens, each text once;
the rack computes them, the laptop decodes. Of each: how many of its tokens the laptop computed again, how far the time
to first content was from what was predicted when it was decided, and whether the text is that of the laptop's own
cache, which is asked the same afterwards. The laptop is believed to be slow, and the rack's output dear, so that each
prompt is handed over; the first of each size are learned from.
"""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table
from tests.live.handing import handing

from bench.record import record
from tidegate.core.model import Decision, Ended, FirstToken, Line, Prefill, Request, Shipped
from tidegate.core.replay import Replay

# By size, and all sizes in each round: what is learned of one helps with the others.
SIZES, ROUNDS = (500, 1_000, 2_000, 4_000, 7_000), 3
LEARNED = len(SIZES)
WORDS_PER_TOKEN = 0.78  # of this text, by the model's own count
CONTEXTS = (8_192, 8_192)
RECOMPUTED_MAX, ERROR_MAX = 0.01, 0.15
STORY = "the keeper of the light counted ships that came home over a cold and quiet sea while gulls cried above"


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt. `alike`: its text is that of a hit in the laptop's own cache."""

    tokens: int
    recomputed: int
    ttft_s: float
    predicted_s: float
    prefill_s: float
    ship_s: float
    kv_bytes: int
    alike: bool


def story(tokens: int, number: int) -> str:
    """A text of about so many tokens that begins like no other."""
    known = STORY.split()
    count = int(tokens * WORDS_PER_TOKEN)
    words = [known[(place * (number + 3) + place // 7) % len(known)] for place in range(count)]
    return f"{number} " + " ".join(words)


async def played(folder: Path) -> tuple[list[tuple[str, str]], list[Line]]:
    """What was answered to each, and what the laptop says to the same from its own cache; and the journal."""
    said = []
    async with handing(folder, context_tokens=CONTEXTS, space_mib=1024) as gateway:
        for number in range(ROUNDS * len(SIZES)):
            text = story(SIZES[number % len(SIZES)], number)
            _, body = await gateway.chat(text, tokens=16)
            said.append((content(body), content(await gateway.at_home(text, tokens=16))))
    return said, gateway.lines()


def content(body: bytes) -> str:
    """Of a whole answer."""
    return str(msgspec.json.decode(body)["choices"][0]["message"]["content"])


def handed(said: list[tuple[str, str]], lines: list[Line]) -> Iterator[Handed]:
    """What became of each prompt that was handed over, by replaying the journal."""
    core = Replay()
    requests: dict[str, Request] = {}
    order: list[str] = []
    predicted_s: dict[str, float] = {}
    began_s: dict[str, float] = {}
    first_s: dict[str, float] = {}
    shipped: dict[str, Shipped] = {}
    ended: dict[str, Ended] = {}
    for line in lines:
        match line.fact:
            case Request() as request:
                if request.id not in requests:
                    order.append(request.id)
                    began_s[request.id] = line.at_s
                requests[request.id] = request
            case Decision() as decision if decision.plan and isinstance(decision.plan[0], Prefill):
                assert core.router is not None
                (candidate,) = core.router.prefills(requests[decision.request_id], line.at_s)
                assert candidate.estimate is not None
                predicted_s[decision.request_id] = candidate.estimate.ttft_s
            case FirstToken() as first if first.endpoint == "laptop":
                first_s[first.request_id] = line.at_s
            case Shipped() as one if one.ok:
                shipped[one.request_id] = one
            case Ended() as one:
                if one.endpoint == "laptop":
                    ended[one.request_id] = one
                elif one.request_id in predicted_s:
                    first_s[one.request_id + "/rack"] = line.at_s
            case _:
                pass
        core.feed(line)
    for name, (here, hit) in zip(order, said, strict=True):
        if name not in shipped or name not in ended:
            continue
        tokens, cached = ended[name].prompt_tokens or 0, ended[name].cached_tokens or 0
        yield Handed(
            tokens=tokens,
            recomputed=tokens - cached,
            ttft_s=first_s[name] - began_s[name],
            predicted_s=predicted_s[name],
            prefill_s=first_s[name + "/rack"] - began_s[name],
            ship_s=shipped[name].seconds,
            kv_bytes=shipped[name].kv_bytes,
            alike=here == hit,
        )


def main() -> int:
    """Play, print and record; 1 where a bound does not hold."""
    with TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        said, lines = runner.run(played(Path(folder)))
    found = list(handed(said, lines))
    counted = found[LEARNED:]
    recomputed = sum(one.recomputed for one in found) / sum(one.tokens for one in found)
    error = median(abs(one.predicted_s / one.ttft_s - 1.0) for one in counted)
    alike = sum(one.alike for one in found)
    table = Table("tokens", "again", "ttft s", "predicted s", "prefill s", "sent s", "MB", "alike", box=None)
    for one in found:
        times = (one.ttft_s, one.predicted_s, one.prefill_s, one.ship_s)
        row = (*(f"{s:.2f}" for s in times), f"{one.kv_bytes / 1e6:.1f}", "yes" if one.alike else "no")
        table.add_row(str(one.tokens), str(one.recomputed), *row)
    Console().print(table)
    print(f"{len(found)} of {ROUNDS * len(SIZES)} handed over; {recomputed:.2%} of tokens computed again;", end=" ")
    print(f"TTFT off by {error:.1%} in the median of {len(counted)}; {alike} texts as from its own cache")
    kept = len(found) == ROUNDS * len(SIZES) == alike and recomputed <= RECOMPUTED_MAX and error <= ERROR_MAX
    record(
        "handover",
        {
            "prompts": ROUNDS * len(SIZES),
            "handed_over": len(found),
            "recomputed_share": round(recomputed, 5),
            "ttft_error": round(error, 4),
            "alike": alike,
            "kept": kept,
            "handed": msgspec.to_builtins(found),
        },
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
