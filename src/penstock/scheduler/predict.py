"""How long a unit will wait: the answer to refuse by, and to show.

The prediction leans to the short side, because it refuses: a unit is told that it is hopeless
only where even the favourable case comes too late. It adds up the dominant seconds of work
that goes before the unit, takes off what the bucket holds already, and divides by the
deployments that share the work.
"""

from __future__ import annotations

import math

from penstock.scheduler.allowance import Allowances
from penstock.scheduler.domain import Domain
from penstock.scheduler.waiting import Waiting


def units_ahead(domain: Domain, waiting: Waiting) -> int:
    """How many units will go before one that waits, or would, if nothing more arrives; about."""
    ahead = 0
    for queue in domain.classes:
        if queue.plan.name == waiting.unit.class_name:
            return ahead + queue.queue.ahead_of(waiting)
        ahead += queue.queue.waiting
    return ahead


def predicted_wait_seconds(
    domain: Domain, waiting: Waiting, allowances: Allowances, now: float
) -> float:
    """Seconds until a grant, if nothing more urgent arrives.

    For a unit that is not queued yet, everything of its class goes before it, up to what
    fairness grants its tenant. The unit must have been priced.
    """
    ahead_seconds, reserve = 0.0, 0.0
    for queue in domain.classes:
        if queue.plan.name == waiting.unit.class_name:
            if queue.queue.waiting:
                average_seconds = queue.backlog_seconds / queue.queue.waiting
                ahead_seconds += average_seconds * queue.queue.ahead_of(waiting)
            # Near its deadline a unit leaves no reserve, so what refuses must not count on one.
            reserve = 0.0 if queue.plan.order == "deadline" else queue.plan.reserve
            break
        ahead_seconds += queue.backlog_seconds
    ready_in_seconds = math.inf
    burst_seconds = 0.0
    for deployment in waiting.options:
        amounts = deployment.amounts(waiting.unit.estimate)
        ready_at, _ = deployment.ready_at(amounts, reserve, now)
        ready_in_seconds = min(ready_in_seconds, ready_at - now)
        if ahead_seconds:
            burst_seconds = max(burst_seconds, deployment.pool.burst_seconds(reserve, now))
    if math.isinf(ready_in_seconds):
        ready_in_seconds = 0.0  # Only an ending makes room: that may be the next moment.
    seconds = ready_in_seconds + max(0.0, ahead_seconds - burst_seconds) / len(waiting.options)
    allowance = allowances.of(waiting.unit.tenant)
    if allowance is not None:
        own_ahead = domain.class_queue(waiting.unit.class_name).queue.own_ahead_of(waiting)
        seconds = max(seconds, allowance.wait_seconds(own_ahead, waiting.unit.estimate, now))
    return seconds
