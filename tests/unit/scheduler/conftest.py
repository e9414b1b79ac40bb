"""A world in virtual time: drives the scheduler and keeps its own, obvious books."""

from __future__ import annotations

import math
from collections import defaultdict
from heapq import heappop, heappush

import pytest

from penstock.limits.pool import LimitsPlan
from penstock.scheduler.events import Cancelled, Decisions, Event, Settled, Submitted
from penstock.scheduler.plan import ClassPlan, DeploymentPlan, Plan
from penstock.scheduler.scheduler import Scheduler
from penstock.units import Estimate, Grant, LimitName, RunPlace, Unit, Usage

CLASSES = (
    ClassPlan("interactive", 0),
    ClassPlan("standard", 1, reserve=0.5, min_share=0.05),
    ClassPlan("batch", 2, reserve=1.0, min_share=0.05),
)


class World:
    """Virtual time, arrivals, and calls that take ``service_seconds`` each."""

    CLASSES = CLASSES

    def __init__(self, plan: Plan, service_seconds: float = 0.5) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(plan, 0.0)
        self.service_seconds = service_seconds
        self.grants: list[Grant] = []
        self.granted_at: dict[str, float] = {}
        self.ends: dict[str, list[str]] = defaultdict(list)
        self.units: dict[str, Unit] = {}
        self._future: list[tuple[float, int, Event]] = []
        self._number = 0

    @staticmethod
    def plan(
        rpm: float = 60,
        tpm: float | None = None,
        burst_seconds: float | None = 10,
        concurrency: int | None = None,
        classes: tuple[ClassPlan, ...] = CLASSES,
        weights: dict[str, float] | None = None,
    ) -> Plan:
        """One deployment ``one`` that serves model ``m``."""
        rates = {LimitName.RPM: rpm}
        if tpm is not None:
            rates[LimitName.TPM] = tpm
        limits = LimitsPlan(rates, concurrency, burst_seconds)
        return Plan(classes, (DeploymentPlan("one", ("m",), limits),), weights or {})

    def unit(self, class_name: str = "batch", tenant: str = "t", **fields: object) -> Unit:
        """A unit that arrives now; ``tokens`` input tokens, none of output."""
        self._number += 1
        unit_id = f"u{self._number}"
        arrival = fields.pop("arrival", self.now)
        tokens = fields.pop("tokens", 1)
        unit = Unit(
            unit_id=unit_id,
            model=str(fields.pop("model", "m")),
            tenant=tenant,
            class_name=class_name,
            estimate=Estimate(int(str(tokens)), 0),
            place=RunPlace(unit_id, float(str(arrival))),
            **fields,  # type: ignore[arg-type]
        )
        self.units[unit_id] = unit
        return unit

    def at(self, time: float, event: Event) -> None:
        """Something will happen."""
        self._number += 1
        heappush(self._future, (time, self._number, event))

    def submit(self, *units: Unit) -> Decisions:
        """Units arrive now."""
        return self.tick(*[Submitted(unit) for unit in units])

    def tick(self, *events: Event) -> Decisions:
        """One tick now; the calls that it grants end after their service time."""
        for event in events:
            if isinstance(event, Cancelled) and event.unit_id in self.scheduler._waiting:
                self.ends[event.unit_id].append("cancelled")
        decisions = self.scheduler.tick(self.now, events)
        for grant in decisions.grants:
            self.grants.append(grant)
            self.granted_at[grant.unit_id] = self.now
            self.ends[grant.unit_id].append("granted")
            tokens = self.units[grant.unit_id].estimate.tokens_input
            settled = Settled(grant.unit_id, Usage(tokens, 0))
            self.at(self.now + self.service_seconds, settled)
        for refusal in decisions.refusals:
            self.ends[refusal.unit_id].append("refused")
        for eviction in decisions.evictions:
            self.ends[eviction.unit_id].append("evicted")
        return decisions

    def run(self, until: float = math.inf) -> None:
        """Let time pass: until ``until``, or until nothing happens any more."""
        decisions = self.tick()
        while True:
            wake_at = decisions.wake_at if decisions.wake_at is not None else math.inf
            coming_at = self._future[0][0] if self._future else math.inf
            next_at = min(wake_at, coming_at)
            if math.isinf(next_at) or next_at > until:
                self.now = until if not math.isinf(until) else self.now
                return
            self.now = max(self.now, next_at)
            events = []
            while self._future and self._future[0][0] <= self.now:
                events.append(heappop(self._future)[2])
            decisions = self.tick(*events)

    def wait_seconds(self, unit: Unit) -> float:
        """How long a unit waited; infinite where it was never granted."""
        submitted_at = unit.place.arrival
        return self.granted_at.get(unit.unit_id, math.inf) - submitted_at


@pytest.fixture(scope="session")
def world_type() -> type[World]:
    """The world, as a fixture: test folders are no packages."""
    return World
