"""Who logs in to the dashboard, or tries to, stands in the log."""

from pathlib import Path

from tests.gateway.harness import house
from tests.gateway.test_board import OURS, SECRET, asked, guarded


async def test_who_logs_in_and_who_fails_to_is_told_with_where_that_was(tmp_path: Path) -> None:
    async with house(tmp_path, gateway=guarded(tmp_path)) as home:
        statuses = [(await asked(home, "POST", "/login", {"key": key}, OURS)).status for key in ("a guess", SECRET)]
        told = [(e["level"], e["event"], e["peer"]) for e in home.log("event") if "peer" in e]
    assert statuses == [401, 204]
    assert told == [("warning", "somebody failed to log in", "127.0.0.1"), ("info", "logged in", "127.0.0.1")]
    assert "a guess" not in (tmp_path / "log").read_text()
