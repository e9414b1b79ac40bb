"""How often something happened in the last minute."""

from __future__ import annotations

WINDOW_SECONDS = 60


class RecentCount:
    """Counts by the second, over the last minute; constant memory."""

    __slots__ = ("_counts", "_second")

    def __init__(self) -> None:
        self._counts = [0] * WINDOW_SECONDS
        self._second = 0

    def add(self, now: float) -> None:
        """It happened once."""
        self._forget(now)
        self._counts[int(now) % WINDOW_SECONDS] += 1

    def total(self, now: float) -> int:
        """How often in the last minute."""
        self._forget(now)
        return sum(self._counts)

    def _forget(self, now: float) -> None:
        second = int(now)
        if second == self._second:
            return
        for past in range(max(self._second + 1, second - WINDOW_SECONDS + 1), second + 1):
            self._counts[past % WINDOW_SECONDS] = 0
        self._second = max(self._second, second)
