"""The worlds in which predictions are judged: six traces, each in six regimes, with three endpoints.

`own` is an engine here, `campus` another one of ours behind a wide-area network, `vendor` a commercial API. The real
router decides. Most requests may go anywhere; some may go to the campus or to the vendor alone, so that each endpoint
gets enough of them in every regime.

What is drawn by chance (which part of a trace, how far the configured priors are off) follows from the seed. Seeds from
1,001 on are held out: they read the last 40 % of what there is of each trace, the others the first 60 %.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec

from bench.predict_settings import (
    API_COLD_S,
    CAMPUS,
    CHANGE_AFTER,
    LINK_WORSE,
    LOAD_S,
    METRO,
    OWN,
    PRIOR_FACTOR_MAX,
    PRIOR_FACTOR_MIN,
    QUANTILE,
    SETTINGS,
    SLOWER,
    UNLOAD_AFTER_S,
    VENDOR,
    WAN,
    Regime,
    Setting,
)
from bench.predict_tap import Row, Tap
from bench.predict_traffic import traffic
from tidegate.core.model import Endpoint, Policy, Price, Prior, replace
from tidegate.core.router import Router
from tidegate.sim import api
from tidegate.sim.api import Api, ApiProfile
from tidegate.sim.ask import BYTES_SIGMA
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine, EngineProfile
from tidegate.sim.network import Link, LinkProfile
from tidegate.sim.place import Local, Remote
from tidegate.sim.world import World

DAY_S = 86_400.0


class Played(msgspec.Struct, kw_only=True):
    """What came of a world. `changed_s` is when its regime changed, None where it does not."""

    trace: str
    regime: str
    seed: int
    rows: dict[str, list[Row]]
    requests: int
    refused: int
    duration_s: float
    busy_share: dict[str, float]
    prior_factors: dict[str, float]
    changed_s: float | None


def play(data: Path, trace: str, regime: Regime, seed: int, bytes_sigma: float = BYTES_SIGMA) -> Played:
    """Let it happen. `bytes_sigma` is how far estimates of prompts' tokens, which are made from bytes, scatter."""
    setting, chance = SETTINGS[trace], Chance(seed)
    cold = regime is Regime.COLD
    profiles = {OWN: setting.own, CAMPUS: setting.campus}
    if cold:
        profiles = {name: replace(one, load_s=LOAD_S, unload_after_s=UNLOAD_AFTER_S) for name, one in profiles.items()}
    sold = api.PRESETS[setting.vendor]
    if cold:
        sold = replace(sold, idle_s=UNLOAD_AFTER_S, cold_start_s=API_COLD_S)
    off = _factors(chance.at("predict", trace, regime, "priors"))
    endpoints = _endpoints(setting, profiles, sold, off)
    policy = Policy(seed=seed, quantile=QUANTILE, held_max=32, hold_s_max=60.0)
    tap = Tap(Router(endpoints, policy))
    world = World(endpoints, policy, router=tap)
    links = {name: Link(profile, chance, name) for name, profile in ((CAMPUS, WAN), (VENDOR, METRO))}
    places: dict[str, Local | Remote] = {
        OWN: Local(OWN, Engine(profiles[OWN]), world.loop, world),
        CAMPUS: Local(CAMPUS, Engine(profiles[CAMPUS]), world.loop, world, links[CAMPUS]),
        VENDOR: Remote(VENDOR, Api(sold, chance, VENDOR), world.loop, world, links[VENDOR]),
    }
    changes = _Change(world, places, chance)
    if regime is Regime.SLOW_ENGINE:
        tap.after(OWN, CHANGE_AFTER, changes.engine)
    elif regime is Regime.SLOW_LINK:
        tap.after(CAMPUS, CHANGE_AFTER, changes.link)
    with tempfile.TemporaryDirectory(prefix="tidegate-predict-") as folder:
        asked = traffic(data, trace, regime, setting, seed, bytes_sigma, Path(folder))
        world.run(places, asked, probe_s=30.0 if cold else 5.0, until_s=100 * DAY_S)
    ends_s = max(outcome.ended_s for outcome in world.outcomes)
    return Played(
        trace=trace,
        regime=regime,
        seed=seed,
        rows=tap.rows,
        requests=len(world.outcomes),
        refused=sum(outcome.outcome == "refused" for outcome in world.outcomes),
        duration_s=ends_s,
        busy_share={name: place.engine.busy_s / ends_s for name, place in places.items() if isinstance(place, Local)},
        prior_factors=off,
        changed_s=changes.at_s,
    )


class _Change:
    """The regime changes, once, as soon as what happens now has happened."""

    def __init__(self, world: World, places: dict[str, Local | Remote], chance: Chance) -> None:
        self.at_s: float | None = None
        self._world, self._places, self._chance = world, places, chance

    def engine(self) -> None:
        """Our own engine becomes slower."""
        own = self._places[OWN]
        assert isinstance(own, Local)
        self._soon(lambda: own.slow(SLOWER))

    def link(self) -> None:
        """The way to the campus becomes worse."""
        worse = replace(
            WAN,
            rtt_s=LINK_WORSE * WAN.rtt_s,
            upload_bytes_per_s=WAN.upload_bytes_per_s / LINK_WORSE,
            download_bytes_per_s=WAN.download_bytes_per_s / LINK_WORSE,
        )
        campus = self._places[CAMPUS]
        assert isinstance(campus, Local)
        self._soon(lambda: setattr(campus, "way", Link(worse, self._chance, CAMPUS)))

    def _soon(self, change: Callable[[], None]) -> None:
        self.at_s = self._world.loop.now_s
        self._world.loop.at(self.at_s, change)


# --- endpoints ----------------------------------------------------------------------------------------------------


def _factors(draw: Random) -> dict[str, float]:
    """How many times as long as it is each time is believed to be at first."""
    low, high = PRIOR_FACTOR_MIN, PRIOR_FACTOR_MAX
    names = [f"{name}.{part}" for name in (OWN, CAMPUS, VENDOR) for part in ("prefill", "decode", "network")]
    return {name: low * (high / low) ** draw.random() for name in names}


def _endpoints(
    setting: Setting, profiles: dict[str, EngineProfile], sold: ApiProfile, off: dict[str, float]
) -> tuple[Endpoint, ...]:
    ours = [
        Endpoint(
            name=name,
            site="home" if name == OWN else CAMPUS,
            local=name == OWN,
            owned=True,
            models=("m",),
            context_tokens=setting.context_tokens,
            concurrency=profile.slots,
            usd_per_s=0.0001 if name == OWN else 0.0002,
            prior=_prior(profile, None if name == OWN else WAN, off, name),
        )
        for name, profile in profiles.items()
    ]
    vendor = Endpoint(
        name=VENDOR,
        site=VENDOR,
        local=False,
        shares_compute=False,
        models=("m",),
        context_tokens=setting.context_tokens,
        concurrency=256,
        price=Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6),
        prior=Prior(
            overhead_s=sold.ttft_s * off["vendor.prefill"],
            prefill_s_per_token=sold.ttft_s_per_uncached_token * off["vendor.prefill"],
            decode_s_per_token=sold.tpot_s * off["vendor.decode"],
            rtt_s=METRO.rtt_s * off["vendor.network"],
        ),
    )
    return (*ours, vendor)


def _prior(profile: EngineProfile, link: LinkProfile | None, off: dict[str, float], name: str) -> Prior:
    """What a configuration would say, each a bit off."""
    prior = believed(profile, off[f"{name}.prefill"], off[f"{name}.decode"])
    if link is None:
        return prior
    factor = off[f"{name}.network"]
    return replace(prior, rtt_s=link.rtt_s * factor, upload_bytes_per_s=link.upload_bytes_per_s / factor)


def believed(profile: EngineProfile, prefill: float = 1.0, decode: float = 1.0) -> Prior:
    """What a configuration would say of an engine: prompt and output tokens a second, and how others slow them.

    Times are so many times as long as they are.
    """
    step, slots = profile.step, profile.slots
    alone_s, full_s = step.takes_s(0, 0.0, 1, 0), step.takes_s(0, 0.0, slots, 0)
    chunk = profile.batch_tokens
    return Prior(
        prefill_s_per_token=step.takes_s(chunk, 0.0, 0, 0) / chunk * prefill,
        decode_s_per_token=alone_s * decode,
        batch_slowdown=(full_s / alone_s - 1.0) / (slots - 1),
    )
