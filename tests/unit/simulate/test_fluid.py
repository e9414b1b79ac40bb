"""The fluid limit: nobody waits less than it says, and nobody uses more."""

from __future__ import annotations

from random import Random

import pytest

from penstock.simulate.fluid import use_at_most
from penstock.simulate.policies.table import POLICIES
from penstock.simulate.provider_world import ProviderLimits
from penstock.simulate.report import play


@pytest.mark.parametrize("fixed_window", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_nobody_beats_it(worlds, seed, fixed_window):
    chance = Random(seed)
    runs = [
        worlds.run(f"{name}{n}", chance.uniform(0, 60), name, tokens=chance.randint(1, 2_000))
        for name, count in (("interactive", 200), ("batch", 300))
        for n in range(count)
    ]
    limits = ProviderLimits(tpm=100_000, rpm=300, burst_seconds=3, fixed_window=fixed_window)
    scenario = worlds.scenario(runs, limits)
    found = {policy: play(scenario, policy) for policy in POLICIES}
    fluid = found.pop("fluid")

    assert fluid.wait.maximum > 5.0
    assert fluid.wait.maximum <= found["alone-fifo"].wait.maximum
    for policy, figures in found.items():
        assert figures.use <= fluid.use + 1e-9, policy


def test_a_call_begins_when_all_before_it_has_passed(worlds):
    """A thousand tokens a second and as many at once; calls of 600: each begins 0.6 s later."""
    limits = ProviderLimits(tpm=60_000, burst_seconds=1)
    scenario = worlds.scenario([worlds.run(f"i{n}", 0.0, tokens=600) for n in range(4)], limits)
    simulation = POLICIES["fluid"].simulation(scenario)
    simulation.run()

    waits = [call.accepted_at - call.ready_at for call in simulation.record.calls]
    assert waits == pytest.approx([0.0, 0.0, 0.2, 0.8], abs=0.01)


def test_use_is_bounded_by_what_is_asked_and_by_what_there_is(worlds):
    limits = ProviderLimits(rpm=60, burst_seconds=12)
    few = worlds.scenario([worlds.run("i", 0.0)], limits)
    many = worlds.scenario([worlds.run(f"i{n}", 0.0) for n in range(500)], limits)

    assert use_at_most(few, "rpm") == pytest.approx(1 / 60)
    assert use_at_most(many, "rpm") == pytest.approx(72 / 60)
