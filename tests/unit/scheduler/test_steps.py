"""Shortest remaining steps first, so far as nobody starves by it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.scheduler.plan import ClassPlan
from penstock.scheduler.steps import CHAINS_MAX, MORE_SECONDS, STEPS_MAX, ChainSteps, later_seconds
from penstock.units import LimitName, RunPlace, Unit

CLASSES = (ClassPlan("interactive", 0, order="remaining"),)


def of_run(unit: Unit, run: str, step: int, total: int | None, chain: str = "") -> Unit:
    place = RunPlace(run, unit.place.arrival, step, chain, total)
    return msgspec.structs.replace(unit, place=place)


def test_the_run_with_the_least_left_goes_first(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=1, classes=CLASSES))
    world.submit(world.unit("interactive"))
    long, short = world.unit("interactive"), world.unit("interactive")
    world.submit(of_run(long, "long", 0, 5), of_run(short, "short", 3, 5))
    world.run(until=10.0)
    assert world.granted_at[short.unit_id] < world.granted_at[long.unit_id]


def test_a_single_call_passes_the_runs_that_came_shortly_before_it_and_no_others(world_type):
    world = world_type(world_type.plan(rpm=6, burst_seconds=10, classes=CLASSES))
    world.submit(world.unit("interactive"))
    early = of_run(world.unit("interactive"), "early", 0, 5)
    world.submit(early)
    world.now = MORE_SECONDS - 20.0
    late = of_run(world.unit("interactive"), "late", 0, 3)
    world.submit(late)
    world.now = MORE_SECONDS + 20.0
    single = world.unit("interactive")
    world.scheduler.deployment("one").pool.buckets[LimitName.RPM].take(3, world.now)
    world.submit(single)
    world.run()
    order = [grant.unit_id for grant in world.grants[1:]]
    assert order == [early.unit_id, single.unit_id, late.unit_id]


def test_how_long_runs_are_sets_apart_only_those_that_came_together(world_type):
    """A chain of five that came four seconds before one of three is not made to wait for it."""
    world = world_type(world_type.plan(rpm=6, burst_seconds=10, classes=CLASSES))
    world.submit(world.unit("interactive"))
    long = of_run(world.unit("interactive"), "long", 0, 5)
    world.submit(long)
    world.now = 4.5
    short = of_run(world.unit("interactive"), "short", 0, 3)
    world.submit(short)
    world.run()
    assert world.granted_at[long.unit_id] < world.granted_at[short.unit_id]


def test_how_many_are_left_is_learnt_by_chain_from_the_calls_seen():
    steps = ChainSteps()
    for run in range(100):
        for step in range(4 if run % 2 else 2):
            steps.remaining(RunPlace(str(run), 0.0, step, "chain"))
    assert 3.0 == pytest.approx(steps.remaining(RunPlace("next", 0.0, 0, "chain")), rel=0.05)
    assert 2.0 == pytest.approx(steps.remaining(RunPlace("next", 0.0, 2, "chain")), rel=0.05)
    assert 1.0 == steps.remaining(RunPlace("next", 0.0, 3, "chain"))
    assert 1.0 == steps.remaining(RunPlace("alone", 0.0, 0)), "a call of no chain is all there is"


def test_what_is_remembered_of_chains_is_bounded():
    steps = ChainSteps()
    for number in range(3 * CHAINS_MAX):
        steps.remaining(RunPlace("run", 0.0, 10**9, f"chain {number}"))
    assert CHAINS_MAX == len(steps._calls)
    assert STEPS_MAX == max(len(calls) for calls in steps._calls.values())
    assert STEPS_MAX == steps.remaining(RunPlace("run", 0.0, 0, steps_total=10**9))


@given(
    st.lists(
        st.tuples(st.floats(0.0, 20.0), st.integers(1, 6), st.integers(0, 5)),
        min_size=2,
        max_size=40,
    )
)
def test_nobody_is_passed_by_those_who_came_too_much_later(world_type, arrivals):
    """A run is passed only by those that come so much later as it has more left than they."""
    world = world_type(world_type.plan(rpm=6, burst_seconds=10, classes=CLASSES))
    world.submit(world.unit("interactive"))
    left = {}
    for seconds, total, step in arrivals:
        world.run(until=world.now + seconds)
        unit = of_run(world.unit("interactive"), "run", min(step, total - 1), total)
        left[unit.unit_id] = (unit.place.arrival, total - unit.place.step)
        world.submit(unit)
    world.run(until=world.now + 1_000)
    order = [grant.unit_id for grant in world.grants if grant.unit_id in left]
    assert len(left) == len(order)
    for number, first in enumerate(order):
        for second in order[number + 1 :]:
            (came, steps), (came_before, steps_before) = left[first], left[second]
            if came > came_before:
                passable = later_seconds(steps_before) - later_seconds(steps)
                assert came - came_before <= passable + 1e-6
