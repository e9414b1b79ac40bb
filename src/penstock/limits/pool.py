"""All limits of one deployment, taken and given back together.

A reservation takes from every limit or from none. What the provider adds to the picture
(headers, 429s) goes to the one limit that it names.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import msgspec

from penstock.limits.bucket import Bucket, Slots
from penstock.limits.days import DAY_LIMITS, Asker, DayBucket
from penstock.limits.production import Answer, Production
from penstock.limits.window import FixedWindow, RollingWindow
from penstock.units import (
    CONCURRENCY,
    OTPM,
    PERIOD_SECONDS,
    RPM,
    Amounts,
    LimitName,
    LimitReading,
)

RESERVE_SHARES = {
    LimitName.RPM: 1.0,
    LimitName.TPM: 1.0,
    LimitName.ITPM: 1.0,
    LimitName.OTPM: 0.3,
}
"""How much of a limit may be kept free for more urgent classes at no loss.

On what refills by the minute a reserve costs one bucket, once; a day's limit keeps what its
forecast says (``days``). Output tokens are taken while they are produced, not at once, so a part of
the bucket is enough.
"""

DEMAND_RATE = 0.02
"""How far one call moves what is believed of the demand: about the last fifty count."""

Limit: TypeAlias = Bucket | FixedWindow


class LimitsPlan(msgspec.Struct, frozen=True):
    """The limits of one deployment as configured; None where nothing is known.

    ``algorithm`` is how the provider counts a minute; ``request_window_seconds`` that it holds
    requests to their share of every so many seconds, too. ``source`` is where the amounts are
    known from.
    """

    rates: dict[LimitName, float] = {}
    concurrency: int | None = None
    burst_seconds: float | None = None
    algorithm: Literal["bucket", "window"] = "bucket"
    request_window_seconds: float | None = None
    source: Literal["configured", "catalogue"] = "configured"


class Fit(msgspec.Struct, frozen=True, gc=False):
    """When a unit fits a pool, and the limit that it waits for longest (None: nothing).

    ``is_kept``: the limit has room, which is kept for more urgent classes until the day is over.
    """

    ready_at: float
    limit: LimitName | None
    is_kept: bool = False


class Held(msgspec.Struct, frozen=True, gc=False):
    """What a blocked unit will need of a pool, and when it will take it."""

    amounts: Amounts
    ready_at: float


class Pool:
    """The buckets, windows and slots of one deployment, or of several that share them."""

    __slots__ = ("_binding", "_compared", "_paced", "buckets", "days", "plan", "production",
                 "rolling", "slots")  # fmt: skip

    def __init__(
        self, plan: LimitsPlan, now: float, *, output_is_charged_as_produced: bool = False
    ) -> None:
        self.plan = plan
        self.production = Production() if output_is_charged_as_produced else None
        self.buckets: dict[LimitName, Limit] = {
            limit: _limit(limit, rate, plan, now) for limit, rate in plan.rates.items()
        }
        self.days: dict[LimitName, DayBucket] = {}
        self._paced: list[tuple[LimitName, Limit]] = []
        self._compared: list[tuple[LimitName, Bucket]] = []
        self._binding: Bucket | None = None
        # Without a limit, too, it is known how many are in use: a reload may set one.
        self.slots = Slots(_concurrency(plan))
        self.rolling = _rolling(plan)
        self._adopt_buckets()

    def _adopt_buckets(self) -> None:
        """Which are of a day; the output under way outlives a bucket that a reload replaces."""
        self.days = {
            name: bucket for name, bucket in self.buckets.items() if isinstance(bucket, DayBucket)
        }
        paced = [entry for entry in self.buckets.items() if entry[0] not in self.days]
        self._paced = paced or list(self.buckets.items())
        bucket = self.buckets.get(OTPM)
        if bucket is not None:
            bucket.production = self.production
        # What is produced is not taken at once, and a window has no top to stay below.
        self._compared = [
            (name, each)
            for name, each in paced
            if isinstance(each, Bucket) and each.production is None
        ]
        self._binding = None
        for _, each in self._compared:
            each.is_binding = True

    def replan(self, plan: LimitsPlan, now: float) -> None:
        """Take over changed configuration, keeping levels and what was learnt."""
        if plan == self.plan:
            return
        same_algorithm = plan.algorithm == self.plan.algorithm
        self.plan = plan
        for limit, rate in plan.rates.items():
            if limit in self.buckets and (same_algorithm or limit in DAY_LIMITS):
                self.buckets[limit].advance(now)
                burst_seconds = _burst_seconds(limit, plan)
                self.buckets[limit].replan(rate, PERIOD_SECONDS[limit], burst_seconds)
                self.buckets[limit].source = plan.source
            else:
                self.buckets[limit] = _limit(limit, rate, plan, now)
        for limit in self.buckets.keys() - plan.rates.keys():
            if self.buckets[limit].source != "header":
                del self.buckets[limit]
        self.slots.capacity = _concurrency(plan)
        self.rolling = _rolling(plan)
        self._adopt_buckets()

    def too_large(self, amounts: Amounts) -> LimitName | None:
        """The limit that can never hold these amounts, if there is one."""
        for limit, bucket in self.buckets.items():
            # An answer that is charged as it is produced fits a limit of any size.
            if bucket.production is None and not bucket.fits_ever(amounts.get(limit, 0.0)):
                return limit
        return None

    def cost_seconds(self, amounts: Amounts) -> float:
        """The dominant cost: for how long the amounts occupy the limit they use most of.

        Ghodsi et al., "Multi-resource fair queueing for packet processing" (SIGCOMM 2012).
        Without any rate limit, one slot's share stands in for it. A day's limit paces nothing
        while it lasts, so it counts only where there is no other.
        """
        if not self._paced:
            return 1.0 / self.slots.capacity
        dominant_seconds = 0.0
        for limit, bucket in self._paced:
            seconds = amounts.get(limit, 0.0) / bucket.rate
            if seconds > dominant_seconds:
                dominant_seconds = seconds
        return dominant_seconds

    def burst_seconds(self, reserve: float, now: float) -> float:
        """Work, in dominant seconds, that a class with this reserve could take at once."""
        seconds = math.inf
        for bucket in self.buckets.values():
            bucket.advance(now)
            free = bucket.level - bucket.floor(0.0, reserve)
            seconds = min(seconds, max(0.0, free) / bucket.rate)
        return seconds

    def window_ends_at(self, now: float) -> float:
        """When the first of its fixed windows ends; minus infinity where there is none."""
        if self.plan.algorithm != "window":
            return -math.inf
        ends = [
            each.ends_at(now) for each in self.buckets.values() if isinstance(each, FixedWindow)
        ]
        return min(ends, default=-math.inf)

    def fit(self, amounts: Amounts, reserve: float, now: float, asker: Asker | None = None) -> Fit:
        """When these amounts may be taken by a class that leaves ``reserve`` (0 to 1) free.

        Of a day's limits it leaves what their forecast says for ``asker``; None leaves nothing.
        ``ready_at`` is infinite where only the ending of another call can make room.
        """
        ready_at, limit = now, None
        for name, bucket in self.buckets.items():
            amount = amounts.get(name)
            if not amount:
                continue
            production = bucket.production
            if production is None:
                bucket_ready_at = bucket.ready_at(amount, reserve, now)
            else:
                bucket_ready_at = bucket.ready_to_produce_at(production, amount, reserve, now)
            if bucket_ready_at > ready_at:
                ready_at, limit = bucket_ready_at, name
        if self.rolling is not None:
            rolling_ready_at = self.rolling.ready_at(now)
            if rolling_ready_at > ready_at:
                ready_at, limit = rolling_ready_at, RPM
        slots = self.slots
        if slots.capacity - slots.in_use < amounts.get(CONCURRENCY, 0.0):
            return Fit(math.inf, CONCURRENCY)
        if self.days and asker is not None:
            return self._kept(Fit(ready_at, limit), amounts, asker, now)
        return Fit(ready_at, limit)

    def _kept(self, fit: Fit, amounts: Amounts, asker: Asker, now: float) -> Fit:
        """The same, where a day's limit is kept for others until later than that."""
        for name, day in self.days.items():
            kept_until = day.kept_until(amounts.get(name, 0.0), asker, now)
            if kept_until > fit.ready_at:
                fit = Fit(kept_until, name, is_kept=True)
        return fit

    def leaves_room_for(self, held: Held, amounts: Amounts, now: float) -> bool:
        """Whether taking ``amounts`` now delays the unit that ``held`` stands for."""
        until = held.ready_at
        if math.isinf(until):
            return False  # It waits for an ending: any slot taken now may be the one.
        taken = held.amounts
        for name, bucket in self.buckets.items():
            amount = amounts.get(name, 0.0)
            if not amount or name not in taken:
                continue
            level_then = bucket.level_at(until, now)
            if bucket.production is not None:
                speed = bucket.production.pace.tokens_per_second
                if level_then < min(amount, speed * (until - now)):
                    return False
                continue
            if level_then - amount < min(taken[name], bucket.capacity):
                return False
        left = self.slots.level - amounts.get(CONCURRENCY, 0.0)
        return left >= taken.get(CONCURRENCY, 0.0)

    def headroom(self, amounts: Amounts) -> float:
        """The smallest share of a limit that is left after taking the amounts; 1 is all."""
        shares = [
            (bucket.level - (amounts.get(name, 0.0) if bucket.production is None else 0.0))
            / bucket.capacity
            for name, bucket in self.buckets.items()
        ]
        if self.slots.is_limit:
            taken = amounts.get(CONCURRENCY, 0.0)
            shares.append((self.slots.level - taken) / self.slots.capacity)
        return min(shares, default=1.0)

    def reserve(self, amounts: Amounts, now: float, asker: Asker | None = None) -> Answer | None:
        """Take the amounts from every limit, for a class that forecasts are to know of.

        Output that is charged as it is produced is not taken: it is an answer from now on.
        """
        answer = None
        if self.days and asker is not None:
            for name, day in self.days.items():
                day.note(amounts.get(name, 0.0), asker, now)
        for name, bucket in self.buckets.items():
            if bucket.production is None:
                bucket.take(amounts.get(name, 0.0), now)
            else:
                bucket.advance(now)
                bucket.note_drained()
                answer = bucket.production.begin(amounts.get(name, 0.0), now)
        if self.rolling is not None:
            self.rolling.take(now)
        self.slots.in_use += amounts.get(CONCURRENCY, 0.0)
        if len(self._compared) > 1:
            self._find_binding(amounts)
        return answer

    def _find_binding(self, amounts: Amounts) -> None:
        """Which limit the calls ask most of, with this one."""
        most_seconds, binding = -1.0, self._binding
        for name, bucket in self._compared:
            seconds = bucket.demand_seconds
            seconds += DEMAND_RATE * (amounts.get(name, 0.0) / bucket.rate - seconds)
            bucket.demand_seconds = seconds
            if seconds > most_seconds:
                most_seconds, binding = seconds, bucket
        if binding is not self._binding:
            self._binding = binding
            for _, bucket in self._compared:
                bucket.is_binding = bucket is binding

    def bounded(self, charged: Amounts) -> Amounts:
        """No call is believed to have taken more of a limit than all of it.

        What a provider reports is its word; a wrong or hostile one must not block a deployment,
        or a tenant's turn, for days.
        """
        for name, bucket in self.buckets.items():
            if charged.get(name, 0.0) > bucket.capacity_ceiling:
                charged = {**charged, name: bucket.capacity_ceiling}
        return charged

    def settle(
        self,
        reserved: Amounts,
        charged: Amounts,
        reserved_at: float,
        now: float,
        answer: Answer | None = None,
    ) -> None:
        """Replace what was reserved by what was charged in the end; a answer ends with it."""
        for name, bucket in self.buckets.items():
            taken, due = reserved.get(name, 0.0), charged.get(name, 0.0)
            if bucket.production is not None:
                # What was sent before this limit was known is in what its first header showed.
                if answer is not None:
                    bucket.advance(now)
                    bucket.note_drained()
                    counted = bucket.production.end(answer, max(now, bucket.reached_at))
                    bucket.correct(due - counted, now)
                    answer = None
            elif taken and not due:
                bucket.untake(taken, reserved_at, now)
            elif name is OTPM:
                bucket.correct(due - taken, now)
            elif due != taken:
                bucket.take(due - taken, now)
        if answer is not None and self.production is not None:
            self.production.end(answer, now)
        self.slots.in_use -= reserved.get(CONCURRENCY, 0.0)

    def observe(self, reading: LimitReading, *, sent_at: float, now: float) -> None:
        """Learn from one header; a limit that nobody configured begins with its first header."""
        bucket = self.buckets.get(reading.limit)
        period_seconds = PERIOD_SECONDS.get(reading.limit)
        if period_seconds is None:
            return
        if bucket is None:
            if reading.capacity is None or reading.capacity <= 0:
                return
            bucket = _limit(reading.limit, reading.capacity, self.plan, now)
            bucket.source = "header"
            self.buckets[reading.limit] = bucket
            self._adopt_buckets()
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
        return self.buckets[name].floor(0.0, 1.0)


def _limit(name: LimitName, rate: float, plan: LimitsPlan, now: float) -> Limit:
    if name in DAY_LIMITS:
        day = DayBucket(rate, PERIOD_SECONDS[name], now)
        day.source = plan.source
        return day
    if plan.algorithm == "window":
        window = FixedWindow(rate, PERIOD_SECONDS[name], now)
        window.reserve_share = RESERVE_SHARES[name]
        window.source = plan.source
        return window
    bucket = Bucket(rate, PERIOD_SECONDS[name], plan.burst_seconds, now, RESERVE_SHARES[name])
    bucket.source = plan.source
    return bucket


def _concurrency(plan: LimitsPlan) -> float:
    return math.inf if plan.concurrency is None else float(plan.concurrency)


def _rolling(plan: LimitsPlan) -> RollingWindow | None:
    """The sub-window on requests, where the provider has one."""
    seconds, per_minute = plan.request_window_seconds, plan.rates.get(RPM)
    if seconds is None or per_minute is None:
        return None
    return RollingWindow(int(per_minute * seconds / PERIOD_SECONDS[RPM]), seconds)


def _burst_seconds(limit: LimitName, plan: LimitsPlan) -> float | None:
    """A day's quota can be used at once; the others have the configured burst."""
    return PERIOD_SECONDS[limit] if limit in DAY_LIMITS else plan.burst_seconds
