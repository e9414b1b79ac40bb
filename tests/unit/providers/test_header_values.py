"""A value of no known form is absent; a wait is never longer than a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.providers.header_values import (
    parse_amount,
    parse_duration,
    parse_http_date,
    parse_rfc3339,
    retry_after_seconds,
)

NONSENSE = [
    "",
    " ",
    "NaN",
    "nan",
    "inf",
    "-1",
    "-0.5",
    "banana",
    "1e5",
    "0x10",
    "1,000",
    "٣",
    "9" * 40,
]


@pytest.mark.parametrize("text", [None, *NONSENSE])
def test_nonsense_is_absent(text: str | None) -> None:
    headers = {} if text is None else {"retry-after": text, "retry-after-ms": text}

    assert parse_amount(text) is None
    assert parse_duration(text) is None
    assert parse_rfc3339(text) is None
    assert parse_http_date(text) is None
    assert retry_after_seconds(headers) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6ms", 0.006),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("2m5.5s", 125.5),
        ("1h2m3s", 3723.0),
        ("250µs", 0.00025),
        ("7.66s", 7.66),
        ("12", 12.0),
        ("0s", 0.0),
        ("3d", 86_400.0),
        ("999999999h", 86_400.0),
        ("5 s", None),
        ("s", None),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)),  # noqa: DTZ001 - hypothesis asks naive
    st.integers(-840, 840),
)
def test_dates_agree_with_the_standard_library(moment: datetime, offset_minutes: int) -> None:
    aware = moment.replace(tzinfo=UTC)
    shifted = aware.astimezone(timezone(timedelta(minutes=offset_minutes)))
    whole = aware.replace(microsecond=0)

    assert parse_rfc3339(shifted.isoformat()) == pytest.approx(aware.timestamp(), abs=1e-5)
    assert parse_rfc3339(f"{whole:%Y-%m-%dT%H:%M:%S}Z") == whole.timestamp()
    assert parse_http_date(f"{whole:%a, %d %b %Y %H:%M:%S} GMT") == whole.timestamp()


@pytest.mark.parametrize("text", ["2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01"])
def test_a_date_that_does_not_exist_is_absent(text: str) -> None:
    assert parse_rfc3339(text) is None


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
        ({"retry-after-ms": "banana", "retry-after": "9"}, "", 9.0),
        ({"retry-after": "0"}, "Please try again in 6ms", 0.0),
        ({"retry-after": "99999999"}, "", 86_400.0),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            "",
            30.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, "", None),
        ({}, "Please try again in 6m0s. Visit the page.", 360.0),
        ({}, "Please try again in 20s.", 20.0),
        ({}, "Please retry after 6 seconds.", 6.0),
        ({}, "Please try again in 120 milliseconds", 0.12),
        ({}, "Please try again later", None),
    ],
)
def test_the_wait_is_taken_from_the_first_usable_source(
    headers: dict[str, str], message: str, seconds: float | None
) -> None:
    assert retry_after_seconds(headers, message) == seconds
