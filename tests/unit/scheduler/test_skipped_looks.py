"""Nothing is missed by not looking: where nothing has changed, nothing could go."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.limits.pool import LimitsPlan
from penstock.scheduler.events import Cancelled, Failed, Limited, Overloaded
from penstock.units import LimitName


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["interactive", "standard", "batch"]),
            st.sampled_from(["a", "b", "c"]),
            st.integers(1, 3_000),
            st.floats(0.0, 4.0),
            st.sampled_from(["", "", "cancel", "fail", "limited", "overloaded"]),
        ),
        max_size=60,
    )
)
def test_what_is_not_looked_at_could_not_have_gone(world_type, steps):
    """After each tick, whether it looked or not, a forced look grants nothing more."""

    class Checking(world_type):
        def tick(self, *events):
            decisions = super().tick(*events)
            if decisions.wake_at is not None and decisions.wake_at - self.now < 1e-9:
                return decisions  # It looks in a moment: what rounding leaves.
            for domain in self.scheduler.domains:
                domain.changed()
            assert [] == self.scheduler.tick(self.now).grants
            return decisions

    plan = msgspec.structs.replace(
        world_type.plan(rpm=120, tpm=60_000, burst_seconds=5, concurrency=6),
        tenant_limits={"c": LimitsPlan({LimitName.RPM: 30.0}, 2)},
    )
    world = Checking(plan)
    for class_name, tenant, tokens, seconds, kind in steps:
        unit = world.unit(class_name, tenant, tokens=tokens)
        world.submit(unit)
        if kind == "cancel":
            world.tick(Cancelled(unit.unit_id))
        elif kind == "fail":
            world.tick(Failed(unit.unit_id, requeue=True))
        elif kind == "limited":
            world.tick(Limited("one", 1.0, LimitName.TPM))
        elif kind == "overloaded":
            world.tick(Overloaded("one", 1.0))
        world.run(until=world.now + seconds)
    world.run(until=world.now + 300.0)
    assert 0 == world.scheduler.waiting_count
