"""A tenant's own limits: they hold, they are settled, and they are nobody else's business."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.limits.pool import LimitsPlan
from penstock.scheduler.events import (
    Cancelled,
    Failed,
    RefusalReason,
    Replanned,
    Settled,
    TenantsReplanned,
)
from penstock.scheduler.plan import ClassPlan, Plan
from penstock.units import LimitName, Usage


def own(rpm: float | None = None, tpm: float | None = None, slots: int | None = None) -> LimitsPlan:
    rates = {LimitName.RPM: rpm, LimitName.TPM: tpm}
    return LimitsPlan({name: rate for name, rate in rates.items() if rate}, slots)


def with_limits(plan: Plan, **limits: LimitsPlan) -> Plan:
    return msgspec.structs.replace(plan, tenant_limits=limits)


def test_a_tenant_over_its_own_limit_waits_and_nobody_else_does(world_type):
    world = world_type(with_limits(world_type.plan(rpm=6_000, burst_seconds=60), a=own(rpm=60)))
    mine = [world.unit(tenant="a", class_name="interactive") for _ in range(90)]
    others = [world.unit(tenant="b", class_name="interactive") for _ in range(90)]
    world.submit(*mine, *others)
    assert all(world.wait_seconds(unit) == 0.0 for unit in others)
    assert 60 == sum(world.wait_seconds(unit) == 0.0 for unit in mine), "a minute's worth at once"
    world.run(until=15.15)
    assert 75 == sum(world.wait_seconds(unit) < 16 for unit in mine), "then one a second"


def test_less_urgent_work_of_others_does_not_wait_for_it_either(world_type):
    world = world_type(with_limits(world_type.plan(rpm=6_000, burst_seconds=10), a=own(rpm=1)))
    world.submit(*[world.unit(tenant="a", class_name="interactive") for _ in range(5)])
    batch = [world.unit(tenant="b", class_name="batch") for _ in range(500)]
    world.submit(*batch)
    world.run(until=12.0)
    assert all(unit.unit_id in world.granted_at for unit in batch)


def of_all(plan: Plan) -> Replanned:
    return Replanned(plan)


def of_tenants(plan: Plan) -> TenantsReplanned:
    return TenantsReplanned(plan.tenant_weights, plan.tenant_limits)


@pytest.mark.parametrize("event", [of_all, of_tenants])
def test_a_limit_that_is_raised_gives_all_that_it_gained_at_once(world_type, event):
    plan = world_type.plan(rpm=60_000, burst_seconds=60)
    world = world_type(with_limits(plan, a=own(rpm=10, tpm=60_000)))
    units = [world.unit("interactive", "a") for _ in range(30)]
    world.submit(*units)
    assert 10 == len(world.grants)
    world.tick(event(with_limits(plan, a=own(rpm=25, tpm=60_000))))
    assert 25 == len(world.grants)
    world.tick(event(with_limits(plan, a=own(rpm=1, tpm=60_000))))
    assert 25 == len(world.grants)
    world.tick(event(plan))
    assert 30 == len(world.grants)


@pytest.mark.parametrize("event", [of_all, of_tenants])
def test_a_limit_that_a_tenant_gets_while_it_waits_is_felt_by_it_alone(world_type, event):
    plan = world_type.plan(rpm=60, burst_seconds=1)
    world, free = world_type(plan), world_type(plan)
    for each in (world, free):
        each.submit(*[each.unit("interactive", tenant) for _ in range(30) for tenant in "ab"])
    world.tick(event(with_limits(plan, a=own(rpm=4))))
    for each in (world, free):
        each.run(until=24.5)
    tenants = [world.units[grant.unit_id].tenant for grant in world.grants]
    assert len(free.grants) == len(tenants), "nothing of the deployment's limit is lost"
    assert 4 <= tenants.count("a") <= 6


def test_other_weights_count_from_now_on_and_what_was_given_before_is_remembered(world_type):
    plan = world_type.plan(rpm=60, burst_seconds=1)
    world = world_type(plan)
    world.submit(*[world.unit("batch", tenant) for _ in range(200) for tenant in "ab"])
    world.run(until=30.5)
    world.tick(TenantsReplanned({"a": 3.0}, {}))
    before = len(world.grants)
    world.run(until=110.5)
    tenants = [world.units[grant.unit_id].tenant for grant in world.grants]
    assert abs(tenants[:before].count("a") - tenants[:before].count("b")) <= 1
    assert 3.0 == pytest.approx(tenants[before:].count("a") / tenants[before:].count("b"), rel=0.1)


def test_its_wait_has_its_own_cause_and_causes_add_up(world_type):
    world = world_type(with_limits(world_type.plan(rpm=600, burst_seconds=5), a=own(rpm=30)))
    for number in range(60):
        for tenant in "ab":
            world.submit(world.unit(tenant=tenant, class_name=("interactive", "batch")[number % 2]))
        world.run(until=world.now + 0.2)
    world.run(until=400.0)
    assert 120 == len(world.grants)
    for grant in world.grants:
        assert sum(grant.causes.values()) == pytest.approx(grant.wait_seconds, abs=1e-6)
        assert all(seconds >= 0 for seconds in grant.causes.values())
    by_tenant = {"a": 0.0, "b": 0.0}
    for grant in world.grants:
        by_tenant[world.units[grant.unit_id].tenant] += grant.causes.get("tenant_limit", 0.0)
    assert by_tenant["a"] > 100
    assert 0 == by_tenant["b"]


def test_a_tenant_s_batch_leaves_its_own_burst_to_its_urgent_calls(world_type):
    world = world_type(with_limits(world_type.plan(rpm=6_000, burst_seconds=60), a=own(rpm=60)))
    world.submit(*[world.unit(tenant="a") for _ in range(500)])
    world.run(until=100.0)
    assert 95 <= len(world.grants) <= 105, "all of the refill is used"
    urgent = [world.unit("interactive", "a") for _ in range(50)]
    world.submit(*urgent)
    assert all(world.wait_seconds(unit) == 0.0 for unit in urgent)


def test_slots_of_a_tenant_are_shared_by_its_classes_and_freed_by_endings(world_type):
    plan = with_limits(world_type.plan(rpm=6_000, burst_seconds=60), a=own(slots=2))
    world = world_type(plan, service_seconds=1.0)
    world.submit(*[world.unit(tenant="a", class_name="batch") for _ in range(3)])
    world.submit(*[world.unit(tenant="a", class_name="interactive") for _ in range(3)])
    world.run(until=10.0)
    kinds = [world.units[grant.unit_id].class_name for grant in world.grants]
    assert ["batch", "batch", "interactive", "interactive", "interactive", "batch"] == kinds
    assert [0.0, 0.0, 1.0, 1.0, 2.0, 2.0] == [grant.granted_at for grant in world.grants]


def test_a_large_urgent_unit_is_not_starved_by_small_ones_of_its_own_tenant(world_type):
    plan = with_limits(
        world_type.plan(rpm=6_000, tpm=6_000_000, burst_seconds=60), a=own(tpm=6_000)
    )
    world = world_type(plan)
    world.submit(*[world.unit(tenant="a", tokens=100) for _ in range(200)])
    world.run(until=1.0)
    large = world.unit(tenant="a", class_name="interactive", tokens=5_000)
    world.submit(large)
    world.run(until=200.0)
    assert world.wait_seconds(large) < 50, "what it lacks of 5,000 at 100 a second"


def test_a_tenant_pays_for_what_it_used_and_not_for_what_the_provider_did_not_answer(world_type):
    plan = with_limits(world_type.plan(rpm=6_000, tpm=6_000_000), a=own(tpm=1_000))
    world = world_type(plan, service_seconds=1e9)
    world.submit(first := world.unit("interactive", "a", tokens=900))
    world.submit(second := world.unit("interactive", "a", tokens=900))
    assert 0.0 == world.granted_at[first.unit_id]
    assert second.unit_id not in world.granted_at
    world.tick(Failed(first.unit_id, requeue=False))
    assert 0.0 == world.granted_at[second.unit_id], "nothing was used"
    world.tick(Settled(second.unit_id, Usage(100, 50)))
    world.submit(third := world.unit("interactive", "a", tokens=850))
    assert 0.0 == world.granted_at[third.unit_id], "150 were used"
    world.tick(Cancelled(third.unit_id, was_sent=True))
    world.submit(fourth := world.unit("interactive", "a", tokens=100))
    assert fourth.unit_id not in world.granted_at, "what nobody counted stands as estimated"


def test_what_can_never_fit_is_refused_as_the_tenants_own(world_type):
    world = world_type(with_limits(world_type.plan(rpm=60, tpm=1_000_000), a=own(tpm=1_000)))
    decisions = world.submit(world.unit(tenant="a", tokens=1_001))
    (refusal,) = decisions.refusals
    assert (RefusalReason.TOO_LARGE_FOR_TENANT, LimitName.TPM) == (refusal.reason, refusal.limit)


def test_one_tenant_cannot_fill_a_class_s_queue(world_type):
    classes = (ClassPlan("batch", 0, queue_max=10, queue_tenant_share=0.5),)
    world = world_type(world_type.plan(rpm=60, burst_seconds=1, classes=classes))
    decisions = world.submit(*[world.unit(tenant="a") for _ in range(20)])
    assert 15 == len(decisions.refusals)
    assert {RefusalReason.QUEUE_FULL_FOR_TENANT} == {each.reason for each in decisions.refusals}
    assert [] == world.submit(*[world.unit(tenant="b") for _ in range(4)]).refusals


def test_a_cancelled_head_frees_its_tenant_for_what_fits(world_type):
    world = world_type(with_limits(world_type.plan(rpm=6_000, tpm=6_000_000), a=own(tpm=1_000)))
    world.submit(world.unit("interactive", "a", tokens=500))
    world.submit(large := world.unit("interactive", "a", tokens=900))
    world.submit(small := world.unit("interactive", "a", tokens=100))
    assert small.unit_id not in world.granted_at, "order within the tenant"
    world.tick(Cancelled(large.unit_id))
    assert 0.0 == world.granted_at[small.unit_id]


def test_limits_that_a_reload_sets_lifts_or_changes_hold_at_once(world_type):
    plan = world_type.plan(rpm=6_000, burst_seconds=60)
    world = world_type(with_limits(plan, a=own(rpm=1)))
    world.submit(*[world.unit("interactive", "a") for _ in range(5)])
    assert 1 == len(world.grants)
    world.tick(Replanned(with_limits(plan, a=own(rpm=3))))
    world.run(until=0.6)
    assert 3 == len(world.grants), "what was used stays used: two more have room"
    world.tick(Replanned(plan))
    assert 5 == len(world.grants)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["interactive", "standard", "batch"]),
            st.sampled_from(["a", "a", "b"]),
            st.integers(1, 2_000),
            st.floats(0.0, 3.0),
            st.sampled_from(["", "cancel"]),
        ),
        max_size=80,
    )
)
def test_no_order_of_events_takes_a_tenant_beyond_its_limits(world_type, steps):
    """In any span it is granted at most a minute's amount and the refill; its slots hold."""
    limits = own(rpm=30, tpm=20_000, slots=3)
    world = world_type(
        with_limits(world_type.plan(rpm=6_000, tpm=600_000), a=limits), service_seconds=2.0
    )
    waiting = []
    for class_name, tenant, tokens, seconds, kind in steps:
        world.submit(unit := world.unit(class_name, tenant, tokens=tokens))
        waiting.append(unit.unit_id)
        if kind == "cancel":
            name = waiting[tokens % len(waiting)]
            if name in world.scheduler._waiting:
                world.tick(Cancelled(name))
        world.run(until=world.now + seconds)
    world.run(until=world.now + 1_000)
    assert 0 == world.scheduler.waiting_count == world.scheduler.in_flight_count
    mine = [grant for grant in world.grants if world.units[grant.unit_id].tenant == "a"]
    for number, first in enumerate(mine):
        tokens = 0
        for count, grant in enumerate(mine[number:], 1):
            seconds = grant.granted_at - first.granted_at
            tokens += world.units[grant.unit_id].estimate.tokens_input
            assert count <= 30 + 0.5 * seconds + 1e-6
            assert tokens <= 20_000 * (1 + seconds / 60) + 1e-6
            assert seconds >= 2.0 - 1e-9 or count <= 3


def test_what_can_be_told_of_a_call_s_limits_before_it_is_granted(world_type):
    plan = with_limits(world_type.plan(rpm=600), a=own(rpm=60), b=own(slots=2))
    (one,) = plan.deployments
    two = msgspec.structs.replace(one, name="two", models=("m", "n"))
    shared = [msgspec.structs.replace(one, pool="p"), msgspec.structs.replace(two, pool="p")]

    def rate(plan: Plan, tenant: str, model: str) -> float | None:
        pool = world_type(plan).scheduler.limits_before(tenant, model)
        return None if pool is None else pool.buckets[LimitName.RPM].rate * 60

    apart = msgspec.structs.replace(plan, deployments=(one, two))
    together = msgspec.structs.replace(plan, deployments=tuple(shared))
    assert 60 == rate(apart, "a", "m"), "its own, wherever it goes"
    assert 600 == rate(apart, "b", "n"), "slots are no rate, and n is served by one alone"
    assert rate(apart, "b", "m") is None, "m is served under two sets of limits"
    assert 600 == rate(together, "b", "m")
    assert rate(together, "b", "unknown") is None
