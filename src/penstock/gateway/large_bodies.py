"""What takes long for a large body is done beside the event loop, so that others go on.

Reading a body and weighing its prompt takes about 15 µs a kilobyte: nothing for a usual one, a
fifth of a second for 8 MiB. In a thread it takes as long, but no single step of it more than 15 ms.
One at a time: several threads would keep the loop from its turn between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

LARGE_BYTES: Final = 256 * 1024

_T = TypeVar("_T")


class LargeBodies:
    """Runs functions of bodies of ``LARGE_BYTES`` or more in a thread, one after the other."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, function: Callable[[], _T]) -> _T:
        """What the function gives, or raises."""
        async with self._turn:
            return await asyncio.to_thread(function)
