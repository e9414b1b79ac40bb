"""All limits of one deployment, taken and given back together.

A reservation takes from every limit or from none. What the provider adds to the picture
(headers, 429s) goes to the one limit that it names.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from penstock.limits.bucket import Bucket, Slots
from penstock.units import PERIOD_SECONDS, Amounts, LimitName, LimitReading

RESERVABLE = frozenset({LimitName.RPM, LimitName.TPM, LimitName.ITPM, LimitName.OTPM})
"""Limits on which a share may be kept free for more urgent classes at no loss.

On a bucket that refills by the minute a reserve costs one bucket, once. A day's quota that
is kept back is lost at midnight, and a slot that is kept back is idle.
"""

SLACK_SHARE = 0.1
SLACK_SECONDS = 0.25
"""Below the top of a bucket, so that no refill is lost between a wake-up and its sends."""

OUTPUT_RESERVE_SHARE = 0.3
"""The reserve on output tokens is soft: they are taken while they are produced, not at once."""


class LimitsPlan(msgspec.Struct, frozen=True):
    """The limits of one deployment as configured; None where nothing is known."""

    rates: dict[LimitName, float] = {}
    concurrency: int | None = None
    burst_seconds: float | None = None


class Fit(NamedTuple):
    """When a unit fits a pool, and the limit that it waits for longest (None: nothing)."""

    ready_at: float
    limit: LimitName | None


class Held(NamedTuple):
    """What a blocked unit will need of a pool, and when it will take it."""

    amounts: Amounts
    ready_at: float


class Pool:
    """The buckets and slots of one deployment."""

    __slots__ = ("buckets", "slots")

    def __init__(self, plan: LimitsPlan, now: float) -> None:
        self.buckets = {
            limit: Bucket(rate, PERIOD_SECONDS[limit], _burst_seconds(limit, plan), now)
            for limit, rate in plan.rates.items()
        }
        self.slots = None if plan.concurrency is None else Slots(plan.concurrency)

    def replan(self, plan: LimitsPlan, now: float) -> None:
        """Take over changed configuration, keeping levels and what was learnt."""
        for limit, rate in plan.rates.items():
            burst_seconds = _burst_seconds(limit, plan)
            if limit in self.buckets:
                self.buckets[limit].advance(now)
                self.buckets[limit].replan(rate, PERIOD_SECONDS[limit], burst_seconds)
            else:
                self.buckets[limit] = Bucket(rate, PERIOD_SECONDS[limit], burst_seconds, now)
        for limit in self.buckets.keys() - plan.rates.keys():
            if self.buckets[limit].source == "configured":
                del self.buckets[limit]
        in_use = self.slots.in_use if self.slots else 0.0
        self.slots = None if plan.concurrency is None else Slots(plan.concurrency)
        if self.slots:
            self.slots.in_use = in_use

    def too_large(self, amounts: Amounts) -> LimitName | None:
        """The limit that can never hold these amounts, if there is one."""
        for limit, bucket in self.buckets.items():
            if not bucket.fits_ever(amounts.get(limit, 0.0)):
                return limit
        return None

    def cost_seconds(self, amounts: Amounts) -> float:
        """The dominant cost: for how long the amounts occupy the limit they use most of.

        Ghodsi et al., "Multi-resource fair queueing for packet processing" (SIGCOMM 2012).
        Without any rate limit, one slot's share stands in for it.
        """
        costs = [amounts.get(limit, 0.0) / bucket.rate for limit, bucket in self.buckets.items()]
        if costs:
            return max(costs)
        return 1.0 / self.slots.capacity if self.slots else 0.0

    def fit(self, amounts: Amounts, reserve: float, now: float) -> Fit:
        """When these amounts may be taken by a class that leaves ``reserve`` (0 to 1) free.

        ``ready_at`` is infinite where only the ending of another call can make room.
        """
        ready_at, limit = now, None
        for name, bucket in self.buckets.items():
            amount = amounts.get(name, 0.0)
            if not amount:
                continue
            bucket_ready_at = bucket.ready_at(amount, self._floor(name, amount, reserve), now)
            if bucket_ready_at > ready_at:
                ready_at, limit = bucket_ready_at, name
        slots = self.slots
        if slots is not None and slots.level < amounts.get(LimitName.CONCURRENCY, 0.0):
            return Fit(math.inf, LimitName.CONCURRENCY)
        return Fit(ready_at, limit)

    def leaves_room_for(self, held: Held, amounts: Amounts, now: float) -> bool:
        """Whether taking ``amounts`` now delays the unit that ``held`` stands for."""
        until = held.ready_at
        if math.isinf(until):
            return False  # It waits for an ending: any slot taken now may be the one.
        for name, bucket in self.buckets.items():
            amount = amounts.get(name, 0.0)
            if not amount:
                continue
            level_then = min(bucket.capacity, bucket.level + bucket.rate * (until - now) - amount)
            if level_then < min(held.amounts.get(name, 0.0), bucket.capacity):
                return False
        slots = self.slots
        return slots is None or slots.level - amounts.get(
            LimitName.CONCURRENCY, 0.0
        ) >= held.amounts.get(LimitName.CONCURRENCY, 0.0)

    def headroom(self, amounts: Amounts) -> float:
        """The smallest share of a limit that is left after taking the amounts; 1 is all."""
        shares = [
            (bucket.level - amounts.get(name, 0.0)) / bucket.capacity
            for name, bucket in self.buckets.items()
        ]
        if self.slots is not None:
            taken = amounts.get(LimitName.CONCURRENCY, 0.0)
            shares.append((self.slots.level - taken) / self.slots.capacity)
        return min(shares, default=1.0)

    def reserve(self, amounts: Amounts, now: float) -> None:
        """Take the amounts from every limit."""
        for name, bucket in self.buckets.items():
            bucket.take(amounts.get(name, 0.0), now)
        if self.slots is not None:
            self.slots.in_use += amounts.get(LimitName.CONCURRENCY, 0.0)

    def settle(self, reserved: Amounts, charged: Amounts, now: float) -> None:
        """Replace what was reserved by what was charged in the end."""
        for name, bucket in self.buckets.items():
            difference = charged.get(name, 0.0) - reserved.get(name, 0.0)
            if difference:
                bucket.take(difference, now)
        if self.slots is not None:
            self.slots.in_use -= reserved.get(LimitName.CONCURRENCY, 0.0)

    def observe(self, reading: LimitReading, *, sent_at: float, now: float) -> None:
        """Learn from one header; a limit that nobody configured begins with its first header."""
        bucket = self.buckets.get(reading.limit)
        period_seconds = PERIOD_SECONDS.get(reading.limit)
        if period_seconds is None:
            return
        if bucket is None:
            if reading.capacity is None or reading.capacity <= 0:
                return
            bucket = Bucket(reading.capacity, period_seconds, None, now)
            bucket.source = "header"
            self.buckets[reading.limit] = bucket
        bucket.observe(reading, period_seconds, sent_at=sent_at, now=now)

    def pause(self, limit: LimitName, until: float, now: float) -> bool:
        """Pause the limit that a 429 named; False where it is not known here."""
        bucket = self.buckets.get(limit)
        if bucket is None:
            return False
        bucket.pause(until, now)
        return True

    def reserve_of(self, name: LimitName) -> float:
        """What the least urgent class leaves of a limit, for a unit that takes next to nothing."""
        return self._floor(name, 0.0, 1.0)

    def _floor(self, name: LimitName, amount: float, reserve: float) -> float:
        """What must be left of a limit after a class with this reserve has taken its amount."""
        if reserve <= 0 or name not in RESERVABLE:
            return 0.0
        bucket = self.buckets[name]
        slack = max(SLACK_SHARE * bucket.capacity, SLACK_SECONDS * bucket.rate)
        if name is LimitName.OTPM:
            return reserve * OUTPUT_RESERVE_SHARE * bucket.capacity
        return reserve * max(0.0, bucket.capacity - slack - amount)


def _burst_seconds(limit: LimitName, plan: LimitsPlan) -> float | None:
    """A day's quota can be used at once; the others have the configured burst."""
    return PERIOD_SECONDS[limit] if limit is LimitName.RPD else plan.burst_seconds
