"""Limit headers in the providers' true formats.

OpenAI: ``x-ratelimit-*`` with durations as Go prints them ("6ms", "1s", "6m0s", "2m5.5s").
Anthropic: ``anthropic-ratelimit-*`` with RFC 3339 times of full replenishment, token
amounts rounded to thousands, and ``tokens-*`` the sum of input and output where no
common limit is in force. Sources: both providers' published rate limit guides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from penstock.units import LimitName, LimitReading

Headers: TypeAlias = list[tuple[bytes, bytes]]
Readings: TypeAlias = Mapping[LimitName, LimitReading]

ROUNDING = 1000


def go_duration(seconds: float) -> str:
    """``seconds`` as Go's ``Duration.String`` has it, to the millisecond, rounded up."""
    milliseconds = whole_milliseconds(seconds)
    if milliseconds == 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def whole_milliseconds(seconds: float) -> int:
    """Rounded up, so that whoever waits so long is not early; float noise is not rounded up."""
    return math.ceil(round(seconds * 1000, 3))


def rfc3339(unix_seconds: float) -> str:
    """A moment in UTC to the second, rounded up."""
    return datetime.fromtimestamp(math.ceil(unix_seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def openai_limit_headers(readings: Readings) -> Headers:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` for the limits there are."""
    headers: Headers = []
    requests = readings.get(LimitName.RPM) or readings.get(LimitName.RPD)
    for name, reading in (("requests", requests), ("tokens", readings.get(LimitName.TPM))):
        if reading is not None:
            headers += [
                (f"x-ratelimit-limit-{name}".encode(), _whole(reading.capacity)),
                (f"x-ratelimit-remaining-{name}".encode(), _whole(reading.remaining)),
                (
                    f"x-ratelimit-reset-{name}".encode(),
                    go_duration(reading.reset_seconds or 0.0).encode(),
                ),
            ]
    return headers


def anthropic_limit_headers(readings: Readings, wall: float) -> Headers:
    """``anthropic-ratelimit-*-{limit,remaining,reset}``; ``wall`` is Unix time."""
    headers: Headers = []
    input_tokens, output_tokens = readings.get(LimitName.ITPM), readings.get(LimitName.OTPM)
    for name, reading, rounding in (
        ("requests", readings.get(LimitName.RPM), 1),
        ("input-tokens", input_tokens, ROUNDING),
        ("output-tokens", output_tokens, ROUNDING),
        ("tokens", readings.get(LimitName.TPM) or _sum(input_tokens, output_tokens), ROUNDING),
    ):
        if reading is not None:
            remaining = round((reading.remaining or 0.0) // 1 / rounding) * rounding
            reset = rfc3339(wall + (reading.reset_seconds or 0.0))
            headers += [
                (f"anthropic-ratelimit-{name}-limit".encode(), _whole(reading.capacity)),
                (f"anthropic-ratelimit-{name}-remaining".encode(), b"%d" % remaining),
                (f"anthropic-ratelimit-{name}-reset".encode(), reset.encode()),
            ]
    return headers


def retry_headers(seconds: float | None, *, milliseconds: bool) -> Headers:
    """``retry-after`` in whole seconds, rounded up; with ``retry-after-ms`` beside it if asked."""
    if seconds is None:
        return []
    headers: Headers = [(b"retry-after", b"%d" % max(1, math.ceil(round(seconds, 6))))]
    if milliseconds:
        headers.append((b"retry-after-ms", b"%d" % max(1, whole_milliseconds(seconds))))
    return headers


def _whole(amount: float | None) -> bytes:
    # A refilled bucket may hold 599.9999999 by rounding; the tolerance reads it as 600.
    return b"%d" % int((amount or 0.0) + 1e-6)


def _sum(one: LimitReading | None, other: LimitReading | None) -> LimitReading | None:
    if one is None or other is None:
        return None
    return LimitReading(
        limit=LimitName.TPM,
        capacity=(one.capacity or 0.0) + (other.capacity or 0.0),
        remaining=(one.remaining or 0.0) + (other.remaining or 0.0),
        reset_seconds=max(one.reset_seconds or 0.0, other.reset_seconds or 0.0),
    )
