"""Bytes of ours that are on their way to an endpoint: those of the next request are carried behind them.

Connections share a link, and among requests alike it makes no difference to the sum of their times whether each is
carried in turn or all at once: what is sent first is taken to arrive first. How far the line is with them is known from
each upload that was timed, and between two of these from the rate that is believed.
"""

import msgspec

from tidegate.core.record import Fixed


class Carried(Fixed, frozen=True):
    """What the line carries from `since_s` on until one request is there: so many bytes, its own at the end of them.

    They are there once the line has carried the first `mark` of all that was ever sent.
    """

    since_s: float
    upload_bytes: int
    mark: int


class Line(msgspec.Struct):
    """What was sent to an endpoint: `sent_bytes` in all, of which the first `carried_bytes` were there at `at_s`.

    What is still to be carried says `ahead_bytes`.
    """

    sent_bytes: int = 0
    carried_bytes: int = 0
    at_s: float = 0.0

    def arrived(self, carried: Carried, at_s: float) -> None:
        """All of one request is there, and with it what was sent before; of two at one time the later one."""
        if (at_s, carried.mark) > (self.at_s, self.carried_bytes):
            self.at_s, self.carried_bytes = at_s, carried.mark

    def clear(self, now_s: float) -> None:
        """Nothing is under way any more: what was not there went with its connection."""
        self.carried_bytes, self.at_s = self.sent_bytes, now_s


# Every prediction and every attempt asks: a function takes half as long as a method of a record does where this is
# compiled.
def ahead_bytes(line: Line, bytes_per_s: float, now_s: float) -> float:
    """So many are still to be carried before the next request's, where the line carries `bytes_per_s`."""
    left = line.sent_bytes - line.carried_bytes
    if not left:
        return 0.0
    left_bytes = left - bytes_per_s * (now_s - line.at_s)
    return left_bytes if left_bytes > 0.0 else 0.0


def send(line: Line, upload_bytes: int, bytes_per_s: float, now_s: float) -> Carried:
    """One more request is on its way, behind the others."""
    if not ahead_bytes(line, bytes_per_s, now_s):
        line.carried_bytes, line.at_s = line.sent_bytes, now_s
    line.sent_bytes += upload_bytes
    return Carried(line.at_s, line.sent_bytes - line.carried_bytes, line.sent_bytes)
