"""What the demo looks at before it fetches anything."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tidegate.lab import demo, weights

PORTS = ("GATEWAY_PORT", "ADMIN_PORT", "LINK_PORT")


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, socket.socket]]:
    """An empty cache, nothing to be fetched, and the demo's ports, each of which somebody has."""

    def fetched(*_: object, **__: object) -> Path:
        raise AssertionError("nothing is to be fetched")

    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "fetch", fetched)
    with ExitStack() as stack:
        bound = {name: stack.enter_context(socket.create_server((demo.HOST, 0))) for name in PORTS}
        for name, one in bound.items():
            monkeypatch.setattr(demo, name, one.getsockname()[1])
        yield bound


@pytest.mark.parametrize("taken", PORTS)
def test_a_port_that_is_taken_is_found_before_anything_is_fetched_and_named(
    taken: str, sockets: dict[str, socket.socket], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, one in sockets.items():
        if name != taken:
            one.close()
    assert demo.demo(once=True, verify=False, as_json=False) == 1
    said = capsys.readouterr().out
    assert f"port {sockets[taken].getsockname()[1]} of the " in said
    assert "is taken; end what listens there" in said


@pytest.mark.usefixtures("sockets")
def test_a_second_demo_is_told_of_the_first_and_not_of_its_ports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").mkdir()
    with (tmp_path / "cache" / "demo.lock").open("w") as lock:
        assert weights.locked(lock)
        assert demo.demo(once=True, verify=False, as_json=False) == 1
    assert "another `tidegate demo` has its files in" in capsys.readouterr().out


@pytest.mark.usefixtures("sockets")
def test_a_cache_that_cannot_be_made_is_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "file" / "cache"))
    assert demo.demo(once=True, verify=False, as_json=False) == 1
    assert "set TIDEGATE_CACHE to a folder that you may write" in " ".join(capsys.readouterr().out.split())
