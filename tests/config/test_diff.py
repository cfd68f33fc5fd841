"""What differs between two configurations, and what of it waits for a restart."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.test_malformed import FREE, GOOD, THEIRS
from tidegate.config.config import Config
from tidegate.config.diff import SECTIONS, diff, tables, without_restart
from tidegate.config.load import load, load_unreached, parse
from tidegate.config.schema import BudgetTable, CouriersTable, GatewayTable
from tidegate.config.secret import Secret
from tidegate.config.table import MutualTlsTable, SecretTable, TlsTable
from tidegate.config.trace import TraceTable

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
TEXT = """
[gateway]
admin_key = { env = "ADMIN" }
[site.home]
local = true
[site.away]
local = false
[endpoint.laptop]
site = "home"
engine = "llamacpp"
url = "http://127.0.0.1:8080"
serves = ["m"]
[endpoint.cloud]
site = "away"
engine = "openai"
url = "https://api.example.com/v1"
api_key_env = "KEY"
model = "big"
serves = ["m"]
context_tokens = 32768
price = { usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 2 }
"""
SECRETS = {"ADMIN": "an-admin-secret-of-24-bytes", "KEY": "sk-one"}
# What a running gateway takes over; every other setting of these tables waits for a restart.
LIVE = {
    "gateway": {"admin_key", "tls", "request_timeout_s", "drain_s"},
    "budget": {"usd_per_day", "usd_per_month", "pace"},
    "trace": set(),
}
OTHER: dict[str, Any] = {
    "listen": "127.0.0.1:9400",
    "admin": "127.0.0.1:9401",
    "keys": "other.db",
    "journal": "other",
    "state": "other.sqlite",
    "log": "other.log",
    "ledger": "other-ledger.db",
    "endpoint": "http://127.0.0.1:4318/v1/traces",
    "service": "other",
    "authorization": SecretTable(env="OTHER"),
    "couriers": CouriersTable(
        secret=SecretTable(file="tickets.key"), tls=MutualTlsTable(cert="a.pem", key="a.key", ca="ca.pem")
    ),
}


def config(text: str = TEXT, **secrets: str) -> Config:
    return parse(text, "tidegate.toml", SECRETS | secrets)


def test_a_configuration_does_not_differ_from_itself() -> None:
    assert diff(config(), config()) == ()


@given(st.sets(st.sampled_from(["laptop", "cloud"])), st.sampled_from([1, 2, 3]), st.booleans())
def test_what_differs_one_way_differs_the_other_way_round(names: set[str], tokens: int, seed: bool) -> None:
    changed = config(TEXT + f"[policy]\nseed = {tokens}\n" if seed else TEXT)
    changed = msgspec.structs.replace(
        changed,
        endpoints={
            name: msgspec.structs.replace(table, concurrency=tokens) if name in names else table
            for name, table in changed.endpoints.items()
        },
    )
    there, back = diff(config(), changed), diff(changed, config())
    assert len(there) == len(names) + seed
    assert [(c.path, c.after, c.before) for c in there] == [(c.path, c.before, c.after) for c in back]


def test_a_table_that_is_new_or_gone_is_one_difference() -> None:
    more = TEXT + '[class.rush]\nworth_usd = 1.0\n[endpoint."my-desk"]\nsite = "home"\nengine = "llamacpp"\n'
    found = diff(config(), config(more + 'url = "http://127.0.0.1:8081"\nserves = ["m"]\n'))
    assert [change.path for change in found] == ["class.rush", "endpoint.my-desk"]
    assert all(change.before is None and isinstance(change.after, dict) for change in found)


def test_secrets_show_that_they_differ_and_nothing_else() -> None:
    found = diff(config(), config(KEY="sk-two", ADMIN="another-admin-secret-24-b"))
    assert [change.path for change in found] == ["endpoint.cloud.api_key", "gateway.admin_key"]
    shown = msgspec.json.encode((found, tables(config()))).decode()
    for secret in (*SECRETS.values(), "sk-two", "another-admin-secret-24-b"):
        assert secret not in shown


def test_secrets_that_are_kept_until_a_restart_are_named_as_waiting() -> None:
    before = msgspec.structs.replace(config(), ticket_secret=Secret("a" * 32), trace_secret=Secret("Bearer a"))
    after = msgspec.structs.replace(before, ticket_secret=Secret("b" * 32), trace_secret=Secret("Bearer b"))
    found = diff(before, after)
    assert [change.path for change in found] == ["gateway.couriers.secret", "trace.authorization"]
    assert all(change.at_restart for change in found)
    assert diff(without_restart(before, after), after) == found, "as long as it is not restarted"


def _other(value: Any) -> Any:
    return value + 1 if isinstance(value, int | float) else None


@pytest.mark.parametrize(
    ("table", "name"),
    # A context is laid out with its listener: the next test is about `tls`.
    [("gateway", f) for f in GatewayTable.__struct_fields__ if f != "tls"]
    + [("budget", f) for f in BudgetTable.__struct_fields__]
    + [("trace", f) for f in TraceTable.__struct_fields__],
)
def test_every_setting_is_either_taken_over_or_said_to_wait(table: str, name: str) -> None:
    before = config()
    value = OTHER[name] if name in OTHER else _other(getattr(getattr(before, table), name))
    if name in ("usd_per_day", "usd_per_month"):
        value = 5.0
    after = msgspec.structs.replace(before, **{table: msgspec.structs.replace(getattr(before, table), **{name: value})})
    found = diff(before, after)
    assert found
    waits = {change.at_restart for change in found}
    assert waits == {name not in LIVE[table]}
    taken = getattr(getattr(without_restart(before, after), table), name)
    assert (taken == value) == (name in LIVE[table])


def test_tls_comes_and_goes_at_a_restart_and_its_files_are_taken_over() -> None:
    plain = config()
    table = TlsTable(cert="a.pem", key="a.key")
    secured = msgspec.structs.replace(plain, gateway=msgspec.structs.replace(plain.gateway, tls=table))
    renewed = msgspec.structs.replace(
        plain, gateway=msgspec.structs.replace(plain.gateway, tls=msgspec.structs.replace(table, cert="b.pem"))
    )
    assert [(c.path, c.at_restart) for c in diff(plain, secured)] == [("gateway.tls", True)]
    assert without_restart(plain, secured).gateway.tls is None
    assert [(c.path, c.at_restart) for c in diff(secured, renewed)] == [("gateway.tls.cert", False)]
    assert without_restart(secured, renewed).gateway.tls == renewed.gateway.tls


def test_what_is_within_a_table_that_waits_for_a_restart_waits_too() -> None:
    plain, table = config(), OTHER["couriers"]
    before, after = (
        msgspec.structs.replace(plain, gateway=msgspec.structs.replace(plain.gateway, couriers=one))
        for one in (table, msgspec.structs.replace(table, tls=msgspec.structs.replace(table.tls, ca="other.pem")))
    )
    assert [(c.path, c.at_restart) for c in diff(before, after)] == [("gateway.couriers.tls.ca", True)]


COURIERS = '[gateway.couriers]\nsecret = { env = "K" }\ntls = { cert = "a.pem", key = "a.key", ca = "ca.pem" }\n'
HANDED = GOOD + THEIRS.replace('"openai"', '"llamacpp"') + FREE + "owned = false\n"
HANDOVER = 'handover = [{ to = "mine", kv_kib_per_token = 20 }]\n'


@pytest.mark.parametrize("new", [False, True], ids=["changed", "new"])
def test_what_couriers_would_carry_waits_for_them(tmp_path: Path, new: bool) -> None:
    def read(text: str) -> Config:
        (tmp_path / "tidegate.toml").write_text(text)
        return load_unreached(tmp_path / "tidegate.toml")

    def waits(before: Config, after: Config) -> dict[str, bool]:
        return {change.path: change.at_restart for change in diff(before, after) if change.path.startswith("endpoint")}

    before, after = read(GOOD if new else HANDED), read(HANDED + HANDOVER + COURIERS)
    assert waits(before, after) == {"endpoint.theirs.handover": True} | ({"endpoint.theirs": False} if new else {})
    taken = without_restart(before, after)
    assert (taken.gateway.couriers, taken.endpoints["theirs"].handover) == (None, ())
    assert waits(taken, after) == {"endpoint.theirs.handover": True}, "as long as it is not restarted"
    carried = read((GOOD if new else HANDED) + COURIERS)
    assert not any(waits(carried, after).values())
    assert without_restart(carried, after).endpoints["theirs"].handover == after.endpoints["theirs"].handover != ()
    fetched = read((HANDED + HANDOVER).replace('"llamacpp"', '"vllm"'))
    assert not any(waits(before, fetched).values())
    assert without_restart(before, fetched).endpoints["theirs"].handover != ()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_table_of_a_configuration_is_shown(path: Path) -> None:
    found = tables(load(path, dict.fromkeys(_variables(path), "sk-0123456789abcdef-0123")))
    assert set(found) == set(SECTIONS)
    assert found["endpoint"]


def _variables(path: Path) -> list[str]:
    return re.findall(r'(?:api_key_env|env) = "([A-Z0-9_]+)"', path.read_text())
