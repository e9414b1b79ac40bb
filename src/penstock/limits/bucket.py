"""One limit: a bucket that refills continuously, or a number of slots.

Providers keep their per-minute limits as token buckets which refill all the time (OpenAI's
429 at 10,000 TPM says "try again in 6ms": one token; Anthropic documents the algorithm). A
bucket has a *rate* (units a second), a *capacity* (the burst) and a *level*. The capacity is
what no provider publishes, and it decides how much batch work may be sent at once: so it is
either configured or starts small and grows to the largest ``remaining`` that was ever seen.

**Reserve.** A class that takes from a nearly full bucket only lives on the refill, and leaves all
the rest to more urgent ones at no loss: refill is lost only at the top. ``SLACK_SECONDS`` below the
top is enough where one limit counts. With several it is free on the one that *binds*, of which the
calls ask most for its rate. To keep another as full would hold work back while the refill of the
binding one runs over; with a burst of 2 s, in which one large call leaves a second to wait for, 1
to 1.8 % of it. So on the others the slack is ``SLACK_SECONDS_BESIDE``. They refill faster than they
are used, so most of the time they are full all the same. (Two servers in a row with little room
between them stop each other in the same way, and more room mends it: Hunt, "Sequential arrays of
waiting lines", 1956.)

A level below zero is a debt: the provider charged more than was reserved. Nothing is granted
until the debt is refilled. All times are seconds of the caller's monotonic clock; a clock
that steps back adds nothing and takes nothing away.
"""

from __future__ import annotations

import math
from collections import deque

from penstock.limits.plateau import Plateau
from penstock.limits.production import Production
from penstock.limits.replay import (
    ONE_WAY_SECONDS_MAX,
    REORDER_SECONDS,
    Send,
    forget_send,
    remaining_interval,
)
from penstock.units import LimitReading

CAPACITY_SECONDS_UNKNOWN = 5.0
"""Capacity, in seconds of the rate, that is assumed until the provider shows more."""

OBSERVATION_INTERVAL_SECONDS = 0.05
"""Readings closer together than this say nothing new, and each costs a replay."""

ROUNDING = 1e-9
"""What floating point may lose on the way; without it a wake-up could come a hair too early,
for ever."""

SLACK_SHARE = 0.05
SLACK_SECONDS = 0.25
"""Below the top of a bucket, so that no refill is lost between a wake-up and its sends."""

SLACK_SECONDS_BESIDE = 1.0
"""The same where another limit binds. With 0.5 s up to 1.2 % of that one was still lost; 2 s gained
nothing more."""

ROOM_SHARE = 0.3
SHRINK = 0.7
"""A 429 while our books say that more than this share is there takes the capacity down."""

CAPACITY_SECONDS_MIN = 0.5

SEEN_SHARE = 0.8
"""A reading above this share of the capacity shows that the bucket is as large as believed."""

PLATEAU_SECONDS_MAX = 30.0
"""Readings farther apart than this are not compared."""

PROBE_SECONDS = 2.0
"""While less urgent work waits for a level that nobody has seen, one unit asks this often."""

MARGIN_SHARE_STEP = 0.02
MARGIN_SHARE_MAX = 0.1
MARGIN_SECONDS = 600.0
"""Every 429 makes us keep so much more of the capacity in hand, because our books are wrong by
something that readings do not show in time (estimates, somebody else); it fades with time."""

SOFT_SECONDS_MIN = 20.0
"""A bucket that holds less than this keeps no partial reserve: it would only stand idle."""

COUNTED_EVERY_SECONDS = 1.0
"""A provider may count what is produced in lumps of so much time, and so later than we do."""

START_SECONDS = 0.1
START_SHARE_MAX = 0.3
"""Output that is charged as it is produced takes nothing at first. What must be there all the same,
because our books are not exact to that time: so much of the refill, and of what those will drain
that have not begun; lest all who wait be sent at the first token."""

SENDS_MAX = 4_096
"""Sends that are kept for replay; older ones are before any answer still under way."""


class Bucket:
    """One rate limit, refilled continuously.

    ``capacity_ceiling`` is the largest capacity that the provider can have: one whole period
    of the limit. A unit above it can never be sent; one between ``capacity`` and it is sent
    when the bucket is full, and leaves a debt. ``reserve_share`` is how much of the capacity
    may be kept free for more urgent classes: all of it, where that costs nothing.
    ``demand_seconds``: what a call takes on average, in seconds of the rate; the limit of which
    that is most ``is_binding`` (``Pool`` compares).
    """

    __slots__ = (
        "_drained",
        "_is_seen",
        "_margin",
        "_observed_at",
        "_observed_remaining",
        "_observed_sent_at",
        "_plateau",
        "_probed_at",
        "_sends",
        "_updated_at",
        "capacity",
        "capacity_ceiling",
        "demand_seconds",
        "is_binding",
        "level",
        "paused_until",
        "production",
        "rate",
        "reserve_share",
        "source",
    )

    def __init__(
        self,
        per_period: float,
        period_seconds: float,
        burst_seconds: float | None,
        now: float,
        reserve_share: float = 1.0,
    ) -> None:
        self.rate = per_period / period_seconds
        self.capacity_ceiling = per_period
        # A single request must fit, whatever the limit: below that nothing would ever move.
        self.capacity = max(1.0, self.rate * (burst_seconds or CAPACITY_SECONDS_UNKNOWN))
        self.level = self.capacity
        self.paused_until = -math.inf
        self.reserve_share = reserve_share
        self.source: str = "configured"
        self.production: Production | None = None
        self.demand_seconds = 0.0
        self.is_binding = True
        self._updated_at = now
        self._sends: deque[Send] = deque(maxlen=SENDS_MAX)
        self._observed_at = -math.inf
        self._observed_sent_at = -math.inf
        self._observed_remaining = 0.0
        self._probed_at = now
        self._is_seen = False
        self._margin = 0.0
        self._drained = 0.0
        self._plateau = Plateau()

    def advance(self, now: float) -> None:
        """Refill up to ``now``."""
        seconds = now - self._updated_at
        if seconds <= 0:
            return
        if self.production is not None:
            self._produce(self.production, now)
            return
        level = self.level + self.rate * seconds
        self.level = level if level < self.capacity else self.capacity
        self._updated_at = now

    def _produce(self, production: Production, now: float) -> None:
        """Refill less what is drained, change by change."""
        while production.changes_at <= now:
            self._drain(production, max(production.changes_at, self._updated_at))
            production.change()
        self._drain(production, now)

    def _drain(self, production: Production, now: float) -> None:
        seconds = now - self._updated_at
        rate = self.rate - production.drain
        level, most = self.level + rate * seconds, self.capacity - self._uncounted(production)
        self.level = level if level < most else most
        self._drained += (self.rate - rate) * seconds
        self._updated_at = now

    def _uncounted(self, production: Production) -> float:
        """What has been produced and the provider has not counted yet, on average.

        Its bucket stands so much higher than ours, is full so much earlier, and loses its refill
        then: so ours never fills to the top while answers are under way.
        """
        uncounted, most = 0.5 * COUNTED_EVERY_SECONDS * production.drain, 0.5 * self.capacity
        return uncounted if uncounted < most else most

    def note_drained(self) -> None:
        """What was drained until now is a send, for the replay of readings.

        It is dated a hair earlier, lest it be taken for the request that a reading belongs to.
        """
        if self._drained > 0:
            self._sends.append(Send(self._updated_at - 1e-6, self._drained))
            self._drained = 0.0

    def take(self, amount: float, now: float) -> None:
        """Reserve ``amount``; a negative amount gives back, up to the capacity.

        A full bucket begins to refill only when the provider has seen the request, so ours
        begins when it must have: else the next grants would be early by the jitter of the way.
        """
        self.advance(now)
        if amount > 0:
            if self.level >= self.capacity:
                self._updated_at = max(self._updated_at, now + ONE_WAY_SECONDS_MAX)
            self._probed_at = now
        level = self.level - amount
        self.level = level if level < self.capacity else self.capacity
        self._sends.append(Send(now, amount))

    def correct(self, amount: float, now: float) -> None:
        """Take (negative: give back) what was charged little by little until now.

        It is no send: what a reading shows has most of it in already.
        """
        self.advance(now)
        self.level = min(self.capacity, self.level - amount)

    def ready_to_produce_at(
        self, production: Production, expected: float, reserve: float, now: float
    ) -> float:
        """When one more answer may begin, for a class that leaves ``reserve`` (0 to 1).

        The provider asks for next to nothing when it begins. A class that leaves a reserve
        begins where the level bears the drain of all that are under way for as long as the answer
        is expected to last, which is nothing while refill makes up for them; an answer that no
        level bears may be the first to drain it. Where only an ending helps it is the next change,
        or never.
        """
        if now > self._updated_at:
            self.advance(now)
        capacity, speed = self.capacity, production.pace.tokens_per_second
        uncounted = self._uncounted(production)
        beginning = production.committed - production.drain
        inexact = START_SECONDS * ((1.5 if reserve else 1.0) * self.rate + beginning)
        start_most = START_SHARE_MAX * capacity
        start = need = max(1.0, inexact if inexact < start_most else start_most, self._margin)
        if reserve:
            drain_more = production.committed + speed - self.rate
            drained = drain_more * expected / speed - uncounted if drain_more > 0 else 0.0
            if drained < 0:
                drained = 0.0
            top = capacity - max(SLACK_SHARE * capacity, SLACK_SECONDS * self.rate)
            if drained > top and production.committed > self.rate:
                return max(self.paused_until, now, production.changes_at)
            borne = drained + self.floor(drained, reserve)
            if borne > top:
                borne = top
            if borne > need:
                need = borne
        most = capacity - uncounted
        missing = (need if need < most else most) - self.level
        if missing <= ROUNDING * capacity or missing <= ROUNDING:
            return now if now > self.paused_until else self.paused_until
        growth = self.rate - production.drain
        ready_at = now + missing / growth if growth > 0 else max(now, production.changes_at)
        if start < self.level:
            ready_at = min(ready_at, self._probe_at(start, now))
        return max(self.paused_until, ready_at)

    def untake(self, amount: float, taken_at: float, now: float) -> None:
        """Give back what was never charged, as if it had not been taken.

        It must leave the record of sends, too: a reading taken meanwhile knows nothing of it.
        """
        self.advance(now)
        self.level = min(self.capacity, self.level + amount)
        forget_send(self._sends, taken_at, amount)

    def ready_at(self, amount: float, reserve: float, now: float) -> float:
        """The earliest time at which a class that leaves ``reserve`` (0 to 1) may take ``amount``.

        What exceeds the capacity is asked of a full bucket: the rest becomes a debt.
        """
        if now > self._updated_at:
            self.advance(now)
        kept = margin = self._margin
        if not reserve and amount + margin <= self.level and self.paused_until <= now:
            return now
        capacity = self.capacity
        if reserve:
            floor = self.floor(amount, reserve)
            if floor > kept:
                kept = floor
        need = amount + kept
        missing = (need if need < capacity else capacity) - self.level
        ready_at = now
        if missing > ROUNDING * capacity and missing > ROUNDING:
            ready_at = max(now, self._updated_at) + missing / self.rate
            if kept > margin:
                ready_at = min(ready_at, self._probe_at(amount, now))
        return ready_at if ready_at > self.paused_until else self.paused_until

    def _probe_at(self, amount: float, now: float) -> float:
        """When one unit may go below its floor, to see how large the bucket really is.

        Without it, work that waits for a bucket larger than the provider's would wait for ever
        where nothing else is sent that could show it. Never where the provider shows nothing,
        or has shown a full bucket.
        """
        if self._is_seen or self._observed_at == -math.inf:
            return math.inf
        asked_at = max(self._observed_at, self._probed_at) + PROBE_SECONDS
        return max(now, asked_at, now + (amount - self.level) / self.rate)

    def floor(self, amount: float, reserve: float) -> float:
        """What a class with this reserve leaves in the bucket after taking ``amount``."""
        capacity, rate, reserve_share = self.capacity, self.rate, self.reserve_share
        seconds = SLACK_SECONDS if self.is_binding else SLACK_SECONDS_BESIDE
        slack, slack_least = SLACK_SHARE * capacity, seconds * rate
        free = capacity - (slack if slack > slack_least else slack_least) - amount
        if free <= 0 or (reserve_share < 1 and capacity < SOFT_SECONDS_MIN * rate):
            return 0.0
        return reserve * reserve_share * free

    def level_at(self, then: float, now: float) -> float:
        """The level at a later time, if nothing is taken."""
        rate = self.rate if self.production is None else self.net_rate
        level = self.level + rate * (then - now)
        return level if level < self.capacity else self.capacity

    @property
    def reached_at(self) -> float:
        """Until when it has been refilled and drained."""
        return self._updated_at

    @property
    def net_rate(self) -> float:
        """What it grows by at the moment, in units a second."""
        return self.rate - (self.production.drain if self.production is not None else 0.0)

    def fits_ever(self, amount: float) -> bool:
        """Whether any waiting can make ``amount`` fit."""
        return amount <= max(self.capacity, self.capacity_ceiling)

    def pause(self, until: float, now: float) -> None:
        """The provider says that this limit is exhausted: nothing is here, until then.

        Where our books said that there was room, the bucket is smaller than believed.
        """
        self.advance(now)
        if self.level > ROOM_SHARE * self.capacity:
            self._shrink(self.capacity * SHRINK)
            self.source = "429"
        more = self._margin + MARGIN_SHARE_STEP * self.capacity
        self._margin = min(more, MARGIN_SHARE_MAX * self.capacity)
        self.level = min(self.level, 0.0)
        self.paused_until = max(self.paused_until, until)

    def replan(self, per_period: float, period_seconds: float, burst_seconds: float | None) -> None:
        """Take over changed configuration, keeping what has been used and learnt."""
        capacity_seconds = burst_seconds or self.capacity / self.rate
        self.rate = per_period / period_seconds
        self.capacity_ceiling = per_period
        self.capacity = max(1.0, min(per_period, self.rate * capacity_seconds))
        self.level = min(self.level, self.capacity)
        self._is_seen = False
        self._plateau.forget()

    def observe(
        self, reading: LimitReading, period_seconds: float, *, sent_at: float, now: float
    ) -> None:
        """Learn from the headers of an answer whose request was sent at ``sent_at``.

        A lower limit than ours is adopted; a higher one is the operator's choice to leave
        unused. The level is moved into the interval that the reading allows: down always, up
        only where the provider keeps the same limit as we do. So is the capacity: up to the
        largest ``remaining``, down to the level at which growth ends (``plateau``).
        """
        self.advance(now)
        self.note_drained()
        capacity, remaining = reading.capacity, reading.remaining
        per_period = self.rate * period_seconds
        if capacity is not None and 0 < capacity < per_period * 0.999:
            self.rate = capacity / period_seconds
            self.capacity_ceiling = capacity
            self.capacity = min(self.capacity, max(1.0, capacity))
            self.source = "header"
            per_period = capacity
        if remaining is None or self._is_stale(sent_at, now):
            return
        is_same_limit = capacity is None or capacity <= per_period * 1.001
        shown = remaining - reading.rounding / 2
        if is_same_limit and shown > self.capacity:
            self.level += shown - self.capacity
            self.capacity = min(shown, max(self.capacity_ceiling, self.capacity))
            self._plateau.forget()
        self._watch_plateau(reading, remaining, sent_at)
        if self._margin:
            self._margin *= max(0.0, 1.0 - (now - self._observed_at) / MARGIN_SECONDS)
        self._is_seen |= remaining > SEEN_SHARE * self.capacity
        self._observed_at, self._observed_sent_at = now, sent_at
        self._observed_remaining = remaining
        lowest, highest = self._interval(reading, remaining, sent_at, now)
        if self.level > highest:
            self.level = highest
        if is_same_limit and self.level < lowest:
            self.level = lowest
        if is_same_limit and self.level > self.capacity:
            self.level = self.capacity

    def _watch_plateau(self, reading: LimitReading, remaining: float, sent_at: float) -> None:
        """Compare with what the last reading predicts for this one."""
        seconds = sent_at - self._observed_sent_at
        if not 0 < seconds < PLATEAU_SECONDS_MAX:
            return
        own: float | None = None
        sent = 0.0
        for send in reversed(self._sends):
            if send.at <= self._observed_sent_at:
                break
            if send.at <= sent_at:
                sent += send.amount
                if own is None and send.at == sent_at:
                    own = send.amount
        own = own or 0.0
        others = sent - own
        growth = self.rate * seconds
        before_own = min(self.capacity, self._observed_remaining + growth - others)
        capacity = self._plateau.watch(
            predicted_growth=growth,
            missing=before_own - own - remaining,
            level=remaining + own,
            rate=self.rate,
            rounding=reading.rounding,
        )
        if capacity is not None:
            self._shrink(capacity)

    def _shrink(self, capacity: float) -> None:
        """Believe in a smaller bucket, though never in one too small to work with."""
        smallest = max(1.0, self.rate * CAPACITY_SECONDS_MIN)
        self.capacity = max(min(smallest, self.capacity), min(self.capacity, capacity))
        self.level = min(self.level, self.capacity)
        self._is_seen = False
        self._plateau.forget()

    def _interval(
        self, reading: LimitReading, remaining: float, sent_at: float, now: float
    ) -> tuple[float, float]:
        return remaining_interval(
            remaining,
            rounding=reading.rounding,
            rate=self.rate,
            capacity=self.capacity,
            sends=self._sends,
            sent_at=sent_at,
            now=now,
            before_seconds=REORDER_SECONDS if self.production is None else COUNTED_EVERY_SECONDS,
        )

    def _is_stale(self, sent_at: float, now: float) -> bool:
        """Whether a reading is older than the last one used, or says the same again."""
        if now - self._observed_at < OBSERVATION_INTERVAL_SECONDS:
            return True
        is_unknown = len(self._sends) == SENDS_MAX and sent_at < self._sends[0].at
        return is_unknown or sent_at < self._observed_sent_at


class Slots:
    """A limit on concurrency: so many calls at once (infinite: no limit).

    Nothing refills but by an ending.
    """

    __slots__ = ("capacity", "in_use")

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.in_use = 0.0

    @property
    def is_limit(self) -> bool:
        """Whether there is a limit at all."""
        return not math.isinf(self.capacity)

    @property
    def level(self) -> float:
        """How many slots are free; negative after the limit was lowered under load."""
        return self.capacity - self.in_use
