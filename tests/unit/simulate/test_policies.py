"""What each policy does, on worlds small enough to work out by hand."""

from __future__ import annotations

import pytest

from penstock.simulate.provider_world import ANTHROPIC_CHARGE, ProviderLimits
from penstock.simulate.runs import Ending

SIX_A_MINUTE = ProviderLimits(rpm=6, burst_seconds=10)
"""One request at once, and one every ten seconds."""


def test_fifo_lets_nobody_pass(worlds):
    runs = [worlds.run("b0", 0.0, "batch"), worlds.run("b1", 0.1, "batch"), worlds.run("i", 0.2)]
    waits = worlds.waits(worlds.scenario(runs, SIX_A_MINUTE), "fifo")

    assert waits["b0.0"] == 0.0
    assert waits["i.0"] == pytest.approx(waits["b1.0"] + 10.0 - 0.1, abs=0.2)


def test_strict_priority_lets_the_urgent_pass_those_who_wait_and_keeps_nothing_back(worlds):
    runs = [worlds.run("b0", 0.0, "batch"), worlds.run("b1", 0.1, "batch"), worlds.run("i", 0.2)]
    waits = worlds.waits(worlds.scenario(runs, SIX_A_MINUTE), "strict-priority")

    assert waits["i.0"] == pytest.approx(9.8, abs=0.2)
    assert waits["b1.0"] == pytest.approx(19.9, abs=0.3)


def test_ours_keeps_the_burst_for_the_urgent(worlds):
    limits = ProviderLimits(rpm=600, burst_seconds=60)
    runs = [worlds.run(f"b{n}", 0.0, "batch") for n in range(2_000)]
    runs += [worlds.run(f"i{n}", 30.0) for n in range(300)]
    waits = worlds.waits(worlds.scenario(runs, limits), "penstock")

    assert max(waits[f"i{n}.0"] for n in range(300)) == 0.0


@pytest.mark.parametrize("charge_output", [0, 500])
def test_the_bound_waits_no_longer_than_anybody(worlds, policy_names, charge_output):
    """FIFO alone, with the provider's own books, has the least longest wait."""
    limits = ProviderLimits(rpm=600, itpm=60_000, otpm=60_000, burst_seconds=5)
    runs = [worlds.run(f"i{n}", 0.0, tokens=500, output=charge_output) for n in range(60)]
    scenario = worlds.scenario(runs, limits, charge=ANTHROPIC_CHARGE)
    bound = max(worlds.waits(scenario.alone(), "alone-fifo").values())

    assert bound > 10.0
    for policy in policy_names():
        assert max(worlds.waits(scenario, policy).values()) > bound - 0.2, policy


def test_shortest_first_shortens_the_mean(worlds):
    limits = ProviderLimits(tpm=60_000, burst_seconds=5)
    runs = [worlds.run(f"i{n}", 0.0, tokens=4_000 if n < 20 else 100) for n in range(60)]
    scenario = worlds.scenario(runs, limits)
    means = [
        sum(worlds.waits(scenario, policy).values()) for policy in ("alone-shortest", "alone-fifo")
    ]

    assert means[0] < 0.5 * means[1]


def test_an_sdk_honours_the_delay_it_is_told(worlds):
    runs = [worlds.run("i0", 0.0), worlds.run("i1", 0.0)]
    waits = worlds.waits(worlds.scenario(runs, SIX_A_MINUTE), "sdk-retries")

    assert waits["i1.0"] == pytest.approx(10.0, abs=0.2)


def test_a_batch_tenant_has_so_many_workers(worlds):
    limits = ProviderLimits(rpm=6_000, tpm=6_000_000)
    runs = [worlds.run(f"b{n}", 0.0, "batch", output=80) for n in range(64)]
    waits = worlds.waits(worlds.scenario(runs, limits), "sdk-retries")

    assert sum(wait == 0.0 for wait in waits.values()) == 32


def test_shares_refuse_a_class_over_its_share_until_the_minute_ends(worlds):
    limits = ProviderLimits(rpm=100)
    runs = [worlds.run(f"i{n}", n * 0.01) for n in range(90)]
    waits = worlds.waits(worlds.scenario(runs, limits), "litellm-shares")

    through = [name for name, wait in waits.items() if wait == 0.0]
    assert len(through) == 80, "four fifths of the limit are first come, first served"
    assert min(wait for wait in waits.values() if wait) == pytest.approx(59.0, abs=0.5)


def test_a_limiter_of_requests_sends_one_at_a_time_in_no_order(worlds):
    limits = ProviderLimits(rpm=60)
    runs = [worlds.run(f"i{n:02}", 0.0) for n in range(20)]
    waits = worlds.waits(worlds.scenario(runs, limits), "langchain-limiter")

    assert sorted(waits.values()) == pytest.approx([n * 1.0 for n in range(20)], abs=1.5)
    assert list(waits.values()) != sorted(waits.values())


def test_a_call_that_can_never_fit_ends(worlds, policy_names):
    limits = ProviderLimits(tpm=60_000, burst_seconds=1)
    for policy in policy_names():
        scenario = worlds.scenario([worlds.run("i", 0.0, tokens=100_000)], limits)
        simulation, _ = worlds.played(scenario, policy)

        assert simulation.record.calls[0].ending in (Ending.GAVE_UP, Ending.REFUSED), policy
