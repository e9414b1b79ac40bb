"""One limit: a bucket that refills continuously, or a number of slots.

Providers keep their per-minute limits as token buckets which refill all the time (OpenAI's
429 at 10,000 TPM says "try again in 6ms": one token; Anthropic documents the algorithm). A
bucket has a *rate* (units a second), a *capacity* (the burst) and a *level*. The capacity is
what no provider publishes, and it decides how much batch work may be sent at once: so it is
either configured or starts small and grows to the largest ``remaining`` that was ever seen.

A level below zero is a debt: the provider charged more than was reserved. Nothing is granted
until the debt is refilled. All times are seconds of the caller's monotonic clock; a clock
that steps back adds nothing and takes nothing away.
"""

from __future__ import annotations

import math
from collections import deque

from penstock.limits.replay import ONE_WAY_SECONDS_MAX, Send, remaining_interval
from penstock.units import LimitReading

CAPACITY_SECONDS_UNKNOWN = 5.0
"""Capacity, in seconds of the rate, that is assumed until the provider shows more."""

OBSERVATION_INTERVAL_SECONDS = 0.05
"""Readings closer together than this say nothing new, and each costs a replay."""

ROUNDING = 1e-9
"""What floating point may lose on the way; without it a wake-up could come a hair too early,
for ever."""

SENDS_MAX = 4_096
"""Sends that are kept for replay; older ones are before any answer still under way."""


class Bucket:
    """One rate limit, refilled continuously.

    ``capacity_ceiling`` is the largest capacity that the provider can have: one whole period
    of the limit. A unit above it can never be sent; one between ``capacity`` and it is sent
    when the bucket is full, and leaves a debt.
    """

    __slots__ = (
        "_observed_at",
        "_observed_sent_at",
        "_sends",
        "_updated_at",
        "capacity",
        "capacity_ceiling",
        "capacity_is_learnt",
        "level",
        "paused_until",
        "rate",
        "source",
    )

    def __init__(
        self, per_period: float, period_seconds: float, burst_seconds: float | None, now: float
    ) -> None:
        self.rate = per_period / period_seconds
        self.capacity_ceiling = per_period
        self.capacity_is_learnt = burst_seconds is None
        # A single request must fit, whatever the limit: below that nothing would ever move.
        self.capacity = max(1.0, self.rate * (burst_seconds or CAPACITY_SECONDS_UNKNOWN))
        self.level = self.capacity
        self.paused_until = -math.inf
        self.source = "configured"
        self._updated_at = now
        self._sends: deque[Send] = deque(maxlen=SENDS_MAX)
        self._observed_at = -math.inf
        self._observed_sent_at = -math.inf

    def advance(self, now: float) -> None:
        """Refill up to ``now``."""
        if now > self._updated_at:
            self.level = min(self.capacity, self.level + self.rate * (now - self._updated_at))
            self._updated_at = now

    def take(self, amount: float, now: float) -> None:
        """Reserve ``amount``; a negative amount gives back, up to the capacity.

        A full bucket begins to refill only when the provider has seen the request, so ours
        begins when it must have: else the next grants would be early by the jitter of the way.
        """
        self.advance(now)
        if amount > 0 and self.level >= self.capacity:
            self._updated_at = max(self._updated_at, now + ONE_WAY_SECONDS_MAX)
        self.level = min(self.capacity, self.level - amount)
        self._sends.append(Send(now, amount))

    def ready_at(self, amount: float, floor: float, now: float) -> float:
        """The earliest time at which ``amount`` may be taken and ``floor`` be left.

        What exceeds the capacity is asked of a full bucket: the rest becomes a debt.
        """
        self.advance(now)
        need = min(amount + floor, self.capacity)
        missing = need - self.level
        if missing <= ROUNDING * max(1.0, self.capacity):
            return max(now, self.paused_until)
        return max(max(now, self._updated_at) + missing / self.rate, self.paused_until)

    def fits_ever(self, amount: float) -> bool:
        """Whether any waiting can make ``amount`` fit."""
        return amount <= max(self.capacity, self.capacity_ceiling)

    def pause(self, until: float, now: float) -> None:
        """The provider says that this limit is exhausted: nothing is here, until then."""
        self.advance(now)
        self.level = min(self.level, 0.0)
        self.paused_until = max(self.paused_until, until)

    def replan(self, per_period: float, period_seconds: float, burst_seconds: float | None) -> None:
        """Take over changed configuration, keeping what has been used and learnt."""
        self.rate = per_period / period_seconds
        self.capacity_ceiling = per_period
        self.source = "configured"
        if burst_seconds is not None:
            self.capacity_is_learnt = False
            self.capacity = max(1.0, self.rate * burst_seconds)
        else:
            floor = self.rate * CAPACITY_SECONDS_UNKNOWN
            learnt = self.capacity if self.capacity_is_learnt else 0.0
            self.capacity_is_learnt = True
            self.capacity = max(1.0, floor, min(learnt, per_period))
        self.level = min(self.level, self.capacity)

    def observe(
        self, reading: LimitReading, period_seconds: float, *, sent_at: float, now: float
    ) -> None:
        """Learn from the headers of an answer whose request was sent at ``sent_at``.

        A lower limit than ours is adopted; a higher one is the operator's choice to leave
        unused. The level is moved into the interval that the reading allows: down always, up
        only where the provider keeps the same limit as we do.
        """
        self.advance(now)
        capacity, remaining = reading.capacity, reading.remaining
        per_period = self.rate * period_seconds
        if capacity is not None and 0 < capacity < per_period * 0.999:
            self.rate = capacity / period_seconds
            self.capacity_ceiling = capacity
            self.capacity = min(self.capacity, max(1.0, capacity))
            self.source = "header"
            per_period = capacity
        is_same_limit = capacity is None or capacity <= per_period * 1.001
        if remaining is None or self._is_stale(sent_at, now):
            return
        self._observed_at, self._observed_sent_at = now, sent_at
        if self.capacity_is_learnt and is_same_limit and remaining > self.capacity:
            self.level += remaining - self.capacity
            self.capacity = min(remaining, self.capacity_ceiling)
        lowest, highest = remaining_interval(
            remaining,
            rounding=reading.rounding,
            rate=self.rate,
            capacity=self.capacity,
            sends=self._sends,
            sent_at=sent_at,
            now=now,
        )
        self.level = min(self.level, highest)
        if is_same_limit:
            self.level = min(self.capacity, max(self.level, lowest))

    def _is_stale(self, sent_at: float, now: float) -> bool:
        """Whether a reading is older than the last one used, or says the same again."""
        is_older = sent_at < self._observed_sent_at
        is_repeated = now - self._observed_at < OBSERVATION_INTERVAL_SECONDS
        is_unknown = len(self._sends) == SENDS_MAX and sent_at < self._sends[0].at
        return is_older or is_repeated or is_unknown


class Slots:
    """A limit on concurrency: so many calls at once. Nothing refills but by an ending."""

    __slots__ = ("capacity", "in_use", "paused_until")

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.in_use = 0.0
        self.paused_until = -math.inf

    @property
    def level(self) -> float:
        """How many slots are free; negative after the limit was lowered under load."""
        return self.capacity - self.in_use
