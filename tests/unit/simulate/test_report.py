"""Figures and gates: what is counted, and when a bound does not hold."""

from __future__ import annotations

import msgspec
import pytest

from penstock.simulate.disturbances import Disturbances, Span
from penstock.simulate.policies.table import NEEDED
from penstock.simulate.provider_world import ProviderLimits
from penstock.simulate.report import gates, play, spread, table
from penstock.simulate.slots import use_of_slots

LIMITS = ProviderLimits(rpm=600, burst_seconds=10)


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed():
    found = spread(float(n) for n in range(100, 0, -1))

    assert (found.p50, found.p95, found.p99, found.maximum) == (50.0, 95.0, 99.0, 100.0)
    assert found.mean == 50.5
    assert spread([]).count == 0


def test_use_and_loss_are_shares_of_the_refill(worlds):
    """Ten requests a second for 60 s: 300 come at once, 200 s' worth of bucket is one bucket."""
    runs = [worlds.run(f"b{n}", 30.0, "batch") for n in range(300)]
    scenario = worlds.scenario(runs, LIMITS, seconds=60.0)
    fifo = play(scenario, "fifo")

    assert fifo.binding == "rpm"
    assert fifo.use == pytest.approx(0.5, abs=0.01)
    assert fifo.lost <= 0.005, "what was lost before anybody came does not count"


def test_what_a_bucket_holds_more_in_the_end_was_not_used_and_is_not_lost(worlds):
    """An urgent burst empties it just before the counted time; in that it fills again."""
    runs = [worlds.run(f"b{n}", 21.0 * (n % 2), "batch") for n in range(900)]
    runs += [worlds.run(f"i{n}", 19.0) for n in range(100)]
    noisy = Disturbances(estimate_noise=0.01)
    scenario = worlds.scenario(
        runs, LIMITS, seconds=60.0, settling_seconds=20.0, disturbances=noisy
    )
    found = played(scenario)
    ours = found["penstock"]
    [use] = [gate for gate in gates(found, scenario) if gate.name == "use"]

    assert ours.use == pytest.approx(0.8, abs=0.05)
    assert ours.lost == 0.0
    assert use.value == ours.use + ours.saved == pytest.approx(1.0, abs=0.01)
    assert use.holds


def test_refill_that_is_lost_while_somebody_waits_is_counted(worlds):
    """One worker pool of 32, calls of 10 s: the bucket is full while the others wait."""
    runs = [worlds.run(f"b{n}", 0.0, "batch", output=800) for n in range(200)]
    sdk = play(worlds.scenario(runs, LIMITS, seconds=60.0), "sdk-retries")

    assert 0.4 < sdk.lost < 0.8


def test_what_arrived_before_the_settling_time_is_not_counted(worlds):
    runs = [worlds.run(f"i{n}", float(n)) for n in range(60)]
    scenario = worlds.scenario(runs, LIMITS, seconds=60.0, settling_seconds=20.0)

    assert play(scenario, "penstock").wait.count == 40


def test_jain_looks_at_the_time_in_which_every_tenant_waits(worlds):
    runs = [
        worlds.run(f"{tenant}{n}", 0.0, "batch", tenant=tenant)
        for tenant, calls in (("a", 900), ("b", 300))
        for n in range(calls)
    ]
    scenario = worlds.scenario(runs, LIMITS, seconds=60.0)

    jain = {policy: play(scenario, policy).jain for policy in ("penstock", "fifo")}
    assert jain["penstock"] == pytest.approx(1.0, abs=0.001)
    assert jain["fifo"] is None or jain["fifo"] < 0.8


@pytest.mark.parametrize(("first_tokens", "is_said"), [(100, True), (10_000, False)])
def test_jain_says_nothing_where_one_call_outweighs_the_rest(worlds, first_tokens, is_said):
    """Even where that one went before the others came: it may be paid for while they wait."""
    runs = [worlds.run("first", 0.0, "batch", tokens=first_tokens, tenant="a")]
    runs += [
        worlds.run(f"{tenant}{n}", 15.0, "batch", tenant=tenant)
        for tenant in ("a", "b")
        for n in range(900)
    ]
    limits = ProviderLimits(rpm=600, tpm=60_000, burst_seconds=10)
    scenario = worlds.scenario(runs, limits, seconds=60.0)

    assert is_said == (play(scenario, "penstock").jain is not None)


def test_a_refusal_is_no_failure_and_spoils_the_goodput(worlds):
    runs = [worlds.run(f"s{n}", 1.0, "standard", patience_seconds=5.0) for n in range(300)]
    found = play(worlds.scenario(runs, LIMITS, seconds=60.0), "penstock")

    assert found.failures == 0
    assert found.refused > 50
    assert found.goodput is not None
    assert found.goodput == pytest.approx(1 - found.refused / 300)


def played(scenario):
    return {policy: play(scenario, policy) for policy in NEEDED}


def test_gates_say_by_how_much_they_are_missed(worlds):
    runs = [worlds.run(f"i{n}", n * 0.2, steps=3) for n in range(100)]
    scenario = worlds.scenario(runs, LIMITS)
    found = played(scenario)

    assert all(gate.holds for gate in gates(found, scenario))
    ours = found["penstock"]
    slow = msgspec.structs.replace(
        ours, chain=msgspec.structs.replace(ours.chain, p99=2 * ours.chain.p99), failures=1
    )
    missed = {
        gate.name: gate for gate in gates({**found, "penstock": slow}, scenario) if not gate.holds
    }
    assert missed.keys() == {"chain p99", "failures"}
    assert missed["chain p99"].bound == pytest.approx(1.1 * found["alone-fifo"].chain.p99 + 0.1)


def test_standard_work_need_not_keep_more_deadlines_than_urgent_work_leaves_it(worlds):
    """Urgent calls take the limit for 30 s; half of the standard ones would have to go then."""
    limits = ProviderLimits(rpm=60, burst_seconds=1)
    runs = [worlds.run(f"i{n}", 10.0) for n in range(30)]
    runs += [worlds.run(f"s{n}", 10.0 + n, "standard", patience_seconds=5.0) for n in range(45)]
    scenario = worlds.scenario(runs, limits)
    found = played(scenario)
    [goodput] = [gate for gate in gates(found, scenario) if gate.name == "goodput"]

    assert goodput.bound == found["alone-urgent"].goodput
    assert goodput.bound == pytest.approx(20 / 45, abs=0.1)


@pytest.mark.parametrize(("burst_seconds", "is_small"), [(2.0, True), (10.0, False)])
def test_with_a_small_burst_an_urgent_call_may_wait_for_the_rest_of_a_batch_call(
    worlds, burst_seconds, is_small
):
    """Calls of a second and of half a second: (1 + 1/4) / 2 (1 + 1/2) s are left on average."""
    limits = ProviderLimits(tpm=6_000, burst_seconds=burst_seconds)
    runs = [worlds.run(f"i{n}", float(n), tokens=1, output=1) for n in range(60)]
    runs += [worlds.run(f"b{n}", 0.0, "batch", tokens=50 if n % 2 else 100) for n in range(50)]
    scenario = worlds.scenario(runs, limits)
    found = played(scenario)
    [wait] = [gate for gate in gates(found, scenario) if gate.name == "wait p99"]

    alone = found["alone-fifo"].wait_single.p99
    residual = 1.25 / 3.0 if is_small else 0.0
    assert wait.bound == pytest.approx(1.15 * alone + 0.1 + residual)


def test_a_storm_has_to_be_over_soon_after_its_end(worlds):
    storm = Disturbances(storm=Span(10.0, 15.0))
    runs = [worlds.run(f"i{n}", n * 0.5, steps=2) for n in range(100)]
    scenario = worlds.scenario(runs, LIMITS, disturbances=storm)
    found = played(scenario)
    held = {gate.name: gate for gate in gates(found, scenario)}

    assert held["chain p99"].bound == pytest.approx(1.25 * found["alone-fifo"].chain.p99 + 16.0)
    assert held["lost"].bound == pytest.approx((5.0 + 15.0) / 60.0)


def test_where_slots_bind_their_use_is_counted_and_the_next_free_one_may_be_waited_for(worlds):
    """Two slots, calls of a second: twenty of them hold both for ten seconds."""
    limits = ProviderLimits(rpm=6_000, concurrency=2)
    runs = [worlds.run(f"i{n}", 20.0, output=56) for n in range(20)]
    scenario = worlds.scenario(runs, limits)
    found = played(scenario)

    ours = found["penstock"]
    assert ours.binding == "concurrency"
    assert ours.use == pytest.approx(20 * 1.042 / (2 * 60.0), abs=0.005)
    assert ours.lost == 0.0
    held = {gate.name: gate for gate in gates(found, scenario)}
    assert held["wait p99"].bound == pytest.approx(
        1.15 * found["alone-fifo"].wait_single.p99 + 0.1 + 4.605 * 1.042 / 2, abs=0.01
    )


def test_a_days_limit_binds_only_where_the_day_is_used_up(worlds):
    """Its bucket holds a day: 90 requests of 100 are no reason to look at its rate of 0.001/s."""
    runs = [worlds.run(f"i{n}", n * 0.5) for n in range(90)]
    roomy, scarce = (
        play(worlds.scenario(runs, ProviderLimits(rpm=100, rpd=rpd)), "alone-fifo")
        for rpd in (1_000, 60)
    )

    assert (roomy.binding, scarce.binding) == ("rpm", "rpd")
    assert scarce.use == pytest.approx(1.0, abs=0.02)


def test_a_free_slot_is_lost_while_somebody_waits(worlds):
    runs = [worlds.run(f"i{n}", 20.0, output=56) for n in range(3)]
    scenario = worlds.scenario(runs, ProviderLimits(rpm=60, concurrency=2, burst_seconds=1))
    simulation, _ = worlds.played(scenario, "alone-fifo")

    _, lost = use_of_slots(scenario, simulation.record.calls)
    assert lost == pytest.approx((1.0 + 1.0) / 120.0, abs=0.005), "one is sent each second"


def test_the_bound_on_batch_waits_knows_windows(worlds):
    """A window that urgent calls have used up keeps batch out until its end."""
    limits = ProviderLimits(rpm=60, fixed_window=True)
    runs = [worlds.run("b0", 61.0, "batch")]
    runs += [worlds.run(f"i{n}", 60.5) for n in range(60)]
    ours = play(worlds.scenario(runs, limits, seconds=180.0), "penstock")

    assert ours.wait_batch.maximum > 50.0
    assert ours.wait_batch_over_bound < 1.0


def test_a_table_has_a_cell_for_each_head(worlds):
    found = [play(worlds.scenario([worlds.run("i", 0.0)], LIMITS), "penstock")]
    lines = table(found)

    assert {len(line) for line in lines} == {len(lines[0])}


def test_refill_that_another_limit_kept_from_being_used_is_not_lost(worlds):
    """Requests are used up: the tokens that nobody could have taken are no fault of the order."""
    limits = ProviderLimits(rpm=60, tpm=600_000, burst_seconds=5)
    runs = [worlds.run(f"b{n}", 0.0, "batch", tokens=100) for n in range(300)]
    scenario = worlds.scenario(runs, limits, seconds=60.0)
    simulation, _ = worlds.played(scenario, "fifo")

    lost = simulation.record.marks[1]
    assert simulation.worlds[0].account(60.0, "tpm").unused > 300_000
    assert lost[0, "tpm"][1] < 0.02 * 600_000
