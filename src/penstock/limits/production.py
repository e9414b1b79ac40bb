"""Output that is charged while it is produced, as a rate.

Where a provider counts output tokens as they leave the model (Anthropic's OTPM), a call takes
nothing of that limit when it is admitted: it drains it, at the speed of the model, for as long as
it answers. So many calls at once as refill makes up for drain nothing at all, and a bucket that is
much smaller than one answer is no obstacle. To reserve the whole expected answer at once, as is
right for every other limit, would hold that bucket far below its true level until the answer
ends, then far above it: with a bucket of 677 tokens and answers of 1,500 up to 1.3 % of the limit
that binds was lost in simulation.

Each answer begins ``delay_seconds`` after the grant and drains
``tokens_per_second`` until the call is settled; then what was counted of it is replaced by what
the provider charged. Both numbers are learnt (``Pace``): the line that fits seconds to tokens over
the answers seen, the latest most, by least squares.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from itertools import count

from penstock.limits.replay import ONE_WAY_SECONDS_MAX

PACE_RATE = 0.02
"""How far one answer moves what is believed: about the last fifty count."""

PACE_PRIOR = ((50.0, 1.2), (1_000.0, 17.0))
"""Answers (tokens, seconds) that a model is taken to have given before any was seen."""

SECONDS_PER_TOKEN = (0.0005, 0.5)
"""What a model may be believed to take for a token."""

ANSWER_EXPECTED_TIMES = 8.0
ANSWER_SECONDS_MIN = 60.0
"""A answer that has produced so many times what was expected, and for so long, produces nothing
more until it is settled: a call that hangs must not drain for ever."""

COMPACT_CHANGES_MIN = 64
"""Changes of answers that are over are swept out once they are more than these and than half."""


class Pace:
    """How long answers take, by their length: ``delay_seconds`` and ``tokens_per_second``."""

    __slots__ = ("_products", "_seconds", "_squares", "_tokens", "delay_seconds",
                 "tokens_per_second")  # fmt: skip

    def __init__(self) -> None:
        total = len(PACE_PRIOR)
        self._tokens = sum(tokens for tokens, _ in PACE_PRIOR) / total
        self._seconds = sum(seconds for _, seconds in PACE_PRIOR) / total
        self._squares = sum(tokens * tokens for tokens, _ in PACE_PRIOR) / total
        self._products = sum(tokens * seconds for tokens, seconds in PACE_PRIOR) / total
        self._fit()

    def learn(self, tokens: float, seconds: float) -> None:
        """One answer of so many tokens took so long from its grant to its end."""
        self._tokens += PACE_RATE * (tokens - self._tokens)
        self._seconds += PACE_RATE * (seconds - self._seconds)
        self._squares += PACE_RATE * (tokens * tokens - self._squares)
        self._products += PACE_RATE * (tokens * seconds - self._products)
        self._fit()

    def _fit(self) -> None:
        variance = self._squares - self._tokens * self._tokens
        covariance = self._products - self._tokens * self._seconds
        mean_seconds_per_token = self._seconds / max(1.0, self._tokens)
        # Answers of one length say nothing of the delay: then all of the time is production.
        is_known = variance > 0.01 * self._tokens * self._tokens and covariance > 0
        seconds_per_token = covariance / variance if is_known else mean_seconds_per_token
        least, most = SECONDS_PER_TOKEN
        seconds_per_token = min(most, max(least, seconds_per_token))
        self.tokens_per_second = 1.0 / seconds_per_token
        delay_seconds = self._seconds - self._tokens * seconds_per_token
        # Tokens are counted when they leave the provider, and the end is seen here.
        self.delay_seconds = max(0.0, delay_seconds - ONE_WAY_SECONDS_MAX)


class Answer:
    """The output of one call: tokens a second from ``starts_at``, until ``ends_at`` at most."""

    __slots__ = ("drains", "ends_at", "is_over", "speed", "starts_at")

    def __init__(self, starts_at: float, ends_at: float, speed: float) -> None:
        self.starts_at = starts_at
        self.ends_at = ends_at
        self.speed = speed
        self.drains = False
        self.is_over = False

    def produced(self, now: float) -> float:
        """What has been counted of it until now."""
        until = now if now < self.ends_at else self.ends_at
        return self.speed * (until - self.starts_at) if until > self.starts_at else 0.0


class Production:
    """All answers of one limit. ``drain``: what they take a second at the moment it has reached.

    ``committed`` is the same for all that are under way, those that have not begun, too.
    Every operation is O(log n) in the number of answers.
    """

    __slots__ = ("_changes", "_count", "_sequence", "changes_at", "committed", "drain", "pace")

    def __init__(self) -> None:
        self.pace = Pace()
        self.drain = 0.0
        self.committed = 0.0
        self.changes_at = math.inf
        self._changes: list[tuple[float, int, float, Answer]] = []
        self._sequence = count()
        self._count = 0

    def begin(self, expected: float, now: float) -> Answer:
        """A call has been granted that is expected to produce so many tokens."""
        speed = self.pace.tokens_per_second
        starts_at = now + self.pace.delay_seconds
        longest_seconds = max(ANSWER_SECONDS_MIN, ANSWER_EXPECTED_TIMES * expected / speed)
        answer = Answer(starts_at, starts_at + longest_seconds, speed)
        heappush(self._changes, (answer.starts_at, next(self._sequence), speed, answer))
        heappush(self._changes, (answer.ends_at, next(self._sequence), -speed, answer))
        self._count += 1
        self.committed += speed
        self.changes_at = self._changes[0][0]
        return answer

    def end(self, answer: Answer, now: float) -> float:
        """A call has ended: the tokens that were counted of it until the limit was at ``now``."""
        answer.is_over = True
        self._count -= 1
        self.committed -= answer.speed
        if answer.drains:
            self.drain = max(0.0, self.drain - answer.speed)
        if not self._count:
            # Nothing drifts: what floating point left over goes with the last answer.
            self.drain, self.committed = 0.0, 0.0
            self._changes.clear()
        self._settle_changes()
        return answer.produced(now)

    def change(self) -> None:
        """The next change has been reached: a answer begins, or has produced all it can."""
        _, _, difference, answer = heappop(self._changes)
        answer.drains = difference > 0
        self.drain = max(0.0, self.drain + difference)
        self._settle_changes()

    def _settle_changes(self) -> None:
        changes = self._changes
        if len(changes) > 4 * self._count + COMPACT_CHANGES_MIN:
            changes[:] = [change for change in changes if not change[3].is_over]
            heapify(changes)
        while changes and changes[0][3].is_over:
            heappop(changes)
        self.changes_at = changes[0][0] if changes else math.inf
