"""The models and deployments that compete with each other, and the order among their units.

Two models compete when one deployment serves both; everything else is independent, so each
such group is a *domain* of its own, with its own virtual time and credits.

**Headroom.** A bucket refills only while it is not full, so a class that takes from a nearly
full bucket only lives on the refill alone: the whole burst stays for more urgent arrivals,
and nothing of the limit is lost. The price is one bucket, once. (With a burst of 60 s and
120 % load interactive waits fell from a p99 of 11.4 s under strict priority to 0.0 s in a
prototype, at equal use.) ``ClassPlan.reserve`` is the share that a class leaves.

**Order.** Classes by rank. Within a class the tenant with the smallest start tag
(``fairness``), within a tenant the run that arrived first. A class that gets nothing gathers
credit at ``min_share`` of the time, and goes first once it can pay for its head; the credit
starts at ``-CREDIT_GRACE_SECONDS`` and falls with everything it is granted, so that a burst
of urgent work has the limit to itself for at most ``CREDIT_GRACE_SECONDS / min_share``, and
normal service gathers none.

**Deadlines.** A unit leaves less of its class's reserve as its deadline nears. Fairness may put
another tenant's first whose deadline is far, and which waits for the sake of more urgent classes;
one that is due soon need not wait for that, and may pass it, earliest deadline first (``due``). It
pays with its tenant's tag as any other, and where the limits have no room it waits its turn.

**Head of line.** A head that does not fit holds the deployment that will be ready for it
first: whatever is of lower rank, or waits for another model, may pass only if the head is
not delayed by it (EASY backfilling, Lifka 1995). So a large unit is not starved by small
ones, and limits that do not block it are not idle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from penstock.limits.bucket import ROUNDING
from penstock.limits.pool import Held, Pool
from penstock.limits.production import Answer
from penstock.scheduler.affinity import Affinities
from penstock.scheduler.allowance import Allowance, Allowances, own_amounts
from penstock.scheduler.deployment import Deployment
from penstock.scheduler.due import Due
from penstock.scheduler.events import RefusalReason
from penstock.scheduler.explain import DAY_KEPT, HIGHER_CLASS, LineClock
from penstock.scheduler.fairness import FairQueue
from penstock.scheduler.plan import ClassPlan
from penstock.scheduler.waiting import Waiting
from penstock.units import OTPM, Amounts, LimitName

CREDIT_GRACE_SECONDS = 3.0
"""How much a class must go without, in dominant seconds times its share, before it may push."""

CREDIT_MAX_SECONDS = 0.5
"""Credit that can be gathered beyond zero: a debt is paid in small pieces, not in a burst."""


DEADLINE_RELAXED_SECONDS = 30.0
"""In a class ordered by deadline a unit leaves its whole reserve up to here, and none at its
deadline."""

RELAXED_WAKE_SECONDS = 1.0
"""A floor that falls with time is looked at again so often."""

DAY_WAKE_SECONDS = 10.0
"""So is what of a day is kept, which falls as demand fades."""

DEADLINE_NEAR_SECONDS = 5.0
"""So long before its deadline a unit may push, within its class's share."""

AFFINITY_HEADROOM_MIN = 0.2
"""A conversation stays where its prompt is cached while so much of the limits is free there."""

HEADROOM_COMFORTABLE = 0.1
"""A deployment with less of its limits left is chosen last, cheap or not: there the error of
estimates makes 429s."""


class ClassQueue:
    """One class in one domain: its fair queue, its credit, and how much it has waiting."""

    __slots__ = (
        "_clocks",
        "_credit_at",
        "_held",
        "backlog_seconds",
        "credit",
        "due",
        "in_flight",
        "is_changed",
        "plan",
        "queue",
    )

    def __init__(self, plan: ClassPlan, weights: dict[str, float], now: float) -> None:
        self.plan = plan
        self.queue = FairQueue(weights, plan.quantum_seconds)
        self.due = Due() if plan.order == "deadline" and plan.reserve else None
        self.in_flight = 0
        self.is_changed = True
        self.backlog_seconds = 0.0
        self.credit = -CREDIT_GRACE_SECONDS
        self._credit_at = now
        self._clocks: dict[str, LineClock] = {}
        self._held: set[str] = set()

    def full_for(self, tenant: str) -> RefusalReason | None:
        """Why a unit of this tenant finds no place here; None where it does.

        One tenant may fill only a share of the queue, so that others find room in it.
        """
        plan = self.plan
        if self.queue.waiting >= plan.queue_max:
            return RefusalReason.QUEUE_FULL
        if plan.queue_tenant_share < 1:
            tenant_max = max(1.0, plan.queue_tenant_share * plan.queue_max)
            if self.queue.waiting_of(tenant) >= tenant_max:
                return RefusalReason.QUEUE_FULL_FOR_TENANT
        return None

    def hold(self, tenant: str, now: float) -> None:
        """A tenant waits beside the lines for its own limits."""
        self.advance(now)
        self._held.add(tenant)
        self.queue.hold(tenant)
        for clock in self._clocks.values():
            clock.step_beside(tenant)

    def release(self, tenant: str, now: float) -> None:
        """It stands in line again."""
        self.advance(now)
        self._held.discard(tenant)
        self.queue.release(tenant)
        self.is_changed = True
        for clock in self._clocks.values():
            clock.step_back(tenant)

    def is_held(self, tenant: str) -> bool:
        """Whether a tenant waits beside the lines."""
        return tenant in self._held

    def clock(self, model: str, now: float) -> LineClock:
        """The account of those that wait for a model."""
        clock = self._clocks.get(model)
        if clock is None:
            clock = self._clocks[model] = LineClock(now)
            for tenant in self._held:
                clock.step_beside(tenant)
        return clock

    def advance(self, now: float) -> None:
        """Account for the time since the last call: causes for the units that waited through it,
        and credit for the class, if somebody stood in line.
        """
        queue = self.queue
        if now > self._credit_at:
            if queue.has_line:
                credit = self.credit + self.plan.min_share * (now - self._credit_at)
                self.credit = credit if credit < CREDIT_MAX_SECONDS else CREDIT_MAX_SECONDS
            self._credit_at = now
        elif queue.waiting:
            return
        if queue.waiting:
            for clock in self._clocks.values():
                clock.advance(now)
        elif self._clocks:
            self._clocks.clear()

    def spend(self, cost_seconds: float) -> None:
        """Pay for what was granted; the debt is bounded by the grace."""
        credit = self.credit - cost_seconds
        self.credit = credit if credit > -CREDIT_GRACE_SECONDS else -CREDIT_GRACE_SECONDS

    def reserve_of(self, head: Waiting, now: float) -> float:
        """What a unit leaves to more urgent classes: less as its deadline nears.

        In a fixed window one that must go in it leaves nothing: later in it there may be nothing.
        """
        reserve = self.plan.reserve
        deadline = head.unit.deadline
        if reserve and deadline is not None and self.plan.order == "deadline":
            for each in head.options:
                if deadline < each.pool.window_ends_at(now):
                    return 0.0
            seconds = deadline - now
            if seconds < DEADLINE_RELAXED_SECONDS:
                reserve *= max(0.0, seconds) / DEADLINE_RELAXED_SECONDS
        return reserve

    def pushes_at(self, head: Waiting, now: float) -> float:
        """When the class may go first with this unit, if nothing is granted to it before.

        That is when it has gone without for long enough to pay; a unit whose deadline is near
        need not wait for the grace.
        """
        if self.plan.min_share <= 0:
            return math.inf
        cost_seconds = head.cost_seconds
        most = cost_seconds if cost_seconds < CREDIT_MAX_SECONDS else CREDIT_MAX_SECONDS
        missing = most - self.credit
        pushes_at = now if missing <= ROUNDING else now + missing / self.plan.min_share
        deadline = head.unit.deadline
        if deadline is not None and self.plan.order == "deadline" and pushes_at > deadline:
            pays_at = now + max(0.0, missing - CREDIT_GRACE_SECONDS) / self.plan.min_share
            pushes_at = max(pays_at, deadline - DEADLINE_NEAR_SECONDS)
        return pushes_at


class Placement(msgspec.Struct, eq=False, gc=False):
    """Where a unit goes, or will go: the deployment, what it takes there, when, and why then.

    ``is_contended``: another tenant of its class waited when it went, and so has a part in it.
    """

    deployment: Deployment
    pool: Pool
    amounts: Amounts
    ready_at: float
    cause: str
    answer: Answer | None = None
    allowance: Allowance | None = None
    is_contended: bool = True

    def hold(self) -> Held:
        """What others must leave to it meanwhile; while a day is kept for them, only of the day."""
        amounts = self.amounts
        if self.cause == DAY_KEPT:
            amounts = {name: amounts[name] for name in self.pool.days}
        return Held(amounts, self.ready_at)


class Domain:
    """One group of deployments, and the units that wait for them."""

    def __init__(
        self,
        deployments: Iterable[Deployment],
        classes: Iterable[ClassPlan],
        weights: dict[str, float],
        allowances: Allowances,
        affinities: Affinities,
        now: float,
    ) -> None:
        self._allowances = allowances
        self._affinities = affinities
        self._is_changed = True
        self._wake_at = -math.inf
        self.deployments = list(deployments)
        self.classes = [
            ClassQueue(plan, weights, now) for plan in sorted(classes, key=lambda plan: plan.rank)
        ]
        self._by_class = {queue.plan.name: queue for queue in self.classes}
        self._serving: dict[str, list[Deployment]] = {}
        for deployment in self.deployments:
            for model in deployment.plan.models:
                self._serving.setdefault(model, []).append(deployment)

    def serving(self, model: str) -> list[Deployment]:
        """The deployments that serve a public model."""
        return self._serving.get(model, [])

    def class_queue(self, class_name: str) -> ClassQueue:
        """The queue of a class; what asks for one that a reload took away goes last."""
        return self._by_class.get(class_name) or self.classes[-1]

    def price(self, waiting: Waiting) -> LimitName | None:
        """Find out where a unit may go, and what it costs there at least.

        Returns the limit that keeps it out of every deployment for ever, if there is one.
        """
        everywhere = self._serving[waiting.unit.model]
        estimate = waiting.unit.estimate
        least_seconds, fitting, first_limit = math.inf, [], None
        for deployment in everywhere:
            pool, amounts = deployment.pool, deployment.amounts(estimate)
            cost_seconds = pool.cost_seconds(amounts)
            if cost_seconds < least_seconds:
                least_seconds = cost_seconds
            limit = pool.too_large(amounts)
            if limit is None:
                fitting.append(deployment)
            else:
                first_limit = first_limit or limit
        # A limit may have been lowered since the unit was admitted: then nowhere is right, and
        # the first that is ready shall say so. Units that may go anywhere share one list.
        is_anywhere = len(fitting) == len(everywhere) or not fitting
        waiting.options = everywhere if is_anywhere else fitting
        waiting.cost_seconds = least_seconds
        return None if fitting else first_limit

    def push(self, waiting: Waiting, now: float) -> None:
        """A priced unit begins to wait."""
        unit = waiting.unit
        queue = self.class_queue(unit.class_name)
        queue.advance(now)
        waiting.mark = queue.clock(unit.model, now).mark(unit.tenant)
        queue.backlog_seconds += waiting.cost_seconds
        queue.is_changed |= queue.queue.push(waiting)
        if queue.due is not None:
            queue.due.push(waiting)
            queue.is_changed |= queue.due.first() is waiting

    def remove(self, waiting: Waiting, now: float) -> None:
        """A unit ends its waiting without a grant."""
        queue = self.class_queue(waiting.unit.class_name)
        queue.advance(now)
        queue.backlog_seconds -= waiting.cost_seconds
        queue.queue.remove(waiting)
        queue.is_changed = True
        allowance = self._allowances.of(waiting.unit.tenant)
        if allowance is not None:
            allowance.left(queue, now)

    def grant_at_once(self, waiting: Waiting, now: float) -> Placement | None:
        """Grant a priced unit that comes while nobody waits, if there is room for it.

        In line it would be granted the same, at several times the cost; most calls of a service
        that is not at its limits come like this. None: it is to stand in line.
        """
        for each in self.classes:
            if each.queue.waiting:
                return None
        unit = waiting.unit
        queue = self.class_queue(unit.class_name)
        if len(waiting.options) > 1 and queue.pushes_at(waiting, now) <= now:
            return None  # It leaves no reserve, so that a cheaper deployment may have room.
        reserve = queue.reserve_of(waiting, now)
        allowance = self._allowances.by_tenant.get(unit.tenant)
        if allowance is not None:
            amounts = own_amounts(unit.estimate)
            if allowance.ready_at(queue, amounts, reserve, now) > now:
                return None
        placement = self._place(waiting, queue.plan, reserve, {}, now)
        if placement.ready_at > now:
            return None
        # It has just been priced, by the same amounts unless its class corrects them.
        is_priced = len(waiting.options) == 1 and OTPM not in placement.pool.buckets
        self._take_room(queue, waiting, placement, now, is_priced=is_priced)
        queue.queue.passed(unit.tenant, waiting.cost_seconds)
        return placement

    def reweigh(self, weights: dict[str, float]) -> None:
        """Go by other weights of tenants from now on."""
        for queue in self.classes:
            queue.queue.reweigh(weights)
        self.changed()

    def changed(self) -> None:
        """Something of the limits has changed: what could not go may go."""
        self._is_changed = True

    def pump(self, now: float) -> tuple[list[tuple[Waiting, Placement]], float]:
        """Grant all that can go now, in order. Returns the grants and when to look again.

        Where neither the limits nor the first of any line have changed, nothing can go before
        the time that was found last; then nothing is looked at.
        """
        granted: list[tuple[Waiting, Placement]] = []
        if not self._is_changed and now < self._wake_at:
            for queue in self.classes:
                if queue.is_changed:
                    break
            else:
                return granted, self._wake_at
        held: dict[Pool, Held] = {}
        wake_at = math.inf
        waiting = [queue for queue in self.classes if queue.queue.waiting]
        for queue in waiting:
            queue.advance(now)
            if queue.plan.min_share:
                look_at = self._push_starved(queue, held, granted, now)
                if look_at < wake_at:
                    wake_at = look_at
        for queue in waiting:
            look_at = self._serve(queue, held, granted, now)
            if look_at < wake_at:
                wake_at = look_at
        self._is_changed = False
        for queue in self.classes:
            queue.is_changed = False
        self._wake_at = wake_at
        return granted, wake_at

    def _push_starved(
        self,
        queue: ClassQueue,
        held: dict[Pool, Held],
        granted: list[tuple[Waiting, Placement]],
        now: float,
    ) -> float:
        """A class that has gone without for too long goes first, and with no reserve."""
        while (head := queue.queue.head(queue.queue.models())) is not None:
            pushes_at = queue.pushes_at(head, now)
            if pushes_at > now:
                return pushes_at
            if self._is_held_by_own_limits(queue, head, queue.reserve_of(head, now), now):
                continue
            placement = self._place(head, queue.plan, 0.0, held, now)
            if placement.ready_at > now:
                if placement.cause != DAY_KEPT and placement.pool not in held:
                    held[placement.pool] = placement.hold()
                return placement.ready_at
            self._grant(queue, head, placement, now)
            granted.append((head, placement))
        return math.inf

    def _serve(
        self,
        queue: ClassQueue,
        held: dict[Pool, Held],
        granted: list[tuple[Waiting, Placement]],
        now: float,
    ) -> float:
        """Grant a class's units in order, until the head of every model is blocked."""
        plan, models = queue.plan, queue.queue.models()
        wake_at = math.inf
        while models and (head := queue.queue.head(models)) is not None:
            reserve = queue.reserve_of(head, now)
            if self._is_held_by_own_limits(queue, head, reserve, now):
                continue
            placement = self._place(head, plan, reserve, held, now)
            if placement.ready_at <= now:
                self._grant(queue, head, placement, now)
                granted.append((head, placement))
                continue
            if placement.pool not in held:
                held[placement.pool] = placement.hold()
            if placement.ready_at < wake_at:
                wake_at = placement.ready_at
            if placement.cause == DAY_KEPT:
                wake_at = min(wake_at, now + DAY_WAKE_SECONDS)
            if reserve < plan.reserve:
                wake_at = min(wake_at, now + RELAXED_WAKE_SECONDS)
            unit = head.unit
            queue.clock(unit.model, now).held_up(unit.tenant, placement.cause)
            models.remove(unit.model)
        if queue.due is not None:
            wake_at = min(wake_at, self._serve_due(queue, queue.due, held, granted, now))
        return wake_at

    def _serve_due(
        self,
        queue: ClassQueue,
        due: Due,
        held: dict[Pool, Held],
        granted: list[tuple[Waiting, Placement]],
        now: float,
    ) -> float:
        """Grant units near their deadlines while the heads wait for the sake of other classes."""
        while (first := due.first()) is not None and first.unit.deadline is not None:
            reserve = queue.reserve_of(first, now)
            if reserve >= queue.plan.reserve:
                relaxes_at = first.unit.deadline - DEADLINE_RELAXED_SECONDS
                return max(relaxes_at, now) + RELAXED_WAKE_SECONDS
            if queue.is_held(first.unit.tenant):
                return math.inf
            if self._is_held_by_own_limits(queue, first, reserve, now):
                return math.inf
            placement = self._place(first, queue.plan, reserve, held, now)
            if placement.ready_at > now:
                return min(placement.ready_at, now + RELAXED_WAKE_SECONDS)
            self._grant(queue, first, placement, now)
            granted.append((first, placement))
        return math.inf

    def _is_held_by_own_limits(
        self, queue: ClassQueue, head: Waiting, reserve: float, now: float
    ) -> bool:
        """Whether a unit's tenant has used up its own limits; it then waits beside the line."""
        allowance = self._allowances.by_tenant.get(head.unit.tenant)
        if allowance is None:
            return False
        amounts = own_amounts(head.unit.estimate)
        ready_at = allowance.ready_at(queue, amounts, reserve, now)
        if ready_at <= now:
            return False
        allowance.hold(queue, amounts, now)
        self._allowances.wake(allowance, ready_at)
        return True

    def _grant(self, queue: ClassQueue, head: Waiting, placement: Placement, now: float) -> None:
        unit = head.unit
        queue.backlog_seconds -= head.cost_seconds
        if head.mark is not None:
            head.waited_for(queue.clock(unit.model, now).causes(head.mark, unit.tenant))
        self._take_room(queue, head, placement, now)
        queue.queue.granted(head)

    def _take_room(
        self,
        queue: ClassQueue,
        waiting: Waiting,
        placement: Placement,
        now: float,
        *,
        is_priced: bool = False,
    ) -> None:
        """Reserve what a unit takes; its class pays for it."""
        unit, pool = waiting.unit, placement.pool
        placement.answer = pool.reserve(placement.amounts, now, queue.plan)
        placement.deployment.health.in_flight += 1
        allowance = self._allowances.of(unit.tenant)
        if allowance is not None:
            allowance.granted(queue, own_amounts(unit.estimate), now)
            placement.allowance = allowance
        queue.in_flight += 1
        if not is_priced:
            waiting.cost_seconds = pool.cost_seconds(placement.amounts)
        queue.spend(waiting.cost_seconds)
        placement.is_contended = queue.queue.tenants_waiting > 1
        if len(waiting.options) > 1:
            self._affinities.keep(unit, placement.deployment.plan.name)

    def _place(
        self,
        waiting: Waiting,
        plan: ClassPlan,
        reserve: float,
        held: dict[Pool, Held],
        now: float,
    ) -> Placement:
        """Where a unit goes: among deployments that are ready at once, the one with its prompt,
        then the cheapest that is comfortable, then the one with most headroom; else the first.

        Ready means that it has room for this unit beyond what its class leaves there, so no
        dear deployment is taken while a cheaper one has that room.
        """
        unit, options = waiting.unit, waiting.options
        is_only_one = len(options) == 1
        kept = None if is_only_one else self._affinities.of(unit)
        best: Placement | None = None
        best_rank = (math.inf, False, 0.0, 0.0)
        for deployment in options if is_only_one else _in_health(options, now):
            pool = deployment.pool
            amounts = deployment.amounts(unit.estimate, unit.class_name)
            ready_at, cause = deployment.ready_at(amounts, reserve, now, plan)
            hold = held.get(pool)
            if hold is not None and not pool.leaves_room_for(hold, amounts, now):
                ready_at, cause = max(ready_at, hold.ready_at), HIGHER_CLASS
            placement = Placement(deployment, pool, amounts, ready_at, cause)
            if is_only_one:
                return placement
            plan_there, headroom = deployment.plan, pool.headroom(amounts)
            if plan_there.name == kept and ready_at <= now and headroom > AFFINITY_HEADROOM_MIN:
                return placement
            rank = (ready_at, headroom < HEADROOM_COMFORTABLE, plan_there.cost, -headroom)
            if best is None or rank < best_rank:
                best, best_rank = placement, rank
        assert best is not None, "a unit without options is never admitted"
        return best


def _in_health(options: Sequence[Deployment], now: float) -> Sequence[Deployment]:
    """The deployments that are not out; all of them where there is no other."""
    if all(deployment.health.trouble is None for deployment in options):
        return options
    return [option for option in options if not option.health.is_out(now)] or options
