"""What a prediction takes of an endpoint at one moment, whatever is asked there."""

from tidegate.core.coldstart import Cold
from tidegate.core.failing import Failing
from tidegate.core.others import Foreign


class Moment:
    """The next request finds `load` beside it of those `in_flight`, for it may have to wait for a slot first, and these
    have `others_tokens` of context; `column` is how many that is, as a kind.

    `foreign` is what others are believed to have there, of which so many are `running` and so much `waits`. Of late
    `load_mean` were in flight, and so much of the time went into `prompts`. On the way there `ahead_bytes` come first;
    the model may be `cold`, and of attempts so many are `failing`.
    """

    __slots__ = (
        "ahead_bytes",
        "cold",
        "column",
        "failing",
        "foreign",
        "in_flight",
        "load",
        "load_mean",
        "others_tokens",
        "prompts",
        "running",
        "waits",
    )

    def __init__(
        self,
        in_flight: int,
        load: int,
        column: int,
        others_tokens: float,
        foreign: Foreign,
        waits: float,
        pace: tuple[float, float],
        ahead_bytes: float,
        cold: Cold,
        failing: Failing,
    ) -> None:
        self.in_flight, self.load, self.column, self.others_tokens = in_flight, load, column, others_tokens
        self.foreign, self.running, self.waits = foreign, foreign.running, waits
        self.load_mean, self.prompts = pace
        self.ahead_bytes, self.cold, self.failing = ahead_bytes, cold, failing
