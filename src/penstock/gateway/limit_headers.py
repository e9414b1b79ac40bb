"""What a caller may still use, in the headers that its SDK and others know.

``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10: ``q`` in ``w``
seconds, ``r`` left, full again in ``t`` seconds), and those that OpenAI and Anthropic send. They
tell of the tenant's own limits where it has some, else of the deployment that answered, whose
limits all tenants share: then ``r`` may be gone with the next call of another. Nothing need be
done about either: who has used up a limit waits here.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from penstock.limits.days import DAY_LIMITS
from penstock.limits.pool import Pool
from penstock.units import PERIOD_SECONDS, LimitName

_NAMES: Final = {
    LimitName.RPM: ("requests", ""),
    LimitName.TPM: ("tokens", ';qu="tokens"'),
    LimitName.ITPM: ("input-tokens", ';qu="tokens"'),
    LimitName.OTPM: ("output-tokens", ';qu="tokens"'),
    LimitName.RPD: ("requests-day", ""),
    LimitName.TPD: ("tokens-day", ';qu="tokens"'),
}
POOLS_MAX: Final = 1000
RESET_SECONDS_MAX: Final = 365 * 86_400.0
"""What is told of a bucket that a low limit needs longer to fill: a time beyond has no form."""
_OPENAI: Final = frozenset({LimitName.RPM, LimitName.TPM})


FRESH_SECONDS: Final = 0.05
"""For so long what was told is told again: writing it anew for every call is 5 µs of 100."""


class LimitsTold:
    """The headers of each pool, as they were told last."""

    def __init__(self) -> None:
        self._told: dict[tuple[int, str], tuple[Pool, float, dict[str, str]]] = {}

    def headers(self, pool: Pool, now: float, wall: float, wire: str) -> dict[str, str]:
        """``limit_headers``, or the same of a moment ago."""
        told = self._told.get((id(pool), wire))
        if told is not None and told[0] is pool and now < told[1]:
            return told[2]
        if len(self._told) > POOLS_MAX:
            self._told.clear()
        headers = limit_headers(pool, now, wall, wire)
        self._told[id(pool), wire] = (pool, now + FRESH_SECONDS, headers)
        return headers


def limit_headers(pool: Pool, now: float, wall: float, wire: str) -> dict[str, str]:
    """The headers of a pool's rate limits; none where it has none.

    ``now`` is monotonic, ``wall`` Unix time, ``wire`` the caller's protocol.
    """
    headers: dict[str, str] = {}
    policies, states = [], []
    for limit, bucket in pool.buckets.items():
        bucket.advance(now)
        name, unit = _NAMES[limit]
        quota = round(bucket.rate * PERIOD_SECONDS[limit])
        left = max(0, math.floor(bucket.level))
        reset_seconds = max(0.0, (bucket.capacity - bucket.level) / bucket.rate)
        reset_seconds = min(reset_seconds, RESET_SECONDS_MAX)
        policies.append(f'"{name}";q={quota};w={PERIOD_SECONDS[limit]:.0f}{unit}')
        states.append(f'"{name}";r={left};t={math.ceil(reset_seconds)}')
        if limit in DAY_LIMITS:
            continue  # no SDK knows a header for it
        if wire == "anthropic":
            full_at = datetime.fromtimestamp(math.ceil(wall + reset_seconds), UTC)
            headers[f"anthropic-ratelimit-{name}-limit"] = str(quota)
            headers[f"anthropic-ratelimit-{name}-remaining"] = str(left)
            headers[f"anthropic-ratelimit-{name}-reset"] = f"{full_at:%Y-%m-%dT%H:%M:%SZ}"
        elif limit in _OPENAI:
            headers[f"x-ratelimit-limit-{name}"] = str(quota)
            headers[f"x-ratelimit-remaining-{name}"] = str(left)
            headers[f"x-ratelimit-reset-{name}"] = f"{math.ceil(reset_seconds * 1000)}ms"
    if policies:
        headers["ratelimit-policy"] = ", ".join(policies)
        headers["ratelimit"] = ", ".join(states)
    return headers
