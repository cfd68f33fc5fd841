"""What is promised of the whole of an answer: it is kept as often as it says, however badly lengths are known."""

from random import Random

import pytest

from tests import make
from tidegate.core.endpoint import EndpointModel
from tidegate.core.model import Ending, Fingerprint, Probed, Request, Slo
from tidegate.core.output import OUTPUT_ROWS, Length
from tidegate.core.value import attainment

QUANTILE = 0.9
# As believed: one in ten is half as long again, or more.
CHAT = Length(expected_tokens=105.0, high_tokens=170.0, median_tokens=100.0, sigma=0.3)
WORD = Length(expected_tokens=10.5, high_tokens=17.0, median_tokens=10.0, sigma=0.3)


class Served:
    """An engine of ours that serves one request at a time, at the pace that was declared."""

    def __init__(self) -> None:
        self.model = EndpointModel(make.endpoint("laptop"), QUANTILE)
        self.now_s = 0.0
        self._count = 0

    def send(self, length: Length) -> Request:
        """One more, under way."""
        self._count += 1
        request = make.request(f"r{self._count}", prompt_tokens=200, prompt_bytes=0)
        self.model.started(make.started(request, "laptop"), self.model.base(request, length, self.now_s), self.now_s)
        return request

    def serve(self, length: Length, tokens: float) -> bool:
        """One more, with so many tokens of output; whether it took no longer than was promised."""
        request = self.send(length)
        bound_s = self.model.state.reservations[request.id].e2e_s_high
        e2e_s = 0.25 + 0.02 * (tokens - 1.0)
        self.model.first(request.id, self.now_s + 0.25)
        self.now_s += e2e_s
        ended = make.ended(request.id, "laptop", ttft_s=0.25, e2e_s=e2e_s, output_tokens=round(tokens))
        self.model.ended(ended, self.now_s)
        self.now_s += 1.0
        return e2e_s <= bound_s

    def stretch(self, length: Length) -> float:
        """By how much more than believed the whole scatters, as far as answers have shown."""
        return self.model.base(make.request(), length, self.now_s).e2e_stretch


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.8])
def test_the_whole_is_in_time_as_often_as_promised_however_far_lengths_scatter(sigma: float) -> None:
    served, draw = Served(), Random(3)
    kept = [served.serve(CHAT, 100.0 * draw.lognormvariate(0.0, sigma)) for _ in range(600)]
    assert sum(kept[100:]) / 500 == pytest.approx(QUANTILE, abs=0.02)


def test_what_pages_show_is_not_held_against_words() -> None:
    served, draw = Served(), Random(4)
    for _ in range(200):
        served.serve(CHAT, 100.0 * draw.lognormvariate(0.0, 1.0))
        served.serve(WORD, 10.0 * draw.lognormvariate(0.0, 0.3))
    assert served.stretch(CHAT) > 2.0
    assert served.stretch(WORD) < 1.5


def test_a_promise_that_was_seldom_kept_is_believed_less() -> None:
    served, draw = Served(), Random(5)
    asked = make.request(slo=Slo(e2e_s=4.0))
    before = attainment(asked, served.model.base(asked, CHAT, served.now_s), 0.0)
    for _ in range(100):
        served.serve(CHAT, 100.0 * draw.lognormvariate(0.0, 1.0))
    assert attainment(asked, served.model.base(asked, CHAT, served.now_s), 0.0) < before - 0.1


@pytest.mark.parametrize("ending", [Ending.CANCELLED, Ending.TIMED_OUT])
def test_who_leaves_before_it_is_late_tells_nothing_and_afterwards_that_it_was(ending: Ending) -> None:
    served = Served()
    for _ in range(5):
        served.serve(CHAT, 100.0)
    known = served.stretch(CHAT)
    for share, moves in ((0.9, False), (1.1, True)):
        request = served.send(CHAT)
        waited_s = share * served.model.state.reservations[request.id].e2e_s_high
        served.model.first(request.id, served.now_s + 0.25)
        served.now_s += waited_s
        served.model.ended(make.ended(request.id, "laptop", ending=ending, ttft_s=0.25, e2e_s=waited_s), served.now_s)
        assert (served.stretch(CHAT) > known) is moves


def test_what_was_believed_of_another_model_is_forgotten() -> None:
    served, draw = Served(), Random(6)
    served.model.probed(Probed(endpoint="laptop", up=True, fingerprint=Fingerprint(weights="one")), served.now_s)
    for _ in range(50):
        served.serve(CHAT, 100.0 * draw.lognormvariate(0.0, 1.0))
    assert served.stretch(CHAT) > 1.2
    served.model.probed(Probed(endpoint="laptop", up=True, fingerprint=Fingerprint(weights="two")), served.now_s)
    assert served.stretch(CHAT) == 1.0
    assert len(served.model.state.e2e) == 1 + OUTPUT_ROWS
