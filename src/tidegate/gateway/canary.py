"""Notices that an endpoint's model is no longer what it was: another quantisation, template or model behind one name.

Rarely, while nobody else is there, it asks a fixed few things and compares how likely the answers' tokens are with the
first time. The first reading is trusted, for as long as the same model is meant. What drifted is told to the core,
which then takes the endpoint for one of the same family. A canary is no client: it holds no slot and teaches nothing.
"""

import asyncio
from enum import StrEnum

from tidegate.core.drift import Reading, distance, judge
from tidegate.core.fingerprint import OF_THE_MODEL, Fingerprint, differs
from tidegate.core.model import Capability, Checked, Record
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.errand import Errands, Fault, NoAnswerError
from tidegate.gateway.greedy import calls, first_spots
from tidegate.gateway.upstream import Upstream

# How late a reading that is due may begin: an engine that came back may have come back as another.
TICK_S = 30.0
# What looks like drift is looked at once more before it counts, by which a hiccup is over.
CONFIRM_S = 60.0
# After a fault, and while an endpoint counts as drifted: so often at most, whatever the interval.
RECHECK_S = 3600.0
# All prompts of a reading; each has a bound of its own.
READING_S_MAX = 60.0


class Skip(StrEnum):
    """Why no reading was taken. Closed; `Fault` has what can go wrong with one that was."""

    OFF = "off"  # the configuration says so, or its price does
    LACKS_CAPABILITY = "lacks_capability"  # no chat, or no log-probabilities
    DOWN = "down"
    BREAKER_OPEN = "breaker_open"
    TOLD_TO_WAIT = "told_to_wait"
    UNLOADED = "unloaded"  # more likely than not: it is read when a client has had it loaded
    BUSY = "busy"  # with clients, who come first
    GAVE_WAY = "gave_way"  # to a client who came meanwhile


class Status(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What is known of a canary: its last whole reading, and why there was none since."""

    read_at_s: float | None = None
    distance: float | None = None
    skipped: Skip | Fault | None = None


class _Skipped(Exception):
    """There is no reading this time."""

    def __init__(self, why: Skip | Fault) -> None:
        super().__init__(why.value)
        self.why = why


class Canary:
    """Watches one endpoint for as long as it runs."""

    def __init__(self, dispatch: Dispatch, upstream: Upstream, every_s: float) -> None:
        """`every_s` is the time between two readings, 0 for none."""
        self._dispatch = dispatch
        self._upstream = upstream
        self._clock = dispatch.clock
        self._every_s = every_s
        self._name = upstream.endpoint.name
        self._errands = Errands(dispatch, upstream, "canary")
        self._calls = calls(upstream.first_called)
        self._due_s = self._clock.now_s()
        # An engine may have died of a reading: until then it is not read, whatever it comes back as.
        self._rests_until_s = 0.0
        self._reference: Reading | None = None
        # The model that it was read from, as it was trusted then.
        self._of: Fingerprint | None = None
        self._suspected = False
        self._deadline: asyncio.Timeout | None = None
        self._gave_way = False
        self.status = Status(skipped=self._never())

    def succeed(self, other: "Canary") -> None:
        """Go on where that one of the same model is: what it was at first is told from what it is now."""
        self._reference, self._of, self._suspected = other._reference, other._of, other._suspected
        self._due_s = min(other._due_s, self._due_s + self._every_s)
        self._rests_until_s = other._rests_until_s
        if self._never() is None:
            self.status = other.status

    def returned(self) -> None:
        """Its engine was down and is back, perhaps as another: a reading is due, unless it may have died of one."""
        self._hurry(self._clock.now_s())

    async def run(self) -> None:
        """Take readings until cancelled, or not at all where there can be none."""
        while self._never() is None:
            await asyncio.sleep(TICK_S)
            await self.turn()

    async def turn(self) -> None:
        """Take a reading if one is due and nothing is in its way, and tell what it means."""
        now_s = self._clock.now_s()
        why = self._never() or self._hindrance(now_s)
        if why is Skip.DOWN:
            self._hurry(now_s)  # what is down is shown as such
        if now_s < self._due_s:
            return
        try:
            if why is not None:
                raise _Skipped(why)
            reading = await self._read()
            self._compare(reading, self._clock.now_s())
        except _Skipped as skipped:
            self._skip(skipped.why, now_s)
        except Exception:
            # What was begun is paid for: after a fault of ours, too, it is not read again at once.
            self._skip(Fault.BROKEN, now_s)
            raise

    def _hurry(self, now_s: float) -> None:
        self._due_s = min(self._due_s, max(now_s, self._rests_until_s))

    # --- whether --------------------------------------------------------------------------------------------------

    def _never(self) -> Skip | None:
        if self._every_s <= 0.0:
            return Skip.OFF
        can = self._upstream.endpoint.capabilities
        return None if Capability.CHAT in can and Capability.LOGPROBS in can else Skip.LACKS_CAPABILITY

    def _hindrance(self, now_s: float) -> Skip | None:
        model = self._dispatch.router.endpoint(self._name)
        state = model.state
        if not state.up:
            return Skip.DOWN
        if state.breaker.openings and state.breaker.blocks(now_s):
            return Skip.BREAKER_OPEN
        if now_s < state.not_before_s:
            return Skip.TOLD_TO_WAIT
        if self._in_the_way():
            return Skip.BUSY
        # What nobody said and a wait suggests is no reason: it is read now, or by nobody.
        said = model.cold.resident() is False or model.prior.unload_after_s is not None
        return Skip.UNLOADED if said and model.cold.at(now_s, len(state.reservations)).share > 0.5 else None

    def _in_the_way(self) -> bool:
        """Whether a client would notice: in an engine by what is computed beside it, elsewhere by the last place."""
        model = self._dispatch.router.endpoint(self._name)
        if self._upstream.endpoint.shares_compute:
            return bool(model.state.reservations) or self._dispatch.router.held > 0
        return model.room <= 1

    def _give_way(self) -> None:
        """A client's request was just sent there."""
        deadline = self._deadline
        if deadline is not None and not deadline.expired() and not self._gave_way and self._in_the_way():
            self._gave_way = True
            deadline.reschedule(0.0)  # long past: the call is cancelled, which frees its place

    # --- reading --------------------------------------------------------------------------------------------------

    async def _read(self) -> Reading:
        """One answer after the other. Raises `_Skipped`."""
        self._gave_way = False
        self._dispatch.guests[self._name] = self._give_way
        try:
            async with asyncio.timeout(READING_S_MAX) as self._deadline:
                return tuple([await first_spots(self._errands, call) for call in self._calls])
        except NoAnswerError as error:
            raise _Skipped(error.fault) from None
        except TimeoutError:
            raise _Skipped(Skip.GAVE_WAY if self._gave_way else Fault.BROKEN) from None
        finally:
            self._deadline = None
            del self._dispatch.guests[self._name]

    # --- what it means --------------------------------------------------------------------------------------------

    def _compare(self, reading: Reading, now_s: float) -> None:
        """Tell how far it is from the reference: drift from the second in a row that is too far, until one is not."""
        state = self._dispatch.router.endpoint(self._name).state
        before, trusted = state.drifted, state.trusted
        if self._reference is None or _is_another(self._of, trusted):
            self._reference, self._of, nats, far, drifted = reading, trusted, None, False, False
        else:
            found = distance(self._reference, reading)
            if found is None:
                raise _Skipped(Fault.NO_LOGPROBS)
            nats, far = found.mean_nats, judge(found)
            drifted = far and (before or self._suspected)
        self._suspected = far and not drifted
        wait_s = CONFIRM_S if self._suspected else RECHECK_S if drifted else self._every_s
        self._due_s = now_s + min(wait_s, self._every_s)
        self.status = Status(read_at_s=now_s, distance=nats)
        self._dispatch.metrics.canary_read(self._name, "far" if far else "near")
        self._dispatch.tell(Checked(endpoint=self._name, drifted=drifted, distance=nats), now_s)
        if drifted and not before:
            self._dispatch.log.event("warning", "model drifted", endpoint=self._name, distance_nats=nats)
        elif before and not drifted:
            self._dispatch.log.event("info", "model is as it was", endpoint=self._name, distance_nats=nats)

    def _skip(self, why: Skip | Fault, now_s: float) -> None:
        self.status = Status(read_at_s=self.status.read_at_s, distance=self.status.distance, skipped=why)
        if isinstance(why, Fault) or (why is Skip.GAVE_WAY and self._upstream.asks_money):
            # What was begun is paid for, also where nothing is learned from it.
            self._due_s = now_s + min(RECHECK_S, self._every_s)
        if why is Fault.BROKEN:
            self._rests_until_s = self._due_s
        if isinstance(why, Fault):
            self._dispatch.metrics.canary_read(self._name, why.value)


def _is_another(before: Fingerprint | None, now: Fingerprint | None) -> bool:
    """Whether operators have vouched for another model since."""
    return before is not None and now is not None and bool(differs(before, now, OF_THE_MODEL))
