"""A gateway whose disk fills up and is cleared, in a mount namespace of its own: `test_disk.py` runs it."""

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.gateway.harness import SURE, Answer, House, chat, house, local, remote
from tests.http.harness import eventually
from tidegate.engines.fake import Script

SIZE = "2m"


async def filling(folder: Path) -> None:
    """Ours serve whatever the disk does, nothing is paid for that cannot be written down, and then all is as before."""
    budget = {"usd_per_day": 100, "ledger": "ledger"}
    engine = local(Script(first_s=0.05), concurrency=1, prior=SURE | {"overhead_ms": 50})
    cloud = remote(prior=SURE | {"overhead_ms": 200})
    async with house(folder, budget=budget, gateway={"state_s": 1}, laptop=engine, cloud=cloud) as home:
        assert (await home.ask()).endpoint == "laptop"
        ballast = folder / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        # More than it can serve in time: some would go away, if that could be paid for.
        asked = [home.ask(chat(f"{n}", stream=n % 2 == 0), x_tidegate_slo_ttft_ms="300") for n in range(20)]
        answers = await asyncio.gather(*asked)
        assert {(answer.status, answer.endpoint) for answer in answers} == {(200, "laptop")}
        answer = await _paid(home)
        assert answer.error["code"] == "spending_unrecorded"
        assert not home.engines["cloud"].seen
        assert home.gateway.spending.problem
        assert await home.gateway._changes.written()
        ballast.unlink()
        await eventually(lambda: not home.gateway.spending.problem)
        assert (await _paid(home)).endpoint == "cloud"
        await eventually(lambda: home.gateway.keeper.status().saved_at_s is not None)
    # The house has found that the journal replays, without a line lost.
    told = [line["event"].partition(" ")[0] for line in home.log("event") if line["level"] == "error"]
    # Each change that is not in the audit log is told, and here there were two; all else is told once. Whether what was
    # learned was to be saved while there was no room, is up to its interval.
    audit_log = f"{folder}/journal/changes.jsonl"
    assert told.count(audit_log) == 2
    told = [one for one in told if one != audit_log]
    assert sorted({"learned", *told}) == sorted(["journal:", f"{folder}/ledger:", "learned"]), told
    assert len(told) == len(set(told)), told
    assert len(home.log()) == 23


async def _paid(home: House) -> Answer:
    """What is answered where only the vendor may be asked."""
    await home.change("PUT", "/api/endpoints/laptop/drain")
    try:
        return await home.ask()
    finally:
        await home.change("DELETE", "/api/endpoints/laptop/drain")


def mount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", *options, str(folder)], check=True)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    mount(place, "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs")
    asyncio.run(filling(place))
