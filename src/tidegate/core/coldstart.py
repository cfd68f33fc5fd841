"""Cold starts: how likely a model has to be loaded before it can answer, and how long that takes.

Engines unload what nobody asks for, swap one model for another, and fleets behind APIs scale to zero. Few of them tell.
So of each endpoint is learned, by the time since it was last used, which share of attempts met a cold start; and from
those that did, how long a load takes. Whether an attempt met one is seldom known either: it is inferred, as the
responsibility of a cold start for its time to first content (the E-step of a mixture), and counts for as much.

All that is learned are decayed sums: they have no order, and those of two processes add up.
"""

from math import exp, inf, log
from typing import Final

from tidegate.core.edges import place_after
from tidegate.core.hazard import (
    IDLE_EDGES_S,
    IDLE_S_MAX,
    LONG_STRENGTH,
    both,
    by_idle,
    cold_share,
    joined,
    learn_level,
    learn_outcome,
    prior_shares,
    slower_from,
)
from tidegate.core.latency import TRUST_MIN
from tidegate.core.loading import LEAST_S, Loads, remaining, together
from tidegate.core.mixture import RESPONSIBLE_MIN, Mixture
from tidegate.core.model import Ended
from tidegate.core.record import Fixed
from tidegate.core.reserve import ColdSent, Reservation
from tidegate.core.state import ColdState, Loading

# What an engine tells is nearly always so, unless it was found to be wrong.
RESIDENT_SHARE: Final = 0.01
AWAY_SHARE: Final = 0.97
TOLD_STRENGTH: Final = 4.0
# A probe tells of the past: for three of its usual intervals what it saw is taken for now, then for less and less.
TOLD_FRESH_S: Final = 15.0
TOLD_HALF_LIFE_S: Final = 30.0
# A chance that is smaller than this is none: it would move no quantile that anybody asks for.
SHARE_MIN: Final = 0.02
# Above, a cold start explains what was measured better than a slow engine does.
RESPONSIBLE: Final = 0.5
# A load that takes more than so many deviations of what an answer's tokens take is told from them.
UNSEEN_DEVIATIONS: Final = 4.0
# Less is not told apart: it would only make a logarithm large.
TTFT_S_MIN: Final = 0.001


class Cold(Fixed, frozen=True):
    """The chance of a cold start, and what it would add: its median and the deviation of its logarithm."""

    share: float
    load_s: float
    sigma: float

    @property
    def load_s_mean(self) -> float:
        """What the load takes on average, where there is one."""
        return self.load_s * exp(self.sigma * self.sigma / 2.0)


WARM: Final = Cold(0.0, 0.0, 0.0)


class ColdModel:
    """Predicts and learns cold starts of one endpoint. `at` reads; all else but `expects` writes.

    Nothing is learned by class of request: what is rare is rare for the whole endpoint, since a model is there for all
    of them or for none. Where one engine swaps models, each of its endpoints finds out by itself how soon it is
    swapped out.
    """

    __slots__ = (
        "_at_once",
        "_hot",
        "_later",
        "_load",
        "_prior",
        "_prior_load_s",
        "_unload_after_s",
        "_used_s",
        "state",
    )

    def __init__(self, load_s: float, unload_after_s: float | None, state: ColdState | None = None) -> None:
        """`load_s` is what a load is believed to take, `unload_after_s` after which time without use the model is
        believed to be unloaded, None is never."""
        self.state = ColdState() if state is None else state
        self._used_s = -inf if self.state.used_s is None else self.state.used_s
        # What follows from the sums, until they change.
        self._at_once: float
        self._later: list[float] | None
        self._load: tuple[float, float] | None
        self._hot: bool
        self._prior_load_s, self._unload_after_s = max(load_s, LEAST_S), unload_after_s
        self._prior = prior_shares(unload_after_s)
        self._changed()

    def expects(self, load_s: float, unload_after_s: float | None) -> None:
        """Believe this of what was not measured."""
        believed = max(load_s, LEAST_S), unload_after_s
        if believed != (self._prior_load_s, self._unload_after_s):
            self._prior_load_s, self._unload_after_s = believed
            self._prior = prior_shares(unload_after_s)
            self._changed()

    def forget_loads(self) -> None:
        """The model is another one: how long its loads took says nothing any more."""
        self.state.loads, self._load = Loads(), None

    # --- to read ------------------------------------------------------------------------------------------------

    def at(self, now_s: float, in_flight: int) -> Cold:
        """The chance of a cold start for a request that is sent now, beside so many others."""
        loading = self.state.warm_up.loading or self.state.loading
        if loading is not None:
            return self._joined(loading, now_s)
        if in_flight or (self._hot and now_s - self._used_s < IDLE_EDGES_S[0]):
            return WARM
        share = self._share(now_s)
        return WARM if share < SHARE_MIN else Cold(share, *self._loads(now_s))

    def idle_s(self, now_s: float) -> float:
        """For how long nobody has used it; infinite where nobody ever has."""
        return now_s - self._used_s

    def load_s_mean(self, now_s: float) -> float:
        """What a load takes on average."""
        return Cold(1.0, *self._loads(now_s)).load_s_mean

    @property
    def leaves_s(self) -> float:
        """After which time without use it is more likely than not to be unloaded; infinite where it stays."""
        found_s = inf if self._unload_after_s is None else self._unload_after_s
        for low_s, share in zip(IDLE_EDGES_S, self._by_idle(), strict=True):
            if share > RESPONSIBLE:
                return min(low_s, found_s)
        return found_s

    @staticmethod
    def was_hot(sent: ColdSent | None) -> bool:
        """Whether the model had just been used when an attempt was sent: its silence is no load."""
        return sent is not None and sent.idle_s is not None and sent.idle_s < IDLE_EDGES_S[0]

    def resident(self) -> bool | None:
        """What the engine has told since the last use: whether the model is there, None where nothing.

        It may list what it loads as if it were there: up to the end of a wait in vain, that says nothing.
        """
        state = self.state
        if state.told_s <= self._used_s or (
            state.told and state.waited_s is not None and state.told_s <= state.waited_s
        ):
            return None
        return state.told

    # --- learning -----------------------------------------------------------------------------------------------

    def started(
        self,
        warm_s: float,
        warm_sigma: float,
        now_s: float,
        in_flight: int,
        *,
        measured: bool = True,
        believed_s: float | None = None,
    ) -> ColdSent | None:
        """An attempt is sent beside `in_flight` others; `warm_s` is its time to first content, as predicted for a model
        that is there, with the deviation of its logarithm; `measured`, or as was declared. What was believed of it
        before anything was measured is `believed_s`, the same by default. None where it will tell nothing of cold
        starts."""
        state = self.state
        warm_up = state.warm_up.loading
        if warm_up is not None:
            if not in_flight:
                state.began_s = now_s
            joined = self._joined(warm_up, now_s)
            return ColdSent(Mixture(warm_s, warm_sigma, joined.share, joined.load_s, joined.sigma, measured))
        if not in_flight:
            state.began_s = now_s
        elif state.began_s != now_s:
            if state.loading is None:
                return None
            joined = self._joined(state.loading, now_s)
            return ColdSent(Mixture(warm_s, warm_sigma, joined.share, joined.load_s, joined.sigma, measured))
        idle_s = now_s - self._used_s
        load_s, sigma = self._loads(now_s)
        predicted = Mixture(warm_s, warm_sigma, self._share(now_s), load_s, sigma, measured)
        if not self._hot or idle_s >= IDLE_EDGES_S[0]:
            loading = state.loading
            # Those that were sent in one moment wait for the same load, whichever of them was first.
            if loading is None or loading.predicted.warm_s < warm_s:
                state.loading = Loading(now_s, predicted)
        if state.told_loading_s is not None:
            return ColdSent(predicted)
        after_wait = state.waited_s is not None and state.waited_s > self._used_s
        return ColdSent(predicted, min(idle_s, IDLE_S_MAX), self.resident(), after_wait, believed_s or warm_s)

    def used(self, now_s: float) -> None:
        """The model is there: an attempt has shown content, or ended after that."""
        self._used_s = max(self._used_s, now_s)
        self.state.used_s = self._used_s
        self.state.loading = None
        self.state.told_loading_s = None
        warm_up = self.state.warm_up
        warm_up.loading = None
        if warm_up.missed_usd:
            warm_up.toll_usd, warm_up.missed_usd = warm_up.missed_usd, 0.0
        self._see_hot()

    def ended(self, in_flight: int, now_s: float) -> None:
        """An attempt is over, beside `in_flight` others that are not. Where nobody waits for a load any more, nobody
        knows whether it goes on, and the next one has to expect all of it."""
        state = self.state
        if state.loading is not None:
            state.waited_s = now_s
        if not in_flight:
            state.began_s = state.loading = None

    def begin_warm_up(self, warm_s: float, warm_sigma: float, now_s: float, in_flight: int) -> None:
        """It is loaded for nobody in particular, by a request that would have its first content after `warm_s`."""
        state = self.state
        load_s, sigma = self._loads(now_s)
        predicted = Mixture(warm_s, warm_sigma, self.at(now_s, in_flight).share, load_s, sigma)
        # Who waits already will tell of the load, and of the engine's own nobody knows when it began.
        alone = not in_flight and state.told_loading_s is None
        after_wait = state.waited_s is not None and state.waited_s > self._used_s
        idle_s = min(now_s - self._used_s, IDLE_S_MAX) if alone else None
        state.warm_up.loading = Loading(now_s, predicted) if state.loading is None else state.loading
        state.warm_up.sent = ColdSent(predicted, idle_s, self.resident(), after_wait, warm_s)

    def end_warm_up(self, took_s: float | None, now_s: float) -> None:
        """That is over: the model was there after `took_s`, None where it could not be loaded."""
        warm_up = self.state.warm_up
        sent, warm_up.sent, warm_up.loading = warm_up.sent, None, None
        if took_s is None:
            return
        if sent is not None and sent.idle_s is not None:
            self.learn(sent, took_s, now_s)
        self.used(now_s)

    def learn_first(self, sent: Reservation, ttft_s: float, now_s: float) -> None:
        """Take in when its first content came, and tell it whether a load explains that."""
        if sent.teaches and sent.cold is not None:
            sent.was_cold = self.learn(sent.cold, ttft_s, now_s) > RESPONSIBLE

    def learn_whole(self, sent: Reservation, fact: Ended, now_s: float) -> None:
        """Of an answer that nobody saw begin: what it took beyond its tokens. Where these were hardly measured and no
        load is expected, or where they scatter by as much as one takes, nobody can tell one from the other."""
        if sent.cold is None:
            return
        if fact.ttft_s is not None:
            self.learn_first(sent, fact.ttft_s, now_s)
        elif fact.output_tokens is not None and (sent.tpot.trust > TRUST_MIN or sent.load_s):
            warm = sent.cold.predicted
            rest_s = max(0.0, fact.output_tokens / sent.completions - 1.0) * sent.tpot.median_s
            if UNSEEN_DEVIATIONS * sent.tpot.sigma * rest_s < warm.load_s:
                self.learn_first(sent, max(fact.e2e_s - rest_s, warm.warm_s), now_s)

    def explains(self, sent: Reservation, waited_s: float, now_s: float) -> bool:
        """Whether a load explains that nothing has come for so long; that teaches in any case."""
        return sent.cold is not None and self.learn_silence(sent.cold, waited_s, now_s) > RESPONSIBLE

    def learn(self, sent: ColdSent, ttft_s: float, now_s: float) -> float:
        """Take in the time to first content of an attempt, and return the responsibility of a cold start for it."""
        self._compare(sent, ttft_s, now_s)
        added_s = ttft_s - sent.predicted.warm_s
        cold = sent.predicted.responsibility(ttft_s) if added_s >= LEAST_S else 0.0
        # What was loaded for somebody who left is there, however soon it would have been unloaded.
        self._learn(sent, cold if sent.after_wait else 1.0, cold, now_s)
        if cold and sent.idle_s is not None:
            self.state.loads.learn(cold, added_s, now_s)
            self._load = None
        return cold

    def learn_silence(self, sent: ColdSent, waited_s: float, now_s: float) -> float:
        """Take in that an attempt was given up after `waited_s` without content; see `learn`.

        It counts for as much as the wait made a cold start likelier, and never for a warm one: who leaves early must
        not make an endpoint look quicker.
        """
        predicted = sent.predicted
        cold = predicted.waiting_share(waited_s)
        news = (cold - predicted.cold_share) / (1.0 - predicted.cold_share) if predicted.cold_share < 1.0 else 0.0
        if news >= RESPONSIBLE_MIN:
            self._learn(sent, news, news, now_s)
        if cold > RESPONSIBLE and sent.idle_s is not None:
            self.state.loads.learn_wait(waited_s - predicted.warm_s, now_s)
            self._load = None
        return cold

    def told(self, resident: bool | None, now_s: float, *, loading: bool = False, back: bool = False) -> None:
        """A probe heard whether the model is there, or on its way; None: nothing was heard. Of an engine that is `back`
        after it was down, what it told before says nothing any more."""
        state = self.state
        if resident is None and not loading:
            if back:
                state.told = state.told_loading_s = None
                self._see_hot()
            return
        since_s = now_s if state.told_loading_s is None else state.told_loading_s
        state.told_loading_s = since_s if loading else None
        if resident is None:
            return
        if state.told is None or now_s > state.told_s:
            state.told, state.told_s = resident, now_s
        else:
            state.told = state.told and resident
        self._see_hot()

    def _compare(self, sent: ColdSent, ttft_s: float, now_s: float) -> None:
        """Whether it is the time without use that tells long waits from short ones, whoever is thought responsible."""
        if sent.idle_s is None or sent.resident is not None:
            return
        log_ratio = log(max(ttft_s, TTFT_S_MIN) / max(sent.believed_s, TTFT_S_MIN))
        learn_level(self.state.levels[place_after(IDLE_EDGES_S, sent.idle_s)], log_ratio, now_s)
        self._later = None

    def _believed(self) -> list[float]:
        """What is believed by the time since the last use where nothing of cold starts is known: as declared, or as
        long waits suggest."""
        found = slower_from(self.state.levels)
        if found is None:
            return self._prior
        seen_s, after_s = IDLE_EDGES_S[found - 1], self._unload_after_s
        return prior_shares(seen_s if after_s is None or seen_s < after_s else after_s)

    # --- what follows from the state ----------------------------------------------------------------------------

    def _changed(self) -> None:
        self._load = self._later = None
        self._see_at_once()

    def _see_at_once(self) -> None:
        outcomes, prior_share = self.state.idle[0], self._prior[0]
        proven = outcomes.long_cold or prior_share >= SHARE_MIN
        self._at_once = cold_share(outcomes, prior_share, LONG_STRENGTH) if proven else prior_share
        self._see_hot()

    def _see_hot(self) -> None:
        self._hot = self._at_once < SHARE_MIN and self.resident() is not False

    def _by_idle(self) -> list[float]:
        """The chance by the time since the last use, beyond the first of the bins.

        Where nothing speaks for cold starts, that they are rare need not be proved.
        """
        if self._later is None:
            idle, prior = self.state.idle[1:], self._believed()[1:]
            proven = prior[-1] >= SHARE_MIN or any(outcomes.long_cold for outcomes in idle)
            at_s = max(outcomes.at_s for outcomes in self.state.idle)
            self._later = by_idle(idle, prior, at_s) if proven else prior
        return self._later

    def _share(self, now_s: float) -> float:
        share, index = self._at_once, place_after(IDLE_EDGES_S, now_s - self._used_s)
        if index:
            # Nearly all attempts come within the first bin: what they show is the least for the others, and no more.
            share = max(share, self._by_idle()[index - 1])
        told = self.resident()
        if told is None:
            return share
        state = self.state
        if told:
            of = cold_share(state.resident, RESIDENT_SHARE, TOLD_STRENGTH)
        else:
            of = cold_share(state.away, AWAY_SHARE, TOLD_STRENGTH)
        old_s = now_s - state.told_s - TOLD_FRESH_S
        return share + (of - share) * (0.5 ** (old_s / TOLD_HALF_LIFE_S) if old_s > 0.0 else 1.0)

    def _loads(self, now_s: float) -> tuple[float, float]:
        """Median and deviation of a load, or of what is left of the one that the engine tells of."""
        if self._load is None:
            self._load = self.state.loads.median_and_sigma(self._prior_load_s)
        seconds, sigma = self._load
        since_s = self.state.told_loading_s
        return (seconds, sigma) if since_s is None else remaining(seconds, sigma, now_s - since_s)

    def _joined(self, loading: Loading, now_s: float) -> Cold:
        """What is left of a load that another attempt waits for, if it is one."""
        waited_s = now_s - loading.since_s
        predicted = loading.predicted
        share = predicted.waiting_share(waited_s)
        if share < SHARE_MIN:
            return WARM
        return Cold(share, *remaining(predicted.load_s, predicted.load_sigma, waited_s))

    def _learn(self, sent: ColdSent, count: float, cold: float, now_s: float) -> None:
        if sent.idle_s is None:
            return
        index = place_after(IDLE_EDGES_S, sent.idle_s)
        learn_outcome(self.state.idle[index], count, cold, now_s)
        if sent.resident is not None:
            learn_outcome(self.state.resident if sent.resident else self.state.away, count, cold, now_s)
        # Also what was attempted after a shorter pause: what is recent among the others is so less since then.
        self._later = None
        if not index:
            self._see_at_once()


# --- two processes --------------------------------------------------------------------------------------------------


def combined(one: ColdState, other: ColdState) -> ColdState:
    """What both have learned of the same endpoint, and what was told last. What is in flight stays with its process."""
    used_s = [state.used_s for state in (one, other) if state.used_s is not None]
    waited_s = [state.waited_s for state in (one, other) if state.waited_s is not None]
    newer = max(one, other, key=lambda state: (state.told is not None, state.told_s, not state.told))
    return ColdState(
        idle=[both(a, b) for a, b in zip(one.idle, other.idle, strict=True)],
        levels=[joined(a, b) for a, b in zip(one.levels, other.levels, strict=True)],
        resident=both(one.resident, other.resident),
        away=both(one.away, other.away),
        loads=together(one.loads, other.loads),
        used_s=max(used_s, default=None),
        waited_s=max(waited_s, default=None),
        told=newer.told,
        told_s=newer.told_s,
    )
