"""Each endpoint: what it is, how the journal's end has it, and how well it was predicted."""

import msgspec

from tidegate.core.model import Endpoint, Record
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.dashboard.figures import Figures, Measured, Predicted, Quantiles, Totals, Window
from tidegate.dashboard.follow import Known
from tidegate.dashboard.index import LOCAL, REMOTE, Place


class Standing(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What is known of it at the journal's end."""

    at_s: float
    up: bool
    breaker: str
    drained: bool
    pinned: bool
    drifted: bool
    in_flight: int


class Told(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One endpoint; its settings and standing are None where it is no longer configured, or where nobody can tell."""

    name: str
    site: str
    tier: str
    models: tuple[str, ...]
    owned: bool | None
    concurrency: int | None
    context_tokens: int | None
    usd_per_1m_input_tokens: float | None
    usd_per_1m_output_tokens: float | None
    running_usd_per_hour: float | None
    state: Standing | None
    totals: Totals
    ttft_s: Quantiles | None
    tpot_s: Quantiles | None
    e2e_s: Quantiles | None
    prediction: Predicted | None


class Endpoints(Record, frozen=True, kw_only=True, omit_defaults=False):
    """All of them, those that are configured first; `quantile` is None where nobody can tell which are."""

    begins_s: float
    ends_s: float
    quantile: float | None
    endpoints: tuple[Told, ...]


def endpoints(figures: Figures, window: Window, known: Known | None) -> Endpoints:
    """What came at each in a window, beside what is known of it now."""
    router = None if known is None else router_of(known)
    configured = {} if router is None else {one.name: one for one in router.endpoints}
    places = figures.places()
    places |= {one.name: _place(one) for one in configured.values()}
    found = []
    for place in sorted(places.values(), key=lambda one: (one.name not in configured, one.tier, one.name)):
        measured = figures.measured(place.name, window)
        one = configured.get(place.name)
        if one is None and not measured.totals.requests:
            continue
        standing = None if router is None or known is None or one is None else _standing(router, place.name, known.at_s)
        found.append(_told(place, one, standing, measured))
    return Endpoints(
        begins_s=window.begins_s,
        ends_s=window.ends_s,
        quantile=None if router is None else router.policy.quantile,
        endpoints=tuple(found),
    )


def router_of(known: Known) -> Router:
    """A router of its own that knows as much."""
    segment = known.segment
    return Router(segment.endpoints, segment.policy, msgspec.json.decode(known.state, type=State))


def _place(endpoint: Endpoint) -> Place:
    return Place(name=endpoint.name, site=endpoint.site, tier=LOCAL if endpoint.local else REMOTE)


def _standing(router: Router, name: str, at_s: float) -> Standing:
    model = router.endpoint(name)
    return Standing(
        at_s=at_s,
        up=model.state.up,
        breaker=model.state.breaker.state,
        drained=model.drained,
        pinned=name in router.overrides.pinned,
        drifted=model.state.drifted,
        in_flight=len(model.state.reservations),
    )


def _told(place: Place, one: Endpoint | None, standing: Standing | None, measured: Measured) -> Told:
    return Told(
        name=place.name,
        site=place.site,
        tier=place.tier,
        models=() if one is None else one.models,
        owned=None if one is None else one.owned,
        concurrency=None if one is None else one.concurrency,
        context_tokens=None if one is None else one.context_tokens,
        usd_per_1m_input_tokens=None if one is None else one.price.usd_per_input_token * 1e6,
        usd_per_1m_output_tokens=None if one is None else one.price.usd_per_output_token * 1e6,
        running_usd_per_hour=None if one is None else one.usd_per_s * 3600.0,
        state=standing,
        totals=measured.totals,
        ttft_s=measured.ttft_s,
        tpot_s=measured.tpot_s,
        e2e_s=measured.e2e_s,
        prediction=measured.prediction,
    )
