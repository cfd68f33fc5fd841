"""A journal of many segments replays, whole and from any of them on."""

import asyncio
from itertools import chain
from pathlib import Path

from tests import make
from tests.telemetry.make import journal, segment
from tidegate.core.model import Ended, Ending, FirstToken, Held, Observation, Run, Segment, Wait, replace
from tidegate.core.replay import replay
from tidegate.telemetry.journal import read, segments


def test_every_decision_comes_out_again_whichever_segment_replay_begins_with(tmp_path: Path) -> None:
    endpoints = (make.endpoint("laptop"), make.endpoint("cloud", local=False))
    router = make.router(*endpoints)

    def header() -> Segment:
        return replace(segment(), endpoints=endpoints, state=router.snapshot())

    async def run() -> None:
        kept = journal(tmp_path, segment_bytes=30_000, header=header)

        def tell(fact: Observation, now_s: float) -> None:
            router.observe(fact, now_s)
            kept.append(fact, now_s)

        for number in range(60):
            now_s = number * 0.7
            request = make.request(f"r{number}", arrived_s=now_s, prompt_tokens=50 + 400 * (number % 7))
            kept.append(request, now_s)
            decision = router.decide(request, now_s)
            kept.append(decision, now_s)
            step = decision.plan[0]
            if isinstance(step, Wait):
                tell(Held(request=request), now_s)
            elif isinstance(step, Run):
                tell(make.started(request, step.endpoint), now_s)
                await asyncio.sleep(0)
                first_s = 0.2 + 0.05 * (number % 5)
                tell(FirstToken(request_id=request.id, endpoint=step.endpoint, ttft_s=first_s), now_s + first_s)
                ended = Ended(
                    request_id=request.id, endpoint=step.endpoint, ending=Ending.OK, e2e_s=1.0, ttft_s=first_s,
                    prompt_tokens=request.prompt_tokens, output_tokens=20 + number,
                )  # fmt: skip
                tell(ended, now_s + 0.5)
            await asyncio.sleep(0)
        await kept.close()

    asyncio.run(run())
    files = segments(tmp_path)
    assert len(files) > 3
    for begin in range(len(files)):
        report = replay(chain.from_iterable(read(file) for file in files[begin:]))
        assert report.difference is None
        assert report.segments == len(files) - begin
    assert replay(read(tmp_path)).decisions == 60
