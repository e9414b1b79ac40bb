"""A day's limit in the scheduler: what is kept of it, and what those who wait are told."""

from __future__ import annotations

import pytest

from penstock.limits.days import LEARNING_SECONDS, LEARNING_SHARE
from penstock.limits.pool import Held, LimitsPlan, Pool
from penstock.scheduler.events import Limited
from penstock.scheduler.plan import DeploymentPlan, Plan
from penstock.units import LimitName


@pytest.fixture
def world(world_type):
    """One deployment of 1,000 requests a day."""
    limits = LimitsPlan({LimitName.RPD: 1_000.0})
    plan = Plan(world_type.CLASSES, (DeploymentPlan("one", ("m",), limits),))
    return world_type(plan)


def test_batch_waits_for_what_is_kept_and_is_told_so(world):
    units = [world.unit("batch") for _ in range(300)]
    world.submit(*units)
    free = len(world.grants)
    world.run(LEARNING_SECONDS + 60.0)

    assert free == pytest.approx((1 - LEARNING_SHARE) * 1_000, abs=2)
    assert len(world.grants) == 300, "after that nobody urgent has come: nothing is kept"
    for grant in world.grants:
        assert sum(grant.causes.values()) == pytest.approx(grant.wait_seconds, abs=1e-6)
    assert world.grants[-1].causes["day_kept"] > LEARNING_SECONDS / 2


def test_urgent_calls_pass_batch_that_waits_for_the_day(world_type):
    """Also where there is one slot: what waits for hours keeps none for itself."""
    limits = LimitsPlan({LimitName.RPD: 1_000.0}, concurrency=1)
    world = world_type(Plan(world_type.CLASSES, (DeploymentPlan("one", ("m",), limits),)))
    world.submit(*[world.unit("batch") for _ in range(900)])
    world.run(300.0)
    urgent = world.unit("interactive")
    world.submit(urgent)
    world.run(302.0)

    assert world.wait_seconds(urgent) <= world.service_seconds


def test_a_refusal_for_the_day_is_a_pause_of_that_limit(world):
    world.tick(Limited("one", 600.0, LimitName.RPD))
    unit = world.unit("interactive")
    world.submit(unit)
    world.run(700.0)

    assert world.wait_seconds(unit) == pytest.approx(600.0)
    assert world.grants[0].causes == {"pause": pytest.approx(600.0)}


def test_a_burst_within_its_deadline_is_not_refused_for_a_day_that_lasts(world_type):
    """3,500 a day is one in 25 s; but while the day has room nothing goes at that pace."""
    limits = LimitsPlan({LimitName.RPM: 600.0, LimitName.RPD: 3_500.0}, burst_seconds=60.0)
    world = world_type(Plan(world_type.CLASSES, (DeploymentPlan("one", ("m",), limits),)))
    decisions = world.submit(*[world.unit("interactive", deadline=30.0) for _ in range(40)])

    assert not decisions.refusals
    assert len(decisions.grants) == 40


def test_what_is_held_of_the_day_holds_back_no_other_limit():
    """Even where output that is under way drains its bucket faster than it refills."""
    rates = {LimitName.OTPM: 60.0, LimitName.RPD: 1_000.0}
    pool = Pool(LimitsPlan(rates), 0.0, output_is_charged_as_produced=True)
    amounts = {LimitName.OTPM: 50.0, LimitName.RPD: 1.0, LimitName.CONCURRENCY: 1.0}
    pool.reserve(amounts, 0.0)
    until = 3_600.0

    assert pool.leaves_room_for(Held({LimitName.RPD: 1.0}, until), amounts, 1.0)
    assert not pool.leaves_room_for(Held(amounts, until), amounts, 1.0)
