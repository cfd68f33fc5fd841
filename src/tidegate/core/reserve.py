"""Work in flight: what we have put on an endpoint and it has not finished."""

import msgspec


class Reservation(msgspec.Struct, kw_only=True):
    """One attempt under way, with what was predicted when it was sent, so that its ending can teach.

    `raw_s` is the engine's share of TTFT before the learned correction, `prefill_s` the corrected time its prefill
    occupies the engine, `load` how many others were in flight. Times in seconds.
    """

    started_s: float
    klass: str
    prompt_tokens: int
    output_tokens: float
    output_tokens_max: int | None
    load: int
    network_s: float
    wait_s: float
    prefill_s: float
    raw_s: float
    ttft_s: float
    ttft_s_high: float
    tpot_s: float
    tpot_raw_s: float
    first_s: float | None = None

    def ends_s(self, now_s: float) -> float:
        """When it is expected to free its slot.

        One that is overdue is expected to need a fifth of its age more: what has lasted long tends to last.
        """
        begun_s = self.first_s if self.first_s is not None else self.started_s + self.ttft_s
        expected_s = max(begun_s, now_s if self.first_s is None else 0.0) + self.output_tokens * self.tpot_s
        return max(expected_s, now_s + 0.2 * (now_s - self.started_s) + 0.001)


def prefills_done_s(reservations: dict[str, Reservation], now_s: float) -> float:
    """When an engine that works on one prefill after the other will have finished those it was given."""
    done_s = now_s
    for index, reservation in enumerate(r for r in reservations.values() if r.first_s is None):
        spent_s = now_s - reservation.started_s - reservation.network_s if index == 0 else 0.0
        # What should be done by now is about to be: a tenth is left of it.
        done_s += max(reservation.prefill_s - max(0.0, spent_s), 0.1 * reservation.prefill_s)
    return done_s
