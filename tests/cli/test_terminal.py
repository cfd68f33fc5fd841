"""`tidegate status` and `top` before a whole gateway: what they show is what is so, and what a key does is done."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.config.test_malformed import GOOD
from tests.gateway.harness import House, chat, house, local, remote
from tests.gateway.test_budget import fill_up
from tests.http.harness import eventually, serving
from tidegate.cli.live import ANSWER_BYTES_MAX, Address, UnreachableError, address, look, median
from tidegate.cli.main import main
from tidegate.cli.status import row
from tidegate.config.door import Tls
from tidegate.config.problem import ConfigError
from tidegate.core.model import replace
from tidegate.engines.fake import Script
from tidegate.http.server import Exchange
from tidegate.telemetry.counts import RATIOS
from tidegate.wire.prometheus import EXPOSITION_BYTES_MAX

if TYPE_CHECKING:
    from textual.app import App

pytest.importorskip("textual")
SECRET = "an-admin-secret-of-24-bytes"


def at(home: House) -> Address:
    return Address(f"http://127.0.0.1:{home.admin_port}")


async def status(port: int, *options: str) -> int:
    return await asyncio.to_thread(main, ["status", "--admin", f"127.0.0.1:{port}", *options])


async def test_a_gateway_that_is_well_is_told_with_its_endpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    async with house(tmp_path, budget={"usd_per_day": 5}) as home:
        assert (await home.ask(chat(stream=True))).status == 200
        await home.quiet()
        assert await status(home.admin_port) == 0
        head, columns, cloud, laptop = capsys.readouterr().out.splitlines()
        assert head.startswith("ready, 0 in flight, 0 held, 0% offloaded, $0.0000 of $5.00 today")
        assert columns.split()[0] == "endpoint"
        assert cloud.split()[:4] == ["cloud", "remote", "up", "0/4"]
        assert laptop.split()[:4] == ["laptop", "local", "up", "0/4"]
        assert await status(home.admin_port, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        served = {one["name"]: one for one in told["endpoints"]}
        assert (served["laptop"]["attempts"], served["laptop"]["failed"]) == (1, 0)
        assert served["laptop"]["ttft_s"] > 0.0
        assert served["cloud"]["ttft_s"] is None


async def test_what_goes_away_counts_as_offloaded_and_is_paid(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote()) as home:
        await home.ask()
        await home.quiet()
        live = await asyncio.to_thread(look, at(home))
        assert live.offloaded == 1.0
        assert live.usd > 0.0
        assert (live.usd_today, live.usd_per_day) == (None, None)


async def test_dollars_since_the_start_are_no_fewer_when_an_endpoint_is_taken_out(tmp_path: Path) -> None:
    slow = remote(Script(tokens=40, token_s=0.01))
    async with house(tmp_path, cloud=slow) as home:
        await home.ask()
        await home.quiet()
        before = await asyncio.to_thread(look, at(home))
        streaming = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: home.engines["cloud"].made > 42)
        file = tmp_path / "tidegate.toml"
        file.write_text(file.read_text().replace("[endpoint.cloud]", "[endpoint.sky]"))
        assert (await home.change("POST", "/api/config")).status == 200
        after = await asyncio.to_thread(look, at(home))
        assert [one.usd for one in after.endpoints] == [0.0]
        assert after.usd == before.usd > 0.0
        # What was under way there is paid all the same.
        await streaming
        await home.quiet()
        assert (await asyncio.to_thread(look, at(home))).usd > before.usd


async def test_figures_are_read_of_metrics_however_many_there_are(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote()) as home:
        await home.ask()
        await home.quiet()
        state, metrics = [(await home.get(path, admin=True)).body for path in ("/api/state", "/metrics")]
        wanted = await asyncio.to_thread(look, at(home))
    told = {"/api/state": state, "/metrics": b'other{x="y"} 1\n' * (EXPOSITION_BYTES_MAX // 15 + 1) + metrics}

    def answer(exchange: Exchange) -> None:
        exchange.respond(200, [], told[exchange.path])

    async with serving(answer) as server:
        found = await asyncio.to_thread(look, Address(f"http://127.0.0.1:{server.port}"))
        assert found.endpoints == wanted.endpoints
        assert found.usd == wanted.usd > 0.0
        # Of more than anybody reads, a part would tell too little.
        told["/metrics"] = b"x" * (ANSWER_BYTES_MAX + 1)
        with pytest.raises(UnreachableError, match="more than 64 MiB"):
            await asyncio.to_thread(look, Address(f"http://127.0.0.1:{server.port}"))


async def test_an_endpoint_that_is_down_makes_it_unwell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with house(tmp_path, laptop=local(up=False), cloud=remote()) as home:
        await eventually(lambda: not home.gateway.router.endpoint("laptop").state.up)
        assert await status(home.admin_port) == 1
        said = capsys.readouterr().out
        assert "laptop   local  down " in said
        assert said.splitlines()[-1] == "laptop is down: it answered 503"


async def test_a_ledger_that_cannot_be_written_makes_it_unwell_and_the_reason_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with house(tmp_path, cloud=remote()) as home:
        fill_up(home)
        assert (await home.ask()).error["code"] == "spending_unrecorded"
        assert await status(home.admin_port) == 1
        head, why, *_ = capsys.readouterr().out.splitlines()
        assert head.startswith("ready, nothing can be paid for, ")
        assert why == home.gateway.spending.problem
        assert "full" in why


async def test_who_is_not_reached_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with house(tmp_path) as home:
        port = home.admin_port
        # The address of clients is none of operators.
        assert await status(home.port) == 2
        said = capsys.readouterr().err
        assert "is no admin address" in said
        assert "by default 127.0.0.1:8401" in said
    assert await status(port) == 2
    assert "does not answer: Connection refused; start it with `tidegate serve`" in capsys.readouterr().err
    assert await status(port, "--json") == 2
    assert "does not answer" in json.loads(capsys.readouterr().out)["unreachable"]


async def test_the_secret_comes_from_the_configuration_or_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "admin.key").write_text(SECRET)
    (tmp_path / "admin.key").chmod(0o600)
    async with house(tmp_path, gateway={"admin_key": {"file": "admin.key"}}) as home:
        monkeypatch.delenv("TIDEGATE_ADMIN_KEY", raising=False)
        assert await status(home.admin_port) == 2
        assert "asks for its secret" in capsys.readouterr().err
        # Whoever reads it from a file has the end of its line, too.
        monkeypatch.setenv("TIDEGATE_ADMIN_KEY", SECRET + "\n")
        assert await status(home.admin_port) == 0
        file = tmp_path / "tidegate.toml"
        file.write_text(file.read_text().replace('admin = "127.0.0.1:0"', f'admin = "127.0.0.1:{home.admin_port}"'))
        assert (await asyncio.to_thread(look, address(None, file))).well
        with pytest.raises(UnreachableError, match="asks for its secret"):
            await asyncio.to_thread(look, at(home))


def test_where_nobody_names_a_gateway_it_is_that_of_the_file_here_or_one_that_serves_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert address(None, None).url == "http://127.0.0.1:8401"
    with pytest.raises(ConfigError, match=r"tidegate\.toml.*no such file"):
        address(None, Path("tidegate.toml"))
    (tmp_path / "tidegate.toml").write_text(f"[gateway]\nadmin = '127.0.0.1:9'\n{GOOD}")
    assert address(None, None).url == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("listens", "asked"),
    [(":9", "127.0.0.1"), ("0.0.0.0:9", "127.0.0.1"), ("[::]:9", "[::1]"), ("[fd00::5]:9", "[fd00::5]")],
)
def test_a_gateway_that_listens_at_every_address_is_asked_at_one_of_this_machine(
    tmp_path: Path, listens: str, asked: str
) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(f"[gateway]\nadmin = '{listens}'\n{GOOD}")
    assert address(None, file).url == f"http://{asked}:9"


@pytest.mark.lengthy
def test_without_a_terminal_there_is_no_top(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--admin", "127.0.0.1:9"]) == 2
    out, err = capfd.readouterr()
    assert (out, err) == ("", "tidegate top: it needs a terminal; `tidegate status` says it once\n")


def test_a_secret_that_can_be_none_is_refused_and_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_ADMIN_KEY", f"{SECRET}\n{SECRET}")
    assert main(["status", "--admin", "127.0.0.1:9"]) == 2
    said = "".join(capsys.readouterr())
    assert "TIDEGATE_ADMIN_KEY" in said
    assert SECRET not in said
    with pytest.raises(UnreachableError, match="cannot be asked") as raised:
        Address("http://127.0.0.1:9", f"{SECRET}\n").ask("GET", "/")
    assert SECRET not in str(raised.value)


async def test_a_monitor_needs_no_secret_but_the_admins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VENDOR_KEY", raising=False)
    file = tmp_path / "tidegate.toml"
    file.write_text("[gateway]\nadmin_key = { env = 'ADMIN' }\n" + GOOD + "api_key_env = 'VENDOR_KEY'\n")
    monkeypatch.setenv("ADMIN", SECRET)
    assert address(None, file).url == "http://127.0.0.1:8401"
    monkeypatch.delenv("ADMIN")
    with pytest.raises(ConfigError, match=r"gateway\.admin_key\.env") as raised:
        address(None, file)
    assert len(raised.value.problems) == 1


async def test_the_gateways_own_certificate_is_trusted_and_none_that_its_signer_has_signed_besides(
    tmp_path: Path,
) -> None:
    signer = trustme.CA().create_child_ca()
    made = {name: signer.issue_cert("gateway.example") for name in ("own", "other")}
    for name, one in made.items():
        (tmp_path / f"{name}.pem").write_bytes(b"".join(pem.bytes() for pem in one.cert_chain_pems))
        one.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
    file = tmp_path / "tidegate.toml"

    async def asked(name: str) -> bytes:
        shown = Tls(cert=tmp_path / f"{name}.pem", key=tmp_path / f"{name}.key").context()
        async with serving(lambda exchange: exchange.respond(200, [], b"it is me"), tls=shown) as server:
            tls = "tls = { cert = 'own.pem', key = 'own.key' }"
            file.write_text(f"[gateway]\nadmin = '127.0.0.1:{server.port}'\n{tls}\n{GOOD}")
            return await asyncio.to_thread(address(None, file).ask, "GET", "/")

    assert made["own"].cert_chain_pems[1:], "who has signed it is in its file"
    assert await asked("own") == b"it is me"
    with pytest.raises(UnreachableError, match=r"certificate verify failed.*name the file .* by --config"):
        await asked("other")


async def test_who_asks_for_plain_text_where_there_is_tls_is_told_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = trustme.CA().issue_cert("gateway.example")
    (tmp_path / "own.pem").write_bytes(made.cert_chain_pems[0].bytes())
    made.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    shown = Tls(cert=tmp_path / "own.pem", key=tmp_path / "own.key").context()
    async with serving(lambda exchange: exchange.respond(200, [], b""), tls=shown) as server:
        assert await status(server.port) == 2
    assert "write https://HOST:PORT" in capsys.readouterr().err


async def test_who_asks_for_tls_where_there_is_none_is_told_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with house(tmp_path) as home:
        told = ["status", "--admin", f"https://127.0.0.1:{home.admin_port}"]
        assert await asyncio.to_thread(main, told) == 2
    assert "write http://HOST:PORT" in capsys.readouterr().err


def test_a_host_that_nobody_knows_is_told_with_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--admin", "nobody.invalid"]) == 2
    said = capsys.readouterr().err
    assert "http://nobody.invalid does not answer" in said
    assert "by default 127.0.0.1:8401" in said


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(f"[gateway]\ntls = {{ cert = 'own.pem', key = 'own.key' }}\n{GOOD}")
    for content in (None, b"", b"\xff-----BEGIN CERTIFICATE-----\xff"):
        if content is not None:
            (tmp_path / "own.pem").write_bytes(content)
        with pytest.raises(ConfigError, match=r"gateway\.tls\.cert"):
            address(None, file)


def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("ftp://x", "http://", "127.0.0.1:x", "127.0.0.1:99999"):
        assert main(["status", "--admin", wrong]) == 2
        assert "is no address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [({"1": 0, "2": 10, "+Inf": 10}, 1.5), ({"1": 0, "2": 0, "+Inf": 4}, 2.0), ({"1": 0, "+Inf": 0}, None), ({}, None)],
)
def test_the_median_of_a_histogram_lies_within_its_bucket(counts: dict[str, int], wanted: float | None) -> None:
    assert median([({b"le": bound.encode()}, float(count)) for bound, count in counts.items()]) == wanted


async def test_beyond_the_last_step_of_a_histogram_no_figure_is_made_up(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        one = (await asyncio.to_thread(look, at(home))).endpoints[0]
    assert row(one)[6] == "-"
    assert row(replace(one, actual_to_predicted=3.999))[6] == "x4.00"
    assert row(replace(one, actual_to_predicted=RATIOS[-1]))[6] == ">x4"


def shown(app: "App[None]") -> list[str]:
    """The screen as text, line by line."""
    width = app.size.width
    return [
        "".join(segment.text for segment in line)[:width].rstrip() for line in app.screen._compositor.render_strips()
    ]


@pytest.mark.parametrize(("size", "wide"), [((80, 24), False), ((140, 40), True)])
async def test_the_screen_shows_each_endpoint_in_words(tmp_path: Path, size: tuple[int, int], wide: bool) -> None:
    from tidegate.cli.top import Top

    async with house(tmp_path) as home:
        await home.ask()
        await home.quiet()
        app = Top(at(home))
        async with app.run_test(size=size) as pilot:
            await eventually(lambda: any("laptop" in line for line in shown(app)))
            await pilot.pause()
            lines = shown(app)
            assert any("ready, 0 in flight, 0 held" in line for line in lines)
            head = next(line for line in lines if line.split()[:2] == ["endpoint", "side"])
            assert head.split()[-1] == ("ms" if wide else "usd")
            assert next(line for line in lines if "laptop" in line).split()[:4] == ["laptop", "local", "up", "0/4"]
            assert any("Drain" in line for line in lines)


async def test_the_screen_says_why_an_endpoint_is_down(tmp_path: Path) -> None:
    from tidegate.cli.top import Top

    async with house(tmp_path, laptop=local(up=False), cloud=remote()) as home:
        app = Top(at(home))
        async with app.run_test(size=(80, 24)):
            await eventually(lambda: any("laptop is down: it answered 503" in line for line in shown(app)))


async def test_keys_drain_undrain_sort_and_help(tmp_path: Path) -> None:
    from tidegate.cli.top import Top

    async with house(tmp_path) as home:
        app = Top(at(home))
        async with app.run_test(size=(80, 24)) as pilot:
            await eventually(lambda: any("cloud" in line for line in shown(app)))
            await pilot.press("d")
            await eventually(lambda: home.gateway.router.overrides.drained == ("cloud",))
            await eventually(lambda: any(line.split()[:3] == ["cloud", "remote", "drained"] for line in shown(app)))
            await pilot.press("u")
            await eventually(lambda: home.gateway.router.overrides.drained == ())
            await pilot.press("s")
            await eventually(lambda: any("sorted by side" in line for line in shown(app)))
            names = [line.split()[0] for line in shown(app) if line.split()[1:2] in (["local"], ["remote"])]
            assert names == ["laptop", "cloud"]
            # The cursor has gone with its endpoint.
            await pilot.press("d")
            await eventually(lambda: home.gateway.router.overrides.drained == ("cloud",))
            await pilot.press("question_mark")
            await eventually(lambda: any("drain: it gets nothing new" in line for line in shown(app)))


async def test_a_gateway_that_was_restarted_is_shown_again(tmp_path: Path) -> None:
    from tidegate.cli.top import Top

    async with AsyncExitStack() as stack:
        home = await stack.enter_async_context(house(tmp_path))
        port = home.admin_port
        app = Top(at(home))
        async with app.run_test(size=(80, 24)) as pilot:
            await eventually(lambda: any("laptop" in line for line in shown(app)))
            await stack.aclose()
            await pilot.press("r")
            await eventually(lambda: any("does not answer" in line for line in shown(app)))
            assert any("laptop" in line for line in shown(app)), "what was seen last stays"
            (tmp_path / "again").mkdir()
            async with house(tmp_path / "again", gateway={"admin": f"127.0.0.1:{port}"}, desk=remote()):
                await pilot.press("r")
                await eventually(lambda: any("desk" in line for line in shown(app)))
                assert not any("does not answer" in line for line in shown(app))
