"""What goes into a tick and what comes out of it: values, nothing else.

Every unit that is submitted ends in exactly one of: a refusal, an eviction, a cancellation by
its caller, or a grant; every grant ends in exactly one of ``Settled``, ``Failed`` (which may
send the unit back to its place) and ``Cancelled``. An event that names a unit which has
already ended changes nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from penstock.limits.pool import LimitsPlan
from penstock.scheduler.plan import Plan
from penstock.units import Grant, LimitName, LimitReading, Unit, Usage


class Submitted(msgspec.Struct, frozen=True, tag=True):
    """A unit asks to wait."""

    unit: Unit


class Cancelled(msgspec.Struct, frozen=True, tag=True):
    """The caller is gone, or gave up. ``usage`` is what had been used if it was sent.

    ``was_sent`` is False where a granted unit never reached the provider: then nothing is
    charged.
    """

    unit_id: str
    was_sent: bool = False
    usage: Usage | None = None


class Settled(msgspec.Struct, frozen=True, tag=True):
    """The provider answered in full; without ``usage`` the estimate stands."""

    unit_id: str
    usage: Usage | None = None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The provider did not answer in full.

    ``requeue`` gives the unit its place back; the caller decides by its patience.
    ``was_sent`` is False where no request reached the provider.
    """

    unit_id: str
    requeue: bool
    was_sent: bool = True
    usage: Usage | None = None


class Observed(msgspec.Struct, frozen=True, tag=True):
    """An answer's headers, with the time at which its request was sent.

    ``accepted``: it is a good answer that has begun, and not a refusal.
    """

    deployment: str
    sent_at: float
    readings: tuple[LimitReading, ...]
    accepted: bool = False


class Limited(msgspec.Struct, frozen=True, tag=True):
    """A 429. Without ``limit`` the whole deployment pauses, without ``pause_seconds`` briefly."""

    deployment: str
    pause_seconds: float | None
    limit: LimitName | None = None


class Overloaded(msgspec.Struct, frozen=True, tag=True):
    """The provider's own trouble (529, 503, 5xx, reset): back off, then start slowly.

    ``backs_off`` is False where it answered at once, but nothing of use: that only counts.
    """

    deployment: str
    pause_seconds: float | None = None
    backs_off: bool = True


class KeyRefused(msgspec.Struct, frozen=True, tag=True):
    """The provider does not take our key, or the account behind it has nothing left."""

    deployment: str
    has_quota: bool = True


class Restored(msgspec.Struct, frozen=True, tag=True):
    """What a deployment was out for has been mended, as by another key."""

    deployment: str


class Replanned(msgspec.Struct, frozen=True, tag=True):
    """The configuration changed. Units whose model is gone are evicted."""

    plan: Plan


class TenantsReplanned(msgspec.Struct, frozen=True, tag=True):
    """What holds for tenants changed, as in ``Plan``. Units keep their places, and fairness what
    it remembers; the cost does not depend on how many wait.
    """

    weights: dict[str, float]
    limits: dict[str, LimitsPlan]


Event: TypeAlias = (
    Submitted
    | Cancelled
    | Settled
    | Failed
    | Observed
    | Limited
    | Overloaded
    | KeyRefused
    | Restored
    | Replanned
    | TenantsReplanned
)


class RefusalReason(StrEnum):
    """Why a unit may not wait."""

    TOO_LARGE = "too_large"
    TOO_LARGE_FOR_TENANT = "too_large_for_tenant"
    QUEUE_FULL = "queue_full"
    QUEUE_FULL_FOR_TENANT = "queue_full_for_tenant"
    DEADLINE = "deadline"
    NO_DEPLOYMENT = "no_deployment"


class Refusal(msgspec.Struct, frozen=True):
    """A unit that was not admitted. ``eta_seconds``: how long it would have waited."""

    unit_id: str
    reason: RefusalReason
    eta_seconds: float = 0.0
    limit: LimitName | None = None


class EvictionReason(StrEnum):
    """Why a unit that waited waits no longer."""

    DEADLINE = "deadline"
    NO_DEPLOYMENT = "no_deployment"


class Eviction(msgspec.Struct, frozen=True):
    """A unit that was removed after it had waited."""

    unit_id: str
    reason: EvictionReason
    wait_seconds: float


class Decisions(msgspec.Struct):
    """What a tick decided. ``wake_at``: tick again then, if nothing happens before."""

    grants: list[Grant]
    refusals: list[Refusal]
    evictions: list[Eviction]
    wake_at: float | None = None
