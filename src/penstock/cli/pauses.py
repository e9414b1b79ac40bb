"""Full collections of garbage stay short, however many calls wait.

A full collection looks at every object there is, and all callers wait for it: with 100,000 calls in
the queue it took six seconds (measured, on a slow machine), and one came with each quarter that the
queue grew by. So what has survived a long one is frozen: later ones pass it by, and it goes when
nothing refers to it, as nearly everything does. Circles among it would stay; so once few of the
calls are left that waited then, all of it is looked at again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Final

PAUSE_SECONDS_MAX: Final = 0.1
"""What survived a collection that took longer is frozen."""
LEFT_SHARE: Final = 0.1
"""Of the calls that waited: when no more are left, it is looked at again."""


class Pauses:
    """One of ``gc.callbacks``. ``waiting_count`` says how many calls wait."""

    def __init__(
        self,
        clock: Callable[[], float],
        waiting_count: Callable[[], int],
        freeze: Callable[[], None] = gc.freeze,
        unfreeze: Callable[[], None] = gc.unfreeze,
    ) -> None:
        self._clock = clock
        self._waiting_count = waiting_count
        self._freeze = freeze
        self._unfreeze = unfreeze
        self._began_at = 0.0
        self._waited_max: int | None = None

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """A collection begins (``start``) or has ended (``stop``)."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self._began_at = self._clock()
            return
        waiting_count = self._waiting_count()
        if self._clock() - self._began_at > PAUSE_SECONDS_MAX:
            self._freeze()
            self._waited_max = max(waiting_count, self._waited_max or 0)
        elif self._waited_max is not None and waiting_count <= self._waited_max * LEFT_SHARE:
            self._unfreeze()
            self._waited_max = None
