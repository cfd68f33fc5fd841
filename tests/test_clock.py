"""The calendar that money is counted by."""

from hypothesis import given
from hypothesis import strategies as st

from tidegate.clock import DAY_S, day, day_number, month_number, month_starts_s, utc

times = st.floats(0.0, 7_258_118_400.0)  # to the year 2200


@given(times)
def test_a_time_is_in_its_day_and_month(at_s: float) -> None:
    number = day_number(at_s)
    assert number * DAY_S <= at_s < (number + 1) * DAY_S
    assert day(number) == utc(at_s).date()
    month = month_number(number)
    assert month_starts_s(month) <= at_s < month_starts_s(month + 1)
    assert utc(month_starts_s(month)).isoformat()[8:] == "01T00:00:00+00:00"
