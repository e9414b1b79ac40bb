"""A provider's ``remaining`` as an interval, by replaying what was sent since.

An answer's ``remaining`` was true when the provider admitted that request: some time between
its sending and its answer, while other requests of ours were on their way. To take the
smaller of it and the local level would count those twice (8 % of the limit lost with a
capacity of 2 s in a prototype). So the value is carried forward to now: refill is added and
every later send of ours is taken off, once with the assumptions that leave the most
(``highest``) and once with those that leave the least (``lowest``). The true level lies
between the two, whatever the network did, as long as one way takes at most
``ONE_WAY_SECONDS_MAX``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

ONE_WAY_SECONDS_MAX = 0.1
"""How long a request may be on its way to the provider's limiter."""

REORDER_SECONDS = 0.05
"""Sends closer together than this may reach the provider in either order."""


class Send(msgspec.Struct, frozen=True, gc=False):
    """An amount taken (negative: given back) at a time."""

    at: float
    amount: float


def forget_send(sends: deque[Send], at: float, amount: float) -> None:
    """What was taken then was never charged: it was nothing. O(number of sends since)."""
    for index in range(len(sends) - 1, -1, -1):
        send = sends[index]
        if send.at < at:
            return
        if send.at == at and send.amount == amount:
            sends[index] = Send(at, 0.0)
            return


def sent_since(sends: deque[Send], at: float) -> float:
    """The amounts of all sends after a moment. O(number of sends since)."""
    since = []
    for send in reversed(sends):
        if send.at <= at:
            break
        since.append(send.amount)
    return sum(reversed(since))


def remaining_interval(  # noqa: PLR0913 - eight facts about one reading, by keyword
    remaining: float,
    *,
    rounding: float,
    rate: float,
    capacity: float,
    sends: Sequence[Send] | deque[Send],
    sent_at: float,
    now: float,
    before_seconds: float = REORDER_SECONDS,
) -> tuple[float, float]:
    """The lowest and the highest level now, given what was left after a send at ``sent_at``.

    ``rounding`` is the unit to which the provider rounds. ``sends`` are in order of time; the
    cost is O(number of sends since ``sent_at``).
    """
    half = rounding / 2
    highest, highest_at = min(capacity, remaining + half), sent_at
    lowest, lowest_at = remaining - half, sent_at + ONE_WAY_SECONDS_MAX
    since, together = [], []
    for send in reversed(sends):
        if send.at < sent_at - before_seconds:
            break
        since.append(send)
        if send.at == sent_at and send.amount > 0:
            together.append(send.amount)
    since.reverse()
    if together:
        # One of those is the observed one: at the worst the smallest, and admitted first.
        lowest -= sum(together) - min(together)
    for send in since:
        at, amount = send.at, send.amount
        if at > sent_at + REORDER_SECONDS:
            # At its earliest: then the most can be refilled after it before the bucket is full.
            refilled = highest + rate * (at - highest_at)
            highest = (refilled if refilled < capacity else capacity) - amount
            highest_at = at
        if at != sent_at:
            arrives_at = at + ONE_WAY_SECONDS_MAX
            if arrives_at > lowest_at:
                lowest += rate * (arrives_at - lowest_at)
                lowest_at = arrives_at
            lowest = (lowest if lowest < capacity else capacity) - amount
    highest = min(capacity, highest + rate * max(0.0, now - highest_at))
    lowest = min(capacity, lowest + rate * (now - lowest_at))
    return lowest, max(lowest, highest)
