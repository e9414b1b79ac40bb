"""Limits that are counted in windows instead of a bucket.

A *fixed window* gives its whole amount at each boundary, and what is left then is lost. So the
last moment at which work of less urgent classes loses nothing is the end of the window: they
are held back until the last ``RELEASE_SHARE`` of it, and then released so fast that everything
is used when it ends. Until then all of the window is there for urgent work; within the release
it can still take ten times the average rate. (Linear pacing through the window, the obvious
way, takes from every urgent burst in its second half: it made chains 1.3 times as slow as
alone in a prototype.)

A *rolling window* is for providers which enforce a minute's requests by the second or by ten:
at most so many in any such period, whatever its boundaries are.
"""

from __future__ import annotations

import math
from collections import deque

from penstock.limits.bucket import ROUNDING, SENDS_MAX, START_SECONDS
from penstock.limits.production import Production
from penstock.limits.replay import REORDER_SECONDS, Send, forget_send, sent_since
from penstock.units import LimitReading

RELEASE_SHARE = 0.1
"""The last part of a window in which less urgent classes are released."""

MARGIN_SECONDS = 0.05
"""The release ends so long before the window does: what is sent later may arrive in the next one.
Whoever is urgent and comes in the rest waits for the next window, so it is no longer than the way
usually takes; where that is longer, the headers of the next window show what arrived in it. (With
0.25 s, calls that come together at such a moment waited 0.3 s, minute after minute.)"""


class FixedWindow:
    """One limit that starts anew at every multiple of its period after ``starts_at``."""

    __slots__ = (
        "_drained",
        "_sends",
        "_starts_at",
        "capacity",
        "level",
        "paused_until",
        "period_seconds",
        "production",
        "reached_at",
        "reserve_share",
        "source",
    )

    def __init__(self, per_period: float, period_seconds: float, now: float) -> None:
        self.capacity = per_period
        self.level = per_period
        self.period_seconds = period_seconds
        self.paused_until = -math.inf
        self.reserve_share = 1.0
        self.source: str = "configured"
        self.production: Production | None = None
        self._starts_at = now
        self.reached_at = now
        self._drained = 0.0
        self._sends: deque[Send] = deque(maxlen=SENDS_MAX)

    @property
    def capacity_ceiling(self) -> float:
        """The largest amount that one call can take."""
        return self.capacity

    @property
    def rate(self) -> float:
        """The average, in units a second."""
        return self.capacity / self.period_seconds

    def advance(self, now: float) -> None:
        """Begin the window that ``now`` lies in."""
        if self.production is not None and now > self.reached_at:
            self._produce(self.production, now)
        self._turn(now)

    def _produce(self, production: Production, now: float) -> None:
        """Count what is produced, change by change and window by window."""
        while self.reached_at < now:
            ends_at = self._starts_at + self.period_seconds
            until = min(now, max(production.changes_at, self.reached_at), ends_at)
            drained = production.drain * (until - self.reached_at)
            self.level -= drained
            self._drained += drained
            self.reached_at = until
            if production.changes_at <= until:
                production.change()
            self._turn(until)

    def _turn(self, now: float) -> None:
        if now >= self._starts_at + self.period_seconds:
            windows = math.floor((now - self._starts_at) / self.period_seconds)
            self._starts_at += windows * self.period_seconds
            self.level = self.capacity
            self._drained = 0.0
            self._sends.clear()

    def note_drained(self) -> None:
        """What was drained until now is a send, for the reading of headers."""
        if self._drained > 0:
            self._sends.append(Send(self.reached_at, self._drained))
            self._drained = 0.0

    def take(self, amount: float, now: float) -> None:
        """Count ``amount``; a negative amount is given back."""
        self.advance(now)
        self.level = min(self.capacity, self.level - amount)
        self._sends.append(Send(now, amount))

    def correct(self, amount: float, now: float) -> None:
        """Count (negative: give back) what was charged little by little until now."""
        self.advance(now)
        self.level = min(self.capacity, self.level - amount)

    def untake(self, amount: float, taken_at: float, now: float) -> None:
        """Give back what was never charged; what an earlier window counted is gone."""
        self.advance(now)
        if taken_at >= self._starts_at:
            self.level = min(self.capacity, self.level + amount)
            forget_send(self._sends, taken_at, amount)

    def ready_at(self, amount: float, reserve: float, now: float) -> float:
        """The earliest time at which a class that leaves ``reserve`` may take ``amount``."""
        self.advance(now)
        ends_at = self._starts_at + self.period_seconds
        if amount > self.level + ROUNDING * self.capacity:
            # An amount above the whole window goes first in one, and leaves a debt in it.
            ready_at = now if self.level >= self.capacity else ends_at
        else:
            ready_at = max(now, self._released_at(self.level - amount, reserve))
        return max(ready_at, self.paused_until)

    def ready_to_produce_at(
        self, production: Production, expected: float, reserve: float, now: float
    ) -> float:
        """When one more answer may begin, for a class that leaves ``reserve`` (0 to 1).

        What all that are under way will still produce in this window must be there; what they
        produce after it belongs to the next one.
        """
        self.advance(now)
        ends_at = self._starts_at + self.period_seconds
        need = max(1.0, START_SECONDS * (self.rate + production.committed - production.drain))
        if self.level < need:
            return max(ends_at, self.paused_until)
        if not reserve:
            return max(now, self.paused_until)
        seconds = min(ends_at - now, RELEASE_SHARE * self.period_seconds)
        speed = production.pace.tokens_per_second
        left = self.level - production.committed * seconds - min(expected, speed * seconds)
        ready_at = self._released_at(left, reserve) if left > 0 else ends_at
        return max(now, ready_at, self.paused_until)

    def ends_at(self, now: float) -> float:
        """When the window ends that ``now`` lies in."""
        self.advance(now)
        return self._starts_at + self.period_seconds

    def floor(self, amount: float, reserve: float) -> float:
        """What a class with this reserve leaves before the release: all that it can."""
        return reserve * self.reserve_share * max(0.0, self.capacity - amount)

    def level_at(self, then: float, now: float) -> float:
        """The level at a later time, if nothing is taken."""
        self.advance(now)
        return self.capacity if then >= self._starts_at + self.period_seconds else self.level

    def fits_ever(self, amount: float) -> bool:
        """Whether any window can hold ``amount``."""
        return amount <= self.capacity

    def pause(self, until: float, now: float) -> None:
        """The provider says that this window is used up; if it ends then, it says when."""
        self.advance(now)
        self.level = min(self.level, 0.0)
        self.paused_until = max(self.paused_until, until)

    def observe(
        self, reading: LimitReading, period_seconds: float, *, sent_at: float, now: float
    ) -> None:
        """Learn the amount, what is left at most, and the boundary from an answer's headers."""
        self.advance(now)
        self.note_drained()
        capacity, remaining = reading.capacity, reading.remaining
        if capacity is not None and 0 < capacity < self.capacity * 0.999:
            self.level -= self.capacity - capacity
            self.capacity = capacity
            self.source = "header"
        if reading.reset_seconds is not None and 0 < reading.reset_seconds <= period_seconds:
            # Rather late than early: what is sent before the boundary counts in the old window.
            boundary_at = sent_at + reading.reset_seconds + REORDER_SECONDS
            self._starts_at = boundary_at - period_seconds
        if remaining is not None and sent_at >= self._starts_at:
            since = sent_since(self._sends, sent_at + REORDER_SECONDS)
            self.level = min(self.level, remaining + reading.rounding / 2 - since)

    def replan(self, per_period: float, period_seconds: float, burst_seconds: float | None) -> None:
        """Take over changed configuration, keeping what has been used."""
        del burst_seconds  # A window is as large as its period.
        self.level += per_period - self.capacity
        self.capacity = per_period
        self.period_seconds = period_seconds

    def _released_at(self, left: float, reserve: float) -> float:
        """When a class may go so far down that only ``left`` remains: the floor falls to it."""
        kept = reserve * self.reserve_share * self.capacity
        if kept <= left:
            return -math.inf
        ends_at = self._starts_at + self.period_seconds - MARGIN_SECONDS
        return ends_at - RELEASE_SHARE * self.period_seconds * left / kept


class RollingWindow:
    """At most ``count`` sends in any ``period_seconds``."""

    __slots__ = ("_sends", "count", "period_seconds")

    def __init__(self, count: int, period_seconds: float) -> None:
        self.count = max(1, count)
        self.period_seconds = period_seconds
        self._sends: deque[float] = deque(maxlen=self.count)

    def take(self, now: float) -> None:
        """One send."""
        self._sends.append(now)

    def ready_at(self, now: float) -> float:
        """When the next send fits."""
        if len(self._sends) < self.count:
            return now
        return max(now, self._sends[0] + self.period_seconds)
