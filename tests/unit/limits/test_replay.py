"""The interval holds the truth, whatever the network did within its bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.limits.replay import ONE_WAY_SECONDS_MAX, REORDER_SECONDS, Send, remaining_interval

RATE = 10.0
GAP = st.one_of(st.just(0.0), st.floats(REORDER_SECONDS * 1.01, 2.0))
WAY = st.floats(0.0, ONE_WAY_SECONDS_MAX)


def _provider(arrivals: list[Send], capacity: float, until: float) -> tuple[list[float], float]:
    """What a provider with a continuous bucket has left after each arrival, and at the end."""
    level, at, after = capacity, 0.0, []
    for arrival in arrivals:
        level = min(capacity, level + RATE * (arrival.at - at)) - arrival.amount
        at = arrival.at
        after.append(level)
    return after, min(capacity, level + RATE * (until - at))


@settings(max_examples=500)
@given(
    calls=st.lists(st.tuples(GAP, WAY, st.floats(0.1, 15)), min_size=1, max_size=30),
    capacity=st.sampled_from([20.0, 100.0, 600.0]),
    observed=st.integers(0, 29),
    rounding=st.sampled_from([0.0, 1.0, 20.0]),
)
def test_the_true_level_lies_in_the_interval(calls, capacity, observed, rounding):
    observed %= len(calls)
    sends, arrivals, at = [], [], 0.0
    for gap, way, amount in calls:
        at += gap
        sends.append(Send(at, amount))
        # What was sent later arrives later: one connection, or a gap above the jitter.
        arrived_at = max(at + way, arrivals[-1].at if arrivals else 0.0)
        arrivals.append(Send(arrived_at, amount))
    now = at + ONE_WAY_SECONDS_MAX
    after, truth = _provider(arrivals, capacity, now)
    remaining = round(after[observed] / rounding) * rounding if rounding else after[observed]

    lowest, highest = remaining_interval(
        remaining,
        rounding=rounding,
        rate=RATE,
        capacity=capacity,
        sends=sends,
        sent_at=sends[observed].at,
        now=now,
    )

    assert lowest - 1e-6 <= truth <= highest + 1e-6


def test_without_jitter_the_interval_is_narrow():
    """What is lost to caution is the refill of the way, not the calls under way."""
    sends = [Send(index * 0.1, 1.0) for index in range(20)]

    lowest, highest = remaining_interval(
        99.0, rounding=0.0, rate=RATE, capacity=100.0, sends=sends, sent_at=0.0, now=2.0
    )

    assert highest - lowest <= RATE * ONE_WAY_SECONDS_MAX + 1e-6
