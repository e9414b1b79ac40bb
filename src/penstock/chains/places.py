"""Whose turn it is for a place: in a worker process, and for a thread within one.

Two rules, both those of the scheduler in small. *Order*: classes by rank, within a class by
arrival, or by deadline where the class says so; a class with a ``min_share`` is served out of
turn each time it has gathered a whole place. *Headroom*: a less urgent class leaves a tenth of
the places free for each class before it, so that an urgent run finds one at once instead of
waiting until somebody's batch run ends. It does that without taking places away: runs cannot be
interrupted, so the only place that is free at once is one that was kept free.

Tokens come back by themselves and a place does not, hence a share of all places here and not the
``reserve`` of the class's table, which may be the whole bucket. No clock and no tasks: who waits
is whatever the caller hands in.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from penstock.config.model import ClassTable

HEADROOM_SHARE: Final = 0.1

T = TypeVar("T")


class _Line(Generic[T]):
    """Those of one class who wait."""

    def __init__(self, table: ClassTable | None, more_urgent: int) -> None:
        self.by_deadline = table is not None and table.order == "deadline"
        self.min_share = 0.0 if table is None else table.min_share
        self.waiting_max = None if table is None else table.queue_max
        self.more_urgent = more_urgent
        self.credit = 0.0
        self.heap: list[tuple[float, int, T]] = []


class PlaceQueue(Generic[T]):
    """Those who wait for a place, by class. Ranks that no class has are taken as they come."""

    def __init__(self, classes: Iterable[ClassTable] = ()) -> None:
        self._sequence = itertools.count()
        self._lines: dict[int, _Line[T]] = {}
        self.adopt(classes)

    def adopt(self, classes: Iterable[ClassTable]) -> None:
        """Go by these classes from now on; who waits keeps its place."""
        tables = {table.rank: table for table in classes}
        ranks = sorted(tables.keys() | self._lines.keys())
        before = self._lines
        self._lines = {
            rank: _Line(tables.get(rank), sum(1 for other in tables if other < rank))
            for rank in ranks
        }
        for rank, line in before.items():
            self._lines[rank].heap = line.heap
            self._lines[rank].credit = line.credit

    def __len__(self) -> int:
        """How many wait."""
        return sum(len(line.heap) for line in self._lines.values())

    def is_full(self, rank: int) -> bool:
        """Whether the class has as many waiting as it may."""
        line = self._line(rank)
        return line.waiting_max is not None and len(line.heap) >= line.waiting_max

    def push(self, rank: int, deadline: float | None, item: T) -> None:
        """Let ``item`` wait. ``deadline`` in seconds of any clock, the same for all."""
        line = self._line(rank)
        key = math.inf if deadline is None else deadline
        entry = (key if line.by_deadline else 0.0, next(self._sequence), item)
        heapq.heappush(line.heap, entry)

    def withdraw(self, item: T) -> None:
        """Let ``item`` wait no longer, if it did."""
        for line in self._lines.values():
            kept = [entry for entry in line.heap if entry[2] is not item]
            if len(kept) < len(line.heap):
                line.heap = kept
                heapq.heapify(kept)

    def pop(self, busy: int, total: int) -> T | None:
        """Who gets a place now that ``busy`` of ``total`` are taken; None for nobody."""
        ready = [
            line
            for _, line in sorted(self._lines.items())
            if line.heap and busy < allowed(total, line.more_urgent)
        ]
        if not ready:
            return None
        owed = next((line for line in ready if line.credit >= 1.0), None)
        chosen = owed or ready[0]
        if owed is not None:
            owed.credit -= 1.0
        for line in ready:
            if line is not chosen:
                line.credit = min(1.0, line.credit + line.min_share)
        return heapq.heappop(chosen.heap)[2]

    def _line(self, rank: int) -> _Line[T]:
        if rank not in self._lines:
            more_urgent = sum(1 for other in self._lines if other < rank)
            self._lines[rank] = _Line(None, more_urgent)
        return self._lines[rank]


def allowed(total: int, more_urgent: int) -> int:
    """How many of ``total`` places may be taken when a class takes one, at least the first.

    ``more_urgent`` is how many classes come before it.
    """
    headroom = max(1, math.floor(total * HEADROOM_SHARE))
    return max(1, total - more_urgent * headroom)
