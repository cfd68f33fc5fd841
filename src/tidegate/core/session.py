"""Conversations stay where they began: with the endpoint that served one last, or with one of the same model."""

from collections.abc import Collection, Mapping, Sequence
from math import inf

from tidegate.core.endpoint import EndpointModel
from tidegate.core.fingerprint import one_model
from tidegate.core.model import Fingerprint, Request
from tidegate.core.state import Pin

# A half megabyte of every snapshot; who has more conversations than that within an hour has the oldest ones forgotten.
PINS_MAX = 10_000
# Longer than people pause in a conversation, and than engines keep what they computed of one: what comes later is read
# anew wherever it goes.
PIN_S = 3600.0


class Sessions:
    """Which endpoint each conversation is at home with. `home` reads; `served` and `became` write."""

    __slots__ = ("_oldest_s", "_pins")

    def __init__(self, pins: dict[str, Pin]) -> None:
        """`pins` by conversation, the one that was used last at the end."""
        self._pins = pins
        # None was used before that: whom to look for behind all that went before needs no asking until then.
        self._oldest_s = -inf

    def home(
        self, request: Request, serving: Sequence[EndpointModel], models: Mapping[str, EndpointModel], now_s: float
    ) -> EndpointModel | None:
        """The endpoint whose model this conversation stays with; None where it may go anywhere.

        Where none of `serving` has that model any more there is nothing to stay with, and it begins anew: a refusal
        would be for ever.
        """
        pin = None if request.session_moves else self._pins.get(request.session)
        if pin is None or now_s - pin.used_s >= PIN_S:
            return None
        home = models.get(pin.endpoint)
        return home if home is not None and any(m.is_one_with(home) for m in serving) else None

    def begun(self, session: str, now_s: float) -> bool:
        """Whether this conversation was answered somewhere of late, wherever it may go on."""
        pin = self._pins.get(session)
        return pin is not None and now_s - pin.used_s < PIN_S

    def served(self, session: str, endpoint: str, now_s: float) -> None:
        """It was answered there: that is where it goes on."""
        pins = self._pins
        pins.pop(session, None)
        pins[session] = Pin(endpoint, now_s)
        while len(pins) > PINS_MAX or now_s - self._oldest_s >= PIN_S:
            oldest, pin = next(iter(pins.items()))
            self._oldest_s = pin.used_s
            if len(pins) <= PINS_MAX and now_s - pin.used_s < PIN_S:
                break
            del pins[oldest]

    def became(self, model: EndpointModel, before: Fingerprint, models: Mapping[str, EndpointModel]) -> None:
        """This endpoint serves another model than `before`: its conversations go on with who still has that one."""
        _hand_on(self._pins, model.name, before, {m.name: m.identity.fingerprint for m in models.values()})


def rehomed(pins: Mapping[str, Pin], models: Mapping[str, Fingerprint], stay: Collection[str]) -> dict[str, Pin]:
    """The pins after a reload: conversations of endpoints that do not `stay` go on with one that does, and has their
    model. `models` are what was known before the reload, by endpoint."""
    found = dict(pins)
    heirs = {name: one for name, one in models.items() if name in stay}
    for name, before in models.items():
        if name not in stay:
            _hand_on(found, name, before, heirs)
    return found


def _hand_on(pins: dict[str, Pin], endpoint: str, model: Fingerprint, heirs: Mapping[str, Fingerprint]) -> None:
    """What is pinned to this endpoint, for its `model`, goes on with who has that one, or begins anew."""
    heir = next((name for name, one in heirs.items() if one_model(model, one)), None)
    for session, pin in list(pins.items()):
        if pin.endpoint == endpoint:
            if heir is None:
                del pins[session]
            else:
                pins[session] = Pin(heir, pin.used_s)
