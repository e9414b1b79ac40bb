"""Fairness between the tenants of one class: start-time fair queueing.

Goyal, Vin and Cheng, "Start-time fair queueing" (SIGCOMM 1996): every flow has a *start tag*;
the flow with the smallest goes next, and its tag then grows by what it was given, divided by
its weight. It needs no known service rate, so it stays fair on a bucket that refills slowly
or is shared with somebody else. For two flows that both have work waiting, what each was
given (over its weight) differs by at most one maximal unit of each.

A class may have a *quantum*: then tags are compared in whole quanta, and among tenants in the
same one the unit that comes first in its own order goes first. So tenants who are about even are
served first come, first served, as a single queue would be; one who has had more by a quantum
waits. The bound above grows by one quantum. (Strict order of tags made the 99th percentile of
single calls 1.3 to 1.4 times that of a single queue on a saturated limit with a burst of 2 s.)

What a unit costs is its *dominant* cost in seconds (``Pool.cost_seconds``). It is charged as
estimated when granted and corrected when settled, so that a tenant who over-estimates is not
the poorer for it, nor one who under-estimates the richer. An idle tenant saves up no credit:
coming back it starts at the class's virtual time.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import count
from typing import TypeAlias

from penstock.scheduler.lanes import Lanes
from penstock.scheduler.ranks import Ranks
from penstock.scheduler.waiting import Waiting

COMPACT_ENDED_MIN = 64
"""Ended units and entries left behind are swept out once there are more than that and more
than half of what is there: O(1) each, amortised."""


Rank: TypeAlias = tuple[float, tuple[float, float, int]]


class Flow:
    """One tenant in one class: its tag, and its units by model, each model in order."""

    __slots__ = (
        "ended",
        "entered",
        "index",
        "is_held",
        "ranks",
        "start",
        "units",
        "weight",
    )

    def __init__(self, index: int, weight: float) -> None:
        self.index = index
        self.weight = weight
        self.start = 0.0
        self.ranks = Ranks()
        self.ended = 0
        self.is_held = False
        self.units: dict[str, Lanes] = {}
        self.entered: dict[str, Rank] = {}

    @property
    def waiting(self) -> int:
        """How many units wait."""
        return self.ranks.count

    def head(self, model: str) -> Waiting | None:
        """The first unit that still waits for this model; forgets the ended ones before it."""
        lanes = self.units.get(model)
        if lanes is None:
            return None
        head, forgotten = lanes.head()
        self.ended -= forgotten
        return head

    def rank(self, head: Waiting, quantum_seconds: float) -> Rank:
        """Where this flow stands with that unit at its head: its tag, then the unit's place."""
        if quantum_seconds:
            return math.floor(self.start / quantum_seconds), head.key
        return self.start, head.key

    def compact(self) -> None:
        """Forget the ended units wherever they are."""
        for lanes in self.units.values():
            lanes.compact()
        self.ended = 0


class FairQueue:
    """The waiting units of one class: by tenant and model, in fair order.

    Every operation is O(log n) in the number of waiting units and active tenants. A *line* is
    the heap of flows that wait for one model, by tag; an entry whose tag is no longer its
    flow's is passed over when it comes up.
    """

    def __init__(self, weights: dict[str, float], quantum_seconds: float = 0.0) -> None:
        self._weights = weights
        self._quantum_seconds = quantum_seconds
        self._flows: dict[str, Flow] = {}
        self._lines: dict[str, list[tuple[Rank, int, Flow]]] = {}
        self._index = count()
        self._sweep_at = COMPACT_ENDED_MIN
        self._ranks = Ranks()
        self.virtual_time = 0.0
        self.tenants_waiting = 0
        self.weights_waiting = 0.0

    @property
    def waiting(self) -> int:
        """How many units wait."""
        return self._ranks.count

    def push(self, waiting: Waiting) -> bool:
        """Add a unit at its place, which is its own from its run's arrival on.

        Returns whether it is the first of its tenant for its model.
        """
        unit = waiting.unit
        flow = self._flow(unit.tenant)
        if flow.waiting == 0:
            flow.start = max(flow.start, self.virtual_time)
            self.tenants_waiting += 1
            self.weights_waiting += flow.weight
        flow.ranks.add(waiting.number)
        self._ranks.add(waiting.number)
        lanes = flow.units.get(unit.model)
        if lanes is None:
            lanes = flow.units[unit.model] = Lanes()
        lanes.push(waiting)
        head = flow.head(unit.model)
        if head is not waiting:
            return False
        self._enter(flow, unit.model, head)
        return True

    def remove(self, waiting: Waiting) -> None:
        """A unit ends its waiting: granted, evicted or cancelled."""
        waiting.is_waiting = False
        flow = self._flows[waiting.unit.tenant]
        flow.ranks.discard(waiting.number)
        flow.ended += 1
        self._ranks.discard(waiting.number)
        if flow.waiting == 0:
            self.tenants_waiting -= 1
            self.weights_waiting -= flow.weight
        if self.waiting == 0:
            self._rest()
        elif flow.ended > COMPACT_ENDED_MIN and flow.ended > flow.waiting:
            flow.compact()

    def granted(self, waiting: Waiting) -> None:
        """A unit goes: its flow's tag is the class's virtual time, then grows by the cost."""
        flow = self._flows[waiting.unit.tenant]
        self.virtual_time = max(self.virtual_time, flow.start)
        flow.start += waiting.cost_seconds / flow.weight
        flow.units[waiting.unit.model].granted(waiting)
        self.remove(waiting)
        self._enter_all(flow)

    def correct(self, tenant: str, difference_seconds: float) -> None:
        """A settlement: what was given was more (or, negative, less) than charged."""
        flow = self._flows.get(tenant)
        if flow is not None:
            flow.start += difference_seconds / flow.weight
            self._enter_all(flow)

    def hold(self, tenant: str) -> None:
        """A tenant's units stand beside the line from now on, where they hold up nobody."""
        flow = self._flows.get(tenant)
        if flow is not None:
            flow.is_held = True

    def release(self, tenant: str) -> None:
        """They stand in line again. As after idling, no credit was gathered meanwhile."""
        flow = self._flows.get(tenant)
        if flow is not None and flow.is_held:
            flow.is_held = False
            flow.start = max(flow.start, self.virtual_time)
            self._enter_all(flow)

    @property
    def has_line(self) -> bool:
        """Whether anybody waits who does not stand beside the line."""
        return bool(self._lines)

    def models(self) -> list[str]:
        """The models that somebody may be waiting for."""
        return list(self._lines)

    def head(self, models: list[str]) -> Waiting | None:
        """The unit that fairness puts first among those that wait for one of ``models``."""
        best: tuple[Rank, Waiting] | None = None
        for model in models:
            found = self._line_head(model)
            if found is not None and (best is None or found[0] < best[0]):
                best = found
        return best[1] if best is not None else None

    def ahead_of(self, waiting: Waiting) -> int:
        """How many units will go before one that waits, or would; about.

        Of its own tenant those that came before it; for each of them the others get as much by
        their weights, if they have it. Within a quantum it is those that came before, whoever's
        they are.
        """
        if self._quantum_seconds:
            return self._ranks.before(waiting.number)
        flow = self._flows.get(waiting.unit.tenant)
        if flow is None:
            return 0
        own = flow.ranks.before(waiting.number)
        others = own * (self.weights_waiting / flow.weight - 1.0)
        return own + min(self.waiting - flow.waiting, max(0, round(others)))

    def own_ahead_of(self, waiting: Waiting) -> int:
        """How many units of its own tenant came before one that waits, or would."""
        flow = self._flows.get(waiting.unit.tenant)
        return flow.ranks.before(waiting.number) if flow is not None else 0

    def waiting_of(self, tenant: str) -> int:
        """How many units of a tenant wait here."""
        flow = self._flows.get(tenant)
        return flow.waiting if flow else 0

    def _flow(self, tenant: str) -> Flow:
        flow = self._flows.get(tenant)
        if flow is None:
            if len(self._flows) >= self._sweep_at:
                self._sweep()
            flow = Flow(next(self._index), self._weights.get(tenant, 1.0))
            self._flows[tenant] = flow
        return flow

    def _enter(self, flow: Flow, model: str, head: Waiting) -> None:
        if flow.is_held:
            return
        rank = flow.rank(head, self._quantum_seconds)
        if flow.entered.get(model) != rank:
            flow.entered[model] = rank
            heappush(self._lines.setdefault(model, []), (rank, flow.index, flow))

    def _enter_all(self, flow: Flow) -> None:
        for model in flow.units:
            head = flow.head(model)
            if head is not None:
                self._enter(flow, model, head)

    def _line_head(self, model: str) -> tuple[Rank, Waiting] | None:
        """The first flow of a line and its head; forgets entries that no longer say the truth."""
        line = self._lines.get(model)
        while line:
            rank, _, flow = line[0]
            head = None if flow.is_held else flow.head(model)
            if head is not None and rank == flow.rank(head, self._quantum_seconds):
                return rank, head
            heappop(line)
            if flow.entered.get(model) == rank:
                del flow.entered[model]
                if head is not None:
                    self._enter(flow, model, head)
        self._lines.pop(model, None)
        return None

    def _sweep(self) -> None:
        """Forget the tenants that owe nothing and wait for nothing."""
        self._flows = {
            tenant: flow
            for tenant, flow in self._flows.items()
            if flow.waiting or flow.start > self.virtual_time
        }
        self._sweep_at = max(COMPACT_ENDED_MIN, 2 * len(self._flows))

    def _rest(self) -> None:
        """Nobody waits: the busy period ends, and with it what was owed within it."""
        ahead = max((flow.start for flow in self._flows.values()), default=0.0)
        self.virtual_time = max(self.virtual_time, ahead)
        self._flows.clear()
        self._lines.clear()
        self.weights_waiting = 0.0
