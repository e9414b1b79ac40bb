"""Which of several deployments a unit goes to: its prompt's, the cheapest, the roomiest."""

from __future__ import annotations

from penstock.limits.pool import LimitsPlan
from penstock.scheduler.affinity import AFFINITIES_MAX, AFFINITY_CHARACTERS_MAX, Affinities
from penstock.scheduler.events import Replanned
from penstock.scheduler.plan import DeploymentPlan, Plan
from penstock.units import Estimate, LimitName, RunPlace, Unit


def deployment(name: str, rpm: float = 60, cost: float = 0.0) -> DeploymentPlan:
    limits = LimitsPlan({LimitName.RPM: rpm}, burst_seconds=60)
    return DeploymentPlan(name, ("m",), limits, cost=cost)


def unit(affinity: str | None, tenant: str = "t") -> Unit:
    return Unit("u", "m", tenant, "batch", Estimate(1, 1), RunPlace("u", 0.0), affinity=affinity)


def test_the_cheaper_deployment_is_taken_while_it_has_room(world_type):
    plan = Plan(world_type.CLASSES, (deployment("dear", cost=5.0), deployment("cheap", cost=1.0)))
    world = world_type(plan)
    world.submit(*[world.unit("interactive") for _ in range(120)])
    names = [grant.deployment for grant in world.grants]
    assert ["cheap"] * 54 == names[:54], "all but what would leave less than a tenth"
    assert ["dear"] * 54 == names[54:108]
    assert {"cheap": 60, "dear": 60} == {name: names.count(name) for name in set(names)}


def test_batch_takes_the_cheap_refill_first_and_the_dear_one_with_what_is_left(world_type):
    plan = Plan(world_type.CLASSES, (deployment("dear", cost=5.0), deployment("cheap", cost=1.0)))
    world = world_type(plan)
    for _ in range(60):  # half of what both refill together
        world.submit(world.unit("batch"))
        world.run(until=world.now + 1.1)
    names = [grant.deployment for grant in world.grants]
    assert 60 == names.count("cheap"), "no dear call while the cheap one has room"


def test_of_equal_cost_the_one_with_most_headroom_takes_the_unit(world_type):
    world = world_type(Plan(world_type.CLASSES, (deployment("a"), deployment("b", rpm=120))))
    world.submit(*[world.unit("interactive") for _ in range(90)])
    names = [grant.deployment for grant in world.grants]
    assert 30 == names.count("a")


def test_a_prompt_that_is_cached_is_worth_more_than_the_price(world_type):
    plan = Plan(world_type.CLASSES, (deployment("dear", cost=5.0), deployment("cheap", cost=1.0)))
    world = world_type(plan)
    world.submit(*[world.unit("interactive") for _ in range(55)])
    world.submit(world.unit("interactive", affinity="talk"))
    assert "dear" == world.grants[-1].deployment
    world.run(until=30.0)
    world.submit(world.unit("interactive", affinity="talk"), world.unit("interactive"))
    assert ["dear", "cheap"] == [grant.deployment for grant in world.grants[-2:]]


def test_a_reload_does_not_send_a_conversation_elsewhere(world_type):
    plan = Plan(world_type.CLASSES, (deployment("a"), deployment("b")))
    world = world_type(plan)
    for _ in range(20):
        world.submit(world.unit(affinity="talk"))
        world.tick(Replanned(plan))
        world.run(until=world.now + 5.0)
    assert 1 == len({grant.deployment for grant in world.grants})


def test_conversations_that_are_remembered_are_bounded_and_those_in_use_stay():
    affinities = Affinities()
    affinities.keep(unit("mine"), "one")
    for number in range(3 * AFFINITIES_MAX):
        affinities.keep(unit(f"talk {number}"), "two")
        if number % 1_000 == 0:
            assert "one" == affinities.of(unit("mine"))
            affinities.keep(unit("mine"), "one")
    assert AFFINITIES_MAX == len(affinities._deployments)
    assert affinities.of(unit("talk 0")) is None
    assert affinities.of(unit("mine", tenant="other")) is None, "a name is its tenant's own"
    affinities.keep(unit("x" * 1_000_000), "one")
    assert AFFINITY_CHARACTERS_MAX == max(len(name) for _, _, name in affinities._deployments)
