"""How relays are had, started and chosen."""

import subprocess
import sys
from pathlib import Path

import bench.installs
import pytest
from bench.beside import relay_of
from bench.cpu import family, family_cpu_ns, family_rss_mb, spent_us
from bench.installs import OnPath, Wheel
from bench.peers import PEERS
from bench.relay import named, present
from bench.relays import Absent, Place, Relay, Start, running


def absent() -> str:
    raise Absent("nothing on this machine ends TLS")


def start(_: Place) -> Start:
    return Start([sys.executable, "-c", "print('no such model'); raise SystemExit(1)"])


def test_who_is_not_here_is_told_with_the_reason() -> None:
    here, gone = Relay("here", lambda: "1.0", start), Relay("gone", absent, start)
    assert present([here, gone]) == ([here], {"here": "1.0"}, {"gone": "nothing on this machine ends TLS"})


def test_a_relay_that_ends_at_once_says_why() -> None:
    with pytest.raises(Absent, match="no such model"), running(Relay("one", absent, start), (1,), None, ()):
        pass


@pytest.mark.lengthy
def test_a_package_that_cannot_be_had_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.installs, "FOLDER", tmp_path)
    with pytest.raises(Absent, match="cannot be installed"):
        Wheel("nobody", "1.0", str(tmp_path / "nothing-1.0-py3-none-any.whl")).ready()


def test_what_was_installed_is_not_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.installs, "FOLDER", tmp_path)
    (tmp_path / "router").mkdir()
    (tmp_path / "router" / "installed").write_text("router[proxy]==1.0")
    assert Wheel("router[proxy]", "1.0").ready() == "1.0"


def test_a_program_that_is_not_there_is_absent() -> None:
    with pytest.raises(Absent, match="not on this machine"):
        OnPath("a-program-that-nobody-has").ready()


def test_names_come_in_the_known_order_and_unknown_ones_are_refused() -> None:
    assert named("c a", ["a", "b", "c"], "peer") == ["a", "c"]
    assert named("", ["a", "b"], "peer") == ["a", "b"]
    with pytest.raises(SystemExit, match="no peer x; there are a, b"):
        named("x", ["a", "b"], "peer")


def test_a_build_of_the_gateway_is_named_by_its_folder(tmp_path: Path) -> None:
    relay = relay_of("old=/builds/old")
    started = relay.start(Place(tmp_path, 1, 2, (3, 4)))
    assert relay.name == "old"
    assert started.environment["PYTHONPATH"] == "/builds/old"
    assert relay_of("nginx") in PEERS
    with pytest.raises(SystemExit, match="no relay nobody; there are tidegate, "):
        relay_of("nobody")


def test_every_peer_can_be_started_from_its_own_folder(tmp_path: Path) -> None:
    place = Place(tmp_path, 1001, 1002, (1003, 1004))
    for relay in PEERS:
        words = [*map(str, relay.start(place).command), *(file.read_text() for file in tmp_path.iterdir())]
        assert any("1001" in word for word in words), relay.name
        assert any("1003" in word for word in [*words, *relay.start(place).headers]), relay.name
        for file in tmp_path.iterdir():
            file.unlink()


def test_a_process_and_its_children_are_counted_together() -> None:
    code = "import subprocess as s; print(s.Popen(['cat'], stdin=s.PIPE).pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        child = int(one.stdout.readline())
        before = family_cpu_ns(one.pid)
        assert family(one.pid) == [one.pid, child]
        assert {one.pid, child} <= before.keys()
        assert family_rss_mb(one.pid) > family_rss_mb(child) > 0.0
        assert 0.0 <= spent_us(before, family_cpu_ns(one.pid)) < 1e6
        one.terminate()


def test_a_thread_that_began_meanwhile_counts_from_nothing() -> None:
    assert spent_us({1: 5_000}, {1: 7_000, 2: 3_000}) == 5.0
