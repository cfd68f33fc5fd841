"""A request of the gateway itself, asked of one endpoint in its dialect; it holds no slot and teaches no times.

What costs money is held back before it is sent, and all of that is counted where the bill is not known.
"""

import asyncio
from enum import StrEnum
from secrets import token_hex

import msgspec

from tidegate.engines.base import Failure, Outgoing
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.spending import upper_usd
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import Cause, TransportError, fetch
from tidegate.wire.aggregate import Aggregator
from tidegate.wire.chunks import Usage
from tidegate.wire.errors import BadRequest
from tidegate.wire.openai import Call
from tidegate.wire.sse import BadStream
from tidegate.wire.translate import Translated, reader
from tidegate.wire.whole import WholeReader

# Eight tokens with five candidates each are 12 KB as llama.cpp streams them.
ANSWER_BYTES_MAX = 128 * 1024


class Fault(StrEnum):
    """Why there is no answer of any use. Closed, for dashboards."""

    UNCARRIED = "uncarried"  # its dialect cannot say what is asked
    UNREACHED = "unreached"  # nothing was sent
    REFUSED = "refused"  # it answered with an error
    BROKEN = "broken"  # too late, too large, cut or unreadable
    NO_LOGPROBS = "no_logprobs"  # an answer without them
    OVER_BUDGET = "over_budget"  # nothing was sent, as it may not be paid


class NoAnswerError(Exception):
    """There is none. `billed`: the endpoint may have worked on it all the same."""

    def __init__(self, fault: Fault, *, billed: bool) -> None:
        super().__init__(fault.value)
        self.fault = fault
        self.billed = billed


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an answer as OpenAI has it, and what it took where the endpoint said it."""

    result: bytes
    usage: Usage | None


class Errands:
    """Asks one endpoint."""

    def __init__(self, dispatch: Dispatch, upstream: Upstream, purpose: str) -> None:
        """`purpose` is a word for the ledger."""
        self._dispatch, self._upstream, self._purpose = dispatch, upstream, purpose

    async def ask(self, call: Call, within_s: float) -> Reply:
        """Send it and read the answer. Raises `NoAnswerError`."""
        upstream, spending, clock = self._upstream, self._dispatch.spending, self._dispatch.clock
        if not upstream.asks_money:
            return await ask(upstream, call, within_s, clock.now_s())
        lease_id = f"{self._purpose}-{token_hex(8)}"
        endpoint, window = upstream.endpoint, self._dispatch.window(upstream.endpoint.name)
        if spending.hold(lease_id, "", endpoint, call, window, clock.now_s()) is not None:
            raise NoAnswerError(Fault.OVER_BUDGET, billed=False)
        usd = 0.0
        try:
            if await self._unrecorded() is not None:
                raise NoAnswerError(Fault.OVER_BUDGET, billed=False)
            usd = upper_usd(endpoint, call, window)
            reply = await ask(upstream, call, within_s, clock.now_s())
            usd = self._billed_usd(reply, usd)
        except NoAnswerError as error:
            usd = usd if error.billed else 0.0
            raise
        finally:
            spending.settle(lease_id, usd, clock.now_s(), endpoint.name)
            self._dispatch.metrics.spent_besides(endpoint.name, usd)
        return reply

    async def _unrecorded(self) -> Failure | None:
        """Wait until what was held back is on disk; the reason if it is not."""
        written: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self._dispatch.spending.after_write(lambda failure: None if written.done() else written.set_result(failure))
        return await written

    def _billed_usd(self, reply: Reply, upper_usd: float) -> float:
        usage = reply.usage
        if usage is None or not usage.prompt_tokens or not usage.output_tokens:
            return upper_usd
        usd = self._upstream.endpoint.price.usd(
            usage.prompt_tokens,
            usage.output_tokens,
            usage.cached_tokens or 0,
            usage.cache_write_tokens or 0,
            usage.reasoning_tokens or 0,
        )
        # A count beyond what it was asked for is not believed.
        return min(usd, upper_usd)


async def ask(upstream: Upstream, call: Call, within_s: float, now_s: float) -> Reply:
    """Send it and read the answer, whatever that costs. Raises `NoAnswerError`."""
    try:
        outgoing = upstream.dialect.outgoing(call, upstream.called(call.model), upstream.headers)
    except BadRequest:
        raise NoAnswerError(Fault.UNCARRIED, billed=False) from None
    try:
        status, _, body = await fetch(
            upstream.pool, b"POST", outgoing.target, outgoing.headers, outgoing.body, within_s, ANSWER_BYTES_MAX
        )
    except TransportError as error:
        sent = error.sent_bytes or error.cause is Cause.TOO_LARGE
        raise NoAnswerError(Fault.BROKEN if sent else Fault.UNREACHED, billed=sent) from None
    if status != 200:
        raise NoAnswerError(Fault.REFUSED, billed=False)
    return _read(upstream, call, outgoing, body, now_s)


def _read(upstream: Upstream, call: Call, outgoing: Outgoing, body: bytes, now_s: float) -> Reply:
    streamed = outgoing.streamed
    translate = upstream.dialect.translator(streamed=streamed, now_s=now_s)
    answer = reader(call, streamed=streamed, engine=translate, now_s=lambda: now_s)
    assert isinstance(answer, WholeReader | Aggregator | Translated), "no stream was asked for"
    answer.feed(body)
    if not answer.done:
        answer.end()
    try:
        if answer.failure is not None:
            raise answer.failure
        return Reply(result=answer.result(), usage=answer.usage)
    except BadStream:
        raise NoAnswerError(Fault.BROKEN, billed=True) from None
