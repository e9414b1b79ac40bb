"""Whether a deployment may be called at all, and by how many at once.

A provider that answers 529, 503 or not at all, or 429 although its limits are known and have room,
is left alone for a while, then asked by one call; each call that it takes on lets one more be under
way, so that their number doubles with every round, until as many are as were when the trouble
began. This is TCP's slow start after a loss (RFC 5681, section 3.1), counted in calls. Without it
everyone who waited through an outage is sent in the same instant. What counts is the head of a
good answer, not its end: a round then takes a second where a whole answer takes ten.

A provider that answers 429 for a limit that nobody knows (neither configured nor shown in
headers) is held by additive increase and multiplicative decrease of the calls under way (Chiu
and Jain 1989; RFC 5681's congestion avoidance): down by ``DECREASE`` once a round, up by one
call a round.

A deployment that goes on failing is *out*: five failures in a row, or half of its last calls, or
our key refused. Whatever can be sent elsewhere is, for a period that doubles with each time
(outlier ejection as Envoy has it); then one call probes it (half-open), and its success brings it
back. Being out stops nothing by itself: the last deployment of a model still gets its calls,
which wait out the short pauses above, or fail as they come; none hangs for the longer period.
"""

from __future__ import annotations

import math
from enum import StrEnum

PAUSE_SECONDS_FIRST = 0.5
PAUSE_SECONDS_MAX = 5.0
"""One call in so many seconds is nothing to a provider in trouble, and waiting longer would go on
for as long after the trouble has ended."""
DECREASE = 0.7

OUT_FAILURES = 5
"""So many failures in a row, each after a pause that was waited out."""
OUT_SHARE = 0.5
OUT_CALLS_MIN = 20
"""A share says nothing of fewer calls; it is that of about the last twenty."""
OUT_SECONDS_FIRST = 10.0
OUT_SECONDS_MAX = 600.0


class Trouble(StrEnum):
    """Why a deployment is out."""

    FAILING = "failing"
    KEY_REFUSED = "key_refused"
    NO_QUOTA = "no_quota"


class Health:
    """The state of one deployment. ``in_flight`` counts the calls under way; ``trouble`` says
    why it is out, and is None where it is not."""

    __slots__ = ("_calls", "_failed_share", "_failures", "_limit_is_unknown", "_times_out",
                 "_window", "_window_goal", "in_flight", "out_until", "paused_until",
                 "trouble")  # fmt: skip

    def __init__(self) -> None:
        self.in_flight = 0
        self.paused_until = -math.inf
        self._failures = 0
        self._limit_is_unknown = False
        self._window: float = math.inf
        self._window_goal: float = 0.0
        self._calls = 0
        self._failed_share = 0.0
        self._times_out = 0
        self.trouble: Trouble | None = None
        self.out_until = -math.inf

    def is_out(self, now: float) -> bool:
        """Whether calls that can go elsewhere should: it is out, and not due for a probe."""
        if self.trouble is None:
            return False
        return now < self.out_until or self.in_flight > 0

    @property
    def is_failing(self) -> bool:
        """Whether its failures are reason enough to take it out."""
        often = self._calls >= OUT_CALLS_MIN and self._failed_share >= OUT_SHARE
        return self._failures >= OUT_FAILURES or often or self.trouble is not None

    def take_out(self, trouble: Trouble, now: float) -> None:
        """Out for a period that grows. Failures of calls sent before count once together."""
        if self.trouble is not None and now < self.out_until:
            return
        seconds = min(OUT_SECONDS_MAX, OUT_SECONDS_FIRST * 2 ** min(self._times_out, 16))
        self._times_out += 1
        self.trouble = trouble
        self.out_until = now + seconds

    def restore(self) -> None:
        """What was wrong has been mended from here, as by another key: ask again at once."""
        self.trouble = None
        self._failures = self._calls = self._times_out = 0
        self._failed_share = 0.0
        self.out_until = self.paused_until = -math.inf

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
        self.failed()
        if self._window >= self._window_goal:
            self._window_goal = min(self._window, self.in_flight + 1.0)
        self._window = 1.0
        self.paused_until = now + max(pause_seconds or 0.0, backoff_seconds)

    def failed(self) -> None:
        """An answer came, and was none. It may be this call's alone: nobody waits for that."""
        self._count(1.0)
        self._failures = min(self._failures + 1, 16)

    def succeeded(self, now: float) -> None:
        """A call was answered in full. One sent before the pause proves nothing."""
        if now < self.paused_until:
            return
        if self.trouble is not None:
            self.trouble = None
            self._calls, self._failed_share = 0, 0.0
        self._count(0.0)
        self._failures = 0

    def accepted(self, now: float) -> None:
        """A good answer has begun: one more call may be under way, or a part of one."""
        if now < self.paused_until or math.isinf(self._window):
            return
        if self._window < self._window_goal:
            self._window += 1.0
        elif not self._limit_is_unknown:
            self._window = math.inf
        elif self.in_flight + 2 > self._window:
            self._window += 1.0 / self._window

    def _count(self, failed: float) -> None:
        """Take note of one ending; after many good ones earlier troubles are forgotten."""
        if self._calls < OUT_CALLS_MIN:
            self._calls += 1
        self._failed_share += (failed - self._failed_share) / self._calls
        if self._failed_share < 1 / OUT_CALLS_MIN and self._calls == OUT_CALLS_MIN:
            self._times_out = 0
