import msgspec
import pytest

from tests.wire.test_ticket import SECRET, TEXT, TICKET
from tidegate.courier.admission import USED_MAX, Admission
from tidegate.courier.refusal import RefusalError


def test_a_ticket_is_used_once() -> None:
    admission = Admission(SECRET, 1, started_s=900.0)
    assert admission.read(TEXT, 1000.5) == TICKET
    admission.fresh(TICKET, 1000.5)
    admission.use(TICKET, 1000.5)
    with pytest.raises(RefusalError, match="replayed"):
        admission.fresh(TICKET, 1000.6)


def test_a_ticket_from_before_the_start_may_have_been_used_by_an_earlier_process() -> None:
    with pytest.raises(RefusalError, match="replayed"):
        Admission(SECRET, 1, started_s=1030.0).fresh(TICKET, 1031.0)


def test_what_is_remembered_is_bounded_and_nothing_is_forgotten_before_its_time() -> None:
    admission = Admission(SECRET, 1, started_s=900.0)
    for n in range(USED_MAX):
        admission.use(msgspec.structs.replace(TICKET, id=f"{n:032x}"), 1000.5)
    other = msgspec.structs.replace(TICKET, id="f" * 32, expires_s=1500.0)
    with pytest.raises(RefusalError, match="full"):
        admission.fresh(other, 1000.5)
    admission.fresh(other, 1061.0)


def test_no_more_transfers_than_allowed_are_under_way() -> None:
    admission = Admission(SECRET, 1, started_s=900.0)
    with admission.transfer(), pytest.raises(RefusalError, match="full"), admission.transfer():
        pass
    with admission.transfer():
        pass
