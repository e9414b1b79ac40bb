"""Sub-tenants: those of one tenant take turns, and nobody else notices."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.scheduler.lanes import LANES_MAX, UNNAMED, Lanes, lane_of
from penstock.scheduler.plan import ClassPlan
from penstock.scheduler.waiting import Waiting
from penstock.units import Estimate, RunPlace, Unit

PLAN = ClassPlan("batch", 0)


def waiting(number: int, sub_tenant: str = "", arrival: float | None = None) -> Waiting:
    place = RunPlace(f"u{number}", float(number) if arrival is None else arrival)
    unit = Unit(f"u{number}", "m", "t", "batch", Estimate(1, 1), place, sub_tenant=sub_tenant)
    made = Waiting(unit, PLAN, number, float(number))
    made.cost_seconds = 1.0
    return made


def take(lanes: Lanes) -> Waiting | None:
    """Grant the head."""
    head, _ = lanes.head()
    if head is not None:
        head.is_waiting = False
        lanes.granted(head)
    return head


def taken(lanes: Lanes, count: int) -> list[Waiting]:
    found = [take(lanes) for _ in range(count)]
    return [one for one in found if one is not None]


def test_one_who_sends_many_does_not_keep_another_waiting() -> None:
    lanes = Lanes()
    for number in range(20):
        lanes.push(waiting(number, "many"))
    lanes.push(waiting(20, "few"))
    assert "few" in [one.unit.sub_tenant for one in taken(lanes, 2)]


def test_two_with_work_get_the_same_and_each_its_own_order() -> None:
    lanes = Lanes()
    for number in range(20):
        lanes.push(waiting(number, "a"))
    for number in range(20, 40):
        lanes.push(waiting(number, "b"))
    order = taken(lanes, 20)
    assert 10 == sum(one.unit.sub_tenant == "a" for one in order)
    for name in ("a", "b"):
        numbers = [one.number for one in order if one.unit.sub_tenant == name]
        assert sorted(numbers) == numbers


def test_who_was_idle_has_saved_up_nothing() -> None:
    lanes = Lanes()
    for number in range(30):
        lanes.push(waiting(number, "a"))
    taken(lanes, 10)
    for number in range(30, 60):
        lanes.push(waiting(number, "b"))
    names = [one.unit.sub_tenant for one in taken(lanes, 10)]
    assert 4 <= names.count("a") <= 6


@given(st.lists(st.integers(0, 5), max_size=30))
def test_a_tenant_who_names_nobody_keeps_its_order(arrivals: list[int]) -> None:
    lanes = Lanes()
    units = [waiting(number, "", float(at)) for number, at in enumerate(arrivals)]
    for one in units:
        lanes.push(one)
    assert sorted(units) == taken(lanes, len(units))


@given(st.lists(st.sampled_from(["push", "take", "cancel", "compact"]), max_size=60), st.data())
def test_every_unit_that_is_not_cancelled_goes_once(steps: list[str], data: st.DataObject) -> None:
    lanes, alive, gone = Lanes(), [], []
    for number, step in enumerate(steps):
        if step == "push":
            alive.append(waiting(number, data.draw(st.sampled_from(["", "a", "b", "c"]))))
            lanes.push(alive[-1])
        elif step == "cancel" and alive:
            alive.pop(data.draw(st.integers(0, len(alive) - 1))).is_waiting = False
        elif step == "compact":
            lanes.compact()
        elif step == "take" and (head := take(lanes)) is not None:
            alive.remove(head)
            gone.append(head)
    rest = taken(lanes, len(alive) + 1)
    assert {one.number for one in rest} == {one.number for one in alive}
    assert len({one.number for one in gone + rest}) == len(gone) + len(rest)


def test_lanes_are_bounded_and_the_unnamed_have_their_own() -> None:
    named = {lane_of(waiting(number, f"user {number}").unit) for number in range(1000)}
    assert set(range(LANES_MAX)) == named
    assert UNNAMED == lane_of(waiting(1).unit)


def test_the_scheduler_lets_sub_tenants_take_turns(world_type) -> None:
    world = world_type(world_type.plan(rpm=60, burst_seconds=1))
    world.submit(*[world.unit("interactive", sub_tenant="many") for _ in range(20)])
    late = world.unit("interactive", sub_tenant="few")
    world.submit(late)
    world.run(until=5.0)
    assert late.unit_id in [grant.unit_id for grant in world.grants[:4]]


def test_a_user_s_call_is_not_refused_for_what_another_user_of_its_tenant_has_waiting(
    world_type,
) -> None:
    world = world_type(world_type.plan(rpm=60, burst_seconds=1))
    world.submit(*[world.unit("interactive", sub_tenant="many") for _ in range(20)])
    soon = world.unit("interactive", sub_tenant="few", deadline=4.0)
    assert not world.submit(soon).refusals
    assert world.scheduler.position(soon.unit_id) == 2
    world.run(until=4.0)
    assert soon.unit_id in [grant.unit_id for grant in world.grants]
    same = world.unit("interactive", sub_tenant="many", deadline=world.now + 4.0)
    assert world.submit(same).refusals


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.sampled_from("abcd"))
def test_where_a_newcomer_stands_is_told_by_its_lane(names: list[str], name: str) -> None:
    """Within one turn of each lane; what waits in one alone is counted exactly."""
    lanes = Lanes()
    for number, sub_tenant in enumerate(names):
        lanes.push(waiting(number, sub_tenant))
    newcomer = waiting(len(names), name)
    told = lanes.ahead_of(newcomer, len(names))
    lanes.push(newcomer)
    ahead = 0
    while take(lanes) is not newcomer:
        ahead += 1
    assert abs(told - ahead) <= len(set(names) - {name})
    if set(names) == {name}:
        assert told == ahead


def test_who_is_behind_another_s_thousand_is_not_told_of_them() -> None:
    lanes = Lanes()
    for number in range(1_000):
        lanes.push(waiting(number, "many"))
    assert lanes.ahead_of(waiting(1_000, "few"), 1_000) == 1
    assert lanes.ahead_of(waiting(1_000, "many"), 1_000) == 1_000
