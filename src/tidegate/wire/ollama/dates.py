"""Dates as Ollama writes them, from seconds since 1970: reading no clock and no time zone."""

_DAY_S = 86_400
# Days from 0000-03-01, where years of this reckoning begin, to 1970-01-01; and in 400 of them.
_EPOCH_DAYS = 719_468
_ERA_DAYS = 146_097


def rfc3339(seconds: float) -> str:
    """`2026-01-31T12:00:00.250000Z`, the proleptic Gregorian calendar in UTC."""
    micros = round(seconds * 1_000_000)
    days, rest = divmod(micros, _DAY_S * 1_000_000)
    second, micro = divmod(rest, 1_000_000)
    year, month, day = _date(days)
    hour, minute = second // 3600, second // 60 % 60
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second % 60:02}.{micro:06}Z"


def _date(days: int) -> tuple[int, int, int]:
    """Howard Hinnant's `civil_from_days`: years that begin in March have their leap day at the end."""
    era, day = divmod(days + _EPOCH_DAYS, _ERA_DAYS)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    month = month + 3 if month < 10 else month - 9
    return era * 400 + year + (month <= 2), month, day + 1
