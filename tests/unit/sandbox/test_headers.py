"""Limit headers have the formats that the providers publish."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sandbox.headers import (
    anthropic_limit_headers,
    go_duration,
    openai_limit_headers,
    retry_headers,
    rfc3339,
)
from penstock.units import LimitName, LimitReading


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (0.006, "6ms"),
        (0.1, "100ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (9.816, "9.816s"),
        (125.5, "2m5.5s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (86_399.999, "23h59m59.999s"),
        (0.0001, "1ms"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds, expected):
    assert expected == go_duration(seconds)


@given(st.floats(0, 1e6))
def test_a_duration_is_never_shorter_than_it_was(seconds):
    text = go_duration(seconds)
    told = 0.0
    for unit, factor in (("h", 3600), ("m", 60)):
        head, found, tail = text.partition(unit)
        if found and not tail.startswith("s"):
            told, text = told + factor * int(head), tail
    told += float(text[:-2]) / 1000 if text.endswith("ms") else float(text[:-1])

    assert seconds - 1e-6 <= told <= seconds + 0.0011


def test_times_are_rfc_3339_rounded_up_to_the_second():
    assert rfc3339(0.2) == "1970-01-01T00:00:01Z"


def reading(limit: LimitName, capacity: float, remaining: float, reset: float) -> LimitReading:
    return LimitReading(limit=limit, capacity=capacity, remaining=remaining, reset_seconds=reset)


def test_openai_tells_requests_and_tokens():
    readings = {
        LimitName.RPM: reading(LimitName.RPM, 600, 598.7, 0.13),
        LimitName.TPM: reading(LimitName.TPM, 150_000, 149_984, 0.0064),
    }

    assert dict(openai_limit_headers(readings)) == {
        b"x-ratelimit-limit-requests": b"600",
        b"x-ratelimit-remaining-requests": b"598",
        b"x-ratelimit-reset-requests": b"130ms",
        b"x-ratelimit-limit-tokens": b"150000",
        b"x-ratelimit-remaining-tokens": b"149984",
        b"x-ratelimit-reset-tokens": b"7ms",
    }


def test_openai_tells_the_day_s_requests_where_there_is_no_minute_s():
    readings = {LimitName.RPD: reading(LimitName.RPD, 10_000, 9_999, 8.64)}

    assert (b"x-ratelimit-reset-requests", b"8.64s") in openai_limit_headers(readings)


def test_anthropic_rounds_tokens_to_thousands_and_sums_them_up():
    readings = {
        LimitName.RPM: reading(LimitName.RPM, 50, 49.2, 1.2),
        LimitName.ITPM: reading(LimitName.ITPM, 40_000, 39_499, 1),
        LimitName.OTPM: reading(LimitName.OTPM, 8_000, 7_600, 3),
    }
    headers = dict(anthropic_limit_headers(readings, wall=0.0))

    assert headers[b"anthropic-ratelimit-requests-remaining"] == b"49"
    assert headers[b"anthropic-ratelimit-requests-reset"] == b"1970-01-01T00:00:02Z"
    assert headers[b"anthropic-ratelimit-input-tokens-remaining"] == b"39000"
    assert headers[b"anthropic-ratelimit-output-tokens-remaining"] == b"8000"
    assert headers[b"anthropic-ratelimit-tokens-limit"] == b"48000"
    assert headers[b"anthropic-ratelimit-tokens-remaining"] == b"47000"
    assert headers[b"anthropic-ratelimit-tokens-reset"] == b"1970-01-01T00:00:03Z"


def test_without_limits_nothing_is_told():
    assert openai_limit_headers({}) == []
    assert anthropic_limit_headers({}, wall=0.0) == []


def test_retry_after_is_rounded_up():
    assert retry_headers(0.1001, milliseconds=True) == [
        (b"retry-after", b"1"),
        (b"retry-after-ms", b"101"),
    ]
    assert retry_headers(2.5, milliseconds=False) == [(b"retry-after", b"3")]
    assert retry_headers(None, milliseconds=True) == []
