"""One callable target: its limits, its health, and what it learns of both."""

from __future__ import annotations

import math

from penstock.limits.charge import admission_amounts
from penstock.limits.days import Asker
from penstock.limits.pool import Pool
from penstock.scheduler.events import KeyRefused, Limited, Observed, Overloaded, Restored
from penstock.scheduler.explain import CONCURRENT, DAY_KEPT, PAUSE, REFILL, SLOW_START
from penstock.scheduler.health import Health, Trouble
from penstock.scheduler.plan import DeploymentPlan
from penstock.units import CONCURRENCY, OTPM, Amounts, Estimate, LimitName

PAUSE_SECONDS_UNKNOWN = 1.0
"""After a 429 for a limit that names no time."""

RATIO_MAX = 20.0
RATIO_RATE = 0.05
"""How far one answer may move what is believed of the output of a class: one part in twenty."""


class Deployment:
    """One callable target with its limits and its health."""

    __slots__ = ("_amounts", "_estimate", "_output_ratio", "health", "plan", "pool")

    def __init__(self, plan: DeploymentPlan, pool: Pool) -> None:
        self.health = Health()
        self._output_ratio: dict[str, float] = {}
        self.adopt(plan, pool)

    def adopt(self, plan: DeploymentPlan, pool: Pool) -> None:
        """Go by this plan from now on."""
        self.plan = plan
        self.pool = pool
        self._estimate: Estimate | None = None
        self._amounts: Amounts = {}

    def amounts(self, estimate: Estimate, class_name: str | None = None) -> Amounts:
        """What a unit takes here, by its estimate.

        With a class it is corrected by what that one's units have produced lately, of what was
        expected: a unit is estimated when it arrives, and one of a large batch may have waited
        since before anything was known of its kind.
        """
        if estimate is not self._estimate:  # a unit is priced, and placed at once most times
            self._amounts = admission_amounts(self.plan.charge, estimate)
            self._estimate = estimate
        amounts = self._amounts
        if class_name in self._output_ratio and OTPM in self.pool.buckets:
            return {**amounts, OTPM: amounts[OTPM] * self._output_ratio[class_name]}
        return amounts

    def produced(self, class_name: str, estimate: Estimate, tokens_output: int) -> None:
        """A unit has ended: remember how its output compares with its estimate."""
        if OTPM in self.pool.buckets and estimate.tokens_output > 0:
            observed = tokens_output / estimate.tokens_output
            if not 1 / RATIO_MAX < observed < RATIO_MAX:
                observed = min(RATIO_MAX, max(1 / RATIO_MAX, observed))
            ratio = self._output_ratio.get(class_name, 1.0)
            self._output_ratio[class_name] = ratio + RATIO_RATE * (observed - ratio)

    def ready_at(
        self, amounts: Amounts, reserve: float, now: float, asker: Asker | None = None
    ) -> tuple[float, str]:
        """When a unit of a class with this reserve could be sent here, and what it waits for."""
        fit = self.pool.fit(amounts, reserve, now, asker)
        ready_at, limit = fit.ready_at, fit.limit
        health_ready_at = self.health.ready_at(now)
        if health_ready_at > ready_at:
            return health_ready_at, SLOW_START if math.isinf(health_ready_at) else PAUSE
        if limit is None:
            return ready_at, ""
        if limit is CONCURRENCY:
            return ready_at, CONCURRENT
        if fit.is_kept:
            return ready_at, DAY_KEPT
        if ready_at <= self.pool.buckets[limit].paused_until:
            return ready_at, PAUSE
        return ready_at, REFILL[limit]

    def learn(
        self, event: Observed | Limited | Overloaded | KeyRefused | Restored, now: float
    ) -> None:
        """Take in what the provider said of its limits or of itself."""
        if isinstance(event, Observed):
            for reading in event.readings:
                self.pool.observe(reading, sent_at=event.sent_at, now=now)
            if event.accepted:
                self.health.accepted(now)
            return
        match event:
            case Limited(_, pause_seconds, limit):
                self._limited(pause_seconds, limit, now)
            case Overloaded(_, pause, backs_off):
                if backs_off:
                    self.health.overloaded(pause, now)
                else:
                    self.health.failed()
                if self.health.is_failing:
                    self.health.take_out(Trouble.FAILING, now)
            case KeyRefused(_, has_quota):
                trouble = Trouble.KEY_REFUSED if has_quota else Trouble.NO_QUOTA
                self.health.take_out(trouble, now)
            case Restored():
                self.health.restore()

    def _limited(self, pause_seconds: float | None, limit: LimitName | None, now: float) -> None:
        brief = PAUSE_SECONDS_UNKNOWN if pause_seconds is None else pause_seconds
        if limit is not None and self.pool.pause(limit, now + brief, now):
            return
        if self.pool.buckets:
            # Its limits are known and had room: whatever this was, it is no limit.
            self.health.overloaded(pause_seconds, now)
        else:
            self.health.limited(now + brief, now)
