"""A million seeded steps against a provider that enforces its limits by its own arithmetic.

The provider's world is the judge: whatever is granted must be admitted there, whatever mix of
arrivals, endings, failures, hang-ups, headers, refusals, reloads and clock steps came before.
A failure names its seed; the same seed repeats it.
"""

from __future__ import annotations

import random

import pytest

from penstock.limits.pool import LimitsPlan
from penstock.scheduler.events import (
    Cancelled,
    Event,
    Failed,
    Limited,
    Observed,
    Overloaded,
    Replanned,
    Settled,
    Submitted,
    TenantsReplanned,
)
from penstock.scheduler.plan import ClassPlan, DeploymentPlan, Plan
from penstock.scheduler.scheduler import Scheduler
from penstock.simulate.provider_world import (
    OPENAI_CHARGE,
    Admitted,
    ProviderCall,
    ProviderLimits,
    ProviderWorld,
)
from penstock.units import Estimate, LimitName, RunPlace, Unit, Usage

STEPS = 100_000
SEEDS = range(8)
SEEDS_OF_DAYS = range(8, 10)
"""In these a limit of the day is used up again and again, and nights pass."""
RPM, TPM, BURST_SECONDS, CONCURRENCY = 6_000, 600_000, 5.0, 40
RPD = 3_000
NIGHT_SECONDS = 20_000.0
CLASSES = (
    ClassPlan("interactive", 0, quantum_seconds=2.0, seniority_seconds=0.5),
    ClassPlan("standard", 1, reserve=1.0, min_share=0.05, order="deadline"),
    ClassPlan("batch", 2, reserve=1.0, min_share=0.05, queue_max=500),
)


OWN_RPM, OWN_TPM, OWN_SLOTS = 660, 150_000, 12
"""Limits of tenant c's own, which it would pass if it were let."""


class OwnLimit:
    """The judge of one of a tenant's own limits: a bucket of a minute."""

    def __init__(self, per_minute: float) -> None:
        self.per_minute = self.level = per_minute
        self.at = 0.0

    def take(self, amount: float, now: float) -> None:
        refilled = self.level + self.per_minute * (now - self.at) / 60
        self.level, self.at = min(self.per_minute, refilled) - amount, now
        assert amount <= 0 or self.level >= -1e-6 * self.per_minute, "a tenant passed its limit"


class LongRun:
    """The scheduler, its judge, and books of every unit."""

    def __init__(self, seed: int, rpd: int | None = None) -> None:
        self.rpd = rpd
        self.chance = random.Random(seed)
        self.now = 0.0
        self.weights = {"a": 1.0, "b": 2.0}
        self.scheduler = Scheduler(self.plan(), 0.0)
        limits = ProviderLimits(
            rpm=RPM, tpm=TPM, rpd=rpd, concurrency=CONCURRENCY, burst_seconds=BURST_SECONDS
        )
        self.world = ProviderWorld(limits, OPENAI_CHARGE)
        self.waiting: dict[str, Unit] = {}
        self.flying: dict[str, Admitted] = {}
        self.ended: dict[str, str] = {}
        self.own_flying: dict[str, Unit] = {}
        self.own_requests, self.own_tokens = OwnLimit(OWN_RPM), OwnLimit(OWN_TPM)
        self.own_waits = 0
        self.day_waits = 0
        self.wait_seconds_max = 0.0
        self.number = 0

    def plan(self) -> Plan:
        rates = {LimitName.RPM: float(RPM), LimitName.TPM: float(TPM)}
        if self.rpd is not None:
            rates[LimitName.RPD] = float(self.rpd)
        limits = LimitsPlan(rates, CONCURRENCY, BURST_SECONDS)
        own = LimitsPlan({LimitName.RPM: float(OWN_RPM), LimitName.TPM: float(OWN_TPM)}, OWN_SLOTS)
        deployments = (DeploymentPlan("one", ("m",), limits),)
        return Plan(CLASSES, deployments, dict(self.weights), {"c": own})

    def step(self) -> None:
        """One random thing happens; what is decided is judged."""
        kinds = (
            "submit", "settle", "pass", "cancel", "fail", "observe", "limited", "reload", "back",
            "night",
        )  # fmt: skip
        nights = 0.0 if self.rpd is None else 0.1
        weights = (35, 30, 20, 4, 4, 6, 0.2, 0.1, 0.5, nights)
        kind = self.chance.choices(kinds, weights)[0]
        events = getattr(self, f"_{kind}")()
        self._judge(events)

    def finish(self) -> None:
        """Let everything end."""
        for _ in range(100_000):
            if not self.waiting and not self.flying:
                return
            self.now += 0.05 if self.rpd is None else 1.0
            events: list[Event] = [self._end(unit_id) for unit_id in list(self.flying)]
            self._judge(events)

    def _submit(self) -> list[Event]:
        self.number += 1
        name = f"u{self.number}"
        patience = self.chance.choice((None, None, 5.0, 60.0))
        unit = Unit(
            unit_id=name,
            model="m",
            tenant=self.chance.choice("abc"),
            class_name=self.chance.choice(CLASSES).name,
            estimate=Estimate(self.chance.randrange(1, 400), 50, self.chance.choice((None, 100))),
            place=RunPlace(name, self.now - self.chance.random() * 3),
            deadline=None if patience is None else self.now + patience,
        )
        self.waiting[name] = unit
        return [Submitted(unit)]

    def _end(self, unit_id: str) -> Event:
        admitted = self.flying.pop(unit_id)
        self.world.finished(self.now, admitted, Usage(10, 5))
        self._own_end(unit_id, 15)
        self._close(unit_id, "settled")
        return Settled(unit_id, Usage(10, 5))

    def _some(self, names: dict[str, object]) -> str | None:
        return self.chance.choice(list(names)) if names else None

    def _settle(self) -> list[Event]:
        unit_id = self._some(self.flying)
        return [] if unit_id is None else [self._end(unit_id)]

    def _pass(self) -> list[Event]:
        self.now += self.chance.expovariate(20.0)
        return []

    def _night(self) -> list[Event]:
        self.now += self.chance.random() * NIGHT_SECONDS
        return []

    def _back(self) -> list[Event]:
        """The scheduler is told an earlier time than before, once."""
        self.scheduler.tick(self.now - self.chance.random() * 5, [])
        return []

    def _cancel(self) -> list[Event]:
        if self.chance.random() < 0.5 and self.waiting:
            unit_id = self.chance.choice(list(self.waiting))
            del self.waiting[unit_id]
            self._close(unit_id, "cancelled")
            return [Cancelled(unit_id)]
        unit_id = self._some(self.flying)
        if unit_id is None:
            return []
        self.world.finished(self.now, self.flying.pop(unit_id), None)
        self._own_end(unit_id, None)
        self._close(unit_id, "cancelled")
        return [Cancelled(unit_id, was_sent=True)]

    def _fail(self) -> list[Event]:
        """The provider failed it; it is charged there all the same."""
        unit_id = self._some(self.flying)
        if unit_id is None:
            return []
        self.world.finished(self.now, self.flying.pop(unit_id), None)
        # The judge keeps the tokens of failed calls, so the ledger is told that they were used.
        self._own_end(unit_id, 2)
        self._close(unit_id, "failed")
        return [Failed(unit_id, requeue=False, usage=Usage(1, 1))]

    def _observe(self) -> list[Event]:
        readings = tuple(self.world.remaining(self.now).values())
        return [Observed("one", self.now, readings, accepted=True)]

    def _limited(self) -> list[Event]:
        pause_seconds = self.chance.random()
        if self.chance.random() < 0.5:
            return [Overloaded("one", pause_seconds)]
        return [Limited("one", pause_seconds, self.chance.choice((None, LimitName.RPM)))]

    def _reload(self) -> list[Event]:
        self.weights["b"] = self.chance.choice((1.0, 2.0, 5.0))
        plan = self.plan()
        if self.chance.random() < 0.5:
            return [TenantsReplanned(plan.tenant_weights, plan.tenant_limits)]
        return [Replanned(plan)]

    def _close(self, unit_id: str, how: str) -> None:
        assert unit_id not in self.ended, f"{unit_id} ended twice: {self.ended[unit_id]}, {how}"
        self.ended[unit_id] = how

    def _own_begin(self, unit: Unit) -> None:
        """Tenant c's own limits, kept by the obvious arithmetic."""
        if unit.tenant == "c":
            self.own_requests.take(1, self.now)
            self.own_tokens.take(unit.estimate.tokens_input + 50, self.now)
            self.own_flying[unit.unit_id] = unit
            assert len(self.own_flying) <= OWN_SLOTS

    def _own_end(self, unit_id: str, tokens: int | None) -> None:
        unit = self.own_flying.pop(unit_id, None)
        if unit is not None and tokens is not None:
            self.own_tokens.take(tokens - unit.estimate.tokens_input - 50, self.now)

    def _judge(self, events: list[Event]) -> None:
        decisions = self.scheduler.tick(self.now, events)
        for refusal in decisions.refusals:
            del self.waiting[refusal.unit_id]
            self._close(refusal.unit_id, "refused")
        for eviction in decisions.evictions:
            del self.waiting[eviction.unit_id]
            self._close(eviction.unit_id, "evicted")
        for grant in decisions.grants:
            unit = self.waiting.pop(grant.unit_id)
            estimate = unit.estimate
            call = ProviderCall(estimate.tokens_input, estimate.tokens_output_max)
            admitted = self.world.admit(self.now, call)
            assert isinstance(admitted, Admitted), f"{grant} was beyond {admitted}"
            self.flying[grant.unit_id] = admitted
            self._own_begin(unit)
            self.own_waits += "tenant_limit" in grant.causes
            self.day_waits += "day_kept" in grant.causes
            assert sum(grant.causes.values()) <= grant.wait_seconds + 6.0
            self.wait_seconds_max = max(self.wait_seconds_max, grant.wait_seconds)


def played(seed: int, rpd: int | None = None) -> LongRun:
    """All steps, and the end of what they began."""
    run = LongRun(seed, rpd)
    for _ in range(STEPS):
        run.step()
    run.finish()
    assert not run.waiting, "nothing waits for ever"
    assert run.number == len(run.ended), "each unit ended, and once"
    assert 0 == run.scheduler.waiting_count == run.scheduler.in_flight_count
    assert 0 == run.world.counters.in_flight
    pool = run.scheduler.deployment("one").pool
    assert 0 == pool.slots.in_use
    assert run.world.counters.requests_admitted > STEPS / 10, "it was a run worth the name"
    return run


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_granted_that_the_provider_would_refuse(seed: int) -> None:
    run = played(seed)

    assert run.own_waits > STEPS / 200, "a tenant's own limits were felt"
    assert run.wait_seconds_max < 120, "and nobody waited beyond the bound"


@pytest.mark.parametrize("seed", SEEDS_OF_DAYS)
def test_neither_is_it_beyond_a_limit_of_the_day(seed: int) -> None:
    run = played(seed, RPD)

    days = run.now / 86_400
    admitted = run.world.counters.requests_admitted
    assert days > 3, "it was longer than a few days"
    assert admitted > 0.6 * RPD * days, "and most of what they gave was used"
    assert run.day_waits > STEPS / 1_000, "what was kept for urgent work was felt"
