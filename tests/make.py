"""Factories: a test names what matters to it, and nothing else."""

from itertools import count

from tidegate.core.base import Base
from tidegate.core.model import (
    ANYWHERE,
    Ended,
    Ending,
    Endpoint,
    Policy,
    Price,
    Prior,
    Request,
    Slo,
    replace,
)
from tidegate.core.router import Router
from tidegate.core.sending import started as started

_ids = count()

LOCAL_PRIOR = Prior(overhead_s=0.05, prefill_s_per_token=0.001, decode_s_per_token=0.02, sigma=0.3)
REMOTE_PRIOR = Prior(overhead_s=0.3, prefill_s_per_token=0.00005, decode_s_per_token=0.01, rtt_s=0.05, sigma=0.3)
REMOTE_PRICE = Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6)


def endpoint(name: str = "laptop", *, local: bool = True, **changes: object) -> Endpoint:
    """An engine of our own with two slots, or with `local=False` a fleet behind an API that costs money."""
    made = Endpoint(
        name=name,
        site="home" if local else name,
        local=local,
        models=("m",),
        context_tokens=32_768,
        concurrency=2 if local else 64,
        owned=local,
        shares_compute=local,
        price=Price() if local else REMOTE_PRICE,
        prior=LOCAL_PRIOR if local else REMOTE_PRIOR,
    )
    return replace(made, **changes)


def request(
    id: str = "", *, residency: str | tuple[str, ...] = ANYWHERE, ttft_s: float | None = None, **changes: object
) -> Request:
    """A short chat with a promise of ten seconds to first content, or `ttft_s`, unless it brings its own `slo`."""
    made = Request(
        id=id or f"r{next(_ids)}",
        arrived_s=0.0,
        model="m",
        klass="chat",
        prompt_tokens=200,
        prompt_bytes=800,
        output_tokens_max=100,
        slo=Slo(ttft_s=10.0 if ttft_s is None else ttft_s),
        worth_usd=0.01,
        late_usd_per_s=0.001,
        residency=(residency,) if isinstance(residency, str) else residency,
    )
    return replace(made, **changes)


def policy(**changes: object) -> Policy:
    """The settings of a decision."""
    return replace(Policy(), **changes)


def router(*endpoints: Endpoint, **settings: object) -> Router:
    """A router over these endpoints, by default one of our own and one that costs money."""
    chosen = endpoints or (endpoint("laptop"), endpoint("cloud", local=False))
    return Router(chosen, policy(**settings))


def ended(request_id: str, endpoint: str, *, ending: Ending = Ending.OK, **changes: object) -> Ended:
    """The fact that an attempt is over, after a second."""
    return replace(Ended(request_id=request_id, endpoint=endpoint, ending=ending, e2e_s=1.0), **changes)


def scaled(prior: Prior, factor: float) -> Prior:
    """An engine that takes `factor` times as long for everything of its own."""
    return replace(
        prior,
        overhead_s=prior.overhead_s * factor,
        prefill_s_per_token=prior.prefill_s_per_token * factor,
        decode_s_per_token=prior.decode_s_per_token * factor,
    )


def told(base: Base) -> dict[str, object]:
    """All that a prediction says, by name: so two of them can be compared."""
    found = {name: getattr(base, name) for name in dir(base) if not name.startswith("_")}
    return {name: value for name, value in found.items() if not callable(value) and name != "length"}
