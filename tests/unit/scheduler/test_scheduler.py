"""The promises of the scheduler, each as a rule over virtual time."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.limits.pool import LimitsPlan
from penstock.scheduler.events import (
    Cancelled,
    EvictionReason,
    Failed,
    Limited,
    Observed,
    Overloaded,
    RefusalReason,
    Replanned,
    Settled,
    Submitted,
)
from penstock.scheduler.plan import ClassPlan, DeploymentPlan, Plan
from penstock.scheduler.scheduler import Scheduler
from penstock.units import ChargeModel, Estimate, LimitName, RunPlace, Unit, Usage


def test_a_unit_that_fits_goes_at_once(world_type):
    world = world_type(world_type.plan())

    decisions = world.submit(world.unit("interactive"))

    assert [grant.unit_id for grant in decisions.grants] == ["u1"]
    assert decisions.wake_at is None


def test_the_binding_limit_is_used_to_the_last_percent_while_work_waits(world_type):
    """Promise 3: what is granted in a long time is the burst plus all of the refill."""
    world = world_type(world_type.plan(rpm=600, burst_seconds=10))
    world.submit(*[world.unit("batch") for _ in range(3_000)])
    world.run(until=240)

    reachable = 10 * 240
    assert 0.99 * reachable <= len(world.grants) <= reachable + 100


def test_interactive_waits_as_if_there_were_no_batch(world_type):
    """Promise 2: the reserve keeps the burst for arrivals that come in a burst."""

    def waits(with_batch: bool) -> list[float]:
        world = world_type(world_type.plan(rpm=600, burst_seconds=10))
        if with_batch:
            world.submit(*[world.unit("batch", tenant="nightly") for _ in range(5_000)])
        units = []
        chance = random.Random(7)
        for burst in range(10):
            world.run(until=20.0 * (burst + 1))
            for _ in range(60):
                unit = world.unit("interactive", tenant=f"t{chance.randrange(3)}")
                units.append(unit)
                world.submit(unit)
        world.run(until=300)
        return sorted(world.wait_seconds(unit) for unit in units)

    assert waits(with_batch=False) == pytest.approx(waits(with_batch=True), abs=0.11)


def test_no_class_starves_under_an_endless_stream_of_urgent_work(world_type):
    """Promise 4: batch has its floor although interactive alone is more than the limit."""
    world = world_type(world_type.plan(rpm=600, burst_seconds=5))
    batch = [world.unit("batch", tenant="nightly") for _ in range(50)]
    world.submit(*batch)
    for second in range(300):
        world.run(until=float(second))
        world.submit(*[world.unit("interactive") for _ in range(12)])
    world.run(until=301)

    waits = [world.wait_seconds(unit) for unit in batch]
    assert max(waits) < 61 + 50 * 0.1 / 0.05, "grace, then the backlog at its share"
    assert sum(wait < 60 for wait in waits) <= 10, "the grace keeps a short burst whole"


def test_tenants_of_one_class_share_by_their_weights(world_type):
    plan = world_type.plan(rpm=600, burst_seconds=5, weights={"heavy": 3.0})
    world = world_type(plan)
    for _ in range(1_000):
        world.submit(world.unit("batch", tenant="heavy"), world.unit("batch", tenant="light"))
    world.run(until=60)

    granted = [world.units[grant.unit_id].tenant for grant in world.grants]
    assert granted.count("heavy") / granted.count("light") == pytest.approx(3.0, rel=0.02)


def test_a_tenant_with_large_units_gets_the_same_tokens_as_one_with_small(world_type):
    world = world_type(world_type.plan(rpm=60_000, tpm=60_000, burst_seconds=20))
    for _ in range(2_000):
        world.submit(world.unit("batch", tenant="small", tokens=100))
    for _ in range(200):
        world.submit(world.unit("batch", tenant="large", tokens=5_000))
    world.run(until=300)

    tokens = {"small": 0, "large": 0}
    for grant in world.grants:
        unit = world.units[grant.unit_id]
        tokens[unit.tenant] += unit.estimate.tokens_input
    assert tokens["large"] == pytest.approx(tokens["small"], abs=5_100 * 2)


def test_an_idle_tenant_saves_up_no_credit(world_type):
    world = world_type(world_type.plan(rpm=600, burst_seconds=5))
    world.submit(*[world.unit("batch", tenant="busy") for _ in range(1_000)])
    world.run(until=30)
    before = len(world.grants)
    world.submit(*[world.unit("batch", tenant="idle") for _ in range(500)])
    world.run(until=40)

    granted = [world.units[grant.unit_id].tenant for grant in world.grants[before:]]
    assert granted.count("idle") == pytest.approx(granted.count("busy"), abs=2)


def test_tenants_who_are_about_even_are_served_first_come_first_served(world_type):
    """Within a quantum; beyond it fairness decides."""
    classes = (ClassPlan("interactive", 0, quantum_seconds=5.0),)
    world = world_type(world_type.plan(rpm=60, burst_seconds=1, classes=classes))
    for number in range(12):
        tenant = "busy" if number < 8 else f"rare-{number}"
        world.submit(world.unit("interactive", tenant))
        world.now += 0.01
    world.run()

    order = [world.units[grant.unit_id].tenant for grant in world.grants]
    assert ["busy"] * 5 == order[:5]
    assert ["rare-8", "rare-9", "rare-10", "rare-11"] == order[5:9]


def test_a_bounded_seniority_lets_later_steps_pass_only_so_much(world_type):
    classes = (ClassPlan("interactive", 0, seniority_seconds=2.0),)
    world = world_type(world_type.plan(rpm=60, burst_seconds=1, classes=classes))
    world.now = 10.0
    world.submit(world.unit("interactive"))
    long_before = world.unit("interactive", arrival=10.0)
    world.submit(long_before)
    world.now = 11.9
    just_before = world.unit("interactive", arrival=11.9)
    world.submit(just_before)
    world.now = 13.0
    later_step = world.unit("interactive", arrival=0.0)
    world.submit(later_step)
    world.run()

    order = [grant.unit_id for grant in world.grants[1:]]
    assert [long_before.unit_id, later_step.unit_id, just_before.unit_id] == order


def test_a_run_already_begun_goes_before_one_that_has_not(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=1))
    world.submit(world.unit("standard", arrival=0.0))
    world.now = 5.0
    world.submit(*[world.unit("standard", arrival=3.0 + index) for index in range(3)])
    later_step = world.unit("standard", arrival=0.0)
    world.submit(later_step)
    world.run()

    order = [grant.unit_id for grant in world.grants]
    assert order.index(later_step.unit_id) == 2, "after the one whose turn it was already"


def test_a_large_head_is_not_starved_by_small_units_behind_it(world_type):
    """Head of line: the blocked head holds its share of the limit."""
    world = world_type(world_type.plan(rpm=6_000, tpm=6_000, burst_seconds=60))
    world.submit(world.unit("interactive", tokens=6_000))
    large = world.unit("interactive", tenant="large", tokens=5_000)
    world.submit(large)
    for second in range(100):
        world.run(until=float(second))
        world.submit(*[world.unit("batch", tenant="small", tokens=50) for _ in range(4)])
    world.run(until=101)

    assert world.wait_seconds(large) == pytest.approx(50.0, abs=0.2)


def test_a_unit_passes_a_blocked_one_where_it_does_not_delay_it():
    """Another model of the same domain, whose limit nobody waits for, is not idle."""
    tight = DeploymentPlan("tight", ("a",), LimitsPlan({LimitName.RPM: 60}, None, 1))
    wide = DeploymentPlan("wide", ("a", "b"), LimitsPlan({LimitName.RPM: 60}, None, 1))
    plan = Plan((ClassPlan("interactive", 0), ClassPlan("batch", 2)), (tight, wide))
    scheduler = Scheduler(plan, 0.0)

    def unit(name: str, model: str, class_name: str) -> Submitted:
        place = RunPlace(name, 0.0)
        return Submitted(Unit(name, model, "t", class_name, Estimate(1, 0), place))

    first = scheduler.tick(0.0, [unit("1", "b", "interactive")])
    second = scheduler.tick(0.1, [unit("2", "b", "interactive"), unit("3", "a", "batch")])

    assert [grant.deployment for grant in first.grants] == ["wide"]
    assert [(grant.unit_id, grant.deployment) for grant in second.grants] == [("3", "tight")]


def _unit(name: str, model: str = "a", class_name: str = "interactive", **fields) -> Submitted:
    return Submitted(
        Unit(name, model, "t", class_name, Estimate(1, 0), RunPlace(name, 0), **fields)
    )


def test_deployments_of_one_pool_share_its_limits():
    limits = LimitsPlan({LimitName.RPM: 60}, None, 2)
    one = DeploymentPlan("one", ("a",), limits, pool="org")
    two = DeploymentPlan("two", ("b",), pool="org")
    scheduler = Scheduler(Plan((ClassPlan("interactive", 0),), (one, two)), 0.0)

    decisions = scheduler.tick(0.0, [_unit("1"), _unit("2", "b"), _unit("3"), _unit("4", "b")])

    assert ["one", "two"] == [grant.deployment for grant in decisions.grants]


def test_among_deployments_the_one_with_most_headroom_takes_the_unit():
    limits = LimitsPlan({LimitName.RPM: 60}, None, 10)
    plans = tuple(DeploymentPlan(name, ("a",), limits) for name in ("one", "two"))
    scheduler = Scheduler(Plan((ClassPlan("interactive", 0),), plans), 0.0)

    granted = [scheduler.tick(0.0, [_unit(str(n))]).grants[0].deployment for n in range(4)]

    assert ["one", "two", "one", "two"] == granted


def test_a_conversation_stays_where_its_prompt_is_cached():
    limits = LimitsPlan({LimitName.RPM: 60}, None, 10)
    plans = tuple(DeploymentPlan(name, ("a",), limits) for name in ("one", "two"))
    scheduler = Scheduler(Plan((ClassPlan("interactive", 0),), plans), 0.0)

    submitted = [_unit(str(n), affinity="talk") for n in range(12)]
    granted = [scheduler.tick(0.0, [each]).grants[0].deployment for each in submitted]

    assert ["one"] * 7 == granted[:7]
    assert "two" in granted[7:], "until there is hardly any room"


def test_a_unit_that_can_never_fit_is_refused_with_the_limit(world_type):
    world = world_type(world_type.plan(rpm=60, tpm=1_000))

    decisions = world.submit(world.unit("interactive", tokens=1_001))

    assert [(refusal.reason, refusal.limit) for refusal in decisions.refusals] == [
        (RefusalReason.TOO_LARGE, LimitName.TPM)
    ]


def test_a_unit_larger_than_the_learnt_burst_goes_when_the_bucket_is_full(world_type):
    world = world_type(world_type.plan(rpm=600, tpm=60_000, burst_seconds=None))
    unit = world.unit("interactive", tokens=30_000)
    world.submit(unit)
    world.run(until=1)

    assert world.wait_seconds(unit) == 0
    assert world.scheduler.deployment("one").pool.buckets[LimitName.TPM].level < 0


def test_a_full_queue_refuses_and_says_when_to_come_back(world_type):
    classes = (ClassPlan("batch", 2, queue_max=5),)
    world = world_type(world_type.plan(rpm=60, burst_seconds=1, classes=classes))
    world.submit(world.unit())
    decisions = world.submit(*[world.unit() for _ in range(6)])

    assert [refusal.reason for refusal in decisions.refusals] == [RefusalReason.QUEUE_FULL]
    assert decisions.refusals[0].eta_seconds == pytest.approx(5.0, abs=1.1)


def test_the_hopeless_is_refused_at_arrival_and_the_late_is_evicted_in_time(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=1))
    world.submit(*[world.unit("interactive") for _ in range(10)])
    hopeless = world.unit("interactive", deadline=2.0)
    decisions = world.submit(hopeless)
    assert [refusal.reason for refusal in decisions.refusals] == [RefusalReason.DEADLINE]

    late = world.unit("interactive", tenant="other", deadline=3.0)
    assert not world.submit(late).refusals
    # The provider says no for a long time: nobody could have known at arrival.
    world.tick(Limited("one", 60.0, LimitName.RPM))
    decisions = world.scheduler.tick(3.0)
    assert [(late.unit_id, EvictionReason.DEADLINE)] == [
        (eviction.unit_id, eviction.reason) for eviction in decisions.evictions
    ]


def test_a_unit_leaves_less_of_the_reserve_as_its_deadline_nears(world_type):
    classes = (ClassPlan("standard", 1, reserve=1.0, order="deadline"),)
    world = world_type(world_type.plan(rpm=60, burst_seconds=60, classes=classes))
    world.submit(*[world.unit("standard") for _ in range(4)])
    soon = world.unit("standard", deadline=20.0)
    late = world.unit("standard", deadline=500.0)
    world.scheduler.deployment("one").pool.buckets[LimitName.RPM].take(36, 0.0)
    world.submit(soon, late)
    world.run(until=60)

    assert world.wait_seconds(soon) < 20
    assert world.wait_seconds(late) > world.wait_seconds(soon)


def test_in_a_fixed_window_what_must_go_before_its_end_goes_while_there_is_room(world_type):
    classes = (ClassPlan("standard", 1, reserve=1.0, min_share=0.05, order="deadline"),)
    limits = LimitsPlan({LimitName.RPM: 60}, algorithm="window")
    world = world_type(Plan(classes, (DeploymentPlan("one", ("m",), limits),)))
    near = world.unit("standard", deadline=55.0)
    later = world.unit("standard", deadline=80.0)
    world.submit(near, later)
    assert 0.0 == world.wait_seconds(near)
    world.run(until=59.9)
    assert 50.0 <= world.wait_seconds(later), "the other one waits for the release"


@pytest.mark.parametrize("algorithm", ["window", "bucket"])
def test_another_tenant_s_head_that_waits_for_the_sake_of_others_holds_up_nobody_who_is_due(
    world_type, algorithm
):
    """The tenant whose turn it is has time; the other one's deadline comes first."""
    classes = (ClassPlan("standard", 1, reserve=1.0, min_share=0.05, order="deadline"),)
    limits = LimitsPlan({LimitName.RPM: 60}, algorithm=algorithm, burst_seconds=60)
    world = world_type(Plan(classes, (DeploymentPlan("one", ("m",), limits),)))
    world.scheduler.deployment("one").pool.buckets[LimitName.RPM].take(40, 0.0)
    patient = world.unit("standard", tenant="a", deadline=300.0)
    due = [world.unit("standard", tenant="b", deadline=28.0 + number) for number in range(3)]
    world.submit(world.unit("standard", tenant="b", deadline=29.5), patient, *due)
    world.run(until=59.0)
    assert all(world.wait_seconds(unit) < 28.0 for unit in due)
    assert world.wait_seconds(patient) > 30.0


def test_who_is_due_is_found_when_nothing_else_happens(world_type):
    """The other tenant's unit waits for the end of the window; this one relaxes before it."""
    classes = (ClassPlan("standard", 1, reserve=1.0, order="deadline"),)
    world = world_type(world_type.plan(rpm=6, burst_seconds=60, classes=classes))
    world.scheduler.deployment("one").pool.buckets[LimitName.RPM].take(4, 0.0)
    patient = world.unit("standard", tenant="a", deadline=900.0)
    due = world.unit("standard", tenant="b", deadline=36.0)
    world.submit(patient, due)
    world.run(until=35.0)
    assert 6.0 < world.wait_seconds(due) < 35.0
    assert world.wait_seconds(patient) > 35.0


def test_a_batch_that_was_estimated_before_anything_was_known_is_corrected_when_it_goes():
    """Output was expected to be 100 tokens a call and is 10: the limit is used for tenfold."""
    limits = LimitsPlan({LimitName.OTPM: 6_000}, None, 10)
    charge = ChargeModel("none", settles_input=True)
    plan = Plan((ClassPlan("batch", 2),), (DeploymentPlan("one", ("a",), limits, charge),))
    scheduler = Scheduler(plan, 0.0)
    unit = Unit("0", "a", "t", "batch", Estimate(1, 100), RunPlace("0", 0.0))
    batch = [msgspec.structs.replace(unit, unit_id=str(number)) for number in range(2_000)]
    decisions = scheduler.tick(0.0, [Submitted(each) for each in batch])
    granted = 0
    for step in range(100):
        events = [Settled(grant.unit_id, Usage(1, 10)) for grant in decisions.grants]
        granted += len(decisions.grants)
        decisions = scheduler.tick(step * 0.3, events)

    assert granted > 0.8 * (6_000 / 60 * 30 / 10), "nearly as many as the tokens allow"


def test_a_429_pauses_the_limit_and_gives_the_unit_its_place_back(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=10), service_seconds=math.inf)
    first, second = world.unit("interactive"), world.unit("interactive")
    world.submit(first)
    world.now = 0.2
    events = [Limited("one", 3.0, LimitName.RPM), Failed(first.unit_id, requeue=True)]
    decisions = world.tick(*events, Submitted(second))
    assert decisions.grants == []
    world.run(until=10)

    assert [first.unit_id, first.unit_id, second.unit_id] == [g.unit_id for g in world.grants]
    assert [grant.attempt for grant in world.grants] == [1, 2, 1]
    assert world.granted_at[first.unit_id] >= 3.2


def test_after_an_outage_one_call_asks_before_all_do(world_type):
    world = world_type(world_type.plan(rpm=6_000, burst_seconds=60), service_seconds=math.inf)
    units = [world.unit("interactive") for _ in range(64)]
    world.submit(*units)
    assert len(world.grants) == 64
    world.tick(Overloaded("one"), *[Failed(unit.unit_id, requeue=True) for unit in units])
    world.run(until=0.49)
    assert len(world.grants) == 64, "nobody while it is left alone"
    world.run(until=0.6)
    assert len(world.grants) == 65, "then one"
    world.tick(Observed("one", 0.55, (), accepted=True))
    assert len(world.grants) == 66, "then one more with the head of each good answer"
    world.tick(Settled(world.grants[64].unit_id), Observed("one", 0.6, (), accepted=True))
    assert len(world.grants) == 68, "so that their number doubles with every round"


def test_cancelling_takes_a_unit_out_wherever_it_is(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=1), service_seconds=math.inf)
    sent, waits = world.unit("interactive"), world.unit("interactive")
    world.submit(sent, waits)
    world.tick(Cancelled(waits.unit_id), Cancelled(sent.unit_id, was_sent=False))

    assert world.scheduler.waiting_count == 0
    assert world.scheduler.in_flight_count == 0
    assert world.scheduler.deployment("one").pool.buckets[LimitName.RPM].level == 1.0


def test_concurrency_is_a_limit_that_only_endings_relieve(world_type):
    plan = world_type.plan(rpm=6_000, burst_seconds=60, concurrency=2)
    world = world_type(plan, service_seconds=1.0)
    world.submit(*[world.unit("interactive") for _ in range(6)])
    assert len(world.grants) == 2
    world.run()

    assert [world.granted_at[grant.unit_id] for grant in world.grants] == [0, 0, 1, 1, 2, 2]


def test_a_reload_keeps_what_waits_and_what_was_used(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=2), service_seconds=math.inf)
    world.submit(*[world.unit("interactive") for _ in range(5)])
    world.tick(Replanned(world_type.plan(rpm=600, burst_seconds=2)))
    assert len(world.grants) == 2, "a higher limit does not fill the bucket at once"
    world.run(until=0.41)
    assert len(world.grants) == 5

    gone = Replanned(Plan(world_type.CLASSES, (DeploymentPlan("two", ("other",)),)))
    world.submit(*[world.unit("interactive") for _ in range(2)])
    decisions = world.tick(gone)
    assert {EvictionReason.NO_DEPLOYMENT} == {each.reason for each in decisions.evictions}


def test_a_reload_that_takes_concurrency_away_and_back_adds_no_slots(world_type):
    plans = [world_type.plan(rpm=6_000, burst_seconds=60, concurrency=n) for n in (2, None)]
    world = world_type(plans[0], service_seconds=math.inf)
    units = [world.unit("interactive") for _ in range(6)]
    world.submit(*units[:2])
    world.tick(Replanned(plans[1]))
    world.submit(*units[2:5])
    assert 5 == len(world.grants)
    world.tick(Replanned(plans[0]))
    world.submit(units[5])
    world.tick(*[Settled(unit.unit_id) for unit in units[:3]])
    assert 5 == len(world.grants), "two of five are still under way"
    world.tick(Settled(units[3].unit_id))
    assert 6 == len(world.grants)


def test_a_provider_s_word_blocks_nobody_for_longer_than_a_minute(world_type):
    """A usage of a thousand million tokens is believed to be all of the limit, not more."""
    plan = world_type.plan(rpm=600, tpm=6_000, burst_seconds=10)
    charge = ChargeModel("none", settles_input=True)
    deployment = msgspec.structs.replace(plan.deployments[0], charge=charge)
    world = world_type(msgspec.structs.replace(plan, deployments=(deployment,)), math.inf)
    hostile, after = world.unit("interactive"), world.unit("interactive")
    world.submit(hostile)
    world.tick(Settled(hostile.unit_id, Usage(10**9, 10**9)))
    world.submit(after)
    world.run(until=70)

    assert world.wait_seconds(after) < 61


def test_an_event_for_a_unit_that_has_ended_changes_nothing(world_type):
    world = world_type(world_type.plan(), service_seconds=math.inf)
    unit = world.unit("interactive")
    world.submit(unit)
    world.tick(Settled(unit.unit_id, Usage(1, 0)))
    level = world.scheduler.deployment("one").pool.buckets[LimitName.RPM].level
    world.tick(Settled(unit.unit_id), Cancelled(unit.unit_id), Failed(unit.unit_id, requeue=True))

    assert level == world.scheduler.deployment("one").pool.buckets[LimitName.RPM].level
    assert 0 == world.scheduler.waiting_count == world.scheduler.in_flight_count


def test_a_wait_is_told_in_causes_that_add_up_to_it(world_type):
    world = world_type(world_type.plan(rpm=60, burst_seconds=1), service_seconds=0.1)
    world.submit(world.unit("interactive"))
    urgent = world.unit("interactive")
    other, own = world.unit("batch", "other"), world.unit("batch", "mine")
    world.submit(other, urgent, own)
    world.run()

    causes = {grant.unit_id: grant.causes for grant in world.grants}
    waits = {grant.unit_id: grant.wait_seconds for grant in world.grants}
    assert {"refill:rpm"} == causes[urgent.unit_id].keys()
    assert {"refill:rpm", "higher_class"} == causes[other.unit_id].keys()
    assert {"refill:rpm", "higher_class", "fair_share"} == causes[own.unit_id].keys()
    for unit_id, wait_seconds in waits.items():
        assert sum(causes[unit_id].values()) == pytest.approx(wait_seconds)


STEP = st.one_of(
    st.tuples(
        st.just("submit"),
        st.sampled_from(["interactive", "standard", "batch"]),
        st.sampled_from("abc"),
        st.integers(1, 400),
        st.one_of(st.none(), st.floats(0, 40)),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 60), st.booleans()),
    st.tuples(st.just("fail"), st.integers(0, 60), st.booleans()),
    st.tuples(st.just("limited"), st.floats(0, 5), st.sampled_from([None, *LimitName])),
    st.tuples(st.just("overloaded"), st.floats(0, 5)),
    st.tuples(st.just("pass"), st.floats(0, 8)),
    st.tuples(st.just("back"), st.floats(0, 8)),
    st.tuples(st.just("reload"), st.integers(30, 600)),
)


def _play(world, steps) -> None:
    for kind, *values in steps:
        if kind == "submit":
            class_name, tenant, tokens, patience = values
            deadline = None if patience is None else world.now + patience
            world.submit(world.unit(class_name, tenant, tokens=tokens, deadline=deadline))
        elif kind == "cancel":
            world.tick(Cancelled(f"u{values[0]}", was_sent=values[1]))
        elif kind == "fail":
            world.tick(Failed(f"u{values[0]}", requeue=values[1]))
        elif kind == "limited":
            world.tick(Limited("one", values[0], values[1]))
        elif kind == "overloaded":
            world.tick(Overloaded("one", values[0]))
        elif kind == "pass":
            world.run(until=world.now + values[0])
        elif kind == "back":
            world.now = max(0.0, world.now - values[0])
            world.tick()
        else:
            world.tick(Replanned(type(world).plan(rpm=values[0], tpm=3_000, concurrency=6)))


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(STEP, max_size=60))
def test_every_unit_ends_once_and_every_reservation_is_returned(steps, world_type):
    """Promise 1, under any interleaving of arrivals, failures, pauses, reloads, clock steps."""
    world = world_type(world_type.plan(rpm=120, tpm=3_000, concurrency=6))
    _play(world, steps)
    world.run(until=world.now + 4_000)

    assert world.scheduler.waiting_count == 0, "nothing waits for ever"
    assert world.scheduler.in_flight_count == 0
    for unit_id, ends in world.ends.items():
        final = [end for end in ends if end != "granted"]
        assert len(final) <= 1, f"{unit_id}: {ends}"
    deployment = world.scheduler.deployment("one")
    assert deployment.health.in_flight == 0
    assert deployment.pool.slots.in_use == 0
    for domain in world.scheduler.domains:
        for queue in domain.classes:
            assert 0 == queue.in_flight == queue.queue.waiting
            assert queue.backlog_seconds == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(STEP.filter(lambda step: step[0] != "reload"), max_size=60))
def test_nothing_is_granted_beyond_a_limit(steps, world_type):
    """In any window what is granted is at most the burst plus the refill of that window."""
    world = world_type(world_type.plan(rpm=120, tpm=3_000, burst_seconds=10, concurrency=6))
    start = [(kind, *values) for kind, *values in steps if kind not in ("back", "cancel", "fail")]
    _play(world, start)
    world.run(until=world.now + 600)

    sent = [(world.granted_at[grant.unit_id], grant.reservation) for grant in world.grants]
    for limit, rate in ((LimitName.RPM, 2.0), (LimitName.TPM, 50.0)):
        level, previous = rate * 10, 0.0
        for at, amounts in sent:
            level = min(rate * 10, level + rate * (at - previous)) - amounts[limit]
            previous = at
            assert level >= -1e-6, f"{limit} at {at}"


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(STEP, max_size=40))
def test_the_same_events_give_the_same_decisions(steps, world_type):
    def play() -> bytes:
        world = world_type(world_type.plan(rpm=120, tpm=3_000, concurrency=6))
        _play(world, steps)
        world.run(until=world.now + 100)
        return msgspec.json.encode(world.grants)

    assert play() == play()
