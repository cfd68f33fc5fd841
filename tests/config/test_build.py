"""What a good configuration comes to."""

import copy
import pickle
import ssl
from pathlib import Path

import msgspec
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tidegate.config.address import Address, Url, is_loopback, is_private, parse_url
from tidegate.config.build import Built, build, policy
from tidegate.config.cap import Cap, Period
from tidegate.config.defaults import defaults
from tidegate.config.endpoint import EngineKind
from tidegate.config.load import checked, document, load
from tidegate.config.problem import ConfigError, Problems
from tidegate.config.schema import PolicyTable
from tidegate.config.secret import Secret
from tidegate.core.model import Capability, Endpoint, Fingerprint, Handover, Policy, Price, Slo
from tidegate.engines.kinds import KINDS

EXAMPLES = sorted(Path("examples").glob("*.toml"))
VARIABLES = {"OPENAI_API_KEY": "sk-verysecret", "PARTNER_API_KEY": "p"}
SITES = "[site.home]\nlocal = true\n[site.cloud]\nlocal = false\n"
MINE = '[endpoint.mine]\nsite = "home"\nengine = "llamacpp"\nurl = "http://127.0.0.1:8080"\nserves = ["m"]\n'


NOW_S = 1_790_000_000.0


def built(folder: Path, text: str, variables: dict[str, str] | None = None) -> Built:
    file = folder / "tidegate.toml"
    file.write_text(text)
    return build(load(file, variables or {}), NOW_S)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda f: f.name)
def test_an_example_is_a_good_configuration(file: Path) -> None:
    made = build(load(file, VARIABLES), NOW_S)
    assert [e.name for e in made.endpoints] == sorted(made.upstreams)


@pytest.mark.parametrize(
    ("written", "every_s"),
    [
        ("", 6 * 3600.0),
        ("canary_s = 0", 0.0),
        ("canary_s = 60", 60.0),
        ("price = { usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 4 }", 0.0),
        ("price = { usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 4 }\ncanary_s = 86400", 86400.0),
        ('capabilities = ["chat"]', 0.0),
    ],
)
def test_a_canary_is_usual_where_it_costs_nothing_and_can_be_read(tmp_path: Path, written: str, every_s: float) -> None:
    assert built(tmp_path, SITES + MINE + written).upstreams["mine"].canary_s == every_s


@pytest.mark.parametrize(
    ("written", "warms_up"),
    [
        ("", True),
        ("warm_up = false", False),
        ("price = { usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 4 }", False),
        ("price = { usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 4 }\nwarm_up = true", True),
        ("price = 'free'", True),
        ("price = 'free'\nowned = false", False),
        ("owned = false", False),
        ('capabilities = ["embedding"]', False),
    ],
)
def test_a_model_is_warmed_up_where_that_costs_nobody_anything(tmp_path: Path, written: str, warms_up: bool) -> None:
    (mine,) = (e for e in built(tmp_path, SITES + MINE + written).endpoints if e.name == "mine")
    assert mine.warms_up is warms_up


def test_models_of_one_engine_of_ours_stand_beside_each_other(tmp_path: Path) -> None:
    other = MINE.replace("[endpoint.mine]", "[endpoint.other]").replace('"m"', '"n"')
    found = {e.name: e.beside for e in built(tmp_path, SITES + MINE + other).endpoints}
    assert (found["mine"], found["other"]) == (("other",), ("mine",))


def test_there_are_examples() -> None:
    assert {"laptop.toml", "lab.toml", "company.toml"} <= {file.name for file in EXAMPLES}


def test_the_defaults_are_those_of_the_core() -> None:
    assert policy(PolicyTable()) == Policy()


def test_every_setting_of_the_core_can_be_written() -> None:
    in_seconds = {name.replace("_ms", "_s") for name in PolicyTable.__struct_fields__}
    assert in_seconds == set(Policy.__struct_fields__)


@pytest.mark.parametrize(
    ("written", "state"),
    [
        ("", "learned.sqlite"),
        ("journal = 'data/journal'", "data/learned.sqlite"),
        ("journal = '/var/lib/tidegate/journal'", "/var/lib/tidegate/learned.sqlite"),
        ("journal = ''", None),
        ("state = ''", None),
        ("journal = ''\nstate = 'here'", "here"),
        ("state = '/var/lib/x'", "/var/lib/x"),
    ],
)
def test_what_was_learned_is_kept_beside_the_journal_or_where_it_is_written(
    tmp_path: Path, written: str, state: str | None
) -> None:
    made = built(tmp_path, f"[gateway]\n{written}\n" + SITES + MINE)
    assert made.gateway.state == (None if state is None else tmp_path / state)


def test_the_smallest_configuration_is_a_local_engine(tmp_path: Path) -> None:
    made = built(tmp_path, SITES + MINE)
    (endpoint,) = made.endpoints
    assert endpoint.owned
    assert endpoint.shares_compute
    assert endpoint.price == Price()
    assert endpoint.prior == defaults(EngineKind.LLAMACPP, local=True).prior
    assert made.upstreams["mine"].asks_context
    assert made.gateway.listen == Address("127.0.0.1", 8400)
    assert made.gateway.journal == tmp_path / "journal"
    assert made.gateway.log is None
    assert made.classes["interactive"].slo == Slo(ttft_s=2.0, tpot_s=0.15)
    assert made.classes["batch"].slo == Slo(e2e_s=300.0)


def test_an_empty_journal_is_none_and_an_absolute_path_stays(tmp_path: Path) -> None:
    made = built(tmp_path, "[gateway]\njournal = ''\nlog = '/var/log/x'\n" + SITES + MINE)
    assert made.gateway.journal is None
    assert made.gateway.log == Path("/var/log/x")


def test_a_free_remote_endpoint_costs_nothing(tmp_path: Path) -> None:
    text = SITES + MINE.replace('"home"', '"cloud"') + "price = 'free'\n"
    (endpoint,) = built(tmp_path, text).endpoints
    assert endpoint.price == Price()
    assert not endpoint.owned
    assert endpoint.prior.rtt_s == defaults(EngineKind.OPENAI, local=False).prior.rtt_s


def test_a_prior_is_turned_from_rates_into_times(tmp_path: Path) -> None:
    text = (
        "prior = { prefill_tokens_per_s = 100, prefill_half_speed_tokens = 500, decode_tokens_per_s = 50, "
        "overhead_ms = 30, rtt_ms = 10, upload_mbit_per_s = 8, batch_slowdown = 0.2, sigma = 0.4 }\n"
    )
    prior = built(tmp_path, SITES + MINE + text).endpoints[0].prior
    assert prior.prefill_s_per_token == 0.01
    # After 500 tokens the next one takes twice as long.
    assert prior.prefill_s_per_token + 500 * prior.prefill_s_per_token2 == pytest.approx(0.02)
    assert (prior.decode_s_per_token, prior.overhead_s, prior.rtt_s) == (0.02, 0.03, 0.01)
    assert (prior.upload_bytes_per_s, prior.batch_slowdown, prior.sigma) == (1e6, 0.2, 0.4)


def test_a_load_is_believed_to_take_what_is_written_and_to_be_needed_when_it_is(tmp_path: Path) -> None:
    usual = built(tmp_path, SITES + MINE).endpoints[0].prior
    assert (usual.load_s, usual.unload_after_s) == (None, None)
    prior = built(tmp_path, SITES + MINE + "prior = { load_s = 12, unload_after_s = 60 }\n").endpoints[0].prior
    assert (prior.load_s, prior.unload_after_s) == (12.0, 60.0)
    assert defaults(EngineKind.OLLAMA, local=True).prior.unload_after_s == 300.0


@pytest.mark.parametrize(
    ("engine", "written", "wakes"),
    [
        ("vllm", True, True),
        ("openai", True, True),
        ("openai", False, False),
        ("llamacpp", True, False),
        ("ollama", True, False),
        ("ollama", False, False),
    ],
)
def test_where_a_fleet_scales_to_zero_probes_are_known_to_wake_it(
    tmp_path: Path, engine: str, written: bool, wakes: bool
) -> None:
    text = SITES + MINE.replace('"llamacpp"', f'"{engine}"') + "context_tokens = 8192\n"
    text += "prior = { unload_after_s = 60 }\n" if written else ""
    assert built(tmp_path, text).upstreams["mine"].probes_wake is wakes


def test_a_faster_engine_reaches_half_its_speed_at_the_same_length(tmp_path: Path) -> None:
    usual = defaults(EngineKind.LLAMACPP, local=True).prior
    prior = built(tmp_path, SITES + MINE + "prior = { prefill_tokens_per_s = 2000 }\n").endpoints[0].prior
    half = prior.prefill_s_per_token / prior.prefill_s_per_token2
    assert half == pytest.approx(usual.prefill_s_per_token / usual.prefill_s_per_token2)


def test_a_class_of_ones_own_starts_from_interactive_and_batch_from_its_own(tmp_path: Path) -> None:
    classes = built(tmp_path, SITES + MINE + "[class.x]\nworth_usd = 1\n[class.batch]\nworth_usd = 1\n").classes
    assert classes["x"].slo == classes["interactive"].slo
    assert classes["batch"].slo == Slo(e2e_s=300.0)
    assert classes["batch"].worth_usd_per_1k_tokens == 0.001


def test_what_a_name_demands_stands_at_the_endpoints_that_are_called_identical_to_it(tmp_path: Path) -> None:
    more = """
[endpoint.other]
site = "home"
engine = "llamacpp"
url = "http://127.0.0.1:8081"
fingerprint = { weights = "mine", quantisation = "Q8_0" }
[model.chat]
endpoints = { mine = "identical", other = "same_family" }
fingerprint = { weights = "theirs" }
[model.free]
endpoints = { other = "identical" }
"""
    made = built(tmp_path, SITES + MINE + more)
    mine, other = made.endpoints
    assert mine.demands == {"chat": Fingerprint(weights="theirs")}
    assert other.demands == {}
    assert other.fingerprint == Fingerprint(weights="mine", quantisation="Q8_0")
    assert made.groups["chat"].fingerprint == Fingerprint(weights="theirs")


def test_capabilities_do_not_depend_on_the_order_they_are_written_in(tmp_path: Path) -> None:
    one = built(tmp_path, SITES + MINE + "capabilities = ['tools', 'chat', 'tools']\n").endpoints
    other = built(tmp_path, SITES + MINE + "capabilities = ['chat', 'tools']\n").endpoints
    assert one == other
    assert one[0].capabilities == (Capability.CHAT, Capability.TOOLS)


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_is_shown_to_nobody(tmp_path: Path) -> None:
    made = built(tmp_path, SITES + MINE + "api_key_env = 'KEY'\n", {"KEY": " sk-verysecret\n"})
    key = made.upstreams["mine"].key
    assert key is not None
    assert key.reveal() == "sk-verysecret"
    assert f"{key} {key!r} {made!r}".count("verysecret") == 0
    for encode in (msgspec.json.encode, msgspec.msgpack.encode, pickle.dumps):
        with pytest.raises(TypeError):
            encode(key)
    with pytest.raises(TypeError):
        msgspec.json.encode(made.upstreams["mine"])
    assert copy.deepcopy(key) is key


def test_a_secret_comes_from_a_file_that_only_we_can_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-verysecret\n")
    file.chmod(0o640)
    made = built(tmp_path, SITES + MINE + "api_key_file = 'key'\n")
    assert made.upstreams["mine"].key == Secret("sk-verysecret")


def test_the_environment_is_where_keys_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(SITES + MINE + "api_key_env = 'TIDEGATE_TEST_KEY'\n")
    monkeypatch.setenv("TIDEGATE_TEST_KEY", "k")
    assert load(file).secrets == {"mine": Secret("k")}


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8080", Url(tls=False, host="127.0.0.1", port=8080, path="")),
        ("https://api.example.com/v1/", Url(tls=True, host="api.example.com", port=443, path="")),
        ("https://api.example.com/openai/v1", Url(tls=True, host="api.example.com", port=443, path="/openai")),
        ("https://api.z.ai/api/paas/v4/", Url(tls=True, host="api.z.ai", port=443, path="/api/paas/v4")),
        ("https://api.example.com/v2/v1", Url(tls=True, host="api.example.com", port=443, path="/v2/v1")),
        ("http://[::1]:9/x", Url(tls=False, host="::1", port=9, path="/x")),
        ("HTTP://LocalHost", Url(tls=False, host="localhost", port=80, path="")),
    ],
)
def test_a_url_is_taken_apart(text: str, url: Url) -> None:
    assert parse_url(text) == url
    assert parse_url(str(url)) == url


@pytest.mark.lengthy
@given(st.text(max_size=40) | st.from_regex(r"https?://[a-z0-9@:/?#\[\].%-]{0,30}", fullmatch=True))
def test_whatever_is_given_as_url_is_taken_apart_or_refused(text: str) -> None:
    try:
        url = parse_url(text)
    except ValueError:
        return
    assert url.host
    assert 0 < url.port < 65536
    assert parse_url(str(url)) == url


@pytest.mark.parametrize(
    ("host", "loopback", "private"),
    [
        ("127.0.0.1", True, True),
        ("127.9.9.9", True, True),
        ("::1", True, True),
        ("localhost", True, True),
        ("a.localhost", True, True),
        ("::ffff:127.0.0.1", True, True),
        ("0.0.0.0", False, True),
        ("", False, True),
        ("10.1.2.3", False, True),
        ("100.64.0.1", False, True),
        ("fd00::1", False, True),
        ("vllm", False, True),
        ("gpu.internal", False, True),
        ("vllm.models.svc.cluster.local", False, True),
        ("vllm.models.svc", False, True),
        ("gpu-1", False, True),
        ("8.8.8.8", False, False),
        ("::ffff:8.8.8.8", False, False),
        ("2001:4860:4860::8888", False, False),
        ("api.example.com", False, False),
        ("localhost.example.com", False, False),
        ("internal.example.com.", False, False),
        ("llm.svc.example.com", False, False),
        ("134744072", False, False),
        ("134744072.", False, False),
        ("0X8080808", False, False),
    ],
)
def test_a_host_is_judged_by_where_it_leads(host: str, loopback: bool, private: bool) -> None:
    assert (is_loopback(host), is_private(host)) == (loopback, private)


def test_a_key_may_go_in_the_clear_where_the_network_is_ones_own(tmp_path: Path) -> None:
    text = SITES + MINE.replace("127.0.0.1", "gpu.internal") + "api_key_env = 'KEY'\n"
    assert built(tmp_path, text, {"KEY": "k"}).upstreams["mine"].key == Secret("k")


def test_a_certificate_of_ones_own_is_trusted_beside_the_usual(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    text = SITES + MINE.replace("http://", "https://") + "tls_ca_file = 'ca.pem'\n"
    context = built(tmp_path, text).upstreams["mine"].tls()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert any("trustme" in str(ca) for ca in context.get_ca_certs())
    assert built(tmp_path, SITES + MINE).upstreams["mine"].tls() is None


def test_a_certificate_of_ones_own_needs_no_fields_that_python_asks_for_since_3_13(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ssl.create_default_context

    def strict() -> ssl.SSLContext:
        context = usual()
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    https = SITES + MINE.replace("http://", "https://")
    for text, is_strict in ((https + "tls_ca_file = 'ca.pem'\n", False), (https, True)):
        context = built(tmp_path, text).upstreams["mine"].tls()
        assert context is not None
        assert bool(context.verify_flags & ssl.VERIFY_X509_STRICT) is is_strict


def test_every_engine_that_can_be_written_has_a_dialect_and_defaults() -> None:
    assert {kind.value for kind in EngineKind} == set(KINDS)
    for kind in EngineKind:
        assert defaults(kind, local=True).reasons
        assert defaults(kind, local=False).prior.rtt_s > 0.01


# --- the budget -------------------------------------------------------------------------------------------------------


def test_a_budget_becomes_caps_for_all_clients_together(tmp_path: Path) -> None:
    text = SITES + MINE + "[budget]\nusd_per_day = 5\nusd_per_month = 60\n"
    assert built(tmp_path, text).caps == (Cap(usd=5.0, period=Period.DAY), Cap(usd=60.0, period=Period.MONTH))


def test_without_a_budget_there_is_no_cap(tmp_path: Path) -> None:
    assert built(tmp_path, SITES + MINE).caps == ()


@pytest.mark.parametrize("table", ["usd_per_day = 5\nusd_per_month = 4", "usd_per_day = 0", "usd_per_week = 3"])
def test_a_budget_that_cannot_be_meant_is_refused(tmp_path: Path, table: str) -> None:
    with pytest.raises(ConfigError) as error:
        built(tmp_path, SITES + MINE + "[budget]\n" + table + "\n")
    assert [problem.path.split(".")[0] for problem in error.value.problems] == ["budget"]


THEIRS = (
    '[endpoint.rack]\nsite = "cloud"\nengine = "vllm"\nurl = "http://127.0.0.1:8000"\nserves = ["m"]\nprice = "free"\n'
)
TO_MINE = '[[endpoint.rack.handover]]\nto = "mine"\n'
SIZES = "kv_kib_per_token = 20\nkv_mib_fixed = 3\nmbit_per_s = 80\nusd_per_gb = 2\nlayers = 4\n"


def rack_of(text: str) -> Endpoint:
    """The rack of a configuration of which nobody is going to be reached."""
    problems = Problems("t.toml")
    config = checked(document(text, "t.toml"), Path("t.toml"), problems, None)
    assert config is not None, problems.found
    (rack,) = [e for e in build(config, NOW_S).endpoints if e.name == "rack"]
    return rack


def test_a_handover_is_known_in_bytes() -> None:
    rack = rack_of(SITES + MINE + THEIRS + TO_MINE + SIZES)
    assert rack.handovers == (
        Handover(
            target="mine",
            kv_bytes_per_token=20 * 1024.0,
            kv_bytes_fixed=3 * 1024.0 * 1024.0,
            bytes_per_s=1e7,
            usd_per_byte=2e-9,
            layers=4,
            whole=False,
        ),
    )


def test_the_size_of_a_kv_cache_follows_from_the_model() -> None:
    hardware = 'hardware = { accelerator = "l4" }\nmodel_facts = "llama-3.1-8b"\n'
    text = SITES + MINE + hardware + THEIRS.replace("vllm", "llamacpp") + TO_MINE
    (handover,) = rack_of(text).handovers
    assert handover.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2, "keys and values of 32 layers with 8 heads of 128"
    assert handover.whole, "llama.cpp saves a slot as it is"
