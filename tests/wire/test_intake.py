import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.condition import Comparison, Scalar
from tidegate.core.model import ANYWHERE, LOCAL, Capability, ModelGroup, Request, RequestClass, Ruling, Slo, replace
from tidegate.core.ruling import Rule
from tidegate.wire.digest import prefix_digests, session_digest
from tidegate.wire.errors import BadRequest
from tidegate.wire.intake import MEDIA_TOKENS, ClassTable, client_request_id, intake
from tidegate.wire.knobs import DryRun, Knobs
from tidegate.wire.openai import Call, parse
from tidegate.wire.tokens import TokenRatio

SALT = b"0123456789abcdef"
INTERACTIVE = RequestClass(
    name="interactive",
    slo=Slo(ttft_s=2.0, e2e_s=60.0),
    worth_usd=0.01,
    worth_usd_per_1k_tokens=0.002,
    late_usd_per_s=0.001,
)
PRIVATE = RequestClass(name="private", residency=(LOCAL, "eu"))
TABLE = ClassTable(classes={"interactive": INTERACTIVE, "private": PRIVATE}, default="interactive")


def call(content: Any = "hi", **fields: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
    return parse(json.dumps(body).encode(), Capability.CHAT)


def taken(
    headers: dict[str, str] | None = None,
    asked: Call | None = None,
    residency: tuple[str, ...] = (ANYWHERE,),
    table: ClassTable = TABLE,
    key: str = "",
    salt: bytes = SALT,
    group: ModelGroup | None = None,
) -> tuple[Request, Knobs]:
    return intake(
        asked or call(),
        {name.encode(): value.encode("latin-1") for name, value in (headers or {}).items()},
        id="r1",
        now_s=5.0,
        table=table,
        ratio=TokenRatio(),
        salt=salt,
        group=group,
        residency=residency,
        key=key,
    )


def test_a_request_goes_by_the_id_of_its_key() -> None:
    assert taken(key="alice-1")[0].key == "alice-1"


@pytest.mark.parametrize(
    ("told", "retry"), [("0", 0), ("2", 2), ("99", 99), ("100", 0), ("-1", 0), ("", 0), ("two", 0), ("\xb2", 0)]
)
def test_an_sdk_says_how_often_it_has_tried_and_what_cannot_be_read_says_nothing(told: str, retry: int) -> None:
    assert taken({"x-stainless-retry-count": told})[0].retry == retry
    assert taken()[0].retry == 0


def test_a_class_that_is_for_others_is_refused_like_one_that_does_not_exist_with_those_there_are() -> None:
    table = ClassTable(classes={"private": PRIVATE}, default="private", partial=True)
    assert taken(table=table)[0].klass == "private/short"
    said = set()
    for name in ("interactive", "none"):
        with pytest.raises(BadRequest, match="may ask for private") as caught:
            taken({"x-tidegate-class": name}, table=table)
        assert (caught.value.status, caught.value.code) == (403, "class_not_allowed")
        said.add(caught.value.message)
    assert len(said) == 1


@pytest.mark.parametrize("residency", [("us",), ("home", "us")])
def test_a_key_that_may_go_nowhere_where_its_class_may_is_told_both(residency: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest, match=f"{', '.join(residency)}.*local, eu") as caught:
        taken({"x-tidegate-class": "private"}, residency=residency)
    assert (caught.value.status, caught.value.code) == (403, "residency_not_allowed")


def test_a_request_without_headers_is_of_the_default_class() -> None:
    request, knobs = taken()
    assert request.klass == "interactive/short"
    assert (request.id, request.arrived_s, request.model) == ("r1", 5.0, "m")
    assert request.slo == INTERACTIVE.slo
    assert (request.worth_usd, request.worth_usd_per_1k_tokens, request.late_usd_per_s) == (0.01, 0.002, 0.001)
    assert request.residency == (ANYWHERE,)
    assert request.failover
    assert knobs == Knobs()


def test_what_the_client_asked_for_is_taken_over() -> None:
    asked = call(n=3, max_tokens=50, tools=[{"type": "function"}])
    request, _ = taken(asked=asked)
    assert (request.completions, request.output_tokens_max) == (3, 50)
    assert request.needs == (Capability.CHAT, Capability.TOOLS)
    assert request.prompt_bytes == len(asked.prompt) + len(asked.tools)


def test_every_header_has_its_effect() -> None:
    request, knobs = taken(
        {
            "x-tidegate-class": "private",
            "x-tidegate-slo-ttft-ms": "500",
            "x-tidegate-slo-tpot-ms": "12.5",
            "x-tidegate-slo-e2e-ms": "3e4",
            "x-tidegate-max-cost-usd": "0.05",
            "x-tidegate-residency": "eu",
            "x-tidegate-session": "s-1",
            "x-tidegate-session-moves": "true",
            "x-tidegate-dry-run": "true",
            "x-tidegate-no-fallback": "1",
        }
    )
    assert request.klass == "private/short"
    assert request.slo == Slo(ttft_s=0.5, tpot_s=0.0125, e2e_s=30.0)
    assert (request.cost_usd_max, request.residency) == (0.05, ("eu",))
    assert (request.session, request.session_moves) == (session_digest("s-1", SALT, "", "m"), True)
    assert not request.failover
    assert knobs.dry_run is DryRun.YES


def test_the_body_has_the_same_settings_and_headers_go_before_it() -> None:
    settings = {
        "class": "private",
        "slo_ttft_ms": 500,
        "max_cost_usd": 1e-05,
        "residency": ["local", "eu"],
        "dry_run": True,
        "no_fallback": False,
        "session": None,
    }
    request, knobs = taken({"x-tidegate-slo-ttft-ms": "700"}, call(tidegate=settings))
    assert request.klass == "private/short"
    assert request.slo == Slo(ttft_s=0.7)
    assert (request.cost_usd_max, set(request.residency), request.session) == (1e-05, {"local", "eu"}, "")
    assert knobs.dry_run is DryRun.YES
    assert request.failover


def test_a_limit_of_its_own_leaves_the_other_limits_of_the_class() -> None:
    request, _ = taken({"x-tidegate-slo-ttft-ms": "500"})
    assert request.slo == Slo(ttft_s=0.5, e2e_s=60.0)


def test_the_headers_of_others_are_understood_and_ours_go_first() -> None:
    foreign = {"x-session-id": "theirs", "x-llm-d-slo-ttft-ms": "900"}
    request, _ = taken(foreign)
    assert (request.session, request.slo.ttft_s) == (session_digest("theirs", SALT, "", "m"), 0.9)
    request, _ = taken({**foreign, "x-tidegate-session": "ours", "x-tidegate-slo-ttft-ms": "100"})
    assert (request.session, request.slo.ttft_s) == (session_digest("ours", SALT, "", "m"), 0.1)


def test_a_conversation_is_one_of_a_key_and_a_model_and_its_name_stays_with_the_client() -> None:
    def session(**more: Any) -> str:
        request, _ = taken({"x-tidegate-session": "my-diary"}, **more)
        assert "diary" not in repr(request)
        return request.session

    alias = ModelGroup(name="one", aliases=("m",))
    told = {session(), session(key="k1"), session(key="k2"), session(group=alias), session(salt=b"1" * 16)}
    assert len(told) == 5
    assert session() == session()
    assert session(group=alias) == session(group=alias, asked=call(model="other"))


def test_a_class_may_let_conversations_move_and_a_request_says_otherwise() -> None:
    table = ClassTable(classes={"loose": RequestClass(name="loose", session_moves=True)}, default="loose")
    assert taken({}, table=table)[0].session_moves is True
    assert taken({"x-tidegate-session-moves": "false"}, table=table)[0].session_moves is False
    assert taken()[0].session_moves is False


@pytest.mark.parametrize(
    ("header", "value", "accepted"),
    [
        ("x-tidegate-class", "nope", "interactive, private"),
        ("x-tidegate-class", "", "the name of a class"),
        ("x-tidegate-slo-ttft-ms", "fast", "a number of milliseconds"),
        ("x-tidegate-slo-ttft-ms", "0", "a number of milliseconds"),
        ("x-tidegate-slo-ttft-ms", "-5", "a number of milliseconds"),
        ("x-tidegate-slo-tpot-ms", "1e-322", "a number of milliseconds"),
        ("x-tidegate-slo-ttft-ms", "nan", "a number of milliseconds"),
        ("x-tidegate-slo-tpot-ms", "inf", "a number of milliseconds"),
        ("x-tidegate-slo-e2e-ms", "1e999", "a number of milliseconds"),
        ("x-tidegate-slo-e2e-ms", "86400001", "a number of milliseconds"),
        ("x-tidegate-slo-e2e-ms", "1_000", "a number of milliseconds"),
        ("x-llm-d-slo-ttft-ms", "soon", "a number of milliseconds"),
        ("x-tidegate-max-cost-usd", "-1", "a number of US dollars"),
        ("x-tidegate-max-cost-usd", "$1", "a number of US dollars"),
        ("x-tidegate-residency", "", "anywhere, local, or names of sites"),
        ("x-tidegate-residency", "eu,,us", "anywhere, local, or names of sites"),
        ("x-tidegate-residency", "e u", "anywhere, local, or names of sites"),
        ("x-tidegate-session", "a b", "printable ASCII"),
        ("x-tidegate-session", "x" * 257, "printable ASCII"),
        ("x-session-id", "ü", "printable ASCII"),
        ("x-tidegate-dry-run", "maybe", "true, false, or flips"),
        ("x-tidegate-no-fallback", "", "true or false"),
    ],
)
def test_a_bad_setting_is_refused_with_its_name_and_what_is_accepted(header: str, value: str, accepted: str) -> None:
    with pytest.raises(BadRequest) as caught:
        taken({header: value})
    assert f"`{header}`" in caught.value.message
    assert accepted in caught.value.message
    assert caught.value.status == 400


def test_a_slip_in_the_name_of_a_setting_is_refused_rather_than_overlooked() -> None:
    with pytest.raises(BadRequest, match="x-tidegate-residency"):
        taken({"x-tidegate-residencey": "local"})
    with pytest.raises(BadRequest, match="residency"):
        taken(asked=call(tidegate={"residencey": "local"}))


@pytest.mark.parametrize("settings", [7, "local", [1], {"class": {"a": 1}}, {"residency": [1]}, {"slo_ttft_ms": "x"}])
def test_bad_settings_in_the_body_are_refused(settings: object) -> None:
    with pytest.raises(BadRequest) as caught:
        taken(asked=call(tidegate=settings))
    assert caught.value.param == "tidegate"


@pytest.mark.parametrize(
    ("allowed", "asked", "found"),
    [
        (("anywhere",), "local", ("local",)),
        (("anywhere",), "us,eu", ("eu", "us")),
        (("local",), "anywhere", ("local",)),
        (("local",), "local,us", ("local",)),
        (("eu", "us"), "us", ("us",)),
        (("eu", "us"), "anywhere,us", ("eu", "us")),
    ],
)
def test_a_request_may_tighten_where_its_data_goes(
    allowed: tuple[str, ...], asked: str, found: tuple[str, ...]
) -> None:
    request, _ = taken({"x-tidegate-residency": asked}, residency=allowed)
    assert request.residency == found


@pytest.mark.parametrize(("allowed", "asked"), [(("local",), "us"), (("eu",), "local"), (("eu", "us"), "mars")])
def test_a_request_may_not_widen_where_its_data_goes(allowed: tuple[str, ...], asked: str) -> None:
    with pytest.raises(BadRequest, match="within"):
        taken({"x-tidegate-residency": asked}, residency=allowed)


def test_what_a_key_may_and_what_a_class_may_have_to_agree() -> None:
    request, _ = taken({"x-tidegate-class": "private"}, residency=("local", "us"))
    assert request.residency == ("local",)
    with pytest.raises(BadRequest):
        taken({"x-tidegate-class": "private"}, residency=("us",))


_sites = st.sets(st.sampled_from(["anywhere", "local", "eu", "us"]), min_size=1)


@given(_sites, _sites)
def test_a_request_never_goes_where_it_was_not_allowed(allowed: set[str], asked: set[str]) -> None:
    try:
        request, _ = taken({"x-tidegate-residency": ",".join(asked)}, residency=tuple(allowed))
    except BadRequest:
        return
    assert "anywhere" in allowed or set(request.residency) <= allowed
    assert "anywhere" in asked or set(request.residency) <= asked


def test_the_class_tells_the_length_and_tokens_are_estimated_from_text() -> None:
    request, _ = taken(asked=call("x" * 8000))
    assert request.klass == "interactive/medium"
    assert request.prompt_tokens == pytest.approx(2000, rel=0.02)


def test_tokens_that_the_client_counted_are_not_estimated() -> None:
    asked = parse(json.dumps({"model": "m", "prompt": [1] * 5000}).encode(), Capability.COMPLETION)
    request, _ = taken(asked=asked)
    assert request.prompt_tokens == 5000
    assert request.klass == "interactive/long"


def test_an_image_is_no_novel() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2_000_000}}
    request, _ = taken(asked=call([image]))
    assert MEDIA_TOKENS <= request.prompt_tokens < MEDIA_TOKENS + 100
    assert request.prompt_bytes > 2_000_000


def test_the_prompt_is_digested_behind_its_tools() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = call("x" * 8000, tools=tools)
    request, _ = taken(asked=asked)
    assert request.prefix == prefix_digests(asked.prompt, SALT, asked.tools)
    assert len(request.prefix) == 7
    assert request.prefix[0] != taken(asked=call("x" * 8000))[0].prefix[0]


@pytest.mark.parametrize("given_id", ["abc", "A-b_c.9", "x" * 128])
def test_a_clients_id_is_echoed(given_id: str) -> None:
    assert client_request_id({b"x-request-id": given_id.encode()}) == given_id


@pytest.mark.parametrize("given_id", [b"", b"a b", b"x" * 129, b"a\n", b"\xc3\xa9"])
def test_an_id_unfit_for_logs_is_not_echoed(given_id: bytes) -> None:
    assert client_request_id({b"x-request-id": given_id}) is None
    assert client_request_id({}) is None


_texts = st.text(max_size=20)


@given(st.dictionaries(st.sampled_from(sorted({"x-tidegate-class", "x-tidegate-residency", "x-session-id"})), _texts))
def test_no_header_whatever_raises_anything_but_a_bad_request(headers: dict[str, str]) -> None:
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    with contextlib.suppress(BadRequest):
        intake(call(), encoded, id="r", now_s=0.0, table=TABLE, ratio=TokenRatio(), salt=SALT)


def test_the_core_gets_no_prompt() -> None:
    request, _ = taken(asked=call("XYZZYMARKER " * 500))
    assert "XYZZY" not in repr(request)


BATCH = RequestClass(name="batch", slo=Slo(e2e_s=300.0))
GIVES_BATCH = Rule(when=Comparison(feature="prompt_tokens", op=">", value=100), says=Ruling(rule="long", klass="batch"))
GIVES_PRIVATE = Rule(
    when=Comparison(feature="prompt_tokens", op=">", value=100), says=Ruling(rule="hide", klass="private")
)
BATCH_GOES = Rule(when=Comparison(feature="class", op="==", value="batch"), says=Ruling(rule="away", to=("cloud",)))
RULED = ClassTable(
    classes={"batch": BATCH, **TABLE.classes}, default="interactive", rules=(GIVES_BATCH, GIVES_PRIVATE, BATCH_GOES)
)
LONG = "word " * 1000


@pytest.mark.parametrize(
    ("headers", "content", "table", "klass", "rules"),
    [
        # What the client says goes before every rule.
        ({"x-tidegate-class": "private"}, LONG, RULED, "private", ()),
        ({"x-tidegate-class": "batch"}, "hi", RULED, "batch", ("away",)),
        # Then the first rule that holds, and only then the key's default and the gateway's.
        ({}, LONG, RULED, "batch", ("long", "away")),
        ({}, LONG, replace(RULED, default="private"), "batch", ("long", "away")),
        ({}, "hi", replace(RULED, default="private"), "private", ()),
        ({}, "hi", RULED, "interactive", ()),
        # A class that is not for this key is given by no rule: the next one counts, or its default.
        ({}, LONG, replace(RULED, classes=TABLE.classes, partial=True), "private", ("hide",)),
        ({}, LONG, replace(RULED, classes={"interactive": INTERACTIVE}, partial=True), "interactive", ()),
    ],
)
def test_header_rule_key_and_gateway_give_the_class_in_this_order(
    headers: dict[str, str], content: str, table: ClassTable, klass: str, rules: tuple[str, ...]
) -> None:
    request, _ = taken(headers, call(content), table=table)
    assert request.klass.partition("/")[0] == klass
    assert tuple(one.rule for one in request.rulings) == rules
    assert request.slo == table.classes[klass].slo


def test_rules_see_what_is_asked_and_nothing_of_the_prompt() -> None:
    asked: dict[str, Scalar] = {
        "model": "large",
        "prompt_tokens": taken(asked=call("secret"))[0].prompt_tokens,
        "output_tokens_max": 7,
        "completions": 2,
        "session": True,
        "stream": True,
        "key": "alice-1",
        "class": "interactive",
    }
    rules = [
        Rule(when=Comparison(feature=f, op="==", value=v), says=Ruling(rule=f, to=("e",))) for f, v in asked.items()
    ]
    rules += [
        Rule(when=Comparison(feature="needs", op="has", value="chat"), says=Ruling(rule="needs", to=("e",))),
        *(
            Rule(when=Comparison(feature=f, op="==", value="secret"), says=Ruling(rule="prompt", to=("e",)))
            for f in ("prompt", "messages", "content")
        ),
    ]
    request, _ = taken(
        {"x-tidegate-session": "s"},
        call("secret", max_tokens=7, n=2, stream=True),
        table=replace(TABLE, rules=tuple(rules)),
        key="alice-1",
        group=ModelGroup(name="large", aliases=("m",)),
    )
    assert [one.rule for one in request.rulings] == [*asked, "needs"]


@given(st.text(max_size=200))
def test_rules_that_never_hold_change_nothing(content: str) -> None:
    never = tuple(
        Rule(when=Comparison(feature="completions", op=">", value=128), says=says)
        for says in (
            Ruling(rule="a", klass="private"),
            Ruling(rule="b", to=("e",)),
            Ruling(rule="c", to=(), break_usd=1.0),
        )
    )
    assert taken(asked=call(content), table=replace(TABLE, rules=never)) == taken(asked=call(content))


def test_a_rule_gives_no_class_whose_data_may_go_nowhere_with_this_key() -> None:
    with pytest.raises(BadRequest, match="class private") as caught:
        taken({}, call(LONG), residency=("us",), table=replace(RULED, rules=(GIVES_PRIVATE,)))
    assert caught.value.status == 403
