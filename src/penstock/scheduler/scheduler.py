"""The scheduler: one entry, events in, decisions out.

It owns all state; whoever drives it (the dispatcher in real time, the simulator in virtual
time) hands over what happened since the last tick and carries out what is decided. Time is
an argument and order comes from a sequence, so the same events give the same decisions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import ClassVar

import msgspec

from penstock.limits.charge import failed_amounts, settled_amounts
from penstock.limits.pool import LimitsPlan, Pool
from penstock.scheduler.affinity import Affinities
from penstock.scheduler.allowance import Allowances, own_amounts, own_amounts_used
from penstock.scheduler.deployment import Deployment
from penstock.scheduler.domain import ClassQueue, Domain, Placement
from penstock.scheduler.events import (
    Cancelled,
    Decisions,
    Event,
    Eviction,
    EvictionReason,
    Failed,
    KeyRefused,
    Limited,
    Observed,
    Overloaded,
    Refusal,
    RefusalReason,
    Replanned,
    Restored,
    Settled,
    Submitted,
    TenantsReplanned,
)
from penstock.scheduler.explain import Cause
from penstock.scheduler.fairness import COMPACT_ENDED_MIN
from penstock.scheduler.plan import Plan
from penstock.scheduler.predict import predicted_wait_seconds, units_ahead
from penstock.scheduler.steps import ChainSteps
from penstock.scheduler.waiting import Waiting
from penstock.units import Amounts, Grant, Unit, Usage


class Flight(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A granted unit that has not ended: what it holds and where."""

    waiting: Waiting
    placement: Placement
    granted_at: float


class Scheduler:
    """All domains, and every unit from its submission to its end."""

    def __init__(self, plan: Plan, now: float) -> None:
        self._sequence = count()
        self._deployments: dict[str, Deployment] = {}
        self._pools: dict[str, Pool] = {}
        self._domain_of: dict[str, Domain] = {}
        self._waiting: dict[str, Waiting] = {}
        self._flights: dict[str, Flight] = {}
        self._allowances = Allowances()
        self._affinities = Affinities()
        self._steps = ChainSteps()
        self._deadlines: list[tuple[float, int, Waiting]] = []
        self.plan = plan
        self.domains: list[Domain] = []
        self._adopt(plan, now)

    def tick(self, now: float, events: Sequence[Event] = ()) -> Decisions:
        """Take what happened, decide what goes now. Cost: O(log n) an event and a grant."""
        decisions = Decisions(grants=[], refusals=[], evictions=[])
        newcomer = events[-1] if events else None
        if type(newcomer) is Submitted:
            events = events[:-1]
        for event in events:
            self._take[type(event)](self, event, decisions, now)
        if type(newcomer) is Submitted:
            # With nothing behind it in this tick that might go before it.
            self._take_submitted(newcomer, decisions, now, comes_last=True)
        if self._deadlines:
            self._evict_expired(decisions, now)
        if self._allowances.wake_at <= now:
            self._allowances.release_due(now)
        wake_at = math.inf
        for domain in self.domains if self._waiting else ():
            granted, domain_wake_at = domain.pump(now)
            if domain_wake_at < wake_at:
                wake_at = domain_wake_at
            for waiting, placement in granted:
                del self._waiting[waiting.unit.unit_id]
                decisions.grants.append(self._fly(waiting, placement, now))
        if self._allowances.wake_at < wake_at:
            wake_at = self._allowances.wake_at
        if self._deadlines and self._deadlines[0][0] < wake_at:
            wake_at = self._deadlines[0][0]
        if wake_at < math.inf:
            decisions.wake_at = wake_at
        return decisions

    @property
    def waiting_count(self) -> int:
        """How many units wait."""
        return len(self._waiting)

    @property
    def in_flight_count(self) -> int:
        """How many grants have not ended."""
        return len(self._flights)

    def serves(self, model: str) -> bool:
        """Whether any deployment serves this public model."""
        return model in self._domain_of

    def is_out(self, model: str, now: float) -> bool:
        """Whether every deployment of a public model is out."""
        domain = self._domain_of.get(model)
        return domain is not None and all(
            deployment.health.is_out(now) for deployment in domain.serving(model)
        )

    def has_other(self, model: str, name: str, now: float) -> bool:
        """Whether a public model is also served by another deployment, which is not out."""
        domain = self._domain_of.get(model)
        return domain is not None and any(
            deployment.plan.name != name and not deployment.health.is_out(now)
            for deployment in domain.serving(model)
        )

    def waiting_units(self) -> list[Waiting]:
        """Every waiting unit, in no order: for views, not for decisions."""
        return list(self._waiting.values())

    def waiting_by_class_and_model(self) -> list[tuple[str, str, int]]:
        """How many units wait, for every class and model, the zeros too."""
        counts = {(plan.name, model): 0 for plan in self.plan.classes for model in self._domain_of}
        for waiting in self._waiting.values():
            key = (waiting.unit.class_name, waiting.unit.model)
            counts[key] = counts.get(key, 0) + 1
        return [(class_name, model, count) for (class_name, model), count in counts.items()]

    def units_in_flight(self) -> list[Waiting]:
        """Every granted unit that has not ended, in no order: for views."""
        return [flight.waiting for flight in self._flights.values()]

    def deployments(self) -> list[Deployment]:
        """Every deployment's live state."""
        return list(self._deployments.values())

    def deployment(self, name: str) -> Deployment:
        """A deployment's live state. Raises KeyError where it is not configured."""
        return self._deployments[name]

    def limits_for(self, tenant: str, deployment: str) -> Pool | None:
        """What a tenant's calls are held to: its own limits, else a deployment's. For views."""
        allowance = self._allowances.of(tenant)
        if allowance is not None and allowance.pool.buckets:
            return allowance.pool
        found = self._deployments.get(deployment)
        return None if found is None else found.pool

    def limits_before(self, tenant: str, model: str) -> Pool | None:
        """The same of a call for a public model that has not been granted: its tenant's limits,
        else those that all deployments of the model share; None where there are several.
        """
        domain = self._domain_of.get(model)
        deployments = [] if domain is None else domain.serving(model)
        share_one = all(one.pool is deployments[0].pool for one in deployments)
        return self.limits_for(
            tenant, deployments[0].plan.name if deployments and share_one else ""
        )

    def eta_seconds(self, unit_id: str, now: float) -> float | None:
        """How long a waiting unit will wait from now on; None where it does not wait."""
        waiting = self._waiting.get(unit_id)
        if waiting is None:
            return None
        domain = self._domain_of[waiting.unit.model]
        return predicted_wait_seconds(domain, waiting, self._allowances, now)

    def position(self, unit_id: str) -> int | None:
        """Where a waiting unit stands, from 1; None where it does not wait.

        An estimate, by what waits now: those of more urgent classes, then of its own class those
        that came before it, as far as fairness lets them pass (``predict``). What is yet to
        come may pass, too, and so may later steps of runs and earlier deadlines. O(1), amortised.
        """
        waiting = self._waiting.get(unit_id)
        if waiting is None:
            return None
        return units_ahead(self._domain_of[waiting.unit.model], waiting) + 1

    def _take_submitted(
        self, event: Submitted, decisions: Decisions, now: float, *, comes_last: bool = False
    ) -> None:
        """Admit a unit, or say why not. The unit's id must be new."""
        unit = event.unit
        domain = self._domain_of.get(unit.model)
        if domain is None:
            decisions.refusals.append(Refusal(unit.unit_id, RefusalReason.NO_DEPLOYMENT))
            return
        waiting = self._newcomer(domain, unit, now)
        refusal = self._too_large(domain, waiting)
        is_late = unit.deadline is not None and unit.deadline <= now
        # A tenant's own limits are shared with whoever of it waits for other models.
        has_rivals = self._waiting and self._allowances.of(unit.tenant) is not None
        if refusal is None and comes_last and not is_late and not has_rivals:
            placement = domain.grant_at_once(waiting, now)
            if placement is not None:
                decisions.grants.append(self._fly(waiting, placement, now))
                return
        refusal = refusal or self._hopeless(domain, waiting, now)
        if refusal is not None:
            decisions.refusals.append(refusal)
            return
        self._enqueue(domain, waiting, now)

    def _take_news(
        self,
        event: Observed | Limited | Overloaded | KeyRefused | Restored,
        _decisions: Decisions,
        now: float,
    ) -> None:
        """What a provider has said, or what is known of its key."""
        deployment = self._deployments.get(event.deployment)
        if deployment is not None:
            deployment.learn(event, now)
            self._domain_of[deployment.plan.models[0]].changed()

    def _newcomer(self, domain: Domain, unit: Unit, now: float) -> Waiting:
        assert unit.unit_id not in self._waiting, f"{unit.unit_id} was submitted twice"
        assert unit.unit_id not in self._flights, f"{unit.unit_id} was submitted twice"
        plan = domain.class_queue(unit.class_name).plan
        steps_left = 1.0
        if plan.order == "remaining":
            steps_left = self._steps.remaining(unit.place)
        return Waiting(unit, plan, next(self._sequence), now, steps_left)

    def _too_large(self, domain: Domain, waiting: Waiting) -> Refusal | None:
        """Price a unit; the refusal of one that no waiting can help."""
        unit = waiting.unit
        limit = domain.price(waiting)
        if limit is not None:
            return Refusal(unit.unit_id, RefusalReason.TOO_LARGE, limit=limit)
        limit = self._allowances.too_large(unit)
        if limit is not None:
            return Refusal(unit.unit_id, RefusalReason.TOO_LARGE_FOR_TENANT, limit=limit)
        return None

    def _hopeless(self, domain: Domain, waiting: Waiting, now: float) -> Refusal | None:
        """The refusal of a unit for which there is no place in line, or no grant in time."""
        unit = waiting.unit
        full = domain.class_queue(unit.class_name).full_for(unit.tenant)
        if full is None and unit.deadline is None:
            return None
        eta_seconds = predicted_wait_seconds(domain, waiting, self._allowances, now)
        if full is not None:
            return Refusal(unit.unit_id, full, eta_seconds)
        if unit.deadline is not None and now + eta_seconds > unit.deadline:
            return Refusal(unit.unit_id, RefusalReason.DEADLINE, eta_seconds)
        return None

    def _enqueue(self, domain: Domain, waiting: Waiting, now: float) -> None:
        self._waiting[waiting.unit.unit_id] = waiting
        domain.push(waiting, now)
        if waiting.unit.deadline is not None:
            entry = (waiting.unit.deadline, next(self._sequence), waiting)
            heappush(self._deadlines, entry)

    def _dequeue(self, waiting: Waiting, now: float) -> None:
        del self._waiting[waiting.unit.unit_id]
        self._domain_of[waiting.unit.model].remove(waiting, now)

    def _fly(self, waiting: Waiting, placement: Placement, now: float) -> Grant:
        unit_id = waiting.unit.unit_id
        self._flights[unit_id] = Flight(waiting, placement, now)
        waiting.attempt += 1
        return Grant(
            unit_id,
            placement.deployment.plan.name,
            placement.amounts,
            now,
            now - waiting.submitted_at,
            waiting.attempt,
            dict(waiting.causes or ()),
        )

    def _settle(self, event: Settled, _decisions: Decisions, now: float) -> None:
        flight = self._land(event.unit_id)
        if flight is None:
            return
        usage, placement, unit = event.usage, flight.placement, flight.waiting.unit
        deployment, pool, charged = placement.deployment, placement.pool, placement.amounts
        deployment.health.succeeded(now)
        if usage is not None:
            charged = settled_amounts(deployment.plan.charge, charged, usage)
            deployment.produced(unit.class_name, unit.estimate, usage.tokens_output)
            if pool.production is not None and usage.tokens_output > 0:
                pool.production.pace.learn(usage.tokens_output, now - flight.granted_at)
        self._pay(flight, charged, now)
        self._pay_own(flight, usage, now, stands=True)

    def _fail(self, event: Failed, _decisions: Decisions, now: float) -> None:
        flight = self._land(event.unit_id)
        if flight is None:
            return
        reserved = flight.placement.amounts
        charge = flight.placement.deployment.plan.charge
        charged: Amounts = {}
        if event.usage is not None:
            charged = settled_amounts(charge, reserved, event.usage)
        elif event.was_sent:
            charged = failed_amounts(charge, reserved)
        self._pay(flight, charged, now)
        self._pay_own(flight, event.usage, now, stands=False)
        domain = self._domain_of.get(flight.waiting.unit.model)
        if event.requeue and domain is not None:
            again = flight.waiting.again()
            again.waited_for({Cause.ATTEMPT.value: max(0.0, now - flight.granted_at)})
            domain.price(again)
            self._enqueue(domain, again, now)

    def _cancel(self, event: Cancelled, _decisions: Decisions, now: float) -> None:
        waiting = self._waiting.get(event.unit_id)
        if waiting is not None:
            self._dequeue(waiting, now)
            return
        flight = self._land(event.unit_id)
        if flight is None:
            return
        charged: Amounts = {}
        if event.was_sent:
            charged = flight.placement.amounts
            if event.usage is not None:
                charge = flight.placement.deployment.plan.charge
                charged = settled_amounts(charge, charged, event.usage)
        self._pay(flight, charged, now)
        self._pay_own(flight, event.usage if event.was_sent else None, now, stands=event.was_sent)

    def _land(self, unit_id: str) -> Flight | None:
        """Take a unit out of the air: the only way a reservation ends, so it ends once."""
        flight = self._flights.pop(unit_id, None)
        if flight is not None:
            flight.placement.deployment.health.in_flight -= 1
            unit = flight.waiting.unit
            domain = self._domain_of.get(unit.model)
            if domain is not None:
                domain.changed()
                domain.class_queue(unit.class_name).in_flight -= 1
            else:
                # Its model is served no more: where it makes room is not known.
                for each in self.domains:
                    each.changed()
        return flight

    def _pay(self, flight: Flight, charged: Amounts, now: float) -> None:
        """Replace the reservation by what was charged, in the limits and in fairness."""
        placement = flight.placement
        pool = placement.pool
        charged = pool.bounded(charged)
        pool.settle(placement.amounts, charged, flight.granted_at, now, placement.answer)
        if not placement.is_contended:
            return
        queue = self._class_queue(flight.waiting)
        if queue is not None and queue.queue.waiting:
            difference_seconds = pool.cost_seconds(charged) - flight.waiting.cost_seconds
            queue.queue.correct(flight.waiting.unit.tenant, difference_seconds)

    def _pay_own(self, flight: Flight, usage: Usage | None, now: float, *, stands: bool) -> None:
        """The same in the tenant's own limits; without usage the estimate stands, or nothing."""
        allowance = flight.placement.allowance
        if allowance is not None:
            reserved = own_amounts(flight.waiting.unit.estimate)
            unknown = reserved if stands else {}
            used = unknown if usage is None else own_amounts_used(usage)
            allowance.settle(reserved, used, flight.granted_at, now)

    def _class_queue(self, waiting: Waiting) -> ClassQueue | None:
        domain = self._domain_of.get(waiting.unit.model)
        return domain.class_queue(waiting.unit.class_name) if domain else None

    def _evict_expired(self, decisions: Decisions, now: float) -> None:
        while self._deadlines:
            deadline, _, waiting = self._deadlines[0]
            if waiting.is_waiting and deadline > now:
                break
            heappop(self._deadlines)
            if waiting.is_waiting:
                self._dequeue(waiting, now)
                decisions.evictions.append(_eviction(waiting, EvictionReason.DEADLINE, now))
        if len(self._deadlines) > 2 * len(self._waiting) + COMPACT_ENDED_MIN:
            self._deadlines = [entry for entry in self._deadlines if entry[2].is_waiting]
            heapify(self._deadlines)

    def _replan(self, event: Replanned, decisions: Decisions, now: float) -> None:
        """Take over a changed configuration; what waits keeps its place, what flies flies on."""
        plan = event.plan
        waiting_before = sorted(self._waiting.values())
        self._waiting.clear()
        self._deadlines.clear()
        self.plan = plan
        self._adopt(plan, now)
        for waiting in waiting_before:
            domain = self._domain_of.get(waiting.unit.model)
            if domain is None:
                decisions.evictions.append(_eviction(waiting, EvictionReason.NO_DEPLOYMENT, now))
            else:
                domain.price(waiting)
                self._enqueue(domain, waiting, now)
        for flight in self._flights.values():
            queue = self._class_queue(flight.waiting)
            if queue is not None:
                queue.in_flight += 1

    def _replan_tenants(self, event: TenantsReplanned, _decisions: Decisions, now: float) -> None:
        """Take over other weights and limits of tenants, and leave all else as it is."""
        weights, limits = event.weights, event.limits
        self.plan = msgspec.structs.replace(self.plan, tenant_weights=weights, tenant_limits=limits)
        self._allowances.adopt(limits, now)
        for domain in self.domains:
            domain.reweigh(weights)

    def _adopt(self, plan: Plan, now: float) -> None:
        """Make the deployments and domains of a plan, keeping what is known of the limits."""
        pools, self._pools = self._pools, {}
        produced = {
            deployment.pool_name
            for deployment in plan.deployments
            if deployment.charge.output_at_admission == "none"
        }
        for name, limits in _limits_by_pool(plan).items():
            pool = pools.get(name)
            if pool is None:
                pool = Pool(limits, now, output_is_charged_as_produced=name in produced)
            else:
                pool.replan(limits, now)
            self._pools[name] = pool
        before, self._deployments = self._deployments, {}
        for deployment_plan in plan.deployments:
            pool = self._pools[deployment_plan.pool_name]
            deployment = before.get(deployment_plan.name)
            if deployment is None:
                deployment = Deployment(deployment_plan, pool)
            # What is in flight was taken from the old pool and is given back there.
            deployment.adopt(deployment_plan, pool)
            self._deployments[deployment_plan.name] = deployment
        self._allowances.adopt(plan.tenant_limits, now)
        self.domains = [
            Domain(
                group, plan.classes, plan.tenant_weights, self._allowances, self._affinities, now
            )
            for group in _competing(self._deployments)
        ]
        self._domain_of = {
            model: domain
            for domain in self.domains
            for deployment in domain.deployments
            for model in deployment.plan.models
        }

    _take: ClassVar[dict[type[Event], Callable[..., None]]] = {
        Submitted: _take_submitted,
        Settled: _settle,
        Failed: _fail,
        Cancelled: _cancel,
        Replanned: _replan,
        TenantsReplanned: _replan_tenants,
        Observed: _take_news,
        Limited: _take_news,
        Overloaded: _take_news,
        KeyRefused: _take_news,
        Restored: _take_news,
    }


def _eviction(waiting: Waiting, reason: EvictionReason, now: float) -> Eviction:
    return Eviction(waiting.unit.unit_id, reason, now - waiting.submitted_at)


def _limits_by_pool(plan: Plan) -> dict[str, LimitsPlan]:
    """The limits of every pool: as the first of its deployments states them that states any."""
    found: dict[str, LimitsPlan] = {}
    for deployment in plan.deployments:
        if found.get(deployment.pool_name, LimitsPlan()) == LimitsPlan():
            found[deployment.pool_name] = deployment.limits
    return found


def _competing(deployments: dict[str, Deployment]) -> list[list[Deployment]]:
    """Group deployments that share a model or a pool, directly or through others."""
    groups: list[tuple[set[str], list[Deployment]]] = []
    for deployment in deployments.values():
        shared = {deployment.plan.pool_name, *deployment.plan.models}
        members = [deployment]
        apart = []
        for group_shared, group_members in groups:
            if shared & group_shared:
                shared |= group_shared
                members = group_members + members
            else:
                apart.append((group_shared, group_members))
        groups = [*apart, (shared, members)]
    return [members for _, members in groups]
