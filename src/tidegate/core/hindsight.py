"""What was predicted of each attempt when it was sent, beside what came of it; from a journal, line by line."""

import msgspec

from tidegate.core.model import Ended, Ending, Endpoint, Line, Segment, Started
from tidegate.core.reference import Reference
from tidegate.core.replay import Replay
from tidegate.core.router import Router
from tidegate.core.timing import TPOT_TOKENS_MIN


class Prediction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the router believed of an attempt in the moment of its sending.

    Medians, and `ttft_s_high`, the bound that holds with the probability that the policy names. `output_tokens` are
    those of all its completions, `load` is how many others were in flight there.
    """

    load: int
    prompt_tokens: int
    ttft_s: float
    ttft_s_high: float
    tpot_s: float
    output_tokens: float
    cost_usd: float

    def whole_s(self, tokens: float) -> float:
        """What an answer of so many tokens takes in one piece."""
        return self.ttft_s + max(0.0, tokens - 1.0) * self.tpot_s


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that is over. `quantile` is what `ttft_s_high` was held to.

    `believed` is what would have been predicted by what was learned some hundred attempts before, None where nothing
    was. One that was predicted from another prior `teaches` nothing. Without `stream` its answer comes in one piece.
    """

    endpoint: Endpoint
    klass: str
    sent_s: float
    ended_s: float
    quantile: float
    predicted: Prediction
    believed: Prediction | None
    ended: Ended
    completions: int
    stream: bool
    teaches: bool

    @property
    def ttft_s(self) -> float | None:
        """Measured, where it is a sample: content came."""
        return self.ended.ttft_s

    @property
    def left_s(self) -> float | None:
        """After what time it was given up for want of content; None where it was not, and of an answer in one piece,
        which nobody sees begin."""
        ended = self.ended
        if not self.stream or ended.ttft_s is not None or ended.ending not in (Ending.CANCELLED, Ending.TIMED_OUT):
            return None
        return ended.e2e_s

    @property
    def tpot_s(self) -> float | None:
        """Measured, where it is a sample: it ended well, with as many tokens as it takes to tell."""
        ended = self.ended
        tokens = (ended.output_tokens or 0) / self.completions
        if ended.ending is not Ending.OK or ended.ttft_s is None or tokens < TPOT_TOKENS_MIN:
            return None
        return (ended.e2e_s - ended.ttft_s) / (tokens - 1.0)

    @property
    def in_one_piece(self) -> bool:
        """Whether it is a whole answer that nobody saw begin. All that is known of its time is how long it took."""
        ended = self.ended
        return not self.stream and ended.ending is Ending.OK and ended.ttft_s is None and not ended.cause

    @property
    def whole_tokens(self) -> float | None:
        """How many tokens a completion of an answer in one piece has; None where nobody told, and of all others."""
        tokens = self.ended.output_tokens
        return tokens / self.completions if self.in_one_piece and tokens else None

    @property
    def cost_usd(self) -> float | None:
        """What it cost by the usage that was told, with running the engine; None where that is not all known."""
        ended = self.ended
        if ended.ending is not Ending.OK or ended.prompt_tokens is None or ended.output_tokens is None:
            return None
        billed_usd = self.endpoint.price.usd(
            ended.prompt_tokens,
            ended.output_tokens,
            ended.cached_tokens or 0,
            ended.cache_write_tokens or 0,
            ended.reasoning_tokens or 0,
        )
        return billed_usd + self.endpoint.running_usd(ended.e2e_s)


class Hindsight:
    """Replays a journal, and keeps what is predicted of each attempt until it ends; `replay` is as after the last line.

    `otherwise` is how many decisions came out otherwise than they are in the journal. Predictions are those of this
    software; where there are none of these, they are what was believed then. An attempt that was sent before the
    journal begins, or that ended with its process, is not compared, and neither is one at which the model failed.
    """

    def __init__(self) -> None:
        self.replay = Replay()
        self.otherwise = 0
        self.reference = Reference()
        self._sent: dict[tuple[str, str], tuple[Started, float, Prediction, Prediction | None]] = {}
        self._quantile = 0.0

    def feed(self, line: Line) -> Compared | None:
        """Take in one line; for the end of an attempt whose sending was seen, the two side by side."""
        fact, compared = line.fact, None
        if isinstance(fact, Started) and (prediction := predicted(self.replay.router, fact, line.at_s)) is not None:
            reference = self.reference
            believed = predicted(reference.router, fact, line.at_s) if reference.knows(fact.endpoint) else None
            self._sent[fact.endpoint, fact.request_id] = fact, line.at_s, prediction, believed
        elif isinstance(fact, Ended):
            compared = self._compare(fact, line.at_s)
        decided = self.replay.feed(line)
        self.otherwise += decided is not None and decided != fact
        assert self.replay.router is not None or not isinstance(fact, Segment), "a segment begins with a router"
        if isinstance(fact, Segment) and self.replay.router is not None:
            self._quantile = fact.policy.quantile
            self.reference.begin(fact.endpoints, fact.policy, self.replay.router)
            self._forget()
        elif self.replay.router is not None:
            self.reference.feed(line, self.replay.router)
        return compared

    def _compare(self, fact: Ended, now_s: float) -> Compared | None:
        sent = self._sent.pop((fact.endpoint, fact.request_id), None)
        if sent is None or self.replay.router is None:
            return None
        started, sent_s, prediction, believed = sent
        model = self.replay.router.endpoint(fact.endpoint)
        reservation = model.state.reservations.get(fact.request_id)
        return Compared(
            endpoint=model.endpoint,
            klass=started.klass,
            sent_s=sent_s,
            ended_s=now_s,
            quantile=self._quantile,
            predicted=prediction,
            believed=believed,
            ended=fact,
            completions=started.completions,
            stream=started.stream,
            teaches=reservation is not None and reservation.teaches,
        )

    def _forget(self) -> None:
        """What is not under way in the new segment ended with its process."""
        assert self.replay.router is not None, "a segment was just begun"
        under_way = self.replay.router.state.endpoints
        self._sent = {
            (name, id): sent
            for (name, id), sent in self._sent.items()
            if name in under_way and id in under_way[name].reservations
        }


def predicted(router: Router | None, fact: Started, now_s: float) -> Prediction | None:
    """What is predicted of an attempt that is sent now, before the router is told; None where it knows no such place,
    and where the model fails: the router will fail at the fact itself, and replay knows whether it may.

    The only place that knows by which names an estimate is kept.
    """
    if router is None:
        return None
    try:
        base = router.predicted(fact, now_s)
    except Exception:
        return None
    if base is None:
        return None
    return Prediction(
        load=len(router.endpoint(fact.endpoint).state.reservations),
        prompt_tokens=fact.prompt_tokens,
        ttft_s=base.first_s,
        ttft_s_high=base.first_s_high,
        tpot_s=base.tpot_s,
        output_tokens=base.output_tokens * fact.completions,
        cost_usd=base.cost_usd,
    )
