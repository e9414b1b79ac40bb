"""Whether a deployment may be called at all, and by how many at once.

A provider that answers 529, 503 or not at all is left alone for a while, then asked by one
call; each success lets one more be under way, so that their number doubles with every round,
until as many are as were when the trouble began. This is TCP's slow start after a loss (RFC
5681, section 3.1), counted in calls. Without it everyone who waited through an outage is sent
in the same instant.

A provider that answers 429 for a limit that nobody knows (neither configured nor shown in
headers) is held by additive increase and multiplicative decrease of the calls under way (Chiu
and Jain 1989; RFC 5681's congestion avoidance): down by ``DECREASE`` once a round, up by one
call a round.
"""

from __future__ import annotations

import math

PAUSE_SECONDS_FIRST = 0.5
PAUSE_SECONDS_MAX = 30.0
DECREASE = 0.7


class Health:
    """The state of one deployment. ``in_flight`` counts the calls under way."""

    __slots__ = ("_failures", "_limit_is_unknown", "_window", "_window_goal", "in_flight",
                 "paused_until")  # fmt: skip

    def __init__(self) -> None:
        self.in_flight = 0
        self.paused_until = -math.inf
        self._failures = 0
        self._limit_is_unknown = False
        self._window: float = math.inf
        self._window_goal: float = 0.0

    def ready_at(self, now: float) -> float:
        """When a call may be sent; infinite where only an ending can allow it."""
        if self.paused_until > now:
            return self.paused_until
        return math.inf if self.in_flight + 1 > self._window else now

    def limited(self, until: float, now: float) -> None:
        """A 429 for a limit that nobody knows: nobody before ``until``, then fewer at once.

        Refusals of calls that were sent before the pause count once together.
        """
        if now >= self.paused_until:
            self._limit_is_unknown = True
            self._window = max(1.0, DECREASE * min(self._window, self.in_flight))
        self.paused_until = max(self.paused_until, until)

    def overloaded(self, pause_seconds: float | None, now: float) -> None:
        """Back off. Failures of calls that were sent before the pause count once together."""
        if now < self.paused_until:
            return
        backoff_seconds = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_FIRST * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        if self._window >= self._window_goal:
            self._window_goal = min(self._window, self.in_flight + 1.0)
        self._window = 1.0
        self.paused_until = now + max(pause_seconds or 0.0, backoff_seconds)

    def succeeded(self, now: float) -> None:
        """A call was answered in full. One sent before the pause proves nothing."""
        if now < self.paused_until:
            return
        self._failures = 0
        if math.isinf(self._window):
            return
        if self._window < self._window_goal:
            self._window += 1.0
        elif not self._limit_is_unknown:
            self._window = math.inf
        elif self.in_flight + 2 > self._window:
            self._window += 1.0 / self._window
