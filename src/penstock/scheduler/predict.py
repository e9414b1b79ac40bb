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
    """Seconds until a grant, if nothing more urgent arrives; infinite where none can come.

    For a unit that is not queued yet, everything of its class goes before it, up to what
    fairness grants its tenant.
    """
    deployments = domain.serving(waiting.unit.model)
    ahead_seconds, reserve = 0.0, 0.0
    for queue in domain.classes:
        if queue.plan.name == waiting.unit.class_name:
            ahead_seconds += _own_class_seconds(queue, waiting)
            reserve = queue.plan.reserve
            break
        ahead_seconds += queue.backlog_seconds
    room_seconds = min(
        max(0.0, _ready_in_seconds(domain, waiting, index, reserve, now))
        for index in range(len(deployments))
    )
    if math.isinf(room_seconds):
        room_seconds = 0.0  # Only an ending makes room: that may be the next moment.
    return room_seconds + max(0.0, ahead_seconds - _burst_seconds(domain, waiting, now)) / max(
        1, len(deployments)
    )


def _ready_in_seconds(
    domain: Domain, waiting: Waiting, index: int, reserve: float, now: float
) -> float:
    deployment = domain.serving(waiting.unit.model)[index]
    amounts = deployment.amounts(waiting.unit.estimate)
    return deployment.ready_at(amounts, reserve, now) - now


def _own_class_seconds(queue: ClassQueue, waiting: Waiting) -> float:
    """The work of its own class that goes first: at most its tenant's fair multiple."""
    if not queue.queue.waiting:
        return 0.0
    average_seconds = queue.backlog_seconds / queue.queue.waiting
    tenants = len(queue.queue.tenants())
    own = queue.queue.waiting_of(waiting.unit.tenant)
    return min(queue.backlog_seconds, (own + 1) * max(1, tenants) * average_seconds)


def _burst_seconds(domain: Domain, waiting: Waiting, now: float) -> float:
    """Work that the fullest deployment could take at once."""
    seconds = 0.0
    for deployment in domain.serving(waiting.unit.model):
        levels = []
        for bucket in deployment.pool.buckets.values():
            bucket.advance(now)
            levels.append(max(0.0, bucket.level) / bucket.rate)
        seconds = max(seconds, min(levels, default=math.inf))
    return seconds
