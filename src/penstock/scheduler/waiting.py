"""One unit in the queue, and its place in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from penstock.scheduler.explain import Mark
from penstock.scheduler.plan import ClassPlan
from penstock.scheduler.steps import later_seconds
from penstock.units import Unit

if TYPE_CHECKING:
    from penstock.scheduler.deployment import Deployment


Place: TypeAlias = "tuple[float, float, int, Waiting]"
"""Where a unit stands within its tenant (urgency, arrival, number), and the unit."""


class Waiting:
    """A unit that waits, was granted, or has ended. Ordered by its place within its tenant.

    The place is the run's arrival, so that a run already begun goes before one that has not;
    where a class bounds the seniority, a later step counts as so much earlier than it came at
    most, because single calls would else wait for all of other runs. In a class ordered by
    deadline the deadline comes first, in one ordered by what remains (``steps``) each step left
    counts as a later arrival. The place is fixed on submission: a unit that comes back
    after a 429 has the same. ``sequence`` breaks ties, not a clock. ``options`` are the
    deployments that it may go to.
    """

    __slots__ = (
        "arrival",
        "attempt",
        "causes",
        "cost_seconds",
        "is_waiting",
        "mark",
        "number",
        "options",
        "submitted_at",
        "unit",
        "urgency",
    )

    def __init__(
        self, unit: Unit, plan: ClassPlan, sequence: int, now: float, steps_left: float = 1.0
    ) -> None:
        urgency = 0.0
        if plan.order == "deadline":
            urgency = unit.deadline if unit.deadline is not None else float("inf")
        arrival, earliest = unit.place.arrival, now - plan.seniority_seconds
        if arrival < earliest:
            arrival = earliest
        if plan.order == "remaining":
            arrival += later_seconds(steps_left)
        self.urgency = urgency
        self.arrival = arrival
        self.number = sequence
        self.unit = unit
        self.submitted_at = now
        self.options: Sequence[Deployment] = ()
        self.cost_seconds = 0.0
        self.mark: Mark | None = None
        self.causes: dict[str, float] | None = None
        self.attempt = 0
        self.is_waiting = True

    @property
    def place(self) -> Place:
        """What a heap compares: numbers alone, as long as no unit is in it twice."""
        return self.urgency, self.arrival, self.number, self

    def waited_for(self, causes: dict[str, float]) -> None:
        """Add to its account of what it waited for."""
        if self.causes is None:
            self.causes = causes
            return
        for cause, seconds in causes.items():
            self.causes[cause] = self.causes.get(cause, 0.0) + seconds

    def __lt__(self, other: Waiting) -> bool:
        return self.place[:3] < other.place[:3]

    def again(self) -> Waiting:
        """The same place, for a unit that comes back: an ended entry is never revived."""
        other = Waiting.__new__(Waiting)
        other.urgency, other.arrival, other.number = self.urgency, self.arrival, self.number
        other.unit, other.submitted_at = self.unit, self.submitted_at
        other.options, other.cost_seconds = self.options, self.cost_seconds
        other.attempt, other.is_waiting = self.attempt, True
        other.mark, other.causes = None, self.causes
        return other
