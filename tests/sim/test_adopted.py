"""What another gateway served becomes a journal of its own decisions, for a configuration of ours."""

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TypeVar

import msgspec
import pytest

import tidegate.sim.adopted
from tests.sim.foreign_days import Record
from tidegate.config.config import Config
from tidegate.config.load import load_unreached
from tidegate.core.health import CLIENT_ERROR
from tidegate.core.model import Capability, Decision, Ended, Ending, FirstToken, Request, Segment, Slo, Started
from tidegate.core.replay import replay
from tidegate.sim.adopted import Adopted, AdoptError, By, adopt
from tidegate.sim.foreign import Served, Unused
from tidegate.sim.observed import observe

_T = TypeVar("_T")
BEGIN_S = 1_768_809_251.0
CONFIG = """
[site.home]
local = true

[site.cloud]
local = false

[endpoint.desk]
site = "home"
engine = "llamacpp"
url = "http://localhost:8080"
model = "qwen"
serves = ["support-chat"]
context_tokens = 8192
concurrency = 2

[endpoint.mini]
site = "cloud"
engine = "openai"
url = "https://api.openai.com/v1"
model = "gpt-4o-mini"
serves = ["support-chat"]
context_tokens = 128000
price = { usd_per_1m_input_tokens = 0.15, usd_per_1m_output_tokens = 0.6 }

[endpoint.large]
site = "cloud"
engine = "openai"
url = "https://api.openai.com/v1"
model = "gpt-4o"
serves = ["support-large"]
context_tokens = 128000
price = { usd_per_1m_input_tokens = 2.5, usd_per_1m_output_tokens = 10 }

[class.batch]
slo = { e2e_ms = 60000 }

[[rule]]
name = "long"
when = "prompt_tokens > 5000"
to = ["mini"]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    file = tmp_path_factory.mktemp("adopted") / "tidegate.toml"
    file.write_text(CONFIG)
    return load_unreached(file)


def served(number: int = 0, **changes: object) -> Served:
    one = Served(
        id=f"r{number}",
        arrived_s=BEGIN_S + number,
        e2e_s=2.5,
        ttft_s=0.5,
        kind=Capability.CHAT,
        model="support-chat",
        deployment="gpt-4o-mini",
        base="https://api.openai.com/v1",
        ok=True,
        prompt_tokens=1000,
        output_tokens=90,
    )
    return msgspec.structs.replace(one, **changes)


def facts(adopted: Adopted, kind: type[_T]) -> list[_T]:
    return [line.fact for line in adopted.lines if isinstance(line.fact, kind)]


def test_a_request_becomes_the_lines_of_its_journal_in_the_order_of_time(config: Config) -> None:
    found = adopt([served(1), served(0)], config)
    assert [type(line.fact) for line in found.lines] == [
        Segment,
        *(Request, Decision, Started, FirstToken),
        *(Request, Decision, Started, FirstToken),
        *(Ended, Ended),
    ]
    assert [line.at_s for line in found.lines] == sorted(line.at_s for line in found.lines)
    first, ended = facts(found, Request)[0], facts(found, Ended)[0]
    assert (first.id, first.model, first.klass, first.prompt_tokens) == (
        "r0",
        "support-chat",
        "interactive/medium",
        1000,
    )
    assert first.prompt_bytes == 4000
    assert (ended.ending, ended.ttft_s, ended.e2e_s, ended.output_tokens) == (Ending.OK, 0.5, 2.5, 90)
    assert found.where == {"r0": "mini", "r1": "mini"}


def test_its_facts_are_ones_that_replay_takes_in(config: Config) -> None:
    found = adopt([served(number, usd=0.001 * number) for number in range(5)], config)
    report = replay(line for line in found.lines if not isinstance(line.fact, Decision))
    assert report.difference is None
    assert report.observations == 15
    assert found.billed == {f"r{number}": 0.001 * number for number in range(5)}


@pytest.mark.parametrize(
    ("changes", "endpoint", "by"),
    [
        ({}, "mini", By.ADDRESS),
        ({"base": "api.openai.com"}, "mini", By.ADDRESS),
        ({"deployment": "openai/gpt-4o-mini"}, "mini", By.ADDRESS),
        ({"deployment": "gpt-4o", "model": "support-large"}, "large", By.ADDRESS),
        ({"base": "http://127.0.0.1:8080/v1/", "deployment": "hosted_vllm/anything"}, "desk", By.ADDRESS),
        ({"base": "", "deployment": "qwen"}, "desk", By.MODEL),
        ({"base": "openai"}, "mini", By.MODEL),
        ({"base": "OpenAI", "deployment": "gpt-4o", "model": "support-large"}, "large", By.MODEL),
        ({"base": "mini", "deployment": "qwen"}, "mini", By.NAME),
        ({"base": "10.0.0.7:9000", "deployment": "?"}, "desk", By.SAID),
        ({"base": "https://eu.vendor.example/v1", "deployment": "?"}, "mini", By.SAID),
        ({"base": "nowhere", "deployment": "azure/turbo"}, "large", By.SAID),
        ({"base": "10.0.0.7:9000", "deployment": "azure/turbo"}, "large", By.SAID),
    ],
)
def test_who_served_it_is_known_by_address_by_name_or_by_what_was_said(
    config: Config, changes: dict[str, object], endpoint: str, by: By
) -> None:
    at = {"10.0.0.7:9000": "desk", "eu.vendor.example": "mini", "azure/turbo": "large"}
    found = adopt([served(0, **changes)], config, at)
    assert found.where == {"r0": endpoint}
    assert found.placed == {(endpoint, by): 1}


@pytest.mark.parametrize(("url", "vendor"), [("inference.baseten.co", "baseten"), ("api.groq.com/openai", "groq")])
def test_a_vendor_is_known_by_any_url_that_the_price_list_knows(tmp_path: Path, url: str, vendor: str) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(CONFIG.replace("api.openai.com", url))
    assert adopt([served(0, base=vendor)], load_unreached(file)).where == {"r0": "mini"}


@pytest.mark.parametrize("base", ["https://api.other.example/v1", "zzz", "openai", "anthropic"])
def test_what_somebody_else_served_is_no_endpoints_because_its_model_is_called_so(config: Config, base: str) -> None:
    found = adopt([served(0), served(1, base=base, deployment="qwen")], config)
    assert found.where == {"r0": "mini"}
    assert found.unused == {Unused.ELSEWHERE: 1}
    # By the name that is told of it, it can be said who that is.
    (name,) = found.strangers
    assert adopt([served(1, base=base, deployment="qwen")], config, {name: "large"}).where == {"r1": "large"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base": "https://other.example/v1", "deployment": "?"}, Unused.ELSEWHERE),
        # Two of them are there, and neither is called so.
        ({"deployment": "gpt-3.5"}, Unused.ELSEWHERE),
        ({"model": "no-such-model"}, Unused.UNSERVED),
        ({"output_tokens": None}, Unused.NO_TOKENS),
        ({"prompt_tokens": None}, Unused.NO_TOKENS),
        ({"id": "r9"}, Unused.AGAIN),
    ],
)
def test_what_cannot_be_used_is_counted(config: Config, changes: dict[str, object], why: Unused) -> None:
    found = adopt([served(9), served(0, **changes), Unused.CACHED], config)
    assert found.unused == {why: 1, Unused.CACHED: 1}
    assert found.records == 3
    assert found.where == {"r9": "mini"}


def test_a_name_of_its_own_for_the_only_model_of_an_endpoint_is_that_model(config: Config) -> None:
    found = adopt([served(0, model="qwen", deployment="qwen", base="http://localhost:8080")], config)
    assert facts(found, Request)[0].model == "support-chat"


def test_a_failed_attempt_at_what_was_served_then_is_no_request(config: Config) -> None:
    failed = served(0, ok=False, trace="t1", ttft_s=None, output_tokens=None)
    found = adopt([failed, served(1, trace="t1"), served(2, ok=False, trace="t2", output_tokens=None)], config)
    assert found.where.keys() == {"r1", "r2"}
    assert found.unused == {Unused.RETRIED: 1}


def test_attempts_that_share_an_id_are_one_request_that_was_served(config: Config) -> None:
    failed = served(0, ok=False, ttft_s=None, output_tokens=None)
    for records in ([failed, served(0, arrived_s=BEGIN_S + 3.0)], [served(0), failed], [failed, failed, served(0)]):
        found = adopt(records, config)
        assert [one.ending for one in facts(found, Ended)] == [Ending.OK]
        assert sum(found.unused.values()) == len(records) - 1


def test_a_failure_in_a_session_that_was_served_before_is_one(config: Config) -> None:
    # Some write a whole conversation's name as its trace.
    failed = served(1, ok=False, trace="s", arrived_s=BEGIN_S + 3600.0, output_tokens=None)
    found = adopt([served(0, trace="s"), failed, served(2, trace="s", arrived_s=BEGIN_S + 7200.0)], config)
    assert found.where.keys() == {"r0", "r1", "r2"}


@pytest.mark.parametrize("order", ["as they came", "the last first", "mixed"])
def test_of_a_long_log_the_last_requests_count_and_no_more_of_it_is_held(
    config: Config, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidegate.sim.adopted, "REQUESTS_MAX", 5)
    numbers = list(range(100))
    if order == "the last first":
        numbers.reverse()
    elif order == "mixed":
        Random(1).shuffle(numbers)
    held = []

    def log() -> Iterator[Served]:
        for number in numbers:
            yield served(number)
            held.append(sum(type(one) is Served for one in gc.get_objects()))

    adopted = adopt(log(), config)
    assert [one.id for one in facts(adopted, Request)] == [served(number).id for number in range(95, 100)]
    assert (adopted.unused, adopted.records) == ({Unused.OLDER: 95}, 100)
    assert max(held) - held[0] <= 2 * 5


def test_what_is_secret_in_a_log_is_told_nowhere(config: Config) -> None:
    key = "sk-live-1234567890abcdef"
    found = adopt(
        [
            served(0, key=key),
            served(1, key="support"),
            served(2, base="https://user:hunter2@other.example/v1?key=AIzaSECRET", deployment="?"),
            served(3, base="other.example/v1?key=AIzaSECRET", deployment="?"),
        ],
        config,
    )
    keys = [one.key for one in facts(found, Request)]
    assert keys[1] == "support"
    assert len(keys[0]) == 12
    assert found.strangers == {"other.example:443/v1": 1, "other.example/v1": 1}
    assert all(word not in str(found.lines) for word in (key, "hunter2", "SECRET"))
    other = adopt([served(0, fields={"messages": [{"role": "user", "content": "word " * 900}]})], config)
    same = adopt([served(0, fields={"messages": [{"role": "user", "content": "word " * 900}]})], config)
    # Whoever has a journal of it cannot try which prompts they were.
    assert facts(other, Request)[0].prefix != facts(same, Request)[0].prefix


@pytest.mark.parametrize(
    "key",
    [
        "bearer sk-live-0123456789abcdef",
        "BEARER abc",
        " sk-live-0123456789abcdef",
        "token=sk-live-0123456789abcdef",
        "team-sk-live-0123456789abcdef",
        "sk_live_0123456789abcdef",
        "SK-LIVE-0123456789ABCDEF",
        "Basic dXNlcjpwYXNz",
        "Authorization: Basic dXNlcjpwYXNz",
        "token ghp_0123456789abcdef",
        "api_key: 0123456789abcdef",
        "password=hunter2",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.",
        "user eyJhbGciOiJub25lIn0.e30.",
        "of the rack: 0123456789abcdef0123456789abcdef",
        # Whether it is a name or a secret, nobody can see.
        "6f1c2b1e-8d0a-4c55-9a5e-0d5a3f6f7b11",
    ],
)
def test_a_key_that_has_what_looks_like_a_secret_in_it_is_told_by_a_digest(config: Config, key: str) -> None:
    (request,) = facts(adopt([served(key=key)], config), Request)
    assert re.fullmatch("[0-9a-f]{12}", request.key)


@pytest.mark.parametrize(
    "key",
    [
        "task-runner",
        "risk-team",
        "Desk-Bot",
        "help_desk_sk",
        "basic-plan",
        "Basic plan",
        "token-service",
        "ring-bearer",
        "keyjobs",
        "Eyjafjallajokull",
        "key-accounts",
        "anna.schmidt@support.example.com",
        "Marketing, Europe: campaigns and translations",
        "0123456789abcdef",
    ],
)
def test_a_key_that_is_a_name_stands_as_it_is(config: Config, key: str) -> None:
    (request,) = facts(adopt([served(key=key)], config), Request)
    assert request.key == key


def test_prompts_that_are_too_long_for_a_window_that_is_assumed_are_counted(config: Config, tmp_path: Path) -> None:
    records = [served(number, prompt_tokens=tokens) for number, tokens in enumerate((1000, 3000, 9000))]
    assert adopt(records, config).too_long == {}
    file = tmp_path / "tidegate.toml"
    file.write_text(CONFIG.replace("context_tokens = 8192\n", ""))
    assert adopt(records, load_unreached(file)).too_long == {"desk": 2}


def test_prices_are_those_of_its_beginning_in_whatever_order_it_is_written(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("dated") / "tidegate.toml"
    dear = CONFIG.replace(
        "price = { usd_per_1m_input_tokens = 0.15, usd_per_1m_output_tokens = 0.6 }",
        "price = [{ usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 1 }, "
        "{ from = 2026-01-20, usd_per_1m_input_tokens = 9, usd_per_1m_output_tokens = 9 }]",
    )
    file.write_text(dear)
    records = [served(0), served(1, arrived_s=BEGIN_S + 5 * 86_400.0)]
    for order in (records, records[::-1]):
        found = adopt(order, load_unreached(file))
        (mini,) = [one for one in found.endpoints if one.name == "mini"]
        assert mini.price.usd_per_input_token == pytest.approx(1e-6)


def test_failures_and_refusals_cost_nothing_and_are_told_apart(config: Config) -> None:
    refused = served(0, ok=False, rate_limited=True, ttft_s=None, output_tokens=None)
    found = adopt([refused, served(1, ok=False, ttft_s=None, output_tokens=None)], config)
    assert [(one.ending, one.cause) for one in facts(found, Ended)] == [
        (Ending.REFUSED, "rate_limited"),
        (Ending.FAILED, "failed"),
    ]


def test_what_is_a_requests_own_fault_is_no_failure_of_who_found_it(config: Config) -> None:
    at_fault = served(1, ok=False, at_fault=True, ttft_s=None, output_tokens=None)
    found = adopt([served(0), at_fault], config)
    assert [(one.ending, one.cause) for one in facts(found, Ended)] == [(Ending.OK, ""), (Ending.OK, CLIENT_ERROR)]
    assert observe(found.lines).client_errors == 1


def test_classes_and_rules_are_those_of_the_configuration(config: Config) -> None:
    found = adopt([served(0, headers={"x-tidegate-class": "batch"}, prompt_tokens=6000)], config)
    (request,) = facts(found, Request)
    assert (request.klass, request.slo) == ("batch/long", Slo(e2e_s=60.0))
    assert [(ruling.rule, ruling.to) for ruling in request.rulings] == [("long", ("mini",))]


@pytest.mark.parametrize(
    ("said", "ttft_s", "streamed"), [(None, 0.5, True), (None, None, False), (True, None, True), (False, None, False)]
)
@pytest.mark.parametrize("fields", [{}, {"messages": [{"role": "user", "content": "hello"}]}], ids=["unread", "read"])
def test_an_answer_that_was_seen_to_begin_was_streamed(
    config: Config, said: bool | None, ttft_s: float | None, streamed: bool, fields: dict[str, object]
) -> None:
    (request,) = facts(adopt([served(0, stream=said, ttft_s=ttft_s, fields=fields)], config), Request)
    assert request.stream == streamed


def test_what_was_meant_for_another_gateway_is_passed_over(config: Config) -> None:
    headers = {"x-tidegate-class": "no such class"}
    (request,) = facts(adopt([served(0, headers=headers)], config), Request)
    assert request.klass == "interactive/medium"


def test_prompts_that_begin_alike_do_so_here_and_tokens_are_those_that_were_told(config: Config) -> None:
    system: Record = {"role": "system", "content": "Answer in short. " * 600}
    one, other = [system, {"role": "user", "content": "One?"}], [system, {"role": "user", "content": "Other?"}]
    found = adopt([served(0, fields={"messages": one}), served(1, fields={"messages": other, "max_tokens": 9})], config)
    first, second = facts(found, Request)
    assert first.prefix
    assert first.prefix[0] == second.prefix[0]
    assert first.prompt_tokens == 1000
    assert first.prompt_bytes > 9000
    assert second.output_tokens_max == 9


@pytest.mark.parametrize("messages", ["redacted-by-litellm", [1, 2], [{"role": "user", "content": 7}], {}])
def test_a_prompt_that_nobody_can_read_leaves_its_size(config: Config, messages: object) -> None:
    (request,) = facts(adopt([served(0, fields={"messages": messages})], config), Request)
    assert (request.prompt_tokens, request.prefix) == (1000, ())


def test_a_log_of_nothing_that_is_known_says_what_to_write_down(config: Config) -> None:
    with pytest.raises(
        AdoptError, match=r"2 served by what is no endpoint.*It names other\.example.*--at NAME=ENDPOINT"
    ):
        adopt([served(number, base="other.example", deployment="?") for number in range(2)], config)
    with pytest.raises(AdoptError, match="the log is empty"):
        adopt([], config)
    with pytest.raises(AdoptError, match="1 answered from the gateway's own cache"):
        adopt([Unused.CACHED], config)
