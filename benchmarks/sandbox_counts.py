"""What the sandbox's statistics say of an account, in the simulator's terms."""

from __future__ import annotations

from typing import Any

from penstock.simulate.record import Mark
from penstock.units import LimitName

Json = dict[str, Any]


def charged(seen: Json) -> dict[tuple[int, LimitName], Mark]:
    """What each limit of the sandbox's account was charged; what it lost or holds nobody counts."""
    counters = next((pool["counters"] for pool in seen["pools"]), None)
    requests = counters["requests_admitted"] if counters else 0.0
    tokens = counters["tokens_charged"] if counters else 0.0
    return {
        (0, LimitName.RPM): Mark(requests, 0.0, 0.0),
        (0, LimitName.TPM): Mark(tokens, 0.0, 0.0),
    }


def denied(seen: Json) -> int:
    """How many 429s it has answered."""
    return seen["by_status"].get("429", 0)


def failed(seen: Json) -> int:
    """How many of its answers were its own failures."""
    return sum(count for status, count in seen["by_status"].items() if status >= "500")


def attempts(seen: Json) -> int:
    """How many calls have reached it."""
    return seen["calls"] + seen["in_flight"]
