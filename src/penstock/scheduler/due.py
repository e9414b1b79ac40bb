"""Which unit of a class is due first, whoever's turn it is.

Fairness picks a tenant, and that tenant's first unit may well wait for the sake of more urgent
classes: its deadline is far. Another tenant's whose deadline is near need not, so it must be found
without looking at every tenant. Entries of units that have ended are dropped when they come up, or
when they are more than half.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from penstock.scheduler.waiting import Waiting

SWEEP_MIN = 64
"""So few entries are never swept."""


class Due:
    """The waiting units of one class that have a deadline, the first one first. O(log n)."""

    __slots__ = ("_heap", "_sweep_at")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Waiting]] = []
        self._sweep_at = SWEEP_MIN

    def push(self, waiting: Waiting) -> None:
        """A unit begins to wait; one without a deadline is never due."""
        deadline = waiting.unit.deadline
        if deadline is None:
            return
        heappush(self._heap, (deadline, waiting.number, waiting))
        if len(self._heap) > self._sweep_at:
            self._heap = [entry for entry in self._heap if entry[2].is_waiting]
            heapify(self._heap)
            self._sweep_at = 2 * len(self._heap) + SWEEP_MIN

    def first(self) -> Waiting | None:
        """The unit that is due first."""
        heap = self._heap
        while heap and not heap[0][2].is_waiting:
            heappop(heap)
        return heap[0][2] if heap else None
