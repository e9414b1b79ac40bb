"""One unit in the queue, and its place in it."""

from __future__ import annotations

from penstock.scheduler.plan import ClassPlan
from penstock.units import Unit


class Waiting:
    """A unit that waits, was granted, or has ended. Ordered by its place within its tenant.

    The place is the run's arrival, so that a run already begun goes before one that has not;
    in a class ordered by deadline the deadline comes first. It is fixed on submission: a unit
    that comes back after a 429 has the same place. ``sequence`` breaks ties, not a clock.
    """

    __slots__ = ("attempt", "cost_seconds", "is_waiting", "key", "submitted_at", "unit")

    def __init__(self, unit: Unit, plan: ClassPlan, sequence: int, now: float) -> None:
        urgency = 0.0
        if plan.order == "deadline":
            urgency = unit.deadline if unit.deadline is not None else float("inf")
        self.key = (urgency, unit.place.arrival, sequence)
        self.unit = unit
        self.submitted_at = now
        self.cost_seconds = 0.0
        self.attempt = 0
        self.is_waiting = True

    def __lt__(self, other: Waiting) -> bool:
        return self.key < other.key

    def again(self) -> Waiting:
        """The same place, for a unit that comes back: an ended entry is never revived."""
        other = Waiting.__new__(Waiting)
        other.key, other.unit, other.submitted_at = self.key, self.unit, self.submitted_at
        other.cost_seconds, other.attempt, other.is_waiting = self.cost_seconds, self.attempt, True
        return other
