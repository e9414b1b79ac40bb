"""A line is kept lazily, and says what looking at everybody would say; whose debts are whose."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.scheduler.events import Settled
from penstock.scheduler.fairness import FairQueue
from penstock.scheduler.plan import ClassPlan
from penstock.scheduler.waiting import Waiting
from penstock.units import ChargeModel, Estimate, RunPlace, Unit, Usage

CLASS = ClassPlan("batch", 0)
TENANTS, MODELS, SUB_TENANTS = ("a", "b", "c"), ("small", "large"), ("", "x", "y")

STEP = st.tuples(
    st.sampled_from(
        ["look", "push", "push", "push", "grant", "grant", "due", "remove", "correct", "beside"]
    ),
    st.sampled_from(TENANTS),
    st.sampled_from(MODELS),
    st.sampled_from(SUB_TENANTS),
    st.floats(-2.0, 2.0),
)


def first_of_all(queue: FairQueue, held: set[str], model: str) -> Waiting | None:
    """The head of the flow with the smallest tag, found by looking at every one."""
    heads = [
        (flow.tag, head.place)
        for tenant, flow in queue._flows.items()
        if tenant not in held and (head := flow.head(model)) is not None
    ]
    return min(heads)[1][3] if heads else None


A_LATER_LANE_WITH_AN_EARLIER_UNIT = [
    ("push", "b", "small", "", 1.0),
    ("push", "a", "small", "x", 0.5),
    ("grant", "a", "small", "", 0.0),
    ("push", "a", "small", "x", -0.9),
    ("push", "a", "small", "y", 1.9),
    ("look", "", "", "", 0.0),
    ("remove", "a", "small", "", 2.0),
    ("look", "", "", "", 0.0),
]
"""The last one goes, whose lane had been given less: the one before it is the first of all."""

THE_SAME_UNSEEN = [
    ("push", "b", "small", "", 1.95),
    *A_LATER_LANE_WITH_AN_EARLIER_UNIT[1:6],
    ("remove", "a", "small", "", 2.0),
    ("push", "b", "small", "", 1.0),
    ("look", "", "", "", 0.0),
]
"""It was the first of its line, and before anybody looks somebody else comes between."""


@example(A_LATER_LANE_WITH_AN_EARLIER_UNIT, 1.5)
@example(THE_SAME_UNSEEN, 1.5)
@given(st.lists(STEP, max_size=80), st.sampled_from([0.0, 1.5]))
def test_the_first_of_a_line_is_the_first_of_all(steps, quantum_seconds):
    """Whatever came before: arrivals, grants in and out of turn, hang-ups, settlements, tenants
    beside the line; and however long nobody looked."""
    queue = FairQueue({"a": 2.0}, quantum_seconds)
    waiting: list[Waiting] = []
    held: set[str] = set()
    for number, (kind, tenant, model, sub_tenant, value) in enumerate(steps):
        if kind == "push":
            place = RunPlace(f"u{number}", value)
            unit = Unit(
                f"u{number}", model, tenant, "batch", Estimate(1, 1), place, None, None, sub_tenant
            )
            waiting.append(Waiting(unit, CLASS, number, 2.0))
            waiting[-1].cost_seconds = abs(value)
            queue.push(waiting[-1])
        elif kind == "grant" and (head := queue.head([model])) is not None:
            waiting.remove(head)
            queue.granted(head)
        elif kind in ("due", "remove") and waiting:
            chosen = waiting.pop(int(abs(value) * len(waiting) / 2.1))
            (queue.granted if kind == "due" else queue.remove)(chosen)
        elif kind == "correct":
            queue.correct(tenant, value)
        elif kind == "beside" and tenant in held:
            held.discard(tenant)
            queue.release(tenant)
        elif kind == "beside" and tenant in queue._flows:
            held.add(tenant)
            queue.hold(tenant)
        held &= {tenant for tenant, flow in queue._flows.items() if flow.is_held}
        for each in MODELS if kind == "look" else ():
            assert queue.head([each]) is first_of_all(queue, held, each)


@pytest.mark.parametrize("are_both_there", [True, False])
def test_what_turned_out_dearer_counts_against_those_who_waited_when_it_went(
    world_type, are_both_there
):
    """A tenant's calls took twice what was expected. One who came later lost nothing by it."""
    plan = world_type.plan(rpm=6_000, tpm=6_000, burst_seconds=10)
    charge = ChargeModel("none", settles_input=True)
    deployment = msgspec.structs.replace(plan.deployments[0], charge=charge)
    world = world_type(msgspec.structs.replace(plan, deployments=(deployment,)), math.inf)
    dear = [world.unit("interactive", "dear", tokens=100) for _ in range(30)]
    other = [world.unit("interactive", "other", tokens=100) for _ in range(30)]
    world.submit(*dear, *(other if are_both_there else ()))
    sent = {grant.unit_id for grant in world.grants}
    gone = [unit for unit in dear if unit.unit_id in sent]
    world.tick(*[Settled(unit.unit_id, Usage(200, 0)) for unit in gone])
    world.submit(*([] if are_both_there else other))
    before = len(world.grants)
    world.run(until=25.0)

    then = [world.units[grant.unit_id].tenant for grant in world.grants[before:]][: len(gone)]
    assert then.count("dear") == pytest.approx(0 if are_both_there else len(gone) / 2, abs=1)
