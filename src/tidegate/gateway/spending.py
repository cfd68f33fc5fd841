"""Money on the path of a request: held back before anything is sent to who asks for money, and settled after.

Nothing here decides where a request runs. What does not fit the budget, or cannot be written down, is not sent.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import msgspec
from msgspec import Raw

from tidegate.core.model import Capability, Drawn, Ending, Endpoint
from tidegate.core.rules import budget_usd_of
from tidegate.engines.base import Failure
from tidegate.state.cap import Cap
from tidegate.state.ledger import LEASE_USD_MAX, Ledger
from tidegate.state.store import LedgerError
from tidegate.telemetry.tick import LEDGER, Tick, run
from tidegate.wire.anthropic.request import keeps_long
from tidegate.wire.errors import UNREADABLE
from tidegate.wire.openai import EMBEDDING, Call
from tidegate.wire.options import EXTRAS

# What was spent is written this late, unless with what is held back for another: until then the whole bound counts.
SETTLE_S = 1.0
# What could not be written is tried again as late, and then twice as late each time: where another program is in the
# way, each try holds the streams.
RETRY_S_MAX = 30.0
# The types of tools that a client runs itself, or none, which Messages may leave out; what its vendor runs is billed
# beside the tokens, and what it finds is read, too.
_OWN_TOOLS = (b"null", b'"function"', b'"custom"')
# By one of these a tool of its client has a name. What has none is one of Google's to LiteLLM, whatever its type.
_NAMED = ("name", "function", "custom")
# With this the vendor reads a prompt that is longer than the window of all others, at a price of its own.
_LONGER, _LONGER_TOKENS = b"context-1m", 1_000_000
_TOOLS = msgspec.json.Decoder(list[dict[str, Raw]] | None)
_MODALITIES = msgspec.json.Decoder(list[str] | None)
# What a request that came to nothing here lacked: money, a price, or a bound below the most that any may cost.
OVER_BUDGET, UNPRICED, COST_TOO_HIGH = "budget", "unpriced", "cost_too_high"


class Spending:
    """The ledger as the request's path sees it; without one, everything is allowed and nothing is kept."""

    def __init__(
        self,
        ledger: Ledger | None,
        *,
        capped: bool,
        paced: bool,
        on_problem: Callable[[str], None],
        tick: Tick | None = None,
    ) -> None:
        """`capped`: some cap is in force. `paced`: caps are to last until they are renewed.

        `on_problem` is told once what is wrong with the file, until it is right. What is held back is written in its
        step of the `tick`, or of one of its own.
        """
        self.ledger = ledger
        # Why nothing can be paid for: what the last write has met, nothing where it went well.
        self.problem = ""
        self._capped, self._paced = capped, paced and capped
        self._on_problem = on_problem
        self._tick = tick or Tick()
        self._waiting: list[Callable[[Failure | None], None]] = []
        self._settling: asyncio.TimerHandle | None = None
        self._wait_s = SETTLE_S

    def open(self, ledger: Ledger) -> None:
        """Something costs money from now on."""
        self.ledger = ledger

    def limit(self, caps: Collection[Cap], *, paced: bool) -> None:
        """Put these caps in force; `paced` as above."""
        if self.ledger is not None:
            self.ledger.set_caps(caps)
            self._capped = bool(caps)
            self._paced = paced and self._capped

    @property
    def capped(self) -> bool:
        """Whether some cap is in force."""
        return self._capped

    def headroom_usd(self, key: str, now_s: float) -> float | None:
        """The most that one more request of this key may cost; None where there is no limit."""
        if self.problem:
            return 0.0
        if self.ledger is None or not self._capped:
            return None
        return self.ledger.headroom_usd(key, now_s)

    def budgets(self, key: str) -> tuple[str, ...]:
        """The budgets that a request of this key draws on, of those that are to last."""
        return () if self.ledger is None or not self._paced else self.ledger.budgets(key)

    def drawn(self, key: str, now_s: float) -> Sequence[Drawn]:
        """What is spent of each of them."""
        if self.ledger is None or not self._paced:
            return ()
        return self.ledger.drawn(key, now_s)

    def hold(
        self,
        lease_id: str,
        key: str,
        endpoint: Endpoint,
        call: Call,
        window: int,
        now_s: float,
    ) -> Failure | None:
        """Hold back the most that `call` can cost at `endpoint`, as `upper_usd` has it; the reason if it may not be
        sent there.

        It may be sent once that is written: see `after_write`.
        """
        if self.ledger is None:
            return None
        if self.problem:
            return UNRECORDED
        if self._capped and (option := _unpriced_of(call, endpoint, window)):
            return _extra(option)
        most_usd = upper_usd(endpoint, call, window)
        if most_usd > LEASE_USD_MAX:
            return _beyond(most_usd)
        refused = self.ledger.reserve(lease_id, key, most_usd, now_s)
        if refused is None:
            return None
        return _exhausted(refused.left_usd, refused.cap.period.value, refused.resets_at_s - now_s)

    def after_write(self, act: Callable[[Failure | None], None]) -> None:
        """Call `act` at the end of this tick, when all that was held back is on disk; with a reason if it is not.

        Requests of one tick share one commit, which takes longer than all else that is done for them here.
        """
        self._waiting.append(act)
        self._tick.soon(LEDGER, self._flush)

    def settle(
        self, lease_id: str, usd: float, now_s: float, endpoint: str, *, whole: bool = True, absurd: bool = False
    ) -> None:
        """The attempt is over and has cost this much, nothing where it was not billed. Where that may not be the
        `whole` bill, the rest of what was held back counts against the caps all the same. An `absurd` usage was told,
        which is not in the bill, and is counted as one above its bound."""
        if self.ledger is None:
            return
        if usd > 0.0 or not whole or absurd:
            # Who tells of more tokens than that has mixed something up; the books take the most that they can.
            self.ledger.settle(lease_id, min(usd, LEASE_USD_MAX), now_s, endpoint, whole=whole, overran=absurd)
        else:
            self.ledger.release(lease_id)
        self._settle_soon()

    def close(self) -> None:
        """Write what is left."""
        if self._settling is not None:
            self._settling.cancel()
        if self.ledger is not None:
            try:
                self.ledger.close()
            except LedgerError as error:
                self._on_problem(str(error))

    def _flush(self) -> None:
        failure = None if self._commit() else UNRECORDED
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            run(partial(act, failure))

    def _settle_soon(self) -> None:
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(self._wait_s, self._settle)

    def _settle(self) -> None:
        self._settling = None
        self._wait_s = min(2.0 * self._wait_s, RETRY_S_MAX)  # for the next one, unless this goes well
        self._commit()

    def _commit(self) -> bool:
        """Write down what was held and settled so far. What cannot be written goes with the next time, which comes by
        itself: nothing is held back until then."""
        assert self.ledger is not None, "without a ledger there is nothing to write"
        try:
            self.ledger.commit()
            if self.problem:
                self.ledger.touch()
        except LedgerError as error:
            if not self.problem:
                self._on_problem(str(error))
            self.problem = str(error)
            self._settle_soon()
            return False
        self.problem, self._wait_s = "", SETTLE_S
        return True


def upper_usd(endpoint: Endpoint, call: Call, window: int) -> float:
    """The most that `call` can cost at `endpoint`, whose window is believed to be `window`: `budget_usd_bound` of what
    it is sent."""
    window = max(window, endpoint.context_tokens)
    prompt_tokens = min(max(call.prompt_tokens_most, call.native_tokens_most), window * call.prompts)
    answers = max(call.completions, call.generated)
    output_tokens_max = 0 if call.kind is EMBEDDING else call.output_tokens_max
    predicted = call.fields.get("prediction")
    if output_tokens_max is not None and predicted is not None:
        # What the answer was predicted to say, and does not, is billed as its output.
        output_tokens_max += len(memoryview(predicted))
    return budget_usd_of(endpoint, window, prompt_tokens, output_tokens_max, answers)


def _unpriced_of(call: Call, endpoint: Endpoint, window: int) -> str:
    """The field or header that asks for what has no known price there; empty where there is none."""
    option = _unpriced(call.fields, endpoint) or _unpriced(call.native_fields, endpoint)
    if option or call.native is None or max(window, endpoint.context_tokens) >= _LONGER_TOKENS:
        return option
    return next((name.decode() for name, value in call.native.headers if _LONGER in value.lower()), "")


def _unpriced(fields: Mapping[str, Raw], endpoint: Endpoint) -> str:
    for field, harmless in EXTRAS.items():
        value = fields.get(field)
        if value is not None and bytes(value) not in harmless:
            return field
    for field in ("tools", "functions"):
        if not _runs_its_own(fields.get(field)):
            return field
    if not _says_what_is_priced(fields.get("modalities"), endpoint):
        return "modalities"
    return "cache_control.ttl" if keeps_long(fields) else ""


def _runs_its_own(tools: Raw | None) -> bool:
    """Whether its client runs all of its tools."""
    if tools is None:
        return True
    try:
        return all(_is_own(tool) for tool in _TOOLS.decode(tools) or ())
    except UNREADABLE:
        return False


def _is_own(tool: Mapping[str, Raw]) -> bool:
    # Engines written in Go take `Type` for the same.
    types = [bytes(value) for name, value in tool.items() if name.casefold() == "type"]
    return all(one in _OWN_TOOLS for one in types) and any(name in tool for name in _NAMED)


def _says_what_is_priced(modalities: Raw | None, endpoint: Endpoint) -> bool:
    """Whether its answer is of text alone, or of audio where prices are those of audio."""
    if modalities is None:
        return True
    priced = ("text", "audio") if Capability.AUDIO in endpoint.capabilities else ("text",)
    try:
        return all(one in priced for one in _MODALITIES.decode(modalities) or ())
    except UNREADABLE:
        return False


def _exhausted(left_usd: float, period: str, resets_s: float) -> Failure:
    return Failure(
        ending=Ending.REFUSED,
        cause=OVER_BUDGET,
        status=429,
        message=(
            f"the budget of the {period} has {max(0.0, left_usd):.6f} dollars left, less than this may cost at most; "
            f"it is renewed in {resets_s / 3600:.1f} h. A bound (max_tokens) makes a request cost less at most"
        ),
        kind="insufficient_quota",
        code="insufficient_quota",
    )


def _beyond(most_usd: float) -> Failure:
    return Failure(
        ending=Ending.REFUSED,
        cause=COST_TOO_HIGH,
        status=400,
        message=(
            f"this may cost up to {most_usd:.0f} dollars, and {LEASE_USD_MAX:.0f} are the most that one request may. "
            "A bound (max_tokens), or fewer prompts and completions, make a request cost less at most"
        ),
        kind="invalid_request_error",
        code="cost_too_high",
    )


def _extra(field: str) -> Failure:
    return Failure(
        ending=Ending.REFUSED,
        cause=UNPRICED,
        status=400,
        message=f"`{field}` is billed at a price that is not known here, so no budget can hold it; leave it out",
        kind="invalid_request_error",
        code="unpriced_option",
        param=field,
    )


UNRECORDED = Failure(
    ending=Ending.CANCELLED,  # no fault of the endpoint's
    cause="ledger",
    status=503,
    message="what it costs cannot be written down, so nothing is sent to who asks for money",
    code="spending_unrecorded",
)
