"""What a job can be, and what becomes of it: the rules alone, without a clock or a store.

A job is pending until it is started, running until its attempt ends, and then either at one of
four ends for ever or pending again. Whether an attempt that broke off is followed by another is
decided by *fruitless* attempts: those in which not one more LLM call was finished and kept. So a
run that loses its worker again and again still comes to its end as long as it gets on, while a
run that kills its worker at the same place each time (a poison run) is stopped after
``attempts_max`` of them, with the reason. Counting all attempts instead would punish a long run
for the faults of others; counting none would let poison kill workers for ever.

The states are those of the Agent Server protocol, so that its clients need no translation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

BACKOFF_SECONDS_MIN: Final = 1.0
BACKOFF_SECONDS_MAX: Final = 60.0


class State(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (State.PENDING, State.RUNNING)


class Happening(StrEnum):
    """What can happen to a job."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    BROKEN_OFF = "broken_off"
    GIVEN_BACK = "given_back"
    CANCELLED = "cancelled"


TRANSITIONS: Final[dict[tuple[State, Happening], State]] = {
    (State.PENDING, Happening.STARTED): State.RUNNING,
    (State.PENDING, Happening.CANCELLED): State.INTERRUPTED,
    (State.PENDING, Happening.TIMED_OUT): State.TIMEOUT,
    (State.RUNNING, Happening.SUCCEEDED): State.SUCCESS,
    (State.RUNNING, Happening.FAILED): State.ERROR,
    (State.RUNNING, Happening.TIMED_OUT): State.TIMEOUT,
    (State.RUNNING, Happening.CANCELLED): State.INTERRUPTED,
    # Broken off too often is FAILED: ``after_break`` says which.
    (State.RUNNING, Happening.BROKEN_OFF): State.PENDING,
    (State.RUNNING, Happening.GIVEN_BACK): State.PENDING,
}
"""Every step that there is; whatever is not here cannot happen."""


class Sequel(msgspec.Struct, frozen=True):
    """What follows an attempt that broke off."""

    happening: Happening
    attempts_fruitless: int
    delay_seconds: float = 0.0


def after(state: State, happening: Happening) -> State:
    """The next state. Raises KeyError for what cannot happen in this one."""
    return TRANSITIONS[state, happening]


def after_break(attempts_fruitless: int, attempts_max: int, *, got_on: bool) -> Sequel:
    """Whether an attempt that broke off is followed by another, and when.

    ``attempts_fruitless`` counts those before it, ``got_on`` says whether it finished a call.
    After one that got on the next comes at once; else the delay doubles with each.
    """
    fruitless = 0 if got_on else attempts_fruitless + 1
    if fruitless >= attempts_max:
        return Sequel(Happening.FAILED, fruitless)
    delay = 0.0
    if fruitless:
        delay = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2.0 ** min(fruitless - 1, 30))
    return Sequel(Happening.BROKEN_OFF, fruitless, delay)


def places_free(ranks: list[int], running: dict[int, int], running_max: int) -> dict[int, int]:
    """How many more jobs of each rank may start now, so that the more urgent keep headroom.

    With n classes the most urgent may fill every place, the next (n-1)/n of them together with
    all that are less urgent, and so on: batch jobs alone never take more than the n-th part.
    """
    free = {}
    ordered = sorted(ranks)
    left = running_max
    for index, rank in enumerate(ordered):
        share = max(1, running_max * (len(ordered) - index) // len(ordered))
        used = sum(count for other, count in running.items() if other >= rank)
        # What a class takes counts for every more urgent one's share, too.
        left = min(left, share - used)
        free[rank] = max(0, left)
    return free
