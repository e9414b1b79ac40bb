"""The units of one tenant for one model: by sub-tenant, who take turns.

A tenant may name its own users with its calls. One of them who sends a thousand calls must not
keep the others waiting: so each has a *lane*, and the lane that has been given least goes next
(start-time fair queueing again, with equal weights). Within a lane a unit's own place decides. A
lane that comes back after it was empty has saved up nothing. What has no name has a lane of its
own; a tenant who names nobody has only that one, and nothing here changes its order.

Names come from requests, so there may be any number of them: they share 32 lanes by their hash.
Two who meet in one lane are one to the others, which a search for the shortest lane of thousands
would cost every call to avoid.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final
from zlib import crc32

from penstock.scheduler.waiting import Place, Waiting
from penstock.units import Unit

LANES_MAX: Final = 32
UNNAMED: Final = -1
COUNTED_MAX: Final = 64
"""Those of a longer lane are taken to be ahead, all of them."""


def lane_of(unit: Unit) -> int:
    """The lane of a unit's sub-tenant."""
    return crc32(unit.sub_tenant.encode()) % LANES_MAX if unit.sub_tenant else UNNAMED


class Lanes:
    """The waiting units of one tenant for one model, and those that ended among them."""

    __slots__ = ("_heaps", "_turn", "_turns")

    def __init__(self) -> None:
        self._heaps: dict[int, list[Place]] = {}
        self._turns: dict[int, float] = {}
        self._turn = 0.0

    @property
    def are_several(self) -> bool:
        """Whether units of more than one lane may wait: then the next one may have come before."""
        return len(self._heaps) > 1

    def push(self, waiting: Waiting) -> None:
        """Add a unit at its place."""
        lane = lane_of(waiting.unit)
        heap = self._heaps.get(lane)
        if heap is None:
            heap = self._heaps[lane] = []
            self._turns[lane] = max(self._turns.get(lane, 0.0), self._turn)
        heappush(heap, waiting.place)

    def head(self) -> tuple[Waiting | None, int]:
        """The unit that goes first, and how many ended ones were forgotten on the way to it."""
        forgotten = 0
        is_any_empty = False
        best: Place | None = None
        best_turn = 0.0
        for lane, heap in self._heaps.items():
            while heap and not heap[0][3].is_waiting:
                heappop(heap)
                forgotten += 1
            if not heap:
                is_any_empty = True
                continue
            turn = self._turns[lane]
            if best is None or turn < best_turn or (turn == best_turn and heap[0] < best):
                best, best_turn = heap[0], turn
        if is_any_empty:
            self._heaps = {lane: heap for lane, heap in self._heaps.items() if heap}
        return (None if best is None else best[3]), forgotten

    def granted(self, waiting: Waiting) -> None:
        """A unit goes: its lane has been given so much more."""
        lane = lane_of(waiting.unit)
        turn = self._turns.get(lane, self._turn)
        self._turn = max(self._turn, turn)
        self._turns[lane] = turn + waiting.cost_seconds

    def ahead_of(self, waiting: Waiting, before: int) -> int:
        """How many of ``before``, which came earlier, go before a unit that waits, or would; about.

        Its own lane's do; every other lane has a turn for each of them, and one more.
        """
        lane = lane_of(waiting.unit)
        own_heap = self._heaps.get(lane, ())
        own = len(own_heap)
        if own <= COUNTED_MAX:
            own = sum(1 for place in own_heap if place[3].is_waiting and place < waiting.place)
        others = (len(heap) for other, heap in self._heaps.items() if other != lane)
        return min(before, own + sum(min(count, own + 1) for count in others))

    def before(self, number: int) -> int:
        """How many of all lanes came before that number; where they are many, all of them."""
        count = sum(map(len, self._heaps.values()))
        if count > COUNTED_MAX:
            return count
        heaps = self._heaps.values()
        return sum(
            1
            for heap in heaps
            for place in heap
            if place[3].is_waiting and place[3].number < number
        )

    def compact(self) -> None:
        """Forget the ended units wherever they are."""
        for lane, heap in list(self._heaps.items()):
            alive = [place for place in heap if place[3].is_waiting]
            heapify(alive)
            if alive:
                self._heaps[lane] = alive
            else:
                del self._heaps[lane]
