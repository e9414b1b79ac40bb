"""What a tenant may use by its own limits, whatever the deployments still hold.

A tenant may have requests and tokens a minute and calls at once of its own; all its keys, models
and classes share them. Its units then need room there as well. One whose tenant has no room waits
*beside* the line: its tenant is taken out of the lines of its class (``FairQueue.hold``) until the
refill is there or one of its calls ends, so that it neither holds back nor reserves anything that
another tenant could use. No credit is gathered meanwhile.

Within the tenant the classes keep their order. A less urgent unit leaves the class's reserve in
the tenant's own buckets, too, and leaves what a more urgent unit of the tenant is waiting for (a
*claim*), so that large urgent units are not starved by small ones of the same tenant.

Tokens are counted as used, in and out: the estimate is reserved, and settled to the usage. A call
that the provider did not answer costs the tenant nothing. A bucket holds a whole minute, so a
tenant that has rested may use a minute's amount at once; in any minute it gets at most twice its
limit, over a long time exactly the limit.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from penstock.limits.pool import LimitsPlan, Pool
from penstock.units import Amounts, Estimate, LimitName, Unit, Usage

if TYPE_CHECKING:
    from penstock.scheduler.domain import ClassQueue

BURST_SECONDS = 60.0
"""What a tenant's own buckets hold, in seconds of their rate."""


def own_amounts(estimate: Estimate) -> Amounts:
    """What a unit takes of its tenant's own limits."""
    tokens = estimate.tokens_input + estimate.tokens_output
    return {LimitName.RPM: 1, LimitName.TPM: tokens, LimitName.CONCURRENCY: 1}


def own_amounts_used(usage: Usage) -> Amounts:
    """What a call took of them in the end; its slot is free again."""
    tokens = usage.tokens_input + usage.tokens_output
    return {LimitName.RPM: 1, LimitName.TPM: tokens, LimitName.CONCURRENCY: 0}


class Allowance:
    """One tenant's own limits, and who waits for them."""

    __slots__ = ("_claims", "_held", "pool", "tenant")

    def __init__(self, tenant: str, plan: LimitsPlan, now: float) -> None:
        self.tenant = tenant
        self.pool = Pool(plan, now)
        self._claims: dict[ClassQueue, Amounts] = {}
        self._held: set[ClassQueue] = set()

    def ready_at(self, queue: ClassQueue, amounts: Amounts, reserve: float, now: float) -> float:
        """When the tenant's limits have room for a unit; infinite where only an ending helps."""
        needed = amounts
        for claimant, claimed in self._claims.items():
            if claimant.plan.rank < queue.plan.rank:
                needed = {name: needed[name] + claimed[name] for name in needed}
        return self.pool.fit(needed, reserve, now).ready_at

    def wait_seconds(self, own_ahead: int, estimate: Estimate, now: float) -> float:
        """How long its own limits keep a unit with so many of the tenant before it, at least."""
        needed = own_amounts(estimate)
        needed[LimitName.RPM] += own_ahead
        seconds = 0.0
        for name, bucket in self.pool.buckets.items():
            bucket.advance(now)
            seconds = max(seconds, (needed[name] - bucket.level) / bucket.rate)
        return seconds

    def hold(self, queue: ClassQueue, amounts: Amounts, now: float) -> None:
        """The tenant's head in this class waits beside the line, and claims what it needs."""
        self._claims[queue] = amounts
        self._held.add(queue)
        queue.hold(self.tenant, now)

    def release(self, now: float) -> None:
        """Room may be there: its units stand in line again."""
        for queue in self._held:
            queue.release(self.tenant, now)
        self._held.clear()

    def granted(self, queue: ClassQueue, amounts: Amounts, now: float) -> None:
        """A unit goes: its claim is fulfilled."""
        self._claims.pop(queue, None)
        self.pool.reserve(amounts, now)

    def left(self, queue: ClassQueue, now: float) -> None:
        """A unit left the queue without a grant: what was claimed may have been for it."""
        self._claims.pop(queue, None)
        self.release(now)

    def settle(self, reserved: Amounts, used: Amounts, reserved_at: float, now: float) -> None:
        """A call ended: what it used replaces what was reserved, and others may go."""
        self.pool.settle(reserved, self.pool.bounded(used), reserved_at, now)
        self.release(now)

    def replan(self, plan: LimitsPlan, now: float) -> None:
        """Go by other limits from now on. Claims are made anew by those who wait.

        What has been used counts against a limit that was raised, and nothing else: it is ours,
        so all of the room that it gained is there at once.
        """
        used = {}
        for name, bucket in self.pool.buckets.items():
            bucket.advance(now)
            used[name] = bucket.capacity - bucket.level
        self.pool.replan(plan, now)
        for name, bucket in self.pool.buckets.items():
            bucket.level = max(bucket.level, bucket.capacity - used.get(name, 0.0))
        self._claims.clear()


class Allowances:
    """The allowances of all tenants that have limits of their own."""

    def __init__(self) -> None:
        self.by_tenant: dict[str, Allowance] = {}
        self._wakes: list[tuple[float, int, Allowance]] = []
        self._sequence = count()
        self.wake_at = math.inf
        """When to look again, if nothing happens before."""

    def adopt(self, plans: dict[str, LimitsPlan], now: float) -> None:
        """Take over a plan, keeping what has been used; whoever waits is looked at again."""
        before, self.by_tenant = self.by_tenant, {}
        for allowance in before.values():
            allowance.release(now)
        self._wakes.clear()
        self.wake_at = math.inf
        for tenant, stated in plans.items():
            plan = msgspec.structs.replace(stated, burst_seconds=BURST_SECONDS)
            allowance = before.get(tenant) or Allowance(tenant, plan, now)
            allowance.replan(plan, now)
            self.by_tenant[tenant] = allowance

    def of(self, tenant: str) -> Allowance | None:
        """A tenant's own limits; None where it has none."""
        return self.by_tenant.get(tenant)

    def too_large(self, unit: Unit) -> LimitName | None:
        """The limit of its own tenant that can never hold a unit, if there is one."""
        allowance = self.by_tenant.get(unit.tenant)
        return allowance.pool.too_large(own_amounts(unit.estimate)) if allowance else None

    def wake(self, allowance: Allowance, ready_at: float) -> None:
        """Look at this tenant's units again then."""
        if not math.isinf(ready_at):
            heappush(self._wakes, (ready_at, next(self._sequence), allowance))
            self.wake_at = self._wakes[0][0]

    def release_due(self, now: float) -> None:
        """Whose refill is there stands in line again."""
        while self._wakes and self._wakes[0][0] <= now:
            heappop(self._wakes)[2].release(now)
        self.wake_at = self._wakes[0][0] if self._wakes else math.inf
