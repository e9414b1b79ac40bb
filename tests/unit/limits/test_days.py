"""What of a day's limit is kept for more urgent classes, and that the rest is everybody's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.limits.days import (
    LEARNING_SECONDS,
    LEARNING_SHARE,
    LEAST_SHARE,
    MARGIN,
    MEMORY_SECONDS,
    DayBucket,
    kept_amount,
)
from penstock.limits.pool import LimitsPlan, Pool
from penstock.scheduler.plan import ClassPlan
from penstock.units import PERIOD_SECONDS, LimitName, LimitReading

URGENT = ClassPlan("interactive", 0)
BATCH = ClassPlan("batch", 2, reserve=1.0)
BATCH_WITH_SHARE = ClassPlan("batch", 2, reserve=1.0, min_share=0.05)
DAY_SECONDS = PERIOD_SECONDS[LimitName.RPD]


def pool_of(rpd: float = 3_500.0, now: float = 0.0) -> Pool:
    """A pool with a day's limit alone."""
    return Pool(LimitsPlan({LimitName.RPD: rpd}), now)


def take(pool: Pool, plan: ClassPlan, now: float, amount: float = 1.0) -> bool:
    """Take an amount for a class, if it may."""
    amounts = {LimitName.RPD: amount}
    if pool.fit(amounts, plan.reserve, now, plan).ready_at > now:
        return False
    pool.reserve(amounts, now, plan)
    return True


@given(st.floats(1e-4, 10.0), st.floats(0.1, 1_000.0), st.floats(1e-4, 10.0), st.floats(0.0, 1.0))
def test_what_is_kept_lasts_until_the_level_is_back(rate, piece, refill, part):
    """Mean and deviations of the demand fit into it and the refill, at any time until then."""
    capacity = refill * DAY_SECONDS
    kept = kept_amount(rate, piece, refill, capacity)
    seconds = part * (capacity - kept) / refill

    demand = rate * seconds + MARGIN * math.sqrt(piece * rate * seconds)
    assert 0 <= kept <= capacity
    assert kept + refill * seconds >= min(demand, capacity) - 1e-6 * capacity


@given(st.floats(1e-3, 10.0), st.floats(1.01, 10.0))
def test_more_demand_keeps_more(rate, factor):
    capacity = DAY_SECONDS
    assert (
        kept_amount(rate, 1.0, 1.0, capacity)
        <= kept_amount(rate * factor, 1.0, 1.0, capacity) + 1e-6 * capacity
    )


STEP = st.tuples(
    st.floats(0.0, 3_000.0), st.sampled_from((URGENT, BATCH, BATCH)), st.floats(0.5, 40.0)
)


@settings(deadline=None)
@given(st.lists(STEP, max_size=150), st.floats(50.0, 5_000.0))
def test_a_less_urgent_class_never_takes_what_is_kept(steps, rpd):
    pool, now = pool_of(rpd), 0.0
    day = pool.days[LimitName.RPD]
    for seconds, plan, amount in steps:
        now += seconds
        kept = day.kept(plan, now)
        if take(pool, plan, now, amount):
            assert day.level >= kept - 1e-6 * rpd
            assert day.level >= -1e-6 * rpd


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 600.0), max_size=100), st.floats(500.0, 5_000.0))
def test_all_is_usable_when_demand_has_faded(gaps, rpd):
    """After urgent calls in any pattern, and some hours without, batch may take all but calls."""
    pool, now = pool_of(rpd), 0.0
    for gap in gaps:
        now += gap
        take(pool, URGENT, now)
    now += 10 * MEMORY_SECONDS
    while take(pool, BATCH, now):
        pass

    assert pool.days[LimitName.RPD].level <= 1.0 + MARGIN**2 / 6 + 0.02 * rpd


def test_without_any_forecast_a_share_is_kept_for_minutes_only():
    pool = pool_of(1_000.0)
    taken = sum(take(pool, BATCH, 0.0) for _ in range(1_000))
    assert taken == pytest.approx((1 - LEARNING_SHARE) * 1_000, abs=1)

    taken += sum(take(pool, BATCH, LEARNING_SECONDS) for _ in range(1_000))
    refilled = LEARNING_SECONDS * 1_000 / DAY_SECONDS
    assert taken == pytest.approx((1 - LEAST_SHARE) * 1_000 + refilled, abs=1)


def test_the_most_urgent_class_may_use_everything_at_once():
    pool = pool_of(1_000.0)
    assert sum(take(pool, URGENT, 0.0) for _ in range(1_001)) == 1_000


def test_a_class_has_its_share_of_the_refill_below_what_is_kept():
    """After a rush that used up most of the day batch is neither starved nor given more."""
    pool = pool_of(1_000.0)
    assert all(take(pool, URGENT, 0.0) for _ in range(800))
    taken = sum(take(pool, BATCH_WITH_SHARE, float(second)) for second in range(10_000))

    share = BATCH_WITH_SHARE.min_share * 1_000 * 10_000 / DAY_SECONDS
    assert share - 1 <= taken <= share + 1


def test_the_last_class_leaves_more_than_the_middle_one_so_that_this_one_finds_something():
    pool = pool_of(1_000.0)
    middle = ClassPlan("standard", 1, reserve=1.0)
    for number in range(10):
        take(pool, URGENT, 7_000.0 * number)
        take(pool, middle, 7_000.0 * number)
    while take(pool, BATCH, 70_000.0):
        pass
    assert sum(take(pool, middle, 70_000.0) for _ in range(1_000)) >= LEAST_SHARE * 1_000 - 1


def test_how_large_a_day_is_is_stated_and_not_concluded_from_a_level_that_does_not_rise():
    """Somebody else takes of it for ten minutes; a minute's bucket would be believed to be full."""
    pool = pool_of(86_400.0)
    day = pool.days[LimitName.RPD]
    for second in range(600):
        take(pool, URGENT, float(second))
        shown = LimitReading(LimitName.RPD, 86_400.0, 40_000.0 - 2 * second)
        pool.observe(shown, sent_at=float(second), now=second + 0.5)
    assert day.capacity == 86_400.0
    assert day.level < 39_000.0


def test_a_refusal_for_the_day_pauses_that_limit_and_leaves_its_size():
    pool = Pool(LimitsPlan({LimitName.RPM: 60.0, LimitName.RPD: 1_000.0}), 0.0)
    assert pool.pause(LimitName.RPD, 600.0, 0.0)

    day = pool.days[LimitName.RPD]
    assert (day.level, day.capacity, day.paused_until) == (0.0, 1_000.0, 600.0)
    assert pool.buckets[LimitName.RPM].paused_until == -math.inf
    assert pool.fit({LimitName.RPD: 1.0}, 0.0, 0.0, URGENT).ready_at == 600.0


def test_a_days_limit_that_only_a_header_shows_is_forecast_too():
    pool = Pool(LimitsPlan(), 0.0)
    pool.observe(LimitReading(LimitName.RPD, 14_400.0, 14_000.0, 2_400.0), sent_at=0.0, now=1.0)

    assert isinstance(pool.buckets[LimitName.RPD], DayBucket)
    assert pool.days[LimitName.RPD].kept(BATCH, 1.0) >= LEARNING_SHARE * 14_000


def test_a_reload_keeps_the_forecast():
    pool = pool_of(1_000.0)
    for second in range(1_000):
        take(pool, URGENT, float(second))
    before = pool.days[LimitName.RPD].kept(BATCH, 1_000.0)
    pool.replan(LimitsPlan({LimitName.RPD: 1_000.0}, algorithm="window"), 1_000.0)

    assert pool.days[LimitName.RPD].kept(BATCH, 1_000.0) == before > 0
    assert not pool_of(1_000.0).days[LimitName.RPD].kept(URGENT, 0.0)


def test_where_no_limit_is_a_days_none_is_looked_at():
    assert not Pool(LimitsPlan({LimitName.RPM: 60.0}), 0.0).days
