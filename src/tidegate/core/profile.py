"""What a client's key may do, as every layer knows it. Never the secret: it is shown once and kept by its owner."""

from typing import Annotated

from msgspec import Meta

from tidegate.core.model import ANYWHERE, USUAL_WEIGHT, Record

NAMES_MAX = 256  # classes, models or sites of one key: lists are written by people
PER_MINUTE_MAX = 1_000_000_000  # beyond, a number has a zero too many
CONCURRENCY_MAX = 100_000  # as many connections as the server takes
BUDGET_USD_MAX = 1_000_000_000.0
# A hundred times as much as others is all but everything, and a hundredth of it next to nothing.
WEIGHT_MIN, WEIGHT_MAX = 0.01, 100.0

# A metric label, a header value and a part of a file name at once.
KeyName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
_Names = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=NAMES_MAX)]
_PerMinute = Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)]
_Weight = Annotated[float, Meta(ge=WEIGHT_MIN, le=WEIGHT_MAX)]
_Usd = Annotated[float, Meta(ge=0, le=BUDGET_USD_MAX)]


class Profile(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What one key may do. Times are seconds since the epoch; a limit that is None is none.

    `id` is never used again, so that spending and journals stay attributed; `name` is what people call it, and free
    again once the key is revoked. `classes` and `models` are those it may ask for, None for all; a request that names
    no class is of `class_default`, None for the gateway's. `residency` bounds where its data may go at most: `local`
    keeps it from every remote endpoint. Where our engines cannot do all in time, it has as much of them as its `weight`
    says beside those of others. Limits per minute count requests, and tokens of prompt and output together.
    """

    id: Annotated[str, Meta(min_length=1, max_length=80)]
    name: KeyName
    created_s: float
    classes: _Names | None = None
    class_default: str | None = None
    models: _Names | None = None
    residency: Annotated[_Names, Meta(min_length=1)] = (ANYWHERE,)
    weight: _Weight = USUAL_WEIGHT
    requests_per_minute: _PerMinute | None = None
    tokens_per_minute: _PerMinute | None = None
    concurrency: Annotated[int, Meta(ge=1, le=CONCURRENCY_MAX)] | None = None
    usd_per_day: _Usd | None = None
    usd_per_month: _Usd | None = None
    expires_s: float | None = None
    revoked_s: float | None = None
