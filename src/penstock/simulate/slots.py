"""Where a provider limits how many calls run at once: how its slots were used.

A slot is held from the sending of the attempt that was taken to the end of its answer, so the
way there and back, which nobody can use, counts as held. It is *lost* while it is free and
somebody waits. Both are computed when a simulation has ended: the intervals are those of its
calls.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.simulate.runs import Call
from penstock.simulate.scenario import Scenario


def use_of_slots(scenario: Scenario, calls: Iterable[Call]) -> tuple[float, float]:
    """The shares of all slots that were held, and that were free while somebody waited.

    Of the counted time, over all accounts; raises ValueError where calls are not limited so.
    """
    slots = scenario.slots()
    if slots is None:
        raise ValueError("this scenario limits no calls at once")
    begin, end = scenario.settling_seconds, scenario.seconds
    changes: list[tuple[float, int, int]] = [(begin, 0, 0), (end, 0, 0)]
    for call in calls:
        waits_until = call.ended_at if call.accepted_at is None else call.accepted_at
        changes.append((call.ready_at, 0, 1))
        if waits_until is not None:
            changes.append((waits_until, 0, -1))
        if call.accepted_at is not None:
            changes.append((call.accepted_at, 1, 0))
            if call.ended_at is not None:
                changes.append((call.ended_at, -1, 0))
    held = waiting = 0
    used = lost = before = 0.0
    for at, held_more, waiting_more in sorted(changes):
        seconds = max(0.0, min(at, end) - max(before, begin))
        used += held * seconds
        if waiting:
            lost += max(0, slots - held) * seconds
        held += held_more
        waiting += waiting_more
        before = at
    whole = slots * (end - begin)
    return used / whole, lost / whole
