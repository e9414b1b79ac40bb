"""What a job can be, and what becomes of it: the rules alone, without a clock or a store.

A job is pending until it is started, running until its attempt ends, and then either at one of
four ends for ever or pending again. Whether an attempt that broke off is followed by another is
decided by *blame*. An attempt that finished one more LLM call takes all blame away: so a run that
loses its worker again and again still comes to its end as long as it gets on. One that finished
none is to blame for it, since what kills a worker at the same place each time must be stopped
(a poison run). But a worker takes all its runs with it, and most of those were waiting for an
answer while another's code ran: they get a hundredth of the blame. So poison is stopped after
``attempts_max`` attempts, and those beside it survive a hundred times as many; where several
were at work, they share the blame. Counting all
attempts instead would let one poison run take every run down that waits beside it; counting none
would let it kill workers for ever.

The states are those of the Agent Server protocol, so that its clients need no translation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

BACKOFF_SECONDS_MIN: Final = 1.0
BACKOFF_SECONDS_MAX: Final = 60.0
BLAME_OWN: Final = 100
BLAME_WAITING: Final = 1
NO_PLACE_SECONDS: Final = 5.0
"""How long a job waits that found no place in the queue, as often as it takes."""
WAITED_OFTEN: Final = 10
"""After so much blame for waiting alone, attempts come a moment apart."""


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
    blame: int
    delay_seconds: float = 0.0


def after(state: State, happening: Happening) -> State:
    """The next state. Raises KeyError for what cannot happen in this one."""
    return TRANSITIONS[state, happening]


def after_break(
    blame: int,
    attempts_max: int,
    *,
    got_on: bool,
    in_a_call: bool,
    beside: int = 0,
    found_place: bool = True,
) -> Sequel:
    """Whether an attempt that broke off is followed by another, and when.

    ``blame`` is that of those before it, ``got_on`` says whether it finished a call,
    ``in_a_call`` whether it was waiting for one, ``beside`` how many others were lost with it:
    each of them may have been the cause. After an attempt that got on, or waited, the
    next comes at once; else the delay doubles with each. One that found no place in the queue is
    to blame for nothing: the job was accepted, and the queue is others'.
    """
    if not found_place:
        return Sequel(Happening.BROKEN_OFF, 0 if got_on else blame, NO_PLACE_SECONDS)
    if got_on:
        return Sequel(Happening.BROKEN_OFF, 0)
    own = max(BLAME_WAITING, BLAME_OWN // (1 + beside))
    blame += BLAME_WAITING if in_a_call else own
    if blame >= attempts_max * BLAME_OWN:
        return Sequel(Happening.FAILED, blame)
    if in_a_call:
        delay = BACKOFF_SECONDS_MIN if blame % BLAME_OWN > WAITED_OFTEN else 0.0
        return Sequel(Happening.BROKEN_OFF, blame, delay)
    doublings = min(max(0, blame // BLAME_OWN - 1), 30)
    delay = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2.0**doublings)
    return Sequel(Happening.BROKEN_OFF, blame, delay)


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
