"""Fills the live snapshot from the scheduler's state. For eyes, not for decisions."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.dashboard.snapshot import (
    ClassView,
    DeploymentView,
    LimitView,
    LiveSnapshot,
    TenantView,
    Totals,
    WorkerView,
)
from penstock.dispatch.dispatcher import Dispatcher
from penstock.dispatch.recent import WINDOW_SECONDS
from penstock.scheduler.deployment import Deployment
from penstock.scheduler.plan import ClassPlan
from penstock.scheduler.waiting import Waiting
from penstock.units import LimitName


class _Tally:
    """Waiting and in-flight units under one name."""

    def __init__(self) -> None:
        self.waiting = 0
        self.in_flight = 0
        self.oldest_at: float | None = None

    def add_waiting(self, submitted_at: float) -> None:
        self.waiting += 1
        if self.oldest_at is None or submitted_at < self.oldest_at:
            self.oldest_at = submitted_at

    def oldest_wait_seconds(self, now: float) -> float:
        return 0.0 if self.oldest_at is None else max(0.0, now - self.oldest_at)


def live_snapshot(
    dispatcher: Dispatcher, workers: Iterable[WorkerView], wall: float
) -> LiveSnapshot:
    """The queue against the limits, now. O(number of units)."""
    now = dispatcher.clock()
    scheduler = dispatcher.scheduler
    by_class = {plan.name: _Tally() for plan in scheduler.plan.classes}
    by_tenant: dict[str, _Tally] = {}
    total = _Tally()
    for waiting in scheduler.waiting_units():
        for tally in _tallies(waiting, by_class, by_tenant, total):
            tally.add_waiting(waiting.submitted_at)
    for flying in scheduler.units_in_flight():
        for tally in _tallies(flying, by_class, by_tenant, total):
            tally.in_flight += 1
    answers_429 = {name: each.total(now) for name, each in dispatcher.answers_429.items()}
    return LiveSnapshot(
        now=wall,
        deployments=[
            _deployment(deployment, answers_429, now) for deployment in scheduler.deployments()
        ],
        classes=[
            _class(plan, by_class[plan.name], now)
            for plan in sorted(scheduler.plan.classes, key=lambda plan: plan.rank)
        ],
        tenants=[
            TenantView(name, tally.waiting, tally.in_flight, tally.oldest_wait_seconds(now))
            for name, tally in sorted(by_tenant.items())
        ],
        workers=list(workers),
        totals=Totals(
            waiting=total.waiting,
            in_flight=total.in_flight,
            oldest_wait_seconds=total.oldest_wait_seconds(now),
            grants_per_second=dispatcher.grants.total(now) / WINDOW_SECONDS,
            answers_429=sum(answers_429.values()),
        ),
    )


def _tallies(
    waiting: Waiting, by_class: dict[str, _Tally], by_tenant: dict[str, _Tally], total: _Tally
) -> list[_Tally]:
    unit = waiting.unit
    tallies = [by_tenant.setdefault(unit.tenant, _Tally()), total]
    if unit.class_name in by_class:
        tallies.append(by_class[unit.class_name])
    return tallies


def _class(plan: ClassPlan, tally: _Tally, now: float) -> ClassView:
    oldest = tally.oldest_wait_seconds(now)
    return ClassView(plan.name, plan.rank, tally.waiting, tally.in_flight, oldest)


def _deployment(deployment: Deployment, answers_429: dict[str, int], now: float) -> DeploymentView:
    pool, health = deployment.pool, deployment.health
    paused_until = health.paused_until
    limits = []
    for name, bucket in pool.buckets.items():
        bucket.advance(now)
        paused_until = max(paused_until, bucket.paused_until)
        limits.append(
            LimitView(
                name=name.value,
                level=bucket.level,
                capacity=bucket.capacity,
                rate_per_second=bucket.rate,
                reserve=pool.reserve_of(name),
                source=bucket.source,
            )
        )
    if pool.slots.is_limit:
        concurrency = LimitName.CONCURRENCY.value
        slots, source = pool.slots, pool.plan.source
        limits.append(LimitView(concurrency, slots.level, slots.capacity, 0.0, source=source))
    return DeploymentView(
        name=deployment.plan.name,
        limits=limits,
        in_flight=health.in_flight,
        paused_seconds=max(0.0, paused_until - now),
        answers_429=answers_429.get(deployment.plan.name, 0),
        trouble="" if health.trouble is None else health.trouble.value,
    )
