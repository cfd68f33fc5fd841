"""What a shadow says is what its two plays came to, and close to what comes when Tidegate really decides."""

from functools import partial
from pathlib import Path

import pytest

from tests.sim.foreign_days import Written, configuration, day, log, pair, payload, spend_row, unstreamed
from tidegate.config.load import load_unreached
from tidegate.core.model import replace
from tidegate.sim.adopted import Adopted, adopt
from tidegate.sim.decider import AtOnce
from tidegate.sim.foreign import read
from tidegate.sim.observed import known, observe
from tidegate.sim.outcome import Outcome
from tidegate.sim.preview import figures_of
from tidegate.sim.shadow import Shadow, as_billed, shadow
from tidegate.sim.shadow_page import headline, page, remarks, sheets, verdict
from tidegate.sim.twin import played, twin

AWAY = {"cloud"}


def adopted(folder: Path, outcomes: list[Outcome], write: Written = payload) -> Adopted:
    (folder / "tidegate.toml").write_text(configuration())
    return adopt(read(log(folder / "log.jsonl", outcomes, write)), load_unreached(folder / "tidegate.toml"))


def shadowed(found: Adopted) -> Shadow:
    observed = observe(found.lines)
    world = twin(observed, known(found.lines))
    theirs = played(world, found.policy, decider=partial(AtOnce, found.where))
    assert {one.request.id: one.endpoint for one in theirs if one.outcome == "ok"}.items() <= found.where.items()
    return shadow(found, as_billed(observed, found), theirs, played(world, found.policy))


@pytest.mark.lengthy
@pytest.mark.parametrize("write", [payload, spend_row, unstreamed], ids=["payload", "row", "unstreamed"])
def test_what_it_would_have_spent_is_close_to_what_it_spends(tmp_path: Path, write: Written) -> None:
    paid = day("always-remote")
    found = shadowed(adopted(tmp_path, paid, write))
    truth, real = figures_of(day(None), AWAY), figures_of(paid, AWAY)
    assert found.preview.real.usd_per_1k == pytest.approx(real.usd_per_1k)
    assert abs(found.preview.backtest.usd) < 0.02
    saved = real.usd_per_1k - truth.usd_per_1k
    assert found.preview.saved_usd_per_1k.low < saved < found.preview.saved_usd_per_1k.high
    assert found.preview.saved_usd_per_1k.figure == pytest.approx(saved, rel=0.25)
    assert found.billed == len(paid)
    assert found.unseen == (len(paid) if write is unstreamed else 0)
    assert (found.preview.backtest.ttft is None) == (write is unstreamed)


def test_promises_that_were_lost_for_lack_of_room_are_gained(tmp_path: Path) -> None:
    # Who fills what is there first, and pays only beyond it, makes people wait.
    found = shadowed(adopted(tmp_path, day("cheapest")))
    assert found.gained > 10
    assert found.missed <= 1
    assert len(found.some_missed) == found.missed
    count = found.preview.real.requests
    assert found.compared == count
    said = f"kept {found.gained} promises that were not kept, and missed {found.missed} that were."
    spent, kept = verdict(found).split("; ")
    assert " on a thousand requests (" in spent
    assert kept == f"of all {count} requests it would have {said}"
    # LiteLLM knows no price of a local model, and writes none.
    assert 0 < found.billed < found.preview.real.requests
    assert f"Dollars of {found.billed} requests are what the log says" in " ".join(remarks(found))


def test_the_page_the_sheets_and_the_sentences_say_the_same(tmp_path: Path) -> None:
    outcomes = day("always-remote")
    (tmp_path / "tidegate.toml").write_text(configuration())
    file = log(tmp_path / "log.jsonl", outcomes, pair)
    file.write_text(file.read_text() + '{"prompt_tokens": 3, "completion_tokens": 1, "model": "m"}\n')
    found = shadowed(adopt(read(file), load_unreached(tmp_path / "tidegate.toml")))
    said = remarks(found)
    assert said[0] == f"Of {len(outcomes) + 1} records {len(outcomes)} are looked at."
    assert "1 are not: without a time or a latency." in said
    assert f"The log has them served at cloud {len(outcomes)} (by its address)." in said
    assert not any("usual window" in one for one in said)
    (told,) = [one for one in remarks(replace(found, too_long={"desk": 3})) if "usual window" in one]
    assert "3 prompts are too long for it. Write its context_tokens." in told
    assert said[-1] == "Whether answers are as good was not compared."
    html = page(found, "<log>")
    assert html.startswith("<!doctype html>")
    assert "&lt;log&gt;" in html
    assert headline(found) in html
    assert [row[0] for row in dict(sheets(found))["What came, and what would have come"].rows] == [
        "the log says",
        "simulated",
        "Tidegate",
    ]
