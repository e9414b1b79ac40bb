"""How many lines of a batch are under way at once.

Too few leave a limit unused, too many fill memory and wait longer than a call may. What is right
depends on limits that may be learnt only now, so it is felt out: as long as lines hardly wait
for their grant there is room for more, and when they wait for seconds there are more than the
limit needs to be used without a gap.
"""

from __future__ import annotations

from typing import Final

LINES_FIRST: Final = 16
LINES_MIN: Final = 4
WAIT_SECONDS_SHORT: Final = 0.5
WAIT_SECONDS_LONG: Final = 5.0


def next_window(window: int, waited_seconds: float, lines_max: int) -> int:
    """The window after a line that has waited so long for its grant."""
    if waited_seconds < WAIT_SECONDS_SHORT:
        return min(lines_max, window + 1)
    if waited_seconds > WAIT_SECONDS_LONG:
        return max(LINES_MIN, min(lines_max, window - 1))
    return min(lines_max, window)
