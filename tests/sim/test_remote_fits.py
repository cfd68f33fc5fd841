"""What is shipped about APIs and networks, before the data it is fitted to."""

import math
import os
import subprocess
import sys

import pytest
from bench import fit_api, fit_network
from bench.fit_network import quantiles

from tests import make
from tidegate.sim.api import PRESETS as APIS
from tidegate.sim.api import Api
from tidegate.sim.chance import Chance
from tidegate.sim.job import Job
from tidegate.sim.network import PRESETS as LINKS
from tidegate.sim.network import Changing, Link, Regimes

needs_data = pytest.mark.skipif(
    "TIDEGATE_DATA" not in os.environ, reason="TIDEGATE_DATA does not name the folder of public traces"
)
NOON_S = 11 * 3600.0  # where `load` of the long-context API is 1
DAY_S = 86_400.0
PROVIDERS = ("anyscale", "bedrock", "fireworks", "groq", "lepton", "perplexity", "replicate", "together")


def factors(regimes: Regimes, seed: int, count: int = 20_000) -> list[float]:
    changing = Changing(regimes, seed)
    return [changing.at(2.0 * regimes.hold_s * index)[0] for index in range(count)]


def quarters(values: list[float]) -> list[float]:
    return quantiles(values, (0.05, 0.25, 0.5, 0.75, 0.9, 0.95))


@needs_data
@pytest.mark.parametrize("preset", ["metro", "continent", "ocean"])
def test_rates_between_clouds_change_as_they_did_in_five_days(preset: str) -> None:
    seen = quantiles(fit_network.rate_ratios())
    assert quantiles(factors(LINKS[preset].rate_regimes, 1)) == pytest.approx(seen, rel=0.05)


@needs_data
def test_round_trips_differ_as_they_did_from_both_ends_of_a_pair() -> None:
    regimes = LINKS["ocean"].rtt_regimes
    both = zip(factors(regimes, 1), factors(regimes, 2), strict=True)
    ratios = [max(pair) / min(pair) for pair in both]
    shares = (0.25, 0.5, 0.75, 0.9, 0.95)
    assert quantiles(ratios, shares) == pytest.approx(quantiles(fit_network.rtt_ratios(), shares), rel=0.1)


@needs_data
def test_home_connections_have_the_shape_of_broadband() -> None:
    seen = quantiles(fit_network.broadband_shape())
    assert quantiles(factors(LINKS["home-broadband"].rate_regimes, 1)) == pytest.approx(seen, rel=0.1)


@needs_data
@pytest.mark.parametrize("preset", ["metro", "continent", "ocean"])
def test_round_trips_and_rates_of_a_distance_are_its_medians(preset: str) -> None:
    rtt_s, jitter, bytes_per_s = fit_network.distance(preset)
    profile = LINKS[preset]
    assert profile.rtt_s == pytest.approx(rtt_s, rel=0.02)
    assert profile.jitter == pytest.approx(jitter, rel=0.05)
    assert profile.upload_bytes_per_s == pytest.approx(bytes_per_s, rel=0.01)
    if profile.loss:
        assert profile.flow_bytes_per_s == pytest.approx(bytes_per_s / 64, rel=0.05)


def asked(index: int, prompt_tokens: int, cached_tokens: int = 0) -> Job:
    blocks = tuple(range(1000 * index, 1000 * index + cached_tokens // 512))
    request = make.request(f"r{index}")
    return Job(request=request, prompt_tokens=prompt_tokens, output_tokens=100, blocks=blocks)


@needs_data
def test_a_long_context_api_is_as_fast_as_it_was_for_prompts_of_the_same_sizes() -> None:
    seen = fit_api.agents()
    api = Api(APIS["commercial-long-context"], Chance(1), "api")
    ttfts, tpots = [], []
    for index, one in enumerate(seen):
        at_s = DAY_S * index + NOON_S
        api.answer(asked(index, 1_000_000, one.cached_tokens), at_s)  # what the session said before
        answer = api.answer(asked(index, one.prompt_tokens, one.cached_tokens), at_s)
        ttfts.append(answer.ttft_s)
        tpots.append(answer.tpot_s)
    # The slowest twentieth are the largest prompts, whose spread is a little wider than that of all.
    assert quarters(ttfts) == pytest.approx(quarters([one.ttft_s for one in seen]), rel=0.2)
    assert quarters(tpots) == pytest.approx(quarters([one.tpot_s for one in seen if one.tpot_s]), rel=0.1)


@needs_data
def test_a_warm_bucket_of_the_long_context_api_has_the_spread_of_its_own() -> None:
    """Prompts of 50k to 100k tokens, all but a twentieth remembered: 1.41, 2.07, 4.31 and 5.22 s were seen."""
    seen = [one for one in fit_api.agents() if 50_000 <= one.prompt_tokens < 100_000]
    warm = [one for one in seen if one.cached_tokens > 0.95 * one.prompt_tokens]
    api = Api(APIS["commercial-long-context"], Chance(1), "api")
    ttfts = []
    for index in range(4000):
        api.answer(asked(index, 1_000_000, 73_000), DAY_S * index + NOON_S)
        ttfts.append(api.answer(asked(index, 75_000, 73_000), DAY_S * index + NOON_S).ttft_s)
    for share, tolerance in ((0.05, 0.1), (0.5, 0.1), (0.95, 0.1), (0.99, 0.25)):
        seen_s = quantiles([one.ttft_s for one in warm], (share,))
        assert quantiles(ttfts, (share,)) == pytest.approx(seen_s, rel=tolerance)


@needs_data
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_is_as_fast_as_it_was(provider: str) -> None:
    """The median within a twentieth, the tenths at either end within 0.4 in the logarithm: few were seen."""
    seen = fit_api.providers()[provider]
    profile = APIS[f"llmperf-2023-{provider}"]
    api = Api(profile, Chance(1), provider)
    answers = [api.answer(asked(index, fit_api.LLMPERF_TOKENS), 60.0 * index) for index in range(4000)]
    served = [answer for answer in answers if answer.status == 200]
    assert len(served) / 4000 == pytest.approx(1.0 - profile.errors, abs=0.02)
    for made, was in (
        ([answer.ttft_s for answer in served], seen.ttft_s),
        ([answer.tpot_s for answer in served], seen.tpot_s),
    ):
        assert quantiles(made, (0.5,)) == pytest.approx(quantiles(was, (0.5,)), rel=0.05)
        for share in (0.1, 0.9):
            (high,), (right,) = quantiles(made, (share,)), quantiles(was, (share,))
            assert abs(math.log(high / right)) < 0.4


def test_the_world_is_the_same_in_every_process() -> None:
    code = "from tests.sim.test_remote_fits import trace; import sys; sys.stdout.write(trace())"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert said == {trace().encode()}


def trace() -> str:
    """What all presets do to some requests."""
    lines = []
    for name in sorted(APIS):
        api = Api(APIS[name], Chance(7), name)
        lines += [repr(api.answer(asked(index, 20_000, 10_240), float(index))) for index in range(20)]
    for name in sorted(LINKS):
        link = Link(LINKS[name], Chance(7), name)
        lines += [f"{link.sent(100_000, float(at_s))} {link.answered(float(at_s))}" for at_s in range(20)]
    return "\n".join(lines)
