"""A line is kept lazily; what it says is what looking at everybody would say."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from penstock.scheduler.fairness import FairQueue
from penstock.scheduler.plan import ClassPlan
from penstock.scheduler.waiting import Waiting
from penstock.units import Estimate, RunPlace, Unit

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
