"""The place of a waiting unit, cheap enough to be asked all the time."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.scheduler.events import Cancelled
from penstock.scheduler.ranks import TOLERANCE_SHARE, Ranks


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3_000)), max_size=300))
def test_it_counts_exactly_those_that_wait_and_came_before(steps):
    ranks, waiting = Ranks(), set()
    for adds, number in steps:
        if adds and number not in waiting:
            ranks.add(number)
            waiting.add(number)
        elif number in waiting:
            ranks.discard(number)
            waiting.discard(number)
        assert len(waiting) == ranks.count
        assert sum(each < number for each in waiting) == ranks.before(number)


def test_among_very_many_it_is_off_by_a_sixty_fourth_at_most():
    ranks = Ranks()
    for number in range(100_000):
        ranks.add(number)
    for number in range(60_000):
        ranks.discard(number)
        if number % 97 == 0:
            wanted = max(0, 80_000 - number - 1)
            assert abs(wanted - ranks.before(80_000)) <= TOLERANCE_SHARE * ranks.count + 1


def test_position_counts_more_urgent_classes_and_what_fairness_lets_pass(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=1))
    world.submit(world.unit("interactive"))
    heavy = [world.unit("batch", "heavy") for _ in range(50)]
    light = [world.unit("batch", "light") for _ in range(3)]
    urgent = [world.unit("interactive") for _ in range(4)]
    world.submit(*heavy, *light, *urgent)
    position = world.scheduler.position
    assert [1, 2, 3, 4] == [position(unit.unit_id) for unit in urgent]
    assert [5, 7, 9] == [position(unit.unit_id) for unit in light], "in turns with the other tenant"
    assert 4 + 49 + 3 + 1 == position(heavy[-1].unit_id)
    assert position("nobody") is None


def test_who_waits_behind_calls_for_another_model_of_the_same_limits_is_told_of_them(world_type):
    """As a response is behind chat completions: a deployment takes both from the same buckets."""
    plan = world_type.plan(rpm=60, burst_seconds=1)
    both = msgspec.structs.replace(plan.deployments[0], models=("m", "n"))
    world = world_type(msgspec.structs.replace(plan, deployments=(both,)), service_seconds=0.1)
    units = [world.unit("interactive", model="mn"[number % 2]) for number in range(12)]
    world.submit(*units)
    told = [world.scheduler.position(unit.unit_id) for unit in units[1:]]
    late = world.unit("interactive", model="n", deadline=5.0)
    assert world.submit(late).refusals, "eleven go before it, one a second"
    world.run(until=20.0)
    order = [grant.unit_id for grant in world.grants]
    assert told == [order.index(unit.unit_id) for unit in units[1:]] == list(range(1, 12))


def test_position_and_eta_fall_as_the_queue_moves_and_end_near_the_truth(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=10), service_seconds=0.1)
    units = [world.unit("batch") for _ in range(120)]
    world.submit(*units)
    last = units[-1]
    seen = []
    while last.unit_id not in world.granted_at:
        left_seconds = world.scheduler.eta_seconds(last.unit_id, world.now)
        seen.append((world.now, world.scheduler.position(last.unit_id), left_seconds))
        world.run(until=world.now + 5.0)
    granted_at = world.granted_at[last.unit_id]
    positions = [position for _, position, _ in seen]
    assert positions == sorted(positions, reverse=True)
    for at, position, left_seconds in seen:
        assert abs(at + left_seconds - granted_at) <= 3.0
        assert abs(position - (granted_at - at)) <= 4.0


def test_a_cancelled_unit_is_nobody_s_predecessor(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=1))
    units = [world.unit("batch") for _ in range(10)]
    world.submit(*units)
    before = world.scheduler.position(units[9].unit_id)
    world.tick(Cancelled(units[4].unit_id))
    assert before - 1 == world.scheduler.position(units[9].unit_id)
