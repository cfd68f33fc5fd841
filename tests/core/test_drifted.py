"""What the core makes of a model that is no longer what it was."""

import msgspec
import pytest

from tests import make
from tidegate.core.model import Checked, Fact, Likeness, Line
from tidegate.core.revive import revived
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.core.why import Why

DRIFTED = Checked(endpoint="laptop", drifted=True, distance=0.8)
STRICT = make.request(likeness=Likeness.IDENTICAL)


def why(router: Router, name: str = "laptop", likeness: Likeness = Likeness.IDENTICAL) -> Why | None:
    found = router.candidates(make.request(likeness=likeness), 0.0)
    return next(c.excluded for c in found if c.endpoint == name)


def test_what_drifted_serves_nobody_who_asks_for_the_identical_model() -> None:
    router = make.router()
    assert why(router) is None
    router.observe(DRIFTED, 0.0)
    assert why(router) is Why.NOT_ALIKE
    assert why(router, "cloud") is None
    assert router.decide(STRICT, 0.0).why is Why.ONLY_ALIKE


@pytest.mark.parametrize("likeness", [Likeness.SAME_FAMILY, Likeness.SUBSTITUTE])
def test_what_drifted_still_serves_who_takes_the_same_family(likeness: Likeness) -> None:
    router = make.router()
    router.observe(DRIFTED, 0.0)
    assert why(router, likeness=likeness) is None


def test_what_is_as_it_was_again_serves_everybody_again() -> None:
    router = make.router()
    router.observe(DRIFTED, 0.0)
    router.observe(Checked(endpoint="laptop", drifted=False, distance=0.0), 1.0)
    assert why(router) is None


def test_drift_makes_a_substitute_no_better() -> None:
    router = make.router(make.endpoint("laptop", likeness={"m": Likeness.SUBSTITUTE}))
    router.observe(DRIFTED, 0.0)
    assert why(router, likeness=Likeness.SAME_FAMILY) is Why.NOT_ALIKE
    assert why(router, likeness=Likeness.SUBSTITUTE) is None


def test_an_endpoint_that_is_gone_is_not_missed() -> None:
    router = make.router()
    router.observe(Checked(endpoint="gone", drifted=True), 0.0)
    assert why(router) is None


def test_a_segment_that_begins_while_it_is_drifted_begins_so() -> None:
    router = make.router()
    router.observe(DRIFTED, 0.0)
    state = msgspec.json.decode(router.snapshot(), type=State)
    endpoints = (make.endpoint("laptop"), make.endpoint("cloud", local=False))
    assert why(Router(endpoints, make.policy(), state)) is Why.NOT_ALIKE


def test_a_restart_trusts_anew() -> None:
    router = make.router()
    router.observe(DRIFTED, 0.0)
    state = msgspec.json.decode(router.snapshot(), type=State)
    assert state.endpoints["laptop"].drifted
    assert not revived(state, {"laptop"}, 1.0).endpoints["laptop"].drifted


def test_a_state_from_before_there_were_canaries_is_read() -> None:
    text = make.router().snapshot()
    assert b'"drifted":false' in bytes(text)
    old = bytes(text).replace(b',"drifted":false', b"")
    assert not msgspec.json.decode(old, type=State).endpoints["laptop"].drifted


def test_the_fact_survives_the_journal() -> None:
    line = Line(at_s=1.0, fact=DRIFTED)
    assert msgspec.json.decode(msgspec.json.encode(line), type=Line) == line
    assert isinstance(DRIFTED, Fact)
