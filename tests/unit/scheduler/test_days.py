"""A day's limit in the scheduler: what is kept of it, and what those who wait are told."""

from __future__ import annotations

import pytest

from penstock.limits.days import LEARNING_SECONDS, LEARNING_SHARE
from penstock.limits.pool import LimitsPlan
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
