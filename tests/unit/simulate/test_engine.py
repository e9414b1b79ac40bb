"""The engine: a call's way in virtual time, the same for every policy; determinism."""

from __future__ import annotations

import pytest

from penstock.simulate.disturbances import Disturbances, Span
from penstock.simulate.engine import Simulation
from penstock.simulate.policies.table import POLICIES
from penstock.simulate.provider_world import ANTHROPIC_CHARGE, ProviderLimits
from penstock.simulate.runs import Ending
from penstock.simulate.scenario import Timing

WIDE = ProviderLimits(rpm=60_000, tpm=60_000_000)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "langchain-limiter"])
def test_an_unhindered_run_takes_its_ways_its_service_and_its_tools(worlds, policy):
    timing = Timing(0.02, 0.0, 0.3, 1e-4, 80.0)
    run = worlds.run("r", 5.0, tokens=1_000, output=40, steps=3, tool_seconds=2.0)
    simulation, _ = worlds.played(worlds.scenario([run], WIDE, timing=timing), policy)

    last = simulation.record.calls[-1]
    one = 0.02 + 0.3 + 0.1 + 0.5 + 0.02
    assert last.ended_at == pytest.approx(5.0 + 3 * one + 2 * 2.0)
    assert [call.ready_at for call in simulation.record.calls] == pytest.approx(
        [5.0, 5.0 + one + 2.0, 5.0 + 2 * (one + 2.0)]
    )
    assert {call.ending for call in simulation.record.calls} == {Ending.SUCCESS}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_decisions_and_another_seed_others(worlds, policy):
    limits = ProviderLimits(rpm=600, tpm=60_000, burst_seconds=5)
    runs = [worlds.run(f"i{n}", n * 0.3, tokens=900) for n in range(150)]
    runs += [worlds.run(f"b{n}", 1.0, "batch", tokens=900) for n in range(100)]

    def digest(seed: int) -> str:
        timing = Timing()
        disturbances = Disturbances(estimate_noise=0.3, hidden_share=0.1)
        scenario = worlds.scenario(
            runs, limits, seed=seed, timing=timing, disturbances=disturbances
        )
        return worlds.played(scenario, policy)[1]

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_a_failed_run_has_no_further_steps(worlds):
    """Ten requests a minute and nobody to wait for: an SDK gives up, and its run ends there."""
    outage = Disturbances(outage=Span(0.0, 10_000.0))
    scenario = worlds.scenario([worlds.run("r", 0.0, steps=3)], WIDE, disturbances=outage)
    simulation, _ = worlds.played(scenario, "sdk-retries")

    assert [call.ending for call in simulation.record.calls] == [Ending.GAVE_UP]
    assert simulation.record.calls[0].attempts == 18


def test_output_is_charged_while_it_is_produced_where_the_provider_does_so(worlds):
    limits = ProviderLimits(otpm=600)
    run = worlds.run("r", 0.0, tokens=1, output=800)
    scenario = worlds.scenario([run], limits, charge=ANTHROPIC_CHARGE, seconds=20.0)
    simulation = Simulation(scenario, POLICIES["fifo"].make, with_picture=True)
    simulation.run()

    taken = [600 - sample.levels[0]["otpm"] for sample in simulation.record.samples]
    assert simulation.worlds[0].counters.tokens_produced == 800
    assert len({round(amount) for amount in taken if amount > 0}) > 5, "not all at once"


def test_a_hidden_consumer_takes_its_share(worlds):
    limits = ProviderLimits(tpm=600_000)
    disturbances = Disturbances(hidden_share=0.1)
    scenario = worlds.scenario(
        [worlds.run("r", 0.0)], limits, seconds=600.0, disturbances=disturbances
    )
    simulation, _ = worlds.played(scenario, "fifo")

    taken = simulation.worlds[0].account(600.0, "tpm").taken
    assert taken == pytest.approx(600_000, rel=0.1)


def test_a_storm_and_an_outage_are_answered_by_refusals_and_end(worlds):
    runs = [worlds.run(f"r{n}", float(n)) for n in range(60)]
    for disturbances, counted in (
        (Disturbances(storm=Span(10.0, 20.0), storm_share=1.0), "answers_429"),
        (Disturbances(outage=Span(10.0, 20.0)), "answers_failed"),
    ):
        scenario = worlds.scenario(runs, WIDE, disturbances=disturbances)
        simulation, _ = worlds.played(scenario, "penstock")

        assert getattr(simulation.record, counted) >= 1
        assert {call.ending for call in simulation.record.calls} == {Ending.SUCCESS}


def test_estimates_are_noisy_by_the_call_and_the_same_under_every_policy(worlds):
    disturbances = Disturbances(estimate_noise=0.3)
    runs = [worlds.run(f"r{n}", n * 0.1, tokens=1_000) for n in range(200)]
    scenario = worlds.scenario(runs, WIDE, disturbances=disturbances)
    estimates = [
        {
            call.name: call.tokens_input_estimated
            for call in worlds.played(scenario, policy)[0].record.calls
        }
        for policy in ("fifo", "sdk-retries")
    ]

    assert estimates[0] == estimates[1]
    assert len(set(estimates[0].values())) > 100
    assert sum(estimates[0].values()) / 200 == pytest.approx(1_000 * 1.046, rel=0.1)
