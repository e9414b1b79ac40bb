"""What the live page shows: one plain value, made by whoever knows the scheduler.

It is JSON-able as it is and holds configuration names and numbers only: nothing from a request.
"""

from __future__ import annotations

import msgspec


class LimitView(msgspec.Struct, frozen=True):
    """One bucket: amounts in the limit's own dimension (requests, tokens, slots)."""

    name: str
    level: float
    capacity: float
    rate_per_second: float
    reserve: float = 0.0  # the amount kept from classes that are not the most urgent
    source: str = "configured"  # or catalogue, header, 429: where it is known from


class DeploymentView(msgspec.Struct, frozen=True):
    """One deployment and its limits."""

    name: str
    limits: list[LimitView]
    in_flight: int = 0
    paused_seconds: float = 0.0  # how long it still takes no calls; 0: it takes them
    answers_429: int = 0  # in the last minute
    trouble: str = ""  # why calls that can go elsewhere do: failing, key_refused, no_quota


class ClassView(msgspec.Struct, frozen=True):
    """One class; ``rank`` orders them, lower first."""

    name: str
    rank: int
    waiting: int = 0
    in_flight: int = 0
    oldest_wait_seconds: float = 0.0


class TenantView(msgspec.Struct, frozen=True):
    """One tenant."""

    name: str
    waiting: int = 0
    in_flight: int = 0
    oldest_wait_seconds: float = 0.0


class WorkerView(msgspec.Struct, frozen=True):
    """One chain worker."""

    name: str
    alive: bool
    runs: int = 0
    restarts: int = 0


class Totals(msgspec.Struct, frozen=True):
    """Sums over everything."""

    waiting: int = 0
    in_flight: int = 0
    oldest_wait_seconds: float = 0.0
    grants_per_second: float = 0.0  # over the last minute
    answers_429: int = 0  # in the last minute


class LiveSnapshot(msgspec.Struct, frozen=True):
    """The queue against the limits at one moment; ``now`` is Unix time in seconds."""

    now: float
    deployments: list[DeploymentView]
    classes: list[ClassView]
    tenants: list[TenantView]
    workers: list[WorkerView]
    totals: Totals
