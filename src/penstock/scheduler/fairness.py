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
the poorer for it, nor one who under-estimates the richer. What was granted while nobody else
waited took from nobody, so it is not corrected: had its cost been known, the virtual time would
have grown with the tag, and who came later would have started there. (Long answers are settled half
a minute after they were granted, to a debt that those who came meanwhile had no part in.) An idle
tenant saves up no credit: coming back it starts at the class's virtual time.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush, heapreplace
from typing import TypeAlias

from penstock.scheduler.lanes import Lanes
from penstock.scheduler.ranks import Ranks
from penstock.scheduler.waiting import Place, Waiting

COMPACT_ENDED_MIN = 64
"""Ended units and entries left behind are swept out once there are more than that and more
than half of what is there: O(1) each, amortised."""


Entry: TypeAlias = "tuple[float, Place, Flow]"
"""A flow in line: its tag, and its head's place. The smallest goes first."""


class Flow:
    """One tenant in one class: its tag, and its units by model, each model in order.

    ``start`` is the tag in dominant seconds, ``tag`` what of it is compared: whole quanta, where
    the class has a quantum. ``entered`` is where it stands in the line of each model.
    """

    __slots__ = (
        "ended",
        "entered",
        "is_held",
        "ranks",
        "start",
        "tag",
        "units",
        "waiting",
        "weight",
    )

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.start = 0.0
        self.tag = 0.0
        self.ranks = Ranks()
        self.waiting = 0
        self.ended = 0
        self.is_held = False
        self.units: dict[str, Lanes] = {}
        self.entered: dict[str, Entry] = {}

    def move(self, start: float, quantum_seconds: float) -> None:
        """Set the tag."""
        self.start = start
        self.tag = math.floor(start / quantum_seconds) if quantum_seconds else start

    def head(self, model: str) -> Waiting | None:
        """The first unit that still waits for this model; forgets the ended ones before it."""
        lanes = self.units.get(model)
        if lanes is None:
            return None
        head, forgotten = lanes.head()
        self.ended -= forgotten
        return head

    def ahead_of(self, waiting: Waiting, before: int) -> int:
        """How many of ``before``, which came earlier, go before one that waits, or would; about.

        Those that wait for other models all do: they have the same limits before them, and between
        two models the earlier unit goes first.
        """
        lanes = self.units.get(waiting.unit.model) if before else None
        if lanes is None:
            return before
        here = before
        if len(self.units) > 1:
            here = min(before, lanes.before(waiting.number))
        return before - here + lanes.ahead_of(waiting, here)

    def compact(self) -> None:
        """Forget the ended units wherever they are."""
        for lanes in self.units.values():
            lanes.compact()
        self.ended = 0


class FairQueue:
    """The waiting units of one class: by tenant and model, in fair order.

    Every operation is O(log n) in the number of waiting units and active tenants. A *line* is
    the heap of flows that wait for one model. A flow's latest entry may come up too early, as its
    tag has grown or its head has gone: then it is entered again where it belongs. What would come
    up too late is entered at once; older entries are passed over.
    """

    def __init__(self, weights: dict[str, float], quantum_seconds: float = 0.0) -> None:
        self._weights = weights
        self._quantum_seconds = quantum_seconds
        self._flows: dict[str, Flow] = {}
        self._lines: dict[str, list[Entry]] = {}
        self._sweep_at = COMPACT_ENDED_MIN
        self._ranks = Ranks() if quantum_seconds else None
        self.virtual_time = 0.0
        self.waiting = 0
        self.tenants_waiting = 0
        self.weights_waiting = 0.0

    def reweigh(self, weights: dict[str, float]) -> None:
        """Go by other weights: what was given before was paid for at the old ones."""
        self._weights = weights
        for tenant, flow in self._flows.items():
            weight = weights.get(tenant, 1.0)
            if flow.waiting:
                self.weights_waiting += weight - flow.weight
            flow.weight = weight

    def push(self, waiting: Waiting) -> bool:
        """Add a unit at its place, which is its own from its run's arrival on.

        Returns whether it is the first of its tenant for its model.
        """
        unit, number = waiting.unit, waiting.number
        flow = self._flow(unit.tenant)
        if flow.waiting == 0:
            flow.move(max(flow.start, self.virtual_time), self._quantum_seconds)
            self.tenants_waiting += 1
            self.weights_waiting += flow.weight
        flow.waiting += 1
        flow.ranks.add(number)
        self.waiting += 1
        if self._ranks is not None:
            self._ranks.add(number)
        lanes = flow.units.get(unit.model)
        if lanes is None:
            lanes = flow.units[unit.model] = Lanes()
        lanes.push(waiting)
        if flow.head(unit.model) is not waiting:
            return False
        self._enter(flow, unit.model)
        return True

    def remove(self, waiting: Waiting) -> None:
        """A unit ends its waiting: granted, evicted or cancelled."""
        waiting.is_waiting = False
        number, model = waiting.number, waiting.unit.model
        flow = self._flows[waiting.unit.tenant]
        flow.ranks.discard(number)
        flow.waiting -= 1
        flow.ended += 1
        if self._ranks is not None:
            self._ranks.discard(number)
        self.waiting -= 1
        if flow.waiting == 0:
            self.tenants_waiting -= 1
            self.weights_waiting -= flow.weight
        if self.waiting == 0:
            self._rest()
            return
        if flow.ended > COMPACT_ENDED_MIN and flow.ended > flow.waiting:
            flow.compact()
        entry = flow.entered.get(model)
        if entry is not None and entry[1][3] is waiting and flow.units[model].are_several:
            # Of another sub-tenant the next one's place may be before the place of this one.
            self._enter(flow, model)

    def granted(self, waiting: Waiting) -> None:
        """A unit goes: its flow's tag is the class's virtual time, then grows by the cost."""
        flow = self._flows[waiting.unit.tenant]
        start = flow.start
        if start > self.virtual_time:
            self.virtual_time = start
        flow.move(start + waiting.cost_seconds / flow.weight, self._quantum_seconds)
        flow.units[waiting.unit.model].granted(waiting)
        self.remove(waiting)

    def passed(self, tenant: str, cost_seconds: float) -> None:
        """A unit goes that never stood in line, since nobody waits: a busy period of its own."""
        self.virtual_time += cost_seconds / self._weights.get(tenant, 1.0)

    def correct(self, tenant: str, difference_seconds: float) -> None:
        """A settlement: what was given was more (or, negative, less) than charged."""
        flow = self._flows.get(tenant)
        if flow is not None:
            tag = flow.tag
            flow.move(flow.start + difference_seconds / flow.weight, self._quantum_seconds)
            if flow.tag < tag:
                self._enter_all(flow)

    def hold(self, tenant: str) -> None:
        """A tenant's units stand beside the line from now on, where they hold up nobody."""
        flow = self._flows.get(tenant)
        if flow is not None:
            flow.is_held = True
            flow.entered.clear()

    def release(self, tenant: str) -> None:
        """They stand in line again. As after idling, no credit was gathered meanwhile."""
        flow = self._flows.get(tenant)
        if flow is not None and flow.is_held:
            flow.is_held = False
            flow.move(max(flow.start, self.virtual_time), self._quantum_seconds)
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
        best: Entry | None = None
        for model in models:
            entry = self._first(model)
            if entry is not None and (best is None or entry < best):
                best = entry
        return None if best is None else best[1][3]

    def ahead_of(self, waiting: Waiting) -> int:
        """How many units will go before one that waits, or would; about.

        Of its own tenant those that came before it, as far as its sub-tenants' turns let them; for
        each of them the others get as much by their weights, if they have it. Within a quantum it
        is those that came before, whoever's they are.
        """
        flow = self._flows.get(waiting.unit.tenant)
        if self._ranks is not None:
            before = self._ranks.before(waiting.number)
            if flow is None or not before:
                return before
            own_before = flow.ranks.before(waiting.number)
            return before - own_before + flow.ahead_of(waiting, own_before)
        if flow is None:
            return 0
        own = flow.ahead_of(waiting, flow.ranks.before(waiting.number))
        others = own * (self.weights_waiting / flow.weight - 1.0)
        return own + min(self.waiting - flow.waiting, max(0, round(others)))

    def own_ahead_of(self, waiting: Waiting) -> int:
        """How many units of its own tenant go before one that waits, or would; about."""
        flow = self._flows.get(waiting.unit.tenant)
        return flow.ahead_of(waiting, flow.ranks.before(waiting.number)) if flow is not None else 0

    def waiting_of(self, tenant: str) -> int:
        """How many units of a tenant wait here."""
        flow = self._flows.get(tenant)
        return flow.waiting if flow else 0

    def _flow(self, tenant: str) -> Flow:
        flow = self._flows.get(tenant)
        if flow is None:
            if len(self._flows) >= self._sweep_at:
                self._sweep()
            flow = self._flows[tenant] = Flow(self._weights.get(tenant, 1.0))
        return flow

    def _enter(self, flow: Flow, model: str) -> None:
        """Put a flow in line where it belongs by now."""
        entry = self._entry(flow, model)
        if entry is not None:
            heappush(self._lines.setdefault(model, []), entry)

    def _entry(self, flow: Flow, model: str) -> Entry | None:
        """A flow's new place in a line; None where it has none."""
        head = None if flow.is_held else flow.head(model)
        if head is None:
            flow.entered.pop(model, None)
            return None
        entry = flow.entered[model] = (flow.tag, head.place, flow)
        return entry

    def _enter_all(self, flow: Flow) -> None:
        for model in flow.units:
            self._enter(flow, model)

    def _first(self, model: str) -> Entry | None:
        """The first entry of a line, once those before it that say the truth no more are gone."""
        line = self._lines.get(model)
        while line:
            entry = line[0]
            tag, place, flow = entry
            is_latest = flow.entered.get(model) is entry
            if is_latest and place[3].is_waiting and tag == flow.tag:
                return entry
            again = self._entry(flow, model) if is_latest else None
            if again is None:
                heappop(line)
            else:
                heapreplace(line, again)
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
        for flow in self._flows.values():
            if flow.start > self.virtual_time:
                self.virtual_time = flow.start
        self._flows.clear()
        self._lines.clear()
        self.weights_waiting = 0.0
