"""What a provider enforces, stated as properties and as its own published examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.simulate.provider_world import (
    ANTHROPIC_CHARGE,
    AZURE_CHARGE,
    CLOCK_TOLERANCE_SECONDS,
    OPENAI_CHARGE,
    Admitted,
    Denied,
    ProviderCall,
    ProviderLimits,
    ProviderWorld,
)
from penstock.units import ChargeModel, LimitName, Usage

CHARGES = st.sampled_from([OPENAI_CHARGE, AZURE_CHARGE, ANTHROPIC_CHARGE])
CALLS = st.builds(
    ProviderCall,
    tokens_input=st.integers(1, 400),
    tokens_output_max=st.none() | st.integers(1, 400),
)
ARRIVALS = st.lists(
    st.tuples(st.floats(0, 20, allow_nan=False), CALLS, st.booleans()), min_size=1, max_size=80
)
"""Seconds since the call before, the call, and whether the oldest call in flight ends first."""

BUCKETS = st.builds(
    ProviderLimits,
    rpm=st.none() | st.floats(1, 600),
    tpm=st.none() | st.floats(50, 20_000),
    itpm=st.none() | st.floats(50, 20_000),
    rpd=st.none() | st.floats(1, 50),
    concurrency=st.none() | st.integers(1, 5),
    burst_seconds=st.floats(0.5, 120),
)
ANY_LIMITS = st.builds(
    ProviderLimits,
    rpm=st.none() | st.floats(1, 600),
    tpm=st.none() | st.floats(50, 20_000),
    itpm=st.none() | st.floats(50, 20_000),
    otpm=st.none() | st.floats(50, 20_000),
    rpd=st.none() | st.floats(1, 50),
    concurrency=st.none() | st.integers(1, 5),
    burst_seconds=st.floats(0.5, 120),
    quantum_seconds=st.none() | st.sampled_from([1.0, 10.0]),
    fixed_window=st.booleans(),
)


def play(
    limits: ProviderLimits,
    charge: ChargeModel,
    arrivals: list[tuple[float, ProviderCall, bool]],
    start: float = 1000.0,
) -> list[tuple[float, ProviderCall]]:
    """The calls that were admitted, and when."""
    world = ProviderWorld(limits, charge, start)
    now, admitted, flying = start, [], []
    for gap, call, oldest_ends in arrivals:
        now += gap
        if oldest_ends and flying:
            world.finished(now, flying.pop(0), None)
        decision = world.admit(now, call)
        if isinstance(decision, Admitted):
            admitted.append((now, call))
            flying.append(decision)
        assert world.counters.in_flight == len(flying)
        assert limits.concurrency is None or len(flying) <= limits.concurrency
    return admitted


def assert_within(sent: list[tuple[float, float]], rate: float, capacity: float) -> None:
    """In every window [t, t+w] no more than capacity + rate * w."""
    for first in range(len(sent)):
        total = 0.0
        for at, amount in sent[first:]:
            total += amount
            span = at - sent[first][0] + CLOCK_TOLERANCE_SECONDS
            assert total <= capacity + rate * span + 1e-6


@given(limits=BUCKETS, arrivals=ARRIVALS)
def test_no_window_admits_more_than_capacity_and_refill(limits, arrivals):
    admitted = play(limits, AZURE_CHARGE, arrivals)

    def charged(call: ProviderCall) -> int:
        return call.tokens_input + (call.tokens_output_max or 0)

    for amount, period, of in (
        (limits.rpm, 60, lambda call: 1),
        (limits.rpd, 86_400, lambda call: 1),
        (limits.tpm, 60, charged),
        (limits.itpm, 60, lambda call: call.tokens_input),
    ):
        if amount is not None:
            rate = amount / period
            held = limits.burst_seconds if period == 60 else period
            assert_within([(at, of(call)) for at, call in admitted], rate, max(1, rate * held))


@given(
    rpm=st.integers(1, 100),
    quantum=st.none() | st.sampled_from([1.0, 10.0]),
    arrivals=ARRIVALS,
)
def test_a_fixed_window_and_its_sub_windows_hold_no_more_than_their_share(rpm, quantum, arrivals):
    limits = ProviderLimits(rpm=rpm, quantum_seconds=quantum, fixed_window=True)
    admitted = play(limits, OPENAI_CHARGE, arrivals, start=0.0)

    for period in filter(None, (60.0, quantum)):
        held: dict[int, int] = {}
        for at, _ in admitted:
            index = int((at + CLOCK_TOLERANCE_SECONDS) // period)
            held[index] = held.get(index, 0) + 1
        assert max(held.values()) <= max(1, rpm * period // 60)


@given(limits=ANY_LIMITS, charge=CHARGES, arrivals=ARRIVALS)
def test_a_retry_at_the_told_time_is_admitted(limits, charge, arrivals):
    world = ProviderWorld(limits, charge, 1e6)
    now = 1e6
    for gap, call, _ in arrivals:
        now += gap
        decision = world.admit(now, call)
        if isinstance(decision, Denied) and decision.retry_after_seconds is not None:
            assert decision.retry_after_seconds > 0
            now += decision.retry_after_seconds
            decision = world.admit(now, call)
            assert isinstance(decision, Admitted)
        if isinstance(decision, Admitted):
            world.produced(now, decision, 50)
            world.finished(now, decision, Usage(tokens_input=call.tokens_input))


@given(limits=BUCKETS, arrivals=ARRIVALS)
def test_a_retry_well_before_the_told_time_is_denied(limits, arrivals):
    world = ProviderWorld(limits, OPENAI_CHARGE, 0.0)
    now = 0.0
    for gap, call, _ in arrivals:
        now += gap
        decision = world.admit(now, call)
        if isinstance(decision, Denied) and decision.retry_after_seconds is not None:
            early = now + 0.99 * decision.retry_after_seconds - 10 * CLOCK_TOLERANCE_SECONDS
            assert early <= now or isinstance(world.admit(early, call), Denied)
            return


@given(limits=ANY_LIMITS, charge=CHARGES, arrivals=ARRIVALS)
def test_what_is_told_to_remain_is_never_above_the_limit_or_below_zero(limits, charge, arrivals):
    world = ProviderWorld(limits, charge, 0.0)
    now = 0.0
    for gap, call, _ in arrivals:
        now += gap
        world.admit(now, call)
        for reading in world.remaining(now).values():
            held = max(1.0, reading.capacity * max(1.0, limits.burst_seconds / 60)) + 1e-6
            assert 0 <= reading.remaining <= held
            assert reading.reset_seconds is None or reading.reset_seconds >= 0


def test_the_delay_is_the_one_of_a_published_example():
    """Limit 10000, Used 8554, Requested 3082: please try again in 9.816s."""
    world = ProviderWorld(ProviderLimits(tpm=10_000), AZURE_CHARGE)
    world.admit(0.0, ProviderCall(tokens_input=8_554))

    denied = world.admit(0.0, ProviderCall(tokens_input=2_082, tokens_output_max=1_000))

    assert isinstance(denied, Denied)
    assert (LimitName.TPM, 10_000, 1_446, 3_082) == (
        denied.limit,
        denied.capacity,
        denied.remaining,
        denied.requested,
    )
    assert denied.retry_after_seconds == pytest.approx(9.816)


def test_openai_gives_back_neither_unused_output_nor_a_failed_request():
    world = ProviderWorld(ProviderLimits(rpm=60, tpm=6_000))
    call = world.admit(0.0, ProviderCall(tokens_input=100, tokens_output_max=900))
    assert isinstance(call, Admitted)
    world.produced(0.0, call, 5)
    world.finished(0.0, call, Usage(tokens_input=50, tokens_output=5))

    readings = world.remaining(0.0)

    assert readings[LimitName.TPM].remaining == 5_100
    assert readings[LimitName.RPM].remaining == 59
    assert readings[LimitName.TPM].reset_seconds == pytest.approx(9.0)


def test_a_failed_call_stays_counted_unless_the_charge_model_says_otherwise():
    for counts, expected in ((True, 59), (False, 60)):
        world = ProviderWorld(ProviderLimits(rpm=60), ChargeModel(failed_requests_count=counts))
        call = world.admit(0.0, ProviderCall(tokens_input=1))
        assert isinstance(call, Admitted)
        world.finished(0.0, call, None)

        assert expected == world.remaining(0.0)[LimitName.RPM].remaining


def test_anthropic_corrects_input_and_charges_output_as_it_is_produced():
    world = ProviderWorld(ProviderLimits(itpm=6_000, otpm=600), ANTHROPIC_CHARGE)
    call = world.admit(0.0, ProviderCall(tokens_input=1_000, tokens_output_max=100_000))
    assert isinstance(call, Admitted)
    assert world.remaining(0.0)[LimitName.OTPM].remaining == 600
    world.produced(0.0, call, 40)
    world.finished(0.0, call, Usage(tokens_input=900, tokens_output=40, tokens_input_cached=300))

    readings = world.remaining(0.0)

    assert readings[LimitName.ITPM].remaining == 5_400
    assert readings[LimitName.OTPM].remaining == 560


def test_output_over_its_limit_holds_back_the_next_call_and_not_the_one_that_speaks():
    world = ProviderWorld(ProviderLimits(otpm=60), ANTHROPIC_CHARGE)
    call = world.admit(0.0, ProviderCall(tokens_input=1))
    assert isinstance(call, Admitted)
    world.produced(0.0, call, 90)

    denied = world.admit(0.0, ProviderCall(tokens_input=1))

    assert isinstance(denied, Denied)
    assert denied.limit is LimitName.OTPM
    assert denied.retry_after_seconds == pytest.approx(31.0)


def test_a_call_larger_than_the_bucket_is_told_that_waiting_does_not_help():
    world = ProviderWorld(ProviderLimits(tpm=6_000, burst_seconds=10))

    denied = world.admit(0.0, ProviderCall(tokens_input=1_001))

    assert isinstance(denied, Denied)
    assert denied.too_large
    assert denied.retry_after_seconds is None


def test_a_denied_call_is_charged_nothing():
    world = ProviderWorld(ProviderLimits(rpm=60, tpm=600))
    world.admit(0.0, ProviderCall(tokens_input=600))
    assert isinstance(world.admit(0.0, ProviderCall(tokens_input=1)), Denied)

    assert world.remaining(0.0)[LimitName.RPM].remaining == 59
    assert world.counters.denied == {LimitName.TPM: 1}


def test_a_call_is_finished_once():
    world = ProviderWorld(ProviderLimits(concurrency=1))
    call = world.admit(0.0, ProviderCall(tokens_input=1))
    assert isinstance(call, Admitted)
    world.finished(0.0, call, None)

    with pytest.raises(ValueError, match="exactly once"):
        world.finished(0.0, call, None)
    assert world.counters.in_flight == 0


def test_a_sub_window_spreads_requests_within_the_minute():
    """600 RPM over 1 s: ten at once, the eleventh waits for the next second."""
    world = ProviderWorld(ProviderLimits(rpm=600, quantum_seconds=1.0))
    call = ProviderCall(tokens_input=1)
    assert all(isinstance(world.admit(0.25, call), Admitted) for _ in range(10))

    denied = world.admit(0.25, call)

    assert isinstance(denied, Denied)
    assert denied.limit is LimitName.RPM
    assert denied.retry_after_seconds == pytest.approx(0.75)


@pytest.mark.parametrize("name", ["rpm", "tpm", "itpm", "otpm", "rpd"])
def test_a_limit_of_zero_is_refused(name):
    with pytest.raises(ValueError, match="above 0"):
        ProviderWorld(ProviderLimits(**{name: 0}))
