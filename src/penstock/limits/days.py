"""A day's limit, and what of it is kept for more urgent classes until it is back.

On a minute's bucket a reserve is free: it costs one bucket, once. What a day's limit holds is a
day's work; to keep all of it would stop batch work for a day, to keep nothing lets it be used up
in the morning, and everybody waits. So as much is kept as more urgent classes are expected to
take beyond the refill, until the level would be back at the top, where refill is lost.

**Forecast.** Of each class what it takes is remembered with weights that fall by e in
``MEMORY_SECONDS``; divided by the sum of the weights of the time since the beginning this is its
rate, without bias from the first moment on. Those of all more urgent classes add up to *a* units a
second (``SURE`` deviations of the estimate on top), in pieces of *v* units (sum of squares by
sum). The limit refills by *r* a second up to *C*. In *h* seconds they take, but for exp(-z²/2),

    a h + z sqrt(v a h) + v z²/6        (z = ``MARGIN``; Bernstein's inequality)

of which r h comes back. So what must be there now is the largest of
``(a - r) h + z sqrt(v a h) + v z²/6`` over the time h <= (C - level) / r until the level would be
back:

- a < r: it is largest at h = z² v a / 4 (r - a)², and is K = z² v a / 4 (r - a) + v z²/6 there, if
  that comes before the level is back. (The same as of the waiting line of Kingman 1962, "On
  queues in heavy traffic"; and not less than Lundberg's bound asks for where calls are few.)
- else at the end, where level = C - r h = (a - r) h + z sqrt(v a h): a demand that uses all of
  a day leaves the others what had been lost at the top, and no more.

As demand fades the reserve falls with it, so nothing is left unused while work waits: a bucket
that stands at K has lost no refill. In the first ``LEARNING_SECONDS`` there is no forecast, and
``LEARNING_SHARE`` of the day is kept. A class keeps its ``reserve`` (0 to 1) times all this, and
may take its ``min_share`` of the refill below it, so that it does not starve day after day.

Rejected: the last hour's rate times 24 hours, whatever the level: after one busy hour batch work
stands still with the day full. A calendar of yesterday's hours: more to learn than it tells. A
spread learnt from the forecast's own errors: where urgent calls come in rushes of half an hour at
up to 2.4 times the refill, the most urgent class waited up to 425 s (99th percentile, six simulated
days; none in three of them) and then not at all; but of standard calls 7 to 11 % ran into their
deadlines instead of 2 to 5 %, for a reserve that was hardly touched.
"""

from __future__ import annotations

import math
from typing import Protocol

from penstock.limits.bucket import ROUNDING, Bucket
from penstock.units import LimitName, LimitReading

DAY_LIMITS = frozenset({LimitName.RPD, LimitName.TPD})
"""The limits that are stated for a day."""

MEMORY_SECONDS = 7200.0
"""How far back the forecast looks."""

MARGIN = 4.0
"""Standard deviations of the demand that are kept above its mean."""

SURE = 2.0
"""Standard deviations of the estimated rate that are added to it."""

LEAST_SHARE = 0.01
"""So much of the day is always kept for each more urgent class that was seen: below it others have
their share of the refill, and no more, so that they do not take it from urgent calls that come when
the day is used up. For each: or the middle class would keep for the first what the last leaves to
both, and find nothing."""

LEARNING_SECONDS = 600.0
LEARNING_SHARE = 0.8
"""So long after the beginning so much of the day is kept, whatever was seen."""


class Asker(Protocol):
    """A class that asks for a part of a day's limit, as its plan says."""

    @property
    def rank(self) -> int:
        """Lower goes first."""

    @property
    def reserve(self) -> float:
        """The share that it leaves of what is to be kept."""

    @property
    def min_share(self) -> float:
        """The share of the refill that is its own."""


class Demand:
    """What one class takes of a limit: amounts and their squares, with fading weights."""

    __slots__ = ("_amounts", "_at", "_squares")

    def __init__(self, now: float) -> None:
        self._amounts = self._squares = 0.0
        self._at = now

    def add(self, amount: float, now: float) -> None:
        """It takes an amount."""
        self._amounts, self._squares = self.faded(now)
        self._amounts += amount
        self._squares += amount * amount
        self._at = max(self._at, now)

    def faded(self, now: float) -> tuple[float, float]:
        """Amounts and squares, weighted as of now."""
        weight = math.exp(-max(0.0, now - self._at) / MEMORY_SECONDS)
        return self._amounts * weight, self._squares * weight


class DayBucket(Bucket):
    """A limit of a day: holds a whole one, knows who takes how much of it."""

    __slots__ = ("_began_at", "_demands", "_share_at")

    def __init__(self, per_day: float, period_seconds: float, now: float) -> None:
        super().__init__(per_day, period_seconds, period_seconds, now, reserve_share=0.0)
        self._began_at = now
        self._demands: dict[int, Demand] = {}
        self._share_at: dict[int, float] = {}

    def kept(self, asker: Asker, now: float) -> float:
        """What a class leaves of the level now to all more urgent ones, in units of the limit."""
        if not asker.reserve:
            return 0.0
        amounts = squares = 0.0
        classes = 0
        for rank, demand in self._demands.items():
            if rank < asker.rank:
                classes += 1
                more_amounts, more_squares = demand.faded(now)
                amounts += more_amounts
                squares += more_squares
        seconds = max(1.0, now - self._began_at)
        kept = LEAST_SHARE * max(1, classes) * self.capacity
        if amounts > 0:
            at_most = amounts + SURE * math.sqrt(squares / 2)
            demand_rate = at_most / (MEMORY_SECONDS * -math.expm1(-seconds / MEMORY_SECONDS))
            forecast = kept_amount(demand_rate, squares / amounts, self.rate, self.capacity)
            kept = max(kept, forecast)
        if seconds < LEARNING_SECONDS:
            kept = max(kept, LEARNING_SHARE * self.capacity)
        return asker.reserve * kept

    def kept_until(self, amount: float, asker: Asker, now: float) -> float:
        """When a class may take an amount as far as others are to be left something."""
        self.advance(now)
        missing = self.kept(asker, now) + amount - self.level
        if missing <= ROUNDING * self.capacity:
            return now
        share_at = math.inf
        if asker.min_share:
            share_at = max(now, self._share_at.get(asker.rank, self._began_at))
        return min(now + missing / self.rate, share_at)

    def note(self, amount: float, asker: Asker, now: float) -> None:
        """A class is about to take an amount."""
        self.advance(now)
        is_below = self.level - amount < self.kept(asker, now) - ROUNDING * self.capacity
        if is_below and asker.min_share:
            begins_at = max(now, self._share_at.get(asker.rank, now))
            self._share_at[asker.rank] = begins_at + amount / (asker.min_share * self.rate)
        demand = self._demands.get(asker.rank)
        if demand is None:
            demand = self._demands[asker.rank] = Demand(now)
        demand.add(amount, now)

    def pause(self, until: float, now: float) -> None:
        """The provider says that the day is used up. How large it is has been stated: kept."""
        self.advance(now)
        self.level = min(self.level, 0.0)
        self.paused_until = max(self.paused_until, until)

    def _watch_plateau(self, reading: LimitReading, remaining: float, sent_at: float) -> None:
        """Nothing is concluded from a level that does not rise: hardly any does within seconds."""


def kept_amount(demand_rate: float, piece: float, refill_rate: float, capacity: float) -> float:
    """What must be left of a day's limit for a demand above 0; rates a second (theory: above)."""
    spread = MARGIN * MARGIN * piece
    grain = spread / 6
    spare = refill_rate - demand_rate
    if spare > 0:
        peak = spread * demand_rate / (4 * spare)
        if peak * (1 + refill_rate / spare) <= capacity:
            return min(capacity, peak + grain)
    root = (math.sqrt(spread + 4 * capacity) - math.sqrt(spread)) / 2
    at_the_end = max(0.0, capacity - refill_rate * root * root / demand_rate)
    return min(capacity, at_the_end + grain)
