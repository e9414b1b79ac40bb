"""A unit that comes while nobody waits need not stand in line; in line it would fare the same."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.limits.pool import LimitsPlan
from penstock.scheduler.domain import Domain
from penstock.scheduler.events import Cancelled, Failed, Limited, Settled, Submitted
from penstock.scheduler.plan import ClassPlan, DeploymentPlan
from penstock.units import LimitName, Usage

CLASSES = (
    ClassPlan("interactive", 0, order="remaining", quantum_seconds=2.0),
    ClassPlan("standard", 1, reserve=1.0, min_share=0.8, order="deadline"),
    ClassPlan("batch", 2, reserve=1.0, min_share=0.8, queue_max=5),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["interactive", "standard", "batch"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 5_000),
        st.sampled_from([0.0, 0.01, 0.3, 2.0, 10.0]),
        st.sampled_from([None, None, -1.0, 0.0, 0.5, 20.0]),
        st.sampled_from(["", "", "", "two", "cancel", "fail", "limited"]),
    ),
    max_size=50,
)


def _plan(world_type):
    plan = world_type.plan(
        rpm=120,
        tpm=60_000,
        burst_seconds=5,
        concurrency=6,
        classes=CLASSES,
        weights={"a": 3.0},
    )
    rates = {LimitName.RPM: 60.0, LimitName.OTPM: 30_000.0}
    other = DeploymentPlan("two", ("m", "n"), LimitsPlan(rates, None, 10))
    return msgspec.structs.replace(
        plan,
        deployments=(*plan.deployments, other),
        tenant_limits={"c": LimitsPlan({LimitName.RPM: 3.0}, 1)},
    )


def _played(world_type, steps):
    """Everything that was decided, and what the classes had been given in the end."""
    world = world_type(_plan(world_type))
    decided = []

    class Noting(world_type):
        def tick(self, *events):
            decisions = super().tick(*events)
            decided.append((self.now, decisions))
            return decisions

    world.__class__ = Noting
    for class_name, tenant, tokens, seconds, deadline, kind in steps:
        due = None if deadline is None else world.now + deadline
        unit = world.unit(class_name, tenant, tokens=tokens, deadline=due)
        if kind == "two":
            world.submit(unit, world.unit("interactive", "b", model="n"))
        else:
            world.submit(unit)
        if kind == "cancel":
            world.tick(Cancelled(unit.unit_id))
        elif kind == "fail":
            world.tick(Failed(unit.unit_id, requeue=True))
        elif kind == "limited":
            world.tick(Limited("one", 1.0, LimitName.TPM))
        world.run(until=world.now + seconds)
    world.run(until=world.now + 300.0)
    given = [
        (queue.queue.virtual_time, queue.credit, queue.in_flight)
        for domain in world.scheduler.domains
        for queue in domain.classes
    ]
    return [
        (now, decisions.grants, decisions.refusals, decisions.evictions)
        for now, decisions in decided
        if decisions.grants or decisions.refusals or decisions.evictions
    ], given


@given(STEPS)
def test_what_goes_at_once_goes_as_it_would_from_the_line(world_type, steps):
    at_once, given_at_once = _played(world_type, steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Domain, "grant_at_once", lambda *_: None)
        in_line, given_in_line = _played(world_type, steps)

    assert in_line == at_once
    assert given_in_line == [pytest.approx(one) for one in given_at_once]


def test_it_does_not_pass_what_comes_in_the_same_moment(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=60, concurrency=1))
    batch, urgent = world.unit("batch"), world.unit("interactive")

    decisions = world.submit(batch, urgent)

    assert [urgent.unit_id] == [grant.unit_id for grant in decisions.grants]


def _go_without(world, *deployments):
    """Batch waits in vain for as long as it takes to push, and urgent calls leave little room."""
    for name in deployments:
        world.tick(Limited(name, 10.0, LimitName.RPM))
    waited = world.unit("batch")
    world.submit(waited)
    world.run(until=9.0)
    world.tick(Cancelled(waited.unit_id))
    world.run(until=20.0)
    for _ in range(4):
        world.submit(world.unit("interactive"))


@pytest.mark.parametrize("in_line", [False, True])
def test_a_class_that_went_without_for_long_leaves_no_reserve(world_type, monkeypatch, in_line):
    if in_line:
        monkeypatch.setattr(Domain, "grant_at_once", lambda *_: None)
    world = world_type(world_type.plan(rpm=60, burst_seconds=10, classes=CLASSES))
    _go_without(world, "one")

    decisions = world.submit(world.unit("batch"))

    assert 1 == len(decisions.grants)


@pytest.mark.parametrize("in_line", [False, True])
def test_it_does_not_pass_its_own_tenants_that_wait_for_another_model(
    world_type, monkeypatch, in_line
):
    if in_line:
        monkeypatch.setattr(Domain, "grant_at_once", lambda *_: None)
    plan = world_type.plan(rpm=600)
    elsewhere = DeploymentPlan("elsewhere", ("z",), LimitsPlan({LimitName.RPM: 600.0}, None, 10))
    world = world_type(
        msgspec.structs.replace(
            plan,
            deployments=(*plan.deployments, elsewhere),
            tenant_limits={"t": LimitsPlan({}, 1)},
        )
    )
    running, first, later = world.unit(), world.unit(), world.unit(model="z")
    world.submit(running)
    world.submit(first)

    decisions = world.tick(Settled(running.unit_id, Usage(1, 0)), Submitted(later))

    assert [first.unit_id] == [grant.unit_id for grant in decisions.grants]


@pytest.mark.parametrize("in_line", [False, True])
def test_a_class_that_may_push_leaves_no_reserve_where_it_is_cheaper(
    world_type, monkeypatch, in_line
):
    if in_line:
        monkeypatch.setattr(Domain, "grant_at_once", lambda *_: None)
    plan = world_type.plan(rpm=60, burst_seconds=10, classes=CLASSES)
    dear = DeploymentPlan("dear", ("m",), LimitsPlan({LimitName.RPM: 60.0}, None, 10), cost=9.0)
    world = world_type(msgspec.structs.replace(plan, deployments=(*plan.deployments, dear)))
    _go_without(world, "one", "dear")

    decisions = world.submit(world.unit("batch"))

    assert ["one"] == [grant.deployment for grant in decisions.grants]
