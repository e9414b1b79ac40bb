"""How long a unit will wait: the answer to refuse by, and to show.

The prediction leans to the short side, because it refuses: a unit is told that it is hopeless
only where even the favourable case comes too late. It adds up the dominant seconds of work
that goes before the unit, takes off what the bucket holds already, and divides by the
deployments that share the work.
"""

from __future__ import annotations

import math

from penstock.scheduler.domain import ClassQueue, Domain
from penstock.scheduler.waiting import Waiting


def predicted_wait_seconds(domain: Domain, waiting: Waiting, now: float) -> float:
    """Seconds until a grant, if nothing more urgent arrives.

    For a unit that is not queued yet, everything of its class goes before it, up to what
    fairness grants its tenant. The unit must have been priced.
    """
    ahead_seconds, reserve = 0.0, 0.0
    for queue in domain.classes:
        if queue.plan.name == waiting.unit.class_name:
            if queue.queue.waiting:
                ahead_seconds += _own_class_seconds(queue, waiting)
            # Near its deadline a unit leaves no reserve, so what refuses must not count on one.
            reserve = 0.0 if queue.plan.order == "deadline" else queue.plan.reserve
            break
        ahead_seconds += queue.backlog_seconds
    ready_in_seconds = math.inf
    burst_seconds = 0.0
    for deployment, amounts in waiting.options:
        ready_at, _ = deployment.ready_at(amounts, reserve, now)
        ready_in_seconds = min(ready_in_seconds, ready_at - now)
        if ahead_seconds:
            burst_seconds = max(burst_seconds, deployment.pool.burst_seconds(now))
    if math.isinf(ready_in_seconds):
        ready_in_seconds = 0.0  # Only an ending makes room: that may be the next moment.
    return ready_in_seconds + max(0.0, ahead_seconds - burst_seconds) / len(waiting.options)


def _own_class_seconds(queue: ClassQueue, waiting: Waiting) -> float:
    """The work of its own class that goes first: at most its tenant's fair multiple."""
    average_seconds = queue.backlog_seconds / queue.queue.waiting
    own = queue.queue.waiting_of(waiting.unit.tenant)
    return min(queue.backlog_seconds, (own + 1) * queue.queue.tenants_waiting * average_seconds)
