"""A row of the journal tells of a request what its line in the log does."""

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import chat, house, local, remote
from tests.http.harness import eventually
from tidegate.core.rows import Rows
from tidegate.engines.fake import Script
from tidegate.engines.faults import Fault

PLACES: dict[str, dict[str, Any]] = {
    "ok": {"laptop": local(), "cloud": remote()},
    "paid": {"cloud": remote()},
    "failed_over": {"laptop": local(Script(status=500)), "cloud": remote()},
    "failed": {"cloud": remote(Script(status=500))},
    "refused_there": {"cloud": remote(Script(status=429))},
    "client_error": {"laptop": local(Script(status=400)), "cloud": remote()},
    "client_error_after": {"laptop": local(Script(status=500)), "cloud": remote(Script(status=400))},
    "mid_stream": {"cloud": remote(Script(fault=Fault.CUT, fault_after=2, pad="x" * 400))},
    # Their answers come as streams also to who gets them whole.
    "broken": {"cloud": remote(Script(fault=Fault.CUT, fault_after=2), engine="llamacpp")},
    "broken_first": {
        "laptop": local(Script(fault=Fault.CUT, fault_after=2), engine="llamacpp"),
        "cloud": remote(Script(first_s=0.05), engine="llamacpp"),
    },
    "no_answer": {"cloud": remote(Script(fault=Fault.HTML))},
    "no_usage": {"cloud": remote(Script(usage=False, pad="x" * 400))},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("case", PLACES)
async def test_a_row_agrees_with_the_log(tmp_path: Path, case: str, stream: bool) -> None:
    async with house(tmp_path, **PLACES[case]) as home:
        for headers in ({}, {"x_tidegate_slo_ttft_ms": "60000"}):
            await home.ask(chat(stream=stream, max_tokens=50), **headers)
        await home.quiet()
    rows = Rows()
    found = [row for line in home.journal() for row in rows.feed(line)] + rows.rest()
    logged = {line["decision_id"]: line for line in home.log()}
    assert {row.id for row in found} == set(logged)
    for row in found:
        told = logged[row.id]
        assert (row.klass, row.model, row.why) == (told["klass"], told["model"], told["why"])
        assert (row.attempts, row.hedged) == (told["attempts"], told["hedged"])
        assert row.e2e_s == pytest.approx(told["e2e_s"], abs=1e-5)
        assert row.ttft_s == (None if told["ttft_s"] is None else pytest.approx(told["ttft_s"], abs=1e-5))
        assert row.outcome == told["outcome"]
        if row.attempts == 1:
            assert row.predicted_ttft_s == pytest.approx(told["predicted_ttft_s"], abs=1e-5)
            assert row.predicted_ttft_s is not None
            assert row.predicted_ttft_s_high is not None
            assert row.predicted_ttft_s_high >= row.predicted_ttft_s
        assert (row.local is None) == (told["endpoint"] is None)
        if told["outcome"] == "ok":
            assert row.endpoint == told["endpoint"]
        if stream or case not in ("no_usage", "mid_stream"):
            # Of an answer in one piece the log knows how many bytes were asked, and whether it had begun.
            assert row.usd == pytest.approx(told["cost_usd"], abs=1e-7)


async def test_a_client_that_leaves_is_one_that_left(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(first_s=60.0))) as home:
        async with home.asking(chat(stream=True)):
            await eventually(lambda: bool(home.gateway.router.endpoint("laptop").state.reservations))
        await home.quiet()
    rows = Rows()
    (row,) = [row for line in home.journal() for row in rows.feed(line)] + rows.rest()
    assert [row.outcome] == [line["outcome"] for line in home.log()]
