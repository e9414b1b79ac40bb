"""Who is due first in a class, and that nothing piles up."""

from __future__ import annotations

import pytest

from penstock.scheduler.due import SWEEP_MIN, Due
from penstock.scheduler.plan import ClassPlan
from penstock.scheduler.waiting import Waiting


@pytest.fixture
def make_waiting(world_type):
    """Units that wait in a class ordered by deadline."""
    plan = ClassPlan("standard", 1, order="deadline")
    world = world_type(world_type.plan())
    numbers = iter(range(1_000_000))

    def make(deadline: float | None) -> Waiting:
        return Waiting(world.unit("standard", deadline=deadline), plan, next(numbers), 0.0)

    return make


def test_the_earliest_deadline_is_first_and_what_has_ended_is_passed_over(make_waiting):
    due, units = Due(), [make_waiting(deadline) for deadline in (30.0, 10.0, None, 20.0)]
    for unit in units:
        due.push(unit)
    assert due.first() is units[1]
    units[1].is_waiting = False
    assert due.first() is units[3]
    units[0].is_waiting = units[3].is_waiting = False
    assert due.first() is None, "who has no deadline is never due"


def test_ended_units_with_far_deadlines_do_not_pile_up(make_waiting):
    due = Due()
    due.push(make_waiting(1.0))
    for number in range(20 * SWEEP_MIN):
        ended = make_waiting(1e6 + number)
        due.push(ended)
        ended.is_waiting = False
    assert len(due._heap) <= 2 * SWEEP_MIN
