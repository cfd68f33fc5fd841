"""What of ours is on its way already: the next request waits for it, and a link that we fill does not look slow."""

import pytest

from tests import make
from tidegate.core.endpoint import EndpointModel
from tidegate.core.length import LengthModel
from tidegate.core.model import Ending, Endpoint, FirstToken, Uploaded, replace
from tidegate.core.network import LOOK_S, RATE_LOOK_BYTES, UPLOAD_BYTES_MIN
from tidegate.core.router import Router

QUANTILE = 0.9
LENGTHS = LengthModel()
BYTES, RATE = 100_000, 1e5


def far(rate: float = RATE) -> Endpoint:
    return make.endpoint("cloud", local=False, prior=replace(make.REMOTE_PRIOR, upload_bytes_per_s=rate))


def cloud(rate: float = RATE) -> EndpointModel:
    return EndpointModel(far(rate), QUANTILE)


def send(model: EndpointModel, request_id: str, now_s: float = 0.0) -> float:
    """How long it is predicted to be under way."""
    request = make.request(request_id, prompt_bytes=BYTES)
    base = model.base(request, LENGTHS.of(request), now_s)
    model.started(make.started(request, "cloud"), base, now_s)
    return base.network_s


def arrives(model: EndpointModel, request_id: str, seconds: float, now_s: float) -> None:
    model.uploaded(Uploaded(request_id=request_id, endpoint="cloud", upload_bytes=BYTES, seconds=seconds), now_s)


def test_a_request_is_predicted_to_wait_for_the_bytes_before_it() -> None:
    model = cloud()
    alone_s, second_s, third_s = send(model, "a"), send(model, "b"), send(model, "c")
    assert second_s == pytest.approx(alone_s + 1.0)
    assert third_s == pytest.approx(alone_s + 2.0)


def test_it_waits_for_what_is_left_of_them() -> None:
    model = cloud()
    alone_s = send(model, "a")
    assert send(model, "b", now_s=0.25) == pytest.approx(alone_s + 0.75)


def test_nobody_waits_for_what_is_there() -> None:
    model = cloud()
    send(model, "a")
    send(model, "b")
    arrives(model, "a", 0.25, now_s=0.3)
    arrives(model, "b", 0.5, now_s=0.6)
    assert send(model, "c", now_s=0.6) == pytest.approx(model.network.seconds(BYTES))


def test_a_link_that_we_fill_is_as_fast_as_it_is() -> None:
    model = cloud()
    for request_id in "abc":
        send(model, request_id)
    for seconds, request_id in enumerate("abc", start=1):
        arrives(model, request_id, float(seconds), now_s=float(seconds))
    assert [sample.value for sample in model.state.network.uploads] == pytest.approx([RATE] * 3)


def test_a_link_that_idled_meanwhile_is_no_slower_for_it() -> None:
    model = cloud()
    send(model, "a")
    send(model, "b", now_s=0.9)
    arrives(model, "b", 0.01, now_s=0.91)
    assert model.state.network.uploads[-1].value >= BYTES / 0.01


def look(model: EndpointModel, seconds: float, now_s: float) -> None:
    """The rate is looked for by bytes that serve nothing."""
    fact = Uploaded(request_id="", endpoint="cloud", upload_bytes=RATE_LOOK_BYTES, seconds=seconds)
    model.uploaded(fact, now_s)


def slow() -> EndpointModel:
    """The way to a cloud that was found to be a tenth as quick as it was declared, and may be quick again."""
    model = cloud(10.0 * RATE)
    for number in range(2):
        model.network.learn_upload(BYTES, BYTES / RATE, 0.1 * number)
    assert model.network.upload_bytes_per_s == RATE
    return model


def test_a_rate_is_not_looked_for_beside_a_request_of_which_it_will_be_known_how_long_it_took() -> None:
    model = slow()
    assert model.doubts_rate(1e3)
    send(model, "a", now_s=1e3)
    assert not model.doubts_rate(1e3 + 5.0), "though by now it is believed to be there"
    arrives(model, "a", 20.0, now_s=1e3 + 20.0)
    assert model.doubts_rate(1e3 + 20.0 + LOOK_S)


def test_a_rate_is_looked_for_beside_requests_that_are_too_short_to_tell_it() -> None:
    model = slow()
    request = make.request("a", prompt_bytes=400)
    model.started(make.started(request, "cloud"), model.base(request, LENGTHS.of(request), 1e3), 1e3)
    assert model.doubts_rate(1e3)


@pytest.mark.parametrize("seconds", [0.001, 1.0])
def test_what_is_looked_for_beside_a_request_tells_nothing(seconds: float) -> None:
    model = slow()
    send(model, "a", now_s=1e3)
    look(model, seconds, now_s=1e3 + 0.5)
    look(model, seconds, now_s=1e3 + 0.6)
    arrives(model, "a", 1.0, now_s=1e3 + 1.1)
    look(model, 0.2, now_s=1e3 + 1.2)
    assert [sample.value for sample in model.state.network.uploads] == pytest.approx([RATE] * 3)


@pytest.mark.parametrize("seconds", [0.02, 1.0])
def test_what_is_looked_for_alone_tells_how_quick_the_link_is(seconds: float) -> None:
    model = slow()
    look(model, seconds, now_s=1e3)
    assert model.network.rate_unsettled
    look(model, seconds, now_s=1e3 + seconds + LOOK_S)
    assert model.network.upload_bytes_per_s == pytest.approx(RATE_LOOK_BYTES / seconds)


def test_uploads_of_nearly_any_size_are_timed_once_answers_are_late() -> None:
    router = Router((far(1e9),), make.policy())
    usual = router.telling_bytes("cloud")
    assert usual > UPLOAD_BYTES_MIN
    router.observe(make.started(make.request("a"), "cloud"), 0.0)
    router.observe(FirstToken(request_id="a", endpoint="cloud", ttft_s=500.0), 500.0)
    assert router.telling_bytes("cloud") == UPLOAD_BYTES_MIN
    router.observe(make.ended("a", "cloud", e2e_s=501.0, ttft_s=500.0), 501.0)
    router.observe(make.started(make.request("b"), "cloud"), 502.0)
    router.observe(FirstToken(request_id="b", endpoint="cloud", ttft_s=0.3), 502.3)
    assert router.telling_bytes("cloud") == usual


def test_nothing_is_timed_on_the_way_to_an_endpoint_that_is_gone() -> None:
    assert Router((make.endpoint("laptop"),), make.policy()).telling_bytes("cloud") == float("inf")


def test_over_a_slow_link_a_promise_is_no_wider_than_the_engine_makes_it() -> None:
    model, near = cloud(), cloud(1e9)
    request = make.request("a", prompt_bytes=40 * BYTES)
    for one in (model, near):
        for number in range(8):
            one.network.learn_upload(BYTES, BYTES / one.network.upload_bytes_per_s, 0.1 * number)
    far_base, near_base = (one.base(request, LENGTHS.of(request), 1.0) for one in (model, near))
    assert far_base.network_s > 30.0 * near_base.first_s
    assert far_base.first_s_high / far_base.first_s < near_base.first_s_high / near_base.first_s


def test_what_was_cancelled_holds_up_nobody_once_nothing_is_under_way() -> None:
    model = cloud()
    alone_s = send(model, "a")
    model.ended(make.ended("a", "cloud", ending=Ending.CANCELLED, e2e_s=0.1), 0.1)
    assert send(model, "b", now_s=0.1) == pytest.approx(alone_s)
