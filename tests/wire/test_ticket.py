import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate.wire.ticket import LIFE_S_MAX, TICKET_CHARS_MAX, Ticket, TicketError, sign, verify

SECRET = "0123456789abcdef0123456789abcdef"
TICKET = Ticket(
    id="00" * 16,
    source="a.example",
    target="b.example",
    fingerprint="11" * 32,
    bytes_max=1000,
    issued_s=1000.0,
    expires_s=1060.0,
)
TEXT = sign(TICKET, SECRET)

hexes = st.binary(min_size=16, max_size=16).map(bytes.hex)
names = st.from_regex(r"\A[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?\Z")
tickets = st.builds(
    Ticket,
    id=hexes,
    source=names,
    target=names,
    fingerprint=hexes.map(lambda half: half * 2),
    bytes_max=st.integers(1, 1 << 40),
    issued_s=st.just(1000.0),
    expires_s=st.floats(1001.0, 1000.0 + LIFE_S_MAX),
)


@given(tickets, st.text(min_size=1))
def test_a_ticket_survives_being_written_under_its_secret_and_no_other(ticket: Ticket, other: str) -> None:
    text = sign(ticket, SECRET)
    assert len(text) <= TICKET_CHARS_MAX
    assert verify(text, SECRET, 1000.5) == ticket
    if other != SECRET:
        with pytest.raises(TicketError):
            verify(text, other, 1000.5)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
@example("")
@example(".")
@example("é.é")
def test_any_other_text_is_refused_and_nothing_else_is_raised(text: str) -> None:
    with pytest.raises(TicketError):
        verify(text, SECRET, 1000.5)


@pytest.mark.lengthy
@given(st.data())
def test_a_ticket_with_one_character_changed_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TEXT) - 1))
    other = data.draw(st.characters(codec="latin-1").filter(lambda c: c != TEXT[at]))
    with pytest.raises(TicketError):
        verify(TEXT[:at] + other + TEXT[at + 1 :], SECRET, 1000.5)


@given(st.binary(max_size=300))
def test_whatever_is_signed_that_is_no_ticket_is_refused(payload: bytes) -> None:
    text = sign(msgspec.Raw(payload or b"0"), SECRET)  # type: ignore[arg-type]
    with pytest.raises(TicketError):
        verify(text, SECRET, 1000.5)


@pytest.mark.parametrize(("now_s", "fields", "said"), [
    (1060.0, {}, "expired 0 s ago"),
    (5000.0, {}, "expired 3940 s ago"),
    (900.0, {}, "issued 100 s ahead of this courier's clock"),
    (1000.5, {"expires_s": 1000.0 + LIFE_S_MAX + 1.0}, "good for more than 600 s"),
    (1000.5, {"id": "00" * 16 + "\n"}, "not what this courier takes for one"),
    (1000.5, {"target": "B.example"}, "not what this courier takes for one"),
    (1000.5, {"bytes_max": 0}, "not what this courier takes for one"),
])  # fmt: skip
def test_a_ticket_is_good_for_its_time_and_within_its_bounds(
    now_s: float, fields: dict[str, object], said: str
) -> None:
    with pytest.raises(TicketError, match=said):
        verify(sign(msgspec.structs.replace(TICKET, **fields), SECRET), SECRET, now_s)
