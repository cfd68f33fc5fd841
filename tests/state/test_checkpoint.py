"""The file of what was learned: whole or not at all, only where it fits, and never in anybody's way."""

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tests.properties.storm import NOW_S, Storm
from tidegate.config.address import Url
from tidegate.config.build import Upstream
from tidegate.config.endpoint import EngineKind
from tidegate.core.model import Endpoint, Overrides, Policy, Price, Prior, replace
from tidegate.core.revive import revived
from tidegate.core.state import State
from tidegate.state import checkpoint
from tidegate.state.checkpoint import (
    KEPT,
    Checkpoint,
    CheckpointError,
    Checkpoints,
    Restored,
    fingerprint,
    restore,
    settings,
)

STORM = Storm(3).run(150)
POLICY = STORM.policy
FINGERPRINTS = {e.name: f"print of {e.name}" for e in STORM.endpoints}
STATE = STORM.router.snapshot(held=False)


def made(at_s: float = NOW_S, **changes: object) -> bytes:
    usual = Checkpoint(
        at_s=at_s,
        software="tidegate test",
        policy=settings(POLICY),
        endpoints=FINGERPRINTS,
        ratios={"m": (9000.0, 3000.0), "gone": (1.0, 1.0)},
        state=STATE,
    )
    return msgspec.json.encode(replace(usual, **changes))


def back(file: Checkpoints, now_s: float = NOW_S, policy: Policy = POLICY, **prints: str) -> Restored:
    return restore(file, policy, FINGERPRINTS | prints, frozenset({"m"}), now_s)


@contextmanager
def opened(folder: Path) -> Iterator[Checkpoints]:
    with closing(Checkpoints(folder / "learned.sqlite")) as file:
        yield file


def change(path: Path, sql: str, *values: object) -> None:
    """What another hand does to a file that is closed."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(sql, values)
        db.commit()


# --- what comes back ------------------------------------------------------------------------------------------------


def test_what_was_written_comes_back_bit_for_bit_where_no_time_has_passed(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        file.write(made(STORM.now_s))
    with opened(tmp_path) as file:
        restored = back(file, STORM.now_s)
    assert restored.state == revived(msgspec.json.decode(STATE, type=State), set(FINGERPRINTS), STORM.now_s)
    assert {m: (r.bytes_sum, r.tokens_sum) for m, r in restored.ratios.items()} == {"m": (9000.0, 3000.0)}
    assert (restored.age_s, restored.ahead_s, restored.dropped, restored.skipped, restored.refused) == (
        0.0, 0.0, (), "", "",
    )  # fmt: skip


def test_a_new_file_gives_nothing_back_and_refuses_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "folder" / "not there") as file:
        assert back(file) == Restored()
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_the_newest_comes_back_and_only_a_few_are_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        for number in range(3 * KEPT):
            file.write(made(NOW_S + number))
        assert back(file).at_s == NOW_S + 3 * KEPT - 1
        assert len(file.read()) == KEPT
    with closing(sqlite3.connect(file.path)) as db:
        assert db.execute("SELECT count(*) FROM snapshot").fetchone() == (KEPT,)


def test_the_newest_is_the_one_written_last_whatever_the_clock_said(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        file.write(made(NOW_S + 1e6))
        file.write(made(NOW_S))
        assert back(file).at_s == NOW_S


def test_a_snapshot_from_the_future_has_no_age(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        file.write(made(NOW_S + 3600.0))
        restored = back(file, NOW_S)
    assert (restored.age_s, restored.ahead_s) == (0.0, 3600.0)
    assert restored.state is not None
    assert all(one.seen_s <= NOW_S for one in restored.state.lengths.counts.values())


def test_what_is_older_is_believed_less(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        file.write(made(NOW_S))
        young, old = back(file, NOW_S), back(file, NOW_S + 86_400.0)
    assert (old.age_s, young.age_s) == (86_400.0, 0.0)
    assert old.ratios["m"].tokens_sum < young.ratios["m"].tokens_sum


# --- what does not fit ----------------------------------------------------------------------------------------------


def test_an_endpoint_that_changed_is_dropped_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        file.write(made())
        restored = back(file, lap="another engine")
    assert restored.dropped == ("lap",)
    assert restored.state is not None
    assert restored.state.endpoints.keys() == FINGERPRINTS.keys() - {"lap"}
    assert restored.state.lengths.counts


def test_another_policy_is_refused_with_what_differs_and_what_to_do(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        file.write(made())
        restored = back(file, policy=replace(POLICY, quantile=0.95))
    assert restored.state is None
    assert restored.ratios == {}
    assert "policy.quantile was 0.9 and is 0.95" in restored.refused
    assert "put it back" in restored.refused
    assert str(file.path) in restored.refused


def test_who_explores_goes_on_with_what_was_learned_without(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        file.write(made())
        assert back(file, policy=replace(POLICY, explore_share=0.01)).state is not None


def test_what_was_learned_under_this_policy_is_found_behind_another(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        file.write(made(NOW_S))
        file.write(made(NOW_S + 1.0, policy=settings(replace(POLICY, quantile=0.95))))
        restored = back(file)
    assert (restored.at_s, restored.refused) == (NOW_S, "")
    assert "policy.quantile was 0.95 and is 0.9" in restored.skipped


def test_what_was_set_by_hand_comes_back_from_the_newest_under_any_policy(tmp_path: Path) -> None:
    other = settings(replace(POLICY, quantile=0.95))
    by_hand = Overrides(drained=("laptop",), static=True)
    set_by_hand = msgspec.Raw(msgspec.json.encode(State(overrides=by_hand)))
    with opened(tmp_path) as file:
        file.write(made(NOW_S, policy=other, state=set_by_hand))
        restored = back(file)
        assert restored.state == State(overrides=by_hand)
        assert restored.refused
        file.write(made(NOW_S + 1.0))
        file.write(made(NOW_S + 2.0, policy=other, state=set_by_hand))
        restored = back(file)
    assert restored.at_s == NOW_S + 1.0
    assert restored.state is not None
    assert restored.state.overrides == by_hand
    assert restored.state.endpoints


def test_what_was_set_by_hand_comes_back_from_software_whose_state_cannot_be_decoded(tmp_path: Path) -> None:
    by_hand = Overrides(drained=("laptop",), pinned=("rack",), static=True)
    told = {"overrides": by_hand, "endpoints": {"laptop": {"ttft": "in another form"}}}
    with opened(tmp_path) as file:
        file.write(made(NOW_S))
        file.write(made(NOW_S + 1.0, state=msgspec.Raw(msgspec.json.encode(told))))
        restored = back(file)
        # What was learned is that of the snapshot before.
        assert (restored.at_s, restored.refused) == (NOW_S, "")
        assert "endpoints" in restored.skipped
        assert restored.state is not None
        assert restored.state.overrides == by_hand
    with opened(tmp_path / "alone") as file:
        file.write(made(NOW_S, state=msgspec.Raw(msgspec.json.encode(told))))
        restored = back(file)
    assert restored.state == State(overrides=by_hand)
    assert "endpoints" in restored.refused


def test_a_seed_as_large_as_may_be_written_is_the_same_policy(tmp_path: Path) -> None:
    large = replace(POLICY, seed=2**63 - 1)
    with opened(tmp_path) as file:
        file.write(made(policy=settings(large)))
        assert back(file, policy=large).refused == ""
        assert "policy.seed" in back(file, policy=replace(large, seed=2**63 - 2)).refused


@given(st.data())
def test_a_damaged_byte_is_seen_and_the_snapshot_before_it_is_taken(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    with opened(tmp_path_factory.mktemp("damaged")) as file:
        file.write(made(NOW_S))
        body = bytearray(made(NOW_S + 30.0))
        file.write(bytes(body))
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
        change(file.path, "UPDATE snapshot SET body = ? WHERE number = 2", bytes(body))
        restored = back(file, NOW_S + 60.0)
    assert (restored.at_s, restored.age_s) == (NOW_S, 60.0)
    assert "checksum" in restored.skipped
    assert restored.state is not None


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"not JSON", "malformed"),
        (b"{}", "missing required field"),
        (made(state=msgspec.Raw(b'{"endpoints": 7}')), "endpoints"),
        (made(state=msgspec.Raw(b'{"lengths":{"counts":{"x":[1,{"3":-1}]}}}')), "-1 in bin 3"),
        (made(ratios={"m": (0.0, 1.0)}), "`ratios`"),
    ],
)
def test_what_does_not_decode_to_what_a_router_makes_is_passed_over(tmp_path: Path, body: bytes, named: str) -> None:
    with opened(tmp_path) as file:
        file.write(made(NOW_S))
        file.write(body)
        restored = back(file)
        assert restored.at_s == NOW_S
        assert named in restored.skipped
        for _ in range(KEPT):
            file.write(body)
        restored = back(file)
    assert restored.state is None
    assert named in restored.refused
    assert restored.refused.count(named) == 1


def _plain(path: Path) -> None:
    path.write_bytes(b"this is no database, and longer than the header of one: " * 9)


def _empty(path: Path) -> None:
    path.touch()


def _ours(path: Path) -> None:
    with closing(Checkpoints(path)) as file:
        file.write(made())


def _newer(path: Path) -> None:
    _ours(path)
    change(path, "PRAGMA user_version = 7")


def _foreign(path: Path) -> None:
    change(path, "CREATE TABLE tune (name TEXT)")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_plain, "not a database"),
        (_empty, "this is no learned state"),
        (_foreign, "this is no learned state"),
        (_newer, "format 7, and this version of Tidegate reads 1; start the version that wrote it"),
        (_folder, "unable to open"),
    ],
)
def test_a_file_that_is_not_ours_to_read_is_refused_untouched_with_a_remedy(
    tmp_path: Path, spoil: Callable[[Path], None], named: str
) -> None:
    path = tmp_path / "learned.sqlite"
    spoil(path)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(CheckpointError, match=named) as caught:
        Checkpoints(path)
    assert str(path) in str(caught.value)
    assert "move it away" in str(caught.value)
    assert before is None or path.read_bytes() == before


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        with pytest.raises(CheckpointError, match="open in another process"):
            Checkpoints(file.path)
        file.write(made())
    with opened(tmp_path) as file:
        assert back(file).state is not None


@pytest.mark.parametrize("name", ["file/learned.sqlite", "/proc/none/learned.sqlite"])
def test_a_folder_that_cannot_be_written_is_an_error_with_its_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name
    with pytest.raises(CheckpointError, match=str(path.parent)):
        Checkpoints(path)


# --- what the disk does ---------------------------------------------------------------------------------------------


def test_a_full_disk_costs_that_snapshot_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        file.write(made(NOW_S))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.path.stat().st_size + 20_000, hard))
        try:
            with pytest.raises(CheckpointError, match="the disk has room") as caught:
                file.write(made(NOW_S + 1.0, software="x" * 100_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(file.path) in str(caught.value)
        assert back(file).at_s == NOW_S
        file.write(made(NOW_S + 2.0))
        assert back(file).at_s == NOW_S + 2.0


def test_a_file_that_others_removed_is_told_and_not_written_to(tmp_path: Path) -> None:
    with opened(tmp_path) as file:
        file.write(made())
        file.path.unlink()
        with pytest.raises(CheckpointError, match=f"{file.path}: another program removed .* copy of the learned state"):
            file.write(made())
    assert not file.path.exists()


def test_a_snapshot_beyond_its_bound_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as file:
        file.write(made(NOW_S))
        monkeypatch.setattr(checkpoint, "BODY_BYTES_MAX", len(made()))
        with pytest.raises(CheckpointError, match="exceeds"):
            file.write(made(software="a longer name than before"))
        assert back(file).at_s == NOW_S


WRITER = """
import os, sys
from pathlib import Path
from tests.state.test_checkpoint import made
from tidegate.state.checkpoint import Checkpoints

file = Checkpoints(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    file.write(made(float(number)))
    os.write(1, b"%d\\n" % number)
"""


@pytest.mark.lengthy
@pytest.mark.parametrize("after", [1, 17, 60])
def test_a_killed_process_leaves_the_last_snapshot_that_it_told_of(tmp_path: Path, after: int) -> None:
    path = tmp_path / "learned.sqlite"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path.cwd(), env=os.environ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split(b"\n")
    last = max(int(line) for line in told if line.strip())
    with closing(Checkpoints(path)) as file:
        restored = back(file)
    assert restored.skipped == restored.refused == ""
    assert restored.at_s is not None
    assert last <= restored.at_s <= last + 1


# --- what learned numbers depend on ---------------------------------------------------------------------------------


def upstream(**changes: object) -> Upstream:
    usual = Upstream(
        name="laptop",
        engine=EngineKind.LLAMACPP,
        url=Url(tls=False, host="127.0.0.1", port=8080, path=""),
        model="small",
        key=None,
        tls_ca_file=None,
        probe_s=5.0,
        canary_s=0.0,
        connect_timeout_s=5.0,
        asks_context=True,
        asks_media=True,
        probes_wake=False,
    )
    return replace(usual, **changes)


@pytest.mark.parametrize(
    ("endpoint", "reached"),
    [
        (make.endpoint("desktop"), upstream()),
        (make.endpoint("laptop", concurrency=3), upstream()),
        (make.endpoint("laptop", owned=False), upstream()),
        (make.endpoint("laptop", shares_compute=False), upstream()),
        (make.endpoint("laptop", context_tokens=4096), upstream()),
        (make.endpoint("laptop", prior=Prior(sigma=0.2)), upstream()),
        (make.endpoint("laptop"), upstream(engine=EngineKind.VLLM)),
        (make.endpoint("laptop"), upstream(model="large")),
        (make.endpoint("laptop"), upstream(url=Url(tls=False, host="127.0.0.1", port=8081, path=""))),
        (make.endpoint("laptop"), upstream(model="")),
    ],
)
def test_another_engine_model_address_size_or_prior_is_another_fingerprint(
    endpoint: Endpoint, reached: Upstream
) -> None:
    assert fingerprint(endpoint, reached) != fingerprint(make.endpoint("laptop"), upstream())


@pytest.mark.parametrize(
    ("endpoint", "reached"),
    [
        (make.endpoint("laptop", price=Price(usd_per_input_token=1.0)), upstream()),
        (make.endpoint("laptop", usd_per_s=1.0), upstream()),
        (make.endpoint("laptop", site="office", models=("m", "n")), upstream()),
        (make.endpoint("laptop"), upstream(probe_s=9.0, connect_timeout_s=1.0)),
    ],
)
def test_prices_names_for_clients_and_probes_leave_the_fingerprint(endpoint: Endpoint, reached: Upstream) -> None:
    assert fingerprint(endpoint, reached) == fingerprint(make.endpoint("laptop"), upstream())


def test_where_the_clients_name_is_passed_on_another_name_is_another_model() -> None:
    one, other = make.endpoint("laptop"), make.endpoint("laptop", models=("n",))
    assert fingerprint(one, upstream(model="")) != fingerprint(other, upstream(model=""))
