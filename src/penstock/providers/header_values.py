"""Numbers, durations and dates as providers write them in headers and messages.

A header is a hint from a stranger: whatever is not exactly of a known form (``NaN``, ``-1``,
``banana``, forty digits) is read as absent, never guessed at, and no wait exceeds a day. Dates
are compared with the answer's own ``Date`` where it has one, so that a skewed clock on either
side changes nothing. The calendar is computed here (days from civil, H. Hinnant's formula):
the pure floor has no clock module, and two formats need no more than this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

SECONDS_MAX = 86_400.0
AMOUNT_MAX = 1e12

_NUMBER = re.compile(r"\d{1,15}(?:\.\d{0,9})?")
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|us|µs|ns|[dhms]))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|[dhms])", re.ASCII)
_SECONDS = {
    "d": 86_400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_HTTP_DATE = re.compile(
    r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WAIT_IN_TEXT = re.compile(
    r"(?:try again|retry) (?:in|after) ([0-9][0-9.a-zµ]{0,40})( seconds?\b| milliseconds?\b)?",
    re.IGNORECASE,
)


def parse_amount(text: str | None) -> float | None:
    """A plain decimal number from 0 to 1e12; None for anything else."""
    if text is None or not text.isascii():
        return None
    text = text.strip()
    if _NUMBER.fullmatch(text) is None:
        return None
    amount = float(text)
    return amount if amount <= AMOUNT_MAX else None


def parse_duration(text: str | None) -> float | None:
    """Seconds, at most a day, of ``6ms``, ``1s``, ``6m0s``, ``2m5.5s``, ``1h2m3s``, ``12``."""
    if text is None or len(text) > 64:
        return None
    text = text.strip()
    seconds = parse_amount(text)
    if seconds is None and _DURATION.fullmatch(text):
        parts = _DURATION_PART.findall(text)
        seconds = sum(float(amount) * _SECONDS[unit] for amount, unit in parts)
    return None if seconds is None else min(seconds, SECONDS_MAX)


def parse_rfc3339(text: str | None) -> float | None:
    """Unix time of ``2026-11-03T12:00:00Z``, with fractions and offsets."""
    match = _RFC3339.fullmatch(text.strip()) if text and len(text) <= 64 else None
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    unix = _unix(year, month, day, (hour, minute, second))
    if unix is None:
        return None
    fraction, sign, offset_hours, offset_minutes = match.groups()[6:]
    if fraction:
        unix += float(fraction)
    if sign:
        offset_seconds = int(offset_hours) * 3600.0 + int(offset_minutes) * 60.0
        unix += -offset_seconds if sign == "+" else offset_seconds
    return unix


def parse_http_date(text: str | None) -> float | None:
    """Unix time of ``Wed, 21 Oct 2026 07:28:00 GMT`` (RFC 9110); None for older forms."""
    match = _HTTP_DATE.fullmatch(text.strip()) if text and len(text) <= 64 else None
    if match is None or match[2] not in _MONTHS:
        return None
    clock = (int(match[4]), int(match[5]), int(match[6]))
    return _unix(int(match[3]), _MONTHS.index(match[2]) + 1, int(match[1]), clock)


def retry_after_seconds(headers: Mapping[str, str], message: str = "") -> float | None:
    """How long the provider asks to wait; at most a day; None where it says nothing usable.

    In the order of the SDKs: ``retry-after-ms``, ``retry-after`` in seconds or as a date (read
    against the answer's own ``date``), then the message's "Please try again in 6m0s".
    """
    milliseconds = parse_amount(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000.0, SECONDS_MAX)
    stated = headers.get("retry-after")
    seconds = parse_amount(stated)
    if seconds is not None:
        return min(seconds, SECONDS_MAX)
    until, sent = parse_http_date(stated), parse_http_date(headers.get("date"))
    if until is not None and sent is not None:
        return min(max(until - sent, 0.0), SECONDS_MAX)
    match = _WAIT_IN_TEXT.search(message)
    if match is None:
        return None
    # "try again in 20s." ends a sentence: the full stop is no part of the number.
    seconds = parse_duration(match[1].rstrip("."))
    if seconds is not None and match[2] and "milli" in match[2].lower():
        seconds /= 1000.0
    return seconds


def _unix(year: int, month: int, day: int, clock: tuple[int, int, int]) -> float | None:
    hour, minute, second = clock
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days_in_month = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= days_in_month[month - 1]):
        return None
    if hour > 23 or minute > 59 or second > 60:  # 60: a leap second
        return None
    # Years are counted from March, so that a leap day is the last day of its year.
    years = year - (month <= 2)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = years * 365 + years // 4 - years // 100 + years // 400 + day_of_year - 719_468
    return days * 86_400.0 + hour * 3600.0 + minute * 60.0 + second
