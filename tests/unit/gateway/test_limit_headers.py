"""What a caller may still use, as the draft and the SDKs' own headers have it."""

from __future__ import annotations

import re

import pytest

from penstock.gateway.limit_headers import FRESH_SECONDS, LimitsTold, limit_headers
from penstock.limits.pool import LimitsPlan, Pool
from penstock.units import PERIOD_SECONDS, LimitName

PLAN = LimitsPlan(
    rates={LimitName.RPM: 600.0, LimitName.TPM: 60_000.0}, burst_seconds=60.0, concurrency=4
)


def told(wire: str) -> dict[str, str]:
    """Of a pool from which one call of 100 tokens has been taken."""
    pool = Pool(PLAN, 0.0)
    pool.reserve({LimitName.RPM: 1, LimitName.TPM: 100, LimitName.CONCURRENCY: 1}, 0.0)
    return limit_headers(pool, 0.0, 1_700_000_000.0, wire)


def test_the_draft_s_headers_name_each_limit_with_what_is_left() -> None:
    headers = told("openai")
    assert '"requests";q=600;w=60, "tokens";q=60000;w=60;qu="tokens"' == headers["ratelimit-policy"]
    assert '"requests";r=599;t=1, "tokens";r=59900;t=1' == headers["ratelimit"]


def test_openai_s_clients_read_theirs() -> None:
    headers = told("openai")
    assert ("600", "599", "100ms") == tuple(
        headers[f"x-ratelimit-{part}-requests"] for part in ("limit", "remaining", "reset")
    )
    assert "59900" == headers["x-ratelimit-remaining-tokens"]
    assert not any(name.startswith("anthropic") for name in headers)


def test_anthropic_s_clients_read_theirs() -> None:
    headers = told("anthropic")
    assert ("600", "599", "2023-11-14T22:13:21Z") == tuple(
        headers[f"anthropic-ratelimit-requests-{part}"] for part in ("limit", "remaining", "reset")
    )
    assert not any(name.startswith("x-ratelimit") for name in headers)


def test_what_is_overdrawn_is_told_as_nothing_left() -> None:
    pool = Pool(PLAN, 0.0)
    pool.reserve({LimitName.RPM: 1, LimitName.TPM: 70_000}, 0.0)
    assert "0" == limit_headers(pool, 0.0, 0.0, "openai")["x-ratelimit-remaining-tokens"]


def test_what_needs_ages_to_be_full_is_told_as_a_year() -> None:
    """A slow limit, far overdrawn by one long answer: dates end with the year 9999."""
    pool = Pool(LimitsPlan(rates={LimitName.TPM: 0.001}, burst_seconds=60.0), 0.0)
    pool.reserve({LimitName.TPM: 1e9}, 0.0)
    assert "31536000000ms" == limit_headers(pool, 0.0, 0.0, "openai")["x-ratelimit-reset-tokens"]
    reset = limit_headers(pool, 0.0, 0.0, "anthropic")["anthropic-ratelimit-tokens-reset"]
    assert "1971-01-01T00:00:00Z" == reset


def test_a_pool_without_rate_limits_tells_nothing() -> None:
    assert {} == limit_headers(Pool(LimitsPlan(rates={}), 0.0), 0.0, 0.0, "openai")


def test_every_value_is_a_header_s() -> None:
    for headers in (told("openai"), told("anthropic")):
        assert all(re.fullmatch(r"[ !#-~\"]+", value) for value in headers.values())


def test_what_was_told_a_moment_ago_is_told_again_and_then_anew() -> None:
    pool, told = Pool(PLAN, 0.0), LimitsTold()
    left = "x-ratelimit-remaining-tokens"
    assert "60000" == told.headers(pool, 0.0, 0.0, "openai")[left]
    pool.reserve({LimitName.RPM: 1, LimitName.TPM: 100}, 0.0)
    assert "60000" == told.headers(pool, FRESH_SECONDS / 2, 0.0, "openai")[left]
    assert left not in told.headers(pool, FRESH_SECONDS / 2, 0.0, "anthropic")
    later = told.headers(pool, FRESH_SECONDS, 0.0, "openai")[left]
    assert 59_900 <= int(later) < 60_000
    assert later != told.headers(Pool(PLAN, 0.0), FRESH_SECONDS, 0.0, "openai")[left]


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize("limit", PERIOD_SECONDS)
def test_every_limit_there_is_can_be_told(limit: LimitName, wire: str) -> None:
    pool = Pool(LimitsPlan(rates={limit: 5_000.0}, burst_seconds=60.0), 0.0)

    headers = limit_headers(pool, 0.0, 1_700_000_000.0, wire)

    assert f"q=5000;w={PERIOD_SECONDS[limit]:.0f}" in headers["ratelimit-policy"]
